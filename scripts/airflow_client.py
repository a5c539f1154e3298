"""What a test or a demo asks of a running Airflow, and tells it, through its REST API; for 2.11 and 3.x."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx

T = TypeVar("T")

#: How often to ask again what Airflow did not do because its database could not.
_TRIES = 5

#: States after which a run does not go on by itself.
FINISHED = frozenset({"success", "failed"})

# What Airflow 3 repeats in each line of a task's log, and what is shown at its start.
_LOG_CONTEXT = frozenset(
    {
        *("timestamp", "level", "event", "logger", "filename", "lineno"),
        *("dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"),
    }
)


class TaskState(NamedTuple):
    state: str | None
    try_number: int


class AirflowError(RuntimeError):
    """What was waited for did not happen; the message ends with what the components logged last."""


class AirflowClient:
    """
    A running Airflow.

    :param url: the address of its API server or web server.
    :param task_logs: the folder that all its tasks log to.
    :param is_airflow_3: whether it is one; 2.11 has another API.
    :param credentials: user and password; by default none are asked for.
    """

    def __init__(
        self,
        url: str,
        task_logs: Path,
        *,
        is_airflow_3: bool = True,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.url = url
        self.task_logs = task_logs
        self.is_airflow_3 = is_airflow_3
        #: Seconds between two looks at what is waited for. Each costs Airflow 10 to 20 ms of a core.
        self.poll_interval = 0.25
        self._credentials = credentials
        # Loopback requests must not go through a proxy that the environment names.
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        if credentials and not is_airflow_3:
            self._http.auth = credentials

    def sign_in(self) -> None:
        """Get a token, if there is none yet and this Airflow wants one."""
        if not self.is_airflow_3 or "Authorization" in self._http.headers:
            return
        if self._credentials:
            named = dict(zip(("username", "password"), self._credentials, strict=True))
            answer = self._http.post("/auth/token", json=named)
        else:
            answer = self._http.get("/auth/token")
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def look_after_components(self) -> None:
        """Raise :class:`AirflowError` if a component has ended that nobody killed."""

    def log_tails(self) -> str:
        """Give the last lines of every component's log."""
        return ""

    # ---- runs ------------------------------------------------------------------------------------

    def wait_for_dag(self, dag_id: str, timeout: float = 180) -> None:
        """Wait until the DAG has been parsed and can be triggered."""

        def known() -> bool:
            answer = self._request("GET", f"/dags/{dag_id}", allow=(404,))
            return answer.status_code == 200

        try:
            self.wait_until(known, timeout, f"DAG {dag_id} is known")
        except AirflowError as error:
            raise AirflowError(f"import errors: {self.import_errors()}\n{error}") from None

    def import_errors(self) -> dict[str, str]:
        """Say which DAG files Airflow could not import, and why."""
        errors = self.rest("GET", "/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        logical_date: datetime | str | None = None,
        *,
        unpause: bool = True,
    ) -> str:
        """Start a run, once the DAG is known; give its run id.

        :param unpause: new DAGs are paused, as is Airflow's default, and a run of a paused DAG stays queued
        """
        self.wait_for_dag(dag_id)
        if unpause:
            self.unpause(dag_id)
        body: dict[str, Any] = {"conf": dict(conf or {})}
        if logical_date is not None:
            body["logical_date"] = (
                logical_date.isoformat() if isinstance(logical_date, datetime) else logical_date
            )
        elif self.is_airflow_3:
            body["logical_date"] = None
        run_id: str = self.rest("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        state: str = self.rest("GET", _run_path(dag_id, run_id))["state"]
        return state

    def wait_for_run(
        self, dag_id: str, run_id: str, timeout: float = 240, states: Collection[str] = FINISHED
    ) -> str:
        """Wait until the run is in one of these states (finished, if left out); give the state."""

        def reached() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in states else None

        return self.wait_until(reached, timeout, f"run {run_id} of {dag_id} is {' or '.join(sorted(states))}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Give everything that the REST API says about each task instance of the run."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.rest(
                "GET", f"{_run_path(dag_id, run_id)}/taskInstances?limit=100&offset={len(found)}"
            )
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, TaskState]:
        """Give state and try number of each task, named ``task_id`` or ``task_id[map_index]``."""
        return {
            _task_name(ti["task_id"], ti["map_index"]): TaskState(ti["state"], ti["try_number"])
            for ti in self.task_instances(dag_id, run_id)
        }

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str],
        timeout: float = 180,
        *,
        map_index: int = -1,
        try_number: int | None = None,
    ) -> TaskState:
        """Wait until a task is in one of these states, in this try if one is given."""
        name = _task_name(task_id, map_index)

        def reached() -> TaskState | None:
            now = self.task_states(dag_id, run_id).get(name)
            if now and now.state in states and try_number in (None, now.try_number):
                return now
            return None

        return self.wait_until(reached, timeout, f"task {name} of {dag_id} is {' or '.join(sorted(states))}")

    def task_pid(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int:
        """Give the id of the process that Airflow has on record for a running task."""
        for ti in self.task_instances(dag_id, run_id):
            if (ti["task_id"], ti["map_index"]) == (task_id, map_index) and ti["pid"]:
                return int(ti["pid"])
        raise AirflowError(f"no process is on record for {_task_name(task_id, map_index)} of {dag_id}")

    # ---- what people do to runs and tasks --------------------------------------------------------

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as ``success`` or ``failed``, as the UI's button does."""
        self.rest("PATCH", _run_path(dag_id, run_id), {"state": state})

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark one task as ``success`` or ``failed``."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}"
        if map_index >= 0:
            path += f"/{map_index}"
        body: dict[str, Any] = {"new_state": state}
        if not self.is_airflow_3:
            body["dry_run"] = False
        self.rest("PATCH", path, body)

    def clear_tasks(
        self,
        dag_id: str,
        run_id: str,
        task_ids: Collection[str | tuple[str, int]] | None = None,
        *,
        downstream: bool = True,
        upstream: bool = False,
        only_failed: bool = False,
    ) -> set[str]:
        """Clear tasks of a run (all, if none are named) and give the names of those that were cleared.

        ``downstream`` is what the UI preselects; ``only_failed`` is the REST API's own default, not ours. A
        pair ``(task_id, map_index)`` names one mapped task, which the REST API of 2.11 cannot do.
        """
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": only_failed,
            "include_downstream": downstream,
            "include_upstream": upstream,
            "reset_dag_runs": True,
        }
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        cleared = self.rest("POST", f"/dags/{dag_id}/clearTaskInstances", body)["task_instances"]
        return {_task_name(ti["task_id"], ti.get("map_index", -1)) for ti in cleared}

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run and let it run again."""
        self.rest("POST", f"{_run_path(dag_id, run_id)}/clear", {"dry_run": False})

    def pause(self, dag_id: str) -> None:
        self.rest("PATCH", f"/dags/{dag_id}", {"is_paused": True})

    def unpause(self, dag_id: str) -> None:
        self.rest("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    # ---- what a task leaves behind ---------------------------------------------------------------

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """Give an XCom's value."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.rest("GET", f"{path}?map_index={map_index}&stringify=false")["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1
    ) -> str:
        """Give what a try of a task has logged so far, readable on both lines; empty if it never started.

        It is read from the file: that works while the API is down as well.
        """
        folder = self.task_logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        path = folder / f"attempt={try_number}.log"
        if not path.exists():
            return ""
        return "\n".join(_readable(line) for line in path.read_text(errors="replace").splitlines())

    # ---- asking and waiting ----------------------------------------------------------------------

    def rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the REST API (``path`` goes on after ``/api/v1`` or ``/api/v2``); give the decoded answer."""
        answer = self._request(method, path, body)
        return answer.json() if answer.content else None

    def wait_until(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        """Wait until ``condition()`` is true and give its value.

        A component that exits in the meantime, or the timeout, raises :class:`AirflowError` with the
        ends of all component logs.
        """
        deadline = time.monotonic() + timeout
        while True:
            # The API server may be busy, or away because a test wants it so.
            with suppress(httpx.TransportError):
                if value := condition():
                    return value
            try:
                self.look_after_components()
            except AirflowError as error:
                raise AirflowError(f"{error}\n{self.log_tails()}") from None
            if time.monotonic() > deadline:
                raise AirflowError(f"after {timeout:g} s still not so: {what}\n{self.log_tails()}")
            time.sleep(self.poll_interval)

    # ---- inside ----------------------------------------------------------------------------------

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, allow: Collection[int] = ()
    ) -> httpx.Response:
        prefix = "/api/v2" if self.is_airflow_3 else "/api/v1"
        for attempt in range(1, _TRIES + 1):
            answer = self._http.request(method, prefix + path, json=body)
            # The scheduler changed the same task at the same moment, or SQLite was busy: nothing was done.
            if answer.status_code != 500 or "Database error" not in answer.text or attempt == _TRIES:
                break
            time.sleep(0.2 * attempt)
        if answer.is_error and answer.status_code not in allow:
            raise AirflowError(f"{method} {path} answered {answer.status_code}: {answer.text[:2000]}")
        return answer


def _run_path(dag_id: str, run_id: str) -> str:
    # A run id contains "+", which a URL reads as a space.
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task_name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _readable(line: str) -> str:
    """Give a line of a task's log as text: Airflow 3 writes JSON."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    details = "".join(f" {key}={value}" for key, value in record.items() if key not in _LOG_CONTEXT)
    return f"{record.get('timestamp', '')} {str(record.get('level', '')).upper()} {record['event']}{details}"
