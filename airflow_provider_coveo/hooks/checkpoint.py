"""The checkpoint of a push in a task: which batches were accepted, for a later attempt."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.coveo.checkpoints import AcceptedBatches
from airflow_provider_coveo.state.task_store import RunState, retry_series

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_KEY: Final = "coveo_push"
#: The number of digests under one key. It keeps a value below 64 KiB, above which Airflow warns.
_PAGE: Final = 4_000
#: A header with more digests or pages than this was not written by a push.
_MAX_DIGESTS: Final = 100_000
#: Batches accepted longer ago than this are pushed again. It leaves time to retry after a weekend, or after
#: the daily quota was used up.
_MAX_AGE_SECONDS: Final = 7 * 24 * 3600


class RunCheckpoint:
    """
    The digests of one task's accepted batches, in the state of its run.

    :param context: The context of the task.
    :param what: Identifies the push, so that a checkpoint of a different push is ignored: the target, the
        batch size, and who last changed the source's content.
    :param only_retries: Whether batches accepted before a clear are pushed again.
    """

    def __init__(self, context: Context, what: Sequence[object], *, only_retries: bool) -> None:
        self._state = RunState(context)
        task_instance = context["ti"]
        self._try_number: int = getattr(task_instance, "try_number", 0)
        series = [retry_series(context)] if only_retries else []
        self._what = _digest(repr([*what, *series]))
        self._written: list[str] = []
        self._pages = 0

    def read(self) -> AcceptedBatches:
        """Return the accepted batches of earlier attempts; delete the checkpoint if it does not apply."""
        header = self._header()
        if header is None:
            return AcceptedBatches()
        digests = self._digests(header)
        # 0.1.0 and 0.1.1 saved only the batches.
        repeated = [*(header.get("repeated") or ()), 0, 0, 0][:3]
        sent = header.get("sent", header["count"])
        if digests is None:
            log.info("Ignoring an earlier attempt's checkpoint; pushing everything")
            self.forget()
            return AcceptedBatches((), None, "", sent, *repeated)
        self._written, self._pages = digests, header["pages"]
        return AcceptedBatches(list(digests), header["started"], header.get("since", ""), sent, *repeated)

    def _digests(self, header: dict[str, Any]) -> list[str] | None:
        # Another worker's clock may be ahead.
        if header["what"] != self._what or abs(time.time() - header["at"]) > _MAX_AGE_SECONDS:
            return None
        width, count = header["width"], header["count"]
        text = "".join(self._state.get(_page_key(page)) or "" for page in range(-(-count // _PAGE)))
        text = text[: count * width]
        if _digest(text) != header["check"]:
            # Two attempts wrote at the same time.
            return None
        return [text[at : at + width] for at in range(0, len(text), width)]

    def write(self, accepted: AcceptedBatches) -> None:
        """Save the batches accepted so far, and replace what was saved before."""
        digests = list(accepted.digests)
        header = self._header()
        if header is not None and header["try"] > self._try_number:
            # Airflow may let a cleared task continue for a while alongside its next attempt.
            return
        pages = -(-len(digests) // _PAGE)
        for page in range(pages):
            content = digests[page * _PAGE : (page + 1) * _PAGE]
            if content != self._written[page * _PAGE : (page + 1) * _PAGE]:
                self._state.set(_page_key(page), "".join(content))
        self._pages = max(self._pages, pages)
        self._state.set(
            _KEY,
            {
                "what": self._what,
                "try": self._try_number,
                "count": len(digests),
                "pages": self._pages,
                "width": len(digests[0]) if digests else 1,
                "check": _digest("".join(digests)),
                "started": accepted.started,
                "since": accepted.since,
                "sent": accepted.sent,
                "repeated": [
                    accepted.repeated_batches,
                    accepted.repeated_items,
                    accepted.repeated_children,
                ],
                "at": int(time.time()),
            },
        )
        self._written = digests

    def forget(self) -> None:
        """Delete the checkpoint: the push is complete, or starts over."""
        header = self._header()
        if header is None:
            return
        # Delete the header first: without it, pages left by an interruption are ignored.
        self._state.delete(_KEY)
        for page in range(header["pages"]):
            self._state.delete(_page_key(page))
        self._written, self._pages = [], 0

    def _header(self) -> dict[str, Any] | None:
        header: dict[str, object] | None = self._state.get(_KEY)
        return header if _is_readable(header) else None


def _is_readable(header: object) -> bool:
    """Return whether a header was written by this or an earlier version, and not edited."""
    if not isinstance(header, Mapping):
        return False
    started, repeated = header.get("started"), header.get("repeated") or []
    return (
        all(isinstance(header.get(name), str) for name in ("what", "check"))
        and isinstance(header.get("since", ""), str)
        and all(_is_count(header.get(name)) for name in ("try", "count", "pages", "width", "at"))
        and _is_count(header.get("sent", 0))
        and header["count"] <= _MAX_DIGESTS
        and header["pages"] <= _MAX_DIGESTS
        and header["width"] > 0
        and (started is None or _is_count(started))
        and (started is not None or not header["count"])
        and isinstance(repeated, (list, tuple))
        and all(map(_is_count, repeated))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _page_key(page: int) -> str:
    return f"{_KEY}_{page}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
