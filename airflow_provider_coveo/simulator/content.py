"""The pipeline's check of an item's content against its compression type."""

from __future__ import annotations

import base64
import binascii
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

#: The Base64 letters (a multiple of four) decoded, or the bytes of compressed data unpacked, at a time.
_STEP = 256 * 1024


_Decompressor: TypeAlias = "zlib._Decompress | lzma.LZMADecompressor"


def _inflater(window: int) -> Callable[[], _Decompressor]:
    return lambda: zlib.decompressobj(window)


#: The decompressor of each type, ``None`` if there is nothing to unpack.
_DECOMPRESSORS: dict[str, Callable[[], _Decompressor] | None] = {
    "UNCOMPRESSED": None,
    "DEFLATE": _inflater(-zlib.MAX_WBITS),
    "GZIP": _inflater(zlib.MAX_WBITS | 16),
    "LZMA": lzma.LZMADecompressor,
    "ZLIB": _inflater(zlib.MAX_WBITS),
}
COMPRESSION_TYPES = tuple(_DECOMPRESSORS)


def base64_problem(encoded: str, compression_type: str) -> str | None:
    """
    Return the reason why a text is not content of a compression type in Base64, or ``None``.

    :param encoded: the text.
    :param compression_type: one of :data:`COMPRESSION_TYPES`.
    """

    def parts() -> Iterator[bytes]:
        for start in range(0, len(encoded), _STEP):
            part = encoded[start : start + _STEP]
            if "=" in part and start + _STEP < len(encoded):
                raise binascii.Error("Padding in the middle")
            yield base64.b64decode(part, validate=True)

    return _problem(parts(), compression_type)


def content_problem(content: bytes, compression_type: str) -> str | None:
    """
    Return the reason why bytes are not content of a compression type, or ``None``.

    :param content: the bytes.
    :param compression_type: one of :data:`COMPRESSION_TYPES`.
    """
    if compression_type == "UNCOMPRESSED":
        return None
    view = memoryview(content)
    parts = (bytes(view[start : start + _STEP]) for start in range(0, len(view), _STEP))
    return _problem(parts, compression_type)


def _problem(parts: Iterator[bytes], compression_type: str) -> str | None:
    """Unpack all parts, discarding the result so that memory is bounded."""
    make = _DECOMPRESSORS[compression_type]
    try:
        if make is None:
            for _ in parts:
                pass
            return None
        decompressor = make()
        for part in parts:
            while part:
                if decompressor.eof:
                    # A gzip file can have several consecutive members.
                    if compression_type != "GZIP":
                        return "data follows its end"
                    decompressor = make()
                part = _unpack(decompressor, part)
    except (binascii.Error, ValueError, zlib.error, lzma.LZMAError, EOFError) as error:
        return str(error)
    return None if decompressor.eof else "it is truncated"


def _unpack(decompressor: _Decompressor, part: bytes) -> bytes:
    """Unpack a part, and return the bytes after the end of the compressed data."""
    while not decompressor.eof:
        unpacked = decompressor.decompress(part, _STEP)
        part = b"" if isinstance(decompressor, lzma.LZMADecompressor) else decompressor.unconsumed_tail
        # The decompressor can hold back some output after it has read all input.
        if not unpacked and not part:
            break
    return decompressor.unused_data
