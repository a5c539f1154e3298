"""Read rows from Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.content.storage import RawFile, StoredContent
from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.metadata import shortest_float
from airflow_provider_coveo.coveo.nanoseconds import with_nanoseconds

if TYPE_CHECKING:
    import pyarrow

#: The rows that are decoded at a time: up to this number, of about so many bytes.
_ROWS_AT_A_TIME: Final = 128
_BYTES_AT_A_TIME: Final = 8 * 1024 * 1024
#: If a column's dictionary has more bytes, rows may be far larger than they are in the file.
_SMALL_DICTIONARY: Final = 256 * 1024
_ROWS_WITH_DICTIONARY: Final = 64
#: The bytes of a column that are read from a local file at a time. From a storage, a row group is read at
#: once: its client reads far ahead each time that the position changes.
_BUFFER: Final = 256 * 1024
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
        is_stored = isinstance(raw, StoredContent)
        file = parquet.ParquetFile(watched, buffer_size=0 if is_stored else _BUFFER, pre_buffer=is_stored)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            # A row would keep only the last of two columns of the same name.
            raise MalformedError("a column's name occurs twice in its schema")
        for number in range(file.num_row_groups):
            count = _rows_at_a_time(file.metadata.row_group(number))
            # Threads cost more than they save on so few rows.
            for rows in file.iter_batches(batch_size=count, row_groups=[number], use_threads=False):
                columns = [_values(column) for column in rows.columns]
                for row in zip(*columns, strict=True) if columns else [()] * rows.num_rows:
                    yield dict(zip(names, row, strict=True))
                    del row
                # They may be large: let go of them before the next ones are decoded.
                del rows, columns
    except (ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        # These include dates and time zones that Python does not support.
        if error is watched.problem:
            # The storage failed, so the file itself may be fine.
            raise
        raise MalformedError(str(error).strip()) from None


def _rows_at_a_time(group: pyarrow.RowGroupMetaData) -> int:
    """
    Return the number of a row group's rows to decode at a time.

    :param group: The row group's metadata.
    """
    size, count, rows = 0, _ROWS_AT_A_TIME, int(group.num_rows)
    for number in range(group.num_columns):
        column = group.column(number)
        size += int(column.total_uncompressed_size)
        if column.has_dictionary_page:
            packed = max(0, column.data_page_offset - column.dictionary_page_offset)
            unpacking = column.total_uncompressed_size / max(1, column.total_compressed_size)
            if packed * unpacking > _SMALL_DICTIONARY:
                count = _ROWS_WITH_DICTIONARY
    average = max(1, size // max(1, rows))
    return max(1, min(count, _BYTES_AT_A_TIME // average))


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
    """
    Return the values of a column as Python's own types.

    Arrow itself cuts off nanoseconds, and widens floats of 32 and 16 bits, which adds digits.
    """
    with suppress(ValueError, NotImplementedError):
        converted = column
        for kind in _plain_types(column.type):
            converted = converted.cast(kind)
        column = converted
    if _is_special(column.type):
        return [_value(scalar) for scalar in column]
    values: list[object] = column.to_pylist()
    return values


def _plain_types(kind: pyarrow.DataType) -> tuple[pyarrow.DataType, ...]:
    """
    Return the types to which Arrow can convert most columns of a special type, one after the other.

    This takes a fraction of the time of :func:`_value`.
    """
    import pyarrow

    if getattr(kind, "unit", None) == "ns":
        # Most columns have nanoseconds in their type only.
        return (_in_microseconds(kind),)
    if pyarrow.types.is_float32(kind):
        # As text, it has the fewest digits.
        return pyarrow.string(), pyarrow.float64()
    if pyarrow.types.is_list(kind) and pyarrow.types.is_float32(kind.value_type):
        return pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.float64())
    return ()


def _is_special(kind: pyarrow.DataType) -> bool:
    """Return whether Arrow's conversion to Python's types would change a value."""
    if getattr(kind, "unit", None) == "ns" or _float_size(kind):
        return True
    inner = [getattr(kind, name) for name in _INNER_TYPES if hasattr(kind, name)]
    if hasattr(kind, "num_fields"):
        inner += [kind.field(number).type for number in range(kind.num_fields)]
    return any(map(_is_special, inner))


def _float_size(kind: pyarrow.DataType) -> int | None:
    """Return the size in bytes of a float of fewer than 64 bits."""
    import pyarrow

    if pyarrow.types.is_float32(kind):
        return 4
    return 2 if pyarrow.types.is_float16(kind) else None


def _value(scalar: pyarrow.Scalar) -> object:
    import pyarrow

    kind = scalar.type
    if not scalar.is_valid or not _is_special(kind):
        return scalar.as_py()
    if getattr(kind, "unit", None) == "ns":
        microseconds, nanoseconds = divmod(scalar.value, 1000)
        return with_nanoseconds(pyarrow.scalar(microseconds, _in_microseconds(kind)).as_py(), nanoseconds)
    if size := _float_size(kind):
        return shortest_float(float(scalar.as_py()), size)
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
