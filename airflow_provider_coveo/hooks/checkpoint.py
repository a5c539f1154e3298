"""Which batches of a push were accepted, kept where a later try of the same task finds it."""

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
#: How many digests are kept under one key: less than the 64 KiB above which Airflow warns.
_PAGE: Final = 4_000
#: More digests, or pages of them, than this are no push's.
_MAX_DIGESTS: Final = 100_000
#: What was accepted longer ago than this is pushed again. It is long enough for what failed before a weekend,
#: or because the day's quota was used up.
_MAX_AGE_SECONDS: Final = 7 * 24 * 3600


class RunCheckpoint:
    """
    The digests of one task's accepted batches, in the state of its run.

    :param context: The context of the task.
    :param what: What is pushed how, so that nothing is mistaken for something else: where to, the size of a
        batch, and who last changed the source's content.
    :param only_retries: Whether what was accepted before a clear is pushed again.
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
        """Return what an earlier try got accepted, and forget what does not count for this one."""
        header = self._header()
        if header is None:
            return AcceptedBatches()
        digests = self._digests(header)
        # 0.1.0 and 0.1.1 kept no more than the batches.
        repeated = [*(header.get("repeated") or ()), 0, 0, 0][:3]
        sent = header.get("sent", header["count"])
        if digests is None:
            log.info("What an earlier try got accepted does not count for this one: all is pushed.")
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
            # Two tries wrote at the same time.
            return None
        return [text[at : at + width] for at in range(0, len(text), width)]

    def write(self, accepted: AcceptedBatches) -> None:
        """Keep what was accepted so far, in the place of what was kept before."""
        digests = list(accepted.digests)
        header = self._header()
        if header is not None and header["try"] > self._try_number:
            # Airflow may let a task that was cleared go on for a while, beside its next try.
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
        """Keep nothing more: the push is complete, or begins anew."""
        header = self._header()
        if header is None:
            return
        # This one first: without it, what is left if this is interrupted counts for nothing.
        self._state.delete(_KEY)
        for page in range(header["pages"]):
            self._state.delete(_page_key(page))
        self._written, self._pages = [], 0

    def _header(self) -> dict[str, Any] | None:
        header: dict[str, object] | None = self._state.get(_KEY)
        return header if _is_readable(header) else None


def _is_readable(header: object) -> bool:
    """Return whether a header is one of this version, or an earlier one, that nobody edited."""
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
