"""A dry run moves no cursor, and writes no file of rejected items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_coveo.cursors.coveo_push import coveo_cursor
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.conftest import Variables
from tests.unit.push.test_cursor_pushes import Shop, context, in_run, run, shop, titles

__all__ = ["in_run", "shop"]

pytestmark = pytest.mark.usefixtures("connect")


def kept(variables: Variables) -> dict[str, str]:
    """Return the records of cursors, and of the runs that read from them."""
    return {
        name: value
        for name, value in variables.values.items()
        if name.startswith(("coveo_cursor__", "coveo_state__"))
    }


def test_the_push_after_a_dry_run_reads_the_same_rows(
    coveo: Simulator, shop: Shop, variables: Variables
) -> None:
    shop.put(1, "Anvil", 10)
    run("run-1")
    shop.put(2, "Skates", 20)
    before = kept(variables)
    assert len(before) == 2
    dry = run("run-2", params={"dry_run": True}, dry_run="{{ params.dry_run }}")
    assert (dry["dry_run"], dry["adds"]) == (True, 1)
    assert kept(variables) == before
    assert titles(coveo) == {"1": "Anvil"}
    assert run("run-3")["accepted_adds"] == 1
    assert titles(coveo) == {"1": "Anvil", "2": "Skates"}


def test_the_first_dry_run_leaves_no_record_even_if_it_fails(
    coveo: Simulator, shop: Shop, variables: Variables
) -> None:
    shop.put(1, "Anvil", 10)
    assert run("run-1", dry_run=True)["adds"] == 1
    with pytest.raises(AirflowFailException):
        run("run-1", dry_run=True, cursor_column="modified")
    assert kept(variables) == {}
    assert run("run-2")["accepted_adds"] == 1


@pytest.mark.parametrize("kind", ["decorator", "hook", "block"])
def test_the_first_dry_run_of_a_function_leaves_no_record_either(
    coveo: Simulator, hook: CoveoPushHook, in_run: Callable[[str], None], variables: Variables, kind: str
) -> None:
    during: list[dict[str, str]] = []

    def items(cursor: Any) -> Iterator[dict[str, str]]:
        for number in range(cursor.since, 3):
            cursor.advance(number + 1)
            yield {"documentId": f"a://{number}", "data": "x"}
        during.append(kept(variables))

    def made_inside() -> Iterator[dict[str, str]]:
        yield from items(coveo_cursor(start=0))

    def push(run_id: str, *, dry_run: bool) -> Any:
        in_run(run_id)
        if kind == "block":
            with coveo_cursor(source_id=SOURCE, start=0) as cursor:
                return hook.push_items(SOURCE, items(cursor), dry_run=dry_run)
        if kind == "hook":
            return hook.push_items(SOURCE, made_inside(), dry_run=dry_run)
        with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
            made = task.coveo_push(source_id=SOURCE, task_id="t", dry_run=dry_run)(
                lambda: items(coveo_cursor(start=0))
            )()
        return made.operator.execute(context(run_id))

    for times in range(2):
        assert push("run-1", dry_run=True)["adds"] == 3
        assert kept(variables) == {}
        # Only the end of a block shows that nothing was sent.
        assert (during[times] == {}) == (kind != "block")
    assert push("run-2", dry_run=False)["accepted_adds"] == 3
    before = kept(variables)
    assert push("run-3", dry_run=True)["adds"] == 0
    assert kept(variables) == before


def test_a_dry_run_in_a_with_block_keeps_the_record_of_an_earlier_push_of_the_run(
    coveo: Simulator, hook: CoveoPushHook, in_run: Callable[[str], None], variables: Variables
) -> None:
    def attempt(*, dry_run: bool) -> None:
        in_run("run-1")
        with coveo_cursor(source_id=SOURCE, start=0) as cursor:
            cursor.advance(5)
            hook.push_items(SOURCE, [{"documentId": "a://1", "data": "x"}], dry_run=dry_run)
            if not dry_run:
                # As if it was killed: nothing more is recorded.
                cursor._cursor = None

    attempt(dry_run=False)
    before = kept(variables)
    attempt(dry_run=True)
    assert kept(variables) == before


def test_a_dry_run_writes_no_file_of_rejected_items(
    coveo: Simulator, shop: Shop, variables: Variables, tmp_path: Path
) -> None:
    path = tmp_path / "rejected.ndjson"
    shop.put(1, "Anvil", 10)
    columns = {"documentId": "{name}", "title": "name", "data": "name"}
    dry = run("run-1", columns=columns, on_invalid="skip", rejected_path=str(path), dry_run=True)
    assert (dry["adds"], dry["invalid"], dry["problems"]) == (0, 1, [])
    assert not path.exists()
