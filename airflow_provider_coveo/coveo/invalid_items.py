"""Invalid items: the error, the counts, and placeholders for values that could not be created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import InvalidItem


#: The number of invalid entries that are listed one by one.
INVALID_SHOWN: Final = 20

_MAX_ID_SHOWN: Final = 200
_MAX_RULE_SHOWN: Final = 500


class InvalidItemError(Exception):
    """
    An item that Coveo would reject.

    :param document_id: The item's ID, ``None`` without a readable one.
    :param rule: The rule that it breaks.
    :param remedy: The fix.
    """

    #: The original item, if it is part of a push.
    item: object = None

    def __init__(self, document_id: str | None, rule: str, remedy: str = "") -> None:
        super().__init__(document_id, rule, remedy)
        self.document_id = document_id
        self.rule = rule
        self.remedy = remedy


@dataclass(frozen=True)
class InvalidValue:
    """
    A placeholder for a value that could not be created. It makes its item invalid.

    :param rule: The rule that the value breaks.
    :param remedy: The fix.
    """

    rule: str
    remedy: str = ""


class ItemWithoutId(dict[str, Any]):
    """
    An item whose ``documentId`` could not be created.

    :param members: The item's other properties.
    :param reason: The reason.
    """

    def __init__(self, members: Mapping[str, object], reason: InvalidValue) -> None:
        super().__init__(members)
        self.reason = reason


@dataclass(eq=False, repr=False)
class InvalidEntries:
    """
    The rejected entries: their number, and the rules that the first of them break.

    :param count: The number of entries.
    :param shown: The first entries: ``index`` in the input, ``document_id`` and ``rule``.
    """

    count: int = 0
    shown: list[InvalidItem] = field(default_factory=list)

    def add(self, index: int, error: InvalidItemError) -> None:
        """
        Count an entry, and keep it if it is among the first.

        :param index: Its index in the input.
        :param error: The rule that it breaks.
        """
        self.count += 1
        if len(self.shown) < INVALID_SHOWN:
            document_id = error.document_id
            if document_id is not None:
                document_id = _cut(document_id, _MAX_ID_SHOWN)
            rule = error.rule + (f" ({error.remedy})" if error.remedy else "")
            self.shown.append(
                {"index": index, "document_id": document_id, "rule": _cut(rule, _MAX_RULE_SHOWN)}
            )

    def words(self) -> str:
        """Return a list of the first entries as text."""
        told = "; ".join(
            f"number {entry['index']} ({_quoted(entry['document_id'])}): {entry['rule']}"
            for entry in self.shown
        )
        return told + (f"; and {self.count - len(self.shown)} more" if self.count > len(self.shown) else "")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _quoted(document_id: str | None) -> str:
    return "without a usable documentId" if document_id is None else ascii(document_id)[1:-1]
