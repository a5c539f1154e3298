"""The operators, executed against a Coveo at the socket."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, ServiceError
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import (
    CloseAbandonedPushSourcesOperator,
    ResetPushSourceOperator,
    SetPushSourceStatusOperator,
)
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.fresh import RunFresh


class _Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


def context(store: _Store | None = None, *, max_tries: int = 0) -> Any:
    ti = SimpleNamespace(max_tries=max_tries, dag_id="d", task_id="t", run_id="r", map_index=-1)
    return {"ti": ti, "task_state_store": _Store() if store is None else store}


@pytest.mark.parametrize("status", ["REBUILD", "refresh", "Incremental", "idle"])
def test_each_status_is_set_and_returned_as_small_json(
    coveo: Simulator, connect: Callable[..., None], status: str
) -> None:
    operator = SetPushSourceStatusOperator(task_id="t", source_id=SOURCE, status=status)
    result = operator.execute(context())
    assert coveo.statuses(SOURCE) == [status.upper()]
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"source_id", "status", "ordering_id", "request_id"}


def test_the_user_agent_names_the_operator(coveo: Simulator, connect: Callable[..., None]) -> None:
    SetPushSourceStatusOperator(task_id="t", source_id=SOURCE, status="IDLE").execute(context())
    assert coveo.requests[0].headers["user-agent"].endswith("caller/SetPushSourceStatusOperator")


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        (
            SetPushSourceStatusOperator,
            {
                "source_id": SOURCE,
                "status": "rebuild",
                "coveo_conn_id": "coveo_default",
                "organization_id": "acme",
                "dry_run": "False",
            },
        ),
        (
            ResetPushSourceOperator,
            {
                "source_id": SOURCE,
                "ordering_id": str(now_ms() - 5000),
                "queue_delay": "0",
                "coveo_conn_id": "coveo_default",
                "organization_id": "acme",
                "dry_run": "False",
            },
        ),
    ],
)
def test_every_parameter_is_keyword_only_and_templated(
    coveo: Simulator, connect: Callable[..., None], operator: Any, values: dict[str, str]
) -> None:
    own = {
        name
        for base in operator.__mro__
        if base.__module__.startswith("airflow_provider_coveo")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    # Airflow's operators have a method named dry_run.
    attributes = {"is_dry_run" if name == "dry_run" else name: value for name, value in values.items()}
    assert own == set(values)
    assert set(attributes) == set(operator.template_fields)
    task = operator(
        task_id="t",
        dag=DAG("d", schedule=None, start_date=datetime(2025, 1, 1)),
        **{name: f"{{{{ params.{name} }}}}" for name in values},
    )
    task.render_template_fields({"params": values, **context()})
    for name, value in attributes.items():
        assert str(getattr(task, name)) == value
    task.execute(context())
    assert coveo.requests[-1].status in {201, 202}


def test_nothing_is_read_or_checked_when_a_dag_file_is_parsed() -> None:
    SetPushSourceStatusOperator(
        task_id="t", source_id="{{ no }}/{{ such }}", status="{{ thing }}", coveo_conn_id="no_such_connection"
    )
    ResetPushSourceOperator(task_id="t", source_id="", ordering_id=-1, queue_delay=-1)


@pytest.mark.parametrize(
    "operator",
    [
        SetPushSourceStatusOperator(task_id="a", source_id=SOURCE, status="RESCAN"),
        SetPushSourceStatusOperator(task_id="b", source_id="", status="IDLE"),
        ResetPushSourceOperator(task_id="c", source_id=SOURCE, ordering_id="tomorrow"),
        ResetPushSourceOperator(task_id="d", source_id=SOURCE, ordering_id=10**18),
        ResetPushSourceOperator(task_id="e", source_id=SOURCE, ordering_id=1, queue_delay=-1),
    ],
)
def test_bad_input_fails_at_once_without_a_request(
    coveo: Simulator, connect: Callable[..., None], operator: Any
) -> None:
    with pytest.raises(CoveoInputError) as refused:
        operator.execute(context())
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


def test_a_permanent_error_is_not_retried_and_a_temporary_one_is(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    operator = SetPushSourceStatusOperator(task_id="t", source_id="nowhere", status="IDLE")
    with pytest.raises(CoveoError) as final:
        operator.execute(context())
    assert isinstance(final.value, AirflowFailException)
    assert (final.value.status_code, final.value.error_code) == (412, "SOURCE_DOES_NOT_EXIST")
    coveo.faults.answer(503, headers={"Retry-After": "3000"}, times=None)
    with pytest.raises(ServiceError) as passing:
        SetPushSourceStatusOperator(task_id="t", source_id=SOURCE, status="IDLE").execute(context())
    assert not isinstance(passing.value, AirflowFailException)


def test_the_operators_compose_into_a_dag() -> None:
    with DAG(
        "composed",
        schedule=None,
        start_date=datetime(2025, 1, 1),
        default_args={"source_id": SOURCE, "coveo_conn_id": "other"},
    ) as dag:
        rebuild = SetPushSourceStatusOperator(task_id="rebuild", status="REBUILD")
        reset = ResetPushSourceOperator(task_id="reset", ordering_id=rebuild.output["ordering_id"])
        assert rebuild.multiple_outputs
        assert reset.multiple_outputs
        idle = SetPushSourceStatusOperator(task_id="idle", status="IDLE").as_teardown(setups=rebuild)
        plain = SetPushSourceStatusOperator(task_id="plain", status="IDLE", trigger_rule="all_done")
        many = SetPushSourceStatusOperator.partial(task_id="many", status="IDLE").expand(source_id=["a", "b"])
        rebuild >> reset >> [idle, plain, many]
    assert rebuild.source_id == SOURCE
    assert rebuild.coveo_conn_id == "other"
    assert rebuild.is_setup
    assert idle.is_teardown
    assert reset.upstream_task_ids == {"rebuild"}
    assert plain.trigger_rule == "all_done"
    assert len(dag.tasks) == 5


# --- the cut-off of a reset ---


def test_a_retry_of_a_reset_keeps_the_first_cut_off_and_a_clear_uses_a_new_one(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    store = _Store()
    coveo.clock.shift(seconds=-600)
    coveo.faults.answer(503, headers={"Retry-After": "3000"}, operation="olderthan")

    def reset(max_tries: int) -> int:
        operator = ResetPushSourceOperator(task_id="t", source_id=SOURCE, queue_delay=0)
        return int(operator.execute(context(store, max_tries=max_tries))["ordering_id"])

    with pytest.raises(ServiceError):
        reset(max_tries=2)
    first = int(next(r for r in coveo.requests if r.operation == "olderthan").query["orderingId"])
    coveo.clock.advance(seconds=60)
    assert reset(max_tries=2) == first
    # Coveo's clock is known with a precision of a second.
    assert reset(max_tries=4) > first + 58_000


def test_a_reset_can_be_executed_by_hand(coveo: Simulator, connect: Callable[..., None]) -> None:
    ResetPushSourceOperator(task_id="t", source_id=SOURCE).execute({})
    assert coveo.requests[-1].operation == "olderthan"


def test_a_reset_with_a_cut_off_of_the_rebuild_deletes_older_items_only(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    cut_off = SetPushSourceStatusOperator(task_id="t", source_id=SOURCE, status="REBUILD").execute(context())[
        "ordering_id"
    ]
    ResetPushSourceOperator(task_id="u", source_id=SOURCE, ordering_id=cut_off).execute(context())
    assert coveo.requests[-1].query == {"orderingId": str(cut_off), "queueDelay": "15"}


def _rendered_to_nothing(operator_class: Any, **values: Any) -> Any:
    with DAG("d", start_date=datetime(2025, 1, 1), schedule=None, render_template_as_native_obj=True):
        operator = operator_class(task_id="t", **values)
    operator.render_template_fields({"nothing": None})
    return operator


def test_a_cut_off_that_renders_to_none_does_not_mean_now(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    reset = _rendered_to_nothing(ResetPushSourceOperator, source_id=SOURCE, ordering_id="{{ nothing }}")
    with pytest.raises(CoveoInputError, match="ordering_id rendered to None") as refused:
        reset.execute(context())
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


# --- the watchdog ---


@pytest.mark.usefixtures("variables")
def test_a_source_that_cannot_be_read_does_not_keep_another_one_open(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    coveo.clock.shift(seconds=-7 * 3600)
    CoveoPushHook().set_source_status(SOURCE, "REBUILD")
    coveo.clock.shift(seconds=0)
    watchdog = CloseAbandonedPushSourcesOperator(task_id="t", source_ids=["gone", SOURCE])
    with pytest.raises(CoveoError, match="'gone'"):
        watchdog.execute(context())
    assert coveo.statuses(SOURCE) == ["REBUILD", "IDLE"]


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize(
    ("values", "found", "statuses"),
    [
        ({}, {"abandoned": [SOURCE], "closed": [SOURCE]}, ["REBUILD", "IDLE"]),
        ({"report_only": "true"}, {"abandoned": [SOURCE], "closed": []}, ["REBUILD"]),
        ({"active_longer_than": timedelta(hours=8)}, {"abandoned": [], "closed": []}, ["REBUILD"]),
        ({"source_ids": []}, {"abandoned": [], "closed": []}, ["REBUILD"]),
    ],
)
def test_the_watchdog_closes_sources_that_were_active_for_too_long_unless_it_only_reports(
    coveo: Simulator,
    connect: Callable[..., None],
    values: dict[str, Any],
    found: dict[str, Any],
    statuses: list[str],
) -> None:
    coveo.clock.shift(seconds=-7 * 3600)
    CoveoPushHook().set_source_status(SOURCE, "REBUILD")
    coveo.clock.shift(seconds=0)
    result = CloseAbandonedPushSourcesOperator(task_id="t", **values).execute(context())
    assert {name: result[name] for name in found} == found
    assert coveo.statuses(SOURCE) == statuses


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"source_ids": "['acme', 'emca']"}, "source_ids"),
        ({"source_ids": ["acme", "a/b"]}, "a/b"),
        ({"source_ids": 7}, "source_ids"),
        ({"active_longer_than": 6}, "active_longer_than"),
        ({"active_longer_than": timedelta(0)}, "active_longer_than"),
    ],
)
def test_the_watchdog_rejects_invalid_input_before_it_sends_anything(
    coveo: Simulator, connect: Callable[..., None], values: dict[str, Any], named: str
) -> None:
    with pytest.raises(CoveoInputError, match=named) as refused:
        CloseAbandonedPushSourcesOperator(task_id="t", **values).execute(context())
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


def test_source_ids_that_render_to_none_do_not_mean_all_sources(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    watchdog = _rendered_to_nothing(CloseAbandonedPushSourcesOperator, source_ids="{{ nothing }}")
    with pytest.raises(CoveoInputError, match="source_ids rendered to None"):
        watchdog.execute(context())
    assert coveo.requests == []


# --- the cost of imports ---


def test_importing_the_operators_imports_neither_http_libraries_nor_the_hook(
    run_fresh: RunFresh,
) -> None:
    script = """
import sys
from airflow.providers.common.compat.sdk import BaseOperator
BaseOperator
before = set(sys.modules)
import airflow_provider_coveo.operators.coveo_push
new = set(sys.modules) - before
print(len(new), *sorted(name for name in new if not name.startswith("airflow_provider_coveo")))
assert not [name for name in new if name.split(".")[0] in ("requests", "aiohttp", "urllib3", "tenacity")]
assert "airflow_provider_coveo.hooks.coveo_push" not in sys.modules
assert len(new) < 40
"""
    done = run_fresh(script)
    assert done.returncode == 0, done.stdout + done.stderr
