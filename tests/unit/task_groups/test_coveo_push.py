"""The wiring of a DAG with ``push_source_update`` when it is parsed; no task runs here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    BaseOperator,
    TaskGroup,
    chain,
    task,
    task_group,
)

from airflow_provider_coveo.assets.coveo_push import push_source_asset
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.coveo_push import PushItemsOperator, ResetPushSourceOperator
from airflow_provider_coveo.task_groups.coveo_push import (
    OverlappingRunsWarning,
    _updates_around,
    push_source_update,
)

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 2.11
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:  # Airflow 2.11 without the standard provider
    from airflow.operators.empty import EmptyOperator

SOURCE = "acme-products"
#: The tasks after the work, in order.
AFTER_WORK = {"close", "outcome", "done"}


def a_dag(**options: Any) -> DAG:
    defaults: dict[str, Any] = {"start_date": datetime(2025, 1, 1), "schedule": None, "max_active_runs": 1}
    return DAG("d", **{**defaults, **options})


@pytest.fixture
def dag() -> Iterator[DAG]:
    """A DAG for the test to fill; in the end, Airflow must be able to validate and serialize it."""
    with a_dag() as dag:
        yield dag
    stored(dag)


def stored(dag: DAG) -> Any:
    """Return the DAG in the scheduler's form."""
    check_cycle = getattr(dag, "check_cycle", None)
    if check_cycle is None:
        from airflow.utils.dag_cycle_tester import check_cycle as check

        check(dag)
    else:
        check_cycle()
    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def below(task: Any) -> set[str]:
    """Return the direct downstream tasks of a task, without their groups."""
    return {name.rpartition(".")[2] for name in task.downstream_task_ids}


def of(update: Any, name: str) -> Any:
    """Return one of the bracket's own tasks."""
    return update.dag.get_task(update.child_id(name))


def is_member(update: Any, task: Any) -> bool:
    """Return whether `close`, `outcome` and the tasks after the bracket all wait for a task."""
    waiting = {of(update, name).task_id for name in AFTER_WORK}
    return waiting <= task.downstream_task_ids and _looks_before_it_works(task)


def _looks_before_it_works(task: Any) -> bool:
    partial = getattr(task, "partial_kwargs", None)
    hook = task._pre_execute_hook if partial is None else partial.get("pre_execute")
    return type(hook).__name__ == "_Reopening"


class Work(BaseOperator):
    template_fields = ("note",)

    def __init__(self, *, note: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.note = note

    def execute(self, context: Any) -> None:
        pass


@task
def work(number: int = 0) -> int:
    return number


# --- the bracket itself ---


def test_the_close_task_is_a_teardown_that_requires_only_the_first_setup_to_succeed(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")

    begin, opening = of(update, "begin"), of(update, "open")
    assert begin.is_setup
    assert opening.is_setup
    assert update.open is opening
    assert update.close is of(update, "close")
    assert below(begin) >= {"open", "close", "outcome"}
    for name in ("close", "outcome"):
        assert of(update, name).is_teardown
        assert of(update, name).trigger_rule == "all_done_setup_success"
    assert not of(update, "close").on_failure_fail_dagrun
    assert of(update, "outcome").on_failure_fail_dagrun
    assert below(of(update, "close")) == {"outcome", "done"}


def test_the_close_task_waits_for_every_task_inside_not_only_for_the_last(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        first, last = Work(task_id="first"), Work(task_id="last")
        first >> last

    assert is_member(update, first)
    assert is_member(update, last)
    assert below(update.open) == {"first", "close"}


def test_tasks_after_the_bracket_depend_on_close_and_on_every_task(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")
    after = Work(task_id="after")
    update >> after

    assert after.upstream_task_ids == {"push_source_update.done"}
    assert of(update, "done").trigger_rule == "none_failed"


def test_tasks_after_a_group_that_contains_a_bracket_depend_on_it_too(dag: DAG) -> None:
    with TaskGroup("outer") as outer:
        before = Work(task_id="before")
        with push_source_update(source_id=SOURCE, group_id="update") as update:
            Work(task_id="work")
        before >> update
    after = Work(task_id="after")
    outer >> after

    assert after.upstream_task_ids == {"outer.update.done"}
    assert update.close.task_id == "outer.update.close"
    assert of(update, "begin").upstream_task_ids == {"outer.before"}


def test_tasks_before_a_bracket_run_before_its_first_setup(dag: DAG) -> None:
    before = Work(task_id="before")
    with push_source_update(source_id=SOURCE) as update:
        inside = Work(task_id="work")
    before >> update

    assert below(before) == {"begin"}
    assert not is_member(update, before)
    assert is_member(update, inside)


def test_old_items_are_deleted_after_every_task_and_before_the_close_task(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True, queue_delay=0) as update:
        first, last = Work(task_id="first"), Work(task_id="last")
        first >> last

    delete = of(update, "delete_old_items")
    assert {"push_source_update.first", "push_source_update.last"} <= delete.upstream_task_ids
    assert below(delete) == AFTER_WORK
    assert delete.trigger_rule == "all_success"


def test_by_default_nothing_is_deleted(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE):
        Work(task_id="work")

    assert "push_source_update.delete_old_items" not in dag.task_ids


def test_the_close_task_is_retried_for_more_than_two_hours(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")

    for closing in (update.close, of(update, "outcome")):
        delays = [
            min(closing.retry_delay * 2**number, closing.max_retry_delay) for number in range(closing.retries)
        ]
        assert sum(delays, timedelta()) > timedelta(hours=2)
        assert closing.retry_exponential_backoff


def test_the_outlets_of_an_update_belong_to_the_task_that_knows_whether_it_succeeded(dag: DAG) -> None:
    asset = push_source_asset(organization_id="acme", source_id=SOURCE)
    with push_source_update(source_id=SOURCE, outlets=[asset], delete_old_items=True):
        work()
    outlets = {task.task_id: [outlet.uri for outlet in task.outlets] for task in dag.tasks}
    assert outlets.pop("push_source_update.outcome") == [asset.uri]
    assert not any(outlets.values())


def test_each_call_of_a_decorated_function_is_a_bracket_named_after_it(dag: DAG) -> None:
    @push_source_update(source_id=SOURCE, status="REFRESH")
    def catalog(name: str) -> None:
        Work(task_id=name)

    first, second = catalog("one"), catalog("two")

    assert first.group_id == "catalog"
    assert second.group_id == "catalog__1"
    assert is_member(first, dag.get_task("catalog.one"))
    assert is_member(second, dag.get_task("catalog__1.two"))
    assert first.open.status == "REFRESH"


# --- several brackets ---


def test_two_brackets_get_different_ids_and_check_only_their_own_tasks(dag: DAG) -> None:
    brackets = []
    for source in ("one", "two"):
        with push_source_update(source_id=source) as update:
            Work(task_id="work")
        brackets.append(update)
    first, second = brackets
    first >> second

    assert [update.group_id for update in brackets] == ["push_source_update", "push_source_update__1"]
    assert judged(first) == {"push_source_update.work", "push_source_update.open", "push_source_update.close"}
    assert judged(second) == {name.replace("update.", "update__1.") for name in judged(first)}


def judged(update: Any) -> set[str]:
    from airflow_provider_coveo.operators.coveo_push_update import _members, _own_tasks

    outcome = of(update, "outcome")
    tasks = [*_members(outcome, outcome.update_tasks), *_own_tasks(outcome, outcome.update_tasks)]
    return {task.task_id for task in tasks}


@push_source_update(source_id="other")
def inner_bracket() -> None:
    Work(task_id="work")


@push_source_update(source_id=SOURCE)
def bracket_in_a_bracket() -> None:
    inner_bracket()


@push_source_update(source_id=SOURCE)
def bracket_in_a_group_in_a_bracket() -> None:
    with TaskGroup("between"):
        inner_bracket()


@push_source_update(source_id=SOURCE)
def empty_bracket() -> None:
    pass


@push_source_update(source_id=SOURCE)
def bracket_with_an_error() -> None:
    raise ZeroDivisionError


class LoopTaskGroup(TaskGroup):
    """A task loop as in Airflow 3.4."""


def bracket_in_a_loop() -> None:
    with LoopTaskGroup(group_id="loop"), TaskGroup(group_id="each"), push_source_update(source_id=SOURCE):
        work()


@pytest.mark.parametrize(
    ("bracket", "reason"),
    [
        (bracket_in_a_loop, r"in the task loop 'loop'.*Move the loop into the bracket"),
        (bracket_in_a_bracket, "contains another bracket"),
        (bracket_in_a_group_in_a_bracket, "contains another bracket"),
        (empty_bracket, "contains no task"),
    ],
)
def test_a_bracket_that_cannot_work_is_rejected_with_the_reason(
    bracket: Callable[[], Any], reason: str
) -> None:
    with a_dag(), pytest.raises(CoveoInputError, match=reason):
        bracket()


def test_an_error_in_the_bracket_is_not_hidden_by_the_bracket() -> None:
    with a_dag(), pytest.raises(ZeroDivisionError):
        bracket_with_an_error()


# --- content of the bracket ---


def test_tasks_in_nested_groups_are_members(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        with TaskGroup("a") as group:
            with TaskGroup("b"):
                deep = Work(task_id="deep")
            deep >> Work(task_id="next")
        group >> Work(task_id="last")

    assert is_member(update, deep)
    assert is_member(update, dag.get_task("push_source_update.a.next"))
    assert "push_source_update.open" in deep.upstream_task_ids


@pytest.mark.parametrize("classic", [True, False])
def test_mapped_tasks_are_members(dag: DAG, classic: bool) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        if classic:
            mapped: Any = Work.partial(task_id="work").expand(note=["a", "b"])
        else:
            mapped = work.expand(number=[1, 2]).operator

    assert is_member(update, mapped)
    assert mapped.task_id in of(update, "delete_old_items").upstream_task_ids


def test_a_bracket_can_contain_a_mapped_group(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:

        @task_group
        def each(number: int) -> None:
            work(number) >> Work(task_id="next")

        each.expand(number=[1, 2])

    assert is_member(update, dag.get_task("push_source_update.each.next"))
    assert is_member(update, dag.get_task("push_source_update.each.work"))


def test_a_mapped_group_can_contain_a_bracket(dag: DAG) -> None:
    brackets = []

    @task_group
    def each(source_id: str) -> None:
        with push_source_update(source_id=source_id, group_id="update", delete_old_items=True) as update:
            work()
        brackets.append(update)

    each.expand(source_id=["one", "two"])

    (update,) = brackets
    assert is_member(update, dag.get_task("each.update.work"))


def test_a_bracket_can_contain_a_branch(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:

        @task.branch
        def choose() -> str:
            return f"{update.group_id}.one"

        choose() >> [Work(task_id="one"), Work(task_id="two")]

    for name in ("choose", "one", "two"):
        assert is_member(update, of(update, name))


def test_a_bracket_can_contain_a_short_circuit(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:

        @task.short_circuit
        def go_on() -> bool:
            return False

        go_on() >> Work(task_id="work")

    assert is_member(update, of(update, "go_on"))


def test_the_users_own_setup_and_teardown_stay_paired_with_each_other(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        make_room, clean_up = Work(task_id="make_room"), Work(task_id="clean_up")
        make_room >> Work(task_id="work") >> clean_up.as_teardown(setups=make_room)

    assert below(make_room) == {"work", "clean_up"}
    # As everywhere in Airflow, a teardown's failure fails nothing, but the bracket waits for it.
    assert below(clean_up) == {"close", "outcome"}
    assert make_room.task_id in judged(update)


def test_an_empty_task_is_not_checked_before_it_runs(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        join = EmptyOperator(task_id="join")

    assert below(join) == AFTER_WORK
    assert join._pre_execute_hook is None
    assert update.open.task_id in join.upstream_task_ids


# --- tasks from elsewhere ---


def below_open_by_shift(update: Any, task: Any) -> None:
    update.open >> task


def below_open_by_left_shift(update: Any, task: Any) -> None:
    task << update.open


def below_open_by_set_downstream(update: Any, task: Any) -> None:
    update.open.set_downstream([task])


def below_open_by_set_upstream(update: Any, task: Any) -> None:
    task.set_upstream(update.open)


def below_open_by_chain(update: Any, task: Any) -> None:
    chain(update.open, task)


def above_close_by_shift(update: Any, task: Any) -> None:
    task >> update.close


def above_close_by_left_shift(update: Any, task: Any) -> None:
    update.close << task


def above_close_by_set_upstream(update: Any, task: Any) -> None:
    update.close.set_upstream([task])


def above_close_by_set_downstream(update: Any, task: Any) -> None:
    task.set_downstream(update.close)


def between_both_by_chain(update: Any, task: Any) -> None:
    chain(update.open, [task], update.close)


WAYS_IN = [
    below_open_by_shift,
    below_open_by_left_shift,
    below_open_by_set_downstream,
    below_open_by_set_upstream,
    below_open_by_chain,
    above_close_by_shift,
    above_close_by_left_shift,
    above_close_by_set_upstream,
    above_close_by_set_downstream,
    between_both_by_chain,
]


@pytest.mark.parametrize("wire", WAYS_IN, ids=lambda wire: wire.__name__)
def test_a_task_from_outside_becomes_a_member_however_it_is_wired(
    dag: DAG, wire: Callable[[Any, Any], None]
) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        Work(task_id="work")
    outside = Work(task_id="outside")
    wire(update, outside)

    assert is_member(update, outside)
    assert update.open.task_id in outside.upstream_task_ids
    assert "outside" in of(update, "delete_old_items").upstream_task_ids
    assert "outside" in judged(update)


def test_a_decorated_task_from_outside_becomes_a_member(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")
    outside: Any = work()
    update.open >> outside

    assert is_member(update, outside.operator)


def test_a_group_from_outside_becomes_a_member_with_all_its_tasks(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")
    with TaskGroup("outside") as outside:
        first, last = Work(task_id="first"), Work(task_id="last")
        first >> last
    update.open >> outside

    assert is_member(update, first)
    assert is_member(update, last)


def test_the_cut_off_can_be_passed_to_a_task_inside(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        inside: Any = work(update.ordering_id)

    assert is_member(update, inside.operator)
    assert update.open.task_id in inside.operator.upstream_task_ids


def test_the_cut_off_can_be_passed_to_a_task_from_outside_which_becomes_a_member(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")
    outside: Any = work(update.ordering_id)

    assert is_member(update, outside.operator)


def test_the_cut_off_can_be_passed_to_a_task_after_the_bracket(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        Work(task_id="work")
    after: Any = work(update.ordering_id)
    update >> after

    assert after.operator.upstream_task_ids == {"push_source_update.open", "push_source_update.done"}
    assert not is_member(update, after.operator)
    assert not _looks_before_it_works(after.operator)
    assert after.operator.task_id not in judged(update)


# --- settings of DAGs and tasks ---


def test_runs_that_can_overlap_cause_a_warning() -> None:
    with a_dag(max_active_runs=2), pytest.warns(OverlappingRunsWarning, match="max_active_runs=1"):  # noqa: SIM117
        with push_source_update(source_id=SOURCE):
            Work(task_id="work")


@pytest.mark.parametrize(("max_active_runs", "exclusive"), [(1, False), (1, True), (16, True)])
def test_runs_that_cannot_harm_each_other_cause_no_warning(max_active_runs: int, exclusive: bool) -> None:
    with warnings.catch_warnings(), a_dag(max_active_runs=max_active_runs):
        warnings.simplefilter("error")
        with push_source_update(source_id=SOURCE, exclusive=exclusive):
            Work(task_id="work")


def first_callback(context: Any) -> None: ...


def second_callback(context: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, []),
        (first_callback, [first_callback]),
        ([first_callback, second_callback], [first_callback, second_callback]),
    ],
)
def test_our_callback_runs_before_those_of_the_dag_which_keep_their_order(given: Any, kept: Any) -> None:
    both = {"on_failure_callback": given, "on_success_callback": given}
    with a_dag(**both) as dag, push_source_update(source_id=SOURCE):
        Work(task_id="work")

    for callbacks in (dag.on_failure_callback, dag.on_success_callback):
        assert type(callbacks[0]).__name__ == "_FailureCallback"
        assert callbacks[1:] == kept
    assert stored(dag).has_on_failure_callback
    assert stored(dag).has_on_success_callback


def test_the_users_pre_execute_still_runs(dag: DAG) -> None:
    seen: list[Any] = []
    with push_source_update(source_id=SOURCE):
        inside = Work(task_id="work", pre_execute=seen.append)

    assert inside._pre_execute_hook.then == seen.append


def test_default_args_cannot_keep_the_bracket_from_closing() -> None:
    default_args = {
        "retries": 0,
        "execution_timeout": timedelta(seconds=1),
        "depends_on_past": True,
        "wait_for_downstream": True,
        "trigger_rule": "one_failed",
        "on_failure_callback": first_callback,
        "do_xcom_push": False,
        "retry_delay": timedelta(days=1),
        "max_active_tis_per_dag": 1,
    }
    with a_dag(default_args=default_args), push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")

    for name in ("begin", "open", "close", "outcome", "done"):
        own = of(update, name)
        assert own.max_active_tis_per_dag is None, name
        # Tasks with a request have their own limit; the others need none.
        assert own.execution_timeout is None or own.execution_timeout >= timedelta(minutes=30), name
        assert not own.depends_on_past, name
        assert not own.wait_for_downstream, name
        assert own.do_xcom_push, name
    assert of(update, "begin").trigger_rule == "all_success"
    assert update.open.trigger_rule == "all_success"
    assert of(update, "done").trigger_rule == "none_failed"
    for closing in (update.close, of(update, "outcome")):
        assert closing.trigger_rule == "all_done_setup_success"
        assert closing.retries == 12
        assert closing.retry_delay == timedelta(minutes=1)


@pytest.mark.parametrize("where", ["dag", "group"])
def test_the_bracket_and_the_tasks_in_it_use_the_same_connection(where: str) -> None:
    connection = {"coveo_conn_id": "coveo_eu", "organization_id": "acme-eu"}
    of_group = {"default_args": connection} if where == "group" else {}
    with a_dag(default_args=connection if where == "dag" else {}):
        with push_source_update(source_id=SOURCE, delete_old_items=True, **of_group) as update:
            push = PushItemsOperator(task_id="push", source_id=SOURCE, items=[])
        with push_source_update(source_id=SOURCE, coveo_conn_id="coveo_us", organization_id="acme") as other:
            Work(task_id="work")

    for own in (push, update.open, update.close, of(update, "outcome"), of(update, "delete_old_items")):
        assert (own.coveo_conn_id, own.organization_id) == ("coveo_eu", "acme-eu"), own.task_id
    for own in (other.open, other.close, of(other, "outcome")):
        assert (own.coveo_conn_id, own.organization_id) == ("coveo_us", "acme"), own.task_id


def test_without_a_connection_id_the_bracket_uses_the_default_connection(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")

    for own in (update.open, update.close):
        assert (own.coveo_conn_id, own.organization_id) == ("coveo_default", None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"source_id": None}, "source ID"),
        ({"source_id": ""}, "source ID"),
        ({"source_id": "a b"}, "source ID"),
        ({"source_id": 5}, "source ID"),
        ({"status": "REBIULD"}, "REBIULD"),
        ({"status": "IDLE"}, "IDLE ends"),
        ({"status": None}, "status"),
        ({"queue_delay": -5}, "queue delay"),
        ({"delete_old_items": "{{ params.clean }}"}, "delete_old_items"),
        ({"allow_empty": "false"}, "allow_empty"),
        ({"exclusive": "false"}, "exclusive"),
        ({"exclusive_timeout": 60}, "exclusive_timeout"),
        ({"poll_interval": timedelta(0)}, "poll_interval"),
        ({"close_retry_delay": -timedelta(1)}, "close_retry_delay"),
        ({"close_retries": -1}, "close_retries"),
    ],
)
def test_invalid_parameters_are_rejected_when_the_dag_is_parsed_and_affect_no_other_dag(
    options: dict[str, Any], named: str
) -> None:
    refused = pytest.raises(CoveoInputError, match=named)
    with a_dag(), refused, push_source_update(**{"source_id": SOURCE, **options}):
        Work(task_id="work")
    with a_dag():
        assert Work(task_id="innocent").task_id == "innocent"


def test_an_error_at_the_start_of_a_bracket_affects_no_other_dag() -> None:
    refused = pytest.raises((TypeError, ValueError, AirflowException), match=r"retries|many")
    with refused, a_dag(default_args={"retries": "many"}), push_source_update(source_id=SOURCE):
        Work(task_id="work")
    with a_dag():
        assert Work(task_id="innocent").task_id == "innocent"


def test_a_dag_that_fails_fast_is_accepted() -> None:
    with a_dag() as plain:
        option = "fail_fast" if hasattr(plain, "fail_fast") else "fail_stop"
    with (
        a_dag(**{option: True}) as dag,
        push_source_update(source_id=SOURCE, delete_old_items=True) as update,
    ):
        Work(task_id="work")

    stored(dag)
    assert update.close.is_teardown


# --- Airflow's handling of a DAG ---


def test_the_scheduler_sees_the_same_wiring() -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            work.expand(number=[1, 2]) >> Work(task_id="last")
        outside = Work(task_id="outside")
        update.open >> outside

    seen = stored(dag)
    for own in dag.tasks:
        assert seen.get_task(own.task_id).downstream_task_ids == own.downstream_task_ids
    assert seen.get_task(update.close.task_id).is_teardown
    assert seen.get_task(of(update, "outcome").task_id).on_failure_fail_dagrun


def test_a_copy_of_the_dag_has_the_same_wiring(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="work")

    copied: Any = copy.deepcopy(dag)
    assert copied.get_task(update.close.task_id).upstream_task_ids == update.close.upstream_task_ids
    assert copied.get_task(update.close.task_id) is not update.close


def test_a_partial_subset_of_the_dag_can_be_created() -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            Work(task_id="work")
        update >> Work(task_id="after")

    whole: Any = dag if hasattr(dag, "partial_subset") else stored(dag)
    part = whole.partial_subset("push_source_update.work", include_upstream=True, include_downstream=False)
    assert {name.rpartition(".")[2] for name in part.task_ids} == {
        "begin",
        "open",
        "work",
        "close",
        "outcome",
    }


def test_a_task_reopens_its_own_bracket_and_not_an_earlier_one(dag: DAG) -> None:
    updates = []
    for number in range(5):
        with push_source_update(source_id=SOURCE, status="REFRESH", group_id=f"update_{number}") as update:
            EmptyOperator(task_id="work")
        update.open >> EmptyOperator(task_id=f"late_{number}")
        updates.append(update)
    chain(*updates)

    for number in range(5):
        found = _updates_around(dag.get_task(f"late_{number}"))
        assert [each.open for each in found] == [f"update_{number}.open"]
    assert [each.open for each in _updates_around(dag.get_task("update_3.done"))] == ["update_3.open"]


# --- the same graph, whatever the order of its edges ---


def checked(dag: DAG) -> None:
    """Validate a DAG as Airflow does after it reads its file."""
    dag.validate()


def test_a_task_wired_downstream_of_open_inside_the_with_block_is_a_member(dag: DAG) -> None:
    outside = Work(task_id="outside")
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        Work(task_id="work")
        update.open >> outside

    assert is_member(update, outside)
    assert "outside" in of(update, "delete_old_items").upstream_task_ids


def test_a_task_from_outside_between_two_members_is_a_member(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        first, last = Work(task_id="first"), Work(task_id="last")
    between = Work(task_id="between")
    first >> between >> last
    checked(dag)

    assert is_member(update, between)


def test_a_task_inside_that_runs_before_the_open_task_is_not_a_member(dag: DAG) -> None:
    with push_source_update(source_id=SOURCE) as update:
        before, inside = Work(task_id="before"), Work(task_id="work")
        before >> update.open
    checked(dag)

    assert not is_member(update, before)
    assert is_member(update, inside)


@pytest.mark.parametrize("cut_off_first", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_task_after_the_bracket_can_use_the_cut_off_however_it_is_wired(
    dag: DAG, steps: int, cut_off_first: bool
) -> None:
    with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
        Work(task_id="work")
    waits = [Work(task_id=f"wait_{step}") for step in range(steps)]
    if cut_off_first:
        reset = ResetPushSourceOperator(task_id="r", source_id=SOURCE, ordering_id=update.ordering_id)
        for above, below in zip([*waits, reset][-2::-1], [*waits, reset][:0:-1], strict=True):
            above >> below
        chain(update, [*waits, reset][0])
    else:
        chain(update, *waits)
        reset = ResetPushSourceOperator(task_id="r", source_id=SOURCE, ordering_id=update.ordering_id)
        chain([update, *waits][-1], reset)

    assert not is_member(update, reset)
    assert not _looks_before_it_works(reset)
    assert "r" not in judged(update)
    assert reset.upstream_task_ids >= {update.open.task_id}


def test_tasks_after_the_bracket_can_be_wired_inside_the_with_block(dag: DAG) -> None:
    follows, late = Work(task_id="follows"), Work(task_id="late")
    with push_source_update(source_id=SOURCE) as update:
        update >> follows
        inside = Work(task_id="work")
        late << update
    checked(dag)
    for after in (follows, late):
        assert after.upstream_task_ids == {of(update, "done").task_id}
        assert not is_member(update, after)
    assert below(inside) == AFTER_WORK


def in_and_after() -> None:
    with push_source_update(source_id=SOURCE) as update:
        inside = Work(task_id="inside")
    after = Work(task_id="after")
    update >> after >> inside


def other_bracket_below_the_opening() -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="inside")
    with push_source_update(source_id="other") as other:
        Work(task_id="inside")
    update.open >> other


def other_bracket_between() -> None:
    with push_source_update(source_id=SOURCE):
        first, last = Work(task_id="first"), Work(task_id="last")
    with push_source_update(source_id="other") as other:
        Work(task_id="inside")
    first >> other >> last


def a_first_task_with_a_rule() -> None:
    with push_source_update(source_id=SOURCE):
        Work(task_id="inside", trigger_rule="none_failed")


def a_first_task_with_a_rule_from_outside() -> None:
    with push_source_update(source_id=SOURCE) as update:
        Work(task_id="inside")
    update.open >> Work(task_id="outside", trigger_rule="all_done")


def a_task_of_that_name() -> None:
    with push_source_update(source_id=SOURCE):
        Work(task_id="close")


def two_without_prefix() -> None:
    for source in ("one", "two"):
        with push_source_update(source_id=source, group_id=source, prefix_group_id=False):
            Work(task_id=f"work_{source}")


def a_delta_that_deletes() -> None:
    with push_source_update(source_id=SOURCE, status="incremental", delete_old_items=True):
        Work(task_id="inside")


def a_member_outside_of_the_mapped_bracket() -> None:
    brackets = []

    @task_group
    def each(source_id: str) -> None:
        with push_source_update(source_id=source_id, group_id="update") as update:
            work()
        brackets.append(update)

    each.expand(source_id=["one", "two"])
    brackets[0].open >> Work(task_id="outside")


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        (in_and_after, r"'push_source_update\.inside'.*wired after it.*update >> task"),
        (other_bracket_below_the_opening, "contains another bracket"),
        (other_bracket_between, "contains another bracket"),
        (a_first_task_with_a_rule, r"'push_source_update\.inside' is a first task.*'none_failed'.*Remedy"),
        (a_first_task_with_a_rule_from_outside, "'outside' is a first task.*'all_done'.*Remedy"),
        (a_task_of_that_name, "one of the bracket's own.*Rename"),
        (two_without_prefix, "name of one of the bracket's own"),
        (a_delta_that_deletes, "status INCREMENTAL.*REBUILD"),
        (a_member_outside_of_the_mapped_bracket, "'outside'.*mapped.*'each'"),
    ],
)
def test_dags_that_airflow_could_not_run_are_rejected_before_airflow_rejects_them(
    shape: Callable[[], None], named: str
) -> None:
    def build() -> None:
        with a_dag() as dag:
            shape()
        dag.validate()

    with pytest.raises(CoveoInputError, match=f"(?s){named}"):
        build()


def test_a_trigger_rule_in_default_args_is_rejected_when_the_dag_is_validated() -> None:
    with a_dag(default_args={"trigger_rule": "none_failed"}) as dag, push_source_update(source_id=SOURCE):
        Work(task_id="work")
    with pytest.raises(CoveoInputError, match="is a first task"):
        dag.validate()


def test_a_callback_that_is_set_on_the_dag_later_does_not_replace_ours() -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE):
        Work(task_id="work")
    dag.on_failure_callback = first_callback
    dag.on_success_callback = None
    checked(dag)
    for callbacks, others in ((dag.on_failure_callback, [first_callback]), (dag.on_success_callback, [])):
        found: Any = callbacks
        assert [type(found[0]).__name__, *found[1:]] == ["_FailureCallback", *others]


def test_one_callback_covers_all_brackets_of_a_dag(dag: DAG) -> None:
    for source in ("one", "two", "three"):
        with push_source_update(source_id=source):
            Work(task_id="work")
    checked(dag)
    callbacks: Any = dag.on_failure_callback
    (ours,) = callbacks
    assert len(ours.brackets) == 3
    assert dag.on_success_callback == [ours]


@pytest.mark.parametrize("name", ["depends_on_past", "wait_for_downstream"])
@pytest.mark.parametrize("by_default", [True, False])
def test_a_bracket_waits_for_the_previous_run_if_a_task_in_it_does(name: str, by_default: bool) -> None:
    with a_dag(default_args={name: True} if by_default else {}) as dag:
        with push_source_update(source_id=SOURCE) as update:
            Work(task_id="first") >> Work(task_id="last", **({} if by_default else {name: True}))
        with push_source_update(source_id="other", default_args={name: False}) as other:
            Work(task_id="work")
    checked(dag)
    for own in ("begin", "open"):
        assert of(update, own).depends_on_past, own
        assert of(update, own).wait_for_downstream, own
        assert not of(other, own).depends_on_past, own
    for own in ("close", "outcome", "done"):
        assert not of(update, own).depends_on_past, own


def test_no_task_inside_waits_for_the_previous_run_once_the_source_is_open() -> None:
    given = {"depends_on_past": True, "wait_for_downstream": True, "ignore_first_depends_on_past": True}
    with a_dag(default_args=given) as dag:
        with push_source_update(source_id=SOURCE, group_id="one") as one:
            tasks = [Work(task_id="work"), Work.partial(task_id="mapped").expand(note=["a"])]
            tasks.append(Work(task_id="both"))
        with push_source_update(
            source_id="two", group_id="two", default_args={"depends_on_past": False}
        ) as two:
            Work(task_id="work", depends_on_past=False, wait_for_downstream=False)
        two.open >> tasks[-1] >> two.close
        elsewhere = Work(task_id="elsewhere")
    for _ in range(2):
        checked(dag)
    for member in tasks:
        assert not member.depends_on_past, member.task_id
        assert not member.wait_for_downstream, member.task_id
    assert elsewhere.depends_on_past
    for update in (one, two):
        assert of(update, "begin").depends_on_past
        assert of(update, "begin").ignore_first_depends_on_past


def test_a_teardown_whose_failure_is_ignored_does_not_keep_the_next_run_from_opening() -> None:
    with a_dag() as dag, push_source_update(source_id=SOURCE) as update:
        Work(task_id="work", depends_on_past=True)
        Work(task_id="clean_up").as_teardown()
    checked(dag)
    assert of(update, "open").depends_on_past
    assert not of(update, "open").wait_for_downstream
    assert of(update, "begin").wait_for_downstream


def test_the_brackets_tasks_use_only_default_args_that_cannot_keep_them_from_closing() -> None:
    harmful: dict[str, Any] = {
        "pre_execute": first_callback,
        "post_execute": first_callback,
        "on_execute_callback": first_callback,
        "on_success_callback": first_callback,
        "end_date": datetime(2025, 1, 1, tzinfo=timezone.utc),
        "pool": "small",
        "pool_slots": 9,
        "wait_for_past_depends_before_skipping": True,
        "inlets": ["x"],
        "outlets": ["x"],
        "map_index_template": "{{ 1 / 0 }}",
    }
    allowed = {"owner": "search", "queue": "eu", "on_failure_callback": first_callback}
    with a_dag(default_args={**harmful, **allowed}) as dag:
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            Work(task_id="work")
        dag_wide = dict(dag.default_args)
    assert dag_wide == {**harmful, **allowed}
    for name in ("begin", "open", "delete_old_items", "close", "outcome", "done"):
        own: Any = of(update, name)
        assert own._pre_execute_hook is None or type(own._pre_execute_hook).__name__ == "_Reopening", name
        assert own._post_execute_hook is None, name
        for kind in ("on_execute_callback", "on_success_callback", "inlets", "outlets"):
            assert not getattr(own, kind), (name, kind)
        assert own.end_date is None, name
        assert own.map_index_template is None, name
        assert (own.owner, own.queue) == ("search", "eu"), name
    for name in ("delete_old_items", "close", "outcome", "done"):
        assert (of(update, name).pool, of(update, name).pool_slots) == ("default_pool", 1), name


def test_the_tasks_of_a_bracket_have_the_weight_rule_of_the_dag_and_its_last_ones_no_pool() -> None:
    """With "upstream", an open bracket ends before another begins; no full pool keeps it from closing."""
    with a_dag(default_args={"weight_rule": "upstream", "pool": "coveo"}) as dag:
        before = Work(task_id="before")
        with push_source_update(source_id=SOURCE, delete_old_items=True) as update:
            Work(task_id="work")
        before >> update
    checked(dag)
    for name in ("begin", "open", "work", "delete_old_items", "close", "outcome", "done"):
        assert of(update, name).weight_rule == before.weight_rule, name
        its_pool = "coveo" if name in {"begin", "open", "work"} else "default_pool"
        assert of(update, name).pool == its_pool, name


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_member_that_waits_for_nothing_is_rejected(is_mapped: bool) -> None:
    """It would push before the source is open."""
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as update:
            first = Work(task_id="first")
        if is_mapped:
            late = Work.partial(task_id="late", trigger_rule="always").expand(note=["a"])
        else:
            late = Work(task_id="late", trigger_rule="always")
        first >> late
        with pytest.raises(CoveoInputError, match=r"'late' belongs to the bracket .* trigger rule 'always'"):
            late >> update.close
    with pytest.raises(CoveoInputError, match=r"'late' belongs to the bracket"):
        checked(dag)


def test_a_member_inside_that_waits_for_nothing_is_rejected_at_the_latest_with_the_dag() -> None:
    update = push_source_update(source_id=SOURCE)
    with a_dag():
        update.__enter__()
        Work(task_id="first") >> Work(task_id="second", trigger_rule="always")
        with pytest.raises(CoveoInputError, match=r"second' belongs .* Remedy: Use 'all_done'"):
            update.__exit__(None, None, None)
    with a_dag(default_args={"trigger_rule": "always"}) as dag, push_source_update(source_id=SOURCE):
        Work(task_id="first", trigger_rule="all_success") >> Work(task_id="second")
    with pytest.raises(CoveoInputError, match=r"'push_source_update\.second' belongs"):
        checked(dag)


def test_a_bracket_can_have_its_dag_as_a_parameter_as_other_task_groups() -> None:
    dag = a_dag()
    with push_source_update(source_id=SOURCE, delete_old_items=True, dag=dag):
        Work(task_id="work", dag=dag) >> Work(task_id="second", dag=dag)
    checked(dag)
    names = {"begin", "open", "work", "second", "delete_old_items", "close", "outcome", "done"}
    assert set(stored(dag).task_ids) == {f"push_source_update.{name}" for name in names}


def test_the_done_task_needs_a_worker_only_if_another_task_follows() -> None:
    with a_dag() as dag:
        with push_source_update(source_id=SOURCE) as alone:
            Work(task_id="work")
        with push_source_update(source_id="other") as followed:
            Work(task_id="work")
        followed >> Work(task_id="after")
    seen = stored(dag)
    assert seen.get_task(of(alone, "done").task_id).inherits_from_empty_operator
    assert not seen.get_task(of(followed, "done").task_id).inherits_from_empty_operator
