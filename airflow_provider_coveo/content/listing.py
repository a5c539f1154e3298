"""
List the files that a path, a folder or a glob selects, on this machine and on object storages.

Nothing is skipped silently: anything that can't be listed or examined is an error. So this module uses
neither ``glob`` nor those methods of paths and storages that return ``False`` or nothing when they fail.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from airflow_provider_coveo.content import storage
from airflow_provider_coveo.content.storage import Found, ReadableFile
from airflow_provider_coveo.content.table_formats import Folders, reject_tables
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.quantities import quantity

_log: Final = logging.getLogger(__name__)
_GLOB_CHARACTERS: Final = re.compile(r"[*?\[]")


class Tree(Folders, Protocol):
    """A file system: this machine or an object storage."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder."""

    def at(self, path: str) -> Found | None:
        """Return the file or folder at a path, ``None`` if there is none."""

    def look(self, folder: str, name: str) -> Found | None:
        """Return the file or folder of a name in a folder, ``None`` if there is none."""

    def below(self, folder: str) -> list[str] | None:
        """Return the paths of all files below a folder, ``None`` if that takes more than one listing."""


def files_of(path: object) -> list[ReadableFile]:
    """
    Return the files that a path selects, sorted by name.

    :param path: A path, a folder, a glob or a URL, or an ``ObjectStoragePath``.
    :raises CoveoInputError: if there are none, or one is neither a file nor a folder.
    :raises OSError: if a folder can't be listed.
    """
    if isinstance(path, str) and "://" in path:
        local = storage.local_path(path)
        return _local_files(local) if local is not None else _stored_files(storage.opened(path))
    if not isinstance(path, (str, Path)) or "://" in str(path):
        if hasattr(path, "fs") and hasattr(path, "path"):
            # With universal-pathlib before 0.3, an ObjectStoragePath is a pathlib.Path on Python 3.12.
            local = storage.local_path(str(path))
            return _local_files(local) if local is not None else _stored_files(storage.of_path(path))
        if hasattr(path, "is_dir") and hasattr(path, "open"):
            return _files_at(path)
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise CoveoInputError(f"Invalid path: {path!r}", remedy="Pass a path, a glob or a URL such as s3://…")
    return _local_files(str(path))


def _files_at(path: Any) -> list[ReadableFile]:
    """Return the file at a path object of another kind, as a list."""
    if path.is_dir() or not path.exists():
        raise _no_file(path)
    return [path]


def _local_files(path: str) -> list[ReadableFile]:
    tree = _LocalTree()
    found = tree.at(path)
    if found is not None and not found.is_folder:
        return [Path(path)]
    if found is not None:
        return _none_missing(path, [Path(file) for file in reject_tables(tree, _below(tree, found))])
    if not _GLOB_CHARACTERS.search(path):
        raise _no_file(path)
    base, segments = _split_glob(path)
    files = reject_tables(tree, _matching(tree, base, segments, path))
    return _none_missing(path, [Path(file) for file in files])


def _stored_files(place: storage.Place) -> list[ReadableFile]:
    tree = storage.StoredTree(place)
    shown = place.shown(place.path)
    has_signs = place.may_be_glob and _GLOB_CHARACTERS.search(place.path) is not None
    try:
        found = tree.at(place.path)
    except OSError:
        # A user who can list a folder may lack access to an object whose name equals the pattern.
        if not has_signs:
            raise
        found = None
    if found is not None and not found.is_folder and not place.is_folder:
        return [storage.StoredFile(place, place.path)]
    if found is not None:
        return _none_missing(shown, _as_stored(place, reject_tables(tree, _below(tree, found))))
    if not has_signs:
        raise _no_file(shown)
    base, segments = _split_glob(place.path)
    if not base:
        raise CoveoInputError(
            f"Invalid path: {shown!r}; its bucket is a pattern", remedy="Use the bucket's full name"
        )
    return _none_missing(
        shown, _as_stored(place, reject_tables(tree, _matching(tree, base, segments, shown)))
    )


def _as_stored(place: storage.Place, paths: Sequence[str]) -> list[ReadableFile]:
    return [storage.StoredFile(place, path) for path in paths]


def _no_file(path: object) -> CoveoInputError:
    return CoveoInputError(
        f"Could not find the file {str(path)!r}",
        remedy="Check the path, and that the worker can access it: a worker on another machine has its own "
        "files",
    )


def _none_missing(path: str, files: list[ReadableFile]) -> list[ReadableFile]:
    if not files:
        raise CoveoInputError(
            f"Could not find any file at {path!r}",
            remedy="Check the path, and that the files have been written",
        )
    return files


# --- folders and globs on any file system ---


def _is_hidden(name: str) -> bool:
    # Same rule as Spark: a partition's folder is never hidden, whatever the name of its column.
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _below(tree: Tree, folder: Found) -> list[str]:
    """Return the files in a folder and its subfolders, except for hidden ones."""
    flat = tree.below(folder.path)
    if flat is not None:
        begin = len(folder.path.rstrip("/")) + 1
        return sorted(path for path in flat if not any(map(_is_hidden, path[begin:].split("/"))))
    return sorted(_files_below(tree, folder, {folder.identity}, _is_hidden))


def _files_below(
    tree: Tree, folder: Found, seen: set[object], is_hidden: Callable[[str], bool]
) -> Iterator[str]:
    for name in tree.names(folder.path):
        if is_hidden(name):
            continue
        found = _existing(tree.look(folder.path, name), folder.path, name)
        if not found.is_folder:
            yield found.path
        elif found.identity is None or found.identity not in seen:
            # A folder that was seen before is a link back to a parent.
            seen.add(found.identity)
            yield from _files_below(tree, found, seen, is_hidden)


def _existing(found: Found | None, folder: str, name: str) -> Found:
    if found is None:
        raise FileNotFoundError(
            errno.ENOENT,
            "It disappeared after its folder was listed",
            f"{folder.rstrip('/')}/{name}",
        )
    return found


def _split_glob(path: str) -> tuple[str, list[str]]:
    """Split a path before its first segment that is a pattern."""
    segments = path.split("/")
    first = next(index for index, segment in enumerate(segments) if _GLOB_CHARACTERS.search(segment))
    base = "/".join(segments[:first])
    return base or ("/" if path.startswith("/") else ""), [segment for segment in segments[first:] if segment]


def _matching(tree: Tree, base: str, segments: list[str], shown: str) -> list[str]:
    """Return the files that a pattern below a folder matches."""
    root = tree.at(base or ".")
    if root is None or not root.is_folder:
        return []
    root = replace(root, path=base)
    folders: list[str] = []
    files = sorted(set(_matches(tree, root, segments, folders, set())))
    if folders and not files:
        raise CoveoInputError(
            f"Could not find any file at {shown!r}, which matches folders only, such as {folders[0]!r}",
            remedy="To read the files in them, end the pattern with /* or /**",
        )
    if folders:
        _log.warning(
            "%r also matches %s, such as %r; skipping them. To read their files as well, end the "
            "pattern with /**",
            shown,
            quantity(len(folders), "folder"),
            folders[0],
        )
    return files


def _dotted(name: str) -> bool:
    return name.startswith(".")


def _matches(
    tree: Tree, folder: Found, segments: list[str], folders: list[str], seen: set[object]
) -> Iterator[str]:
    head, *rest = segments
    if head == "**":
        seen.add((folder.identity, len(rest)))
        yield from _matches_below(tree, folder, rest, folders, seen)
        return
    is_pattern = _GLOB_CHARACTERS.search(head) is not None
    for name in tree.names(folder.path) if is_pattern else [head]:
        if not _is_name_matched(name.rstrip("/"), head):
            continue
        found = tree.look(folder.path, name)
        if found is None and not is_pattern:
            continue
        found = _existing(found, folder.path, name)
        if rest and found.is_folder:
            yield from _matches(tree, found, rest, folders, seen)
        elif not rest and found.is_folder:
            folders.append(found.path)
        elif not rest:
            yield found.path


def _matches_below(
    tree: Tree, folder: Found, segments: list[str], folders: list[str], seen: set[object]
) -> Iterator[str]:
    """Yield the matches in a folder and in all of its subfolders."""
    flat = tree.below(folder.path)
    if flat is not None:
        begin = len(folder.path.rstrip("/")) + 1
        yield from (path for path in flat if _is_matched(path[begin:].split("/"), ["**", *segments]))
        return
    if not segments:
        yield from _files_below(tree, folder, {folder.identity}, _dotted)
        return
    yield from _matches(tree, folder, segments, folders, seen)
    for name in tree.names(folder.path):
        if _dotted(name):
            continue
        found = _existing(tree.look(folder.path, name), folder.path, name)
        key = (found.identity, len(segments))
        if found.is_folder and (found.identity is None or key not in seen):
            seen.add(key)
            yield from _matches_below(tree, found, segments, folders, seen)


def _is_matched(names: Sequence[str], segments: Sequence[str]) -> bool:
    """Return whether a pattern matches the names of a path below a folder."""
    if not segments or not names:
        return not segments and not names
    head, rest = segments[0], segments[1:]
    if head != "**":
        return _is_name_matched(names[0], head) and _is_matched(names[1:], rest)
    hidden = next((index for index, name in enumerate(names) if _dotted(name)), len(names))
    if not rest:
        return hidden == len(names)
    return any(_is_matched(names[index:], rest) for index in range(min(hidden + 1, len(names))))


def _is_name_matched(name: str, segment: str) -> bool:
    if not _GLOB_CHARACTERS.search(segment):
        return name == segment
    return bool(_pattern(segment).match(name)) and (not _dotted(name) or _dotted(segment))


@functools.lru_cache
def _pattern(segment: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(segment))


# --- this machine ---


class _LocalTree:
    """The local file system. It lists each folder once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder."""
        if folder not in self._names:
            with os.scandir(folder or ".") as entries:
                self._names[folder] = sorted(entry.name for entry in entries)
        return self._names[folder]

    def look(self, folder: str, name: str) -> Found | None:
        """Return the file or folder of a name in a folder."""
        return self._found(os.path.join(folder, name), any_kind=False)  # noqa: PTH118 - a Path has no empty folder

    def at(self, path: str) -> Found | None:
        """Return the file or folder at a path."""
        return self._found(path, any_kind=True)

    def _found(self, path: str, *, any_kind: bool) -> Found | None:
        name = os.path.basename(path)  # noqa: PTH119
        try:
            is_at = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            if _is_link(path):
                raise CoveoInputError(
                    f"Could not read {path!r}: it is a link to a missing file",
                    remedy="Check that the files have been written, or select the files with a glob",
                ) from None
            return None
        except OSError as problem:
            if problem.errno != errno.ELOOP:
                raise
            raise CoveoInputError(
                f"Could not read {path!r}: it is a link that points back to itself",
                remedy="Remove the link, or point it to a file",
            ) from None
        if stat.S_ISDIR(is_at.st_mode):
            return Found(name, path, True, (is_at.st_dev, is_at.st_ino))
        if not any_kind and not stat.S_ISREG(is_at.st_mode):
            raise CoveoInputError(
                f"Could not read {path!r}: it is neither a file nor a folder, but {_kind(is_at.st_mode)}",
                remedy="Move it out of the folder, or select the files with a glob; only path itself can be "
                "a pipe",
            )
        return Found(name, path, False)

    def below(self, folder: str) -> None:
        """Return ``None``: listing a folder does not list its subfolders."""

    def above(self, folder: str) -> list[list[str]]:
        """Return a folder and those above it, as it is written, and without links."""
        written = Path(os.path.abspath(folder or "."))  # noqa: PTH100 - a Path would follow links
        paths = dict.fromkeys((written, written.resolve()))
        return [[str(each) for each in (path, *path.parents)] for path in paths]

    def has(self, folder: str, name: str, *, asks: bool) -> bool:
        """Return whether a folder has another one."""
        return os.path.isdir(os.path.join(folder, name))  # noqa: PTH112, PTH118

    def shown(self, path: str) -> str:
        """Return a path for messages."""
        return path


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _kind(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "a device")
