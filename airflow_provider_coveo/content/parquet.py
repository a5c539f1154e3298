"""Read rows from Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

_ROWS_AT_A_TIME: Final = 1_024


def rows_of_parquet(raw: object) -> Iterator[dict[str, object]]:
    """
    Yield the rows of a Parquet file as dicts of column names.

    :param raw: The open file.
    :raises MalformedError: if it is damaged, or two columns have the same name.
    """
    try:
        from pyarrow import ArrowException, Table, parquet
    except ImportError:
        raise CoveoInputError(
            "Could not read a Parquet file",
            cause="the package pyarrow is not installed",
            remedy="On the workers: pip install 'airflow-provider-coveo[parquet]'",
        ) from None
    watched = _WatchedFile(raw)
    try:
        file = parquet.ParquetFile(watched)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            # A row would keep only the last of two columns of the same name.
            raise MalformedError("a column's name occurs twice in its schema")
        for rows in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
            schema = _schema_without_nanoseconds(rows.schema)
            if schema != rows.schema:
                rows = Table.from_batches([rows]).cast(schema, safe=False)
            yield from rows.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # These include dates and time zones that Python does not support.
        if error is watched.problem:
            # The storage failed, so the file itself may be fine.
            raise
        raise MalformedError(str(error).strip()) from None


class _WatchedFile:
    """
    A file that saves its own read error, because the library that reads it raises errors of the same class.

    :param raw: The file.
    """

    problem: BaseException | None = None

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)

    def read(self, *size: int) -> bytes:
        """Read from the file."""
        try:
            content: bytes = self._raw.read(*size)
        except BaseException as problem:
            self.problem = problem
            raise
        return content


def _schema_without_nanoseconds(schema: Any) -> object:
    """Return the schema with times in microseconds, the resolution of Python's own types."""
    import pyarrow

    def in_microseconds(kind: Any) -> object:
        types = pyarrow.types
        if types.is_timestamp(kind) and kind.unit == "ns":
            return pyarrow.timestamp("us", kind.tz)
        if types.is_time64(kind) and kind.unit == "ns":
            return pyarrow.time64("us")
        if types.is_duration(kind) and kind.unit == "ns":
            return pyarrow.duration("us")
        if types.is_list(kind):
            return pyarrow.list_(in_microseconds(kind.value_type))
        if types.is_large_list(kind):
            return pyarrow.large_list(in_microseconds(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pyarrow.list_(in_microseconds(kind.value_type), kind.list_size)
        if types.is_struct(kind):
            return pyarrow.struct([field.with_type(in_microseconds(field.type)) for field in kind])
        return kind

    return pyarrow.schema([field.with_type(in_microseconds(field.type)) for field in schema])
