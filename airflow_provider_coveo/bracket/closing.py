"""Closing a source by a bracket, unless another live bracket owns it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_coveo.coveo.errors import AccessDeniedError, AuthenticationError, FirewallBlockedError
from airflow_provider_coveo.coveo.sources import is_active
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    SourceRecord,
    read_bracket,
    write_bracket,
)
from airflow_provider_coveo.state.liveness import check_run
from airflow_provider_coveo.state.owners import (
    found_live,
    give_back,
    own_among,
    owner_and_claims,
    tell_closed,
    without,
)

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import StatusResult
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.state.owners import LivenessCheck

log = logging.getLogger(__name__)

#: How long the process of a marked or cleared task can survive: with Airflow's default heartbeats up to 8
#: seconds, and on 2.11 up to 26 if it was marked as success.
MAX_LINGERING: Final = 30.0
#: The maximum number of brackets that leave a source for each other.
_MAX_LEFT: Final = 20
#: The phases of a bracket whose ``IDLE`` is on its way, or which sends none.
_CLOSES: Final = frozenset({Phase.CLOSING, Phase.CLOSED, Phase.LEFT, Phase.REJECTED})
#: Errors of a connection, rather than of a source.
REJECTED_CONNECTION: Final = (AccessDeniedError, AuthenticationError, FirewallBlockedError)


class Closing(NamedTuple):
    """
    The result of closing a source.

    :param result: Coveo's response, ``None`` if nothing was sent.
    :param left_for: The bracket for which the source was left open: another one, or a task of this one that
        has opened it again.
    """

    result: StatusResult | None
    left_for: Holder | None = None


def close_source(
    hook: CoveoPushHook,
    bracket: Holder,
    record: BracketRecord,
    still_live: LivenessCheck = check_run,
    make_hook: Callable[[BracketRecord], CoveoPushHook] | None = None,
) -> Closing:
    """
    Set a bracket's source to ``IDLE``, unless another live bracket owns it.

    The bracket's record as the owner is removed before the request: an `open` in progress checks it after its
    own request, and closes the source itself if it is missing.

    :param hook: The hook to send with.
    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Checks whether another bracket is live.
    :param make_hook: Creates a hook for the connection of a bracket that left the source open for this one,
        if that of this one is rejected. Default: :func:`hook_of`.
    :raises CoveoError: if the request fails.
    """
    ledger = SourceLedger(record.organization_id)
    source_id = record.source_id
    known: set[SourceRecord] = set()
    claims: list[SourceRecord] = []
    # To find out takes seconds in which another bracket may open the source, or end.
    while True:
        holders = ledger.holders(source_id)
        others = without(bracket, holders)
        new = [holder for holder in others if holder not in known]
        if not new:
            break
        other, new_claims = owner_and_claims(found_live(new, still_live))
        if other is None:
            known.update(new)
            claims += new_claims
            continue
        # The others are not checked yet.
        known.add(other)
        if ledger.leave(
            source_id, bracket, record.left_conn_id or record.coveo_conn_id, other
        ) and not _has_begun_to_close(other):
            left_for = astuple(other.bracket)
            _keep(bracket, replace(record, phase=Phase.LEFT, reopened_by=None, left_for=left_for))
            return Closing(None, other.bracket)
    own = own_among(bracket, holders)
    if own is not None and own.opening != record.opening and _was_opened_again(bracket, record):
        return Closing(None, bracket.bracket)
    if own is not None and own.left_conn_id:
        record = replace(record, left_conn_id=own.left_conn_id)
    _keep(bracket, replace(record, phase=Phase.CLOSING))
    try:
        ledger.release_all(source_id, holders, tuple(claim for claim in claims if claim in others))
    except Exception:
        log.warning("Could not record that nothing owns source %s anymore", source_id, exc_info=True)
    result = _set_idle(hook, record, make_hook or hook_of)
    now = ledger.holders(source_id)
    again = own_among(bracket, now)
    if (
        again is not None
        and not again.is_claim
        and again.opening not in {record.opening, own.opening if own else ""}
    ):
        log.warning("Another task of the bracket opened source %s; setting %s again", source_id, again.status)
        hook.set_source_status(source_id, again.status)
        if own_among(bracket, ledger.holders(source_id)) is None:
            # It has closed the source during that request.
            hook.set_source_status(source_id, "IDLE")
        return Closing(result, bracket.bracket)
    closed = replace(record, phase=Phase.CLOSED, closed_at=time.time(), reopened_by=None, left_conn_id="")
    _keep(bracket, closed)
    tell_closed(others, source_id)
    give_back(
        hook.set_source_status,
        result,
        without(bracket, now),
        lambda: without(bracket, ledger.holders(source_id)),
        still_live,
    )
    return Closing(result)


def _has_begun_to_close(other: Holder) -> bool:
    """Return whether a bracket closes its source just now, or did: it may not close it once more."""
    current = read_bracket(other.bracket)
    return current is not None and current.phase in _CLOSES


def _was_opened_again(bracket: Holder, record: BracketRecord) -> bool:
    """Return whether another task of the bracket has opened the source since its record was read."""
    current = read_bracket(bracket)
    return current is not None and current.may_be_open and current.opening != record.opening


def _set_idle(
    hook: CoveoPushHook, record: BracketRecord, make_hook: Callable[[BracketRecord], CoveoPushHook]
) -> StatusResult:
    """Send ``IDLE``; if the connection is rejected, with that of a bracket that left the source open."""
    try:
        return hook.set_source_status(record.source_id, "IDLE")
    except REJECTED_CONNECTION as error:
        if not record.left_conn_id:
            raise
        log.warning("%s Trying connection %r, which has opened the source before", error, record.left_conn_id)
        other = make_hook(replace(record, coveo_conn_id=record.left_conn_id))
        return other.set_source_status(record.source_id, "IDLE")


def left_to(bracket: Holder, record: BracketRecord, still_live: LivenessCheck = check_run) -> Holder | None:
    """
    Return the bracket that closes, or has closed, the source that this one left open; ``None`` if none does.

    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Checks whether another bracket is live.
    """
    if record.phase is not Phase.LEFT:
        return None
    other = other_at_work(bracket, record, still_live)
    if other is not None or record.left_for is None:
        return other
    left_for, opened_at = record.left_for, record.opened_at
    # That one may have left it for another one in turn.
    for _ in range(_MAX_LEFT):
        other = Holder(*left_for)
        its = read_bracket(other)
        if its is None:
            return None
        if its.phase is Phase.REJECTED and its.closed_at > opened_at:
            return other
        if its.source_id != record.source_id:
            return None
        # Its own checks ensure that the status stays; anything that the source shows now is someone else's.
        if its.phase is Phase.CLOSED:
            return other
        if its.phase is not Phase.LEFT or its.left_for is None:
            return None
        left_for = its.left_for
    return None


def other_at_work(
    bracket: Holder, record: BracketRecord, still_live: LivenessCheck = check_run
) -> Holder | None:
    """
    Return another live bracket that owns the source of this one.

    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Checks whether another bracket is live.
    """
    holders = SourceLedger(record.organization_id).holders(record.source_id)
    others = [each for each in without(bracket, holders) if not each.is_claim]
    other, _ = owner_and_claims(found_live(others, still_live))
    return None if other is None else other.bracket


def may_be_active(hook: CoveoPushHook, source_id: str) -> bool:
    """
    Return whether a source is active; ``True`` if the key lacks the privilege to view it.

    :param hook: The hook to send with.
    :param source_id: The source.
    """
    try:
        return is_active(hook.get_source(source_id))
    except AccessDeniedError:
        log.info(
            "The API key lacks the privilege to view source %s; sending IDLE again to be sure", source_id
        )
        return True


def hook_of(record: BracketRecord, **options: Any) -> CoveoPushHook:
    """
    Return a hook for the source that a bracket opened.

    :param record: The bracket's record in this run.
    :param options: Other arguments of the hook.
    """
    # DAG files import this module, and the hook imports requests.
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    return CoveoPushHook(
        record.coveo_conn_id,
        organization_id=record.organization_id or None,
        **{"caller": "push_source_update", **options},
    )


def _keep(bracket: Holder, record: BracketRecord) -> None:
    """Save a bracket's record; a failure must not leave a source active."""
    try:
        write_bracket(bracket, record)
    except Exception:
        log.warning("Could not record that the bracket of %s is %s", bracket, record.phase, exc_info=True)
