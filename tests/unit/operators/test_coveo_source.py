"""The operators that create, recreate and delete sources, executed against a Coveo at the socket."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred

from airflow_provider_coveo.coveo.errors import (
    CoveoConfigurationError,
    CoveoInputError,
    NoAnswerError,
    NotFoundError,
    ServiceError,
    SourceNameTakenError,
    SourceTestFailedError,
)
from airflow_provider_coveo.operators import coveo_push, coveo_source
from airflow_provider_coveo.operators.coveo_source import (
    CreatePushSourceOperator,
    DeletePushSourceOperator,
    RecreatePushSourceOperator,
)
from airflow_provider_coveo.run_state import MadeSource, take_over_content
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE, index_now
from tests.unit.conftest import Variables

NAME = "acme-products-2"
VARIABLE = "acme_products_source_id"
#: Longer than the hook retries, so that the task fails where it would have been killed.
PATIENCE = {"Retry-After": "3000"}


class _Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


def context(store: _Store | None = None) -> Any:
    ti = SimpleNamespace(max_tries=0, dag_id="d", task_id="t", run_id="r", map_index=-1)
    return {"ti": ti, "task_state_store": _Store() if store is None else store}


def named(coveo: Simulator, name: str = NAME) -> list[str]:
    return [source.id for source in coveo.state.sources.values() if source.name == name]


def create(**values: Any) -> dict[str, Any]:
    values = {"source_name": NAME, "visibility": "SHARED", **values}
    return CreatePushSourceOperator(task_id="t", **values).execute(context())


def recreate(**values: Any) -> dict[str, Any]:
    values = {"source_id": SOURCE, "new_name": NAME, "poll_interval": timedelta(seconds=0.05), **values}
    return RecreatePushSourceOperator(task_id="t", **values).execute(context())


def delete(store: _Store | None = None, **values: Any) -> dict[str, Any]:
    values = {"source_id": SOURCE, "source_name": SOURCE, **values}
    return DeletePushSourceOperator(task_id="t", **values).execute(context(store))


@pytest.fixture(autouse=True)
def _environment(variables: Variables, connect: Callable[..., None]) -> None:
    """Everything here needs Variables and a connection."""


# --- common to all ---


def test_the_operators_can_be_imported_from_the_documented_module() -> None:
    for name in ("CreatePushSourceOperator", "DeletePushSourceOperator", "RecreatePushSourceOperator"):
        assert getattr(coveo_push, name) is getattr(coveo_source, name)


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        (
            CreatePushSourceOperator,
            {"source_name": NAME, "visibility": "shared", "use_existing": "True"},
        ),
        (DeletePushSourceOperator, {"source_id": SOURCE, "source_name": SOURCE}),
        (RecreatePushSourceOperator, {"source_id": SOURCE, "new_name": NAME, "source_id_variable": VARIABLE}),
    ],
)
def test_every_parameter_is_keyword_only_and_templated(
    coveo: Simulator, operator: Any, values: dict[str, str]
) -> None:
    values = {**values, "coveo_conn_id": "coveo_default", "organization_id": "acme"}
    own = {
        name
        for base in operator.__mro__
        if base.__module__.startswith("airflow_provider_coveo")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    how_to_wait = {"confirm_timeout", "poll_interval", "deferrable"}
    assert own - how_to_wait == set(operator.template_fields) == set(values) | (own & {"test_item"})
    task = operator(
        task_id="t",
        dag=DAG("d", schedule=None, start_date=datetime(2025, 1, 1)),
        **{name: f"{{{{ params.{name} }}}}" for name in values},
    )
    task.render_template_fields({"params": values, **context()})
    for name, value in values.items():
        assert str(getattr(task, name)) == value
    result = task.execute(context())
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    "operator",
    [
        CreatePushSourceOperator(task_id="a", source_name="", visibility="SHARED"),
        CreatePushSourceOperator(task_id="b", source_name=NAME, visibility="PUBLIC"),
        DeletePushSourceOperator(task_id="c", source_id="", source_name=""),
        RecreatePushSourceOperator(task_id="d", source_id="", new_name=NAME),
        RecreatePushSourceOperator(task_id="e", source_id=SOURCE, new_name=" x"),
        RecreatePushSourceOperator(task_id="f", source_id=SOURCE, new_name=NAME, test_item={"data": "x"}),
        RecreatePushSourceOperator(task_id="g", source_id=SOURCE, new_name=NAME, poll_interval=30),
        RecreatePushSourceOperator(task_id="h", source_id=SOURCE, new_name=NAME, poll_interval=timedelta(0)),
        RecreatePushSourceOperator(task_id="i", source_id=SOURCE, new_name=NAME, confirm_timeout="PT1H"),
    ],
)
def test_bad_input_fails_at_once_without_a_request(coveo: Simulator, operator: Any) -> None:
    with pytest.raises(CoveoInputError) as refused:
        operator.execute(context())
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


def test_each_operator_can_be_executed_by_hand(coveo: Simulator, variables: Variables) -> None:
    made = CreatePushSourceOperator(task_id="t", source_name=NAME, visibility="SHARED").execute({})
    copy = RecreatePushSourceOperator(
        task_id="t",
        source_id=made["source_id"],
        new_name="copy",
        poll_interval=timedelta(seconds=0.05),
    ).execute({})
    DeletePushSourceOperator(task_id="t", source_id=made["source_id"], source_name=NAME).execute({})
    assert named(coveo) == []
    assert named(coveo, "copy") == [copy["new_source_id"]]
    assert variables.values == {}


# --- create ---


def test_a_source_is_created_once_however_often_the_task_runs(coveo: Simulator) -> None:
    first = create()
    assert first == {"source_id": named(coveo)[0], "source_name": NAME, "visibility": "SHARED"}
    assert create() == create(use_existing=True) == first
    assert named(coveo) == [first["source_id"]]


@pytest.mark.parametrize("applied", [True, False])
def test_a_retry_after_a_creation_with_an_unknown_outcome_ends_with_one_source(
    coveo: Simulator, applied: bool
) -> None:
    coveo.faults.answer(503, headers=PATIENCE, applied=applied, operation="create_source")
    with pytest.raises(ServiceError) as passing:
        create()
    assert not isinstance(passing.value, AirflowFailException)
    assert len(named(coveo)) == applied
    assert [create()["source_id"]] == named(coveo)
    assert coveo.undocumented == []


def test_a_source_that_somebody_else_created_is_rejected(coveo: Simulator) -> None:
    coveo.add_source("of-somebody", name=NAME)
    with pytest.raises(SourceNameTakenError, match=r"of-somebody.*use_existing=True") as refused:
        create()
    assert isinstance(refused.value, AirflowFailException)
    assert named(coveo) == ["of-somebody"]


def test_an_older_source_is_not_mistaken_for_the_one_whose_creation_had_no_response(coveo: Simulator) -> None:
    coveo.faults.answer(503, headers=PATIENCE, operation="create_source")
    with pytest.raises(ServiceError):
        create()
    coveo.clock.shift(seconds=-3600)
    coveo.add_source("older", name=NAME)
    coveo.clock.shift(seconds=0)
    with pytest.raises(SourceNameTakenError, match="older"):
        create()


def test_a_rejected_creation_leaves_no_record(coveo: Simulator, variables: Variables) -> None:
    coveo.faults.answer(400, error_code="SOURCES_LIMIT", operation="create_source")
    with pytest.raises(Exception, match="SOURCES_LIMIT"):
        create()
    assert variables.values == {}
    coveo.add_source("of-somebody", name=NAME)
    with pytest.raises(SourceNameTakenError):
        create()


def test_use_existing_accepts_an_existing_source_that_matches(
    coveo: Simulator,
) -> None:
    coveo.add_source("of-somebody", name=NAME)
    assert create(use_existing=True)["source_id"] == "of-somebody"
    with pytest.raises(SourceNameTakenError, match="SHARED PUSH source of-somebody"):
        create(use_existing=True, visibility="SECURED")
    assert named(coveo) == ["of-somebody"]


def test_a_created_source_that_somebody_deleted_is_created_again(coveo: Simulator) -> None:
    first = create()["source_id"]
    coveo.remove_source(first)
    assert [create()["source_id"]] == named(coveo) != [first]


@pytest.mark.parametrize("use_existing", [True, False])
def test_retries_wait_for_a_source_with_the_name_that_coveo_is_still_deleting(
    coveo: Simulator, use_existing: bool
) -> None:
    coveo.add_source("torn-down", name=NAME)
    coveo.set_source_state("torn-down", "DELETING")
    with pytest.raises(SourceNameTakenError, match="still deleting source torn-down") as passing:
        create(use_existing=use_existing)
    assert not isinstance(passing.value, AirflowFailException)
    coveo.remove_source("torn-down")
    assert [create(use_existing=use_existing)["source_id"]] == named(coveo)


# --- delete ---


def test_a_source_is_deleted_by_its_id_and_its_name(coveo: Simulator) -> None:
    coveo.add_source("some-id", name="Some name")
    assert delete(source_id="some-id", source_name="Some name") == {
        "source_id": "some-id",
        "source_name": "Some name",
    }
    assert [request.method for request in coveo.requests] == ["GET", "DELETE"]
    assert named(coveo, "Some name") == []


@pytest.mark.parametrize("source_name", ["other", "Acme-Products", "", None])
def test_a_wrong_name_is_rejected_before_anything_is_deleted(coveo: Simulator, source_name: Any) -> None:
    with pytest.raises(CoveoInputError, match=f"its name is '{SOURCE}'") as refused:
        delete(source_name=source_name)
    assert isinstance(refused.value, AirflowFailException)
    assert [request.method for request in coveo.requests] == ["GET"]


@pytest.mark.parametrize("applied", [True, False])
def test_a_retry_after_a_deletion_with_an_unknown_outcome_succeeds(coveo: Simulator, applied: bool) -> None:
    store = _Store()
    coveo.faults.answer(503, headers=PATIENCE, applied=applied, operation="delete_source")
    with pytest.raises(ServiceError):
        delete(store)
    assert (SOURCE in coveo.state.sources) is not applied
    assert delete(store) == delete(store) == {"source_id": SOURCE, "source_name": SOURCE}
    assert SOURCE not in coveo.state.sources


def test_a_source_that_never_existed_does_not_count_as_deleted(coveo: Simulator) -> None:
    store = _Store()
    delete(store)
    for values in ({"source_id": "nowhere"}, {"source_name": "other"}):
        with pytest.raises(NotFoundError):
            delete(store, **values)
    with pytest.raises(NotFoundError):
        delete()


def test_a_source_that_coveo_is_deleting_is_not_deleted_again(coveo: Simulator) -> None:
    model = coveo.source(SOURCE)
    model["information"]["sourceStatus"]["extendedCurrentStatus"] = "DELETING"
    coveo.faults.answer(200, body=json.dumps(model), operation="source")
    delete()
    assert [request.method for request in coveo.requests] == ["GET"]


def test_deleting_a_source_deletes_its_records(coveo: Simulator, variables: Variables) -> None:
    made = create()
    assert MadeSource.named("acme", NAME) is not None
    # Like a push to it.
    take_over_content("acme", made["source_id"], "d", "r")
    delete(source_id=made["source_id"], source_name=NAME)
    assert variables.values == {}
    assert create()["source_id"] != made["source_id"]


# --- recreate ---


def test_a_source_is_duplicated_tested_and_handed_over(coveo: Simulator, variables: Variables) -> None:
    variables.values[VARIABLE] = SOURCE
    result = recreate(source_id_variable=VARIABLE)
    (copy,) = named(coveo)
    assert result == {
        "source_id": SOURCE,
        "source_name": SOURCE,
        "new_source_id": copy,
        "new_source_name": NAME,
        "number_of_items": 0,
        "managed_by": "",
    }
    assert variables.values[VARIABLE] == copy
    # The test item was added and deleted, and the original was not changed.
    assert [entry["operation"] for entry in coveo.logs(copy)] == ["ADD"] * 3 + ["DELETE"] * 3
    assert coveo.items(copy) == {}
    assert coveo.timeline(SOURCE) == []
    assert SOURCE in coveo.state.sources


@pytest.mark.parametrize("crawler", ["SITECORE", "CRAWLING_MODULE"])
def test_a_managed_source_is_recreated_and_its_product_is_named(coveo: Simulator, crawler: str) -> None:
    coveo.add_source("managed", name="Managed", crawler=crawler)
    result = recreate(source_id="managed")
    assert result["managed_by"] in {"Coveo for Sitecore", "the Coveo Crawling Module"}
    assert result["source_name"] == "Managed"
    assert len(named(coveo)) == 1


def test_nobody_can_see_the_test_item_of_a_secured_source(coveo: Simulator) -> None:
    coveo.add_source("secured", visibility="SECURED")
    recreate(source_id="secured")
    (pushed,) = [json.loads(r.body) for r in coveo.requests if r.operation == "item"]
    assert pushed["permissions"] == [
        {"allowAnonymous": False, "allowedPermissions": [], "deniedPermissions": []}
    ]


def test_the_user_can_pass_a_test_item_which_is_not_rendered(coveo: Simulator) -> None:
    item = {"documentId": "product://{{ 1 }}", "data": "{{ nothing }}"}
    task = RecreatePushSourceOperator(
        task_id="t",
        dag=DAG("d", schedule=None, start_date=datetime(2025, 1, 1)),
        source_id=SOURCE,
        new_name=NAME,
        test_item=item,
        poll_interval=timedelta(seconds=0.05),
    )
    task.render_template_fields(context())
    task.execute(context())
    (pushed,) = [r for r in coveo.requests if r.operation == "item"]
    assert pushed.query == {"documentId": "product://{{ 1 }}"}
    assert json.loads(pushed.body)["data"] == "{{ nothing }}"
    assert coveo.items(named(coveo)[0]) == {}


def test_there_is_one_copy_however_often_the_task_runs(coveo: Simulator, variables: Variables) -> None:
    variables.values[VARIABLE] = SOURCE
    first = recreate(source_id_variable=VARIABLE)
    requests = len(coveo.requests)
    assert recreate(source_id_variable=VARIABLE) == first
    # A template of the Variable renders to the copy now.
    assert recreate(source_id=first["new_source_id"], source_id_variable=VARIABLE) == first
    assert {request.method for request in coveo.requests[requests:]} == {"GET"}
    assert named(coveo) == [first["new_source_id"]]


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize(
    "operation", ["source", "page_sources", "duplicate_source", "item", "logs", "delete"]
)
def test_whichever_request_fails_the_next_attempt_ends_with_one_copy(
    coveo: Simulator, variables: Variables, operation: str, applied: bool
) -> None:
    variables.values[VARIABLE] = SOURCE
    coveo.faults.answer(503, headers=PATIENCE, applied=applied, operation=operation)
    with pytest.raises(ServiceError):
        recreate(source_id_variable=VARIABLE)
    assert variables.values[VARIABLE] == SOURCE
    result = recreate(source_id_variable=VARIABLE)
    assert named(coveo) == [result["new_source_id"]] == [variables.values[VARIABLE]]
    assert coveo.items(result["new_source_id"]) == {}
    assert SOURCE in coveo.state.sources
    assert coveo.undocumented == []


def test_a_copy_that_is_not_ours_is_rejected_and_nothing_is_handed_over(
    coveo: Simulator, variables: Variables
) -> None:
    variables.values[VARIABLE] = SOURCE
    coveo.add_source("of-somebody", name=NAME)
    with pytest.raises(SourceNameTakenError, match=r"no record of creating.*of-somebody") as refused:
        recreate(source_id_variable=VARIABLE)
    assert isinstance(refused.value, AirflowFailException)
    assert variables.values == {VARIABLE: SOURCE}
    assert coveo.timeline("of-somebody") == []


def test_two_sources_with_the_name_are_rejected_if_it_is_unknown_which_one_is_ours(coveo: Simulator) -> None:
    coveo.faults.answer(503, headers=PATIENCE, applied=True, operation="duplicate_source")
    with pytest.raises(ServiceError):
        recreate()
    coveo.add_source("another", name=NAME)
    with pytest.raises(SourceNameTakenError, match="and another"):
        recreate()


def test_the_copy_of_one_source_is_not_mistaken_for_the_copy_of_another(coveo: Simulator) -> None:
    recreate()
    coveo.add_source("other")
    with pytest.raises(SourceNameTakenError):
        recreate(source_id="other")


def test_a_source_cannot_be_recreated_under_its_own_name(coveo: Simulator) -> None:
    with pytest.raises(CoveoInputError, match="has the name"):
        recreate(new_name=SOURCE)
    assert named(coveo, SOURCE) == [SOURCE]


def test_a_copy_that_somebody_deleted_is_created_and_tested_again(
    coveo: Simulator, variables: Variables
) -> None:
    first = recreate()["new_source_id"]
    coveo.remove_source(first)
    second = recreate()["new_source_id"]
    assert named(coveo) == [second] != [first]
    assert [entry["operation"] for entry in coveo.logs(second)].count("ADD") == 3


def test_a_copy_that_somebody_deleted_after_the_handover_is_created_again_over_several_attempts(
    coveo: Simulator, variables: Variables
) -> None:
    variables.values[VARIABLE] = SOURCE

    def recreate_by_the_variable(**values: Any) -> str:
        result = recreate(source_id=variables.values[VARIABLE], source_id_variable=VARIABLE, **values)
        return str(result["new_source_id"])

    first = recreate_by_the_variable()
    coveo.remove_source(first)
    coveo.indexing_delay = 3600
    with pytest.raises(SourceTestFailedError):
        recreate_by_the_variable(confirm_timeout=timedelta(seconds=0.1))
    assert variables.values[VARIABLE] == SOURCE
    coveo.indexing_delay = 0
    second = recreate_by_the_variable()
    assert named(coveo) == [second] == [variables.values[VARIABLE]] != [first]


def test_a_copy_that_somebody_is_deleting_is_not_handed_over(coveo: Simulator, variables: Variables) -> None:
    first = recreate()["new_source_id"]
    coveo.set_source_state(first, "DELETING")
    with pytest.raises(SourceNameTakenError, match=f"still deleting source {first}") as passing:
        recreate(source_id_variable=VARIABLE)
    assert not isinstance(passing.value, AirflowFailException)
    assert VARIABLE not in variables.values
    coveo.remove_source(first)
    assert [recreate(source_id_variable=VARIABLE)["new_source_id"]] == named(coveo)


def test_a_late_task_does_not_delete_the_record_of_another_task_s_copy(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(Variables):
        copies: ClassVar[list[dict[str, Any]]] = []

        def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
            super().set(key, value, *args, **options)
            if not coveo.state.sources.keys() - {SOURCE}:
                # The other task creates its copy while this one is about to.
                monkeypatch.setattr(Overtaken, "set", Variables.set)
                self.copies.append(recreate())

    monkeypatch.setattr("airflow.providers.common.compat.sdk.Variable", Overtaken(), raising=False)
    with pytest.raises(SourceNameTakenError):
        recreate()
    assert [recreate()] == Overtaken.copies
    assert len(named(coveo)) == 1


def test_the_copy_is_found_by_its_id_even_if_coveo_s_list_lags(coveo: Simulator) -> None:
    first = recreate()
    empty = json.dumps({"sourceModels": [], "totalEntries": 0, "totalPages": 0})
    coveo.faults.answer(200, body=empty, operation="page_sources", times=None)
    assert recreate() == first
    assert len(named(coveo)) == 1


def test_the_copy_is_identified_by_its_id_even_if_coveo_does_not_find_it_yet(coveo: Simulator) -> None:
    first = recreate()
    coveo.faults.answer(404, operation="source", source=first["new_source_id"])
    assert recreate() == first
    assert len(named(coveo)) == 1


def test_the_result_stays_the_same_after_the_original_is_deleted(coveo: Simulator) -> None:
    first = recreate()
    delete()
    assert recreate() == first
    assert None not in first.values()
    coveo.remove_source(first["new_source_id"])
    with pytest.raises(NotFoundError):
        recreate(source_id="nowhere", new_name="other")


# --- the test of the copy ---


def test_the_task_waits_for_a_copy_that_accepts_no_items_yet(coveo: Simulator) -> None:
    coveo.faults.answer(412, error_code="SOURCE_DOES_NOT_EXIST", operation="item", times=3)
    recreate()
    assert [r.status for r in coveo.requests if r.operation == "item"] == [412, 412, 412, 202]


def test_the_task_waits_until_the_item_logs_show_that_the_item_is_indexed(
    coveo: Simulator, logged: Callable[[], str]
) -> None:
    coveo.indexing_delay = 600

    def finish() -> None:
        # A try that has only started may still find it indexed.
        coveo.wait_for(lambda: sum(r.operation == "logs" and r.status == 200 for r in coveo.requests) >= 2)
        index_now(coveo)

    other = threading.Thread(target=finish)
    other.start()
    recreate()
    other.join()
    assert "do not show the test item as indexed yet" in logged()
    assert len([r for r in coveo.requests if r.operation == "logs"]) > 2


@pytest.mark.parametrize("stage", ["CONSUMING", "PROCESSING", "INDEXING"])
@pytest.mark.parametrize("result", ["ERROR", "REJECTED", "SKIPPED"])
def test_a_rejected_test_item_fails_the_task_with_coveo_s_reason(
    coveo: Simulator, variables: Variables, stage: str, result: str
) -> None:
    variables.values[VARIABLE] = SOURCE
    coveo.reject_item("airflow-provider-coveo://test-item", stage, result, "It is a test item.")
    with pytest.raises(
        SourceTestFailedError, match=f"{result} at the stage {stage}.*It is a test item"
    ) as error:
        recreate(source_id_variable=VARIABLE)
    # The source itself may need a fix, so a retry can help.
    assert not isinstance(error.value, AirflowFailException)
    assert variables.values[VARIABLE] == SOURCE
    # The request is for entries since the push, to the second.
    coveo.clock.advance(seconds=2)
    coveo.reject_item("airflow-provider-coveo://test-item", "INDEXING", "WARNING", "Tolerable.")
    assert named(coveo) == [recreate(source_id_variable=VARIABLE)["new_source_id"]]


def test_the_deletion_of_an_earlier_attempt_s_test_item_does_not_pass_the_test(
    coveo: Simulator, variables: Variables
) -> None:
    coveo.faults.answer(503, headers=PATIENCE, applied=True, operation="delete")
    with pytest.raises(ServiceError):
        recreate()
    (copy,) = named(coveo)
    assert [entry["operation"] for entry in coveo.logs(copy)][-1] == "DELETE"
    coveo.indexing_delay = 3600
    # Within the second, the precision of Coveo's clock; the previous addition is too old by then.
    coveo.state.source(copy).log[:] = [r for r in coveo.state.source(copy).log if r.operation == "DELETE"]
    with pytest.raises(SourceTestFailedError):
        recreate(confirm_timeout=timedelta(seconds=0.2), source_id_variable=VARIABLE)
    assert VARIABLE not in variables.values


@pytest.mark.parametrize("why", ["is indexed", "accepts no items"])
def test_a_test_that_times_out_fails_and_the_next_attempt_resumes_with_the_same_copy(
    coveo: Simulator, variables: Variables, why: str
) -> None:
    if why == "accepts no items":
        coveo.faults.answer(412, error_code="SOURCE_DOES_NOT_EXIST", operation="item", times=None)
    coveo.indexing_delay = 3600
    began = time.monotonic()
    with pytest.raises(SourceTestFailedError, match=why):
        recreate(confirm_timeout=timedelta(seconds=0.3), source_id_variable=VARIABLE)
    assert 0.3 <= time.monotonic() - began < 100
    assert VARIABLE not in variables.values
    coveo.indexing_delay = 0
    coveo.faults.clear()
    assert named(coveo) == [recreate(source_id_variable=VARIABLE)["new_source_id"]]


def test_a_killed_task_stops_waiting(coveo: Simulator) -> None:
    coveo.indexing_delay = 3600
    task = RecreatePushSourceOperator(
        task_id="t", source_id=SOURCE, new_name=NAME, poll_interval=timedelta(hours=1)
    )

    def kill() -> None:
        coveo.wait_for(lambda: any(request.operation == "logs" for request in coveo.requests))
        task.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(NoAnswerError, match="the task was killed"):
        task.execute(context())
    killer.join()


def test_the_wait_can_be_deferred_and_resumed(coveo: Simulator) -> None:
    coveo.indexing_delay = 3600
    values = {"source_id": SOURCE, "new_name": NAME, "deferrable": True}
    with pytest.raises(TaskDeferred) as deferred:
        RecreatePushSourceOperator(task_id="t", **values).execute(context())
    assert deferred.value.method_name == "execute_complete"
    json.dumps(deferred.value.kwargs)
    coveo.clock.advance(seconds=3600)
    coveo.indexing_delay = 0
    task = RecreatePushSourceOperator(task_id="t", **values)
    result = task.execute_complete(context(), None, **deferred.value.kwargs)
    assert named(coveo) == [result["new_source_id"]]
    # The test item was not pushed again.
    assert len([r for r in coveo.requests if r.operation == "item"]) == 1


def test_the_deferral_ends_with_the_timeout(coveo: Simulator) -> None:
    coveo.indexing_delay = 3600
    values: Any = {"source_id": SOURCE, "new_name": NAME, "deferrable": True}
    with pytest.raises(TaskDeferred) as deferred:
        RecreatePushSourceOperator(task_id="t", **values).execute(context())
    kwargs = {**deferred.value.kwargs, "waiting_since": time.time() - 1801}
    with pytest.raises(SourceTestFailedError):
        RecreatePushSourceOperator(task_id="t", **values).execute_complete(context(), None, **kwargs)


# --- setting the Variable ---


def test_a_variable_with_another_source_is_rejected_before_anything_is_created(
    coveo: Simulator, variables: Variables
) -> None:
    variables.values[VARIABLE] = "something-else"
    with pytest.raises(CoveoInputError, match="something-else") as refused:
        recreate(source_id_variable=VARIABLE)
    assert isinstance(refused.value, AirflowFailException)
    assert named(coveo) == []
    assert variables.values == {VARIABLE: "something-else"}


def test_a_variable_that_does_not_return_the_written_value_fails_the_task(
    coveo: Simulator, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shadowed(Variables):
        def get(self, key: str, deserialize_json: bool = False) -> Any:
            return SOURCE if key == VARIABLE else super().get(key, deserialize_json)

    monkeypatch.setattr("airflow.providers.common.compat.sdk.Variable", Shadowed(), raising=False)
    with pytest.raises(CoveoConfigurationError, match="secrets backend"):
        recreate(source_id_variable=VARIABLE)
