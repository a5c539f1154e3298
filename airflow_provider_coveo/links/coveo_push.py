"""
The links of tasks to Coveo's Administration Console, and to the page *Push sources*, in Airflow's UI.

A task saves their addresses in XComs when it starts: only the task can always read its connection. So its
links exist while it runs and after it was killed, and no server reads a connection to show them.

Coveo documents the addresses of the Sources page (https://docs.coveo.com/en/35/) and of the Log Browser
(https://docs.coveo.com/en/1864/), but not of a single source or of a filtered Log Browser. So the links open
the pages, where users select the source by its ID or name.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Protocol

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_coveo.coveo.endpoints import console_page
from airflow_provider_coveo.links.push_sources_page import page_address, page_exists

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

log = logging.getLogger(__name__)


class CoveoTask(Protocol):
    """A task with a connection to Coveo."""

    @property
    def hook(self) -> CoveoPushHook:
        """The hook for the task's connection."""


class LinkedTask(CoveoTask, Protocol):
    """A task whose links are saved."""

    @property
    def operator_extra_links(self) -> Collection[BaseOperatorLink]:
        """The links."""


class _CoveoLink(BaseOperatorLink):
    """A link whose address only the task can determine."""

    def get_link(self, operator: object, *, ti_key: object) -> str:
        """
        Return the address, an empty string if there is none.

        Airflow 3 calls this in the task's own process after the task ends, and saves the result. Airflow 2.11
        calls it in the webserver, with the serialized operator.

        :param operator: The task's operator; on 2.11, the serialized one.
        :param ti_key: The task instance.
        """
        if hasattr(operator, "hook"):
            return self.address(operator)
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "")

    def address(self, operator: CoveoTask) -> str:
        """
        Return the address, using the task's own connection.

        :param operator: The task's operator.
        """
        raise NotImplementedError


class _ConsoleLink(_CoveoLink):
    """A link to a page of the console."""

    #: The page's path below the organization.
    page: ClassVar[str]

    def address(self, operator: CoveoTask) -> str:
        """Return the page's address, an empty string if the task has no console."""
        try:
            settings = operator.hook.settings
        except Exception as error:
            # The task itself fails with this error, and reports more.
            log.debug("No link to Coveo's console: %s", type(error).__name__)
            return ""
        if settings.console_url is None:
            return ""
        return console_page(settings.console_url, settings.organization_id, self.page)


class CoveoSourcesLink(_ConsoleLink):
    """The Sources page of the task's organization: statuses, activity, and actions on a source."""

    name = "Coveo sources"
    xcom_key = "coveo_sources_link"
    page = "content/sources/"


class CoveoLogBrowserLink(_ConsoleLink):
    """The Log Browser of the task's organization: the result of each item in the indexing pipeline."""

    name = "Coveo log browser"
    xcom_key = "coveo_log_browser_link"
    page = "logs/browser/"


class PushSourceLink(_CoveoLink):
    """The task's source on the page *Push sources* in Airflow, if Airflow has that page."""

    name = "Push source"
    xcom_key = "coveo_push_source_link"

    def address(self, operator: CoveoTask) -> str:
        """
        Return the address of the source's row, an empty string if there is no page.

        :param operator: The task's operator.
        """
        source_id = getattr(operator, "source_id", None)
        if not isinstance(source_id, str) or not source_id or not page_exists():
            return ""
        try:
            organization_id = operator.hook.organization_id
        except Exception as error:
            # The task itself fails with this error, and reports more.
            log.debug("No link to the page Push sources: %s", type(error).__name__)
            return ""
        return page_address(organization_id, source_id)


def keep_links(operator: LinkedTask, context: Context) -> None:
    """
    Save the addresses of a task's links for Airflow's UI.

    :param operator: The operator of the task.
    :param context: The task's context.
    """
    task_instance = context.get("ti")
    if task_instance is None:
        return
    for link in operator.operator_extra_links:
        try:
            address = link.address(operator) if isinstance(link, _CoveoLink) else ""
            if address:
                task_instance.xcom_push(key=link.xcom_key, value=address)
        except Exception:
            # A missing link must not leave a source open.
            log.warning("Could not save the link %s", link.name, exc_info=True)
