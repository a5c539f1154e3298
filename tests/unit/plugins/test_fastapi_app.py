"""The page's server on Airflow 3.1 and later, with Airflow's own auth manager and tables, over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from airflow_provider_coveo.links.push_sources_page import airflow_line
from airflow_provider_coveo.state.ledger import Holder, bracket_variable
from tests.push_sources_routes import ROLES, ROUTES
from tests.unit.metadata_database import Database, metadata_database

pytestmark = pytest.mark.skipif(airflow_line() < (3, 1), reason="the server of Airflow 3.1 and later")

TABLES = ("revoked_token", "dag_bundle", "team", "dag_bundle_team")
IS_OF_TEAMS = airflow_line() >= (3, 2)


@pytest.fixture(scope="module")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("database") / "airflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret " * 8)
        with metadata_database(path, patch, *TABLES) as made:
            yield made


@pytest.fixture
def database(_database: Database) -> Iterator[Database]:
    _database.add("dag_bundle", {"name": "b", "active": True})
    yield _database
    with _database.engine.begin() as connection:
        for name in reversed((*TABLES, "dag", "variable")):
            if name in _database.tables:
                connection.execute(_database.tables[name].delete())


@pytest.fixture
def client(database: Database) -> Any:
    """Return a client that somebody has signed in with, or nobody."""
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    from airflow_provider_coveo.plugins.fastapi_app import make_app

    def of(role: str | None, *teams: str) -> Any:
        cookies = {}
        if role is not None:
            of_teams = {"teams": list(teams)} if IS_OF_TEAMS else {}
            user = SimpleAuthManagerUser(username=role, role=role.upper(), **of_teams)
            cookies["_token"] = create_auth_manager().generate_jwt(user)
        return TestClient(make_app(), cookies=cookies)

    return of


def add_dag(database: Database, dag_id: str, bundle: str = "b", **fields: Any) -> None:
    database.add(
        "dag", {"dag_id": dag_id, "is_paused": False, "is_stale": False, "bundle_name": bundle, **fields}
    )


def add_source(database: Database, source: str, dag_id: str) -> None:
    runs = {"organization_id": "acme", "source_id": source, "runs": [{"dag_id": dag_id, "run_id": "r"}]}
    database.variables(**{f"coveo_content__acme__{source}": runs})


def shown(client: Any) -> Any:
    answer = client.get("/sources")
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- who may use it ---


def test_the_routes_are_exactly_the_expected_ones_and_only_for_get() -> None:
    from airflow_provider_coveo.plugins.fastapi_app import make_app

    routes: list[Any] = list(make_app().routes)
    assert {route.path for route in routes} == set(ROUTES)
    # Nothing changes anything, so that no other site can have a browser change it.
    assert {method for route in routes for method in route.methods} == {"GET"}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("role", [None, *ROLES])
def test_each_route_returns_the_expected_status_for_each_role(
    client: Any, path: str, role: str | None
) -> None:
    assert client(role).get(path).status_code == ROUTES[path][role]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("token", ["", "no token", "a.b.c"])
def test_an_invalid_token_is_unauthorized(client: Any, path: str, token: str) -> None:
    nobody = client(None)
    for headers in ({"Cookie": f"_token={token}"}, {"Authorization": f"Bearer {token}"}):
        assert nobody.get(path, headers=headers).status_code in {401, 403}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_every_method_that_could_change_something_is_rejected(
    client: Any, path: str, method: str, kind: str
) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": kind}
    answer = client("admin").request(method, path, headers=headers, content="{}")
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ROUTES)
def test_responses_are_not_cached_and_no_other_site_can_frame_the_page(client: Any, path: str) -> None:
    headers = client("viewer").get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    if path == "/":
        assert "frame-ancestors 'self'" in headers["content-security-policy"]


@pytest.mark.skipif(not IS_OF_TEAMS, reason="Airflow has teams since 3.2")
def test_access_to_the_variables_of_one_team_shows_no_source_of_another(
    database: Database, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for team in ("red", "blue"):
        database.add("team", {"name": team})
        database.add("dag_bundle", {"name": team, "active": True})
        database.add("dag_bundle_team", {"dag_bundle_name": team, "team_name": team})
        add_dag(database, f"of_{team}", team)
        add_source(database, f"{team}-source", f"of_{team}")
    add_dag(database, "coveo_close_abandoned", "blue")

    def sources(*who: str) -> Any:
        found = shown(client(*who))
        return {row["source"] for row in found["rows"]}, found["organizations"]["acme"]["watchdog"]["usable"]

    assert sources("op", "red") == ({"red-source"}, "forbidden")
    assert sources("op", "red", "blue") == ({"red-source", "blue-source"}, "ready")
    assert sources("viewer", "blue") == ({"blue-source"}, "forbidden")
    assert sources("admin") == ({"red-source", "blue-source"}, "ready")


@pytest.mark.parametrize("role", ROLES)
def test_records_without_a_dag_are_shown_only_to_roles_that_can_read_variables(
    database: Database, client: Any, role: str
) -> None:
    database.variables(coveo_open__acme__s=3)
    assert len(shown(client(role))["rows"]) == (1 if role in {"op", "admin"} else 0)


# --- what can be wrong with the database ---


@contextmanager
def without(database: Database, table: str) -> Iterator[None]:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO lost")
    try:
        yield
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE lost RENAME TO {table}")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("variable", "Could not read the records from Airflow's database: OperationalError"),
        ("dag", "Could not read your permissions from Airflow's database: OperationalError"),
        ("dag_run", "Could not read the runs from Airflow's database: OperationalError"),
        ("task_instance", "Could not read the failed tasks from Airflow's database: OperationalError"),
        ("xcom", "Could not read what was pushed from Airflow's database: OperationalError"),
    ],
)
def test_the_page_says_which_table_could_not_be_read(
    database: Database, client: Any, table: str, reason: str
) -> None:
    add_dag(database, "d")
    add_source(database, "s", "d")
    admin = client("admin")
    assert [row["source"] for row in shown(admin)["rows"]] == ["s"]
    with without(database, database.xcom_table if table == "xcom" else table):
        found = shown(admin)
    assert reason in found["troubles"]
    assert [row["source"] for row in found["rows"]] == ([] if table in {"variable", "dag"} else ["s"])


def test_with_a_slow_database_the_row_shows_the_reason(
    database: Database, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_dag(database, "d")
    add_source(database, "s", "d")
    held = {"dag_id": "d", "run_id": "r", "open_task_id": "u.open", "since_ms": 1, "status": "REBUILD"}
    database.variables(coveo_open__acme__s={**held, "organization_id": "acme", "source_id": "s"})
    # It takes the database eleven seconds of this clock to find the records.
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: passed[0])
    monkeypatch.setattr("airflow_provider_coveo.state.database.time", clock)

    def be_slow(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        passed[0] += 11 if "FROM variable" in statement else 0

    admin = client("admin")
    event.listen(database.engine, "before_cursor_execute", be_slow)
    found = shown(admin)
    event.remove(database.engine, "before_cursor_execute", be_slow)
    (row,) = found["rows"]
    assert row["state"] == "unsure"
    assert "responds too slowly" in row["holders"][0]["why"]
    assert any("responds too slowly" in text for text in found["troubles"])


#: What a decoder of JSON accepts, but an encoder doesn't, or a division; and values of other types.
ODD = ["1e999", "NaN", "-Infinity", "1" + "0" * 400, '"\\ud800"', "[[[]]]", "null", '""']
NAMES = {"organization_id": "acme", "source_id": "s"}
RECORDS: dict[str, dict[str, Any]] = {
    "coveo_open__acme__s": {
        "dag_id": "d",
        "run_id": "r",
        "open_task_id": "u.open",
        "since_ms": 1,
        "status": "REBUILD",
    },
    "coveo_content__acme__s": {"runs": [{"dag_id": "d", "run_id": "r", "brackets": [["u.open", -1]]}]},
    bracket_variable(Holder("d", "r", "u.open")): {
        **NAMES,
        "coveo_conn_id": "c",
        "phase": "open",
        "status": "REBUILD",
        "opened_at": 1.0,
        "closed_at": 0.0,
    },
    "coveo_watch__acme": {
        "organization_id": "acme",
        "at": 1.0,
        "quota_limit": 2,
        "quota_used": 1,
        "sources": [
            {"id": "s", "name": "S", "status": "REBUILD", "is_active": True, "since_ms": 1, "at": 1.0}
        ],
    },
}


def leaves(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], *path, key)
    else:
        yield path


def damaged(record: dict[str, Any]) -> Iterator[str]:
    """Yield texts that are no record, and the record with one odd value."""
    yield from ("", "no JSON", "[" * 100_000, "3", "null")
    for *path, last in leaves(record):
        changed = json.loads(json.dumps(record))
        inner = changed
        for key in path:
            inner = inner[key]
        inner[last] = "odd"
        for odd in ODD:
            yield json.dumps(changed).replace('"odd"', odd)


@pytest.mark.parametrize("key", RECORDS)
def test_a_damaged_record_breaks_neither_the_page_nor_another_row(
    database: Database, client: Any, key: str
) -> None:
    admin, variable = client("admin"), database.tables["variable"]
    add_source(database, "healthy", "d")
    runs = [{"dag_id": "d", "run_id": "r", "brackets": [["u.open", -1]]}]
    for text in damaged(RECORDS[key]):
        with database.engine.begin() as connection:
            connection.execute(variable.delete().where(variable.c.key.not_like("%healthy")))
        if not key.startswith("coveo_content"):
            database.variables(coveo_content__acme__s={"runs": runs})
        database.add("variable", {"key": key, "val": text, "is_encrypted": False})
        rows = {row["source"]: row for row in shown(admin)["rows"]}
        assert rows["healthy"]["troubles"] == [], text
        assert "s" in rows, text


def test_a_variable_whose_key_only_resembles_that_of_a_record_is_ignored(
    database: Database, client: Any
) -> None:
    add_source(database, "s", "d")
    database.variables(Coveo_Open__acme__other=1, coveoXopenXXacmeXXother=1)
    assert [row["source"] for row in shown(client("admin"))["rows"]] == ["s"]


def test_a_dag_that_was_deleted_with_all_its_rows_is_marked_as_gone(database: Database, client: Any) -> None:
    add_source(database, "s", "deleted")
    (row,) = shown(client("admin"))["rows"]
    assert row["next_run"]["is_gone"] is True


# --- what it never does ---


def test_responses_need_no_network_and_contain_no_key(
    database: Database, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "coveo", "login": "acme", "password": "xx-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", json.dumps(connection))
    add_dag(database, "d")
    held = RECORDS["coveo_open__acme__s"]
    database.variables(**{**RECORDS, "coveo_open__acme__s": {**held, "coveo_conn_id": "coveo_default"}})
    asked: list[Any] = []
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda self, *address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    admin = client("admin")
    assert [row["source"] for row in shown(admin)["rows"]] == ["s"]
    text = "".join(admin.get(path).text for path in ROUTES)
    assert asked == []
    for secret in ("xx-secret", "coveo_default"):
        assert secret not in text


def test_the_server_imports_nothing_that_could_send_requests_to_coveo() -> None:
    script = """
import json, sys
from airflow_provider_coveo.plugins.fastapi_app import make_app
make_app()
print(json.dumps([name for name in sys.modules if name.startswith("airflow_provider_coveo.")]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=120, capture_output=True, text=True, check=True
    )
    brought = json.loads(done.stdout.splitlines()[-1])
    layers = {name.split(".")[1] for name in brought}
    assert layers == {"plugins", "links", "state", "coveo", "get_provider_info"} & layers
    assert not [name for name in brought if name.startswith("airflow_provider_coveo.coveo.client")]
