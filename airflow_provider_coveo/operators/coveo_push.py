"""Operators for Coveo Push sources. They render, call the hook, and return small JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook


class _CoveoOperator(BaseOperator):
    """What the operators share: the connection and the hook."""

    template_fields: Sequence[str] = ("coveo_conn_id", "organization_id")
    ui_color: str = "#d7e3fc"

    def __init__(
        self,
        *,
        coveo_conn_id: str = "coveo_default",
        organization_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id

    @cached_property
    def hook(self) -> CoveoPushHook:
        """The hook for this task's connection."""
        # DAG files import this module again and again; the hook brings requests with it.
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        return CoveoPushHook(
            self.coveo_conn_id,
            organization_id=self.organization_id,
            caller=type(self).__name__,
        )

    def on_kill(self) -> None:
        """End a wait between two attempts, so that a killed task does not go on."""
        self.hook.stop()


class _CoveoPushOperator(_CoveoOperator):
    """What the operators for one source share."""

    template_fields: Sequence[str] = ("source_id", *_CoveoOperator.template_fields)

    def __init__(self, *, source_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id


class SetPushSourceStatusOperator(_CoveoPushOperator):
    """
    Set the status of a Push source: an active one before a content update, ``IDLE`` after it.

    The console shows ``REBUILD`` as *Rebuild*, ``REFRESH`` as *Rescan*, ``INCREMENTAL`` as *Refresh* and
    ``IDLE`` as *Ready to receive content*. See https://docs.coveo.com/en/35/.

    Setting a status is one request, and repeating it is safe, so a request that was sent but not answered is
    repeated. To bring the source back whatever happens, make the operator that sets ``IDLE`` a teardown
    (``idle.as_teardown(setups=rebuild)``) or give it ``trigger_rule="all_done"``.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``, ``status``, ``request_id`` and ``ordering_id``, the moment of the change by
        Coveo's clock in epoch milliseconds.
    :raises CoveoInputError: if a value can't be right; nothing was sent, and the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "status")

    def __init__(self, *, status: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.status = status

    def execute(self, context: Context) -> dict[str, Any]:
        """Set the status."""
        return self.hook.set_source_status(self.source_id, self.status)


class ResetPushSourceOperator(_CoveoPushOperator):
    """
    Reset a Push source: delete every item that was last pushed before a moment, by default before now.

    A cut-off in the future would bar all new content until then, so a value that is in the future or in
    another unit than milliseconds is refused. So is a source that Coveo for Sitecore or the Crawling Module
    manages, whose ordering ids are on another scale: recreate such a source instead. Where the key may not
    view the source, that can't be checked; the task says so and goes on. See https://docs.coveo.com/en/131/
    and https://docs.coveo.com/en/35/.

    A retry uses the cut-off of the first try, so that it can't delete what was pushed in between. Clearing
    the task resets the source anew. (How that is remembered: :mod:`airflow_provider_coveo.run_state`.)

    :param source_id: The ID of the Push source. (templated)
    :param ordering_id: Items whose orderingId is strictly lower are deleted: epoch milliseconds, such as the
        ``ordering_id`` that ``SetPushSourceStatusOperator`` returns. Default: now, by Coveo's clock.
        (templated)
    :param queue_delay: Minutes, 0 or more, that Coveo waits before it deletes, so that what was pushed before
        is through. Default 15. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
    :raises CoveoInputError: if a value can't be right; nothing was deleted, and the task does not retry.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = (*_CoveoPushOperator.template_fields, "ordering_id", "queue_delay")

    def __init__(
        self, *, ordering_id: int | str | None = None, queue_delay: int | str = 15, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.ordering_id = ordering_id
        self.queue_delay = queue_delay

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the items."""
        ordering_id = self.ordering_id
        if ordering_id is None:
            ordering_id = self._cut_off_of_this_try_set(context)
        return self.hook.delete_old_items(self.source_id, ordering_id, queue_delay=self.queue_delay)

    def _cut_off_of_this_try_set(self, context: Context) -> int:
        from airflow_provider_coveo.run_state import RunState, try_set

        state = RunState(context)
        key = f"reset_cut_off_{try_set(context)}"
        cut_off = state.get(key)
        if cut_off is None:
            cut_off = self.hook.current_cut_off(self.source_id)
            state.set(key, cut_off)
        return int(cut_off)


class CloseAbandonedPushSourcesOperator(_CoveoOperator):
    """
    Close sources that have been active for too long and that no running bracket holds open.

    It is for what no wiring of a DAG covers: a DAG that was paused in the middle of an update, an outage of
    Coveo that outlasted all retries of the closing task, a scheduler that was down, a deleted DAG or run. Put
    it into a DAG of its own that runs every hour.

    Who holds a source open is known for updates in ``push_source_update`` only. An update that opens its
    source by other means is abandoned as far as this operator can tell, so the limit must be longer than
    any of those takes, or ``source_ids`` must leave their sources out. The key must be allowed to view
    sources.

    :param source_ids: The sources to look after, a list of IDs; default: all Push sources of the
        organization. (templated)
    :param active_longer_than: How long a source must have been active. Default six hours.
    :param report_only: Whether to only say which sources are abandoned. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: The IDs of the sources that are ``abandoned``, of those of them that were ``closed``, and of
        those that are ``held`` open by a running bracket, 100 each at most, and how many are ``active``.
    :raises AccessDeniedError: if the key may not view sources.
    :raises CoveoError: once all sources were looked at, if one of them could not be closed.
    """

    template_fields: Sequence[str] = (*_CoveoOperator.template_fields, "source_ids", "report_only")

    def __init__(
        self,
        *,
        source_ids: Sequence[str] | None = None,
        active_longer_than: timedelta = timedelta(hours=6),
        report_only: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_ids = source_ids
        self.active_longer_than = active_longer_than
        self.report_only = report_only

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at each source, and close what nobody will close."""
        from airflow_provider_coveo.coveo.errors import CoveoError
        from airflow_provider_coveo.coveo.sources import is_active

        report_only = str(self.report_only).strip().lower() in {"true", "1", "yes"}
        found: dict[str, list[str]] = {"abandoned": [], "closed": [], "held": []}
        active = 0
        failure: CoveoError | None = None
        for source in self._sources():
            if not is_active(source):
                continue
            active += 1
            source_id = str(source["id"])
            verdict = self._verdict(source)
            if verdict is not None:
                found[verdict].append(source_id)
            if verdict == "abandoned" and not report_only:
                try:
                    self._close(source_id)
                    found["closed"].append(source_id)
                except CoveoError as error:
                    self.log.warning("%s", error)
                    failure = failure or error
        if failure is not None:
            raise failure
        return {**{name: source_ids[:100] for name, source_ids in found.items()}, "active": active}

    def _sources(self) -> Iterator[Mapping[str, Any]]:
        if self.source_ids is None:
            yield from self.hook.list_sources()
        else:
            yield from (self.hook.get_source(source_id) for source_id in self.source_ids)

    def _verdict(self, source: Mapping[str, Any]) -> str | None:
        from airflow_provider_coveo.coveo.ordering_ids import now_ms
        from airflow_provider_coveo.coveo.sources import active_since_ms
        from airflow_provider_coveo.run_state import Holder, is_run_working

        source_id, since = str(source["id"]), active_since_ms(source)
        if since is None:
            self.log.warning(
                "Coveo does not say since when source %s is active; it is left alone.", source_id
            )
            return None
        active_for = timedelta(milliseconds=now_ms() - since)
        holder = Holder.of_source(self.hook.organization_id, source_id)
        if holder is not None and is_run_working(holder.dag_id, holder.run_id):
            self.log.info(
                "Source %s has been active for %s; %s holds it open.", source_id, active_for, holder
            )
            return "held"
        if active_for < self.active_longer_than:
            self.log.info("Source %s has been active for %s, which is not too long.", source_id, active_for)
            return None
        self.log.warning(
            "Source %s has been active for %s, and nobody holds it open%s.",
            source_id,
            active_for,
            f" any more: {holder} does not go on" if holder else "",
        )
        return "abandoned"

    def _close(self, source_id: str) -> None:
        from airflow_provider_coveo.run_state import Holder

        holder = Holder.of_source(self.hook.organization_id, source_id)
        self.hook.set_source_status(source_id, "IDLE")
        if holder is not None:
            holder.release(self.hook.organization_id, source_id)
