"""Read JSON objects from files: lines, arrays, and concatenated objects, each as its original bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from airflow_provider_coveo.content import streams
from airflow_provider_coveo.content.streams import MalformedError

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
#: Up to the next brace outside of strings, or up to a long string. Every repetition that can backtrack is
#: bounded, so neither time nor memory depends on the content.
_OUTSIDE: Final = re.compile(
    rb'[^{}"]*(?:"[^"\\]{0,65536}(?:\\.[^"\\]{0,65536}){0,64}"[^{}"]*){0,256}', re.DOTALL
)
_TO_NEXT_BRACE: Final = re.compile(_OUTSIDE.pattern + rb"[{}]", re.DOTALL)
#: From one object of an array to the next.
_TO_NEXT_OBJECT: Final = re.compile(rb"[ \t\r\n]{0,256},[ \t\r\n]{0,256}(?=\{)")
#: Within a string, up to its end or to many of its escapes.
_INSIDE: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
#: From this size on, an unfinished object is checked for being JSON at all.
_LARGE: Final = 16 * 1024 * 1024
#: Keys under which items are commonly wrapped.
_WRAPPERS: Final = frozenset(
    {"addorupdate", "data", "delete", "docs", "documents", "hits", "items", "records", "results", "rows"}
)


def lines(content: io.BufferedReader) -> Iterator[bytes]:
    """
    Yield the lines of a JSON Lines file.

    :param content: The file.
    :raises MalformedError: if a line is too long, or the file is JSON in another layout.
    """
    found = _lines(content)
    first = next(found, None)
    if first is None:
        return
    _reject_other_layout(first)
    yield first
    del first
    yield from found


def _lines(content: io.BufferedReader) -> Iterator[bytes]:
    longest = streams.MAX_ITEM
    number = 0
    while line := content.readline(longest):
        number += 1
        if line.isspace():
            continue
        if len(line) == longest and not line.endswith(b"\n"):
            raise MalformedError(f"line {number}: a line is longer than {longest:,} bytes")
        if len(line) > _LARGE:
            # Validating a line with its end would copy it once more.
            line = line.strip()
        yield line
        # It may be large: let go of it before the next one is read, which enumerate would not.
        del line


def _reject_other_layout(line: bytes) -> None:
    """Reject a file whose first line shows that it is not JSON Lines."""
    text = line.strip()
    if text.startswith(b"["):
        raise MalformedError("it begins with an array", "Pass file_format='json' to read it")
    if b"\r" in text or text == b"{":
        raise MalformedError(
            "its first line is not an object",
            "Pass file_format='json' to read objects that span several lines, or that carriage returns "
            "separate",
        )
    _reject_wrapper(text)


def _reject_wrapper(text: bytes) -> None:
    """Reject a file's first object if it is not an item, but wraps items or is an action line."""
    try:
        first = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Validating the item reports it.
        return
    names = {name.lower(): name for name in first}
    if "documentid" in names:
        return
    for lower, name in names.items():
        value = bytes(first[name])
        if lower in _WRAPPERS and value.startswith(b"[") and value[1:].lstrip().startswith(b"{"):
            raise MalformedError(
                f"it is an object with the items under {name!r}",
                f"Write only that array, for example with jq '.{name}'",
            )
        if lower == "hits" and value.startswith(b"{"):
            raise MalformedError("it is an Elasticsearch response", "Write only the items, as an array")
    if len(names) == 1 and next(iter(names)) in {"index", "create", "update"}:
        raise MalformedError(
            "it is in Elasticsearch's bulk format, with an action before each item",
            "Write only the items",
        )


def objects(content: io.BufferedReader) -> Iterator[bytes]:
    """
    Yield the objects of a JSON array, or of a file of concatenated objects.

    Each object keeps its original bytes. The caller validates the JSON within its braces.

    :param content: The file.
    :raises MalformedError: if the file has another layout, with the position.
    """
    scanner = _JsonScanner(content)
    is_array = scanner.next_sign() == b"["
    if is_array:
        scanner.take()
    first = True
    while True:
        sign = scanner.next_sign()
        if sign == b"{":
            found = scanner.object(first and not is_array)
            if first and not is_array:
                _reject_wrapper(found)
            yield found
            first = False
            # Otherwise, memory would hold two objects of the largest size while the next one is read.
            del found
            while is_array and scanner.goes_on():
                yield scanner.object(False)
            if is_array and scanner.next_sign() not in {b",", b"]"}:
                raise scanner.malformed("found instead of a comma or the array's end")
            if is_array and scanner.next_sign() == b",":
                scanner.take()
                if scanner.next_sign() != b"{":
                    raise scanner.malformed("found instead of an object")
        elif is_array and sign == b"]":
            scanner.take()
            if scanner.next_sign():
                raise scanner.malformed("follows the array's end")
            return
        elif not sign and not is_array and not first:
            return
        elif not sign:
            raise EOFError(f"it ended too early, {scanner.position()}")
        else:
            raise scanner.malformed("found instead of an object")


class _JsonScanner:
    """
    Scans a file for JSON objects, holding a part of it in memory.

    :param content: The file.
    """

    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content
        self._data = bytearray()
        self._at = 0
        #: The numbers of bytes and of line ends before the data.
        self._bytes = 0
        self._lines = 0

    def _more(self) -> bool:
        more = self._content.read(streams.CHUNK)
        self._forget_taken()
        self._data += more
        return bool(more)

    def _forget_taken(self) -> None:
        self._lines += self._data.count(b"\n", 0, self._at)
        self._bytes += self._at
        del self._data[: self._at]
        self._at = 0

    def next_sign(self) -> bytes:
        """Skip white space, and return the next byte; ``b""`` at the end of the file."""
        while True:
            self._at = _SPACE.match(self._data, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._data):
                return bytes(self._data[self._at : self._at + 1])
            if not self._more():
                return b""

    def take(self) -> None:
        """Skip one byte."""
        self._at += 1

    def goes_on(self) -> bool:
        """Skip a comma if the next object follows in the data; return whether it does."""
        between = _TO_NEXT_OBJECT.match(self._data, self._at)
        if between is None:
            return False
        self._at = between.end()
        return True

    def position(self, at: int | None = None) -> str:
        """Return a position for a message: the current one, or an index of the data."""
        at = self._at if at is None else at
        line = self._lines + self._data.count(b"\n", 0, at) + 1
        return f"at byte {self._bytes + at:,}, line {line:,}"

    def malformed(self, what: str) -> MalformedError:
        """Return an error that shows the content at the current position."""
        if not self.next_sign():
            return MalformedError(f"it ended too early, {self.position()}")
        shown = repr(bytes(self._data[self._at : self._at + 40]))[1:]
        return MalformedError(f"{shown} {what}, {self.position()}")

    def object(self, may_wrap: bool) -> bytes:
        """
        Return the object that begins here, and skip it.

        :param may_wrap: Whether it is the first object of a file that is not an array, so that it may wrap
            all items.
        """
        # The fast path finds the end of most objects without looking at each character.
        data, at, depth = self._data, self._at, 0
        while (brace := _TO_NEXT_BRACE.match(data, at)) is not None:
            at = brace.end()
            depth += 1 if data[at - 1] == 0x7B else -1
            if not depth:
                return self._taken(at)
        return self._large_object(at, depth, may_wrap)

    def _taken(self, end: int) -> bytes:
        with memoryview(self._data) as view:
            found = bytes(view[self._at : end])
        self._at = end
        return found

    def _large_object(self, at: int, depth: int, may_wrap: bool) -> bytes:
        """
        Return the object that begins here, whose end is not in the data yet.

        :param at: The index up to which it was scanned.
        :param depth: The number of open braces there.
        :param may_wrap: See :meth:`object`.
        """
        in_string, look_at = False, _LARGE
        while True:
            data = self._data
            at = (_INSIDE if in_string else _OUTSIDE).match(data, at).end()  # type: ignore[union-attr]
            sign = data[at] if at < len(data) else None
            if sign == 0x22:  # A quote.
                in_string = not in_string
                at += 1
            elif sign == 0x7B:  # An opening brace.
                depth += 1
                at += 1
            elif sign == 0x7D:  # A closing one.
                depth -= 1
                at += 1
                if not depth:
                    found = self._taken(at)
                    # A large object takes memory once only, as soon as it is taken.
                    self._forget_taken()
                    return found
            elif sign is None or (in_string and sign == 0x5C and at + 1 == len(data)):
                at -= self._at
                if len(data) - self._at > look_at:
                    self._reject_if_malformed()
                    look_at *= 2
                if len(data) - self._at > streams.MAX_ITEM:
                    raise MalformedError(
                        f"an object is longer than {streams.MAX_ITEM:,} bytes, {self.position()}",
                        "If it wraps the items, write only their array" if may_wrap else "",
                    )
                if not self._more():
                    self._reject_if_malformed()
                    raise EOFError(f"it ended within the object that begins {self.position()}")
                at += self._at

    def _reject_if_malformed(self) -> None:
        """Reject the object that begins here if its available part is not JSON."""
        with memoryview(self._data) as data, data[self._at :] as text:
            problem = _first_problem(text)
        if problem is not None:
            reason, at = problem
            raise MalformedError(
                f"the object that begins {self.position()} is not JSON: {reason}"
                + (f" {self.position(self._at + at)}" if at else "")
            )


def _first_problem(text: memoryview) -> tuple[str, int] | None:
    """Return the first problem of a partial JSON text and its position; ``None`` if it is fine so far."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        if "truncated" in str(error):
            return None
        place = re.search(r"\(byte (\d+)\)", str(error))
        reason = re.sub(r"^JSON is malformed: | \(byte \d+\)$", "", str(error))
        return reason, int(place[1]) if place else 0
    except RecursionError:
        return "it is nested too deeply", 0
    return None
