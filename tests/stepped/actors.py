"""
The independent processes of Airflow, executed step by step: a task's process, or a DAG's callback.

Each actor has its own thread, but only one thread runs at a time: an actor runs until its next stop, and the
engine until it resumes an actor. Stops are before a task starts, before and after each request to Coveo, at
its first wait since the last stop, and before the task reports its result to Airflow.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.definitions._internal.contextmanager import _CURRENT_CONTEXT
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner, timeout

#: The maximum real seconds until the next stop, far longer than any work in between.
_PATIENCE = 60
#: The messages with which a task reports its end.
RESULTS = (comms.SucceedTask, comms.RetryTask, comms.TaskState, comms.DeferTask, comms.RescheduleTask)


class Killed(BaseException):
    """Ends the thread of a killed actor, whatever it does."""


class StuckError(RuntimeError):
    """An actor did not reach its next stop: a bug in this harness, or code that really waits."""


class Actor:
    """
    An independent process.

    :param name: its name in sequences: ``a.open``, or with its map index ``a.work[1]``.
    :param body: its work, in its own thread.
    """

    #: The running actor; ``None`` if the engine runs.
    current: Actor | None = None

    def __init__(self, name: str, body: Callable[[Actor], None]) -> None:
        self.name = name
        self.at = "start"
        #: Its next or latest request to Coveo, in words.
        self.what = ""
        self.dead = False
        self.ended = False
        self.error: BaseException | None = None
        #: The number of requests that it sent after Airflow took its task away.
        self.lingered = 0
        #: Whether it stops at each wait of a loop.
        self.stops_at_each_wait = False
        self._body = body
        self._order = "go"
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._one_at_a_time = threading.Lock()
        self._contexts: list[Any] = []
        self._comms: Any = None
        self._thread = threading.Thread(target=self._run, name=f"stepped-{name}", daemon=True)
        self._thread.is_stepped = True  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{self.name}@{self.at}{':' + self.what if self.what else ''}"

    # --- the engine's side ---

    def step(self, order: str = "go") -> None:
        """Resume it until its next stop, by default with ``go``."""
        if self.ended:
            return
        self._order = order
        with self._running():
            if self._thread.ident is None:
                self._thread.start()
            else:
                self._go.release()
            if not self._stopped.acquire(timeout=_PATIENCE):
                raise StuckError(f"{self!r} does not come to its next stop: {self._where()}")

    def kill(self) -> None:
        """Kill it at its current stop, without any further effect."""
        self.dead = True
        if self.ended or self._thread.ident is None:
            self.ended = True
            return
        with self._running():
            self._go.release()
            self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise StuckError(f"{self!r} does not die: {self._where()}")

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-6:]) if frame else "its thread is gone"

    @contextmanager
    def _running(self) -> Iterator[None]:
        Actor.current = self
        _CURRENT_CONTEXT[:] = self._contexts
        if self._comms is not None:
            task_runner.SUPERVISOR_COMMS = self._comms
        try:
            yield
        finally:
            self._contexts = list(_CURRENT_CONTEXT)
            _CURRENT_CONTEXT.clear()
            without_comms()
            Actor.current = None

    # --- its own side ---

    def _run(self) -> None:
        try:
            self._body(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self.at, self.what = "ended", ""
            self._stopped.release()

    def talk_through(self, supervisor_comms: Any) -> None:
        """Set this as its connection to Airflow."""
        self._comms = supervisor_comms
        task_runner.SUPERVISOR_COMMS = supervisor_comms

    def stop_at(self, point: str, what: str = "") -> str:
        """Stop until the engine resumes it, and return how to continue."""
        with self._one_at_a_time:
            self.die_if_dead()
            self.at, self.what = point, what
            self._stopped.release()
            self._go.acquire()
            self.die_if_dead()
            return self._order

    def stop_at_a_wait(self) -> None:
        """Stop before it waits; if it waits in a loop, only once until its next other stop, by default."""
        if (self.at != "wait" or self.stops_at_each_wait) and threading.current_thread() is self._thread:
            self.stop_at("wait")

    def die_if_dead(self) -> None:
        if self.dead:
            raise Killed


def stop_at_a_wait() -> None:
    """Stop the running actor, if any, because it is about to wait."""
    if Actor.current is not None:
        Actor.current.stop_at_a_wait()


def without_comms() -> None:
    """Make Airflow's code see no task, because the engine and the API server run outside of tasks."""
    if hasattr(task_runner, "SUPERVISOR_COMMS"):
        del task_runner.SUPERVISOR_COMMS


class Comms:
    """
    An actor's connection to Airflow: the responses of its supervisor, and the errors that it would raise.

    :param actor: the actor.
    :param handle: answers a message by calling ``send_msg``.
    :param accepted: the allowed types of messages, if not all.
    :param decoded: the types of responses that its process can decode, if not all.
    """

    def __init__(
        self,
        actor: Actor,
        handle: Callable[[Any, Any], None],
        accepted: tuple[type, ...] | None = None,
        decoded: tuple[type, ...] | None = None,
    ) -> None:
        self._actor = actor
        self._handle = handle
        self._accepted = accepted
        self._decoded = decoded
        self.answers: deque[Any] = deque()
        #: The number of next Variable writes that are lost.
        self.writes_to_drop = 0

    def send(self, msg: Any) -> Any:
        actor = self._actor
        actor.die_if_dead()
        if isinstance(msg, RESULTS):
            order = actor.stop_at("result", str(getattr(msg, "state", type(msg).__name__)))
            if order == "timeout":
                raise task_runner.AirflowTaskTimeout
        if isinstance(msg, comms.PutVariable) and self.writes_to_drop:
            self.writes_to_drop -= 1
            return comms.OKResponse(ok=True)
        if self._accepted is not None and not isinstance(msg, self._accepted):
            # The decoder does not know the message's type, so there is never a response.
            raise NotImplementedError(f"{type(msg).__name__} can't be asked there: this would wait for ever")
        without_comms()
        try:
            self._handle(self, msg)
        except ServerResponseError as error:
            detail = {
                "status_code": error.response.status_code,
                "message": str(error),
                "detail": error.detail,
            }
            told = comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail)
            raise AirflowRuntimeError(error=told) from None
        finally:
            task_runner.SUPERVISOR_COMMS = self
        answer = self.answers.popleft() if self.answers else None
        if self._decoded is not None and answer is not None and not isinstance(answer, self._decoded):
            raise ValueError(f"{type(answer).__name__} can't be decoded there")
        return answer

    async def asend(self, msg: Any) -> Any:
        return self.send(msg)

    def _get_response(self) -> Any:
        return self.answers.popleft()


def lost_answer() -> requests.ConnectionError:
    """Create the error of a client whose connection breaks before the response."""
    return requests.ConnectionError("The connection broke before the answer came.")


class _NoTimeout:
    """Replaces Airflow's alarm signal: a task times out when a sequence says so."""

    def __init__(self, seconds: float = 1, error_message: str = "Timeout") -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def leave_signals_alone() -> None:
    """Allow tasks to run in threads, which can't receive signals."""
    set_handler = signal.signal

    def signal_in_main_thread(signalnum: Any, handler: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return set_handler(signalnum, handler)
        return signal.SIG_DFL

    signal.signal = signal_in_main_thread  # type: ignore[assignment]
    timeout.timeout = _NoTimeout  # type: ignore[misc,assignment]
