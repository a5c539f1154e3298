"""Which batches of a push were accepted, kept where a later try of the same task finds it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.run_state import RunState, try_set

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_KEY: Final = "coveo_push"
#: How many digests are kept under one key.
_PAGE: Final = 500
#: What was accepted longer ago than this is pushed again: other runs may have deleted it since.
_OLDEST_SECONDS: Final = 24 * 3600


class RunCheckpoint:
    """
    The digests of one task's accepted batches, in the state of its run.

    :param context: The context of the task.
    :param what: What is pushed how, so that nothing is mistaken for something else: the organization, the
        source and the size of a batch.
    :param only_retries: Whether what was accepted before a clear is pushed again.
    """

    def __init__(self, context: Context, what: Sequence[Any], *, only_retries: bool) -> None:
        self._state = RunState(context)
        series = [try_set(context)] if only_retries else []
        self._what = hashlib.sha256(repr([*what, *series]).encode()).hexdigest()[:16]
        self._written: list[str] = []

    def read(self) -> Sequence[str]:
        """Return the digests of the batches that an earlier try got accepted, in order."""
        kept = self._state.get(_KEY)
        if not isinstance(kept, dict) or kept.get("what") != self._what:
            return []
        if not 0 <= time.time() - kept.get("at", 0) <= _OLDEST_SECONDS:
            return []
        digests: list[str] = []
        for page in range(-(-kept["count"] // _PAGE)):
            digests += self._state.get(f"{_KEY}_{page}") or []
        self._written = digests[: kept["count"]]
        return list(self._written)

    def write(self, digests: Sequence[str]) -> None:
        """Keep the digests of the batches that were accepted so far, in order."""
        for page in range(-(-len(digests) // _PAGE)):
            content = list(digests[page * _PAGE : (page + 1) * _PAGE])
            if content != self._written[page * _PAGE : (page + 1) * _PAGE]:
                self._state.set(f"{_KEY}_{page}", content)
        self._state.set(_KEY, {"what": self._what, "count": len(digests), "at": int(time.time())})
        self._written = list(digests)

    def forget(self) -> None:
        """Forget all digests: the push is complete."""
        self._state.set(_KEY, {"what": self._what, "count": 0, "at": 0})
        self._written = []
