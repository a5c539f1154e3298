"""Rows out of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

_ROWS_AT_A_TIME: Final = 1_024


def rows_of_parquet(raw: Any) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of a Parquet file, by the names of their columns.

    :param raw: The file, open.
    :raises MalformedError: if it is damaged, or two columns have one name.
    """
    try:
        from pyarrow import ArrowException, Table, parquet
    except ImportError:
        raise CoveoInputError(
            "A Parquet file can't be read here",
            cause="the package pyarrow is not installed",
            remedy="On the workers: pip install 'airflow-provider-coveo[parquet]'",
        ) from None
    watched = _WatchedFile(raw)
    try:
        file = parquet.ParquetFile(watched)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            # Of two columns of one name, a row would hold the last one only.
            raise MalformedError("a column's name occurs twice in its schema")
        for rows in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
            schema = _schema_without_nanoseconds(rows.schema)
            if schema != rows.schema:
                rows = Table.from_batches([rows]).cast(schema, safe=False)
            yield from rows.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # Among these are days and time zones that Python does not have.
        if error is watched.problem:
            # The storage can't be read, which says nothing of what it holds.
            raise
        raise MalformedError(str(error).strip()) from None


class _WatchedFile:
    """
    A file that remembers why it could not be read: a library that reads it raises the same class of its own.

    :param raw: The file.
    """

    problem: BaseException | None = None

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, *size: int) -> bytes:
        """Read from the file."""
        try:
            content: bytes = self._raw.read(*size)
        except BaseException as problem:
            self.problem = problem
            raise
        return content


def _schema_without_nanoseconds(schema: Any) -> Any:
    """Return the schema with times as Python has them, which counts microseconds."""
    import pyarrow

    def shortened(kind: Any) -> Any:
        types = pyarrow.types
        if types.is_timestamp(kind) and kind.unit == "ns":
            return pyarrow.timestamp("us", kind.tz)
        if types.is_time64(kind) and kind.unit == "ns":
            return pyarrow.time64("us")
        if types.is_duration(kind) and kind.unit == "ns":
            return pyarrow.duration("us")
        if types.is_list(kind):
            return pyarrow.list_(shortened(kind.value_type))
        if types.is_large_list(kind):
            return pyarrow.large_list(shortened(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pyarrow.list_(shortened(kind.value_type), kind.list_size)
        if types.is_struct(kind):
            return pyarrow.struct([field.with_type(shortened(field.type)) for field in kind])
        return kind

    return pyarrow.schema([field.with_type(shortened(field.type)) for field in schema])
