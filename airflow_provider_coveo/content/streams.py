"""Files as streams of UTF-8: what is looked at at a time, and what may stand in an item at most."""

from __future__ import annotations

import codecs
import io
from typing import Any, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import MAX_UPLOAD

#: How much of a file is read at a time.
CHUNK: Final = 1024 * 1024
#: No item is longer, so neither is a line, a row of a table nor an object of an array.
MAX_ITEM: Final = MAX_UPLOAD
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
#: With the name of the encoding that begins so. Those of UTF-32 come first: one begins as UTF-16's does.
_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    BYTE_ORDER_MARK: "UTF-8",
}


class MalformedError(Exception):
    """A file that is not what it should be."""


def validate_encoding(encoding: str | None) -> str | None:
    """
    Return the name of an encoding as Python has it, ``None`` for UTF-8.

    :param encoding: A name such as ``latin-1``, ``cp1252`` or ``utf-16``; ``None`` or nothing for UTF-8.
    :raises CoveoInputError: if there is no encoding of text of that name.
    """
    if encoding is None or encoding == "":
        return None
    try:
        found = codecs.lookup(encoding)
        # Not all that has a name turns text into bytes.
        is_text = bool("{}".encode(encoding)) and found.incrementaldecoder is not None
    except (LookupError, TypeError, ValueError):
        is_text = False
    if not is_text:
        raise CoveoInputError(
            f"There is no encoding {encoding!r}",
            remedy="Give a name that Python knows, such as utf-8, latin-1, cp1252 or utf-16",
        )
    return None if found.name in {"utf-8", "utf-8-sig"} else found.name


def as_utf_8(content: io.BufferedReader, encoding: str | None) -> io.BufferedReader:
    """
    Return what a file of text holds as UTF-8, without a mark at its beginning.

    :param content: The file.
    :param encoding: The encoding, as :func:`validate_encoding` returns it.
    :raises MalformedError: if its first bytes say that it is in another one.
    """
    begin = content.peek(4)[:4]
    marked = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), None)
    named = "UTF-8" if encoding is None else encoding.upper()
    if marked is not None and not named.startswith(marked):
        raise MalformedError(f"it is {marked} and not {named}; give encoding={marked.lower()!r}")
    if encoding is not None:
        return io.BufferedReader(_Transcoded(content, encoding), CHUNK)
    if marked is not None:
        content.read(len(BYTE_ORDER_MARK))
    return content


class _Transcoded(io.RawIOBase):
    """
    A text in another encoding as UTF-8.

    :param raw: The text.
    :param encoding: Its encoding.
    """

    def __init__(self, raw: io.BufferedReader, encoding: str) -> None:
        self._raw = raw
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._lines = 1
        self._begun = False
        self._ended = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, at least partly unless the file is at its end."""
        while not self._ready and not self._ended:
            self._ready = memoryview(self._decoded(self._raw.read1(CHUNK)))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decoded(self, more: bytes) -> bytes:
        self._ended = not more
        try:
            text = self._decoder.decode(more, final=not more)
            encoded = text.encode()
        except UnicodeDecodeError as error:
            before = bytes(error.object[: error.start]).decode(self._encoding, "ignore")
            wrong = bytes(error.object[error.start : error.end])[:8].hex(" ")
            raise MalformedError(
                f"line {self._lines + before.count(chr(10))}: the bytes {wrong} are not {self._encoding} "
                f"({error.reason})"
            ) from None
        except UnicodeEncodeError as error:
            line = self._lines + text[: error.start].count("\n")
            raise MalformedError(f"line {line}: a part of a character stands alone") from None
        except UnicodeError as error:
            # Decoders raise this where no byte is wrong by itself, such as without UTF-16's mark.
            raise MalformedError(
                f"line {self._lines}: it is not {self._encoding} ({error}); give another encoding, such as "
                "'utf-8' or 'utf-16-le'"
            ) from None
        if text and not self._begun:
            self._begun = True
            if text.startswith("\ufeff"):
                encoded = encoded[len(BYTE_ORDER_MARK) :]
        self._lines += text.count("\n")
        return encoded
