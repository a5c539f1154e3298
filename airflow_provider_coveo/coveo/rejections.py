"""The items that a stage of Coveo's pipeline rejected, from the item logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_coveo.coveo.errors import sanitize

#: The operations that delete items.
DELETES: Final = ("DELETE", "DELETE_AND_CHILDREN")
#: The results that mean that an item was not indexed.
DEFAULT_REFUSALS: Final = ("ERROR", "REJECTED", "SKIPPED")
#: The maximum number of rejected items that a message lists.
MAX_NAMED: Final = 20

_MAX_REASON: Final = 160
_MAX_ID: Final = 120


@dataclass(frozen=True)
class Rejection:
    """
    An item that a stage of the pipeline rejected.

    :param document_id: The item, or the file container of a whole batch.
    :param operation: The operation, such as ``ADD``.
    :param task: The stage.
    :param result: ``ERROR``, ``REJECTED`` or ``SKIPPED``.
    :param reason: The reason, as Coveo gives it.
    :param request_id: The entry's ``requestId``.
    :param at: The time, in Coveo's format.
    :param times: The number of rejected operations on the item.
    """

    document_id: str
    operation: str
    task: str
    result: str
    reason: str
    request_id: str
    at: str
    times: int = 1

    @property
    def key(self) -> tuple[str, bool]:
        """The item, and whether the operation deletes it: together, they identify an operation."""
        return self.document_id, self.operation in DELETES


def rejections_of(
    entries: Iterable[Mapping[str, object]], refusals: Sequence[str] = DEFAULT_REFUSALS
) -> list[Rejection]:
    """
    Return the rejections in log entries, each operation once even if several stages report it.

    An operation goes through a stage once. So the stage with the most entries for an item shows the number of
    operations. The rejection is taken from the first entry whose result is in ``refusals``, or from the first
    entry if there is none.
    """

    def precedence(entry: Mapping[str, object]) -> tuple[bool, str]:
        return entry.get("result") not in refusals, str(entry.get("datetime") or "")

    stages: dict[tuple[str, bool], Counter[str]] = {}
    first: dict[tuple[str, bool], Rejection] = {}
    for entry in sorted(entries, key=precedence):
        rejection = _rejection(entry)
        stages.setdefault(rejection.key, Counter())[rejection.task] += 1
        first.setdefault(rejection.key, rejection)
    return [
        Rejection(**{**vars(rejection), "times": max(stages[key].values())})
        for key, rejection in first.items()
    ]


def _rejection(entry: Mapping[str, object]) -> Rejection:
    said = {name: str(entry.get(name) or "") for name in ("id", "operation", "task", "result", "requestId")}
    return Rejection(
        document_id=said["id"],
        operation=said["operation"],
        task=said["task"],
        result=said["result"],
        reason=_reason(entry.get("meta")),
        request_id=said["requestId"],
        at=str(entry.get("datetime") or ""),
    )


def _reason(meta: object) -> str:
    """Return the cause from an entry's metadata, whose keys Coveo does not document."""
    if not isinstance(meta, Mapping):
        return ""
    for key, value in meta.items():
        if str(key).lower() in {"error", "errormessage", "message", "reason", "cause", "details"} and value:
            return sanitize(str(value))[:_MAX_REASON]
    return sanitize(", ".join(f"{key}={value}" for key, value in meta.items()))[:_MAX_REASON]


def rejection_table(refusals: Sequence[Rejection], total: int) -> str:
    """Return a table of the first rejected items, and the number of others."""
    head = ("item", "operation", "task", "result", "reason", "request ID")
    rows = [
        (
            _one_line(rejection.document_id, _MAX_ID) + (f" ({rejection.times}x)" * (rejection.times > 1)),
            rejection.operation,
            rejection.task,
            rejection.result,
            rejection.reason,
            _one_line(rejection.request_id, 64),
        )
        for rejection in refusals[:MAX_NAMED]
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    more = total - sum(rejection.times for rejection in refusals[:MAX_NAMED])
    if more > 0:
        lines.append(f"… and {more:,} more, in Coveo's Log Browser")
    return "\n".join(lines)


def _one_line(text: str, longest: int) -> str:
    flat = "".join(letter if letter.isprintable() else " " for letter in text)
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def count_rejections(rejections: Iterable[Rejection]) -> int:
    """Return the number of rejected operations."""
    return sum(rejection.times for rejection in rejections)
