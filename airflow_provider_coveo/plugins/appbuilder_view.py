"""
The page in the webserver of Airflow 2.11.

Each route declares who can use it. The routes only read. The page's buttons use Airflow's own REST API, with
the user's permissions.
"""

from __future__ import annotations

import time
from typing import Any

from airflow.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.www.auth import has_access_view
from airflow.www.extensions.init_auth_manager import get_auth_manager
from airflow.www.views import AirflowBaseView
from flask import current_app, jsonify, make_response
from flask_appbuilder import expose
from flask_wtf.csrf import generate_csrf
from markupsafe import Markup

from airflow_provider_coveo.links.push_sources_page import URL_PREFIX
from airflow_provider_coveo.plugins.overview import Viewer, overview
from airflow_provider_coveo.plugins.page import HEADERS, fragment
from airflow_provider_coveo.state.database import DatabaseStore

_LAYOUT = """
{% extends "airflow/main.html" %}
{% block content %}{{ fragment }}{% endblock %}
"""


class PushSourcesView(AirflowBaseView):  # type: ignore[misc]
    """The page under *Browse*."""

    route_base = URL_PREFIX
    default_view = "page"

    @expose("/")  # type: ignore[untyped-decorator]
    @has_access_view()  # type: ignore[untyped-decorator]
    def page(self) -> Any:
        """Show the page, which contains no rows, to any user of Airflow's web interface."""
        layout = current_app.jinja_env.from_string(_LAYOUT)
        html = Markup(fragment(csrf_token=generate_csrf()))  # noqa: S704 - it contains no user input
        return self._with_headers(self.render_template(layout, title="Push sources", fragment=html))

    @expose("/sources")  # type: ignore[untyped-decorator]
    @has_access_view()  # type: ignore[untyped-decorator]
    def sources(self) -> object:
        """Return the rows that relate to DAGs that the user can read."""
        return self._with_headers(jsonify(overview(DatabaseStore(), _viewer, time.time())))

    def _with_headers(self, answer: Any) -> object:
        response = make_response(answer)
        response.headers.update(HEADERS)
        return response


def _viewer() -> Viewer:
    manager = get_auth_manager()

    def may_trigger(dag_id: str) -> bool:
        return bool(
            manager.is_authorized_dag(
                method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=dag_id)
            )
        )

    return Viewer(
        readable=frozenset(manager.get_permitted_dag_ids(methods=["GET"])),
        sees_records=bool(manager.is_authorized_variable(method="GET")),
        may_trigger=may_trigger,
    )
