"""What a later try skips, which batches count as equal, and what was sent twice."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.exceptions import AirflowProviderDeprecationWarning
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.coveo.batches import Batch, item_batches
from airflow_provider_coveo.coveo.errors import CoveoError, NoAnswerError, ServiceError
from airflow_provider_coveo.coveo.items import MAX_INLINE_DATA, Delete, Entry
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.checkpoint import RunCheckpoint
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import (
    DeleteItemsOperator,
    PushItemsOperator,
    ResetPushSourceOperator,
)
from airflow_provider_coveo.operators.coveo_source import DeletePushSourceOperator
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE
from tests.unit.push.model import indexed
from tests.unit.push.test_operators import _failed_after, _many, _operator, _Store, _try, dag, run

__all__ = ["dag"]

pytestmark = pytest.mark.usefixtures("connect", "variables")


@pytest.fixture
def as_task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the process's task, as Airflow does for code without a context."""

    def _as_task(task_id: str = "code", run_id: str = "r", dag_id: str = "d") -> None:
        monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", dag_id)
        monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", run_id)
        monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", task_id)

    return _as_task


def assert_indexed_as_pushed(coveo: Simulator, items: list[dict[str, Any]]) -> None:
    assert {name: text for name, text in indexed(coveo, SOURCE).items() if name.startswith("a://")} == {
        item["documentId"]: item["data"] for item in items
    }


# --- changes that undo or overtake a resumed push ---

OVERTAKEN = {"documentId": "a://2", "data": "overtaken"}
CHANGES: dict[str, Callable[[CoveoPushHook], Any]] = {
    "delete_old_items": lambda hook: hook.delete_old_items(SOURCE, queue_delay=0),
    "delete_item": lambda hook: hook.delete_item(SOURCE, "a://2"),
    "delete_item with children": lambda hook: hook.delete_item(SOURCE, "a://2", delete_children=True),
    "add_or_update_item": lambda hook: hook.add_or_update_item(SOURCE, OVERTAKEN),
    "push_items": lambda hook: hook.push_items(SOURCE, [OVERTAKEN]),
    "push_items with a deletion": lambda hook: hook.push_items(SOURCE, [], delete=["a://2"]),
    "a batch of one's own": lambda hook: own_batch(hook),
    "a batch by the deprecated methods": lambda hook: own_batch(hook, is_deprecated=True),
    "a request of one's own": lambda hook: hook.run(
        f"/push/v1/organizations/acme/sources/{SOURCE}/documents?documentId=a%3A%2F%2F2",
    ),
}


def own_batch(hook: CoveoPushHook, *, is_deprecated: bool = False) -> None:
    path = f"/push/v1/organizations/acme/sources/{SOURCE}/documents/batch"
    content = json.dumps({"addOrUpdate": [OVERTAKEN], "delete": []}).encode()
    if not is_deprecated:
        file_id = hook.client.containers.upload(content, "Could not upload").file_id
        hook.client.containers.submit(path, file_id, "Could not push")
        return
    with pytest.warns(AirflowProviderDeprecationWarning):
        uploaded = hook.upload(content, "Could not upload")
    with pytest.warns(AirflowProviderDeprecationWarning):
        hook.take_batch(path, uploaded.file_id, "Could not push", RetryPolicy())


def change(kind: str) -> None:
    CHANGES[kind](CoveoPushHook(**({"method": "DELETE"} if kind == "a request of one's own" else {})))


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize(
    "who", [{}, {"run_id": "another"}, {"dag_id": "another"}, {"task_id": "t"}], ids=repr
)
def test_a_change_by_a_hook_between_two_attempts_is_overwritten(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None], kind: str, who: dict[str, str]
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    as_task(**who)
    change(kind)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


@pytest.mark.parametrize("kind", CHANGES)
def test_a_task_that_is_cleared_with_its_upstream_tasks_starts_over(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None], kind: str
) -> None:
    store = _Store()
    as_task()
    change(kind)
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert _try(_operator(dag, _many()), _Store(store), number=2)["resumed_batches"] == 7
    change(kind)
    assert _try(_operator(dag, _many()), store, number=2, max_tries=1)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


@pytest.mark.parametrize("kind", CHANGES)
def test_a_function_that_changes_the_content_before_it_yields_makes_its_retry_start_over(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None], kind: str
) -> None:
    as_task("t")

    @task.coveo_push(source_id=SOURCE, batch_bytes=1024, upload_concurrency=1, check_quota=False)
    def content() -> Iterator[dict[str, Any]]:
        change(kind)
        yield from _many()

    store, operator = _Store(), content()
    _failed_after(coveo, 7, operator, store)
    assert _try(operator, store, number=2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


def test_batches_after_a_deletion_by_the_function_are_sent_again(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None]
) -> None:
    as_task("t")
    deletes = [False]

    @task.coveo_push(source_id=SOURCE, batch_bytes=1024, upload_concurrency=1, check_quota=False)
    def content() -> Iterator[dict[str, Any]]:
        yield from _many(count=4)
        if deletes[0]:
            CoveoPushHook().delete_item(SOURCE, "a://5")
        yield from _many()[4:]

    store, operator = _Store(), content()
    _failed_after(coveo, 7, operator, store)
    deletes[0] = True
    assert _try(operator, store, number=2)["resumed_batches"] == 3
    assert_indexed_as_pushed(coveo, _many())


@pytest.mark.parametrize("kind", ["deletes", "pushes and deletes", "resets"])
def test_deletions_by_another_task_of_the_run_are_overwritten(coveo: Simulator, dag: DAG, kind: str) -> None:
    store = _Store()
    other: Any = {
        "deletes": lambda: DeleteItemsOperator(task_id="o", source_id=SOURCE, document_ids=["a://2"]),
        "pushes and deletes": lambda: _operator(dag, [{"documentId": "b://1", "data": "x"}, Delete("a://2")]),
        "resets": lambda: ResetPushSourceOperator(task_id="o", source_id=SOURCE, queue_delay=0),
    }[kind]()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    context = SimpleNamespace(max_tries=0, try_number=1, dag_id="d", task_id="o", run_id="r", map_index=-1)
    run(other, ti=context, task_state_store=_Store())
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


def test_deletions_by_another_map_index_are_overwritten(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    context = SimpleNamespace(max_tries=0, try_number=1, dag_id="d", task_id="t", run_id="r", map_index=3)
    run(_operator(dag, [Delete("a://2")]), ti=context, task_state_store=_Store())
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


def test_a_push_s_own_deletions_do_not_keep_it_from_resuming(coveo: Simulator, dag: DAG) -> None:
    items = [*_many(count=4), Delete("a://1"), Delete("a://2"), *_many()[4:]]
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, items), store)
    assert _try(_operator(dag, items), store, number=2)["resumed_batches"] == 7


def test_a_push_to_a_source_that_was_deleted_and_recreated_starts_over(
    coveo: Simulator, dag: DAG, connect: Callable[..., None]
) -> None:
    connect(**json.loads(coveo.connection_json()))
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    name = CoveoPushHook().get_source(SOURCE)["name"]
    _try(DeletePushSourceOperator(task_id="o", source_id=SOURCE, source_name=name), _Store())
    coveo.add_source(SOURCE)
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


def test_requests_that_do_not_change_the_content_do_not_prevent_resuming(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None]
) -> None:
    as_task()
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    hook = CoveoPushHook()
    hook.set_source_status(SOURCE, "REBUILD")
    hook.get_source(SOURCE)
    hook.current_cut_off(SOURCE)
    hook.push_identities("provider", members=[{"identity": {"name": "a", "type": "USER"}, "members": []}])
    assert _try(_operator(dag, _many()), store, number=2)["resumed_batches"] == 7


def test_the_second_push_of_a_task_does_not_resume_if_the_first_one_runs_again(
    coveo: Simulator, hook: CoveoPushHook, as_task: Callable[..., None]
) -> None:
    """The first push runs again as a whole, so the second one must not skip what it overtakes."""
    as_task("t")
    store = _Store()

    def pushes(number: int) -> dict[str, Any]:
        ti = SimpleNamespace(
            max_tries=0, try_number=number, dag_id="d", task_id="t", run_id="r", map_index=-1
        )
        context: Any = {"ti": ti, "task_state_store": store}
        for items in ([OVERTAKEN], _many()):
            checkpoint = RunCheckpoint(context, ["same"], only_retries=False)
            result = hook.push_items(
                SOURCE, items, batch_bytes=1024, upload_concurrency=1, checkpoint=checkpoint
            )
        return result

    coveo.faults.answer(400, error_code="INVALID_JSON", operation="batch", after=8)
    with pytest.raises(CoveoError):
        pushes(1)
    assert pushes(2)["resumed_batches"] == 0
    assert_indexed_as_pushed(coveo, _many())


def test_a_record_that_cannot_be_written_only_causes_a_warning(
    coveo: Simulator,
    variables: Any,
    hook: CoveoPushHook,
    as_task: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(variables, "set", refuse)
    as_task()
    hook.delete_item(SOURCE, "a://2")
    assert coveo.requests[-1].status == 202
    assert "Could not record that this run changes the content" in logged()


def test_outside_a_run_nothing_is_recorded(variables: Any, hook: CoveoPushHook) -> None:
    hook.add_or_update_item(SOURCE, OVERTAKEN)
    hook.push_items(SOURCE, [OVERTAKEN])
    assert variables.values == {}


# --- equal batches ---


def batches(items: list[Any]) -> list[Batch]:
    return list(item_batches(items, 1024, lambda place, error: False))


LARGE = base64.b64encode(b"\x00" * (MAX_INLINE_DATA + 1)).decode()
ITEM = {
    "documentId": "a://1",
    "title": "One",
    "data": "text",
    "fileExtension": ".html",
    "parentId": "a://1",
    "price": 1,
    "tags": ["a", "b"],
    "permissions": [{"allowAnonymous": True, "allowedPermissions": [], "deniedPermissions": []}],
}
LARGE_ITEM = {
    "documentId": "a://1",
    "compressedBinaryData": LARGE,
    "compressionType": "UNCOMPRESSED",
    "title": "One",
}
OTHERS: dict[str, tuple[list[Any], list[Any]]] = {
    **{
        key: ([ITEM], [{**ITEM, key: value}])
        for key, value in {
            "documentId": "a://2",
            "title": "Two",
            "data": "text.",
            "fileExtension": ".txt",
            "parentId": "a://2",
            "price": 1.5,
            "tags": ["b", "a"],
            "permissions": [{"allowAnonymous": False, "allowedPermissions": [], "deniedPermissions": []}],
            "another": "x",
        }.items()
    },
    "a key is missing": ([ITEM], [{key: value for key, value in ITEM.items() if key != "price"}]),
    "a number as text": ([ITEM], [{**ITEM, "price": "1"}]),
    "the order": ([ITEM, {**ITEM, "documentId": "a://2"}], [{**ITEM, "documentId": "a://2"}, ITEM]),
    "the section": ([ITEM], [Delete("a://1")]),
    "deleteChildren": ([Delete("a://1")], [Delete("a://1", delete_children=True)]),
    "which is deleted": ([Delete("a://1")], [Delete("a://2")]),
    **{
        f"compressionType {compression}": ([LARGE_ITEM], [{**LARGE_ITEM, "compressionType": compression}])
        for compression in ("ZLIB", "GZIP", "DEFLATE", "LZMA")
    },
    "no compressionType": (
        [LARGE_ITEM],
        [{key: value for key, value in LARGE_ITEM.items() if key != "compressionType"}],
    ),
    "large content": ([LARGE_ITEM], [{**LARGE_ITEM, "compressedBinaryData": f"AQ=={LARGE}"[4:-4] + "AAAB"}]),
    "what is beside large content": ([LARGE_ITEM], [{**LARGE_ITEM, "title": "Two"}]),
    "text that stands for the content's digest": (
        [LARGE_ITEM],
        [
            {
                **{key: value for key, value in LARGE_ITEM.items() if key != "compressedBinaryData"},
                "compressedBinaryDataFileId": "x",
            }
        ],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_batches_with_different_content_have_different_digests(name: str) -> None:
    one, other = (batches(items)[0].digest("target") for items in OTHERS[name])
    assert one != other
    assert [batches(items)[0].digest("target") for items in OTHERS[name]] == [one, other]


def test_the_same_batch_for_another_target_has_a_different_digest() -> None:
    (batch,) = batches([ITEM])
    assert batch.digest("one") != batch.digest("another")


def old_digest(batch: Batch) -> str:
    """Return the digest of 0.1.0 and 0.1.1."""
    digest = hashlib.sha256()
    for piece in batch.pieces:
        if isinstance(piece, Entry):
            digest.update(piece.encoded)
            digest.update(hashlib.sha256(piece.large.data if piece.large else b"").digest())
        else:
            digest.update(piece)
    return base64.urlsafe_b64encode(digest.digest()[:9]).decode()


@pytest.mark.parametrize("keeps_new_keys", [True, False])
def test_batches_in_a_checkpoint_of_0_1_are_sent_again(
    coveo: Simulator, dag: DAG, keeps_new_keys: bool
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    text = "".join(old_digest(batch) for batch in batches(_many())[:7])
    header = store["coveo_push"]
    assert len(text) == len(store["coveo_push_0"])
    store["coveo_push_0"] = text
    header["check"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    if not keeps_new_keys:
        for key in ("since", "sent", "repeated"):
            del header[key]
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["resumed_batches"], result["repeated_batches"]) == (0, 7)
    assert_indexed_as_pushed(coveo, _many())


def test_a_change_by_a_task_of_0_1_between_two_attempts_is_noticed(
    coveo: Simulator, dag: DAG, variables: Any
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    # It writes nothing else.
    variables.values[f"coveo_content__acme__{SOURCE}"] = json.dumps(
        {"dag_id": "another", "run_id": "r", "since": "0123456789abcdef"}
    )
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["resumed_batches"], result["batches"]) == (0, 10)
    assert_indexed_as_pushed(coveo, _many())


@pytest.mark.parametrize(
    "kept",
    [
        *({}, "text", [], 7, {"what": 1}),
        *({"try": "x"}, {"sent": "x"}, {"sent": -5}, {"started": "x"}, {"started": None}, {"since": 7}),
        *({"width": 0}, {"width": "x"}, {"pages": "x"}, {"pages": 10**9}, {"count": 10**9}, {"count": -1}),
        *({"at": "x"}, {"check": None}, {"repeated": "x"}, {"repeated": [1, "a"]}, {"repeated": 7}),
        *({"repeated": []}, {"a later version's": {}}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("whole", [False, True])
def test_an_unreadable_checkpoint_is_ignored(coveo: Simulator, dag: DAG, kept: Any, whole: bool) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    store["coveo_push"] = {**store["coveo_push"], **kept} if isinstance(kept, dict) and whole else kept
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["accepted_adds"], len(coveo.items(SOURCE))) == (10, 10)
    assert all(result[name] >= 0 for name in ("repeated_batches", "repeated_items", "ordering_id"))


def test_a_corrected_compression_type_is_sent(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    wrong = [{**LARGE_ITEM, "compressionType": "ZLIB"}, *_many()[2:4]]
    _failed_after(coveo, 2, _operator(dag, wrong), store)
    result = _try(_operator(dag, [LARGE_ITEM, *_many()[2:4]]), store, number=2)
    assert result["resumed_batches"] == 0
    bodies = [one.body for one in coveo.requests if one.operation == "upload" and b"a://1" in one.body]
    assert [json.loads(body)["addOrUpdate"][0]["compressionType"] for body in bodies] == [
        "ZLIB",
        "UNCOMPRESSED",
    ]


# --- repeated batches ---

PATIENT = RetryPolicy(total_seconds=30, first_wait=0.01, longest_wait=0.02)


def faults(coveo: Simulator, kind: str, **which: Any) -> None:
    which = {"operation": "batch", **which}
    if kind == "504 after Coveo took it":
        coveo.faults.answer(504, applied=True, **which)
    elif kind == "dropped after Coveo took it":
        coveo.faults.drop(before=False, **which)
    elif kind == "500":
        coveo.faults.answer(500, **which)
    elif kind == "429":
        coveo.faults.answer(429, headers={"Retry-After": "0"}, **which)
    else:
        coveo.faults.expire_container(**which)


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("504 after Coveo took it", 1),
        ("504 after Coveo took it", 2),
        ("dropped after Coveo took it", 1),
        ("500", 1),
        ("429", 0),
        ("the container expired", 0),
    ],
)
def test_the_result_counts_batches_sent_again_though_coveo_may_have_accepted_them(
    coveo: Simulator, kind: str, times: int, logged: Callable[[], str]
) -> None:
    hook = CoveoPushHook(retry=PATIENT)
    faults(coveo, kind, after=1, times=max(times, 1))
    items = [*_many(count=3), {"documentId": "a://4", "data": "x"}, {"documentId": "a://4", "data": "y"}]
    result = hook.push_items(SOURCE, items, batch_bytes=2048, upload_concurrency=1)
    # The second batch has two items; one of them replaced another before it was sent.
    assert (result["batches"], result["replaced"]) == (2, 1)
    assert (result["repeated_batches"], result["repeated_items"]) == (times, 2 * times)
    assert ("though Coveo may have accepted it" in logged()) == bool(times)
    assert json.loads(json.dumps(result)) == result


def test_a_request_that_was_never_sent_cannot_have_been_applied(
    coveo: Simulator, connect: Callable[..., None]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    given = json.loads(coveo.connection_json())
    connect(**{**given, "host": f"http://127.0.0.1:{port}", "port": None})
    hook = CoveoPushHook(retry=RetryPolicy(total_seconds=0))
    with pytest.raises(NoAnswerError) as failed:
        hook.delete_item(SOURCE, "a://1")
    assert not failed.value.may_be_done


@pytest.mark.parametrize("times", [0, 2])
def test_the_result_counts_single_items_that_were_sent_again(coveo: Simulator, times: int) -> None:
    hook = CoveoPushHook(retry=PATIENT)
    if times:
        faults(coveo, "504 after Coveo took it", operation=["item", "delete"], times=times)
    assert hook.add_or_update_item(SOURCE, OVERTAKEN)["repeated_items"] == times
    if times:
        faults(coveo, "dropped after Coveo took it", operation=["item", "delete"], times=times)
    assert hook.delete_item(SOURCE, "a://2")["repeated_items"] == times
    assert hook.delete_item(SOURCE, "a://2")["repeated_items"] == 0


def impatient(operator: Any) -> Any:
    operator = getattr(operator, "operator", operator)
    operator.__dict__["hook"] = CoveoPushHook(retry=RetryPolicy(total_seconds=0))
    return operator


def test_a_batch_that_failed_but_may_be_accepted_counts_as_repeated_in_the_next_attempt(
    coveo: Simulator, dag: DAG
) -> None:
    store = _Store()
    for number, after in ((1, 3), (2, 2)):
        faults(coveo, "504 after Coveo took it", after=after)
        with pytest.raises(ServiceError):
            _try(impatient(_operator(dag, _many())), store, number=number)
    result = _try(_operator(dag, _many()), store, number=3)
    assert result["resumed_batches"] == 5
    assert (result["repeated_batches"], result["repeated_items"]) == (2, 2)
    log = coveo.state.source(SOURCE).log
    assert sum(record.operation in {"ADD", "UPDATE"} for record in log) == 12


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 200, "body": "<html>Sign in</html>"},
        {"status": 202, "body": "<html>Sign in</html>"},
        {"status": 302, "headers": {"Location": "https://login.example.com/"}},
        {"status": 499, "body": ""},
    ],
)
def test_a_batch_to_which_another_server_responded_counts_as_repeated_in_the_next_attempt(
    coveo: Simulator, dag: DAG, answer: dict[str, Any]
) -> None:
    store = _Store()
    coveo.faults.answer(applied=True, operation="batch", after=3, **answer)
    with pytest.raises(CoveoError, match="also accepted this batch; pushing it again is safe"):
        _try(_operator(dag, _many()), store)
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["resumed_batches"], result["repeated_batches"], result["repeated_items"]) == (3, 1, 1)


def test_the_next_attempt_counts_what_a_killed_one_that_cannot_resume_may_have_sent(
    coveo: Simulator,
    hook: CoveoPushHook,
    as_task: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    variables: Any,
) -> None:
    as_task()
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "1")
    name = f"coveo_pushed__acme__{SOURCE}"
    left: dict[str, str] = {}

    def killed(accepted: dict[str, Any]) -> None:
        # The state for another process if this one ended here.
        if accepted["batches"] == 9:
            left.update(variables.values)

    hook.push_items(SOURCE, _many(), batch_bytes=1024, upload_concurrency=1, progress=killed)
    assert json.loads(left[name])["pushes"][0][2] == 16
    variables.values[name] = left[name]
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "2")
    result = hook.push_items(SOURCE, _many(), batch_bytes=1024, upload_concurrency=1)
    assert result["earlier_items"] == 10
    # And once a push has ended, it is known exactly.
    assert [push[2] for push in json.loads(variables.values[name])["pushes"]] == [16, 10]


def test_a_long_request_id_does_not_make_the_result_large(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.answer(202, applied=True, operation="batch", body="", headers={"X-Request-ID": "x" * 50_000})
    assert len(json.dumps(hook.push_items(SOURCE, _many(count=1)))) < 2_000


def test_the_next_attempt_counts_batches_that_a_killed_process_could_not_save(
    coveo: Simulator, dag: DAG
) -> None:
    class Killed(_Store):
        """The state of a process that is killed without warning before it has saved any batch."""

        def set(self, key: str, value: Any) -> None:
            if "coveo_push" not in self:
                super().set(key, value)

    store = Killed()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    assert store["coveo_push"]["count"] == 0
    result = _try(_operator(dag, _many()), _Store(store), number=2)
    # The maximum progress of that process is known.
    assert 7 <= result["repeated_batches"] <= 8
    assert result["resumed_batches"] == 0


def test_the_next_attempt_counts_batches_that_it_sends_again_because_the_content_changed(
    coveo: Simulator, dag: DAG, as_task: Callable[..., None]
) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    as_task()
    change("delete_item")
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["repeated_batches"], result["repeated_items"]) == (7, 7)


@pytest.mark.parametrize("resume", [True, False])
def test_the_items_of_a_cleared_complete_push_may_appear_twice(
    coveo: Simulator, dag: DAG, variables: Any, resume: bool
) -> None:
    store = _Store()
    assert _try(_operator(dag, _many(), resume=resume), store)["earlier_items"] == 0
    result = _try(_operator(dag, _many(), resume=resume), store, number=2, max_tries=1)
    assert (result["resumed_batches"], result["repeated_items"], result["earlier_items"]) == (0, 0, 10)
    # Another run's push is separate; and after an hour, the pipeline has finished.
    assert _try(_operator(dag, _many()), _Store(), run_id="another")["earlier_items"] == 0
    name = f"coveo_pushed__acme__{SOURCE}"
    variables.values[name] = json.dumps(
        {"pushes": [[*entry[:3], entry[3] - 3601] for entry in json.loads(variables.values[name])["pushes"]]}
    )
    assert _try(_operator(dag, _many()), store, number=3, max_tries=2)["earlier_items"] == 0


def test_two_pushes_of_one_attempt_do_not_count_as_two_attempts(
    coveo: Simulator, hook: CoveoPushHook, as_task: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_task()
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "1")
    for _ in range(2):
        assert hook.push_items(SOURCE, _many())["earlier_items"] == 0
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "2")
    assert hook.push_items(SOURCE, _many())["earlier_items"] == 10


def test_a_push_whose_outcomes_are_all_known_repeats_nothing(coveo: Simulator, dag: DAG) -> None:
    store = _Store()
    _failed_after(coveo, 7, _operator(dag, _many()), store)
    result = _try(_operator(dag, _many()), store, number=2)
    assert (result["resumed_batches"], result["repeated_batches"], result["repeated_items"]) == (7, 0, 0)
    result = _try(PushItemsOperator(task_id="n", source_id=SOURCE, items=_many()), _Store())
    assert (result["repeated_batches"], result["repeated_items"]) == (0, 0)
