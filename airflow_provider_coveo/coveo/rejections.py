"""The items that a stage of Coveo's pipeline rejected, as the item logs show them."""

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
#: The most rejected items that a message names.
MAX_NAMED: Final = 20

_MAX_REASON: Final = 160
_MAX_ID: Final = 120


@dataclass(frozen=True)
class Rejection:
    """
    An item that a stage of the pipeline did not let pass.

    :param document_id: The item, or the file container of a whole batch.
    :param operation: What was to be done, such as ``ADD``.
    :param task: The stage.
    :param result: ``ERROR``, ``REJECTED`` or ``SKIPPED``.
    :param reason: Why, in Coveo's words.
    :param request_id: The entry's ``requestId``.
    :param at: When, as Coveo writes it.
    :param times: How many operations on the item this was said of.
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
        """What operations are told apart by: the item, and whether it was to be deleted."""
        return self.document_id, self.operation in DELETES


def rejections_of(
    entries: Iterable[Mapping[str, object]], refusals: Sequence[str] = DEFAULT_REFUSALS
) -> list[Rejection]:
    """
    Return what log entries say was refused, each operation once though several stages may tell of it.

    An operation goes through a stage once, so of the stages that tell of an item the one with the most
    entries says how many operations there were. Of what they tell, the first counts whose result is one of
    ``refusals``, and the first of all where none is.
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
    """Return a table of refused items: the first ones, and how many more there are."""
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
    """Return how many times items were rejected."""
    return sum(rejection.times for rejection in rejections)
