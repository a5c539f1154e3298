"""Closing a source by a bracket, unless another live bracket owns it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_coveo.coveo.errors import AccessDeniedError
from airflow_provider_coveo.coveo.sources import is_active
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    SourceLedger,
    write_bracket,
)
from airflow_provider_coveo.state.liveness import check_run
from airflow_provider_coveo.state.owners import found_live, give_back, owner_and_claims, tell_closed

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.results import StatusResult
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.state.owners import LivenessCheck

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
    still_live: LivenessCheck = check_run,
) -> Closing:
    """
    Set a bracket's source to ``IDLE``, unless another live bracket owns it.

    The bracket's record as the owner is removed before the request: an `open` in progress checks it after its
    own request, and closes the source itself if it is missing.

    :param hook: The hook to send with.
    :param bracket: The bracket.
    :param record: Its record in this run.
    :param still_live: Checks whether another bracket is live.
    :raises CoveoError: if the request fails.
    """
    ledger = SourceLedger(record.organization_id)
    source_id = record.source_id
    holders = ledger.holders(source_id)
    others = [holder for holder in holders if holder.bracket != bracket.bracket]
    other, claims = owner_and_claims(found_live(others, still_live))
    if others and other is None:
        # To find out took seconds in which another bracket may have opened the source.
        before, holders = set(others), ledger.holders(source_id)
        others = [holder for holder in holders if holder.bracket != bracket.bracket]
        new = [each for each in others if each not in before]
        other, new_claims = owner_and_claims(found_live(new, still_live))
        claims = [*(each for each in claims if each in others), *new_claims]
    if other is not None:
        ledger.leave(source_id, bracket, record.coveo_conn_id, other, holders)
        _keep(bracket, replace(record, phase=Phase.LEFT, reopened_by=None))
        return Closing(None, other.bracket)
    try:
        ledger.release_all(source_id, holders, tuple(claims))
    except Exception:
        log.warning("Could not record that nothing owns source %s anymore", source_id, exc_info=True)
    _keep(bracket, replace(record, phase=Phase.CLOSING))
    result = hook.set_source_status(source_id, "IDLE")
    _keep(bracket, replace(record, phase=Phase.CLOSED, closed_at=time.time(), reopened_by=None))
    tell_closed(others, source_id)
    now = [holder for holder in ledger.holders(source_id) if holder.bracket != bracket.bracket]
    give_back(hook.set_source_status, source_id, now, still_live)
    return Closing(result)


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
    others = [each for each in holders if each.bracket != bracket.bracket and not each.is_claim]
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
