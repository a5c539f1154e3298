"""
Runs cells of the bracket suite in parallel on one real Airflow, and records the results.

A cell is a situation: a DAG with a bracket, an action, and the expected outcome. Its record contains the
sequence of all requests that the simulated Coveo received, in words: ``REBUILD push IDLE``. Consecutive
pushes count as one word. ``delete-old`` is the deletion of old items, ``IDLE→503`` a failed request, and
``(marked failed)`` an action of the cell.
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
from airflow_client import AirflowError
from local_airflow import LocalAirflow

from airflow_provider_coveo.simulator import Exchange, Simulator

#: The maximum number of parallel cells.
CELLS_AT_A_TIME = 7
#: The maximum wait of a cell in seconds, on a busy machine.
PATIENCE = 300

_SHORT = {
    "success": "ok",
    "failed": "FAIL",
    "upstream_failed": "upf",
    "skipped": "skip",
    None: "none",
}


@dataclass(frozen=True)
class Expected:
    """
    The expected outcome of a cell.

    :param sequence: the requests to Coveo. ``?`` after a word: it may be missing; ``*``: it may also be
        repeated.
    :param run: the final state of the run; of several runs by their keys, as ``a failed, b success``.
    :param tasks: the states of tasks that differ from those after a successful or failed run.
    :param items: the final items, by their names after ``https://example.com/``.
    :param last: the last status that Coveo accepted.
    :param impossible: why the source isn't IDLE at once, if Airflow makes that impossible for a DAG.
    :param otherwise: an alternative outcome, if it depends on a race in Airflow itself.
    """

    sequence: str
    run: str = "success"
    tasks: str = ""
    items: str | None = None
    last: str = "IDLE"
    impossible: str = ""
    otherwise: Expected | None = None


@dataclass(frozen=True)
class Cell:
    """
    A situation.

    :param id: its name, which its DAG and its source share.
    :param title: the action, as in the table.
    :param play: carries out the action.
    :param expected: the expected outcome on Airflow 3.
    :param expected_2: the same for Airflow 2, if it differs.
    :param shape: the function of ``dags/bracket_cells.py`` that creates the DAG.
    :param dag: further arguments of the DAG.
    :param bracket: further arguments of the bracket.
    :param sources: the sources that it uses; by default, one with its name.
    :param representative: whether it belongs to the cells that always run.
    :param alone: whether it stops components of Airflow that other cells need.
    :param like_2_before: the Airflow 3 version before which its outcome is that of Airflow 2.
    :param only_3: why it is impossible on Airflow 2.
    :param expected_3_0: the expected outcome on Airflow 3.0, if it differs from all others.
    :param expected_3_1: the same for 3.1 and 3.2, which don't clear setups and teardowns with a single task.
    :param since: the first line that supports the action.
    :param not_on_3_0: why it is impossible on Airflow 3.0.
    """

    id: str
    title: str
    play: Callable[[Story], None]
    expected: Expected
    expected_2: Expected | None = None
    shape: str = "in_a_row"
    dag: Mapping[str, Any] = field(default_factory=dict)
    bracket: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[str] = ()
    representative: bool = False
    alone: bool = False
    like_2_before: tuple[int, int] = (3, 0)
    only_3: str = ""
    expected_3_0: Expected | None = None
    expected_3_1: Expected | None = None
    since: tuple[int, int] = (2, 11)
    not_on_3_0: str = ""

    def why_not(self, line: tuple[int, int]) -> str:
        """Return why it is impossible on an Airflow, if it is."""
        if line < (3, 0) and self.only_3:
            return self.only_3
        if line < self.since:
            return f"Airflow {line[0]}.{line[1]} has nothing of the kind; {self.since[0]}.{self.since[1]} has"
        return self.not_on_3_0 if line == (3, 0) else ""

    def expected_on(self, line: tuple[int, int]) -> Expected:
        """Return the expected outcome on an Airflow."""
        if line in {(3, 1), (3, 2)} and self.expected_3_1 is not None:
            return self.expected_3_1
        if line == (3, 0) and self.expected_3_0 is not None:
            return self.expected_3_0
        if line < self.like_2_before and self.expected_2 is not None:
            return self.expected_2
        return self.expected


@dataclass
class Record:
    """The result of a cell."""

    cell: Cell
    expected: Expected
    version: str
    sequences: dict[str, str] = field(default_factory=dict)
    last_statuses: dict[str, str | None] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    items: dict[str, list[str]] = field(default_factory=dict)
    late_pushes: int = 0
    late_seconds: float = 0.0
    seconds: float = 0.0
    callbacks: list[str] = field(default_factory=list)
    logs: str = ""
    error: str = ""

    def run_state(self) -> str:
        """Return the run's state, or the states of several runs after their keys."""
        if set(self.runs) <= {"a"}:
            return self.runs.get("a", "")
        return ", ".join(f"{key} {state}" for key, state in sorted(self.runs.items()))

    def sequence(self) -> str:
        """Return the requests to Coveo, by source if there are several."""
        if len(self.sequences) == 1:
            return next(iter(self.sequences.values()))
        return " | ".join(self.sequences.values())


class Lab:
    """
    The Airflow, the Coveo and the folder of all cells.

    :param airflow: a running Airflow whose DAGs are those of ``dags/bracket_cells.py``.
    :param coveo: the simulated Coveo.
    :param folder: the folder for the files that control tasks.
    """

    def __init__(self, airflow: LocalAirflow, coveo: Simulator, folder: Path) -> None:
        self.airflow = airflow
        self.coveo = coveo
        self.folder = folder

    def run(self, cells: Iterable[Cell]) -> dict[str, Record]:
        """
        Play all cells; those that need Airflow to themselves come last, one after the other.

        Those whose runs time out come first, because they take longest.
        """
        cells = list(cells)
        beside = [cell for cell in cells if not cell.alone]
        beside.sort(key=lambda cell: "dagrun_timeout" not in cell.dag)
        with ThreadPoolExecutor(CELLS_AT_A_TIME) as pool:
            records = list(pool.map(self.record, beside))
        records += [self.record(cell) for cell in cells if cell.alone]
        found = {record.cell.id: record for record in records}
        return {cell.id: found[cell.id] for cell in cells}

    def record(self, cell: Cell) -> Record:
        """Play one cell."""
        record = Record(cell, cell.expected_on(line_of(self.airflow.version)), self.airflow.version)
        story = Story(self, cell, record)
        began = time.monotonic()
        try:
            cell.play(story)
            story.end()
        except Exception:
            # Without the logs of the components that LocalAirflow adds, which would hide the rest.
            record.error = traceback.format_exc(limit=-3).partition("\n--- ")[0]
        finally:
            story.let_go()
        record.seconds = time.monotonic() - began
        story.write_down()
        return record


class Story:
    """A running cell, with the methods for its ``play``."""

    def __init__(self, lab: Lab, cell: Cell, record: Record) -> None:
        self.airflow = lab.airflow
        self.coveo = lab.coveo
        self.folder = lab.folder
        self.cell = cell
        self.record = record
        self.dag_id = cell.id
        self.sources = list(cell.sources) or [cell.id]
        self.run_ids: dict[str, str] = {}
        #: The DAGs of the runs that aren't of the cell's own DAG.
        self.dag_ids: dict[str, str] = {}
        self._did: list[tuple[int, str]] = []
        self._ends_seen = 0

    # --- controlling tasks ---

    def hold(self, *tasks: str, key: str = "a") -> None:
        """Make tasks push until they are released."""
        for task in tasks:
            self._file(key, task, "hold").touch()

    def release(self, *tasks: str, key: str = "a") -> None:
        for task in tasks:
            self._file(key, task, "hold").unlink()

    def fail(self, task: str, *, up_to_try: int | None = None, key: str = "a") -> None:
        self._file(key, task, "fail").write_text("" if up_to_try is None else str(up_to_try))

    def mend(self, task: str, key: str = "a") -> None:
        self._file(key, task, "fail").unlink()

    def skip(self, task: str, key: str = "a") -> None:
        self._file(key, task, "skip").touch()

    def let_go(self) -> None:
        """Release all tasks that are still held."""
        for dag_id in {self.dag_id, *self.dag_ids.values()}:
            for path in self.folder.glob(f"{dag_id}.*.hold"):
                path.unlink()

    def _file(self, key: str, task: str, what: str) -> Path:
        return self.folder / f"{self.dag_of(key)}.{key}.{task}.{what}"

    # --- actions ---

    def did(self, what: str) -> None:
        """Record an action in the sequence."""
        self._did.append((len(self.coveo.requests), f"({what})"))

    def dag_of(self, key: str) -> str:
        return self.dag_ids.get(key, self.dag_id)

    def trigger(self, key: str = "a", logical_date: str | None = None) -> str:
        self.run_ids[key] = self.airflow.trigger(self.dag_of(key), {"key": key}, logical_date)
        return self.run_ids[key]

    def mark_run(self, state: str, key: str = "a") -> None:
        self.did(f"run marked {state}")
        self.airflow.mark_run(self.dag_id, self.run_ids[key], state)

    def mark_task(self, task: str, state: str, *, downstream: bool = False) -> None:
        self.did(f"{task} marked {state}" + (" + downstream" if downstream else ""))
        run_id, task_id = self.run_ids["a"], self.full(task)
        if not downstream:
            self.airflow.mark_task(self.dag_id, run_id, task_id, state)
        elif self.airflow.is_airflow_3:
            self.airflow.rest(
                "PATCH",
                f"/dags/{self.dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}",
                {"new_state": state, "include_downstream": True},
            )
        else:
            body = {
                "dry_run": False,
                "task_id": task_id,
                "dag_run_id": run_id,
                "include_upstream": False,
                "include_downstream": True,
                "include_future": False,
                "include_past": False,
                "new_state": state,
            }
            self.airflow.rest("POST", f"/dags/{self.dag_id}/updateTaskInstancesState", body)

    def clear(
        self,
        *tasks: str | tuple[str, int],
        downstream: bool = True,
        only_failed: bool = False,
        key: str = "a",
    ) -> set[str]:
        """Clear tasks, and return the short names of the cleared ones."""
        words = [task if isinstance(task, str) else f"{task[0]}[{task[1]}]" for task in tasks]
        words += ["+ downstream"] * downstream + ["only failed"] * only_failed
        self.did(f"clear {' '.join(words)}")
        ids = [self.full(task) if isinstance(task, str) else (self.full(task[0]), task[1]) for task in tasks]
        cleared = self.airflow.clear_tasks(
            self.dag_id, self.run_ids[key], ids, downstream=downstream, only_failed=only_failed
        )
        return {short(name) for name in cleared}

    def mark_group(self, state: str) -> None:
        """Mark the bracket's task group, as in the UI."""
        self.did(f"group marked {state}")
        run_id = quote(self.run_ids["a"], safe="")
        path = f"/dags/{self.dag_id}/dagRuns/{run_id}/taskGroupInstances/push_source_update"
        self.airflow.rest("PATCH", path, {"new_state": state})

    def variable(self, key: str, value: str) -> None:
        """Set an Airflow Variable."""
        self.did(f"Variable = {value}")
        try:
            self.airflow.rest("PATCH", f"/variables/{key}", {"key": key, "value": value})
        except AirflowError:
            self.airflow.rest("POST", "/variables", {"key": key, "value": value})

    def clear_run(self, *, only_failed: bool = False, key: str = "a") -> None:
        self.did("clear run" + " only failed" * only_failed)
        if only_failed:
            self.airflow.clear_tasks(self.dag_id, self.run_ids[key], only_failed=True)
        else:
            self.airflow.clear_run(self.dag_id, self.run_ids[key])

    def kill(self, task: str, *, supervisor: bool = False) -> None:
        """Kill a task's process, and first its supervisor if requested."""
        self.did(f"kill -9 {task}" + " + supervisor" * supervisor)
        process = psutil.Process(self.airflow.task_pid(self.dag_id, self.run_ids["a"], self.full(task)))
        if supervisor:
            parent = process.parent()
            assert parent is not None
            parent.kill()
        process.kill()

    def push_as_somebody_else(self, name: str) -> None:
        """Push an item before the run."""
        self._ask("PUT", "documents", {"documentId": f"https://example.com/{name}"}, b'{"data": "old"}')

    def open_as_somebody_else(self) -> None:
        self._ask("POST", "status", {"statusType": "REBUILD"})

    def close_as_somebody_else(self) -> None:
        self._ask("POST", "status", {"statusType": "IDLE"})

    def _ask(self, method: str, path: str, query: dict[str, str], body: bytes | None = None) -> None:
        organization = self.coveo.organization
        answer = httpx.request(
            method,
            f"{self.coveo.url}/push/v1/organizations/{organization}/sources/{self.dag_id}/{path}",
            params=query,
            content=body,
            headers={"Authorization": f"Bearer {self.coveo.api_key}", "Content-Type": "application/json"},
            trust_env=False,
        )
        answer.raise_for_status()

    # --- waiting ---

    def full(self, task: str, key: str = "a") -> str:
        """Return the ID of the only task with a short name."""
        dag_id, run_id = self.dag_of(key), self.run_ids[key]

        def found() -> list[str]:
            return [
                ti["task_id"]
                for ti in self.airflow.task_instances(dag_id, run_id)
                if short(ti["task_id"]) == task
            ]

        # A queued run may have no tasks yet.
        (task_id,) = set(self.until(found, f"there is a task {task}"))
        return str(task_id)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        return self.airflow.wait_until(condition, timeout, f"{self.dag_id}: {what}; {self._now()}")

    def until_seen(self, word: str, *, times: int = 1) -> None:
        """Wait until Coveo has received a word, such as ``push``, a number of times since the last action."""
        since = self._did[-1][0] if self._did else 0
        self.until(lambda: self._words(since=since).count(word) >= times, f"{times} times {word}")

    def until_age_of_run(self, seconds: float, key: str = "a") -> None:
        """Wait until some seconds after the start of a run."""
        path = f"/dags/{self.dag_of(key)}/dagRuns/{quote(self.run_ids[key], safe='')}"
        started = self.until(lambda: self.airflow.rest("GET", path)["start_date"], "the run is started")
        old_at = datetime.fromisoformat(started.replace("Z", "+00:00")) + timedelta(seconds=seconds)
        self.until(lambda: datetime.now(timezone.utc) > old_at, "the run is older")

    def until_started(self, times: int) -> None:
        """Wait until a number of processes have begun to work."""
        path = self.folder / f"{self.dag_id}.pids"
        self.until(lambda: len(path.read_text().split()) >= times, f"{times} processes have begun")

    def until_more_pushes(self) -> None:
        """Wait for the push of a new item."""
        before = self._words().count("push")
        self.until(lambda: self._words().count("push") > before, "more pushes")

    def until_task(self, task: str, *states: str, try_number: int | None = None, key: str = "a") -> None:
        self.airflow.wait_for_task(
            self.dag_of(key), self.run_ids[key], self.full(task, key), states, PATIENCE, try_number=try_number
        )

    def until_run(self, *states: str, key: str = "a") -> None:
        self.airflow.wait_for_run(
            self.dag_of(key), self.run_ids[key], PATIENCE, states or ("success", "failed")
        )

    def until_over(self, key: str = "a") -> None:
        """Wait until a run and the callbacks of its DAG have ended."""
        state = self.airflow.wait_for_run(self.dag_of(key), self.run_ids[key], PATIENCE)
        if state == "failed":
            self._ends_seen += 1
            self.until(lambda: self._callbacks().count("end") >= self._ends_seen, "the DAG's callbacks")
        self.record.runs[key] = state

    def until_quiet(self, key: str = "a") -> None:
        """Wait until a run is over and no process of the DAG is working."""
        self.until_over(key)
        self.until(lambda: not self._working(), "no process works any longer")

    def end(self) -> None:
        """Wait until everything is over."""
        for key in self.run_ids:
            if key not in self.record.runs:
                self.until_over(key)
        self.until(lambda: not self._working(), "no process works any longer")

    def _working(self) -> list[int]:
        paths = [self.folder / f"{dag_id}.pids" for dag_id in {self.dag_id, *self.dag_ids.values()}]
        pids = [int(pid) for path in paths if path.exists() for pid in path.read_text().split()]
        return [pid for pid in pids if _is_alive(pid)]

    def _callbacks(self) -> list[str]:
        path = self.folder / f"{self.dag_id}.callbacks"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def _now(self) -> str:
        return ", ".join(" ".join(self._words(source)) for source in self.sources)

    # --- records ---

    def _words(self, source: str | None = None, since: int = 0) -> list[str]:
        wanted = [source] if source else self.sources
        return [word for exchange in self.coveo.requests[since:] if (word := _word(exchange, wanted))]

    def _sequence(self, source: str) -> str:
        words: list[str] = []
        acts = list(self._did)
        for number, exchange in enumerate(self.coveo.requests):
            while acts and acts[0][0] <= number:
                words.append(acts.pop(0)[1])
            word = _word(exchange, [source])
            if word and not (word == "push" and words[-1:] == ["push"]):
                words.append(word)
        return " ".join([*words, *(act for _, act in acts)])

    def write_down(self) -> None:
        """Fill the record."""
        record = self.record
        for source in self.sources:
            record.sequences[source] = self._sequence(source)
            statuses = self.coveo.statuses(source)
            record.last_statuses[source] = statuses[-1] if statuses else None
            record.items[source] = sorted(
                document.removeprefix("https://example.com/") for document in self.coveo.items(source)
            )
            self._measure_late_pushes(source)
        record.callbacks = self._callbacks()
        for key, run_id in self.run_ids.items():
            for name, (state, tries) in self.airflow.task_states(self.dag_of(key), run_id).items():
                retried = f"#{tries}" if tries > 1 else ""
                where = f"{key}." if len(self.run_ids) > 1 else ""
                record.tasks[where + short(name, self._ambiguous())] = _SHORT.get(state, str(state)) + retried
                if state == "failed" or record.error:
                    self._keep_log(key, name, tries)

    def _keep_log(self, key: str, name: str, try_number: int) -> None:
        task_id, _, index = name.removesuffix("]").partition("[")
        log = self.airflow.task_log(
            self.dag_of(key), self.run_ids[key], task_id, int(index or -1), try_number
        )
        self.record.logs += f"\n--- {name}\n" + "\n".join(log.splitlines()[-12:])

    def _ambiguous(self) -> bool:
        return self.cell.shape in {"two_sources", "two_in_a_row"}

    def _measure_late_pushes(self, source: str) -> None:
        closed: int | None = None
        for exchange in self.coveo.requests:
            word = _word(exchange, [source])
            if word in {"REBUILD", "REFRESH", "INCREMENTAL"}:
                closed = None
            elif word == "IDLE" and closed is None:
                closed = exchange.at
            elif word == "push" and closed is not None:
                self.record.late_pushes += 1
                self.record.late_seconds = max(self.record.late_seconds, (exchange.at - closed) / 1000)


def line_of(version: str) -> tuple[int, int]:
    """Return the line of an Airflow: ``(3, 1)`` of ``3.1.8``."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def short(name: str, with_group: bool = False) -> str:
    """Return a task's name without its groups, or with the innermost."""
    bare, bracket, index = name.partition("[")
    parts = bare.split(".")
    return ".".join(parts[-2 if with_group else -1 :]) + bracket + index


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _word(exchange: Exchange, sources: Collection[str]) -> str:
    if exchange.source not in sources:
        return ""
    if exchange.operation == "status":
        status = exchange.query.get("statusType", "?")
        # If the client was killed while it waited, there was no response, but the status was set.
        accepted = 200 <= exchange.status < 300 or exchange.fault.startswith("stall")
        return status if accepted else f"{status}→{exchange.status}"
    return {"item": "push", "batch": "push", "olderthan": "delete-old"}.get(exchange.operation, "")


def matches(expected: str, sequence: str) -> bool:
    """Return whether a sequence is as expected; see :class:`Expected`."""
    pattern = ""
    for word in _split(expected):
        mark = word[-1] if word[-1] in "?*" else ""
        pattern += f"(?:{re.escape(word.removesuffix(mark) if mark else word)} ){mark}"
    return re.fullmatch(pattern, f"{sequence} " if sequence else "") is not None


def _split(sequence: str) -> list[str]:
    return re.findall(r"\([^)]*\)[?*]?|\S+", sequence)


def expected_tasks(expected: Expected) -> dict[str, str]:
    """Return the expected final states of tasks, including the bracket's own."""
    states: dict[str, str] = {}
    several = expected.run.split(", ")
    for described in several:
        key, _, run = described.rpartition(" ")
        went_well = run == "success"
        own = {
            "begin": "ok",
            "open": "ok",
            "close": "ok",
            "outcome": "ok" if went_well else "FAIL",
            "done": "ok" if went_well else "upf",
        }
        states.update({f"{key}.{name}" if key else name: state for name, state in own.items()})
    for described in filter(None, expected.tasks.split(", ")):
        name, _, state = described.partition(" ")
        states[name] = state
    return {name: state for name, state in states.items() if state != "-"}


def differences(expected: Expected, tasks: Mapping[str, str]) -> list[str]:
    """Return the tasks with unexpected states, or unexpected numbers of tries if the cell specifies them."""
    return [
        f"{name} is {tasks.get(name)}, not {state}"
        for name, state in expected_tasks(expected).items()
        if state != (tasks.get(name, "") if "#" in state else tasks.get(name, "").partition("#")[0])
    ]


def describe(cells: Iterable[Cell]) -> str:
    """Return the content of ``cells.json``."""
    return json.dumps(
        {
            cell.id: {"shape": cell.shape, "dag": dict(cell.dag), "bracket": dict(cell.bracket)}
            for cell in cells
        }
    )
