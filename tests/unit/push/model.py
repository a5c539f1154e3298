"""The result of pushing one by one, to compare with a push of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import pytest

from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.simulator import Simulator

#: Marks a test that only pushes and checks what was received; it also runs against the strict receiver.
on_both = pytest.mark.parametrize("coveo", ["simulator", "strict"], indirect=True)


def one_by_one(operations: Iterable[Any], behind: Callable[[str], str] = "{}/".format) -> dict[str, str]:
    """
    Return the content by ID after these operations, one at a time.

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
    """Return the content of a source by ID."""
    return {name: item["data"] for name, item in coveo.items(source).items()}


def examples(count: int) -> int:
    """
    Return the number of random examples to try, out of a given number.

    Items are encoded and pushed by the same code on each line of Airflow, so all are tried only on 3.x. On
    2.11, a fifth of them covers its other dependencies, such as an older urllib3.
    """
    return count // 5 if version("apache-airflow").startswith("2.") else count
