"""
The plugin that puts the page *Push sources* into Airflow's web interface.

Every process of Airflow loads its plugins, so this module imports no web framework. What serves the page is
made when a web server asks for it; if that fails, Airflow goes on without the page and its log says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_coveo.links.push_sources_page import (
    URL_PREFIX,
    URL_ROUTE,
    airflow_line,
    page_exists,
)

log = logging.getLogger(__name__)

_NAME: Final = "Push sources"


class _MadeWhenAsked:
    """
    A list of a plugin that is made when it is read, be it of the class or of an instance.

    :param make: Makes it.
    """

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make = make
        self._made: list[Any] | None = None

    def __get__(self, instance: object, owner: type | None = None) -> list[Any]:
        """Return the list, an empty one if it can't be made."""
        if self._made is None:
            try:
                self._made = self._make() if page_exists() else []
            except Exception:
                log.exception("The page %r is not there, as it could not be made", _NAME)
                self._made = []
        return self._made


def _fastapi_apps() -> list[Any]:
    if airflow_line() < (3, 1):
        return []
    from airflow_provider_coveo.plugins.fastapi_app import make_app

    return [{"app": make_app(), "url_prefix": URL_PREFIX, "name": _NAME}]


def _external_views() -> list[Any]:
    # Without the server behind it, an entry in the navigation would lead to an error.
    if airflow_line() < (3, 1) or not PushSourcesPlugin.fastapi_apps:
        return []
    # Relative, as Airflow may be served below a path.
    href = f"{URL_PREFIX.lstrip('/')}/"
    views: list[Any] = [
        {"name": _NAME, "href": href, "destination": "nav", "category": "browse", "url_route": URL_ROUTE}
    ]
    if airflow_line() >= (3, 4):
        views.append(
            {
                "name": "Push source",
                "href": f"{href}?asset={{ASSET_URI}}",
                "destination": "asset",
                "url_route": f"{URL_ROUTE}_asset",
                # That of `push_source_asset`; scoping compares whole values, so not by the URI's scheme.
                "applies_to": {"asset.group": ["coveo"]},
            }
        )
    return views


def _appbuilder_views() -> list[Any]:
    if airflow_line() >= (3, 0):
        return []
    from airflow_provider_coveo.plugins.appbuilder_view import PushSourcesView

    return [{"name": _NAME, "category": "Browse", "view": PushSourcesView()}]


class PushSourcesPlugin(AirflowPlugin):
    """The page: on 2.11 under *Browse*, from 3.1 on as well, and on 3.4 as a tab of an asset."""

    name = "coveo_push_sources"
    fastapi_apps = _MadeWhenAsked(_fastapi_apps)
    external_views = _MadeWhenAsked(_external_views)
    appbuilder_views = _MadeWhenAsked(_appbuilder_views)
