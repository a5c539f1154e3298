"""Creating, copying and deleting sources at the socket: never two of them, and never the wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.errors import CoveoInputError, SourceNameTakenError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

NAME = "acme-products-2"


def named(coveo: Simulator, name: str) -> list[str]:
    return [source.id for source in coveo.state.sources.values() if source.name == name]


def create(hook: CoveoPushHook) -> dict[str, Any]:
    return hook.create_source(NAME, visibility="SHARED")


def duplicate(hook: CoveoPushHook) -> dict[str, Any]:
    return hook.duplicate_source(SOURCE, NAME)


MAKERS = pytest.mark.parametrize(
    ("make", "operation"),
    [
        pytest.param(create, "create_source", id="create"),
        pytest.param(duplicate, "duplicate_source", id="copy"),
    ],
)


@pytest.mark.parametrize("visibility", ["SECURED", "shared", "Private"])
def test_a_source_is_created_with_the_required_properties(
    coveo: Simulator, hook: CoveoPushHook, visibility: str
) -> None:
    made = hook.create_source(NAME, visibility=visibility)
    request = coveo.requests[-1]
    assert (request.method, request.path) == ("POST", "/rest/organizations/acme/sources")
    assert json.loads(request.body) == {
        "sourceType": "PUSH",
        "name": NAME,
        "sourceVisibility": visibility.upper(),
        "pushEnabled": True,
    }
    assert [made["id"]] == named(coveo, NAME)
    assert coveo.source(made["id"])["sourceVisibility"] == visibility.upper()
    assert hook.set_source_status(made["id"], "REBUILD")["status"] == "REBUILD"


def test_a_copy_is_another_source_with_the_same_configuration(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.add_source("secured", visibility="SECURED")
    hook.add_or_update_item("secured", {"documentId": "doc://1", "data": "x", "permissions": [{}]})
    copy = hook.duplicate_source("secured", NAME)
    request = coveo.requests[-1]
    assert (request.method, request.path) == ("POST", "/rest/organizations/acme/sources/secured/duplicate")
    assert request.query == {"newSourceName": NAME}
    assert copy["id"] != "secured"
    assert copy["sourceVisibility"] == "SECURED"
    assert len(coveo.items("secured")) == 1
    assert coveo.items(copy["id"]) == {}


@MAKERS
def test_a_name_in_use_is_rejected_before_anything_is_created(
    coveo: Simulator, hook: CoveoPushHook, make: Callable[[CoveoPushHook], Any], operation: str
) -> None:
    coveo.add_source("of-somebody", name=NAME, crawler="CRAWLING_MODULE")
    with pytest.raises(SourceNameTakenError, match="source of-somebody already has that name") as refused:
        make(hook)
    assert isinstance(refused.value, AirflowFailException)
    assert named(coveo, NAME) == ["of-somebody"]
    assert operation not in {request.operation for request in coveo.requests}


@MAKERS
@pytest.mark.parametrize("fault", ["drop", "drop_applied", "503", "503_applied", "truncate"])
def test_exactly_one_source_is_created_whatever_the_outcome_of_the_request(
    coveo: Simulator, hook: CoveoPushHook, make: Callable[[CoveoPushHook], Any], operation: str, fault: str
) -> None:
    if fault.startswith("drop"):
        coveo.faults.drop(before=fault == "drop", operation=operation, times=2)
    elif fault.startswith("503"):
        coveo.faults.answer(503, applied=fault == "503_applied", operation=operation, times=2)
    else:
        coveo.faults.truncate(operation=operation)
    made = make(hook)
    assert named(coveo, NAME) == [made["id"]]
    assert coveo.undocumented == []


@MAKERS
def test_a_rejected_request_is_not_retried(
    coveo: Simulator, hook: CoveoPushHook, make: Callable[[CoveoPushHook], Any], operation: str
) -> None:
    coveo.faults.answer(400, error_code="MAX_SOURCES_REACHED", operation=operation)
    with pytest.raises(errors.InvalidRequestError, match="MAX_SOURCES_REACHED") as refused:
        make(hook)
    assert isinstance(refused.value, AirflowFailException)
    assert [request.operation for request in coveo.requests] == ["page_sources", operation]


def test_a_name_is_found_among_all_sources_of_any_kind(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_coveo.coveo.client.sources._SOURCES_PER_PAGE", 2)
    for number in range(5):
        coveo.add_source(f"more-{number}", name=f"More {number}", crawler="CRAWLING_MODULE")
    assert [source["id"] for source in hook.sources_named("More 4")] == ["more-4"]
    assert hook.sources_named("more 4") == []
    assert hook.sources_named("More") == []


def test_a_deleted_source_is_gone(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.delete_source(SOURCE)
    (request,) = coveo.requests
    assert (request.method, request.path) == ("DELETE", f"/rest/organizations/acme/sources/{SOURCE}")
    assert result == {"source_id": SOURCE, "request_id": request.response_headers["x-request-id"]}
    assert SOURCE not in coveo.state.sources


def test_a_deletion_without_a_response_is_repeated_until_the_source_no_longer_exists(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    coveo.faults.drop(before=False, operation="delete_source")
    assert hook.delete_source(SOURCE)["request_id"] is None
    assert [request.status for request in coveo.requests][-1] == 404


def test_a_source_that_never_existed_does_not_count_as_deleted(coveo: Simulator, hook: CoveoPushHook) -> None:
    with pytest.raises(errors.NotFoundError) as refused:
        hook.delete_source("nowhere")
    assert isinstance(refused.value, AirflowFailException)


def test_the_running_activity_is_aborted(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.set_source_status(SOURCE, "REBUILD")
    activity_id = hook.get_source(SOURCE)["information"]["sourceStatus"]["activityId"]
    result = hook.abort_activity(SOURCE, activity_id)
    request = coveo.requests[-1]
    assert (request.method, request.path) == (
        "POST",
        f"/rest/organizations/acme/sources/{SOURCE}/tasks/abort",
    )
    assert request.query == {"activityId": activity_id}
    assert result["activity_id"] == activity_id
    assert coveo.activities(SOURCE)[0]["result"] == "ABORT"
    assert hook.get_source(SOURCE)["information"]["sourceStatus"]["type"] == "PUSH_READY"


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.create_source("", visibility="SHARED"),
        lambda hook: hook.create_source(" padded", visibility="SHARED"),
        lambda hook: hook.create_source("two\nlines", visibility="SHARED"),
        lambda hook: hook.create_source(NAME, visibility="PUBLIC"),
        lambda hook: hook.create_source(NAME, visibility=None),
        lambda hook: hook.duplicate_source("", NAME),
        lambda hook: hook.duplicate_source(SOURCE, None),
        lambda hook: hook.sources_named(7),
        lambda hook: hook.delete_source("../other"),
        lambda hook: hook.abort_activity(SOURCE, " "),
        lambda hook: hook.abort_activity(SOURCE, None),
    ],
)
def test_bad_input_is_rejected_before_anything_is_sent(
    coveo: Simulator, hook: CoveoPushHook, call: Callable[[CoveoPushHook], Any]
) -> None:
    with pytest.raises(CoveoInputError) as refused:
        call(hook)
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


@pytest.mark.parametrize(
    ("call", "privilege"),
    [
        (lambda hook: hook.get_source(SOURCE), "Sources: View"),
        (lambda hook: hook.list_sources(), "Sources: View"),
        (lambda hook: hook.sources_named(NAME), "Sources: View"),
        (create, "Sources: View"),
        (duplicate, "Sources: View"),
        (lambda hook: hook.delete_source(SOURCE), "Sources: Edit"),
        (lambda hook: hook.abort_activity(SOURCE, "some"), "Sources: Edit"),
    ],
)
def test_the_error_of_a_push_only_key_names_the_missing_privilege(
    coveo: Simulator,
    hook: CoveoPushHook,
    connect: Callable[..., None],
    call: Callable[[CoveoPushHook], Any],
    privilege: str,
) -> None:
    connect(password=coveo.push_only_key)
    with pytest.raises(errors.AccessDeniedError, match=privilege) as refused:
        call(hook)
    assert isinstance(refused.value, AirflowFailException)
    assert refused.value.status_code == 403
    assert "like any push-only key" in str(refused.value)


@MAKERS
def test_the_error_of_a_view_only_key_names_the_privilege_to_create_sources(
    coveo: Simulator, hook: CoveoPushHook, make: Callable[[CoveoPushHook], Any], operation: str
) -> None:
    needed = {"create_source": "privilege Sources: Create", "duplicate_source": "Sources: Edit and Create"}
    coveo.faults.answer(403, error_code="ACCESS_DENIED", operation=operation)
    with pytest.raises(errors.AccessDeniedError, match=needed[operation]):
        make(hook)
