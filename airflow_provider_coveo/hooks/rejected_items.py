"""The file of rejected items: one for all attempts of a task."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_coveo.content.files import read_files
from airflow_provider_coveo.content.rejected_items import ItemAsJson, RejectedItemsFile, item_as_json
from airflow_provider_coveo.content.scratch import ScratchFolder
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.indexing import Pushed
from airflow_provider_coveo.coveo.invalid_items import InvalidItemError
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.item_logs import MAX_WINDOW, parse_datetime
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.rejections import DELETES, Rejection, rejections_of
from airflow_provider_coveo.hooks.recording import RecordingHook, task_context
from airflow_provider_coveo.state.attempts import UsedInAttempt
from airflow_provider_coveo.state.task_store import RunState

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import RejectedResult

log = logging.getLogger(__name__)

_KEY: Final = "coveo_rejected_items"
#: The operations of a push, as the item logs name them.
_OPERATIONS: Final = ("ADD", "ADD_BY_REFERENCE", "UPDATE", *DELETES, "BATCH_FILE")

#: The files of successful pushes.
_USED: Final[UsedInAttempt[bool]] = UsedInAttempt()


class RunRejectedItems:
    """
    The file of rejected items of one push. Of several failed attempts, the fullest file is kept.

    Every attempt reads the input from the beginning, so a later attempt finds everything that an earlier one
    found. If a later attempt fails sooner, it keeps the earlier file. A successful attempt always replaces
    it.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param path: The file.
    :raises CoveoInputError: if the path is invalid, or an earlier push of the same attempt has succeeded with
        the same path.
    """

    def __init__(self, hook: RecordingHook, source_id: str, path: object) -> None:
        self._file = RejectedItemsFile(path, source_id)
        context = task_context(hook)
        self._state = None if context is None else RunState(context)
        self._used: dict[str, bool] = {} if context is None else _USED.of(context)
        if str(self._file) in self._used:
            raise CoveoInputError(
                f"Invalid rejected_path: an earlier push of this task has the same path, {self._file}",
                cause="this push would replace its rejected items",
                remedy="Pass a different rejected_path to each push of a task",
            )

    def add(self, index: int, error: InvalidItemError) -> None:
        """
        Add an invalid item.

        :param index: Its index in the input.
        :param error: The error, with the item.
        """
        self._file.add_invalid(index, error, error.item)

    def end(self, *, succeeded: bool) -> None:
        """
        Write the file.

        :param succeeded: Whether the push succeeded. If not, a failure to write the file is only logged.
        :raises RejectedItemsError: if it can't be written.
        """
        try:
            with closing(self._file):
                self._write(succeeded=succeeded)
            if succeeded:
                self._used[str(self._file)] = True
        except Exception as problem:
            if succeeded:
                raise
            log.warning("Could not write the rejected items to %s: %r", self._file, problem)

    def _write(self, *, succeeded: bool) -> None:
        file, state = self._file, self._state
        before = state.get(_KEY) if state is not None else None
        earlier = 0
        if isinstance(before, Mapping) and before.get("path") == str(file):
            earlier = int(before.get("rejected") or 0)
        if not succeeded and earlier > file.count:
            file.exists = True
            kept = quantity(earlier, "rejected item")
            log.info("Keeping %s that an earlier attempt wrote to %s", kept, file)
        elif file.count:
            file.write()
            if state is not None:
                state.set(_KEY, {"path": str(file), "rejected": file.count})
        elif earlier and state is not None:
            file.remove()
            state.delete(_KEY)

    def result(self) -> RejectedResult:
        """Return the number of rejected items, and the file if there is one, as small JSON."""
        return self._file.result()


class ReadsLogs(Protocol):
    """The part of ``CoveoPushHook`` that reads item logs."""

    @property
    def organization_id(self) -> str:
        """The ID of the organization that requests go to."""

    def list_item_logs(
        self,
        source_id: str,
        start: datetime,
        end: datetime,
        *,
        operations: Iterable[str] = (),
        results: Iterable[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the entries of a source's item logs."""


class PipelineRejections:
    """
    The items that Coveo's pipeline rejected, each once. A database on disk holds them, to bound memory.

    :param entries: The entries of the item logs.
    :param results: The results that count as rejected.
    """

    def __init__(self, entries: Iterable[Mapping[str, object]], results: Sequence[str]) -> None:
        self._scratch = ScratchFolder("coveo-rejected-")
        self._database = sqlite3.connect(self._scratch.path / "items.db")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE item (id TEXT, deleted INT, task TEXT, result TEXT, reason TEXT, request_id TEXT, "
            "at TEXT, operation TEXT, json BLOB, PRIMARY KEY (id, deleted))"
        )
        for entry in entries:
            for found in rejections_of([entry], results):
                self._database.execute(
                    "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL) "
                    "ON CONFLICT (id, deleted) DO UPDATE SET task = excluded.task, "
                    "result = excluded.result, reason = excluded.reason, "
                    "request_id = excluded.request_id, at = excluded.at WHERE excluded.at < item.at",
                    _row(found),
                )
        self._database.commit()

    def add_items(self, items: Iterable[object]) -> None:
        """
        Find the rejected items in the pushed input. If several items have the same ID, the last one counts.

        :param items: The input.
        """
        encode = ItemEncoder().encode
        for item in items:
            try:
                encoded = encode(item)
            except InvalidItemError:
                continue
            document_id = encoded[0] if isinstance(encoded, tuple) else encoded.document_id
            self._database.execute(
                "UPDATE item SET json = ? WHERE id = ? AND NOT deleted", (item_as_json(item), document_id)
            )
        self._database.commit()

    def lines(self) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Yield the details of each rejection, with the item as JSON if it was found."""
        for row in self._database.execute("SELECT * FROM item ORDER BY rowid"):
            document_id, _, task, result, reason, request_id, at, operation, json = row
            yield (
                {
                    "document_id": document_id,
                    "reason": reason,
                    "operation": operation,
                    "task": task,
                    "result": result,
                    "request_id": request_id,
                    "at": at,
                },
                json,
            )

    def close(self) -> None:
        """Delete the database."""
        self._database.close()
        self._scratch.close()


def _row(found: Rejection) -> tuple[object, ...]:
    is_deletion = found.operation in DELETES
    known = (found.task, found.result, found.reason, found.request_id, found.at, found.operation)
    return (found.document_id, is_deletion, *known)


def write_pipeline_rejections(
    hook: ReadsLogs,
    pushed: Pushed,
    results: Sequence[str],
    path: object,
    pushed_path: object = None,
    columns: Mapping[str, str] | None = None,
) -> RejectedResult:
    """
    Write the items of a push that Coveo's pipeline rejected to a file, and return their number as small JSON.

    :param hook: The hook that reads the item logs.
    :param pushed: The push.
    :param results: The results that count as rejected; empty if nothing was rejected.
    :param path: The file.
    :param pushed_path: The pushed files, or ``None`` if they can't be read again.
    :param columns: For tables, the mapping of columns to the parts of an item.
    :raises CoveoInputError: if the path is invalid.
    :raises CoveoError: if the logs can't be read.
    :raises RejectedItemsError: if the file can't be written.
    """
    file = RejectedItemsFile(path, pushed.source_id)
    if not results:
        return file.result()
    start = parse_datetime(pushed.started)
    end = min(max(datetime.now(timezone.utc), start), start + MAX_WINDOW)
    entries = hook.list_item_logs(pushed.source_id, start, end, results=results, operations=_OPERATIONS)
    with closing(file), closing(PipelineRejections(entries, results)) as rejections:
        if pushed_path is not None:
            rejections.add_items(read_files(pushed_path, columns=columns))
        for entry, json in rejections.lines():
            file.add(entry, None if json is None else ItemAsJson(json))
        file.write()
    return file.result()
