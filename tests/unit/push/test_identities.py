"""Security identities at the socket: members, mappings, deletions, and old identities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.ordering_ids import now_ms
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import PushSecurityIdentitiesOperator
from airflow_provider_coveo.simulator import Simulator

PROVIDER = "My Identity Provider"
GROUP = {"identity": {"name": "staff", "type": "GROUP"}, "members": [{"name": "ann", "type": "user"}]}
ALIAS = {
    "identity": {"name": "ann", "type": "USER", "additionalInfo": {"mail": "ann@example.com"}},
    "mappings": [{"name": "ann@example.com", "type": "USER", "provider": "Email Security Provider"}],
}


def known(coveo: Simulator) -> set[tuple[str, str, bool]]:
    return {
        (entry["kind"], entry["identity"]["name"], entry["disabled"]) for entry in coveo.identities(PROVIDER)
    }


def test_members_mappings_and_deletions_go_in_one_batch(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_identities(
        PROVIDER, members=[GROUP], mappings=iter([ALIAS]), deleted=[{"name": "bob", "type": "USER"}]
    )
    assert [request.operation for request in coveo.requests] == ["files", "upload", "identity_batch"]
    assert coveo.requests[-1].path.endswith("/providers/My%20Identity%20Provider/permissions/batch")
    assert json.loads(coveo.requests[1].body) == {
        "members": [{**GROUP, "members": [{"name": "ann", "type": "USER"}]}],
        "mappings": [ALIAS],
        "deleted": [{"identity": {"name": "bob", "type": "USER"}}],
    }
    assert known(coveo) == {("identity", "staff", False), ("alias", "ann", False)}
    assert (result["accepted_members"], result["accepted_mappings"], result["accepted_deleted"]) == (1, 1, 1)
    assert result["provider_id"] == PROVIDER
    assert coveo.undocumented == []
    json.dumps(result)


def test_an_identity_that_is_pushed_and_deleted_ends_deleted(coveo: Simulator, hook: CoveoPushHook) -> None:
    result = hook.push_identities(PROVIDER, members=[GROUP], deleted=[GROUP["identity"]])
    assert result["batches"] == 2
    assert known(coveo) == {("identity", "staff", True)}


def test_many_identities_go_in_many_batches_and_survive_faults(coveo: Simulator, hook: CoveoPushHook) -> None:
    coveo.faults.random(seed=1, rate=0.3)
    groups = [
        {"identity": {"name": f"group {number}", "type": "GROUP"}, "members": [], "wellKnowns": []}
        for number in range(200)
    ]
    result = hook.push_identities(PROVIDER, members=groups, batch_bytes=2000)
    assert result["batches"] > 5
    assert len(known(coveo)) == result["accepted_members"] == 200
    assert coveo.undocumented == []


@pytest.mark.parametrize(
    ("section", "body", "reason"),
    [
        ("members", "staff", "of type str"),
        ("members", {}, "not an identity"),
        ("members", {"identity": {"type": "GROUP"}}, "no name"),
        ("members", {"identity": {"name": "staff", "type": "TEAM"}}, "TEAM"),
        ("members", {**GROUP, "members": "ann"}, "not a list"),
        ("members", {**GROUP, "members": [{"name": "ann"}]}, "type of 'ann'"),
        ("members", {**GROUP, "mappings": []}, "unknown key 'mappings'"),
        ("members", {"identity": {"name": "a", "type": "USER", "mail": "x"}}, "unknown key 'mail'"),
        ("mappings", {**ALIAS, "mappings": [{**ALIAS["mappings"][0], "provider": ""}]}, "provider"),  # type: ignore[dict-item]
        ("mappings", {"identity": {"name": "a", "type": "USER", "additionalInfo": {"a": 1}}}, "not a string"),
        ("deleted", {"name": "\ud800", "type": "USER"}, "surrogate"),
    ],
)
def test_identities_that_coveo_would_reject_are_rejected_with_the_reason(
    coveo: Simulator, hook: CoveoPushHook, section: str, body: Any, reason: str
) -> None:
    with pytest.raises(CoveoInputError, match=reason) as refused:
        hook.push_identities(PROVIDER, **{section: [body]})
    assert PROVIDER in str(refused.value)
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []


@pytest.mark.parametrize("provider_id", ["", " ", ".", "..", None, 5, "a\nb"])
def test_an_invalid_provider_is_rejected(coveo: Simulator, hook: CoveoPushHook, provider_id: Any) -> None:
    for call in (
        lambda: hook.push_identities(provider_id, members=[GROUP]),
        lambda: hook.delete_old_identities(provider_id, now_ms()),
    ):
        with pytest.raises(CoveoInputError, match="Invalid security identity provider"):
            call()
    assert coveo.requests == []


def test_old_identities_are_disabled_by_cut_off(coveo: Simulator, hook: CoveoPushHook) -> None:
    hook.push_identities(PROVIDER, members=[GROUP])
    coveo.clock.shift(seconds=5)
    result = hook.delete_old_identities(PROVIDER, now_ms(), queue_delay=0)
    assert coveo.requests[-1].query == {"orderingId": str(result["ordering_id"]), "queueDelay": "0"}
    assert result["provider_id"] == PROVIDER


@pytest.mark.parametrize("ordering_id", [0, 1.5, 10**18, "tomorrow", None])
def test_an_invalid_cut_off_disables_nothing(coveo: Simulator, hook: CoveoPushHook, ordering_id: Any) -> None:
    with pytest.raises(CoveoInputError, match="orderingId"):
        hook.delete_old_identities(PROVIDER, ordering_id)
    assert coveo.requests == []


# --- the operator ---


@pytest.fixture
def dag(connect: Any) -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
        yield dag


def run(**parameters: Any) -> dict[str, Any]:
    operator = PushSecurityIdentitiesOperator(task_id="t", provider_id="{{ params.p }}", **parameters)
    operator.render_template_fields({"params": {"p": PROVIDER}})
    result: dict[str, Any] = operator.execute({})
    return result


def test_the_operator_pushes_identities_without_rendering_them(coveo: Simulator, dag: DAG) -> None:
    result = run(members=[{"identity": {"name": "{{ x }}", "type": "GROUP"}}], mappings=[ALIAS])
    assert known(coveo) == {("identity", "{{ x }}", False), ("alias", "ann", False)}
    assert result["accepted_members"] == 1
    assert not PushSecurityIdentitiesOperator.pushes_items


def test_the_operator_disables_what_it_did_not_push(coveo: Simulator, dag: DAG, hook: CoveoPushHook) -> None:
    coveo.clock.shift(seconds=-60)
    hook.push_identities(PROVIDER, members=[{"identity": {"name": "old", "type": "GROUP"}}])
    coveo.clock.shift(seconds=60)
    result = run(members=[GROUP], delete_old="{{ true }}", queue_delay="0")
    assert result["deleted_old"]["ordering_id"] == result["ordering_id"]
    assert known(coveo) == {("identity", "old", True), ("identity", "staff", False)}


def test_the_operator_locks_nobody_out_after_pushing_nothing(coveo: Simulator, dag: DAG) -> None:
    with pytest.raises(CoveoError, match="lock everybody out") as refused:
        run(members=[], delete_old=True)
    assert isinstance(refused.value, AirflowFailException)
    assert coveo.requests == []
