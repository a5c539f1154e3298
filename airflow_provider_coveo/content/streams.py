"""Files as UTF-8 streams, and the limits for reading them."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.items import MAX_UPLOAD

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes of a file that are read at a time.
CHUNK: Final = 1024 * 1024
#: The maximum size of an item, and so of a line, a table row and an object of an array.
MAX_ITEM: Final = MAX_UPLOAD
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
#: Encodings by their byte order marks. UTF-32 comes first, because one of its marks starts with UTF-16's.
_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    BYTE_ORDER_MARK: "UTF-8",
}


class MalformedError(Exception):
    """
    The file's content does not match its format.

    :param what: The place and the problem.
    :param remedy: The fix, ``""`` if the problem does not show it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


def validate_encoding(encoding: str | None) -> str | None:
    """
    Return Python's name of an encoding, ``None`` for UTF-8.

    :param encoding: A name such as ``latin-1``, ``cp1252`` or ``utf-16``; ``None`` or an empty string for
        UTF-8.
    :raises CoveoInputError: if there is no text encoding of that name.
    """
    if encoding is None or encoding == "":
        return None
    try:
        found = codecs.lookup(encoding)
        # Some codecs do not convert text to bytes.
        is_text = bool("{}".encode(encoding)) and found.incrementaldecoder is not None
    except (LookupError, TypeError, ValueError):
        is_text = False
    if not is_text:
        raise CoveoInputError(
            f"Invalid encoding: {encoding!r}",
            remedy="Use a name that Python knows, such as utf-8, latin-1, cp1252 or utf-16",
        )
    return None if found.name in {"utf-8", "utf-8-sig"} else found.name


def as_utf_8(content: io.BufferedReader, encoding: str | None) -> io.BufferedReader:
    """
    Return the content of a text file as UTF-8, without a byte order mark.

    :param content: The file.
    :param encoding: The encoding, as :func:`validate_encoding` returns it.
    :raises MalformedError: if its byte order mark shows another encoding.
    """
    begin = content.peek(4)[:4]
    marked = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), None)
    named = "UTF-8" if encoding is None else encoding.upper()
    if marked is not None and not named.startswith(marked):
        raise MalformedError(f"it is {marked}, not {named}", f"Pass encoding={marked.lower()!r}")
    if encoding is not None:
        return io.BufferedReader(_Transcoded(content, encoding), CHUNK)
    if marked is not None:
        content.read(len(BYTE_ORDER_MARK))
    return content


class _Transcoded(io.RawIOBase):
    """
    A stream that converts a text from another encoding to UTF-8.

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
        """Return ``True``."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, at least in part unless the file has ended."""
        while not self._ready and not self._ended:
            self._ready = memoryview(self._decoded(self._raw.read1(CHUNK)))
        with memoryview(buffer) as room:
            count = min(len(room), len(self._ready))
            room[:count] = self._ready[:count]
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
                f"({error.reason})",
                "Pass the encoding in which the file was written",
            ) from None
        except UnicodeEncodeError as error:
            line = self._lines + text[: error.start].count("\n")
            raise MalformedError(f"line {line}: it contains half of a surrogate pair") from None
        except UnicodeError as error:
            # Decoders raise this if no single byte is wrong, such as without UTF-16's byte order mark.
            raise MalformedError(
                f"line {self._lines}: it is not {self._encoding} ({error})",
                "Pass another encoding, such as 'utf-8' or 'utf-16-le'",
            ) from None
        if text and not self._begun:
            self._begun = True
            if text.startswith("\ufeff"):
                encoded = encoded[len(BYTE_ORDER_MARK) :]
        self._lines += text.count("\n")
        return encoded
