"""The availability and the address of the page *Push sources*."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlencode

log = logging.getLogger(__name__)

#: The mount path of the page's own server.
URL_PREFIX: Final = "/coveo"
#: The page's name in the paths of Airflow 3's web interface.
URL_ROUTE: Final = "coveo_push_sources"
#: The configuration section and option that can turn the page off.
SECTION: Final = "coveo"
OPTION: Final = "push_sources_page"


def airflow_line() -> tuple[int, int]:
    """Return Airflow's major and minor version."""
    from airflow_provider_coveo.state.airflow_runs import airflow_version

    major, minor = airflow_version().split(".")[:2]
    return int(major), int(minor)


def page_exists() -> bool:
    """Return whether this Airflow has the page: 3.0 can't, and ``[coveo] push_sources_page`` turns it off."""
    from airflow.providers.common.compat.sdk import conf

    if airflow_line() == (3, 0):
        return False
    try:
        return bool(conf.getboolean(SECTION, OPTION, fallback=True))
    except Exception as error:
        # Neither a web server nor a task may fail because of it.
        log.warning("No page Push sources: [%s] %s is no boolean: %s", SECTION, OPTION, error)
        return False


def page_address(organization_id: str, source_id: str) -> str:
    """
    Return the address of a source's row.

    :param organization_id: The organization.
    :param source_id: The source.
    """
    from airflow.providers.common.compat.sdk import conf

    is_airflow_3 = airflow_line() >= (3, 0)
    base = conf.get("api" if is_airflow_3 else "webserver", "base_url", fallback="") or ""
    page = f"/plugin/{URL_ROUTE}" if is_airflow_3 else f"{URL_PREFIX}/"
    return f"{base.rstrip('/')}{page}?{urlencode({'source': f'{organization_id}/{source_id}'})}"
