"""A clock that nobody waits for: it moves where the product would sleep, and where a sequence says so."""

from __future__ import annotations

import datetime as real_datetime
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

PRODUCT = "airflow_provider_coveo"
#: The simulator has a clock of its own, which is moved along.
_OWN_CLOCK = f"{PRODUCT}.simulator"


class FakeClock:
    """
    Real time, plus what was waited for.

    Airflow itself stays on real time: what it waits for is moved in its database instead.

    :param on_advance: called with the seconds each time.
    """

    def __init__(self, on_advance: Callable[[float], None]) -> None:
        self.offset = 0.0
        #: How much of that tasks and callbacks waited for.
        self.waited = 0.0
        self._on_advance = on_advance
        self._time = _Time(self)
        self._threading = _Threading(self)
        self._datetime = _datetime_class(self)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.offset += seconds
        self._on_advance(seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass for which a task or a callback waits."""
        self.waited += seconds
        self.advance(seconds)

    def install(self) -> None:
        """Give it to each of the product's modules that is loaded by now."""
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
    """What the product knows as the module ``time``."""

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
    """What the product knows as the module ``threading``."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("threading")

        class Event(threading.Event):
            """An event that a task's own thread doesn't wait for."""

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
        """What the product knows as ``datetime``."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real_datetime.datetime.now(tz) + real_datetime.timedelta(seconds=clock.offset)

    return FakeDatetime
