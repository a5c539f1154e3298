"""The watchdog: it closes sources that are active and that nobody will close."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, shown
from airflow_provider_coveo.operators.base import (
    _checked,
    _checked_duration,
    _CoveoOperator,
    _refuse_nothing,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.state.ledger import Phase, SourceLedger, SourceRecord

#: How long nothing may change in a run of which no task is even waiting to be started. A scheduler that looks
#: after a run starts or ends it within seconds.
_STALLED_AFTER: Final = timedelta(minutes=15)
#: The same if a task waits for a slot, for its retry or to be rescheduled.
_STALLED_AFTER_WAITING: Final = timedelta(hours=6)
_MAX_LISTED: Final = 100


class CloseAbandonedPushSourcesOperator(_CoveoOperator):
    """
    Close sources that have been active for too long and that no bracket that is at work holds open.

    It is for what no wiring of a DAG covers: a DAG that was paused in the middle of an update, an outage of
    Coveo that outlasted all retries of the ``close`` task, a scheduler that was down, a deleted DAG or run.
    Put it into a DAG of its own that runs every hour.

    A bracket is at work while one of its tasks can still act. So a bracket whose ``close`` and ``outcome``
    have run holds nothing, even if its run goes on; nor does one whose DAG was paused, deleted or can't be
    imported any more, which shows in that nothing changes in its run: for 15 minutes if no task waits for
    anything, for six hours if one waits for a slot or a retry.

    Who holds a source open is known for updates in ``push_source_update`` only. An update that opens its
    source by other means is abandoned as far as this operator can tell, so the limit must be longer than
    any of those takes, or ``source_ids`` must leave their sources out. The key must be allowed to view
    sources. See https://docs.coveo.com/en/35/ for the statuses.

    :param source_ids: The sources to look after, a list of IDs; default: all Push sources of the
        organization. (templated)
    :param active_longer_than: How long a source must have been active. Default six hours.
    :param even_if_held_longer_than: How long a source may be active at most, even if a bracket at work holds
        it open; longer than any update takes. Default ``None``: without limit.
    :param report_only: Whether to only report which sources are abandoned: a bool, or a text that says
        ``true``, ``false``, ``yes``, ``no``, ``on``, ``off``, ``1`` or ``0``. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: The IDs of the sources that are ``abandoned``, of those of them that were ``closed``, and of
        those that are ``held`` open by a bracket at work, 100 each at most, and how many are ``active``.
    :raises AccessDeniedError: if the key may not view sources.
    :raises CoveoInputError: if a value can't be right; nothing was sent, and the task does not retry.
    :raises CoveoError: once all sources were checked, if one of them could not be read or closed.
    """

    template_fields: Sequence[str] = (*_CoveoOperator.template_fields, "source_ids", "report_only")

    def __init__(
        self,
        *,
        source_ids: Sequence[str] | None = None,
        active_longer_than: timedelta = timedelta(hours=6),
        even_if_held_longer_than: timedelta | None = None,
        report_only: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_ids = source_ids
        self.active_longer_than = active_longer_than
        self.even_if_held_longer_than = even_if_held_longer_than
        self.report_only = report_only
        self._has_source_ids = source_ids is not None

    def execute(self, context: Context) -> dict[str, Any]:
        """Check each source, and close what nobody will close."""
        from airflow_provider_coveo.coveo.sources import is_active

        report_only = self._reject_bad_input()
        found: dict[str, list[str]] = {"abandoned": [], "closed": [], "held": []}
        active = 0
        failures: list[Exception] = []
        for source in self._sources(failures):
            source_id = str(source["id"])
            # One source that can't be read or closed does not keep this from the others.
            try:
                if not is_active(source):
                    self._forget(source_id)
                    continue
                active += 1
                verdict = self._verdict(source)
                if verdict is not None:
                    found[verdict].append(source_id)
                if verdict == "abandoned" and not report_only:
                    self._close(source_id)
                    found["closed"].append(source_id)
            except Exception as error:
                self.log.warning("Source %s: %s", source_id, error)
                failures.append(error)
        if failures:
            raise failures[0]
        return {**{name: ids[:_MAX_LISTED] for name, ids in found.items()}, "active": active}

    def _reject_bad_input(self) -> bool:
        if self._has_source_ids:
            _refuse_nothing(
                self.source_ids,
                "No source was looked at: source_ids turned out as None",
                "the task that should have given them gave none, and None would stand for all sources",
            )
        _checked(partial(_checked_duration, "active_longer_than"), self.active_longer_than)
        if self.even_if_held_longer_than is not None:
            _checked(partial(_checked_duration, "even_if_held_longer_than"), self.even_if_held_longer_than)
        if self.source_ids is not None:
            self.source_ids = _checked(_validate_source_ids, self.source_ids)
        return _checked(_validate_truth, self.report_only)

    def _sources(self, failures: list[Exception]) -> Iterator[Mapping[str, Any]]:
        """
        Yield the sources to look after.

        :param failures: Where to put the errors of those that can't be read, for the sake of the others.
        """
        if self.source_ids is None:
            yield from self.hook.list_sources()
            return
        for source_id in self.source_ids:
            try:
                source = self.hook.get_source(source_id)
            except CoveoError as error:
                self.log.warning("%s", error)
                failures.append(error)
            else:
                yield source

    @property
    def _ledger(self) -> SourceLedger:
        from airflow_provider_coveo.state.ledger import SourceLedger

        return SourceLedger(self.hook.organization_id)

    def _verdict(self, source: Mapping[str, Any]) -> str | None:
        from airflow_provider_coveo.coveo.ordering_ids import now_ms
        from airflow_provider_coveo.coveo.sources import active_since_ms

        source_id, since = str(source["id"]), active_since_ms(source)
        if since is None:
            self.log.warning(
                "Coveo does not say since when source %s is active; it is left alone.", source_id
            )
            return None
        active_for = timedelta(milliseconds=now_ms() - since)
        holders = self._ledger.holders(source_id)
        live = self._live_holder(source_id, holders, since)
        if live is not None:
            limit = self.even_if_held_longer_than
            if limit is None or active_for < limit:
                self.log.info(
                    "Source %s has been active for %s; %s holds it open.", source_id, active_for, live
                )
                return "held"
            self.log.warning(
                "Source %s has been active for %s, which is longer than %s, although %s holds it open.",
                source_id,
                active_for,
                limit,
                live,
            )
            return "abandoned"
        if active_for < self.active_longer_than:
            self.log.info("Source %s has been active for %s, which is not too long.", source_id, active_for)
            return None
        self.log.warning(
            "Source %s has been active for %s, and nobody holds it open%s.",
            source_id,
            active_for,
            f" any more: {holders[0]} does not go on" if holders else "",
        )
        return "abandoned"

    def _live_holder(
        self, source_id: str, holders: Iterable[SourceRecord], since: int
    ) -> SourceRecord | None:
        """Return a bracket that holds the source and is at work, and record what was seen."""
        from airflow_provider_coveo.state.liveness import is_live

        seen = self._ledger.seen(source_id)
        runs: dict[str, Any] = {}
        live = None
        for holder in holders:
            name = f"{holder.dag_id} {holder.run_id} {holder.open_task_id} {holder.map_index}"
            before = seen["holders"].get(name) if seen.get("since_ms") == since else None
            goes_on, runs[name] = self._progress(holder, before)
            if live is None and goes_on and is_live(holder):
                live = holder
        self._ledger.saw(source_id, {"since_ms": since, "at": time.time(), "holders": runs})
        return live

    def _progress(self, holder: SourceRecord, before: Any) -> tuple[bool, dict[str, Any]]:
        """
        Return whether a run goes on, as far as changes of its tasks tell, and what to compare with next time.

        Airflow 3 does not tell a task whether a DAG was deleted or can't be imported. The scheduler no longer
        looks after the runs of such a DAG, and they stay ``running`` for ever.
        """
        from airflow_provider_coveo.state.airflow_runs import (
            PENDING_STATES,
            WORKING_STATES,
            all_task_states,
        )

        found = all_task_states(holder.dag_id, holder.run_id)
        digest = hashlib.sha256(repr(sorted(found.items(), key=str)).encode()).hexdigest()[:16]
        now = time.time()
        is_same = isinstance(before, Mapping) and before.get("digest") == digest
        since = before.get("unchanged_since") if is_same else None
        unchanged_since = float(since) if isinstance(since, (int, float)) else now
        waits = PENDING_STATES.intersection(found.values())
        limit = _STALLED_AFTER_WAITING if waits else _STALLED_AFTER
        works = bool(WORKING_STATES.intersection(found.values()))
        goes_on = works or now - unchanged_since < limit.total_seconds()
        return goes_on, {"digest": digest, "unchanged_since": unchanged_since}

    def _forget(self, source_id: str) -> None:
        """Delete what was seen while the source was active."""
        if self._ledger.seen(source_id):
            self._ledger.saw(source_id, None)

    def _close(self, source_id: str) -> None:
        from airflow_provider_coveo.state.ledger import Phase

        ledger = self._ledger
        holders = ledger.holders(source_id)
        # Before the request, so that an opening that is still under way finds that it was closed.
        ledger.release_all(source_id, holders)
        self._keep_phase(source_id, holders, Phase.CLOSING)
        self.hook.set_source_status(source_id, "IDLE")
        self._keep_phase(source_id, holders, Phase.CLOSED)
        self._forget(source_id)

    def _keep_phase(self, source_id: str, holders: Iterable[SourceRecord], phase: Phase) -> None:
        from dataclasses import replace

        from airflow_provider_coveo.state.ledger import read_bracket, write_bracket

        for holder in holders:
            record = read_bracket(holder.bracket)
            if record is not None and record.source_id == source_id:
                write_bracket(
                    holder.bracket, replace(record, phase=phase, closed_at=time.time(), reopened_by=None)
                )


def _validate_source_ids(source_ids: Any) -> list[str]:
    from airflow_provider_coveo.coveo.endpoints import checked_source_id

    if isinstance(source_ids, (str, bytes)) or not isinstance(source_ids, Iterable):
        raise CoveoInputError(
            f"source_ids is {shown(source_ids)}",
            remedy="Give a list of IDs, each of which may be a template, or what a task returned",
        )
    return [checked_source_id(source_id) for source_id in source_ids]


def _validate_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "yes", "on", "1"}:
        return True
    if text in {"false", "no", "off", "0"}:
        return False
    raise CoveoInputError(
        f"Invalid report_only: {shown(value)}",
        cause="any other text would be taken for an order to close sources",
        remedy="Pass a bool, or a text such as 'true' or 'false'",
    )
