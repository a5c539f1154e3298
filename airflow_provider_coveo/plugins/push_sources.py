"""
The plugin that adds the page *Push sources* to Airflow's web interface.

Every process of Airflow loads its plugins, so this module imports no web framework. The page's server is
created when a web server requests it. If that fails, Airflow works without the page, and logs the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_coveo.links.push_sources_page import (
    URL_PREFIX,
    URL_ROUTE,
    airflow_line,
    page_exists,
)

log = logging.getLogger(__name__)

_NAME: Final = "Push sources"


class _LazyList:
    """
    A plugin's list that is created on first access, through the class or an instance.

    :param make: Creates it.
    """

    def __init__(self, make: Callable[[], list[object]]) -> None:
        self._make = make
        self._made: list[object] | None = None

    def __get__(self, instance: object, owner: type | None = None) -> list[object]:
        """Return the list, an empty one if it can't be created."""
        if self._made is None:
            try:
                self._made = self._make() if page_exists() else []
            except Exception:
                log.exception("Could not create the page %r; continuing without it", _NAME)
                self._made = []
        return self._made


def _fastapi_apps() -> list[object]:
    if airflow_line() < (3, 1):
        return []
    from airflow_provider_coveo.plugins.fastapi_app import make_app

    return [{"app": make_app(), "url_prefix": URL_PREFIX, "name": _NAME}]


def _external_views() -> list[object]:
    # Without the page's server, an entry in the navigation would lead to an error.
    if airflow_line() < (3, 1) or not PushSourcesPlugin.fastapi_apps:
        return []
    # The address is relative, because Airflow can be served below a path.
    href = f"{URL_PREFIX.lstrip('/')}/"
    views: list[object] = [
        {"name": _NAME, "href": href, "destination": "nav", "category": "browse", "url_route": URL_ROUTE}
    ]
    if airflow_line() >= (3, 4):
        views.append(
            {
                "name": "Push source",
                "href": f"{href}?asset={{ASSET_URI}}",
                "destination": "asset",
                "url_route": f"{URL_ROUTE}_asset",
                # The group that `push_source_asset` sets. Scoping compares whole values, so it can't use the
                # URI's scheme.
                "applies_to": {"asset.group": ["coveo"]},
            }
        )
    return views


def _appbuilder_views() -> list[object]:
    if airflow_line() >= (3, 0):
        return []
    from airflow_provider_coveo.plugins.appbuilder_view import PushSourcesView

    return [{"name": _NAME, "category": "Browse", "view": PushSourcesView()}]


class PushSourcesPlugin(AirflowPlugin):
    """The page under *Browse* (on 2.11, and from 3.1 on), and as a tab of an asset (from 3.4 on)."""

    name = "coveo_push_sources"
    fastapi_apps = _LazyList(_fastapi_apps)
    external_views = _LazyList(_external_views)
    appbuilder_views = _LazyList(_appbuilder_views)
