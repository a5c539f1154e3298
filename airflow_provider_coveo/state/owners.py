"""The brackets that own a source: which of them is live, and what they are told when it is closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_coveo.state.ledger import Holder, Phase, SourceRecord, read_bracket, write_bracket
from airflow_provider_coveo.state.liveness import check_run, live_among

if TYPE_CHECKING:
    from typing import TypeAlias

    from airflow_provider_coveo.coveo.results import StatusResult

    #: Checks a bracket once, as `live_among` expects.
    LivenessCheck: TypeAlias = Callable[[SourceRecord], "bool | None"]

log = logging.getLogger(__name__)

_IDLE: Final = "IDLE"
#: The maximum number of times that the owners are read while they change.
_MAX_LOOKS: Final = 10


def record_closing(
    holder: SourceRecord,
    source_id: str,
    phase: Phase,
    closed_by: str = "",
    *,
    left_for: Holder | None = None,
    also_while_opening: bool = True,
) -> None:
    """
    Record, for a bracket that owned a source, the progress of another component that closes the source.

    :param holder: The bracket.
    :param source_id: The source.
    :param phase: ``CLOSING``, ``CLOSED`` or ``LEFT``.
    :param closed_by: The component that closes it, as in the record. Default: none.
    :param left_for: The bracket that takes it over. Default: none.
    :param also_while_opening: Whether to also update a bracket whose request to open is in flight, so that it
        closes the source again. Default ``True``.
    """
    if holder.is_claim:
        return
    record = read_bracket(holder.bracket)
    if record is None or record.source_id != source_id:
        return
    if holder.opening and record.opening != holder.opening:
        # It has opened the source again since.
        return
    if record.is_concluded or also_while_opening:
        record = replace(record, phase=phase, closed_at=time.time(), reopened_by=None, closed_by=closed_by)
        to = None if left_for is None else astuple(left_for.bracket)
        write_bracket(holder.bracket, replace(record, left_for=to))


def tell_closed(others: Iterable[SourceRecord], source_id: str) -> None:
    """
    Record for other brackets, too, that the source is closed: those that owned it and seemed to have ended.

    A bracket whose DAG was paused can continue. Its tasks then open the source again. A bracket that is just
    opening it, and only seemed to have ended, checks again after its request, and sets its status again.

    :param others: The brackets.
    :param source_id: The source.
    """
    for other in others:
        try:
            record_closing(other, source_id, Phase.CLOSED, also_while_opening=False)
        except Exception:
            log.warning("Could not record that the source of %s is closed", other.bracket, exc_info=True)


def give_back(
    set_status: Callable[[str, str], StatusResult],
    idle: StatusResult,
    holders: Iterable[SourceRecord],
    look: Callable[[], Iterable[SourceRecord]],
    still_live: LivenessCheck = check_run,
) -> SourceRecord | None:
    """
    After ``IDLE``, restore the status of a bracket that opened the source during the request.

    That bracket can end during the next request, which can take minutes if Coveo limits the rate. So the
    status is set until it is the one that the owners expect.

    One that only claims it sets its status later, and first checks that the source is not active.
    If that bracket's DAG is paused, it is not live, but can continue: its tasks then open the source again.
    So do those of one that only seems to have ended, between two tasks. But what was opened after ``IDLE``,
    by Coveo's clock, is not closed.

    :param set_status: Sets a source's status, such as the hook's ``set_source_status``.
    :param idle: The response to ``IDLE``.
    :param holders: The brackets that own it after the request, without the sender's.
    :param look: Returns these again.
    :param still_live: Checks whether a bracket is live.
    :return: The bracket, if there is one.
    :raises CoveoError: if the request fails.
    """
    source_id, idle_ms = idle["source_id"], idle["ordering_id"]
    sent, holders = _IDLE, list(holders)
    for _ in range(_MAX_LOOKS):
        owner, _claims = owner_and_claims(found_live([each for each in holders if each.status], still_live))
        wanted = _IDLE if owner is None else owner.status
        if owner is None:
            before = [each for each in holders if each.since_ms is not None and each.since_ms < idle_ms]
            tell_closed(before, source_id)
        if wanted == sent:
            return owner
        if owner is not None:
            log.warning("%s opened source %s in the meantime; setting %s again", owner, source_id, wanted)
        result = set_status(source_id, wanted)
        if wanted == _IDLE:
            idle_ms = result["ordering_id"]
        sent, holders = wanted, list(look())
    return owner


def without(bracket: Holder, holders: Iterable[SourceRecord]) -> list[SourceRecord]:
    """
    Return the owners of a source other than one bracket.

    :param bracket: The bracket.
    :param holders: All owners.
    """
    return [holder for holder in holders if holder.bracket != bracket.bracket]


def own_among(bracket: Holder, holders: Iterable[SourceRecord]) -> SourceRecord | None:
    """
    Return a bracket's own entry among the owners of a source, ``None`` if it has none.

    :param bracket: The bracket.
    :param holders: All owners.
    """
    return next((holder for holder in holders if holder.bracket == bracket.bracket), None)


def owner_and_claims(
    live: Iterable[SourceRecord],
) -> tuple[SourceRecord | None, list[SourceRecord]]:
    """
    Return one of the live brackets that owns the source; if there is none, those that only claim it.

    One that only claims it has set no status, so it would not close it.

    :param live: The live brackets.
    """
    claims = []
    for holder in live:
        if not holder.is_claim:
            return holder, []
        claims.append(holder)
    return None, claims


def found_live(holders: Iterable[SourceRecord], still_live: LivenessCheck) -> Iterator[SourceRecord]:
    """
    Return the brackets that are live; not those for which that can't be checked.

    :param holders: The brackets.
    :param still_live: Checks whether a bracket is live.
    """

    def checked(holder: SourceRecord) -> bool | None:
        try:
            return still_live(holder)
        except Exception:
            # A superfluous IDLE does less harm than a missing one.
            log.warning("Could not check whether %s is live", holder, exc_info=True)
            return False

    return live_among(holders, checked)
