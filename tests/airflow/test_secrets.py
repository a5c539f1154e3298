"""A real Airflow stores no key and no presigned URL: not in logs, XComs or rendered fields."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Simulator

SENTINEL = "xxSENTINEL-0045-48e1-953c-3addd1ee4457"
DAG_FILE = """
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_coveo.operators.coveo_push import ResetPushSourceOperator, SetPushSourceStatusOperator

with DAG("secretive", schedule=None, start_date=datetime(2025, 1, 1), default_args={"retries": 0}):
    rebuild = SetPushSourceStatusOperator(task_id="rebuild", source_id="kept-secret", status="REBUILD")
    reset = ResetPushSourceOperator(task_id="reset", source_id="kept-secret", queue_delay="0")
    refused = SetPushSourceStatusOperator(task_id="refused", source_id="no-such-source", status="IDLE")

    @task
    def push(failing):
        from airflow_provider_coveo.coveo.retries import RetryPolicy
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        hook = CoveoPushHook(retry=RetryPolicy(total_seconds=3, first_wait=0.01, longest_wait=0.01))
        print(hook, vars(hook), hook.settings, hook.test_connection())
        item = {"documentId": f"big://{failing}", "data": "x" * 6_000_000}
        return hook.add_or_update_item("kept-secret", item)

    rebuild >> push.override(task_id="push_well")("well") >> reset
    rebuild >> refused
    rebuild >> push.override(task_id="push_badly")("badly")
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[LocalAirflow, Simulator, str]]:
    """A run of the DAG above on an Airflow that logs everything, from a Coveo that drops some uploads."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "secretive.py").write_text(DAG_FILE)
    with Simulator(sources=("kept-secret",), api_key=SENTINEL) as coveo:
        env = {"AIRFLOW_CONN_COVEO_DEFAULT": coveo.connection_json()}
        config = {"logging": {"logging_level": "DEBUG"}}
        with LocalAirflow(dags, env=env, config=config) as airflow:
            run_id = airflow.trigger("secretive")
            airflow.wait_for_run("secretive", run_id)
            coveo.faults.drop(operation="upload", times=None)
            airflow.clear_tasks("secretive", run_id, ["push_badly"], downstream=False)
            airflow.wait_for_task("secretive", run_id, "push_badly", {"failed"}, try_number=2)
            yield airflow, coveo, run_id


@pytest.mark.timeout(900)
def test_neither_key_nor_signature_shows_in_logs_xcoms_or_rendered_fields(
    run: tuple[LocalAirflow, Simulator, str],
) -> None:
    airflow, coveo, run_id = run
    uploads = [request for request in coveo.requests if request.operation == "upload"]
    signatures = {
        value for request in uploads for name, value in request.query.items() if "Signature" in name
    }
    assert len(signatures) > 1

    states = airflow.task_states("secretive", run_id)
    assert {name: state.state for name, state in states.items()} == {
        "rebuild": "success",
        "push_well": "success",
        "push_badly": "failed",
        "reset": "success",
        "refused": "failed",
    }
    logs = "".join(airflow.task_log("secretive", run_id, task_id) for task_id in states)
    assert "urllib3" in logs or "http://127.0.0.1" in logs, "the log contains the debug lines"
    shown = {
        "task logs": logs,
        "all log files": "".join(
            path.read_text(errors="replace") for path in airflow.home.rglob("*.log") if path.is_file()
        ),
        "xcoms": json.dumps(
            [airflow.xcom("secretive", run_id, task) for task in ("rebuild", "push_well", "reset")]
        ),
        "task instances": json.dumps(airflow.task_instances("secretive", run_id), default=str),
    }
    for where, text in shown.items():
        assert SENTINEL not in text, where
        for signature in signatures:
            assert signature not in text, where


def test_a_script_that_uses_the_hook_prints_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    script = (
        "from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook\n"
        "hook = CoveoPushHook(timeout=0.5)\n"
        "print(hook.settings, repr(hook), hook.test_connection())\n"
        "hook.set_source_status('a', 'IDLE')\n"
    )
    connection = {"conn_type": "coveo", "login": "acme", "password": SENTINEL, "host": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", json.dumps(connection))
    script = script.replace("timeout=0.5", "timeout=0.5, retry=RetryPolicy(total_seconds=0)")
    script = "from airflow_provider_coveo.coveo.retries import RetryPolicy\n" + script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "NoAnswerError" in done.stderr
    assert SENTINEL not in done.stdout + done.stderr
