"""Closing a source by a bracket, unless another live bracket owns it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_coveo.coveo.errors import AccessDeniedError
from airflow_provider_coveo.coveo.sources import is_active
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    SourceRecord,
    record_closing,
    write_bracket,
)
from airflow_provider_coveo.state.liveness import is_live

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import StatusResult
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

log = logging.getLogger(__name__)


class Closing(NamedTuple):
    """
    The result of closing a source.

    :param result: Coveo's response, ``None`` if nothing was sent.
    :param left_for: The bracket for which the source was left open.
    """

    result: StatusResult | None
    left_for: Holder | None = None


def close_source(
    hook: CoveoPushHook,
    bracket: Holder,
    record: BracketRecord,
    still_live: Callable[[SourceRecord], bool] = is_live,
) -> Closing:
    """
    Set a bracket's source to ``IDLE``, unless another live bracket owns it.

    The bracket's record as the owner is removed before the request: an `open` in progress checks it after its
    own request, and closes the source itself if it is missing.

    :param hook: The hook to send with.
    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Returns whether another bracket is live.
    :raises CoveoError: if the request fails.
    """
    ledger = SourceLedger(record.organization_id)
    source_id = record.source_id
    holders = ledger.holders(source_id)
    others = [holder for holder in holders if holder.bracket != bracket.bracket]
    other = _first_live(others, still_live)
    if others and other is None:
        # To find out took seconds in which another bracket may have opened the source.
        before, holders = set(others), ledger.holders(source_id)
        others = [holder for holder in holders if holder.bracket != bracket.bracket]
        other = _first_live([each for each in others if each not in before], still_live)
    if other is not None:
        ledger.leave(source_id, bracket, record.coveo_conn_id, other, holders)
        _keep(bracket, replace(record, phase=Phase.LEFT, reopened_by=None))
        return Closing(None, other.bracket)
    try:
        claims = tuple(each for each in others if each.is_claim and _is_live(each, still_live))
        ledger.release_all(source_id, holders, claims)
    except Exception:
        log.warning("Could not record that nothing owns source %s anymore", source_id, exc_info=True)
    _keep(bracket, replace(record, phase=Phase.CLOSING))
    result = hook.set_source_status(source_id, "IDLE")
    _keep(bracket, replace(record, phase=Phase.CLOSED, closed_at=time.time(), reopened_by=None))
    _tell_closed(others, source_id)
    _give_back(hook, ledger, bracket, source_id, still_live)
    return Closing(result)


def _tell_closed(others: Iterable[SourceRecord], source_id: str) -> None:
    """
    Record for other brackets, too, that the source is closed: those that owned it and seemed to have ended.

    A bracket whose DAG was paused can continue. Its tasks then open the source again. A bracket that is just
    opening it, and only seemed to have ended, checks again after its request, and sets its status again.
    """
    for other in others:
        try:
            record_closing(other, source_id, Phase.CLOSED, also_while_opening=False)
        except Exception:
            log.warning("Could not record that the source of %s is closed", other.bracket, exc_info=True)


def _give_back(
    hook: CoveoPushHook,
    ledger: SourceLedger,
    bracket: Holder,
    source_id: str,
    still_live: Callable[[SourceRecord], bool],
) -> None:
    """
    Restore the status of a bracket that opened the source during this one's ``IDLE`` request.

    One that only claims it sets its status later, and first checks that the source is not active.
    If that bracket's DAG is paused, it is not live, but can continue: its tasks then open the source again.
    """
    others = [holder for holder in ledger.holders(source_id) if holder.bracket != bracket.bracket]
    for holder in others:
        if holder.status and not holder.is_claim and _is_live(holder, still_live):
            log.warning(
                "%s opened source %s in the meantime; setting %s again", holder, source_id, holder.status
            )
            hook.set_source_status(source_id, holder.status)
            return
    _tell_closed(others, source_id)


def other_at_work(
    bracket: Holder, record: BracketRecord, still_live: Callable[[SourceRecord], bool] = is_live
) -> Holder | None:
    """
    Return another live bracket that owns the source of this one.

    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Returns whether another bracket is live.
    """
    holders = SourceLedger(record.organization_id).holders(record.source_id)
    other = _first_live([each for each in holders if each.bracket != bracket.bracket], still_live)
    return other.bracket if other is not None else None


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


def _first_live(
    holders: Iterable[SourceRecord], still_live: Callable[[SourceRecord], bool]
) -> SourceRecord | None:
    """Return a live bracket. One that only claims the source has set no status, so it would not close it."""
    return next((each for each in holders if not each.is_claim and _is_live(each, still_live)), None)


def _is_live(holder: SourceRecord, still_live: Callable[[SourceRecord], bool]) -> bool:
    try:
        return still_live(holder)
    except Exception:
        # A superfluous IDLE does less harm than a missing one.
        log.warning("Could not check whether %s is live", holder, exc_info=True)
        return False


def _keep(bracket: Holder, record: BracketRecord) -> None:
    """Save a bracket's record; a failure must not leave a source active."""
    try:
        write_bracket(bracket, record)
    except Exception:
        log.warning("Could not record that the bracket of %s is %s", bracket, record.phase, exc_info=True)
