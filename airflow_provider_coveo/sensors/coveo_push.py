"""Sensors for Coveo: a source's status, the indexing of pushed items, and the daily quota."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoError, ItemsRefusedError, error_from_json
from airflow_provider_coveo.operators.base import _SOURCE_LINKS, _CoveoOperator, _is_deferrable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.coveo.conditions import Condition, PollResult
    from airflow_provider_coveo.coveo.indexing import ItemsIndexedCondition
    from airflow_provider_coveo.coveo.results import RejectedResult
    from airflow_provider_coveo.operators.arguments import (
        IndexedSensorArguments,
        QuotaSensorArguments,
        StatusSensorArguments,
        WaitingArguments,
    )
    from airflow_provider_coveo.triggers.coveo_push import TriggerArguments, _CoveoTrigger

#: The delay of Airflow's own timeout of a deferred task after the trigger's. The trigger reports what it saw
#: last, and its last check can take half of that time.
_GRACE = timedelta(seconds=60)


class _CoveoSensor(_CoveoOperator, BaseSensorOperator):
    """
    Base class of the sensors: three ways to wait, and one way to poll.

    :param deferrable: Whether to wait in the triggerer rather than in a worker.
    """

    ui_color: str = "#cdeac0"

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Unpack[WaitingArguments]) -> None:
        super().__init__(**kwargs)
        self.deferrable = _is_deferrable(deferrable)

    def _condition(self) -> Condition:
        """Return the condition to wait for, from the rendered parameters."""
        raise NotImplementedError

    def _trigger(self, **how: Unpack[TriggerArguments]) -> _CoveoTrigger:
        """Return the trigger that waits for the condition."""
        raise NotImplementedError

    def poke(self, context: Context) -> PokeReturnValue:
        """
        Poll once, and defer further polls to the triggerer if the sensor is deferrable.

        ``execute`` can't do that: if an operator calls the ``execute`` of its base class, Airflow 2.11 warns
        or fails, as if another operator had called it.
        """
        from airflow_provider_coveo.coveo.conditions import PollResult

        try:
            seen = self._look()
        except CoveoError as error:
            continues = self.deferrable and self.silent_fail and error.retry_can_help
            if continues or self.soft_fail or self.never_fail:
                # Airflow logs that the task is skipped, but not the reason.
                self.log.warning("%s", error)
            if not continues:
                raise
            seen = PollResult(False, str(error))
        if self.deferrable and not seen.is_there:
            self._defer(context, seen.words)
        return PokeReturnValue(seen.is_there, seen.result if seen.is_there else None)

    def _look(self) -> PollResult:
        try:
            condition = self._condition()
        except CoveoError as error:
            raise as_non_retryable(error) from None
        seen = self.hook.poll(condition)
        self.log.info("%s", seen.words)
        if seen.warning:
            self.log.warning("%s", seen.warning)
        return seen

    def _defer(self, context: Context, words: str) -> None:
        seconds, limit = self._time_left(context)
        if seconds <= 0:
            self._give_up(limit, words)
        self.defer(
            trigger=self._trigger(
                coveo_conn_id=self.coveo_conn_id,
                organization_id=self.organization_id,
                poke_interval=self.poke_interval,
                give_up_at=time.time() + seconds,
                silent_fail=self.silent_fail,
            ),
            method_name="execute_complete",
            kwargs={"limit": limit},
            timeout=timedelta(seconds=seconds) + _GRACE,
        )

    def _time_left(self, context: Context) -> tuple[float, str]:
        """Return the seconds to wait, and the limit that sets them."""
        if self.execution_timeout is not None:
            # It counts from the task's start, but `timeout` counts from the first poll.
            started = getattr(context.get("ti"), "start_date", None)
            so_far = datetime.now(timezone.utc) - started if started else timedelta(0)
            seconds = (self.execution_timeout - so_far).total_seconds()
            if seconds <= self.timeout:
                return seconds, "execution_timeout"
        return self.timeout, "timeout"

    def execute_complete(self, context: Context, event: dict[str, Any], limit: str = "timeout") -> Any:
        """Finish the task with the trigger's event."""
        with self._skipping_as_told():
            outcome = event.get("outcome") if isinstance(event, dict) else None
            if outcome not in {"there", "too_late", "error"}:
                raise ValueError(
                    f"The trigger of task {self.task_id!r} sent an unexpected event: {event!r:.200}"
                )
            if outcome == "error":
                raise as_non_retryable(error_from_json(event["error"]))
            if outcome == "too_late":
                self._give_up(limit, event["words"])
            self.log.info("%s", event["words"])
            if event.get("warning"):
                self.log.warning("%s", event["warning"])
            return event["result"]

    def _give_up(self, limit: str, words: str) -> None:
        """Fail like Airflow's sensors for that limit: after ``timeout``, the task is not retried."""
        if limit == "execution_timeout":
            raise AirflowTaskTimeout(
                f"The execution_timeout of {self.execution_timeout} has passed. Last poll: {words}"
            )
        raise AirflowSensorTimeout(
            f"The timeout of {timedelta(seconds=self.timeout)} has passed. Last poll: {words}"
        )

    @contextmanager
    def _skipping_as_told(self) -> Iterator[None]:
        """Handle an error like Airflow's sensors with ``soft_fail`` and ``never_fail``."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise


class PushSourceStatusSensor(_CoveoSensor):
    """
    Wait until a Push source has one of several statuses.

    The task fails immediately if waiting can't help: if the source is in error, paused because of errors,
    disabled or being deleted, if it does not exist, or if the organization is paused. The key needs the
    privilege to view sources, which a push-only key lacks. See https://docs.coveo.com/en/35/ for the
    statuses.

    :param source_id: The ID of the Push source. (templated)
    :param statuses: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case; several in a list, or
        in a string, separated by commas. Default ``IDLE``. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: the setting
        ``[operators] default_deferrable``.
    :param poke_interval: The interval between two polls in seconds, or a ``timedelta``. Default 60.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id``; ``status``; ``active_since``, the start of the update in epoch milliseconds,
        ``None`` for ``IDLE``.
    :raises CoveoInputError: if a parameter is invalid; nothing was sent, and the task does not retry.
    :raises SourceNotUsableError: if the source is in a state that it does not leave by itself.
    :raises OrganizationPausedError: if the organization is paused.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = ("source_id", "statuses", *_CoveoOperator.template_fields)
    operator_extra_links = _SOURCE_LINKS

    def __init__(
        self, *, source_id: str, statuses: object = "IDLE", **kwargs: Unpack[StatusSensorArguments]
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.statuses = statuses

    def _condition(self) -> Condition:
        from airflow_provider_coveo.coveo.conditions import SourceStatusCondition, validate_statuses

        return SourceStatusCondition(validate_source_id(self.source_id), validate_statuses(self.statuses))

    def _trigger(self, **how: Unpack[TriggerArguments]) -> _CoveoTrigger:
        from airflow_provider_coveo.coveo.conditions import validate_statuses
        from airflow_provider_coveo.triggers.coveo_push import PushSourceStatusTrigger

        statuses = [status.value for status in validate_statuses(self.statuses)]
        return PushSourceStatusTrigger(source_id=self.source_id, statuses=statuses, **how)


class PushedItemsIndexedSensor(_CoveoSensor):
    """
    Wait until Coveo's pipeline has processed everything that a task pushed, and fail if it rejected items.

    Coveo accepts a push before it examines the items, so items of a successful push can be missing from the
    index. Coveo's item logs show the result of each item. This sensor counts them, with two requests per
    poll, and more only after a rejection. Then the task fails with a table of the first 20 rejected items:
    the item, the operation, the stage, the result, the reason and the request ID. If at most ``max_refused``
    items were rejected, the table is a warning. Either way, the page *Push sources* and the
    events of the sensor's assets show their number.

    The logs have these limits:

    * They do not identify the push. The sensor selects entries by source and time, so it also counts what
      others push to the source at the same time. The task's log reports if there are more operations than
      were pushed.
    * Coveo does not document whether the ``requestId`` of an entry is that of the push. The sensor shows it,
      but draws no conclusion from it.
    * A batch can be sent twice: because no response confirmed that Coveo accepted it, or because the process
      that sent it was killed. The result of the push contains the number of these operations
      (``repeated_items``), and the logs can show them twice. Everything is processed once the logs show as
      many operations as were sent, including repeats, or as many different operations as were pushed; the
      sensor looks up to 1,000 of these. If neither is true, because Coveo had not accepted the first batch,
      or because the push has an item in two of its batches, the result is unknown: see ``on_repeated``.
    * If a task that succeeded is cleared, it can push while its first push is still in the pipeline. If that
      was within the last hour, the result shows it (``earlier_items``), and everything is processed only once
      the logs show as many more operations, or have had no new entries for ``quiet_time``.
    * Deletions with children count as often as they were sent, however many items they delete.
    * An operation in several stages counts once. Coveo does not document how often it logs an operation in
      one stage; the sensor assumes once.
    * Coveo keeps them for 14 days, and returns up to 7 days per request.
    * A request can take up to a minute. Set ``poke_interval`` to minutes.
    * The sensor requests entries up to the current time on the clock of the worker or the triggerer. If that
      clock is behind Coveo's, the task waits longer by the difference; if it is ahead, ``settle_time`` is
      shorter by the difference.

    The key needs the privileges to view the organization and all sources, which a push-only key lacks. See
    https://docs.coveo.com/en/59/ and https://docs.coveo.com/en/1864/.

    :param result: The result of the push task: its ``.output``; or a list of results of mapped tasks for one
        source. (templated)
    :param source_id: The ID of the Push source. Default: the one in the result. (templated)
    :param max_refused: The number of rejected items up to which the task succeeds, with a warning. Default 0.
        (templated)
    :param settle_time: The time for which the logs must have shown that everything is processed, in seconds
        or as a ``timedelta``. Default 60 seconds, because an index commits about once a minute
        (https://docs.coveo.com/en/32/), and items are searchable only then. (templated)
    :param refused_results: The results that count as rejected: some of ``ERROR``, ``REJECTED`` and
        ``SKIPPED``. Default all three; an item with one of the others counts as processed. (templated)
    :param on_repeated: The behavior if operations were sent twice and the logs show enough operations, but
        not whether they include everything that was pushed: ``fail`` (the default), or ``warn`` to succeed
        with a warning. It applies only after the logs have had no new entries for ``quiet_time``. (templated)
    :param quiet_time: That time, in seconds or as a ``timedelta``. Default ten minutes. (templated)
    :param rejected_path: The file for rejected items, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: each with its ID and Coveo's reason. A worker writes it after everything is
        processed, if items were rejected, whether or not the task then fails. It excludes items that the logs
        show as indexed by a later stage, if the sensor looks that up. Default none. (templated)
    :param pushed_path: The pushed files, like ``path`` of ``PushItemsOperator``, from which the sensor reads
        the rejected items, so that they can be pushed again. Without it, the file contains only their IDs.
        Default none. (templated)
    :param pushed_columns: For tables, ``columns`` of that push. Default none. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: the setting
        ``[operators] default_deferrable``.
    :param poke_interval: The interval between two polls in seconds, or a ``timedelta``. Default 120.
    :param timeout: The time until the sensor times out, in seconds or as a ``timedelta``. Default two hours.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id``; ``operations``: the number of additions, updates and deletions that were sent;
        ``indexed`` and ``refused``: the numbers of indexed and rejected ones; ``skipped``: the number of
        those that did not pass, but whose result does not count as rejected; ``repeated``: the number of
        operations in the logs beyond those that were pushed, up to the number that was sent twice;
        ``others``: the number beyond that; with ``rejected_path``, ``rejected``: the number of items in that
        file, and ``rejected_path``, ``None`` if there are none.
    :raises CoveoInputError: if a parameter is invalid, or the push is older than the logs; the task does not
        retry.
    :raises ItemsRefusedError: if the pipeline rejected more items than allowed; the task does not retry.
    :raises IndexingUnknownError: if the logs can't show whether everything is processed; the task does not
        retry.
    :raises AccessDeniedError: if the key lacks the privilege to view logs.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        "result",
        "source_id",
        "max_refused",
        "settle_time",
        "refused_results",
        "on_repeated",
        "quiet_time",
        "rejected_path",
        "pushed_path",
        "pushed_columns",
        *_CoveoOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"result": "json"}
    operator_extra_links = _SOURCE_LINKS

    def __init__(
        self,
        *,
        result: object,
        source_id: str | None = None,
        max_refused: int | str = 0,
        settle_time: timedelta | float | str = 60.0,
        refused_results: object = ("ERROR", "REJECTED", "SKIPPED"),
        on_repeated: str = "fail",
        quiet_time: timedelta | float | str = 600.0,
        rejected_path: object = None,
        pushed_path: object = None,
        pushed_columns: Mapping[str, str] | None = None,
        poke_interval: timedelta | float = 120.0,
        timeout: timedelta | float = timedelta(hours=2),
        **kwargs: Unpack[IndexedSensorArguments],
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.result = result
        self.source_id = source_id
        self.max_refused = max_refused
        self.settle_time = settle_time
        self.refused_results = refused_results
        self.on_repeated = on_repeated
        self.quiet_time = quiet_time
        self.rejected_path = rejected_path
        self.pushed_path = pushed_path
        self.pushed_columns = pushed_columns

    def execute_complete(self, context: Context, event: dict[str, object], limit: str = "timeout") -> object:
        """Evaluate the trigger's event, and write the file of rejected items."""
        error = event.get("error") if isinstance(event, dict) else None
        if isinstance(error, dict) and error.get("error") == ItemsRefusedError.__name__:
            self._record_rejected(event.get("rejected"))
            self._write_refused(fails=True)
        result = super().execute_complete(context, event, limit)
        self._record_rejected({"rejected": result["refused"]})
        return {**result, **self._write_refused(refused=result["refused"])}

    def _look(self) -> PollResult:
        try:
            seen = super()._look()
        except ItemsRefusedError as error:
            self._record_rejected(error.rejected)
            self._write_refused(fails=True)
            raise
        if seen.is_there and seen.result is not None:
            self._record_rejected({"rejected": seen.result["refused"]})
            refused = seen.result["refused"]
            written = self._write_refused(refused=refused if isinstance(refused, int) else None)
            return replace(seen, result={**seen.result, **written})
        return seen

    def _record_rejected(self, counts: object) -> None:
        """
        Record the number of rejected items, for the page *Push sources* and the events of assets.

        :param counts: The counts. A triggerer of an earlier version sends none.
        """
        from airflow_provider_coveo.hooks.run_records import record_rejected

        if isinstance(counts, Mapping):
            record_rejected(self.hook, self._condition().pushed.source_id, counts)

    def _forget_refused(self, *, fails: bool) -> None:
        """
        Remove rejected items from the snapshots of the push, so that the next push sends them again.

        :param fails: Whether the task is about to fail, so that an error here is only a warning.
        """
        condition = self._condition()
        snapshots = condition.pushed.snapshots
        if not snapshots:
            return
        from airflow_provider_coveo.hooks.changes import forget_rejected

        try:
            forget_rejected(self.hook, condition.pushed, condition.refusals, snapshots)
        except Exception as problem:
            if not fails:
                raise
            self.log.warning("Could not remove the rejected items from the snapshot: %r", problem)

    def _write_refused(self, *, refused: int | None = None, fails: bool = False) -> RejectedResult:
        """
        Write the rejected items, if a file is set.

        :param refused: The number of rejected items, ``None`` if it is unknown.
        :param fails: Whether the task is about to fail, so that an error here is only a warning.
        """
        if refused != 0:
            self._forget_refused(fails=fails)
        if not self.rejected_path:
            return {}
        from airflow_provider_coveo.hooks.rejected_items import write_pipeline_rejections

        condition = self._condition()
        try:
            return write_pipeline_rejections(
                self.hook,
                condition.pushed,
                condition.refusals if refused != 0 else (),
                self.rejected_path,
                self.pushed_path or None,
                self.pushed_columns,
            )
        except Exception as problem:
            if not fails:
                raise
            self.log.warning("Could not write the rejected items to %s: %r", self.rejected_path, problem)
            return {}

    def _condition(self) -> ItemsIndexedCondition:
        from airflow_provider_coveo.coveo.indexing import (
            ItemsIndexedCondition,
            Pushed,
            validate_max_refused,
            validate_on_repeated,
            validate_refusals,
            validate_settle_seconds,
        )

        return ItemsIndexedCondition(
            Pushed.read(self.result, self.source_id or None),
            validate_max_refused(self.max_refused),
            validate_settle_seconds(self.settle_time),
            validate_refusals(self.refused_results),
            validate_on_repeated(self.on_repeated),
            validate_settle_seconds(self.quiet_time, "quiet_time"),
        )

    def _trigger(self, **how: Unpack[TriggerArguments]) -> _CoveoTrigger:
        from airflow_provider_coveo.triggers.coveo_push import PushedItemsIndexedTrigger

        wait = self._condition()
        return PushedItemsIndexedTrigger(
            source_id=wait.pushed.source_id,
            operations=wait.pushed.operations,
            started=wait.pushed.started,
            max_refused=wait.max_refused,
            settle_seconds=wait.settle_seconds,
            refusals=wait.refusals,
            repeated=wait.pushed.repeated,
            adds=wait.pushed.adds,
            children=wait.pushed.children,
            earlier=wait.pushed.earlier,
            repeated_children=wait.pushed.repeated_children,
            on_repeated=wait.on_repeated,
            quiet_seconds=wait.quiet_seconds,
            **how,
        )


class PushApiQuotaSensor(_CoveoSensor):
    """
    Wait until a number of items can still be pushed today.

    Coveo accepts no items beyond the organization's daily quota, so use this sensor before a push that must
    be complete. With ``timeout=0``, it is a check: the task polls once, and fails or, with ``soft_fail``, is
    skipped. Coveo documents that the quota renews the next day, but not at which hour. The task fails
    immediately if the quota of a whole day is too small, or if the organization is paused. The key needs the
    privilege to view the organization, which a push-only key lacks. See https://docs.coveo.com/en/63/.

    :param items: The number of items. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: the setting
        ``[operators] default_deferrable``.
    :param poke_interval: The interval between two polls in seconds, or a ``timedelta``. Default 600.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``limit``, ``used`` and ``remaining``.
    :raises CoveoInputError: if a parameter is invalid, or ``items`` exceeds the quota of a day; the task does
        not retry.
    :raises OrganizationPausedError: if the organization is paused.
    :raises AccessDeniedError: if the key lacks the privilege to view the organization.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = ("items", *_CoveoOperator.template_fields)

    def __init__(
        self,
        *,
        items: int | str,
        poke_interval: timedelta | float = 600.0,
        **kwargs: Unpack[QuotaSensorArguments],
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.items = items

    def _condition(self) -> Condition:
        from airflow_provider_coveo.coveo.conditions import DailyQuotaCondition, validate_items

        return DailyQuotaCondition(validate_items(self.items))

    def _trigger(self, **how: Unpack[TriggerArguments]) -> _CoveoTrigger:
        from airflow_provider_coveo.coveo.conditions import validate_items
        from airflow_provider_coveo.triggers.coveo_push import PushApiQuotaTrigger

        return PushApiQuotaTrigger(items=validate_items(self.items), **how)
