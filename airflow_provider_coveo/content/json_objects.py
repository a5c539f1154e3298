"""JSON objects out of files: lines, arrays, and objects one after the other, each as it stands there."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from airflow_provider_coveo.content import streams
from airflow_provider_coveo.content.streams import MalformedError

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
#: Up to the next brace outside of strings, or up to a string that is long. Every repetition that may have to
#: be undone is bounded, so neither time nor memory depends on what stands there.
_OUTSIDE: Final = re.compile(
    rb'[^{}"]*(?:"[^"\\]{0,65536}(?:\\.[^"\\]{0,65536}){0,64}"[^{}"]*){0,256}', re.DOTALL
)
_TO_NEXT_BRACE: Final = re.compile(_OUTSIDE.pattern + rb"[{}]", re.DOTALL)
#: From one object of an array to the next.
_TO_NEXT_OBJECT: Final = re.compile(rb"[ \t\r\n]{0,256},[ \t\r\n]{0,256}(?=\{)")
#: Within a string, up to its end or to many of its escapes.
_INSIDE: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
#: From this size on, an object that has no end yet is looked at whether it is JSON at all.
_LARGE: Final = 16 * 1024 * 1024
#: Under which names items are commonly wrapped.
_WRAPPERS: Final = frozenset(
    {"addorupdate", "data", "delete", "docs", "documents", "hits", "items", "records", "results", "rows"}
)


def lines(content: io.BufferedReader) -> Iterator[bytes]:
    """
    Yield the lines of a JSON Lines file.

    :param content: The file.
    :raises MalformedError: if a line is too long, or the file is JSON of another form.
    """
    found = _lines(content)
    first = next(found, None)
    if first is None:
        return
    _refuse_another_form(first)
    yield first
    yield from found


def _lines(content: io.BufferedReader) -> Iterator[bytes]:
    longest = streams.MAX_ITEM
    for number, line in enumerate(iter(lambda: content.readline(longest), b""), 1):
        if line.isspace():
            continue
        if len(line) == longest and not line.endswith(b"\n"):
            raise MalformedError(f"line {number}: a line is longer than {longest:,} bytes")
        yield line


def _refuse_another_form(line: bytes) -> None:
    """Look at the first line whether the file is in lines at all."""
    text = line.strip()
    if text.startswith(b"["):
        raise MalformedError("it begins with an array; an array is read with file_format='json'")
    if b"\r" in text or text == b"{":
        raise MalformedError(
            "its first line is not an object; objects over several lines, or that are parted by carriage "
            "returns, are read with file_format='json'"
        )
    _refuse_wrapped(text)


def _refuse_wrapped(text: bytes) -> None:
    """Refuse a file's first object if it is no item, but holds items or says what to do with the next one."""
    try:
        first = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Whoever checks the item says so.
        return
    names = {name.lower(): name for name in first}
    if "documentid" in names:
        return
    for lower, name in names.items():
        value = bytes(first[name])
        if lower in _WRAPPERS and value.startswith(b"[") and value[1:].lstrip().startswith(b"{"):
            raise MalformedError(
                f"it is an object that holds the items under {name!r}; write that array alone, for example "
                f"with jq '.{name}'"
            )
        if lower == "hits" and value.startswith(b"{"):
            raise MalformedError("it is a response of Elasticsearch; write the items alone, as an array")
    if len(names) == 1 and next(iter(names)) in {"index", "create", "update"}:
        raise MalformedError(
            "it is in the bulk format of Elasticsearch, an action before each item; write the items alone"
        )


def objects(content: io.BufferedReader) -> Iterator[bytes]:
    """
    Yield the objects of a JSON array, or of a file that holds objects one after the other.

    Each comes as it stands in the file. What is no JSON within its braces is for whoever takes it to tell.

    :param content: The file.
    :raises MalformedError: if the file is in another form, with the place.
    """
    window = _Window(content)
    is_array = window.next_sign() == b"["
    if is_array:
        window.take()
    first = True
    while True:
        sign = window.next_sign()
        if sign == b"{":
            found = window.object(first and not is_array)
            if first and not is_array:
                _refuse_wrapped(found)
            yield found
            first = False
            # Two objects of the largest size would otherwise be held while the next is read.
            del found
            while is_array and window.goes_on():
                yield window.object(False)
            if is_array and window.next_sign() not in {b",", b"]"}:
                raise window.malformed("stands where a comma or the array's end should")
            if is_array and window.next_sign() == b",":
                window.take()
                if window.next_sign() != b"{":
                    raise window.malformed("stands where an object should")
        elif is_array and sign == b"]":
            window.take()
            if window.next_sign():
                raise window.malformed("stands behind the array's end")
            return
        elif not sign and not is_array and not first:
            return
        elif not sign:
            raise EOFError(f"it ended too early, {window.place()}")
        else:
            raise window.malformed("stands where an object should")


class _Window:
    """
    The part of a file that is looked at.

    :param content: The file.
    """

    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content
        self._data = bytearray()
        self._at = 0
        #: What came before the data: how many bytes, and how many ends of lines.
        self._bytes = 0
        self._lines = 0

    def _more(self) -> bool:
        more = self._content.read(streams.CHUNK)
        self._lines += self._data.count(b"\n", 0, self._at)
        self._bytes += self._at
        del self._data[: self._at]
        self._at = 0
        self._data += more
        return bool(more)

    def next_sign(self) -> bytes:
        """Go past white space, and return the byte behind it; nothing at the end of the file."""
        while True:
            self._at = _SPACE.match(self._data, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._data):
                return bytes(self._data[self._at : self._at + 1])
            if not self._more():
                return b""

    def take(self) -> None:
        """Go past one byte."""
        self._at += 1

    def goes_on(self) -> bool:
        """Go past a comma, if the next object is at hand."""
        between = _TO_NEXT_OBJECT.match(self._data, self._at)
        if between is None:
            return False
        self._at = between.end()
        return True

    def place(self, at: int | None = None) -> str:
        """Return where something is, in words: here, or at a place in the data."""
        at = self._at if at is None else at
        line = self._lines + self._data.count(b"\n", 0, at) + 1
        return f"at byte {self._bytes + at:,}, line {line:,}"

    def malformed(self, what: str) -> MalformedError:
        """Return an error that shows what is here."""
        if not self.next_sign():
            return MalformedError(f"it ended {self.place()}, where more should stand")
        shown = repr(bytes(self._data[self._at : self._at + 40]))[1:]
        return MalformedError(f"{shown} {what}, {self.place()}")

    def object(self, may_wrap: bool) -> bytes:
        """
        Return the object that begins here, and go past it.

        :param may_wrap: Whether it is the first of a file that is no array, so that it may hold all items.
        """
        # As far as it goes without a look at each sign: to the end of most objects.
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
        Return the object that begins here, of which the end is not at hand.

        :param at: Up to where it was looked at.
        :param depth: How many braces are open there.
        :param may_wrap: As :meth:`object` takes it.
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
                    return self._taken(at)
            elif sign is None or (in_string and sign == 0x5C and at + 1 == len(data)):
                at -= self._at
                if len(data) - self._at > look_at:
                    self._refuse_if_malformed()
                    look_at *= 2
                if len(data) - self._at > streams.MAX_ITEM:
                    raise MalformedError(
                        f"an object is longer than {streams.MAX_ITEM:,} bytes, {self.place()}"
                        + ("; if it holds the items, write their array alone" if may_wrap else "")
                    )
                if not self._more():
                    self._refuse_if_malformed()
                    raise EOFError(f"it ended within an object, which begins {self.place()}")
                at += self._at

    def _refuse_if_malformed(self) -> None:
        """Refuse the object that begins here if what there is of it is no JSON."""
        with memoryview(self._data) as data, data[self._at :] as text:
            problem = _first_problem(text)
        if problem is not None:
            reason, at = problem
            raise MalformedError(
                f"an object, which begins {self.place()}, is no JSON: {reason}"
                + (f" {self.place(self._at + at)}" if at else "")
            )


def _first_problem(text: Any) -> tuple[str, int] | None:
    """Return what is wrong with the beginning of a JSON text, and where; ``None`` if it may go on well."""
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
