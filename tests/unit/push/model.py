"""What pushing one by one would come to, to hold a push of batches against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import pytest

from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.simulator import Simulator

#: Marks a test that only pushes and looks at what was received: the strict receiver judges it as well.
on_both = pytest.mark.parametrize("coveo", ["simulator", "strict"], indirect=True)


def one_by_one(operations: Iterable[Any], behind: Callable[[str], str] = "{}/".format) -> dict[str, str]:
    """
    Return the content by id after these operations, each taken by itself.

    :param operations: items and deletions.
    :param behind: gives the beginning of the ids that a deletion with children takes along.
    """
    index: dict[str, str] = {}
    for operation in operations:
        if isinstance(operation, Delete):
            index.pop(operation.document_id, None)
            if operation.delete_children:
                prefix = behind(operation.document_id)
                index = {name: data for name, data in index.items() if not name.startswith(prefix)}
        else:
            index[operation["documentId"]] = operation["data"]
    return index


def indexed(coveo: Simulator, source: str) -> dict[str, str]:
    """Return the content by id of what a source holds."""
    return {name: item["data"] for name, item in coveo.items(source).items()}


def examples(count: int) -> int:
    """
    Return how many of so many random examples to try.

    How items are encoded and pushed is the same code on each line of Airflow, so all are tried on 3.x only.
    What else 2.11 brings, such as an older urllib3, shows in a fifth of them as well.
    """
    return count // 5 if version("apache-airflow").startswith("2.") else count
