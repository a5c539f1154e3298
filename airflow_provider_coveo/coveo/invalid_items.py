"""What is wrong with an item: the error, and what holds its place where the item itself can't be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class InvalidItemError(Exception):
    """
    An item that Coveo would refuse.

    :param document_id: The item's ID, as far as it has one.
    :param rule: What is wrong with it.
    :param remedy: What to do about it.
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
    What stands in an item in the place of a value that could not be made, and makes the item invalid.

    :param rule: What is wrong with it.
    :param remedy: What to do about it.
    """

    rule: str
    remedy: str = ""


class ItemWithoutId(dict[str, Any]):
    """
    An item for which no ``documentId`` could be made.

    :param members: What else it holds.
    :param reason: Why there is none.
    """

    def __init__(self, members: dict[str, Any], reason: InvalidValue) -> None:
        super().__init__(members)
        self.reason = reason
