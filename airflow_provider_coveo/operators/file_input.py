"""Items in files, as the input of an operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

#: The parameters for reading files. All of them are templated.
FILE_PARAMETERS: Final = (
    "file_format",
    "columns",
    "delimiter",
    "quotechar",
    "escapechar",
    "null_values",
    "column_names",
    "encoding",
    "partitioning",
)


class ReadsFiles(Protocol):
    """An operator that has the parameters."""

    path: object
    file_format: str | None


def items_in_files(operator: ReadsFiles) -> Iterator[object]:
    """
    Yield the items in an operator's files.

    :param operator: The operator, whose parameters are rendered.
    """
    from airflow_provider_coveo.content.files import read_files

    options = {name: getattr(operator, name) for name in FILE_PARAMETERS}
    return read_files(operator.path, **{**options, "file_format": operator.file_format or None})
