"""The watchdog: it closes active sources that nothing else will close."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.operators.base import (
    _checked,
    _CoveoOperator,
    _refuse_nothing,
    _validate_duration,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import ConnectionArguments
    from airflow_provider_coveo.state.ledger import SourceLedger, SourceRecord
    from airflow_provider_coveo.state.watch_record import SeenSource, WatchRecord

#: The time without changes after which a run counts as stalled if no task is waiting. A scheduler that
#: handles a run starts its next task or ends it within seconds.
_STALLED_AFTER: Final = timedelta(minutes=15)
#: The same if a task waits for a slot, for its retry or to be rescheduled.
_STALLED_AFTER_WAITING: Final = timedelta(hours=6)
_MAX_LISTED: Final = 100
#: The maximum number of sources in a run's conf.
_MAX_NAMED: Final = 100


class _Order(NamedTuple):
    """
    The instructions for one run of the watchdog.

    :param source_ids: The sources to check; ``None`` for all of the organization.
    :param report_only: Whether to close nothing.
    :param close_now: Whether to close sources that no live bracket owns, however recently they became active.
    """

    source_ids: list[str] | None
    report_only: bool
    close_now: bool = False


class CloseAbandonedPushSourcesOperator(_CoveoOperator):
    """
    Close sources that have been active for too long and that no live bracket owns.

    It handles the cases that task dependencies can't cover: a DAG that was paused in the middle of an update,
    an outage of Coveo that outlasted all retries of the ``close`` task, a scheduler that was down, a deleted
    DAG or run. Run it in a separate DAG, every five minutes to every hour.

    A bracket is live while one of its tasks can still run. So a bracket whose ``close`` and ``outcome`` have
    run owns nothing, even if its run continues. Nor does one whose DAG was paused, was deleted or can no
    longer be imported. The watchdog recognizes that because nothing changes in the run: for 15 minutes if no
    task is waiting, for six hours if one is waiting for a slot or a retry.

    The owner of a source is known only for updates in ``push_source_update``. Any other update looks
    abandoned to this operator, so the limit must exceed the duration of such updates, or ``source_ids`` must
    exclude their sources. The key needs the privilege to view sources. See https://docs.coveo.com/en/35/ for
    the statuses.

    The watchdog saves its latest view in one Variable for each organization, ``coveo_watch__<organization>``:
    names and statuses of sources, and the day's quota of items if the key can view limits. Airflow's page
    *Push sources* shows it. Nothing else reads it.

    With ``takes_conf``, the conf of a run can contain instructions; the buttons of that page send them:

    - ``source_ids``: a list of up to 100 sources, to check only these;
    - ``report_only``: ``true`` to close nothing;
    - ``close_now``: ``true`` to close each of ``source_ids`` that is active and that no live bracket owns,
      however recently it became active;
    - ``organization_id``: the intended organization; the run fails if the connection has another.

    :param source_ids: The sources to check, a list of IDs; default: all Push sources of the organization.
        (templated)
    :param active_longer_than: The time for which a source must have been active. Default six hours.
    :param even_if_held_longer_than: The maximum time for which a source can be active even if a live bracket
        owns it; it must exceed the duration of any update. Default ``None``: no limit.
    :param report_only: Whether to only report the abandoned sources: a bool, or one of the strings
        ``true``, ``false``, ``yes``, ``no``, ``on``, ``off``, ``1`` or ``0``. Default ``False``. (templated)
    :param takes_conf: Whether to follow instructions in a run's conf, as above. Anyone who can trigger the
        DAG can then close a source early. Default ``False``.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: The IDs of the sources that are ``abandoned``, of those that were ``closed``, and of those that
        are ``held`` by a live bracket, up to 100 each, and the number of ``active`` sources.
    :raises AccessDeniedError: if the key lacks the privilege to view sources.
    :raises CoveoInputError: if a parameter is invalid; nothing was sent, and the task does not retry.
    :raises CoveoError: after checking all sources, if one of them could not be read or closed.
    """

    template_fields: Sequence[str] = (*_CoveoOperator.template_fields, "source_ids", "report_only")

    def __init__(
        self,
        *,
        source_ids: Sequence[str] | None = None,
        active_longer_than: timedelta = timedelta(hours=6),
        even_if_held_longer_than: timedelta | None = None,
        report_only: bool | str = False,
        takes_conf: bool = False,
        **kwargs: Unpack[ConnectionArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.source_ids = source_ids
        self.active_longer_than = active_longer_than
        self.even_if_held_longer_than = even_if_held_longer_than
        self.report_only = report_only
        self.takes_conf = takes_conf
        self._has_source_ids = source_ids is not None

    def execute(self, context: Context) -> dict[str, object]:
        """Check each source, and close those that nothing else will close."""
        order = self._order(context, self._reject_bad_input())
        look = _Look(self, context, order)
        try:
            look.at_all()
        finally:
            look.keep()
        if look.failures:
            raise look.failures[0]
        return {**{name: ids[:_MAX_LISTED] for name, ids in look.found.items()}, "active": look.active}

    def _reject_bad_input(self) -> bool:
        if self._has_source_ids:
            _refuse_nothing(
                self.source_ids,
                "No source was checked: source_ids rendered to None",
                "the task that should have returned them returned none, and None would mean all sources",
            )
        _checked(partial(_validate_duration, "active_longer_than"), self.active_longer_than)
        if self.even_if_held_longer_than is not None:
            _checked(partial(_validate_duration, "even_if_held_longer_than"), self.even_if_held_longer_than)
        if self.source_ids is not None:
            self.source_ids = _checked(_validate_source_ids, self.source_ids)
        return _checked(_validate_truth, self.report_only)

    def _order(self, context: Context, report_only: bool) -> _Order:
        own = None if self.source_ids is None else list(self.source_ids)
        conf: Any = getattr(context.get("dag_run"), "conf", None)
        if not self.takes_conf or not conf:
            return _Order(own, report_only)
        order = _checked(partial(_order_of_conf, own, report_only), conf)
        meant = conf.get("organization_id")
        if meant and str(meant).lower() != self.hook.organization_id.lower():
            raise invalid_input(
                f"The run's conf names organization {short_repr(meant)}, but the connection is for "
                f"{self.hook.organization_id!r}",
                remedy="Trigger the DAG of that organization's watchdog",
            )
        if order.source_ids is not None:
            self.log.info("Checking only %s, as requested in this run's conf", ", ".join(order.source_ids))
        return order

    @property
    def _ledger(self) -> SourceLedger:
        from airflow_provider_coveo.state.ledger import SourceLedger

        return SourceLedger(self.hook.organization_id)

    def _verdict(
        self, source: Mapping[str, object], holders: tuple[SourceRecord, ...], *, at_once: bool = False
    ) -> str | None:
        """
        Return whether an active source is ``held`` or ``abandoned``, ``None`` if it is neither.

        :param source: The source.
        :param holders: The brackets that own it.
        :param at_once: Whether to close it however recently it became active. Default ``False``.
        """
        from airflow_provider_coveo.coveo.ordering_ids import now_ms
        from airflow_provider_coveo.coveo.sources import active_since_ms

        source_id, since = str(source["id"]), active_since_ms(source)
        if since is None and not at_once:
            self.log.warning("Skipping source %s: Coveo does not report since when it is active", source_id)
            return None
        active_for = timedelta(milliseconds=0 if since is None else now_ms() - since)
        live = self._live_holder(source_id, holders, since)
        if live is not None:
            limit = self.even_if_held_longer_than
            if limit is None or active_for < limit:
                self.log.info("Source %s has been active for %s; %s owns it", source_id, active_for, live)
                return "held"
            self.log.warning(
                "Source %s has been active for %s, longer than %s, although %s owns it",
                source_id,
                active_for,
                limit,
                live,
            )
            return "abandoned"
        if active_for < self.active_longer_than and not at_once:
            self.log.info("Source %s has been active for %s, within the limit", source_id, active_for)
            return None
        self.log.warning(
            "Source %s has been active for %s, and nothing owns it%s",
            source_id,
            active_for,
            f" anymore: {holders[0]} is no longer live" if holders else "",
        )
        return "abandoned"

    def _live_holder(
        self, source_id: str, holders: Iterable[SourceRecord], since: int | None
    ) -> SourceRecord | None:
        """Return a live bracket that owns the source, and record the check."""
        from airflow_provider_coveo.state.liveness import is_live

        seen = self._ledger.seen(source_id)
        last = seen.get("holders") if seen.get("since_ms") == since else None
        runs: dict[str, object] = {}
        live = None
        for holder in holders:
            name = f"{holder.dag_id} {holder.run_id} {holder.open_task_id} {holder.map_index}"
            before = last.get(name) if isinstance(last, Mapping) else None
            goes_on, runs[name] = self._progress(holder, before if isinstance(before, Mapping) else {})
            if live is None and not holder.is_claim and goes_on and is_live(holder):
                live = holder
        self._ledger.saw(source_id, {"since_ms": since, "at": time.time(), "holders": runs})
        return live

    def _progress(self, holder: SourceRecord, before: Mapping[str, object]) -> tuple[bool, dict[str, object]]:
        """
        Return whether a run makes progress, judging by changes of its tasks, and the data for the next check.

        Airflow 3 does not show a task whether a DAG was deleted or can't be imported. The scheduler no longer
        handles the runs of such a DAG, and they stay ``running`` forever.
        """
        from airflow_provider_coveo.state.airflow_runs import (
            PENDING_STATES,
            WORKING_STATES,
            all_task_states,
            latest_pokes,
        )

        found = all_task_states(holder.dag_id, holder.run_id)
        pokes = latest_pokes(holder.dag_id, holder.run_id, found)
        seen = repr([*sorted(found.items(), key=str), *pokes])
        digest = hashlib.sha256(seen.encode()).hexdigest()[:16]
        now = time.time()
        is_same = before.get("digest") == digest
        since = before.get("unchanged_since") if is_same else None
        unchanged_since = float(since) if isinstance(since, (int, float)) else now
        waits = PENDING_STATES.intersection(found.values())
        limit = _STALLED_AFTER_WAITING if waits else _STALLED_AFTER
        works = bool(WORKING_STATES.intersection(found.values()))
        goes_on = works or now - unchanged_since < limit.total_seconds()
        return goes_on, {"digest": digest, "unchanged_since": unchanged_since}

    def _forget(self, source_id: str) -> None:
        """Delete the record of checks while the source was active."""
        if self._ledger.seen(source_id):
            self._ledger.saw(source_id, None)

    def _close(self, source_id: str, judged: tuple[SourceRecord, ...]) -> bool:
        """
        Close a source, and update the records of the brackets that owned it.

        Since the check, and during the request and its retries, another bracket may have opened the source.

        :param source_id: The source.
        :param judged: Its owners at the check.
        :return: Whether it is closed, and not left open, or opened again, for another bracket.
        """
        from airflow_provider_coveo.state.ledger import Phase
        from airflow_provider_coveo.state.liveness import live_among
        from airflow_provider_coveo.state.owners import give_back, owner_and_claims, record_closing

        ledger = self._ledger
        known = {holder for holder in judged if not holder.is_claim}
        claims: list[SourceRecord] = []
        while new := set(holders := ledger.holders(source_id)) - known:
            known |= new
            owner, new_claims = owner_and_claims(live_among(new))
            if owner is not None:
                self.log.info("Leaving source %s open: %s has opened it since the check", source_id, owner)
                return False
            claims += new_claims
        # Before the request, so that an `open` in progress detects that the source was closed.
        ledger.release_all(source_id, holders, tuple(claim for claim in claims if claim in holders))
        for holder in holders:
            record_closing(holder, source_id, Phase.CLOSING, "watchdog")
        idle = self.hook.set_source_status(source_id, "IDLE")
        now = ledger.holders(source_id)
        opened_again = {holder.bracket for holder in now if not holder.is_claim}
        for holder in holders:
            if holder.bracket not in opened_again:
                record_closing(holder, source_id, Phase.CLOSED, "watchdog")
        if give_back(self.hook.set_source_status, idle, now, lambda: ledger.holders(source_id)) is not None:
            return False
        self._forget(source_id)
        return True


class _Look:
    """
    One check of the watchdog's sources.

    :param watchdog: The watchdog.
    :param context: The context of its task.
    :param order: Its instructions.
    """

    def __init__(self, watchdog: CloseAbandonedPushSourcesOperator, context: Context, order: _Order) -> None:
        self._watchdog = watchdog
        self._context = context
        self._order = order
        self._before: WatchRecord | None = None
        self._seen: dict[str, SeenSource] = {}
        self._is_of_all = False
        self._can_keep = True
        self._quota: tuple[int | None, int | None] = (None, None)
        self.found: dict[str, list[str]] = {"abandoned": [], "closed": [], "held": []}
        self.active = 0
        self.failures: list[Exception] = []

    def at_all(self) -> None:
        """Check each source, and close those that nothing else will close."""
        from airflow_provider_coveo.state.watch_record import read_watch

        try:
            self._before = read_watch(self._watchdog.hook.organization_id)
        except Exception:
            # Only the page needs it, so sources are closed anyway.
            self._watchdog.log.warning("Could not read the record of the previous check", exc_info=True)
            self._can_keep = False
        for source in self._sources():
            # A source that can't be read or closed does not prevent the others from being closed.
            try:
                self._at(source)
            except Exception as error:
                self._fails(str(source["id"]), error)

    def _at(self, source: Mapping[str, object]) -> None:
        source_id = str(source["id"])
        before = self._before.source(source_id) if self._before else None
        seen = self._seen[source_id] = _seen(source)
        if not seen.is_active:
            # A source that was idle before has no record to delete.
            if before is None or before.is_active or before.error:
                self._watchdog._forget(source_id)
            return
        self.active += 1
        holders = self._watchdog._ledger.holders(source_id)
        verdict = self._watchdog._verdict(source, holders, at_once=self._order.close_now)
        if verdict == "abandoned" and not self._order.report_only:
            self._close(seen, holders)
        elif verdict is not None:
            self.found[verdict].append(source_id)

    def _close(self, seen: SeenSource, holders: tuple[SourceRecord, ...]) -> None:
        from dataclasses import replace

        source_id = seen.id
        if not self._watchdog._close(source_id, holders):
            self.found["held"].append(source_id)
            return
        self.found["abandoned"].append(source_id)
        self.found["closed"].append(source_id)
        self._seen[source_id] = replace(seen, status="IDLE", is_active=False, since_ms=None, at=time.time())

    def _fails(self, source_id: str, error: Exception) -> None:
        from dataclasses import replace

        from airflow_provider_coveo.state.watch_record import SeenSource, brief

        self._watchdog.log.warning("Source %s: %s", source_id, error)
        self.failures.append(error)
        known = self._seen.get(source_id) or (self._before.source(source_id) if self._before else None)
        # Other errors can name what not every user of the page can read, such as DAGs.
        text = brief(error) if isinstance(error, CoveoError) else type(error).__name__
        self._seen[source_id] = replace(known or SeenSource(source_id), error=text)

    def _sources(self) -> Iterator[Mapping[str, object]]:
        hook = self._watchdog.hook
        if self._order.source_ids is None:
            every = hook.list_sources()
            self._is_of_all = True
            self._quota = self._read_quota()
            yield from every
            return
        for source_id in self._order.source_ids:
            try:
                source = hook.get_source(source_id)
            except CoveoError as error:
                self._fails(source_id, error)
            else:
                yield source

    def _read_quota(self) -> tuple[int | None, int | None]:
        """Return the day's quota of items and its usage, if the key can view limits."""
        try:
            limit = self._watchdog.hook.daily_items()
        except CoveoError as error:
            self._watchdog.log.info("Could not read the day's quota of items: %s", error)
            return None, None
        return limit

    def keep(self) -> None:
        """Save the result for the page; the task does not fail if that fails."""
        from dataclasses import replace

        from airflow_provider_coveo.state.watch_record import WatchRecord, write_watch

        if not self._is_of_all and not (self._seen and self._can_keep):
            return
        task_instance: Any = self._context.get("ti")
        try:
            record = self._before or WatchRecord(self._watchdog.hook.organization_id)
            if task_instance is not None:
                record = replace(record, dag_id=task_instance.dag_id, task_id=task_instance.task_id)
            record = replace(record, takes_conf=self._watchdog.takes_conf)
            if self._is_of_all:
                limit, used = self._quota
                record = replace(record, at=time.time(), quota_limit=limit, quota_used=used)
            write_watch(record.with_sources(self._seen.values(), only=self._is_of_all))
        except Exception:
            self._watchdog.log.warning("Could not save the result of the check", exc_info=True)


def _seen(source: Mapping[str, object]) -> SeenSource:
    from airflow_provider_coveo.coveo.sources import active_since_ms, is_active, push_status, status_in_words
    from airflow_provider_coveo.state.watch_record import SeenSource, brief

    status, active = push_status(source), is_active(source)
    return SeenSource(
        id=str(source["id"]),
        name=brief(source.get("name") or ""),
        status=status.value if status is not None else "",
        words="" if status is not None else brief(status_in_words(source)),
        is_active=active,
        since_ms=active_since_ms(source) if active else None,
        at=time.time(),
    )


def _order_of_conf(own: list[str] | None, report_only: bool, conf: object) -> _Order:
    """Return the instructions in a run's conf; nothing that it leaves open can close a source."""
    if not isinstance(conf, Mapping):
        raise CoveoInputError(
            f"Invalid conf of the run: {short_repr(conf)}", remedy="Trigger the DAG with a JSON object"
        )
    named = conf.get("source_ids")
    source_ids = own
    if named is not None:
        source_ids = list(dict.fromkeys(_validate_source_ids(named)))
        strangers = [] if own is None else [each for each in source_ids if each not in own]
        if not source_ids or len(source_ids) > _MAX_NAMED or strangers:
            raise CoveoInputError(
                f"Invalid source_ids in the run's conf: it names {quantity(len(source_ids), 'source')}; it "
                f"must be 1 to {_MAX_NAMED} of those that this task checks"
                + (f", which excludes {', '.join(strangers[:_MAX_NAMED])}" if strangers else ""),
                remedy="Name sources of this watchdog, or leave source_ids out for all of them",
            )
    close_now = _validate_truth(conf.get("close_now") or False, "close_now")
    report_only = report_only or _validate_truth(conf.get("report_only") or False)
    if close_now and (report_only or named is None):
        raise CoveoInputError(
            "The run's conf has close_now" + (" and report_only" if report_only else ", but no source_ids"),
            cause="the watchdog closes only named sources early",
            remedy="Pass source_ids, and no report_only",
        )
    return _Order(source_ids, report_only, close_now)


def _validate_source_ids(source_ids: object) -> list[str]:
    from airflow_provider_coveo.coveo.endpoints import validate_source_id

    if isinstance(source_ids, (str, bytes)) or not isinstance(source_ids, Iterable):
        raise CoveoInputError(
            f"Invalid source_ids: {short_repr(source_ids)}",
            remedy="Pass a list of IDs, which can be templates, or the result of a task",
        )
    return [validate_source_id(source_id) for source_id in source_ids]


def _validate_truth(value: object, name: str = "report_only") -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "yes", "on", "1"}:
        return True
    if text in {"false", "no", "off", "0"}:
        return False
    raise CoveoInputError(
        f"Invalid {name}: {short_repr(value)}",
        cause="any other string would be treated as permission to close sources",
        remedy="Pass a bool, or a string such as 'true' or 'false'",
    )
