"""
The page's server in the API server of Airflow 3.1 and later.

Airflow mounts it next to its own routes without protecting it, so each route here declares who can use it.
The routes only read. The page's buttons use Airflow's own REST API, with the user's permissions.
"""

from __future__ import annotations

import time
from functools import cache

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    DagAccessEntity,
    DagDetails,
    VariableDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from airflow.models.team import Team
from airflow.utils.session import create_session
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response

from airflow_provider_coveo.plugins.overview import Viewer, overview
from airflow_provider_coveo.plugins.page import HEADERS, content_security_policy, page
from airflow_provider_coveo.state.database import DatabaseStore


def make_app() -> FastAPI:
    """Return the server, without FastAPI's documentation pages."""
    app = FastAPI(title="Push sources", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/", show_page, methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/sources", show_sources, methods=["GET"], response_class=JSONResponse)
    return app


def show_page(user: GetUserDep) -> Response:
    """Return the page, which contains no rows, to any signed-in user."""
    headers = {**HEADERS, "Content-Security-Policy": content_security_policy()}
    return HTMLResponse(page(), headers=headers)


def show_sources(user: GetUserDep) -> Response:
    """Return the rows that relate to DAGs that the signed-in user can read."""
    data = overview(DatabaseStore(), lambda: _viewer(user), time.time())
    return JSONResponse(data, headers=HEADERS)


def _viewer(user: BaseUser) -> Viewer:
    manager = get_auth_manager()

    @cache
    def may_trigger(dag_id: str) -> bool:
        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        return bool(
            manager.is_authorized_dag(
                method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
            )
        )

    return Viewer(
        readable=frozenset(manager.get_authorized_dag_ids(user=user, method="GET")),
        # The page reads the records of all teams, so users need the permission for all of them.
        sees_records=all(
            manager.is_authorized_variable(method="GET", details=VariableDetails(team_name=team), user=user)
            for team in (None, *_teams())
        ),
        may_trigger=may_trigger,
    )


def _teams() -> list[str]:
    with create_session() as session:
        return [name for (name,) in session.query(Team.name)]
