"""The things that one attempt of a task has already used in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

V = TypeVar("V")


class UsedInAttempt(Generic[V]):
    """The things of one kind that an attempt has used, by key. A new attempt starts with none."""

    def __init__(self) -> None:
        self._attempt: tuple[object, object] = (None, None)
        self._values: dict[str, V] = {}

    def of(self, context: Mapping[str, object]) -> dict[str, V]:
        """
        Return the things that the attempt has used. The caller adds to them.

        :param context: The context of the task.
        """
        ti = context["ti"]
        number = getattr(ti, "try_number", None)
        # In some Airflow versions, task instances can't be hashed, and different ones compare equal.
        if self._attempt[0] is not ti or self._attempt[1] != number:
            self._attempt = (ti, number)
            self._values = {}
        return self._values
