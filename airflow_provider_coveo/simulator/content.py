"""What the pipeline makes of an item's content: whether it is what its compression type says."""

from __future__ import annotations

import base64
import binascii
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

#: Of Base64 so much is decoded at a time, a multiple of four letters; of compressed data, unpacked.
_STEP = 256 * 1024


def _inflater(window: int) -> Callable[[], Any]:
    return lambda: zlib.decompressobj(window)


#: What unpacks each type; nothing where there is nothing to unpack.
_DECOMPRESSORS: dict[str, Callable[[], Any] | None] = {
    "UNCOMPRESSED": None,
    "DEFLATE": _inflater(-zlib.MAX_WBITS),
    "GZIP": _inflater(zlib.MAX_WBITS | 16),
    "LZMA": lzma.LZMADecompressor,
    "ZLIB": _inflater(zlib.MAX_WBITS),
}
COMPRESSION_TYPES = tuple(_DECOMPRESSORS)


def base64_problem(encoded: str, compression_type: str) -> str | None:
    """
    Return why text is not content of that compression type in Base64, or ``None``.

    :param encoded: the Base64.
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
    Return why bytes are not content of that compression type, or ``None``.

    :param content: the bytes.
    :param compression_type: one of :data:`COMPRESSION_TYPES`.
    """
    if compression_type == "UNCOMPRESSED":
        return None
    view = memoryview(content)
    parts = (bytes(view[start : start + _STEP]) for start in range(0, len(view), _STEP))
    return _problem(parts, compression_type)


def _problem(parts: Iterator[bytes], compression_type: str) -> str | None:
    """Read the parts to their end; what is unpacked is thrown away, so that memory is bounded."""
    if compression_type not in _DECOMPRESSORS:
        return f"there is no such type; it is one of {', '.join(COMPRESSION_TYPES)}"
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
                    # A gzip file may have several members, one behind the other.
                    if compression_type != "GZIP":
                        return "there is something behind its end"
                    decompressor = make()
                part = _unpack(decompressor, part)
    except (binascii.Error, ValueError, zlib.error, lzma.LZMAError, EOFError) as error:
        return str(error)
    return None if decompressor.eof else "it ends before its end"


def _unpack(decompressor: Any, part: bytes) -> bytes:
    """Unpack a part, and return what of it is behind the end."""
    is_lzma = isinstance(decompressor, lzma.LZMADecompressor)
    while not decompressor.eof:
        unpacked = decompressor.decompress(part, _STEP)
        part = b"" if is_lzma else decompressor.unconsumed_tail
        # Some of what is unpacked can still be held back when all has been read.
        if not unpacked and not part:
            break
    unused: bytes = decompressor.unused_data
    return unused
