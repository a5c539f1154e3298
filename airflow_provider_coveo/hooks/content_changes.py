"""Records requests that change a source's content, so that no push resumes after them."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote

from airflow_provider_coveo.hooks.recording import RecordingHook, task_context
from airflow_provider_coveo.state.content_changes import ContentChanges, RecentPushes

_SOURCE: Final = r"/(?:push/v1|rest)/organizations/([^/]+)/sources/([^/]+)(.*)"
#: Requests to a source that don't change its content. Any other request may change it.
_HARMLESS: Final = r"/(status|duplicate|tasks/abort|pushRefresh|stopRefresh)/?"
#: The environment variables by which Airflow identifies the task to its process and to child processes.
_IN_ENVIRONMENT: Final = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
)

#: The number of batches that a push that can't be resumed records in advance, before its first batch.
_BATCHES_AHEAD: Final = 8

_lock = threading.Lock()
#: How often this process has changed the content of each source, not counting resumable pushes.
_changes_of_this_process: Counter[tuple[str, str]] = Counter()


def changed_source(method: str | None, path: str) -> str | None:
    """
    Return the source whose content a request may change, or ``None`` if there is none.

    :param method: The HTTP method.
    :param path: The path.
    """
    if str(method).upper() in {"GET", "HEAD", "OPTIONS"}:
        return None
    # The path can begin with a prefix, such as a gateway's.
    found = re.search(_SOURCE, path)
    if found is None or re.fullmatch(_HARMLESS, found[3]):
        return None
    source_id = unquote(found[2])
    if not found[3] and str(method).upper() == "POST":
        return None
    # These are not source IDs: /sources/pages and /sources/raw concern all sources.
    return None if source_id in {"pages", "raw"} else source_id


def run_of(hook: RecordingHook) -> tuple[str, str, str] | None:
    """
    Return names for the run, the task with its map index, and the attempt that use a hook.

    :param hook: The hook.
    :return: ``None`` outside a run.
    """
    context = task_context(hook)
    if context is not None:
        ti = context["ti"]
        run = (str(ti.dag_id), str(ti.run_id))
        task = (str(ti.task_id), str(getattr(ti, "map_index", -1)))
        this_try = f"{getattr(ti, 'try_number', 0)} {getattr(ti, 'max_tries', 0)}"
    else:
        # A task's callbacks and child processes have no context.
        known = [os.environ.get(name, "") for name in _IN_ENVIRONMENT]
        if not all(known[:2]):
            return None
        run, task, this_try = (known[0], known[1]), (known[2], ""), known[3]
    return _name(*run), _name(*run, *task), this_try


def _name(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def recording(hook: RecordingHook, source_id: str | None) -> Iterator[None]:
    """
    Record, before and after a request, that it changes the content of a source.

    The record before the request covers the case that the process is killed. The record after it is for
    pushes that began in the meantime. Nothing is written if this hook wrote the latest record.

    :param hook: The hook that makes the request.
    :param source_id: The source, or ``None`` if the request changes none.
    """
    if source_id is None:
        yield
        return
    with _lock:
        _changes_of_this_process[hook.organization_id, source_id] += 1
    run = run_of(hook)
    if run is None:
        yield
        return
    _record(hook, source_id, run[0])
    try:
        yield
    finally:
        _record(hook, source_id, run[0])


def _record(hook: RecordingHook, source_id: str, run: str) -> None:
    changes = ContentChanges(hook.organization_id, source_id)
    try:
        last = changes.last()
        if last is None or last.name != hook.last_changes.get(source_id):
            hook.last_changes[source_id] = changes.add(run).name
    except Exception as problem:
        _warn(hook, source_id, problem)


def _warn(hook: RecordingHook, source_id: str, problem: Exception) -> None:
    hook.log.warning(
        "Could not record that this run changes the content of source %s; attempts of this task or another "
        "may push everything instead of resuming: %r",
        source_id,
        problem,
    )


class RunPushRecords:
    """
    The records of a push, and the check whether batches accepted by an earlier attempt are still valid.

    :param hook: The hook that pushes.
    :param source_id: The source.
    :param resumable: Whether a later attempt can resume where this one ends.
    """

    def __init__(self, hook: RecordingHook, source_id: str, *, resumable: bool) -> None:
        self._hook = hook
        self._source_id = source_id
        self._key = (hook.organization_id, source_id)
        self._run = run_of(hook)
        self._resumable = resumable
        self._changes = ContentChanges(*self._key)
        self._made_before = _changes_of_this_process[self._key]
        self._told_of_deletions = False
        self._began = False
        #: The number of batches on record as sent by this push.
        self._recorded = 0

    @property
    def is_alone(self) -> bool:
        """Whether nothing else in this process has changed the source's content since the push began."""
        return _changes_of_this_process[self._key] == self._made_before

    def still_stands(self, since: str) -> bool:
        """
        Return whether only attempts of this push have changed the source's content.

        :param since: The change after which to look, as :meth:`begin` returned it.
        """
        if self._run is None:
            # Outside a run, nothing is recorded.
            return not since
        try:
            return bool(since) and self._changes.still_stands(since, *self._run[:2])
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)
            return False

    def begin(self, since: str = "") -> str:
        """
        Record that the push sends its first batch.

        :param since: The change from which on its earlier batches are valid, if there are any.
        :return: The change from which on its batches are valid; empty outside a run.
        """
        self._began = True
        if not self._resumable:
            with _lock:
                _changes_of_this_process[self._key] += 1
        if self._run is None or since:
            return since
        try:
            change = (
                self._changes.of_run(self._run[0]) if self._resumable else self._changes.add(self._run[0])
            )
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)
            return ""
        return change.name

    def sending(self, batches: int, *, deletes: bool) -> None:
        """
        Record, before a batch is submitted, that it deletes items, which may belong to others.

        For a push that can't be resumed, also record in advance how many batches it may have sent, because a
        process that is killed without warning can't record it anymore.

        :param batches: The number of batches sent before.
        :param deletes: Whether the batch deletes items.
        """
        if not self._resumable and batches >= self._recorded:
            self._record_pushed(2 * max(batches, _BATCHES_AHEAD // 2))
        if deletes and self._resumable and not self._told_of_deletions:
            self._told_of_deletions = True
            self._add()

    def batches_before(self) -> int:
        """Return how many batches other attempts of the task sent recently, as far as known."""
        if self._run is None:
            return 0
        try:
            return RecentPushes(*self._key).batches_before(*self._run[1:])
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)
            return 0

    def end(self, batches: int) -> None:
        """
        Record that the push has ended, for pushes that began in the meantime and for later attempts.

        :param batches: The number of batches sent.
        """
        if not self._began:
            return
        if self._told_of_deletions or not self._resumable:
            self._add()
        else:
            self._add_if_others_did()
        if batches != self._recorded:
            self._record_pushed(batches)

    def _add_if_others_did(self) -> None:
        """Record the end if others recorded changes: a push of only changes may have ended meanwhile."""
        if self._run is None:
            return
        try:
            self._changes.of_run(self._run[0])
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)

    def _record_pushed(self, batches: int) -> None:
        """Record how many batches the push has sent; it replaces the earlier record."""
        if self._run is None:
            return
        try:
            RecentPushes(*self._key).add(*self._run[1:], batches - self._recorded)
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)
        else:
            self._recorded = batches

    def _add(self) -> None:
        if self._run is None:
            return
        try:
            self._changes.add(self._run[0], self._run[1] if self._resumable else "")
        except Exception as problem:
            _warn(self._hook, self._source_id, problem)
