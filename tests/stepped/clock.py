"""A clock without waiting: it advances when the provider would sleep, and when a sequence says so."""

from __future__ import annotations

import datetime as real_datetime
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

PRODUCT = "airflow_provider_coveo"
#: The simulator has its own clock, which advances with this one.
_OWN_CLOCK = f"{PRODUCT}.simulator"


class FakeClock:
    """
    Real time, plus the simulated waits.

    Airflow itself stays on real time: its waiting times are changed in its database instead.

    :param on_advance: called with the seconds of each advance.
    :param on_wait: called before a task or a callback waits.
    """

    def __init__(self, on_advance: Callable[[float], None], on_wait: Callable[[], None]) -> None:
        self.offset = 0.0
        #: The part of that for which tasks and callbacks waited.
        self.waited = 0.0
        self._on_advance = on_advance
        self._on_wait = on_wait
        self._time = _Time(self)
        self._threading = _Threading(self)
        self._datetime = _datetime_class(self)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.offset += seconds
        self._on_advance(seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass while a task or a callback waits."""
        self._on_wait()
        self.waited += seconds
        self.advance(seconds)

    def install(self) -> None:
        """Install it in each loaded module of the provider."""
        for name, module in list(sys.modules.items()):
            if not name.startswith(PRODUCT) or name.startswith(_OWN_CLOCK):
                continue
            for attribute, value in list(vars(module).items()):
                if value is time:
                    setattr(module, attribute, self._time)
                elif value is threading:
                    setattr(module, attribute, self._threading)
                elif value is real_datetime.datetime:
                    setattr(module, attribute, self._datetime)


class _Time(ModuleType):
    """The provider's module ``time``."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("time")
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + self._clock.offset

    def time_ns(self) -> int:
        return time.time_ns() + int(self._clock.offset * 1e9)

    def monotonic(self) -> float:
        return time.monotonic() + self._clock.offset

    def sleep(self, seconds: float) -> None:
        self._clock.wait(seconds)


class _Threading(ModuleType):
    """The provider's module ``threading``."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("threading")

        class Event(threading.Event):
            """An event for which a task's own thread does not wait."""

            def wait(self, timeout: float | None = None) -> bool:
                if timeout is None or not getattr(threading.current_thread(), "is_stepped", False):
                    return super().wait(timeout)
                if not self.is_set():
                    clock.wait(timeout)
                return self.is_set()

        self.Event = Event

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


def _datetime_class(clock: FakeClock) -> type[real_datetime.datetime]:
    class Meta(type(real_datetime.datetime)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real_datetime.datetime)

    class FakeDatetime(real_datetime.datetime, metaclass=Meta):
        """The provider's ``datetime``."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real_datetime.datetime.now(tz) + real_datetime.timedelta(seconds=clock.offset)

    return FakeDatetime
