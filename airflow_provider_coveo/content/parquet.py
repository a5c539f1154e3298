"""Read rows from Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.content.storage import RawFile
from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.nanoseconds import with_nanoseconds

if TYPE_CHECKING:
    import pyarrow

_ROWS_AT_A_TIME: Final = 1_024
#: The attributes of Arrow's types with the types of their elements.
_INNER_TYPES: Final = ("value_type", "key_type", "item_type", "storage_type")


def rows_of_parquet(raw: RawFile) -> Iterator[dict[str, object]]:
    """
    Yield the rows of a Parquet file as dicts of column names.

    :param raw: The open file.
    :raises MalformedError: if it is damaged, or two columns have the same name.
    """
    try:
        from pyarrow import ArrowException, parquet
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
            columns = [_values(column) for column in rows.columns]
            for row in zip(*columns, strict=True) if columns else [()] * rows.num_rows:
                yield dict(zip(names, row, strict=True))
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

    def __init__(self, raw: RawFile) -> None:
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


def _values(column: pyarrow.Array) -> list[object]:
    """Return the values of a column as Python's own types, with the nanoseconds that these would cut off."""
    if getattr(column.type, "unit", None) == "ns":
        # Most columns have nanoseconds in their type only, and Arrow converts these in half the time.
        with suppress(ValueError):
            column = column.cast(_in_microseconds(column.type))
    if _has_nanoseconds(column.type):
        return [_value(scalar) for scalar in column]
    values: list[object] = column.to_pylist()
    return values


def _has_nanoseconds(kind: pyarrow.DataType) -> bool:
    if getattr(kind, "unit", None) == "ns":
        return True
    inner = [getattr(kind, name) for name in _INNER_TYPES if hasattr(kind, name)]
    if hasattr(kind, "num_fields"):
        inner += [kind.field(number).type for number in range(kind.num_fields)]
    return any(map(_has_nanoseconds, inner))


def _value(scalar: pyarrow.Scalar) -> object:
    import pyarrow

    kind = scalar.type
    if not scalar.is_valid or not _has_nanoseconds(kind):
        return scalar.as_py()
    if getattr(kind, "unit", None) == "ns":
        microseconds, nanoseconds = divmod(scalar.value, 1000)
        return with_nanoseconds(pyarrow.scalar(microseconds, _in_microseconds(kind)).as_py(), nanoseconds)
    if isinstance(scalar, pyarrow.StructScalar):
        names = [field.name for field in kind]
        if len(set(names)) < len(names):
            raise MalformedError("a name occurs twice in a structure")
        return dict(zip(names, map(_value, scalar.values()), strict=True))
    if isinstance(scalar, pyarrow.ListScalar):
        # A map is a list of structures.
        return [_value(entry) for entry in scalar.values]
    # A dictionary's value, or the one that an extension type stores.
    return _value(scalar.value)


def _in_microseconds(kind: pyarrow.DataType) -> pyarrow.DataType:
    import pyarrow

    if pyarrow.types.is_timestamp(kind):
        return pyarrow.timestamp("us", kind.tz)
    return pyarrow.time64("us") if pyarrow.types.is_time64(kind) else pyarrow.duration("us")
