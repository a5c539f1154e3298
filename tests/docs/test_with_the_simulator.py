"""The test in the documentation."""

from __future__ import annotations

# [START simulator]
import pytest

from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator


def test_a_rebuild_survives_a_fault_and_deletes_old_items(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulator(organization="acme", sources=["acme-products"]) as coveo:
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
        hook = CoveoPushHook()
        hook.push_items("acme-products", [{"documentId": "product://4710", "data": "An old one."}])
        coveo.clock.advance(minutes=1)

        coveo.faults.answer(503, times=2, operation="status", status_type="REBUILD")
        opened = hook.set_source_status("acme-products", "REBUILD")
        hook.push_items("acme-products", [{"documentId": "product://4711", "data": "The famous anvil."}])
        hook.delete_old_items("acme-products", opened["ordering_id"])
        hook.set_source_status("acme-products", "IDLE")

        assert coveo.statuses("acme-products") == ["REBUILD", "IDLE"]
        coveo.clock.advance(minutes=15)  # the queue delay
        assert set(coveo.items("acme-products")) == {"product://4711"}
        # [END simulator]
