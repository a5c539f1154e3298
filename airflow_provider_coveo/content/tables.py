"""Tables in text files: CSV as RFC 4180 defines it, and TSV, which has no quoting."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_coveo.content import streams
from airflow_provider_coveo.content.streams import MalformedError
from airflow_provider_coveo.coveo.errors import CoveoInputError

#: Placeholder for the default, which depends on the format.
DEFAULT: Final = "default"
_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
_QUOTES: Final = {"csv": '"', "tsv": None}
#: What joined files have at the start of a row: a byte order mark, also one of the other byte order.
_MARKS: Final = (streams.BYTE_ORDER_MARK, b"\xef\xbf\xbe")
#: What a database's console writes below the names of columns, and after the rows.
_RULE: Final = r"[-+=|]*"
_FOOTER: Final = r"\(\d+ rows?(?: affected)?\)|\d+ rows? (?:selected|in set)\b.*"
_SHOWN_BY_CONSOLE: Final = "it is what a database's console shows"
_CONSOLE_REMEDY: Final = "Export the table as CSV, without such lines"
_DOUBLE_QUOTES: Final = "Double the quotes within a field, or pass quotechar=None for a table without quoting"
#: Common delimiters of files whose names indicate another one.
_USUAL_DELIMITERS: Final = ";\t|,"


@dataclass(frozen=True)
class Dialect:
    """
    The dialect of a table.

    :param delimiter: The character between two fields.
    :param quotechar: The character around a field that contains a delimiter, a quote or a line break;
        ``None`` for none.
    :param escapechar: The character that escapes the next one; ``None`` for none.
    :param null_values: The fields that mean “no value”.
    :param column_names: The names of the columns, if the first line does not contain them.
    :param is_given: Whether the user passed the delimiter.
    """

    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    null_values: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    is_given: bool = False


def dialect_of(
    file_format: str,
    *,
    delimiter: str | None = None,
    quotechar: str | bool | None = DEFAULT,
    escapechar: str | None = None,
    null_values: str | Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
) -> Dialect:
    """
    Return the dialect of a table.

    :param file_format: ``csv`` or ``tsv``.
    :param delimiter: One character; ``\\t`` and ``tab`` mean the tab.
    :param quotechar: One character; ``None``, ``False`` or an empty string for none.
    :param escapechar: One character.
    :param null_values: One or more strings.
    :param column_names: The names of the columns.
    :raises CoveoInputError: if a parameter is invalid.
    """
    of_a_tab = {"\\t": "\t", "tab": "\t"}
    parts = of_a_tab.get(delimiter, delimiter) if isinstance(delimiter, str) else delimiter
    if parts is None or parts == "":
        parts = _DELIMITERS[file_format]
    quote = _QUOTES[file_format] if quotechar == DEFAULT else quotechar
    if quote is False or quote in ("", "None"):
        quote = None
    escape = None if escapechar in ("", "None", None) else escapechar
    signs = {"delimiter": parts, "quotechar": quote, "escapechar": escape}
    for name, sign in signs.items():
        if sign is None and name != "delimiter":
            continue
        if not isinstance(sign, str) or len(sign) != 1 or sign in "\r\n\0":
            raise CoveoInputError(
                f"Invalid {name}: {sign!r}", remedy="Pass one character that does not end a line"
            )
    given = [sign for sign in signs.values() if sign is not None]
    if len(set(given)) < len(given):
        raise CoveoInputError(
            "delimiter, quotechar and escapechar must differ: "
            + ", ".join(f"{name}={sign!r}" for name, sign in signs.items()),
            remedy="Use a different character for each, and quotechar=None for tables without quoting",
        )
    assert isinstance(parts, str)
    assert quote is None or isinstance(quote, str)
    return Dialect(
        parts,
        quote,
        escape,
        _texts("null_values", [null_values] if isinstance(null_values, str) else null_values),
        _names_given(column_names),
        is_given=bool(delimiter),
    )


def _texts(name: str, values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if (
        not isinstance(values, Sequence)
        or isinstance(values, (str, bytes))
        or not all(isinstance(value, str) for value in values)
    ):
        raise CoveoInputError(f"Invalid {name}: {values!r}; it must be a list of strings")
    return tuple(values)


def _names_given(column_names: object) -> tuple[str, ...]:
    names = _texts("column_names", column_names)
    if len(set(names)) < len(names) or "" in names:
        raise CoveoInputError(
            f"Invalid column_names: {list(names)!r}; a name is empty or occurs twice",
            remedy="Pass a unique name for each column of the file, in their order",
        )
    return names


def rows_of_table(
    content: io.BufferedReader, dialect: Dialect, *, by_their_names: bool = False
) -> Iterator[dict[str, object]]:
    """
    Yield the rows of a table as dicts of column names.

    :param content: The table, in UTF-8.
    :param dialect: Its dialect.
    :param by_their_names: Whether the columns' own names become the keys of items.
    :raises MalformedError: if the content does not match the dialect, with the line.
    """
    lines = _Lines(content)
    records: Iterator[Sequence[str | None]]
    if _has_escaped_nulls(dialect):
        records, nulls = _records_with_nulls(lines, dialect), frozenset[str]()
    else:
        records, nulls = _records(lines, dialect), frozenset(dialect.null_values)
    names = list(dialect.column_names) or _header(records, dialect, by_their_names)
    lines.reject_mark()
    unnamed = [index for index, name in enumerate(names) if not name]
    count = len(names)
    is_first = not dialect.column_names
    for record in records:
        if len(record) != count:
            raise _unequal(record, count, lines, dialect)
        if is_first or count == 1:
            _reject_console_output(record, lines, is_first=is_first)
            is_first = False
        if record[-1] == names[-1] and count > 1 and _are_names(record, names):
            given = "column_names" if dialect.column_names else "the names of the first line"
            raise MalformedError(
                f"line {lines.number} repeats {given}",
                "Join files without their first lines, or read them one by one"
                + ("; omit column_names if the first line has the names" if dialect.column_names else ""),
            )
        if lines.is_marked:
            lines.reject_mark()
        if unnamed and any(record[index] for index in unnamed):
            raise MalformedError(
                f"line {lines.number} has a value in column {unnamed[0] + 1}, which has no name in the first "
                "line",
                "Name it there, or pass column_names",
            )
        row: dict[str, object] = dict(zip(names, record, strict=True))
        if unnamed:
            row.pop("", None)
        if nulls:
            for name, value in row.items():
                if value in nulls:
                    row[name] = None
        yield row


def _header(records: Iterator[Sequence[str | None]], dialect: Dialect, by_their_names: bool) -> list[str]:
    first = next(records, None)
    if first is None:
        raise MalformedError(
            "it is empty, without even a first line of column names",
            "If an empty file is valid, pass column_names",
        )
    names = [name or "" for name in first]
    if len(names) == 1 and re.fullmatch(r"[-+=|]{3,}", names[0]):
        raise MalformedError(f"the first line is {names[0][:100]!r}; {_SHOWN_BY_CONSOLE}", _CONSOLE_REMEDY)
    if len(names) == 1 and not dialect.is_given and (other := _other_delimiter(names[0], dialect)):
        raise MalformedError(f"the first line has one column {names[0][:200]!r}", f"Pass delimiter={other!r}")
    if dialect.quotechar is None and any("\r" in name for name in names):
        # The line ending is ambiguous, so the apparent first line may include rows.
        raise MalformedError(
            "its first line contains a carriage return",
            "End all lines with a line feed, or all with a carriage return",
        )
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise MalformedError("a column's name occurs twice in its first line")
    if by_their_names and (padded := [name for name in named if name != name.strip()]):
        raise MalformedError(
            f"the name of column {padded[0]!r} begins or ends with white space",
            "Pass columns, or column_names",
        )
    return names


def _reject_console_output(record: Sequence[str | None], lines: _Lines, *, is_first: bool) -> None:
    """
    Reject the line under the names of columns, and the number of rows at the end, as consoles write them.

    In a table of several columns, the latter has too few fields.
    """
    fields = [(field or "").strip() for field in record]
    is_rule = is_first and max(map(len, fields)) > 2 and all(re.fullmatch(r"-*", field) for field in fields)
    if is_rule or (len(fields) == 1 and re.fullmatch(_FOOTER, fields[0])):
        raise MalformedError(
            f"line {lines.number} is no row: {', '.join(fields)[:100]!r}; {_SHOWN_BY_CONSOLE}",
            _CONSOLE_REMEDY,
        )


def _are_names(record: Sequence[str | None], names: Sequence[str]) -> bool:
    """Tell whether a row is a first line, as joined files have it, perhaps with its byte order mark."""
    return [(record[0] or "").removeprefix("\ufeff"), *record[1:]] == list(names)


def _other_delimiter(text: str, dialect: Dialect) -> str | None:
    found = [sign for sign in _USUAL_DELIMITERS if sign in text and sign != dialect.delimiter]
    return max(found, key=text.count) if found else None


def _unequal(record: Sequence[str | None], count: int, lines: _Lines, dialect: Dialect) -> MalformedError:
    which = "more" if len(record) > count else "fewer"
    whose = "column_names" if dialect.column_names else "the first line"
    cause = remedy = ""
    if len(record) == 1 and re.fullmatch(f"{_RULE}|{_FOOTER}", (record[0] or "").strip()):
        cause, remedy = f"; {_SHOWN_BY_CONSOLE}", _CONSOLE_REMEDY
    elif len(record) == 1 and not dialect.is_given and (other := _other_delimiter(record[0] or "", dialect)):
        remedy = f"Pass delimiter={other!r}"
    elif dialect.quotechar is None and any((field or "").startswith('"') for field in record):
        remedy = "Pass quotechar='\"' if quotes enclose fields"
    return MalformedError(
        f"line {lines.number} has {which} columns than {whose}: {len(record):,} instead of {count:,}{cause}",
        remedy,
    )


class _Lines:
    """
    The lines of a text, including their line ends.

    :param content: The text, in UTF-8.
    """

    def __init__(self, content: io.BufferedReader) -> None:
        begin = content.peek(streams.CHUNK)
        # Files from old Macs use carriage returns; elsewhere, one alone does not end a line. If the last byte
        # read is a carriage return, a line feed may follow.
        self._returns = b"\r" in begin[:-1] and b"\n" not in begin
        self._content = content
        self.number = 0
        #: The bytes of the current row, and its first line.
        self.bytes_of_row = 0
        self.first_of_row = 1
        #: Whether a row began with a byte order mark after that of the text, which is removed before.
        self.is_marked = False

    def row_ended(self) -> None:
        """Mark the next line as the start of a new row."""
        self.bytes_of_row = 0

    def reject_mark(self) -> None:
        """Reject a row that began with a byte order mark, which would become part of its first field."""
        if self.is_marked:
            raise MalformedError(
                f"line {self.first_of_row} begins with a byte order mark",
                "Join files without their marks, or read them one by one",
            )

    def __iter__(self) -> Iterator[str]:
        longest = streams.MAX_ITEM
        for line in (
            self._by_returns() if self._returns else iter(lambda: self._content.readline(longest), b"")
        ):
            self.number += 1
            if not self.bytes_of_row:
                self.first_of_row = self.number
                self.is_marked = self.is_marked or line.startswith(_MARKS)
            self.bytes_of_row += len(line)
            if self.bytes_of_row >= longest:
                raise MalformedError(
                    f"line {self.number}: a line is longer than {longest:,} bytes"
                    if self.bytes_of_row == len(line)
                    else f"line {self.first_of_row}: a row is longer than {longest:,} bytes; is a quote "
                    "not closed?"
                )
            if b"\0" in line:
                raise MalformedError(
                    f"line {self.number} contains a zero byte, which text never does",
                    "If the file is not UTF-8, pass its encoding, such as 'utf-16-le'",
                )
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise MalformedError(
                    f"line {self.number}: byte 0x{line[error.start]:02x} is not UTF-8 ({error.reason})",
                    "Pass the file's encoding, such as 'cp1252' or 'latin-1'",
                ) from None
            yield text

    def _by_returns(self) -> Iterator[bytes]:
        rest = b""
        while more := self._content.read(64 * 1024):
            *whole, rest = (rest + more).split(b"\r")
            if b"\n" in more:
                raise MalformedError(
                    "some of its lines end with a carriage return, and others with a line feed"
                )
            if len(rest) >= streams.MAX_ITEM:
                break
            yield from (line + b"\r" for line in whole)
        if rest:
            yield rest


def _records(lines: _Lines, dialect: Dialect) -> Iterator[list[str]]:
    """Yield the fields of each row, skipping empty lines."""
    if dialect.quotechar is None and dialect.escapechar is None:
        delimiter = dialect.delimiter
        for line in lines:
            lines.bytes_of_row = 0
            text = line[:-2] if line.endswith("\r\n") else line.removesuffix("\n").removesuffix("\r")
            if text:
                yield text.split(delimiter)
        return
    csv.field_size_limit(streams.MAX_ITEM)
    reader = csv.reader(
        iter(lines),
        delimiter=dialect.delimiter,
        quotechar=dialect.quotechar,
        escapechar=dialect.escapechar,
        quoting=csv.QUOTE_MINIMAL if dialect.quotechar else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        for record in reader:
            lines.row_ended()
            if record:
                yield record
    except csv.Error as error:
        raise _malformed(error, lines) from None


def _malformed(error: csv.Error, lines: _Lines) -> MalformedError:
    text = str(error)
    if "unexpected end of data" in text:
        return MalformedError(f"line {lines.first_of_row}: a quote in this row is never closed ({text})")
    if "new-line character" in text:
        return MalformedError(
            f"line {lines.number}: it contains a lone carriage return outside of quotes",
            "Put quotes around the field, or pass quotechar=None for a table without quoting",
        )
    if "expected after" in text:
        return MalformedError(
            f"line {lines.number}: text follows the quote that ends a field ({text})", _DOUBLE_QUOTES
        )
    return MalformedError(f"line {lines.number}: {text}")


def _has_escaped_nulls(dialect: Dialect) -> bool:
    escape = dialect.escapechar
    return escape is not None and any(escape in text for text in dialect.null_values)


def _records_with_nulls(lines: _Lines, dialect: Dialect) -> Iterator[list[str | None]]:
    r"""
    Yield the fields of each row as :func:`_records` does, with ``None`` for a field such as ``\N``.

    After unescaping, such a field is a plain letter. So this compares the original text, which Python's own
    reader does not provide.
    """
    fields = _Fields(dialect)
    for line in lines:
        ends = 2 if line.endswith("\r\n") else int(line.endswith(("\n", "\r")))
        text = line[: len(line) - ends]
        if not text and not fields.is_open:
            lines.row_ended()
            continue
        try:
            record = fields.more(text, line[len(text) :])
        except MalformedError as error:
            raise MalformedError(f"line {lines.number}: {error}", error.remedy) from None
        if record is not None:
            lines.row_ended()
            yield record
    if fields.is_open:
        raise MalformedError(
            f"line {lines.first_of_row}: a quote in this row is never closed, or nothing follows its last "
            "escape character"
        )


class _Fields:
    """
    A parser for the fields of a row, line by line.

    :param dialect: The dialect of the table.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._delimiter = dialect.delimiter
        self._quote = dialect.quotechar
        self._escape = dialect.escapechar
        self._nulls = frozenset(dialect.null_values)
        signs = re.escape(dialect.delimiter + (dialect.quotechar or "") + (dialect.escapechar or ""))
        self._plain = re.compile(f"[^{signs}\r]+")
        self._begin()

    def _begin(self) -> None:
        self._record: list[str | None] = []
        self._field_begins()
        #: Whether the row continues on the next line.
        self.is_open = False

    def _field_begins(self) -> None:
        self._field: list[str] = []
        self._written: list[str] = []
        self._in_quotes = self._was_quoted = False

    def _field_ends(self) -> None:
        is_null = "".join(self._written) in self._nulls
        self._record.append(None if is_null else "".join(self._field))
        self._field_begins()

    def _take(self, text: str, written: str) -> None:
        if self._was_quoted and not self._in_quotes:
            raise MalformedError("text follows the quote that ends a field", _DOUBLE_QUOTES)
        self._field.append(text)
        self._written.append(written)

    def more(self, text: str, end: str) -> list[str | None] | None:
        """
        Parse a line, and return the row if it ends here.

        :param text: The line without its line end.
        :param end: Its line end.
        """
        at, length = 0, len(text)
        while at < length:
            run = self._plain.match(text, at)
            if run is not None:
                self._take(run[0], run[0])
                at = run.end()
                continue
            sign = text[at]
            at += 1
            if sign == self._escape:
                if at == length:
                    self._take(end, sign + end)
                    self.is_open = True
                    return None
                self._take(text[at], sign + text[at])
                at += 1
            elif sign == self._quote and self._in_quotes:
                if text[at : at + 1] == sign:
                    self._take(sign, sign)
                    at += 1
                else:
                    self._in_quotes = False
            elif sign == self._quote and not self._written and not self._was_quoted:
                self._in_quotes = self._was_quoted = True
            elif sign == self._delimiter and not self._in_quotes:
                self._field_ends()
            elif sign == "\r" and not self._in_quotes:
                raise MalformedError(
                    "it contains a lone carriage return outside of quotes", "Put quotes around the field"
                )
            else:
                self._take(sign, sign)
        if self._in_quotes:
            self._take(end, end)
            self.is_open = True
            return None
        self._field_ends()
        record = self._record
        self._begin()
        return record
