"""What the code of one attempt of a task has used already, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

V = TypeVar("V")


class UsedInAttempt(Generic[V]):
    """The things of one kind that an attempt has used, by key. Another attempt begins with none."""

    def __init__(self) -> None:
        self._attempt: tuple[object, object] = (None, None)
        self._values: dict[str, V] = {}

    def of(self, context: Mapping[str, object]) -> dict[str, V]:
        """
        Return what the attempt has used. The caller adds to it.

        :param context: The context of the task.
        """
        ti = context["ti"]
        number = getattr(ti, "try_number", None)
        # Task instances of some Airflow versions are equal to others, and can't be hashed.
        if self._attempt[0] is not ti or self._attempt[1] != number:
            self._attempt = (ti, number)
            self._values = {}
        return self._values
