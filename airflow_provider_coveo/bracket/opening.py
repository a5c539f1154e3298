"""Opening a source by a bracket: it is recorded before the request, and checked again afterward."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.bracket.closing import REJECTED_CONNECTION, close_source, hook_of
from airflow_provider_coveo.bracket.errors import PushSourceUpdateFailed
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    AuthenticationError,
    CertificateError,
    CoveoError,
    CoveoInputError,
    InvalidParameterError,
    InvalidRequestError,
    NotFoundError,
    OrganizationPausedError,
    SourceDoesNotExistError,
)
from airflow_provider_coveo.coveo.sources import active_since_ms, is_active
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    SourceRecord,
    new_opening,
    read_bracket,
    write_bracket,
)
from airflow_provider_coveo.state.liveness import live_among
from airflow_provider_coveo.state.owners import give_back, own_among, record_closing, without
from airflow_provider_coveo.state.run_marks import CurrentRun

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import StatusResult
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

log = logging.getLogger(__name__)

#: Errors that guarantee that a status was not set.
_NOT_APPLIED: Final = (
    AccessDeniedError,
    AuthenticationError,
    CertificateError,
    CoveoInputError,
    InvalidParameterError,
    InvalidRequestError,
    NotFoundError,
    OrganizationPausedError,
    SourceDoesNotExistError,
)
#: Seconds until a claim is read back: longer than another task takes from its check to its claim.
_SETTLE_SECONDS: Final = 2.0
#: How long a task waits for another one of its bracket that is about to open the source: before it claims the
#: source itself, and after another one has replaced its claim.
_SIBLING_STARTS_SECONDS: Final = 15.0
_SIBLING_SECONDS: Final = 60.0
#: The maximum time between a response to an opening and the start of its activity, as Coveo reports them.
_SAME_ACTIVITY_MS: Final = 300_000
_CLOSED_PHASES: Final = frozenset({Phase.CLOSING, Phase.CLOSED, Phase.LEFT})


class SourceBusyError(Exception):
    """
    The source is in use, so an exclusive bracket does not open it now.

    :param holder: The bracket that uses it, ``None`` if it is something outside the provider.
    """

    def __init__(self, holder: Holder | None) -> None:
        super().__init__()
        self.holder = holder

    def __str__(self) -> str:
        return str(self.holder) if self.holder else "something outside this provider"


class OpenedByAnotherTaskError(SourceBusyError):
    """
    Another task of the same exclusive bracket opens the source at the same time.

    :param holder: The bracket.
    :param record: Its record.
    """

    def __init__(self, holder: Holder, record: BracketRecord) -> None:
        super().__init__(holder)
        self.record = record


@dataclass(frozen=True)
class Opening:
    """
    One opening of a source by a bracket.

    :param hook: The hook to send with.
    :param bracket: The bracket.
    :param record: The bracket's saved state. If it is pinned, its source and connection are opened.
    :param source_id: The source.
    :param coveo_conn_id: The connection.
    :param status: The active status.
    :param exclusive: Whether to open only if nothing else uses the source.
    :param reopened_by: The task that opens the bracket again, and its map index, if it is a member.
    :param members_outside: The bracket's tasks that are not in its task group. Default none.
    :param announce: Called with the record before anything is sent.
    :param this_run: What tells the run from a deleted one with its ID. Default: unknown.
    """

    hook: CoveoPushHook
    bracket: Holder
    record: BracketRecord
    source_id: str
    coveo_conn_id: str
    status: str
    exclusive: bool = False
    reopened_by: tuple[str, int] | None = None
    members_outside: tuple[str, ...] = ()
    announce: Callable[[BracketRecord], None] | None = None
    this_run: CurrentRun | None = None

    def run(self) -> tuple[StatusResult, BracketRecord]:
        """
        Open the source.

        :return: Coveo's response, and the bracket's new state.
        :raises SourceBusyError: if the bracket is exclusive and the source is in use; nothing is sent.
        :raises OpenedByAnotherTaskError: if another task of the exclusive bracket opens it; nothing is sent.
        :raises PushSourceUpdateFailed: if the bracket was closed during the request.
        :raises CoveoError: if the request fails.
        """
        ledger = SourceLedger(self.hook.organization_id)
        holders = ledger.holders(self.source_id)
        own = own_among(self.bracket, holders)
        mine = SourceRecord(
            self.bracket.dag_id,
            self.bracket.run_id,
            self.bracket.open_task_id,
            self.bracket.map_index,
            opening=new_opening(),
            status=self.status,
            coveo_conn_id=self.coveo_conn_id,
            reopened_by=self.reopened_by,
            members_outside=self.members_outside,
            # If an earlier attempt has ended before it could close the source with that connection.
            left_conn_id=self.record.left_conn_id if own is None else own.left_conn_id,
        )
        holds_already = own is not None and not own.is_claim
        if self.exclusive and own is not None and holds_already and self.record.may_be_open:
            if _shows_another_activity(self.hook.get_source(self.source_id), own):
                # Somebody closed the source since, so this bracket has nothing to close either.
                closed = replace(self.record, phase=Phase.CLOSED, is_concluded=True)
                write_bracket(self.bracket, closed)
                ledger.release(self.source_id, self.bracket, holders)
                return replace(self, record=closed).run()
        elif self.exclusive:
            holders = self._claim(ledger, mine, holders)
        opening = replace(
            self.record,
            organization_id=self.hook.organization_id,
            source_id=self.source_id,
            coveo_conn_id=self.coveo_conn_id,
            status=self.status,
            phase=Phase.OPENING,
            opening=mine.opening,
            is_concluded=False,
            opened_at=time.time(),
            reopened_by=self.reopened_by,
            waiting=None,
            waiting_for="",
            closed_by="",
            left_for=None,
            left_conn_id=mine.left_conn_id,
            mark=None if self.this_run is None else self.this_run.mark,
        )
        # From here on, `close` must run, so everything that it and the callbacks need is saved first.
        write_bracket(self.bracket, opening)
        ledger.hold(self.source_id, mine, holders)
        if self.announce is not None:
            self.announce(opening)
        try:
            result = self.hook.set_source_status(self.source_id, self.status)
        except BaseException as error:
            self._conclude_failure(ledger, opening, error, self.record.may_be_open or holds_already)
            raise
        at_ms = result.get("ordering_id")
        run = ledger.opened(
            self.source_id, self.bracket, at_ms, opening, among=holders, this_run=self.this_run
        )
        opened = replace(
            opening,
            phase=Phase.OPEN,
            is_concluded=True,
            left_conn_id="",
            first_cut_off_ms=None if run.why_unknown else run.first_cut_off_ms,
            why_unknown=run.why_unknown,
        )
        self._look_again(ledger, replace(mine, since_ms=at_ms, left_conn_id=""), opened)
        return result, opened

    def _claim(
        self, ledger: SourceLedger, mine: SourceRecord, holders: tuple[SourceRecord, ...]
    ) -> tuple[SourceRecord, ...]:
        """Claim the source, let the claim settle, read it back, and check Coveo."""
        if self.reopened_by is not None and own_among(self.bracket, holders) is not None:
            holders = self._wait_for_siblings(ledger, mine, _SIBLING_STARTS_SECONDS)
        known: set[SourceRecord] = set()
        # To find out takes seconds in which another bracket may open the source.
        while new := [each for each in without(self.bracket, holders) if each not in known]:
            known.update(new)
            for other in live_among(new):
                raise SourceBusyError(other)
            holders = ledger.holders(self.source_id)
        others = without(self.bracket, holders)
        ledger.hold(self.source_id, replace(mine, is_claim=True), holders)
        try:
            time.sleep(_SETTLE_SECONDS)
            holders = self._wait_for_siblings(ledger, mine, _SIBLING_SECONDS)
            # Brackets that are no longer live may have left the source active; this bracket closes it.
            left = [other for other in others if _left_active(other)]
            self._check_claim(mine, holders, left)
        except BaseException:
            ledger.release(self.source_id, mine, opening=mine.opening)
            raise
        for other in left:
            # If its DAG was only paused, its tasks open the source again, or wait for this bracket.
            record_closing(other, self.source_id, Phase.LEFT, left_for=self.bracket, also_while_opening=False)
        return tuple(holder for holder in holders if holder not in left)

    def _join_another_task(self) -> None:
        current = read_bracket(self.bracket)
        if current is not None and current.may_be_open and current.opening != self.record.opening:
            raise OpenedByAnotherTaskError(self.bracket, current)

    def _wait_for_siblings(
        self, ledger: SourceLedger, mine: SourceRecord, seconds: float
    ) -> tuple[SourceRecord, ...]:
        """
        Return the owners of the source, unless another task of the bracket opens it.

        Airflow starts the tasks that were cleared together at the same time. One of them opens the source,
        for all.

        :param ledger: The records.
        :param mine: The record of this opening.
        :param seconds: The maximum time to wait for one that claims the source; it may have been killed.
        """
        until = time.monotonic() + seconds
        while True:
            holders = ledger.holders(self.source_id)
            own = own_among(self.bracket, holders)
            if own is None or own.opening == mine.opening:
                return holders
            self._join_another_task()
            if not own.is_claim or time.monotonic() > until:
                return holders
            time.sleep(1)

    def _check_claim(
        self, mine: SourceRecord, holders: tuple[SourceRecord, ...], left: list[SourceRecord]
    ) -> None:
        if not holders or holders[0].opening != mine.opening:
            # The latest claim wins; the other bracket gives up.
            raise SourceBusyError(holders[0].bracket if holders else None)
        source = self.hook.get_source(self.source_id)
        if is_active(source) and all(_shows_another_activity(source, other) for other in left):
            raise SourceBusyError(None)

    def _conclude_failure(
        self, ledger: SourceLedger, opening: BracketRecord, error: BaseException, may_be_open: bool
    ) -> None:
        """Record the failure of a request, unless the bracket was closed in the meantime."""
        current = read_bracket(self.bracket) or opening
        if current.opening != opening.opening:
            return
        if current.phase in _CLOSED_PHASES:
            write_bracket(self.bracket, replace(current, is_concluded=True))
        elif (
            isinstance(error, _NOT_APPLIED)
            # An earlier attempt of the same request may have set it.
            and not error.repeats
            and (opening.left_conn_id or not may_be_open)
        ):
            self._conclude_rejection(ledger, opening)
        else:
            write_bracket(self.bracket, replace(opening, phase=Phase.UNSURE, is_concluded=True))

    def _conclude_rejection(self, ledger: SourceLedger, opening: BracketRecord) -> None:
        """
        Record that Coveo rejected the status, and close what another bracket left open for this one.

        Otherwise, there is nothing to close, and IDLE would end someone else's activity on the source.
        """
        mine = own_among(self.bracket, ledger.holders(self.source_id))
        left_conn_id = opening.left_conn_id if mine is None else mine.left_conn_id
        if left_conn_id:
            unsure = replace(opening, phase=Phase.UNSURE, is_concluded=True, left_conn_id=left_conn_id)
            write_bracket(self.bracket, unsure)
            # This bracket's connection was rejected, and that of the other one worked.
            hook = hook_of(replace(unsure, coveo_conn_id=left_conn_id))
            try:
                close_source(hook, self.bracket, unsure)
            except CoveoError as error:
                log.warning("%s The bracket's close tries again", error)
                return
        ledger.release(self.source_id, self.bracket)
        # The bracket that left it looks for that time.
        closed_at = time.time() if left_conn_id else self.record.closed_at
        rejected = replace(self.record, phase=Phase.REJECTED, is_concluded=True, waiting=None)
        write_bracket(self.bracket, replace(rejected, closed_at=closed_at, left_conn_id=""))

    def _look_again(self, ledger: SourceLedger, mine: SourceRecord, opened: BracketRecord) -> None:
        """Close the source again if the bracket was closed during the request."""
        holders = ledger.holders(self.source_id)
        is_on_record = any(holder.opening == mine.opening for holder in holders)
        if not is_on_record:
            current = read_bracket(self.bracket)
            is_latest = current is None or current.opening == mine.opening
            if not is_latest and current is not None and current.source_id == self.source_id:
                # Another task of the bracket has opened it since.
                return
            if current is not None and (current.phase in _CLOSED_PHASES or not is_latest):
                if not any(live_among(holder for holder in holders if not holder.is_claim)):
                    idle = self.hook.set_source_status(self.source_id, "IDLE")

                    def others() -> list[SourceRecord]:
                        return without(self.bracket, ledger.holders(self.source_id))

                    give_back(self.hook.set_source_status, idle, others(), others)
                if is_latest:
                    write_bracket(
                        self.bracket,
                        replace(opened, phase=Phase.CLOSED, opening=mine.opening, is_concluded=True),
                    )
                raise PushSourceUpdateFailed(
                    f"Could not open source {self.source_id!r}: the bracket was closed during the request, "
                    "so the source is set to IDLE again. Likely cause: the run or this task was "
                    "marked by hand. Remedy: Clear the run to continue it."
                )
        ledger.hold(self.source_id, mine, holders)
        if not is_on_record:
            # Another bracket closed the source at the same time, possibly after this request.
            self.hook.set_source_status(self.source_id, self.status)
        write_bracket(self.bracket, opened)


def close_what_a_deleted_run_left(
    bracket: Holder, record: BracketRecord, hook: CoveoPushHook | None = None
) -> None:
    """
    Set the source of a bracket to ``IDLE`` before its record is replaced by that of a run with the same ID.

    Nothing else would close the source: the new run owns it under the same name.

    :param bracket: The bracket.
    :param record: The record of the deleted run.
    :param hook: The hook to send with if it is one for the same organization. Default: the one on record.
    :raises CoveoError: if the request fails, and another attempt can help.
    """
    if not record.may_be_open:
        return
    log.warning(
        "A deleted run with the ID of this one may have left source %s active; closing it", record.source_id
    )
    try:
        if hook is None or hook.organization_id != record.organization_id:
            hook = hook_of(record)
        ledger = SourceLedger(record.organization_id)
        holders = ledger.holders(record.source_id)
        own = own_among(bracket, holders)
        if own is not None and _is_someone_elses(hook, own, record.source_id):
            log.info("Source %s was opened by someone else since; leaving it open", record.source_id)
            ledger.release(record.source_id, bracket, holders)
            return
        # The connection on record has worked; that of the hook may be another one.
        close_source(hook, bracket, replace(record, left_conn_id=record.left_conn_id or record.coveo_conn_id))
    except Exception as error:
        if isinstance(error, CoveoError) and not isinstance(error, _NOT_APPLIED):
            raise
        # Such as a source or a connection that was deleted, too.
        log.warning("Could not close source %s: %s: %s", record.source_id, type(error).__name__, error)


def _is_someone_elses(hook: CoveoPushHook, holder: SourceRecord, source_id: str) -> bool:
    try:
        return _shows_another_activity(hook.get_source(source_id), holder)
    except REJECTED_CONNECTION:
        # The key may lack the privilege to view sources.
        return False


def _shows_another_activity(source: Mapping[str, object], holder: SourceRecord) -> bool:
    """Return whether a source is active, and not because of a bracket that is on record as its owner."""
    since_ms = active_since_ms(source)
    if not is_active(source) or since_ms is None or holder.since_ms is None:
        return False
    return since_ms > holder.since_ms + _SAME_ACTIVITY_MS


def _left_active(holder: SourceRecord) -> bool:
    if holder.is_claim:
        return False
    record = read_bracket(holder.bracket)
    return record is None or record.may_be_open
