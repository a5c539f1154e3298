"""
Files of rejected items: JSON Lines with one line per item, from which the items can be pushed again.

A line contains ``index`` (in the input), ``document_id``, ``source_id``, ``rule`` or ``reason``, and the
original ``item`` or ``delete``. If JSON can't represent an item exactly, the line contains its shortened
``item_repr`` instead, and the item can't be pushed again.

Lines are collected in a temporary file, which replaces the target only when it is complete. Readers therefore
never see a partial file, and memory stays bounded.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import reprlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

import msgspec

from airflow_provider_coveo.content import storage
from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.listing import files_of
from airflow_provider_coveo.content.scratch import ScratchFolder, explain_full_disk
from airflow_provider_coveo.coveo.errors import CoveoInputError, RejectedItemsError, sanitize, short_repr
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError, ItemWithoutId
from airflow_provider_coveo.coveo.items import Delete, Item
from airflow_provider_coveo.coveo.metadata import validate_metadata
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.results import RejectedResult

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r".*\.(?:ndjson|jsonl)(?:\.gz)?", re.IGNORECASE | re.DOTALL)
_GLOB_CHARACTERS: Final = re.compile(r"[*?\[]")
_MAX_REPR: Final = 10_000
_MAX_RULE: Final = 2_000

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 1_000
_repr.maxdict = _repr.maxlist = _repr.maxtuple = 100


class RejectedItemsFile:
    """
    The file to which a push or a sensor writes rejected items.

    :param path: The file, on this machine or on an object storage: JSON Lines (``.ndjson``, ``.jsonl``),
        optionally compressed with gzip (``.ndjson.gz``).
    :param source_id: The source to which the items belong.
    :raises CoveoInputError: if the path is not that of such a file.
    """

    def __init__(self, path: object, source_id: str) -> None:
        self._target = _target(path)
        self._source_id = source_id
        self._spool: IO[bytes] | None = None
        self._out: IO[bytes] | gzip.GzipFile | None = None
        self._is_packed = str(self._target).lower().endswith(".gz")
        self.count = 0
        #: Whether the file was written.
        self.exists = False

    def __str__(self) -> str:
        return str(self._target)

    def add_invalid(self, index: int, error: InvalidItemError, item: object) -> None:
        """
        Write an item that is not sent because Coveo would reject it.

        :param index: Its index in the input.
        :param error: The reason why it is invalid.
        :param item: The original item.
        """
        entry = {
            "index": index,
            "document_id": error.document_id,
            "rule": sanitize(error.rule)[:_MAX_RULE],
            "remedy": sanitize(error.remedy)[:_MAX_RULE],
        }
        self.add(entry, item)

    def add(self, entry: Mapping[str, object], item: object = None) -> None:
        """
        Write an item.

        :param entry: The known facts about it, as JSON.
        :param item: The original item, ``None`` if it is not available.
        :raises RejectedItemsError: if the worker's temporary folder is full.
        """
        described = {"source_id": self._source_id, **entry}
        known = {key: value for key, value in described.items() if value is not None and value != ""}
        # Half of a surrogate pair, which UTF-8 can't encode, becomes a question mark.
        line = json.dumps(known, ensure_ascii=False).encode(errors="replace")[:-1]
        if item is not None:
            line += b", " + (item if isinstance(item, ItemAsJson) else item_as_json(item))
        with self._writing():
            out = self._out or self._open()
            out.write(line + b"}\n")
        self.count += 1

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise an error of ours if a disk or the object storage fails."""
        try:
            yield
        except OSError as problem:
            cause, remedy = explain_full_disk(problem)
            raise RejectedItemsError(
                f"Could not write the rejected items to {self}",
                answer=str(problem),
                cause=cause,
                remedy=remedy,
            ) from None

    def _open(self) -> IO[bytes] | gzip.GzipFile:
        self._spool = tempfile.TemporaryFile(prefix="coveo-rejected-")  # noqa: SIM115
        self._out = self._spool
        if self._is_packed:
            self._out = gzip.GzipFile(filename="", mode="wb", fileobj=self._spool, mtime=0)
        return self._out

    def write(self) -> None:
        """
        Write the complete file; do nothing if no item was rejected.

        :raises RejectedItemsError: if it can't be written.
        """
        if self._spool is None:
            return
        with self._writing():
            if self._is_packed and self._out is not None:
                self._out.close()
            self._spool.flush()
            self._target.replace(self._spool)
        self.exists = True
        log.info("Wrote %s to %s", quantity(self.count, "rejected item"), self)

    def remove(self) -> None:
        """Delete the file of an earlier attempt, which is out of date."""
        self._target.remove()

    def close(self) -> None:
        """Delete the collected lines, but not the file."""
        if self._spool is not None:
            with suppress(Exception):
                self._spool.close()

    def result(self) -> RejectedResult:
        """Return the number of rejected items, and the file if there is one, as small JSON."""
        return {"rejected": self.count, "rejected_path": str(self) if self.exists else None}


# --- the location of the file ---


class _LocalTarget:
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def __str__(self) -> str:
        return str(self._path)

    def replace(self, content: IO[bytes]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        try:
            with part.open("xb") as out:
                content.seek(0)
                shutil.copyfileobj(content, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _StoredTarget:
    def __init__(self, place: storage.Place) -> None:
        self._place = place

    def __str__(self) -> str:
        return self._place.shown(self._place.path)

    def replace(self, content: IO[bytes]) -> None:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        # Writing in chunks would not do: if an error closes the stored file, the partial upload is completed.
        with closing(ScratchFolder("coveo-rejected-")) as scratch:
            complete = scratch.path / "items"
            with complete.open("xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            storage.upload(self._place, str(complete), size)

    def remove(self) -> None:
        storage.remove(self._place)


def _target(path: object) -> _LocalTarget | _StoredTarget:
    text = str(path) if isinstance(path, (str, os.PathLike)) or hasattr(path, "fs") else ""
    if not _NAME.fullmatch(text) or "\0" in text:
        raise CoveoInputError(
            f"Invalid rejected_path: {short_repr(path)}",
            remedy="Pass a file whose name ends in .ndjson, .jsonl, .ndjson.gz or .jsonl.gz, local or on an "
            "object storage, as in s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz",
        )
    if "://" not in text:
        return _LocalTarget(text)
    local = storage.local_path(text)
    if local is not None:
        return _LocalTarget(local)
    if text.split("://")[0] in {"http", "https"}:
        raise CoveoInputError(
            f"Invalid rejected_path: {short_repr(text.partition('?')[0])}",
            cause="HTTP URLs can't be written to",
            remedy="Pass a local file, or one on an object storage",
        )
    return _StoredTarget(_place_of(path))


def _identity(file: object) -> str:
    """Return a name that is the same for all paths of one file."""
    text = str(file)
    local = storage.local_path(text) if "://" in text else text
    return text if local is None else os.path.realpath(local)


def _identities(path: object, present: Sequence[object]) -> set[str]:
    """Return the identities of one or more paths, and of the files that the existing ones select."""
    given = path if isinstance(path, (list, tuple)) else [path]
    return {_identity(file) for file in [*given, *(file for one in present for file in files_of(one))]}


# --- the items in the file ---


class ItemAsJson(bytes):
    """A result of :func:`item_as_json`."""

    __slots__ = ()


def item_as_json(item: object) -> bytes:
    """
    Return an item as a member of a JSON object: exactly if JSON can represent it, otherwise as its repr.

    :param item: The item.
    """
    try:
        if isinstance(item, Delete):
            deletion = {"documentId": item.document_id, "deleteChildren": item.delete_children}
            if type(item.document_id) is str and type(item.delete_children) is bool:
                return b'"delete": ' + _exact_json(deletion)
        elif isinstance(item, (bytes, bytearray, memoryview)):
            return b'"item": ' + _one_line(bytes(item))
        # Without any members, it stands for a deletion whose ID is unknown, which must not become an item.
        elif not (isinstance(item, ItemWithoutId) and not item):
            members = item.as_dict() if isinstance(item, Item) else item
            if isinstance(members, Mapping):
                return b'"item": ' + _exact_json(dict(members))
    except MemoryError:
        raise
    except Exception as problem:
        log.debug("Could not write an item as JSON: %r", problem)
    return b'"item_repr": ' + json.dumps(_shortened_repr(item)).encode()


def _exact_json(members: Mapping[str, object]) -> bytes:
    plain = {key: value if _is_json(value) else _as_sent(key, value) for key, value in members.items()}
    if not _is_json(plain):
        raise ValueError("JSON can't represent it")
    return json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()


def _is_json(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    if type(value) is list:
        return all(map(_is_json, value))
    return value is None or type(value) in {str, bool, int, float}


def _as_sent(key: object, value: object) -> object:
    """Return a value that JSON can't represent in the form that a push sends, if it is valid."""
    return validate_metadata(str(key), value)


def _one_line(text: bytes) -> bytes:
    # Unparsed, since a parser would keep only one of two members with the same name.
    if type(msgspec.json.decode(text)) is not dict:
        raise ValueError("not a JSON object")
    return text.strip().replace(b"\r", b" ").replace(b"\n", b" ")


def _shortened_repr(item: object) -> str:
    try:
        text = _repr.repr(bytes(item[:_MAX_REPR]) if isinstance(item, memoryview) else item)
    except Exception:
        text = f"<{type(item).__name__}>"
    return text[:_MAX_REPR]


_NO_ITEM: Final = msgspec.Raw()


class _Line(msgspec.Struct):
    index: int | None = None
    document_id: str | None = None
    item: msgspec.Raw = _NO_ITEM
    delete: dict[str, object] | None = None
    source_id: str | None = None


class RejectedItems:
    """
    The items in files that :class:`RejectedItemsFile` wrote, to push them again.

    :param path: A file, a folder or a glob, or a list of these.
    """

    def __init__(self, path: object) -> None:
        self._path = path
        self.count = 0
        #: The number of entries without an item, and the first of their IDs.
        self.without_item = 0
        self.ids_without_item: list[str] = []

    def entries(self, *, other_than: object = None) -> Iterator[object]:
        """
        Yield items, as bytes, and deletions.

        :param other_than: The file to be written, which must not be among those that are read.
        :raises CoveoInputError: if a file is not a file of rejected items.
        """
        paths = _present(self._path)
        if other_than and _identity(_target(other_than)) in _identities(self._path, paths):
            raise CoveoInputError(
                f"rejected_path is also a file to read: {short_repr(str(other_than))}",
                cause="it would be replaced, and its entries without an item would be lost",
                remedy="Pass another file for the items that are rejected again",
            )
        if not paths:
            log.warning("Found no file %s: nothing was rejected, or the path is wrong", self._path)
            return
        for line in self._lines(paths):
            self.count += 1
            if bytes(line.item):
                yield bytes(line.item)
            elif line.delete is not None:
                yield Delete(line.delete.get("documentId"), line.delete.get("deleteChildren", False))  # type: ignore[arg-type]
            else:
                self.without_item += 1
                if len(self.ids_without_item) < 20:
                    self.ids_without_item.append(sanitize(line.document_id or f"number {line.index}"))

    def reject_other_source(self, source_id: str) -> None:
        """
        Read the files once, to find out whether they contain items of another source.

        :param source_id: The source to which the items are pushed.
        :raises CoveoInputError: if an entry belongs to another source, or a file is not a file of rejected
            items.
        """
        for line in self._lines(_present(self._path)):
            if line.source_id is not None and line.source_id != source_id:
                other = short_repr(line.source_id)
                raise CoveoInputError(
                    f"Could not push {short_repr(str(self._path))} to source {source_id!r}: it contains "
                    f"rejected items of source {other}",
                    cause="the path or source_id is wrong; another source may show items to other users",
                    remedy=f"Pass source_id={other}, or allow_other_source=True if these items belong into "
                    f"{source_id!r} too",
                )

    def _lines(self, paths: list[object]) -> Iterator[_Line]:
        decoder = msgspec.json.Decoder(_Line)
        if paths:
            # A folder that is named like a partition adds nothing to the items.
            for text in read_files(paths, file_format="ndjson", partitioning=None):
                yield _decoded(decoder, text, self._path)

    def result(self) -> dict[str, object]:
        """Return the number of entries, and which have no item, as small JSON."""
        return {
            "entries": self.count,
            "without_item": self.without_item,
            "document_ids_without_item": self.ids_without_item,
        }


def _decoded(decoder: msgspec.json.Decoder[_Line], text: Any, path: object) -> _Line:
    try:
        line = decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, TypeError):
        line = None
    if line is None or (line.source_id is None and line.index is None):
        raise CoveoInputError(
            f"{str(path)!r} is not a file of rejected items: it contains the line "
            f"{short_repr(bytes(text)[:200])}",
            remedy="Pass the rejected_path of a push; push other files with PushItemsOperator",
        )
    return line


def _present(path: object) -> list[object]:
    """Return a path, or those of a list, without files that do not exist."""
    if isinstance(path, (list, tuple)):
        return [each for one in path for each in _present(one)]
    text = str(path)
    local = storage.local_path(text) if "://" in text else text
    if _GLOB_CHARACTERS.search(text):
        return [path]
    if local is not None:
        return [path] if os.path.lexists(local) else []
    place = _place_of(path)
    return [] if storage.StoredTree(place).at(place.path) is None else [path]


def _place_of(path: object) -> storage.Place:
    if hasattr(path, "fs") and hasattr(path, "path"):
        return storage.of_path(path)
    return storage.opened(str(path))
