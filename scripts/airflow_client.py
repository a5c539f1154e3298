"""A client for the REST API of a running Airflow, for tests and the demo; supports 2.11 and 3.x."""

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

#: The number of retries of a request that failed because Airflow's database was busy.
_TRIES = 5

#: The longest wait, in seconds, before another look at a run or a task that has not changed.
_LONGEST_WAIT = 1.5

#: The final states of a run.
FINISHED = frozenset({"success", "failed"})

# The keys that Airflow 3 repeats in each line of a task's log, and those shown at the start of a line.
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
    """A condition was not met in time; the message ends with the last log lines of the components."""


class AirflowClient:
    """
    A running Airflow.

    :param url: the address of its API server or web server.
    :param task_logs: the folder of its task logs.
    :param is_airflow_3: whether it is Airflow 3; 2.11 has another API.
    :param credentials: user and password, if Airflow requires them.
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
        #: Seconds between two checks of a condition. Each costs Airflow 10 to 20 ms of CPU time.
        self.poll_interval = 0.25
        self._credentials = credentials
        # Loopback requests must not use the environment's proxy.
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        if credentials and not is_airflow_3:
            self._http.auth = credentials

    def sign_in(self) -> None:
        """Get a token, unless there already is one or this Airflow needs none."""
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
        """Raise :class:`AirflowError` if a component exited without being killed by a test."""

    def log_tails(self) -> str:
        """Return the last lines of every component's log."""
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
        """Return the DAG files that Airflow could not import, and the reasons."""
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
        """Start a run once the DAG is known, and return its run ID.

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
        """Wait until the run is in one of these states (by default, a final one), and return the state."""

        def reached() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in states else None

        wanted = " or ".join(sorted(states))
        return self.wait_until(reached, timeout, f"run {run_id} of {dag_id} is {wanted}", dag_id=dag_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the REST API's data about each task instance of the run."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.rest(
                "GET", f"{_run_path(dag_id, run_id)}/taskInstances?limit=100&offset={len(found)}"
            )
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, TaskState]:
        """Return the state and try number of each task, by ``task_id`` or ``task_id[map_index]``."""
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
        """Wait until a task is in one of these states, in the given try if any."""
        name = _task_name(task_id, map_index)

        def reached() -> TaskState | None:
            now = self.task_states(dag_id, run_id).get(name)
            if now and now.state in states and try_number in (None, now.try_number):
                return now
            return None

        wanted = " or ".join(sorted(states))
        return self.wait_until(reached, timeout, f"task {name} of {dag_id} is {wanted}", dag_id=dag_id)

    def task_pid(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int:
        """Return the process ID that Airflow recorded for a running task."""
        for ti in self.task_instances(dag_id, run_id):
            if (ti["task_id"], ti["map_index"]) == (task_id, map_index) and ti["pid"]:
                return int(ti["pid"])
        raise AirflowError(f"no process is on record for {_task_name(task_id, map_index)} of {dag_id}")

    # ---- user actions on runs and tasks ----------------------------------------------------------

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
        """Clear tasks of a run (by default all), and return the names of the cleared ones.

        The UI preselects ``downstream``. ``only_failed`` is the default of the REST API, but not of this
        method. A pair ``(task_id, map_index)`` selects one mapped task, which the REST API of 2.11 does not
        support.
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

    # ---- the results of a task -------------------------------------------------------------------

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """Return an XCom's value."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.rest("GET", f"{path}?map_index={map_index}&stringify=false")["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1
    ) -> str:
        """Return the log of a task's try so far, in one format for both lines; empty if it never started.

        It is read from the file, so that this works even while the API is down.
        """
        folder = self.task_logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        path = folder / f"attempt={try_number}.log"
        if not path.exists():
            return ""
        return "\n".join(_readable(line) for line in path.read_text(errors="replace").splitlines())

    # ---- requests and waiting --------------------------------------------------------------------

    def rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the REST API (``path`` follows ``/api/v1`` or ``/api/v2``); return the decoded response."""
        answer = self._request(method, path, body)
        return answer.json() if answer.content else None

    def wait_until(
        self, condition: Callable[[], T | None], timeout: float, what: str, *, dag_id: str | None = None
    ) -> T:
        """Wait until ``condition()`` is true, and return its value.

        Pass ``dag_id`` if the condition depends only on the runs of this DAG: it is checked less often then.
        If a component exits meanwhile, or after the timeout, this raises :class:`AirflowError` with the last
        lines of all component logs.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._states(dag_id)
            # The API server may be busy, or stopped by a test.
            with suppress(httpx.TransportError):
                if value := condition():
                    return value
            try:
                self.look_after_components()
            except AirflowError as error:
                raise AirflowError(f"{error}\n{self.log_tails()}") from None
            if time.monotonic() > deadline:
                raise AirflowError(f"not true after {timeout:g} s: {what}\n{self.log_tails()}")
            self._wait_for_change(dag_id, seen)

    # ---- internals -------------------------------------------------------------------------------

    def _states(self, dag_id: str | None) -> object:
        """Return a value that differs after each change to the states of the DAG's runs and tasks.

        None if that is unknown.
        """
        return None

    def _wait_for_change(self, dag_id: str | None, seen: object) -> None:
        if seen is None:
            time.sleep(self.poll_interval)
            return
        until = time.monotonic() + _LONGEST_WAIT
        while time.monotonic() < until:
            time.sleep(self.poll_interval / 2)
            if self._states(dag_id) != seen:
                return

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, allow: Collection[int] = ()
    ) -> httpx.Response:
        prefix = "/api/v2" if self.is_airflow_3 else "/api/v1"
        for attempt in range(1, _TRIES + 1):
            answer = self._http.request(method, prefix + path, json=body)
            # The scheduler changed the same task at the same time, or SQLite was busy: nothing changed. Some
            # releases say so only for some requests; these two can be repeated anyway.
            is_busy = "Database error" in answer.text or method in {"GET", "PATCH"}
            if answer.status_code != 500 or not is_busy or attempt == _TRIES:
                break
            time.sleep(0.2 * attempt)
        if answer.is_error and answer.status_code not in allow:
            raise AirflowError(f"{method} {path} returned {answer.status_code}: {answer.text[:2000]}")
        return answer


def _run_path(dag_id: str, run_id: str) -> str:
    # A run ID contains "+", which means a space in a URL.
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task_name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _readable(line: str) -> str:
    """Return a line of a task's log as text: Airflow 3 writes JSON."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    details = "".join(f" {key}={value}" for key, value in record.items() if key not in _LOG_CONTEXT)
    return f"{record.get('timestamp', '')} {str(record.get('level', '')).upper()} {record['event']}{details}"
