"""Pushes of changes from a database and from code, in runs that fail, are retried or cleared."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseHook, task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.cursors import coveo_push as cursors
from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import SqlToCoveoPushOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables

SQL = "SELECT * FROM product WHERE updated > :since ORDER BY updated"
COLUMNS = {"documentId": "product://{sku}", "title": "name", "data": "name"}
NAME = f"coveo_cursor__acme__{SOURCE}__d__t"

pytestmark = pytest.mark.usefixtures("connect", "variables")


def context(run_id: str = "run-1", **more: Any) -> Any:
    known = {"dag_id": "d", "task_id": "t", "map_index": -1, "max_tries": 0, "try_number": 1}
    return {"ti": SimpleNamespace(**{**known, "run_id": run_id, **more})}


class Shop:
    """A table of products."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute("CREATE TABLE product (sku int, name text, updated int, gone int)")

    def execute(self, sql: str, *values: Any) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(sql, values)

    def put(self, sku: int, name: str, updated: int | None, gone: int = 0) -> None:
        self.execute("DELETE FROM product WHERE sku = ?", sku)
        self.execute("INSERT INTO product VALUES (?, ?, ?, ?)", sku, name, updated, gone)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    path = tmp_path / "shop.db"
    hook = SimpleNamespace(get_conn=lambda: sqlite3.connect(path), get_records=None)
    known = SimpleNamespace(get_hook=lambda hook_params: hook, conn_type="sqlite")
    get_connection = BaseHook.get_connection
    found = classmethod(lambda _, name: known if name == "shop" else get_connection(name))
    monkeypatch.setattr(BaseHook, "get_connection", found)
    return Shop(path)


def run(run_id: str = "run-1", params: Any = None, **how: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "sql": SQL, "columns": COLUMNS, "cursor_column": "updated", "cursor_start": 0, **how,
    }  # fmt: skip
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        operator = SqlToCoveoPushOperator(task_id="t", source_id=SOURCE, sql_conn_id="shop", **made)
    operator.render_template_fields({"params": params or {}})
    result: dict[str, Any] = operator.execute(context(run_id))
    return result


def titles(coveo: Simulator) -> dict[str, str]:
    return {key.removeprefix("product://"): item["title"] for key, item in coveo.items(SOURCE).items()}


def test_each_run_pushes_what_changed_since_the_last_one(
    coveo: Simulator, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shop.put(1, "Anvil", 10)
    shop.put(2, "Rope", 20)
    assert run()["accepted_adds"] == 2
    nothing = run("run-2")
    assert (nothing["accepted_adds"], nothing["batches"], nothing["since"]) == (0, 0, "20")
    shop.put(1, "Anvil, heavy", 30)
    assert run("run-3")["accepted_adds"] == 1
    moves = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Cursor ")]
    assert moves == [
        f"Cursor {NAME} moved from its start to 20",
        f"Cursor {NAME} stays at 20",
        f"Cursor {NAME} moved from 20 to 30",
    ]
    # Nothing was resumed.
    assert "an earlier attempt" not in caplog.text
    assert titles(coveo) == {"1": "Anvil, heavy", "2": "Rope"}
    assert run("run-4", lag=15)["accepted_adds"] == 2


@pytest.mark.parametrize(
    "how", [{}, {"cursor_column": None, "cursor_start": None, "sql": "SELECT * FROM product ORDER BY sku"}]
)
def test_invalid_rows_are_saved_with_their_items(
    coveo: Simulator, shop: Shop, tmp_path: Path, how: dict[str, Any]
) -> None:
    shop.put(1, "a", 10)
    shop.put(2, "c", 20, gone=1)
    path = tmp_path / "r.ndjson"
    deleted = {} if how else {"deleted_column": "gone"}
    run(columns={"documentId": "name"}, on_invalid="skip", rejected_path=str(path), **deleted, **how)
    saved = [json.loads(line) for line in path.read_text().splitlines()]
    last = {"documentId": "c"} if how else {"documentId": "c", "deleteChildren": False}
    assert [line.get("item", line.get("delete")) for line in saved] == [{"documentId": "a"}, last]


def test_a_row_whose_id_has_an_empty_part_is_saved_with_its_item_unless_it_is_a_deletion(
    coveo: Simulator, shop: Shop, tmp_path: Path
) -> None:
    shop.execute("INSERT INTO product VALUES (NULL, 'a', 10, 0), (NULL, 'b', 20, 1)")
    path = tmp_path / "r.ndjson"
    run(deleted_column="gone", on_invalid="skip", rejected_path=str(path))
    saved = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("item") for line in saved] == [{"title": "a", "data": "a"}, None]
    assert "item_repr" in saved[1]


def test_a_push_that_fails_halfway_does_not_move_the_cursor(
    coveo: Simulator, shop: Shop, variables: Variables
) -> None:
    shop.put(1, "Anvil", 10)
    run()
    for sku in range(2, 30):
        shop.put(sku, "x" * 500, 10 + sku)
    coveo.faults.answer(413, operation="batch", after=2)
    with pytest.raises(CoveoError) as failed:
        run("run-2", batch_bytes=2000, upload_concurrency=1)
    assert failed.value.accepted is not None
    assert failed.value.accepted["batches"] == 2
    assert json.loads(variables.values[NAME])["value"]["value"] == "10"
    coveo.faults.clear()
    again = run("run-2", batch_bytes=2000)
    assert (again["since"], again["accepted_adds"]) == ("10", 28)
    assert json.loads(variables.values[NAME])["value"]["value"] == "39"
    # A cleared task reads the value that its run began with.
    assert run("run-2")["accepted_adds"] == 28


def test_skipped_invalid_rows_move_the_cursor(coveo: Simulator, shop: Shop) -> None:
    shop.put(1, "Anvil", 10)
    shop.execute("INSERT INTO product VALUES (NULL, 'Nothing', 20, 0)")
    result = run(on_invalid="skip")
    assert (result["accepted_adds"], result["invalid"]) == (1, 1)
    assert run("run-2")["since"] == "20"
    with pytest.raises(CoveoInputError):
        run("run-3", cursor_reset=True)
    assert run("run-4")["since"] == "20"


@pytest.mark.parametrize(
    "limit",
    [
        "LIMIT 1",
        "limit :count",
        "ORDER BY updated FETCH FIRST 10 ROWS ONLY",
        "AND ROWNUM < 10",
        "OFFSET 0 ROWS fetch next 10 rows only",
    ],
)
def test_a_query_that_limits_its_rows_is_rejected(coveo: Simulator, shop: Shop, limit: str) -> None:
    for how in ({"sql": f"{SQL} {limit}"}, {"sql": SQL, "deleted_sql": f"{SQL} {limit}"}):
        with pytest.raises(CoveoInputError, match="limits its rows"):
            run(**how)
    with pytest.raises(CoveoInputError, match="limits its rows"):
        run(sql="SELECT TOP 5 * FROM product WHERE updated > :since")
    assert [request for request in coveo.requests if request.method != "GET"] == []


@pytest.mark.parametrize("limit", ["LIMIT 10", "limit :count", "LIMIT ?"])
def test_the_error_names_the_whole_limit(coveo: Simulator, shop: Shop, limit: str) -> None:
    with pytest.raises(CoveoInputError) as rejected:
        run(sql=f"{SQL} {limit}")
    assert f": {limit} limits its rows" in str(rejected.value)


def test_the_error_names_placeholders_in_the_style_of_another_database(coveo: Simulator, shop: Shop) -> None:
    with pytest.raises(CoveoInputError) as failed:
        run(sql=SQL.replace(":since", "%(since)s"))
    assert "no placeholders such as %(since)s. Remedy: Write :since instead." in str(failed.value)
    assert 'near "%": syntax error' in str(failed.value)
    with pytest.raises(CoveoInputError, match=r"Write \? instead"):
        run(sql=SQL.replace(":since", "%s"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        run(sql="SELECT strftime('%s', updated) FROM other WHERE updated > :since")


def test_a_limit_in_a_subquery_a_text_or_a_comment_is_accepted(coveo: Simulator, shop: Shop) -> None:
    shop.put(1, "Anvil", 10)
    sql = (
        "SELECT sku, (SELECT name FROM product ORDER BY (updated) LIMIT 1) AS name, updated, "
        "'LIMIT 1' AS note FROM product WHERE updated > :since -- LIMIT 1"
    )
    assert run(sql=sql)["accepted_adds"] == 1


def run_part(parameters: list[Any], map_index: int, run_id: str) -> dict[str, Any]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        mapped = SqlToCoveoPushOperator.partial(
            task_id="t",
            source_id=SOURCE,
            sql_conn_id="shop",
            sql=f"SELECT * FROM ({SQL}) WHERE sku % 2 = :half",  # noqa: S608
            columns=COLUMNS,
            cursor_column="updated",
            cursor_start=0,
        ).expand(parameters=parameters)
    assert mapped in dag.task_dict.values()
    operator: Any = mapped.unmap({"parameters": parameters[map_index]})
    found: Any = {**context(run_id, map_index=map_index), "task": operator}
    result: dict[str, Any] = operator.execute(found)
    return result


def test_parts_of_a_mapped_push_that_change_their_order_miss_no_rows(coveo: Simulator, shop: Shop) -> None:
    even, odd = {"half": 0}, {"half": 1}
    shop.put(2, "Rope", 20)
    shop.put(4, "Anvil", 40)
    assert [run_part([even, odd], number, "r1")["accepted_adds"] for number in (0, 1)] == [2, 0]
    shop.put(3, "Rocket", 30)
    # What was the second part is the first now, whose cursor is at 40.
    assert [run_part([odd, even], number, "r2")["accepted_adds"] for number in (0, 1)] == [1, 2]
    assert titles(coveo) == {"2": "Rope", "3": "Rocket", "4": "Anvil"}
    assert [run_part([odd, even], number, "r3")["since"] for number in (0, 1)] == ["30", "40"]
    # A failed run in the new order leaves the cursor to the old one.
    coveo.faults.answer(413, operation="batch", times=1)
    with pytest.raises(CoveoError):
        run_part([even, odd], 0, "r4")
    assert run_part([even, odd], 0, "r5")["since"] == "0"


def test_rows_without_a_value_are_pushed_and_do_not_move_the_cursor(coveo: Simulator, shop: Shop) -> None:
    shop.put(1, "Anvil", None)
    result = run(sql="SELECT * FROM product WHERE updated > :since OR updated IS NULL")
    assert result["accepted_adds"] == 1
    assert run("run-2")["since"] == "0"


def test_deleted_rows_are_deleted(coveo: Simulator, shop: Shop) -> None:
    for sku in (1, 2, 3):
        shop.put(sku, "Anvil", sku)
    run()
    shop.put(1, "Anvil", 10, gone=1)
    shop.execute("DELETE FROM product WHERE sku = 2")
    shop.execute("CREATE TABLE deleted (sku int, at int)")
    shop.execute("INSERT INTO deleted VALUES (2, 11)")
    result = run(
        "run-2", deleted_column="gone", deleted_sql="SELECT sku FROM deleted WHERE at > :since",
    )  # fmt: skip
    assert (result["accepted_deletes"], result["accepted_adds"]) == (2, 0)
    assert titles(coveo) == {"3": "Anvil"}


def test_a_param_of_the_dag_resets_the_cursor(coveo: Simulator, shop: Shop) -> None:
    shop.put(1, "Anvil", 10)
    run()
    how: Any = {"cursor_reset": "{{ params.again }}"}
    assert run("run-2", {"again": False}, **how)["accepted_adds"] == 0
    assert run("run-3", {"again": True}, **how)["accepted_adds"] == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"cursor_start": None}, "there is no cursor_start"),
        ({"cursor_column": None}, "Invalid cursor_start: it requires cursor_column"),
        ({"cursor_column": None, "cursor_start": None, "deleted_sql": "x"}, "Invalid deleted_sql"),
        ({"lag": "soon"}, "Invalid lag"),
        ({"cursor_reset": "maybe"}, "Invalid cursor_reset: 'maybe'"),
        ({"only_changes": ""}, "Invalid only_changes: ''"),
        ({"cursor_column": "modified"}, "no column 'modified'"),
        ({"cursor_column": "name", "cursor_start": "A", "lag": 5, "sql": SQL.replace("updated", "name")},
         "can't be moved back by a lag"),
        ({"cursor_start": [1]}, "a cursor can't use"),
        ({"only_changes": True, "snapshot_path": "/tmp/s"}, "only_changes and cursor_column"),
    ],
)  # fmt: skip
def test_an_invalid_parameter_fails_at_once_and_sends_nothing(
    coveo: Simulator, shop: Shop, how: dict[str, Any], words: str
) -> None:
    shop.put(1, "Anvil", 10)
    with pytest.raises(AirflowFailException, match=words):
        run(**how)
    assert [each for each in coveo.requests if each.method != "GET"] == []


# --- Python code ---


@pytest.fixture
def in_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the run in which code is executed."""

    def _in_run(run_id: str) -> None:
        import airflow.providers.common.compat.sdk as sdk

        monkeypatch.setattr(sdk, "get_current_context", lambda: context(run_id))

    return _in_run


CHANGES = [(1, 10), (2, 30), (3, 20), (4, None)]


def changed(since: int) -> list[tuple[int, int | None]]:
    return [(number, at) for number, at in CHANGES if at is None or at > since]


def item(number: int) -> dict[str, Any]:
    return {"documentId": f"a://{number}", "data": "x"}


@pytest.mark.parametrize("kind", ["generator", "list", "with"])
def test_a_decorated_function_can_use_a_cursor(coveo: Simulator, in_run: Any, kind: str) -> None:
    seen = []

    def generator() -> Iterator[Any]:
        cursor = coveo_cursor(start=0)
        seen.append(cursor.since)
        for number, at in changed(cursor.since):
            cursor.advance(at)
            yield item(number)

    def inside() -> Iterator[Any]:
        with coveo_cursor(start=0) as cursor:
            seen.append(cursor.since)
            for number, at in changed(cursor.since):
                cursor.advance(at)
                yield item(number)

    function = {"generator": generator, "with": inside, "list": lambda: list(generator())}[kind]

    def execute(run_id: str) -> dict[str, Any]:
        in_run(run_id)
        with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
            made = task.coveo_push(source_id=SOURCE, task_id="t")(function)()
        result: dict[str, Any] = made.operator.execute(context(run_id))
        return result

    coveo.faults.answer(413, operation="batch")
    with pytest.raises(CoveoError):
        execute("run-1")
    coveo.faults.clear()
    assert execute("run-2")["accepted_adds"] == 4
    assert execute("run-3")["accepted_adds"] == 1
    assert seen == [0, 0, 30]


def test_a_function_with_a_cursor_is_rejected_with_only_changes(
    coveo: Simulator, in_run: Any, tmp_path: Path
) -> None:
    def function() -> list[Any]:
        cursor = coveo_cursor(start=0)
        return [item(number) for number, _ in changed(cursor.since)]

    in_run("run-1")
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        pushed = task.coveo_push(
            source_id=SOURCE, task_id="t", only_changes=True, snapshot_path=str(tmp_path)
        )(function)()
    with pytest.raises(CoveoInputError, match="only_changes deletes items missing from the input"):
        pushed.operator.execute(context("run-1"))
    assert [each for each in coveo.requests if each.method != "GET"] == []


def test_a_push_in_a_with_block_moves_the_cursor_only_if_it_succeeds(
    coveo: Simulator, hook: CoveoPushHook, in_run: Any
) -> None:
    def push(run_id: str) -> dict[str, Any]:
        in_run(run_id)
        with coveo_cursor("orders", source_id=SOURCE, start=0) as cursor:
            items = []
            for number, at in changed(cursor.since):
                cursor.advance(at)
                items.append(item(number))
            return hook.push_items(SOURCE, items)

    coveo.faults.answer(413, operation="batch")
    with pytest.raises(CoveoError):
        push("run-1")
    coveo.faults.clear()
    assert push("run-2")["accepted_adds"] == 4
    assert push("run-3")["accepted_adds"] == 1


def test_a_generator_passed_to_the_hook_can_use_a_cursor(
    coveo: Simulator, hook: CoveoPushHook, in_run: Any
) -> None:
    def items() -> Iterator[Any]:
        cursor = coveo_cursor(start=0)
        for number, at in changed(cursor.since):
            cursor.advance(at)
            yield item(number)

    in_run("run-1")
    assert hook.push_items(SOURCE, items())["accepted_adds"] == 4
    in_run("run-2")
    assert hook.push_items(SOURCE, items())["accepted_adds"] == 1


def test_a_cursor_that_nothing_would_move_is_rejected(in_run: Any) -> None:
    in_run("run-1")
    with pytest.raises(CoveoInputError, match="with coveo_cursor"):
        coveo_cursor(source_id=SOURCE).since  # noqa: B018
    with pytest.raises(CoveoInputError, match="no source"), coveo_cursor():
        pass


@pytest.mark.parametrize(
    ("operation", "push"),
    [
        ("batch", lambda hook: hook.push_items(SOURCE, [item(1)])),
        ("item", lambda hook: hook.add_or_update_item(SOURCE, item(1))),
        ("delete", lambda hook: hook.delete_item(SOURCE, "product://1")),
        ("batch", lambda hook: hook.push_items(SOURCE, [{"no": "ID"}])),
        ("item", lambda hook: hook.add_or_update_item(SOURCE, {"no": "ID"})),
    ],
)
def test_a_block_whose_code_catches_the_error_of_its_push_does_not_move_the_cursor(
    coveo: Simulator,
    hook: CoveoPushHook,
    in_run: Any,
    caplog: pytest.LogCaptureFixture,
    operation: str,
    push: Callable[[CoveoPushHook], object],
) -> None:
    in_run("run-1")
    coveo.faults.answer(413, operation=operation)
    with coveo_cursor(source_id=SOURCE, start=0) as cursor:
        cursor.advance(10)
        with suppress(CoveoError):
            push(hook)
    assert "a push in its block failed" in caplog.text
    in_run("run-2")
    with coveo_cursor(source_id=SOURCE, start=0) as cursor:
        assert cursor.since == 0


@pytest.mark.parametrize("how", ["one after the other", "one in the other", "in one push"])
def test_a_cursor_that_is_created_twice_is_rejected(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    import airflow.providers.common.compat.sdk as sdk

    attempt = context()
    monkeypatch.setattr(sdk, "get_current_context", lambda: attempt)

    def items() -> Iterator[Any]:
        coveo_cursor(start=0).advance(50)
        coveo_cursor(start=0).advance(100)
        yield item(1)

    def work() -> None:
        if how == "in one push":
            hook.push_items(SOURCE, items())
        with coveo_cursor(source_id=SOURCE, start=0) as products:
            products.advance(100)
            if how == "one in the other":
                coveo_cursor(source_id=SOURCE, start=0).__enter__()
        coveo_cursor(source_id=SOURCE, start=0).__enter__()

    with pytest.raises(CoveoInputError, match="unnamed cursor of source 'acme-products' is created twice"):
        work()


def test_an_attempt_can_use_its_cursor_again_after_a_failed_push(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    import airflow.providers.common.compat.sdk as sdk

    attempt = context()
    monkeypatch.setattr(sdk, "get_current_context", lambda: attempt)

    def push() -> dict[str, Any]:
        with coveo_cursor(source_id=SOURCE, start=0) as cursor:
            cursor.advance(10)
            return dict(hook.push_items(SOURCE, [item(1)]))

    coveo.faults.answer(413, operation="batch")
    with pytest.raises(CoveoError):
        push()
    coveo.faults.clear()
    assert push()["accepted_adds"] == 1
    with coveo_cursor("orders", source_id=SOURCE, start=0) as cursor:
        cursor.advance(10)


def test_the_reset_can_be_a_text_that_a_template_rendered(in_run: Any) -> None:
    in_run("run-1")
    with coveo_cursor(source_id=SOURCE, start=0) as cursor:
        cursor.advance(10)
    in_run("run-2")
    with coveo_cursor(source_id=SOURCE, start=0, reset="False") as cursor:  # type: ignore[arg-type]
        assert cursor.since == 10
    with (
        pytest.raises(CoveoInputError, match="Invalid reset: 'maybe'"),
        coveo_cursor(source_id=SOURCE, start=0, reset="maybe"),  # type: ignore[arg-type]
    ):
        pass


def test_a_start_of_another_type_than_the_values_is_rejected(in_run: Any) -> None:
    in_run("run-1")
    with (
        pytest.raises(CoveoInputError, match="its start is '2026-01-01', a text"),
        coveo_cursor(source_id=SOURCE, start="2026-01-01") as cursor,
    ):
        cursor.advance(datetime(2026, 1, 2))


def test_the_module_of_cursors_does_not_import_the_hook() -> None:
    assert not hasattr(cursors, "CoveoPushHook")


# --- a dry run ---


def test_a_dry_run_moves_no_cursor(coveo: Simulator, hook: CoveoPushHook, shop: Shop, in_run: Any) -> None:
    shop.put(1, "Anvil", 10)
    assert run("run-1", dry_run=True)["dry_run"] is True
    assert run("run-2")["since"] == "0"
    assert run("run-3")["since"] == "10"

    def push(run_id: str, *, dry_run: bool) -> tuple[int, dict[str, Any]]:
        in_run(run_id)
        with coveo_cursor("orders", source_id=SOURCE, start=0) as cursor:
            items = []
            for number, at in changed(cursor.since):
                cursor.advance(at)
                items.append(item(number))
            return cursor.since, hook.push_items(SOURCE, items, dry_run=dry_run)

    def read(run_id: str, *, dry_run: bool) -> dict[str, Any]:
        def items() -> Iterator[Any]:
            cursor = coveo_cursor("read", start=0)
            for number, at in changed(cursor.since):
                cursor.advance(at)
                yield item(number)

        in_run(run_id)
        return hook.push_items(SOURCE, items(), dry_run=dry_run)

    assert push("run-4", dry_run=True)[0] == 0
    assert push("run-5", dry_run=False)[0] == 0
    assert push("run-6", dry_run=False)[0] == 30
    read("run-7", dry_run=True)
    assert read("run-8", dry_run=False)["accepted_adds"] == 4
    assert read("run-9", dry_run=False)["accepted_adds"] == 1


# --- any sequence ---

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 4), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("run"), st.sampled_from(["succeeds", "fails", "is cleared"])),
    ),
    max_size=12,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=_steps)
def test_whatever_happens_the_index_equals_the_table_in_the_end(
    coveo: Simulator, shop: Shop, variables: Variables, steps: list[Any]
) -> None:
    coveo.reset()
    variables.values.clear()
    shop.execute("DELETE FROM product")
    clock, runs = 100, 1
    how: Any = {"lag": 3, "deleted_column": "gone", "batch_bytes": 1024}
    for step, *arguments in steps:
        if step == "write":
            clock += 1
            sku, late, gone = arguments
            shop.put(sku, f"{sku} at {clock}", clock - late, int(gone))
        elif arguments == ["fails"]:
            coveo.faults.answer(413, operation="batch", after=len(steps) % 2)
            runs += 1
            with suppress(CoveoError):
                run(f"run-{runs}", **how)
            coveo.faults.clear()
        else:
            runs += arguments == ["succeeds"]
            run(f"run-{runs}", **how)
    run(f"run-{runs + 1}", **how)
    with sqlite3.connect(shop.path) as connection:
        table = dict(connection.execute("SELECT sku, name FROM product WHERE NOT gone"))
    assert titles(coveo) == {str(sku): name for sku, name in table.items()}
