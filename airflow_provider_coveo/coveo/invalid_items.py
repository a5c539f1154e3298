"""Invalid items: the error, and placeholders for values and items that could not be created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class InvalidItemError(Exception):
    """
    An item that Coveo would reject.

    :param document_id: The item's ID, ``None`` without a readable one.
    :param rule: The rule that it breaks.
    :param remedy: The fix.
    """

    #: The item as it was given, where it is one of a push.
    item: Any = None

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

    def __init__(self, members: dict[str, Any], reason: InvalidValue) -> None:
        super().__init__(members)
        self.reason = reason
