"""
An Airflow that is stepped in this process: no scheduler process, no worker, no sleep.

Airflow's own code decides everything: a tick is the scheduler's loop body, tasks run through the task runner
and the execution API, users act through the public REST API, and callbacks are called as in the DAG
processor. Only the order of events is the caller's. The simulated Coveo is the ground truth.

Import :mod:`tests.stepped.airflow_home` and call ``make_home()`` before this.
"""

from __future__ import annotations

import functools
import gc
import io
import os
import sqlite3
import sys
import warnings
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args
from urllib.parse import quote, unquote, urlsplit

import httpx
import psutil
import requests
import sqlalchemy as sa
import structlog
import urllib3
from airflow import settings
from airflow.api_fastapi.app import create_app
from airflow.api_fastapi.common.dagbag import dag_bag_from_app
from airflow.callbacks.callback_requests import DagCallbackRequest, TaskCallbackRequest
from airflow.dag_processing import processor
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagbag import DBDagBag
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.supervisor import (
    ActivitySubprocess,
    InProcessTestSupervisor,
    in_process_api_server,
)
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.triggers.base import TriggerEvent
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from requests.adapters import HTTPAdapter

from airflow_provider_coveo.simulator import Exchange, Simulator
from airflow_provider_coveo.simulator.app import App
from airflow_provider_coveo.transports.exchange import current_exchange
from tests.stepped.actors import (
    Actor,
    Comms,
    StuckError,
    leave_signals_alone,
    lost_answer,
    stop_at_a_wait,
    without_comms,
)
from tests.stepped.clock import FakeClock
from tests.stepped.doors import DirectTransport, ShortWay, answer_in_place, of_one_version

ORGANIZATION = "acme"
SOURCES = ("one", "two", "three")
#: The time between two events, as on a real machine; Coveo's Date has a precision of seconds.
SECONDS_A_STEP = 3.0
#: The time of a wait for a retry or a poll of a source.
SECONDS_A_WAIT = 70.0
_BUNDLE = "dags-folder"
_FIRST_LOGICAL_DATE = datetime(2026, 1, 1, tzinfo=timezone.utc)
#: The tables of a sequence, which are emptied after it. The rows that depend on dag_run are deleted with it.
_TABLES = (
    *("task_state_store", "task_instance_history", "task_reschedule", "rendered_task_instance_fields"),
    *("xcom", "task_map", "task_instance_note", "task_instance", "dag_run_note", "dag_run"),
    *("trigger", "callback", "variable", "log", "asset_event", "asset_dag_run_queue"),
)
#: The survival of a process whose task Airflow took away, with default heartbeats.
SECONDS_OF_AN_ORPHAN = 8.0
UNFINISHED = ("scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred")
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")
#: With this header, the hook leaves the retry to Airflow.
_NOT_SOON = {"Retry-After": "1200"}


class Unplayable(Exception):  # noqa: N818 - a sequence is wrong, or was shrunk too far
    """The sequence's event is impossible at this point."""


class End(NamedTuple):
    """
    The end of a task's process, before Airflow learned of it.

    :param run: the key of the run.
    :param task_id: its task.
    :param map_index: the map index.
    :param number: the number of previous events.
    :param result: its result, such as ``success``.
    :param at_start: the states of its run when it started.
    :param at_end: the same when it came to its result.
    """

    run: str
    task_id: str
    map_index: int
    number: int
    result: str
    at_start: dict[tuple[str, int], str | None]
    at_end: dict[tuple[str, int], str | None]

    @property
    def place(self) -> tuple[str, str, int]:
        return self.run, self.task_id, self.map_index


@dataclass
class Seen:
    """
    A request that reached Coveo.

    :param exchange: the simulator's record.
    :param actor: its sender, such as ``a.work1``; empty for the harness itself.
    :param dag_id: the sender's DAG.
    :param run: the key of the run.
    :param task_id: the task; empty for a callback.
    :param map_index: the map index.
    :param orphan: whether Airflow had taken the task away from its process by then.
    :param number: the number of previous events.
    """

    exchange: Exchange
    actor: str = ""
    dag_id: str = ""
    run: str = ""
    task_id: str = ""
    map_index: int = -1
    orphan: bool = False
    number: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return self.exchange.source

    @property
    def status(self) -> str:
        """The status that it sets, if any."""
        if self.exchange.operation != "status":
            return ""
        return self.exchange.query.get("statusType", "?")

    @property
    def applied(self) -> bool:
        """Whether Coveo carried out the request, whatever its response."""
        return bool(self.facts.get("applied", 200 <= self.exchange.status < 300))

    @property
    def word(self) -> str:
        """Its word in sequences."""
        operation = self.exchange.operation
        word = self.status or {"item": "push", "batch": "push", "olderthan": "delete-old"}.get(operation, "")
        if not word:
            return ""
        return word if self.applied else f"{word}→{self.exchange.status}"


class _Executor(BaseExecutor):
    """Only collects its input."""

    supports_callbacks = True

    def __init__(self) -> None:
        super().__init__(parallelism=64)
        self.workloads: list[Any] = []
        self.requests: list[Any] = []

    def queue_workload(self, workload: Any, session: Any) -> None:
        self.workloads.append(workload)
        self.running.add(workload.key)

    def send_callback(self, request: Any) -> None:
        self.requests.append(request)

    def forget(self) -> None:
        self.workloads.clear()
        self.requests.clear()
        self.running.clear()
        self.event_buffer.clear()


class _Bag(DBDagBag):
    """The DAGs of the scheduler and the API, which change only when the engine says so."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[str, Any] = {}

    def _version_from_dag_run(self, dag_run: Any, *, session: Any) -> Any:  # type: ignore[override]
        known = self.latest.get(dag_run.dag_id)
        if known is None:
            known = super()._version_from_dag_run(dag_run, session=session)
            self.latest[dag_run.dag_id] = known
        return known


class _Supervisor(InProcessTestSupervisor):
    """A supervisor whose task may have been killed."""

    was_killed = False

    @property
    def final_state(self) -> Any:
        if self.was_killed:
            return ActivitySubprocess.final_state.fget(self)  # type: ignore[attr-defined]
        return self._terminal_state


@dataclass
class Process:
    """A task's process, and Airflow's knowledge of it."""

    actor: Actor
    workload: Any
    task_id: str
    map_index: int
    dag_id: str
    run: str
    supervisor: _Supervisor | None = None
    comms: Comms | None = None
    task: Any = None
    #: The number of events before its start, for decisions at that time.
    started_at: int = -1
    states_at_start: dict[tuple[str, int], str | None] = field(default_factory=dict)
    #: The total simulated wait when Airflow took its task away.
    orphan_since: float | None = None
    #: For each of its steps, the number of previous requests to Coveo.
    stepped_at: list[int] = field(default_factory=list)


class Engine:
    """
    The Airflow of this process, and its Coveo. Create one, and reset it for each sequence.

    :ivar seen: the requests to Coveo, in order. :ivar log: other events, each with the number of previous
    requests to Coveo.
    """

    def __init__(self) -> None:
        self.simulator = Simulator(organization=ORGANIZATION, sources=SOURCES)
        self.simulator.start()
        self._record = self.simulator.record
        self.simulator.record = self._note  # type: ignore[method-assign]
        self.clock = FakeClock(lambda seconds: self.simulator.clock.advance(seconds=seconds), stop_at_a_wait)
        os.environ["AIRFLOW_CONN_COVEO_DEFAULT"] = self.simulator.connection_json()
        self._app = App(self.simulator, {})
        self._adapter = HTTPAdapter()
        self._send_for_real = HTTPAdapter.send
        HTTPAdapter.send = _adapter_send(self)  # type: ignore[method-assign]
        leave_signals_alone()
        sa.event.listen(settings.engine, "connect", _without_fsync)
        settings.engine.dispose()
        initdb()
        self._database = sqlite3.connect(
            str(settings.engine.url.database), isolation_level=None, check_same_thread=False
        )
        self.dags: dict[str, Any] = {}
        #: Whether sequences may lose the write of a Variable, which Airflow 3.3 never does silently.
        self.drops_writes = False
        self._make_airflow()
        self._make_doors()
        self.reset()
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)

    def _make_airflow(self) -> None:
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        DagBundlesManager().sync_bundles_to_db()
        self.executor = _Executor()
        job = Job()
        self.runner = SchedulerJobRunner(job=job, executors=[self.executor], log=_LoudLog())
        self._bag = self.runner.scheduler_dag_bag = _Bag()
        self._changed_dags: set[str] = set()
        self._spare_what_finds_nothing()
        job.prepare_for_execution()
        self.executor.job_id = job.id
        # While the database has it, no sequence needs another one.
        self._job_id = job.id

    def _spare_what_finds_nothing(self) -> None:
        """Make a tick query queued runs, scheduled tasks and changed DAGs only if there are any."""
        verify = self.runner._verify_integrity_if_dag_changed

        def verify_integrity(dag_run: Any, session: Any) -> bool:
            return dag_run.dag_id not in self._changed_dags or verify(dag_run=dag_run, session=session)

        self.runner._verify_integrity_if_dag_changed = verify_integrity  # type: ignore[method-assign]
        start, enqueue = (
            self.runner._start_queued_dagruns,
            self.runner._critical_section_enqueue_task_instances,
        )

        def start_queued_dagruns(session: Any) -> None:
            if self._rows("SELECT 1 AS found FROM dag_run WHERE state = 'queued' LIMIT 1"):
                start(session)

        def enqueue_task_instances(session: Any) -> int:
            if session.scalar(sa.text("SELECT 1 FROM task_instance WHERE state = 'scheduled' LIMIT 1")):
                return enqueue(session)
            return 0

        self.runner._start_queued_dagruns = start_queued_dagruns  # type: ignore[method-assign]
        self.runner._critical_section_enqueue_task_instances = enqueue_task_instances  # type: ignore

    def _make_doors(self) -> None:
        answer_in_place()
        api = of_one_version(in_process_api_server().app)
        bag = self._bag
        api.dependency_overrides[dag_bag_from_app] = lambda: bag
        short_way = ShortWay(api, bag)

        class Client(_Supervisor._Client):
            def request(self, method: str, url: Any, **about: Any) -> httpx.Response:
                answer = short_way.request(method, str(url), **about)
                return super().request(method, url, **about) if answer is None else answer

        self.client = Client(base_url=None, token="", dry_run=True, transport=DirectTransport(api))
        self.client.base_url = "http://in-process.invalid./"
        app = create_app(apps="core")
        # They refresh the cookies of browsers, compress and write the access log.
        app.user_middleware.clear()
        self._rest = httpx.Client(transport=DirectTransport(app), base_url="http://in-process.invalid")
        token = self._rest.get("/auth/token").json()["access_token"]
        self._rest.headers["Authorization"] = f"Bearer {token}"

    # --- DAGs ---

    def add(self, *dags: Any) -> None:
        """Register DAGs in Airflow, once for all sequences."""
        dags = tuple(dag for dag in dags if dag.dag_id not in self.dags)
        if dags:
            self._parse(dags)

    def change(self, dag: Any) -> None:
        """Register another version of a DAG, as after an edit of its file."""
        self._happens(f"{dag.dag_id} is edited")
        self._parse((dag,))
        self._changed_dags.add(dag.dag_id)
        self._bag.latest.pop(dag.dag_id, None)

    def _parse(self, dags: tuple[Any, ...]) -> None:
        self.clock.install()
        for dag in dags:
            dag.validate()
            dag.relative_fileloc = "shapes.py"
            self.dags[dag.dag_id] = dag
        with create_session() as session:
            errors: dict[tuple[str, str], str] = {}
            lazy = [LazyDeserializedDAG.from_dag(dag) for dag in dags]
            update_dag_parsing_results_in_db(_BUNDLE, None, lazy, errors, None, set(), session)
        if errors:
            raise RuntimeError(errors)
        with create_session() as session:
            session.execute(sa.text("UPDATE dag SET is_paused = 0"))

    def reset(self) -> None:
        """Start a sequence: no run, no Variable, a Coveo without history."""
        for process in [*getattr(self, "processes", []), *getattr(self, "callbacks", [])]:
            # A stuck one was reported already, and is abandoned.
            with suppress(StuckError):
                process.actor.kill()
        Actor.current = None
        without_comms()
        self.executor.forget()
        self.processes: list[Process] = []
        self.callbacks: list[Process] = []
        self.noticed: list[Process] = []
        self.killed: list[Process] = []
        self._seen_in_vain: Any = None
        self.seen: list[Seen] = []
        self.log: list[tuple[int, str]] = []
        self.number = 0
        #: The instructions for members, by run, task and map index.
        self.told: dict[tuple[str, str, int], list[str]] = {}
        #: The states that users set by hand, of tasks and runs.
        self.marked: dict[tuple[str, str, int], str] = {}
        self.marked_runs: dict[str, str] = {}
        #: Those in runs that were over, whose state Airflow does not update.
        self.marked_late: set[tuple[str, str, int]] = set()
        #: The runs that were marked when none of their tasks could run any more: Airflow calls no callback.
        self.ended_by_hand: set[str] = set()
        #: How tasks ended, in order.
        self.ends: list[End] = []
        #: For each clear, the states of the run right after it.
        self.states_after_clear: dict[tuple[str, str, int], dict[tuple[str, int], str | None]] = {}
        #: For each task that was cleared, the number of events before that.
        self.cleared_at: dict[tuple[str, str, int], int] = {}
        #: The statuses that runs were about to set, even if they were killed before: run, source and status.
        self.intents: set[tuple[str, str, str]] = set()
        self.deleted_runs: set[str] = set()
        self.lost_callbacks: set[str] = set()
        self.dropped_writes = 0
        #: The exceptions of failed tasks.
        self.errors: list[tuple[str, BaseException]] = []
        self.run_dags: dict[str, str] = {}
        self.unpaused = True
        self.simulator.reset()
        self.clock.offset = self.clock.waited = 0.0
        # The calls that a process has recorded; each task has its own process.
        throttle = sys.modules.get("airflow_provider_coveo.coveo.throttle")
        for value in vars(throttle).values() if throttle else ():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        with create_session() as session:
            for table in _TABLES:
                session.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608 - names of ours
            session.execute(sa.text("UPDATE dag SET is_paused = 0, exceeds_max_non_backfill = 0"))
        self.clock.advance(SECONDS_A_STEP)

    # --- events ---

    def _happens(self, what: str = "") -> None:
        self.number += 1
        self.clock.advance(SECONDS_A_STEP)
        if what:
            self.log.append((len(self.seen), what))

    def trigger(self, key: str = "a", dag_id: str | None = None) -> None:
        """Start a run, whose ID is its key."""
        dag_id = dag_id or next(iter(self.dags))
        self._happens(f"run {key} of {dag_id}")
        # SQLite's current time has whole seconds, so a run of this second would be in its future.
        at = datetime.now(timezone.utc) - timedelta(hours=1)
        # Without a logical date, which the API allows, no run would have a previous one.
        logical_date = _FIRST_LOGICAL_DATE + timedelta(days=len(self.run_dags))
        body = {
            "dag_run_id": key,
            "logical_date": logical_date.isoformat(),
            "run_after": at.isoformat(),
            "conf": {},
        }
        self.rest("POST", f"/dags/{dag_id}/dagRuns", body)
        self.run_dags[key] = dag_id
        self.deleted_runs.discard(key)

    def tick(self) -> None:
        """Run the scheduler's loop once."""
        self.number += 1
        before = self._what_the_scheduler_sees()
        # It did nothing the last time, and nothing has changed.
        if before == self._seen_in_vain:
            return
        self.runner._dag_id_to_team_name = {}
        with create_session() as session:
            self.runner._do_scheduling(session)
            session.expunge_all()
        self._note_orphans()
        if self.executor.event_buffer:
            with create_session() as session:
                self.runner._process_executor_events(executor=self.executor, session=session)
        self._take_up()
        self._seen_in_vain = before if self._what_the_scheduler_sees() == before else None

    def _what_the_scheduler_sees(self) -> Any:
        return (
            tuple(self._rows("SELECT run_id, state, start_date FROM dag_run ORDER BY id")),
            tuple(self._rows("SELECT id, state, try_number, end_date FROM task_instance ORDER BY id")),
            tuple(self._rows("SELECT dag_id FROM dag WHERE is_paused")),
            tuple(self.executor.event_buffer),
        )

    def _take_up(self) -> None:
        for workload in self.executor.workloads:
            self.processes.append(self._process(workload))
        self.executor.workloads.clear()
        for request in self.executor.requests:
            if isinstance(request, (DagCallbackRequest, TaskCallbackRequest)):
                self.callbacks.append(self._callback(request))
        self.executor.requests.clear()

    # --- tasks ---

    def _process(self, workload: Any) -> Process:
        ti = workload.ti
        process = Process(
            Actor(self.name_of(ti.run_id, ti.task_id, ti.map_index), lambda actor: self._work(process)),
            workload,
            ti.task_id,
            -1 if ti.map_index is None else ti.map_index,
            ti.dag_id,
            ti.run_id,
        )
        return process

    def _work(self, process: Process) -> None:
        """Do a worker's part of a task, in the actor's thread."""
        ti, actor = process.workload.ti, process.actor
        key = process.workload.key
        now = datetime.now(timezone.utc)
        without_comms()
        supervisor = _Supervisor(
            id=ti.id,
            pid=os.getpid(),
            process=_THIS_PROCESS,
            process_log=_LOG,
            client=self.client,
        )
        supervisor.selector.close()
        process.supervisor = supervisor
        supervisor.ti = ti
        try:
            server_context = self.client.task_instances.start(ti.id, os.getpid(), now)
        except Exception as error:
            self.executor.fail(key, info=str(error))
            return
        supervisor._should_retry = server_context.should_retry
        process.started_at = self.number
        process.states_at_start = self.states(process.run)
        comms = Comms(actor, lambda comms, msg: self._answer(supervisor, comms, msg))
        process.comms = comms
        supervisor.comms = comms
        actor.talk_through(comms)
        task = self.dags[ti.dag_id].get_task(ti.task_id)
        # Each process parses the file again, and so renders templates into its own task.
        process.task = task = task if task.is_mapped else task.prepare_for_execution()
        runtime = task_runner.RuntimeTaskInstance.model_construct(
            **{name: getattr(ti, name) for name in type(ti).model_fields if name in _TI_FIELDS},
            task=task,
            _ti_context_from_server=server_context,
            max_tries=server_context.max_tries,
            start_date=server_context.start_date or now,
            state=task_runner.TaskInstanceState.RUNNING,
        )
        context = runtime.get_template_context()
        state, _, error = task_runner.run(runtime, context, _LOG)
        context["exception"] = error
        if error is not None:
            self.errors.append((actor.name, error))
        task_runner.finalize(runtime, state, context, _LOG, error)
        actor.die_if_dead()
        without_comms()
        try:
            supervisor.update_task_state_if_needed()
        except Exception as error:
            self.executor.fail(key, info=str(error))
        else:
            self.executor.success(key)

    @staticmethod
    def _answer(supervisor: _Supervisor, comms: Comms, msg: Any) -> None:
        def send_msg(answer: Any, request_id: int, error: Any = None, **options: Any) -> None:
            comms.answers.append(answer)

        supervisor.comms = SimpleNamespace(messages=comms.answers)  # type: ignore[assignment]
        supervisor._handle_request(msg, _LOG, 0)

    def runnable(self) -> list[Actor]:
        """Return the actors that are running or could run."""
        return [process.actor for process in (*self.processes, *self.callbacks) if not process.actor.ended]

    def actor(self, name: str) -> Process:
        """Return the process of a name, the latest one if there are several."""
        for process in reversed([*self.processes, *self.callbacks]):
            if process.actor.name == name and not process.actor.ended:
                return process
        raise Unplayable(f"{name} does not work now")

    def step(self, name: str, order: str = "go") -> None:
        """Run a task to its next stop."""
        process = self.actor(name)
        self._step(process, order)

    def _step(self, process: Process, order: str = "go") -> None:
        self._happens(f"{process.actor.name} {order} at {process.actor.at}" if order != "go" else "")
        if self.is_late(process):
            raise Unplayable(f"{process.actor.name} was ended by its supervisor")
        if order == "drop_write":
            if process.comms is None:
                raise Unplayable(f"{process.actor.name} has not started")
            process.comms.writes_to_drop += 1
            self.dropped_writes += 1
        if process in self.processes and self.is_orphan(process) and process.actor.at != "start":
            process.actor.lingered += 1
        process.stepped_at.append(len(self.seen))
        process.actor.step(order)
        if process.actor.at == "result" and process in self.processes:
            place = process.run, process.task_id, process.map_index
            seen = process.states_at_start, self.states(process.run)
            self.ends.append(End(*place, self.number, process.actor.what, *seen))
        self._ended(process)

    def _ended(self, process: Process) -> None:
        if not process.actor.ended:
            return
        if process.actor.error is not None:
            raise RuntimeError(f"{process.actor.name} broke the harness") from process.actor.error
        for processes in (self.processes, self.callbacks):
            if process in processes:
                processes.remove(process)

    def finish(self, name: str) -> None:
        """Run a task to its end."""
        process = self.actor(name)
        while not process.actor.ended:
            self._step(process)

    def kill(self, name: str) -> None:
        """Kill a task's process at its stop; Airflow learns of it by :meth:`notice`."""
        process = self.actor(name)
        if process in self.callbacks:
            raise Unplayable("a callback ends by itself")
        if process.actor.at == "start":
            raise Unplayable(f"{name} has not started")
        self._happens(
            f"kill -9 {name} at {process.actor.at}{' ' * bool(process.actor.what)}{process.actor.what}"
        )
        process.actor.kill()
        self.processes.remove(process)
        self.killed.append(process)

    def notice(self, name: str, how: str = "supervisor") -> None:
        """Make Airflow detect a killed task, by its supervisor, the executor, or missing heartbeats."""
        for process in self.killed:
            if process.actor.name == name:
                break
        else:
            raise Unplayable(f"{name} was not killed")
        self._happens(f"{name} is noticed by {how}")
        self.killed.remove(process)
        key = process.workload.key
        supervisor = process.supervisor
        if how == "supervisor" and supervisor is not None:
            supervisor.was_killed = True
            supervisor._exit_code = -9
            try:
                supervisor.update_task_state_if_needed()
            except Exception as error:
                self.executor.fail(key, info=str(error))
            else:
                self.executor.success(key)
        elif how == "executor" or supervisor is None:
            self.executor.fail(key, info="killed")
        else:
            long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
            with create_session() as session:
                # A task that was cleared while running has another ID, and nothing reports it either.
                session.execute(
                    sa.text(
                        "UPDATE task_instance SET last_heartbeat_at = :at WHERE state IN ('running', "
                        "'restarting') AND run_id = :run AND task_id = :task AND map_index = :index"
                    ),
                    {
                        "at": long_ago,
                        "run": process.run,
                        "task": process.task_id,
                        "index": process.map_index,
                    },
                )
            self.runner._find_and_purge_task_instances_without_heartbeats()
            self.executor.running.discard(key)
            self._take_up()

    def is_orphan(self, process: Process) -> bool:
        """Return whether Airflow took a task away from the process that works on it."""
        if process.supervisor is None or process.started_at < 0:
            return False
        ti = process.workload.ti
        rows = self._rows("SELECT state, try_number FROM task_instance WHERE id = :id", id=ti.id.hex)
        return not rows or rows[0].state != "running" or rows[0].try_number != ti.try_number

    def _note_orphans(self) -> None:
        for process in self.processes:
            if process.orphan_since is None and self.is_orphan(process):
                process.orphan_since = self.clock.waited

    def is_late(self, process: Process) -> bool:
        """Return whether the supervisor has ended an orphan by now."""
        since = process.orphan_since
        return since is not None and self.clock.waited - since > SECONDS_OF_AN_ORPHAN

    def terminate(self, name: str) -> None:
        """End a process that continues after Airflow took its task away, as its supervisor does."""
        process = self.actor(name)
        if process not in self.processes or not self.is_orphan(process):
            raise Unplayable(f"{name} is wanted")
        self._happens(f"{name} is terminated")
        self._terminate(process)

    def _terminate(self, process: Process) -> None:
        on_kill = getattr(process.task, "on_kill", None)
        if on_kill is not None:
            on_kill()
        process.actor.kill()
        self.processes.remove(process)
        self.executor.success(process.workload.key)

    # --- Coveo ---

    def _note(self, exchange: Exchange) -> None:
        self._record(exchange)
        seen = Seen(exchange, number=self.number)
        seen.facts["marked"] = frozenset(self.marked)
        actor = Actor.current
        if actor is not None:
            for process in (*self.processes, *self.callbacks):
                if process.actor is actor:
                    seen.actor, seen.dag_id, seen.run = actor.name, process.dag_id, process.run
                    seen.task_id, seen.map_index = process.task_id, process.map_index
                    seen.orphan = process in self.processes and self.is_orphan(process)
                    seen.facts["process"] = process
        if exchange.operation in {"status", "olderthan"}:
            seen.facts["runs"] = self.run_states()
            seen.facts["states"] = {run: self.states(run) for run in self.run_dags}
        self.seen.append(seen)

    def _send(
        self, adapter: HTTPAdapter, prepared: requests.PreparedRequest, *rest: Any, **options: Any
    ) -> Any:
        actor = Actor.current
        url = urlsplit(str(prepared.url))
        if actor is None or f"{url.scheme}://{url.netloc}" != self.simulator.url:
            return self._send_for_real(adapter, prepared, *rest, **options)
        is_look = prepared.method == "GET"
        what = _words(prepared.method or "", url.path, url.query)
        if url.path.endswith("/status"):
            self.intents.add((self._run_of(actor), url.path.split("/")[-2], what))
        order = "go" if is_look else actor.stop_at("request", what)
        if order == "timeout":
            raise task_runner.AirflowTaskTimeout("Timeout, PID: 1")
        applied = True
        if order.startswith("refuse"):
            # refuse:503, refuse-later:503 (the hook leaves the retry to Airflow), or refuse-applied:503
            how, _, status = order.partition(":")
            applied = how == "refuse-applied"
            headers = {} if how == "refuse" else _NOT_SOON
            self.simulator.faults.answer(int(status), applied=applied, headers=headers)
        before = len(self.seen)
        exchange = current_exchange()
        if exchange is not None:
            # The provider's own connection records this, but it is not used here.
            exchange.is_begun = exchange.is_sent = exchange.is_answered = True
        answer = self._ask_coveo(prepared)
        for seen in self.seen[before:]:
            if order.startswith("refuse"):
                seen.facts["applied"] = applied
        order = actor.stop_at("answered", what)
        if order == "timeout":
            raise task_runner.AirflowTaskTimeout("Timeout, PID: 1")
        if order == "lose":
            raise lost_answer()
        return answer

    def _run_of(self, actor: Actor) -> str:
        return actor.name.partition(".")[0]

    def _ask_coveo(self, prepared: requests.PreparedRequest) -> requests.Response:
        """Call the simulator without a socket: its coroutine never waits."""
        url = urlsplit(str(prepared.url))
        body = prepared.body or b""
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = b"".join(body) if not hasattr(body, "read") else body.read()
        headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in prepared.headers.items()]
        headers.append((b"host", url.netloc.encode()))
        scope = {
            "type": "http",
            "method": prepared.method,
            "path": unquote(url.path),
            "raw_path": url.path.encode(),
            "root_path": "",
            "query_string": url.query.encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "scheme": url.scheme,
        }
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        coroutine = self._app(scope, receive, send)  # type: ignore[arg-type]
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            coroutine.close()
            raise RuntimeError("The simulator would wait")
        start, *bodies = messages
        raw = urllib3.HTTPResponse(
            body=io.BytesIO(b"".join(part["body"] for part in bodies)),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]},
            status=start["status"],
            preload_content=False,
        )
        return self._adapter.build_response(prepared, raw)

    def push_as_somebody_else(self, source: str, name: str = "old") -> None:
        """Push an item before the run."""
        path = f"sources/{source}/documents?documentId={quote(f'https://example.com/{name}', safe='')}"
        self._as_somebody_else("PUT", path, '{"data": "old"}')

    def set_status_as_somebody_else(self, source: str, status: str) -> None:
        self._happens(f"somebody else sets {source} to {status}")
        self._as_somebody_else("POST", f"sources/{source}/status?statusType={status}", "")

    def _as_somebody_else(self, method: str, path: str, body: str) -> None:
        headers = {
            "Authorization": f"Bearer {self.simulator.api_key}",
            "Content-Type": "application/json",
        }
        url = f"{self.simulator.url}/push/v1/organizations/{ORGANIZATION}/{path}"
        answer = self._ask_coveo(requests.Request(method, url, headers=headers, data=body).prepare())
        answer.raise_for_status()

    # --- callbacks ---

    def _callback(self, request: DagCallbackRequest | TaskCallbackRequest) -> Process:
        if isinstance(request, TaskCallbackRequest):
            ti = request.ti
            name = f"{self.name_of(ti.run_id, ti.task_id, ti.map_index)}.callback"
            place = SimpleNamespace(dag_id=ti.dag_id, run_id=ti.run_id)
        else:
            name = f"{request.run_id}.callback"
            place = SimpleNamespace(dag_id=request.dag_id, run_id=request.run_id)
        process = Process(
            Actor(name, lambda actor: self._call_back(process)),
            request,
            "",
            -1,
            place.dag_id,
            place.run_id,
        )
        return process

    def _call_back(self, process: Process) -> None:
        request, actor = process.workload, process.actor
        manager = SimpleNamespace(client=self.client, id="00000000-0000-0000-0000-000000000000")

        def handle(comms: Comms, msg: Any) -> None:
            def send_msg(answer: Any, request_id: int, error: Any = None, **options: Any) -> None:
                comms.answers.append(answer)

            manager.send_msg = send_msg
            processor.DagFileProcessorProcess._handle_request(manager, msg, _LOG, 0)  # type: ignore[arg-type]

        actor.talk_through(Comms(actor, handle, _WHAT_CALLBACKS_MAY_ASK, _WHAT_CALLBACKS_DECODE))
        bag: Any = SimpleNamespace(dags=self.dags)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(request, TaskCallbackRequest):
                processor._execute_task_callbacks(bag, request, _LOG)
            else:
                processor._execute_dag_callbacks(bag, request, _LOG)

    def lose_callback(self, name: str) -> None:
        """Make the DAG processor drop a callback, as when it is killed."""
        process = self.actor(name)
        if process not in self.callbacks or process.actor.at != "start":
            raise Unplayable(f"{name} is no callback that waits")
        self._happens(f"{name} is lost")
        self.lost_callbacks.add(process.run)
        process.actor.kill()
        self.callbacks.remove(process)

    # --- users ---

    def rest(self, method: str, path: str, body: Any = None, *, or_not: bool = False) -> Any:
        """Call Airflow's public REST API. With ``or_not``, a rejected call is not played."""
        answer = self._rest.request(method, f"/api/v2{path}", json=body)
        if answer.is_error:
            if or_not and answer.status_code < 500:
                raise Unplayable(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        self._take_up()
        self._note_orphans()
        return answer.json() if answer.content else None

    def clear(
        self,
        key: str,
        *tasks: str,
        downstream: bool = True,
        upstream: bool = False,
        only_failed: bool = False,
    ) -> set[str]:
        """Clear tasks of a run, by default all failed ones, and return the cleared ones."""
        words = [*tasks, *["+ downstream"] * downstream, *["+ upstream"] * upstream]
        words += ["only failed"] * only_failed
        self._happens(f"clear {key} {' '.join(words)}")
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": key,
            "only_failed": only_failed,
            "include_downstream": downstream,
            "include_upstream": upstream,
            "reset_dag_runs": True,
        }
        if tasks:
            body["task_ids"] = [self._marker(key, task) for task in tasks]
        path = f"/dags/{self._dag_of(key)}/clearTaskInstances"
        before = self.states(key)
        answer = self.rest("POST", path, body, or_not=True)
        cleared = set()
        self._note_clear(key, before)
        for ti in answer["task_instances"]:
            cleared.add(self.name_of(key, ti["task_id"], ti["map_index"]))
        if cleared:
            self.marked_runs.pop(key, None)
            self.ended_by_hand.discard(key)
        return cleared

    def clear_run(self, key: str, *, only_failed: bool = False) -> None:
        """Clear a run, like its button."""
        self._happens(f"clear run {key}{' only failed' * only_failed}")
        path = f"{self._run_path(key)}/clear"
        before = self.states(key)
        self.rest("POST", path, {"dry_run": False, "only_failed": only_failed}, or_not=True)
        self._note_clear(key, before)
        if self.states(key) != before:
            self.marked_runs.pop(key, None)
            self.ended_by_hand.discard(key)

    def _note_clear(self, key: str, before: dict[tuple[str, int], str | None]) -> None:
        after = self.states(key)
        for place, state in after.items():
            if state != before.get(place):
                self.states_after_clear[(key, *place)] = after
                self.cleared_at[(key, *place)] = self.number
                self.marked.pop((key, *place), None)

    def mark(
        self, key: str, task: str, state: str, *, downstream: bool = False, upstream: bool = False
    ) -> None:
        """Mark a task."""
        words = f"{' + downstream' * downstream}{' + upstream' * upstream}"
        self._happens(f"{key}.{task} marked {state}{words}")
        marker = self._marker(key, task)
        task_id, index = marker if isinstance(marker, list) else (marker, -1)
        path = f"{self._run_path(key)}/taskInstances/{task_id}{f'/{index}' if index >= 0 else ''}"
        body = {"new_state": state, "include_downstream": downstream, "include_upstream": upstream}
        before = self.states(key)
        self._note_marks(key, state, before, self.rest("PATCH", path, body, or_not=True))

    def mark_group(self, key: str, group_id: str, state: str) -> None:
        """Mark all tasks of a group, like its button."""
        self._happens(f"group {key}.{group_id} marked {state}")
        path = f"{self._run_path(key)}/taskGroupInstances/{quote(group_id, safe='')}"
        before = self.states(key)
        self._note_marks(key, state, before, self.rest("PATCH", path, {"new_state": state}, or_not=True))

    def _note_marks(
        self, key: str, state: str, before: dict[tuple[str, int], str | None], answer: Any
    ) -> None:
        is_over = self.run_states().get(key) not in {"running", "queued"}
        marked = {(ti["task_id"], ti["map_index"]) for ti in answer["task_instances"]}
        # The response doesn't name all tasks that are marked along with one.
        marked |= {place for place, now in self.states(key).items() if now != before.get(place)}
        for task_id, map_index in sorted(marked):
            place = key, task_id, map_index
            self.marked[place] = state
            (self.marked_late.add if is_over else self.marked_late.discard)(place)

    def mark_run(self, key: str, state: str) -> None:
        """Mark a run."""
        self._happens(f"run {key} marked {state}")
        self.rest("PATCH", self._run_path(key), {"state": state}, or_not=True)
        self.marked_runs[key] = state
        if self.run_states()[key] == state and set(self.states(key).values()) <= {*FINISHED}:
            self.ended_by_hand.add(key)

    def pause(self, dag_id: str, paused: bool = True) -> None:
        self._happens(f"{dag_id} {'paused' if paused else 'unpaused'}")
        self.rest("PATCH", f"/dags/{dag_id}", {"is_paused": paused})

    def delete_run(self, key: str) -> None:
        self._happens(f"run {key} deleted")
        self.rest("DELETE", self._run_path(key), or_not=True)
        self.deleted_runs.add(key)

    def create_again(self, key: str) -> None:
        """Create a deleted run again, with its ID."""
        self.trigger(key, self.run_dags[key])

    def set_variable(self, name: str, value: str) -> None:
        """Create or change a Variable."""
        self._happens(f"Variable {name} = {value}")
        answer = self._rest.request("PATCH", f"/api/v2/variables/{name}", json={"key": name, "value": value})
        if answer.status_code == 404:
            self.rest("POST", "/variables", {"key": name, "value": value})

    def tell(self, key: str, task: str, what: str) -> None:
        """Make the next try of a member ``fail`` or ``skip``."""
        marker = self._marker(key, task)
        task_id, index = marker if isinstance(marker, list) else (marker, -1)
        self.told.setdefault((key, task_id, index), []).append(what)

    def _dag_of(self, key: str) -> str:
        if key not in self.run_dags or key in self.deleted_runs:
            raise Unplayable(f"there is no run {key}")
        return self.run_dags[key]

    def _run_path(self, key: str) -> str:
        return f"/dags/{self._dag_of(key)}/dagRuns/{key}"

    def _marker(self, key: str, task: str) -> Any:
        """Return a task in the REST API's form: its ID, or a pair."""
        name, _, index = task.removesuffix("]").partition("[")
        found = [
            task_id
            for task_id in self.dags[self._dag_of(key)].task_dict
            if task_id == name or short(task_id) == name or task_id.endswith(f".{name}")
        ]
        if len(found) != 1:
            raise Unplayable(f"{name} is {found or 'no task'}")
        return [found[0], int(index)] if index else found[0]

    def name_of(self, key: str, task_id: str, map_index: int | None = None) -> str:
        """Return the name of a task, short if it is unique."""
        dag = self.dags.get(self.run_dags.get(key, ""))
        name = short(task_id)
        if dag is not None and sum(short(other) == name for other in dag.task_dict) > 1:
            name = task_id
        mapped = f"[{map_index}]" if map_index is not None and map_index >= 0 else ""
        return f"{key}.{name}{mapped}"

    # --- time ---

    def let_time_pass(self, seconds: float) -> None:
        self._happens(f"{seconds:g} s pass")
        self.clock.wait(seconds)

    def retries_due(self) -> bool:
        """Make all waiting retries due, and return whether there were any."""
        with create_session() as session:
            found = session.execute(
                sa.text("UPDATE task_instance SET end_date = '2020-01-01' WHERE state = 'up_for_retry'")
            ).rowcount  # type: ignore[attr-defined]
            found += session.execute(
                sa.text(
                    "UPDATE task_reschedule SET reschedule_date = '2020-01-01' "
                    "WHERE ti_id IN (SELECT id FROM task_instance WHERE state = 'up_for_reschedule') "
                    "AND reschedule_date > '2020-01-02'"
                )
            ).rowcount  # type: ignore[attr-defined]
        if found:
            self.number += 1
            self._seen_in_vain = None
            self.clock.wait(SECONDS_A_WAIT)
        return bool(found)

    def fire(self, name: str | None = None) -> bool:
        """Let the trigger of a deferred task fire, by default of all."""
        rows = self._rows(
            "SELECT run_id, task_id, map_index, trigger_id FROM task_instance WHERE state = 'deferred'"
        )
        fired = False
        for row in rows:
            if name in (None, self.name_of(row.run_id, row.task_id, row.map_index)):
                fired = True
                with create_session() as session:
                    Trigger.submit_event(row.trigger_id, TriggerEvent(None), session=session)
        if fired:
            self._happens(f"the trigger of {name} fires" if name else "")
            self.clock.advance(SECONDS_A_WAIT)
        elif name:
            raise Unplayable(f"{name} is not deferred")
        return fired

    def time_run_out(self, key: str) -> None:
        """Make a run time out."""
        self._happens(f"run {key} times out")
        with create_session() as session:
            session.execute(
                sa.text(
                    "UPDATE dag_run SET start_date = '2020-01-01' WHERE run_id = :key AND state = 'running'"
                ),
                {"key": key},
            )

    # --- state ---

    def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        # Directly through the driver, because each event queries it several times.
        cursor = self._database.execute(statement, parameters)
        names = [column[0] for column in cursor.description]
        row = _row(*names)
        return [row(*values) for values in cursor]

    def run_states(self) -> dict[str, str]:
        """Return the state of each run by its key."""
        return {row.run_id: row.state for row in self._rows("SELECT run_id, state FROM dag_run")}

    def states(self, key: str) -> dict[tuple[str, int], str | None]:
        """Return the states of a run's tasks, by task ID and map index."""
        rows = self._rows("SELECT task_id, map_index, state FROM task_instance WHERE run_id = :key", key=key)
        return {(row.task_id, row.map_index): row.state for row in rows}

    def tries(self, key: str) -> dict[str, str]:
        """Return the state and try number of each task of a run, by its short name: ``ok#2``."""
        words = {"success": "ok", "failed": "FAIL", "upstream_failed": "upf", "skipped": "skip", None: "none"}
        rows = self._rows(
            "SELECT task_id, map_index, state, try_number FROM task_instance WHERE run_id = :key", key=key
        )
        return {
            self.name_of(key, row.task_id, row.map_index).partition(".")[2]: words.get(row.state, row.state)
            + (f"#{row.try_number}" if row.try_number > 1 else "")
            for row in rows
        }

    def _fingerprint(self) -> Any:
        return (
            len(self.seen),
            tuple(self._rows("SELECT run_id, state FROM dag_run ORDER BY id")),
            tuple(self._rows("SELECT id, state, try_number FROM task_instance ORDER BY id")),
            len(self.processes),
            len(self.callbacks),
            len(self.killed),
        )

    def settle(self, rounds: int = 120) -> None:
        """
        Let everything end that can end without users, so that nothing is live afterwards.

        A paused DAG is unpaused, because it would not continue otherwise.

        :raises RuntimeError: if it does not end.
        """
        self._happens("and so to the end")
        with create_session() as session:
            session.execute(sa.text("UPDATE dag SET is_paused = 0"))
        quiet = 0
        for _ in range(rounds):
            before = self._fingerprint()
            for process in list(self.processes):
                if process in self.processes:
                    if self.is_orphan(process):
                        self._terminate(process)
                    else:
                        self._finish(process)
            for process in list(self.killed):
                self.notice(process.actor.name)
            for process in list(self.callbacks):
                self._finish(process)
            self.tick()
            if self._fingerprint() == before:
                moved = self.retries_due()
                moved = self.fire() or moved
                quiet = 0 if moved else quiet + 1
                # A cleared run is queued in one turn of the loop and scheduled in the next.
                if quiet >= 2:
                    return
            else:
                quiet = 0
        raise RuntimeError("There is no end to it")

    def _finish(self, process: Process) -> None:
        while not process.actor.ended:
            self._step(process)

    def run(self, key: str = "a", dag_id: str | None = None) -> None:
        """Start a run, and let it end."""
        self.trigger(key, dag_id)
        self.settle()

    def until(self, name: str, point: str = "request", what: str = "", *, ticks: int = 30) -> None:
        """
        Let everything run until a task is at a stop, and leave it there.

        :param name: such as ``a.work1``.
        :param point: ``start``, ``request``, ``answered`` or ``result``.
        :param what: the request, such as ``push``.
        """
        for _ in range(ticks):
            for process in list(self.processes):
                if process not in self.processes:
                    continue
                if process.actor.name != name:
                    self._finish(process)
                    continue
                while not process.actor.ended:
                    if process.actor.at == point and what in process.actor.what:
                        return
                    self._step(process)
            self.tick()
            self.retries_due()
        raise Unplayable(f"{name} never stands at {point} {what}")

    # --- results ---

    def sequence(self, source: str) -> str:
        """Return the requests for a source in words, with consecutive pushes as one."""
        words: list[str] = []
        for seen in self.seen:
            if seen.source == source and seen.word and not (seen.word == "push" == (words or [""])[-1]):
                words.append(seen.word)
        return " ".join(words)

    def last_status(self, source: str) -> str:
        """Return the last status that Coveo accepted."""
        statuses = self.simulator.statuses(source)
        return statuses[-1] if statuses else ""

    def items(self, source: str) -> str:
        """Return the names of the indexed items."""
        return " ".join(
            sorted(name.removeprefix("https://example.com/") for name in self.simulator.items(source))
        )

    def story(self) -> str:
        """Return all events, line by line."""
        lines = []
        notes = list(self.log)
        for number, seen in enumerate(self.seen):
            while notes and notes[0][0] <= number:
                lines.append(f"  {notes.pop(0)[1]}")
            if seen.word:
                who = seen.actor or "somebody else"
                cut_off = seen.exchange.query.get("orderingId", "")
                lines.append(
                    f"      {seen.source}: {seen.word} {cut_off}({who}{', no longer wanted' * seen.orphan})"
                )
        lines += [f"  {note}" for _, note in notes]
        for key in self.run_dags:
            tasks = ", ".join(f"{name} {state}" for name, state in sorted(self.tries(key).items()))
            lines.append(f"  run {key}: {self.run_states().get(key, 'deleted')}; {tasks}")
        return "\n".join(lines)


@functools.cache
def _row(*names: str) -> Any:
    return namedtuple("Row", names)


_LOG = structlog.get_logger("stepped")
_THIS_PROCESS = psutil.Process()
_WHAT_CALLBACKS_MAY_ASK = get_args(get_args(processor.ToManager)[0])
_WHAT_CALLBACKS_DECODE = get_args(get_args(processor.ToDagProcessor)[0])
_TI_FIELDS = set(task_runner.RuntimeTaskInstance.model_fields)


class _LoudLog:
    """The scheduler's log: an error that it would only log is a bug in this harness."""

    def exception(self, message: str, *arguments: Any, **_: Any) -> None:
        raise RuntimeError(message % arguments)

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 - as logging has it
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def short(task_id: str) -> str:
    """Return a task's name without its groups."""
    return task_id.rpartition(".")[2]


def _words(method: str, path: str, query: str) -> str:
    if path.endswith("/status"):
        return query.partition("statusType=")[2].partition("&")[0]
    if path.endswith("/olderthan"):
        return "delete-old"
    if path.endswith(("/documents", "/batch")):
        return "push" if method == "PUT" else "delete"
    return f"{method} {path.rpartition('/')[2]}"


def _adapter_send(engine: Engine) -> Callable[..., Any]:
    def send(adapter: HTTPAdapter, request: requests.PreparedRequest, *rest: Any, **options: Any) -> Any:
        return engine._send(adapter, request, *rest, **options)

    return send


def _without_fsync(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.close()
