"""A user's own hook with the parameters of the first release, called by the operators."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_coveo.hooks import coveo_push as hooks
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.operators.coveo_push import (
    PushItemsOperator,
    PushSecurityIdentitiesOperator,
    ResetPushSourceOperator,
)
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

pytestmark = pytest.mark.usefixtures("connect", "variables")


class OldHook(CoveoPushHook):
    """A user's own hook, whose methods have the parameters of 0.1.0."""

    called: ClassVar[list[str]] = []

    def push_items(  # type: ignore[override]
        self, source_id: str, items: Any, *, delete: Any = (), on_invalid: Any = "fail",
        checkpoint: Any = None, check_quota: bool = False,
    ) -> Any:  # fmt: skip
        self.called.append("push_items")
        return super().push_items(source_id, items, delete=delete, on_invalid=on_invalid)

    def delete_old_items(  # type: ignore[override]
        self, source_id: str, ordering_id: Any = None, *, queue_delay: Any = 15
    ) -> Any:
        self.called.append("delete_old_items")
        return super().delete_old_items(source_id, ordering_id, queue_delay=queue_delay)

    def push_identities(  # type: ignore[override]
        self, provider_id: str, *, members: Any = (), mappings: Any = (), deleted: Any = ()
    ) -> Any:
        self.called.append("push_identities")
        return super().push_identities(provider_id, members=members)


def test_operators_call_a_hook_that_has_the_parameters_of_the_first_release(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "CoveoPushHook", OldHook)
    monkeypatch.setattr(OldHook, "called", [])
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, max_tries=0, try_number=1)
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1)):
        tasks: list[Any] = [
            PushItemsOperator(task_id="t", source_id=SOURCE, items=[{"documentId": "a://1", "data": "x"}]),
            ResetPushSourceOperator(task_id="u", source_id=SOURCE),
            PushSecurityIdentitiesOperator(task_id="v", provider_id="p", members=[]),
        ]
    for each in tasks:
        each.execute({"ti": ti})
    assert OldHook.called == ["push_items", "delete_old_items", "push_identities"]
