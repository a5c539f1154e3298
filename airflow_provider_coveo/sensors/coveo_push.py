"""Sensors for Coveo: a source's status, the indexing of what was pushed, the daily quota."""

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
    conf,
)

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoError, ItemsRefusedError, error_from_json
from airflow_provider_coveo.operators.base import _SOURCE_LINKS, _CoveoOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.coveo.conditions import Condition, PollResult
    from airflow_provider_coveo.coveo.indexing import ItemsIndexedCondition

#: By how much Airflow's own watch over a deferred task is behind the trigger's, which says what it saw last,
#: and may take half of that for a last look.
_GRACE = timedelta(seconds=60)
#: The links of those sensors that wait for one source.


class _CoveoSensor(_CoveoOperator, BaseSensorOperator):
    """
    What the sensors share: three ways to wait, and one to look.

    :param deferrable: Whether to wait in the triggerer rather than in a worker.
    """

    ui_color: str = "#cdeac0"

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable

    def _condition(self) -> Condition:
        """Return what is waited for, from the rendered parameters."""
        raise NotImplementedError

    def _trigger(self, **how: Any) -> Any:
        """Return the trigger that waits for it."""
        raise NotImplementedError

    def poke(self, context: Context) -> PokeReturnValue:
        """
        Look once, and leave it to the triggerer to look again where that was chosen.

        Not ``execute`` does that: where an operator calls the ``execute`` of its base, Airflow 2.11 warns, or
        refuses, as if it were called by another operator.
        """
        from airflow_provider_coveo.coveo.conditions import PollResult

        try:
            seen = self._look()
        except CoveoError as error:
            goes_on = self.deferrable and self.silent_fail and error.retry_can_help
            if goes_on or self.soft_fail or self.never_fail:
                # Airflow says that the task is skipped, and not why.
                self.log.warning("%s", error)
            if not goes_on:
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
        """Return how many seconds to wait, and which limit that is."""
        if self.execution_timeout is not None:
            # It counts from the task's start, and `timeout` from the first look.
            started = getattr(context.get("ti"), "start_date", None)
            so_far = datetime.now(timezone.utc) - started if started else timedelta(0)
            seconds = (self.execution_timeout - so_far).total_seconds()
            if seconds <= self.timeout:
                return seconds, "execution_timeout"
        return self.timeout, "timeout"

    def execute_complete(self, context: Context, event: dict[str, Any], limit: str = "timeout") -> Any:
        """Conclude from what the trigger fired."""
        with self._skipping_as_told():
            outcome = event.get("outcome") if isinstance(event, dict) else None
            if outcome not in {"there", "too_late", "error"}:
                raise ValueError(
                    f"The trigger of task {self.task_id!r} fired what it never does: {event!r:.200}"
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
        """Fail as Airflow's sensors do for that limit: after ``timeout`` the task is not tried again."""
        if limit == "execution_timeout":
            raise AirflowTaskTimeout(
                f"The execution_timeout of {self.execution_timeout} is over. Seen last: {words}"
            )
        raise AirflowSensorTimeout(
            f"The timeout of {timedelta(seconds=self.timeout)} is over. Seen last: {words}"
        )

    @contextmanager
    def _skipping_as_told(self) -> Iterator[None]:
        """Make of an error what Airflow's sensors do with ``soft_fail`` and ``never_fail``."""
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
    Wait until a Push source has one of some statuses.

    The task fails at once where waiting can't help: if the source is in error, paused because of errors,
    disabled or being deleted, if there is no such source, and if the organization is paused. The key must be
    allowed to view sources, which one that may only push is not. See https://docs.coveo.com/en/35/ for the
    statuses.

    :param source_id: The ID of the Push source. (templated)
    :param statuses: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case; several in a list, or
        in a text with commas between them. Default ``IDLE``. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: as the setting
        ``[operators] default_deferrable`` says.
    :param poke_interval: Seconds from one look to the next, or a ``timedelta``. Default 60.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``; ``status``; ``active_since``, when the update began in epoch milliseconds,
        ``None`` for ``IDLE``.
    :raises CoveoInputError: if a value can't be right; nothing was sent, and the task does not retry.
    :raises SourceNotUsableError: if the source is in a state that it does not leave by itself.
    :raises OrganizationPausedError: if the organization is paused.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = ("source_id", "statuses", *_CoveoOperator.template_fields)
    operator_extra_links = _SOURCE_LINKS

    def __init__(self, *, source_id: str, statuses: Any = "IDLE", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.statuses = statuses

    def _condition(self) -> Condition:
        from airflow_provider_coveo.coveo.conditions import SourceStatusCondition, validate_statuses

        return SourceStatusCondition(validate_source_id(self.source_id), validate_statuses(self.statuses))

    def _trigger(self, **how: Any) -> Any:
        from airflow_provider_coveo.coveo.conditions import validate_statuses
        from airflow_provider_coveo.triggers.coveo_push import PushSourceStatusTrigger

        statuses = [status.value for status in validate_statuses(self.statuses)]
        return PushSourceStatusTrigger(source_id=self.source_id, statuses=statuses, **how)


class PushedItemsIndexedSensor(_CoveoSensor):
    """
    Wait until Coveo's pipeline is through with what a task pushed, and fail if it refused some of it.

    Coveo accepts a push before it looks at the items, so a push that succeeded may still lack items in the
    index. What became of them shows in Coveo's item logs, which this sensor counts: two requests a look, and
    more only where something was refused. Then the task fails with a table of the first 20 refused items:
    which, what was to be done, at which stage, with which result, why, and the request ID. Up to
    ``max_refused`` of them are put up with, and the table is a warning.

    What the logs can't tell:

    * They have no key of the push. What belongs to it is told by the source and by the time: what others push
      to the source meanwhile is counted as well. The log says so where more operations show than were pushed.
    * Whether the ``requestId`` of an entry is that of the push is not documented, so it is shown, and nothing
      is concluded from it.
    * A batch may be sent twice: because no answer told whether Coveo had taken it, or because the process
      that sent it was killed. The result of the push says of how many operations (``repeated_items``), and
      the logs may show these twice. All is through once as many operations show as were sent, repeats
      included, or once as many different ones show as were pushed, which is looked up for up to 1,000. Where
      neither is so, because Coveo had not taken them before, or the push has an item in two of its batches,
      it can't be told: see ``on_repeated``.
    * A task that had succeeded and was cleared may push while its first push is still in the pipeline. Where
      that was within the last hour, the result says so (``earlier_items``), and all is through only once as
      many more operations show, or nothing has come into the logs for ``quiet_time``.
    * Deletions with children count as often as they were sent, however many items go with them.
    * An operation that several stages tell of counts once; how often Coveo logs an operation in one stage is
      not documented, and taken for once.
    * They are kept for 14 days, and answer for 7 at a time.
    * A request may take up to a minute. Keep ``poke_interval`` in minutes.
    * They are asked for up to now by the clock of the worker or the triggerer. One that is behind Coveo's
      makes the task wait for as much longer, one that is ahead takes as much off ``settle_time``.

    The key must be allowed to view the organization and all sources, which one that may only push is not. See
    https://docs.coveo.com/en/59/ and https://docs.coveo.com/en/1864/.

    :param result: What the push task returned: its ``.output``; or a list of it, as mapped tasks give, for
        one source. (templated)
    :param source_id: The ID of the Push source. Default: as the result says. (templated)
    :param max_refused: Up to how many refused items the task succeeds, with a warning. Default 0. (templated)
    :param settle_time: For how long the logs must have shown that all is through, in seconds or as a
        ``timedelta``. Default 60 seconds, because an index commits about once a minute
        (https://docs.coveo.com/en/32/), and items are found only then. (templated)
    :param refused_results: The results that count as refused: some of ``ERROR``, ``REJECTED`` and
        ``SKIPPED``. Default all three; an item with another of them counts as through. (templated)
    :param on_repeated: What to do if some was sent twice, enough operations show, and it can't be told
        whether all that was pushed is among them: ``fail`` (the default), or ``warn`` to succeed with a
        warning. Neither happens before nothing has come into the logs for ``quiet_time``. (templated)
    :param quiet_time: For how long, in seconds or as a ``timedelta``. Default ten minutes. (templated)
    :param rejected_path: The file for the items that were refused, as JSON Lines (``.ndjson``,
        ``.ndjson.gz``), local or on an object storage: each with its ID and Coveo's reason. A worker writes
        it once all is through, if something was refused, whether the task then fails or not. Not for an item
        that the logs show as indexed by a later stage, where that is looked up. Default none. (templated)
    :param pushed_path: The files that were pushed, as ``path`` of ``PushItemsOperator``, from which the
        refused items are taken, so that they can be pushed again; without it, the file has their IDs only.
        Default none. (templated)
    :param pushed_columns: For tables, ``columns`` of that push. Default none. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: as the setting
        ``[operators] default_deferrable`` says.
    :param poke_interval: Seconds from one look to the next, or a ``timedelta``. Default 120.
    :param timeout: Seconds until the task gives up, or a ``timedelta``. Default two hours.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``source_id``; ``operations``: how many additions, updates and deletions were sent; ``indexed``
        and ``refused``: how many of them were; ``skipped``: how many did not pass with a result that does not
        count as refused; ``repeated``: how many more operations showed in the logs than were pushed, up to as
        many as were sent twice; ``others``: how many more than that; with ``rejected_path``, ``rejected``:
        how many items are in that file, and ``rejected_path``, ``None`` if none are.
    :raises CoveoInputError: if a value can't be right, or the push is longer ago than logs are kept; the task
        does not retry.
    :raises ItemsRefusedError: if the pipeline refused more items than are put up with; the task does not
        retry.
    :raises IndexingUnknownError: if it can't be told whether all is through; the task does not retry.
    :raises AccessDeniedError: if the key may not view logs.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
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
        result: Any,
        source_id: str | None = None,
        max_refused: int | str = 0,
        settle_time: timedelta | float | str = 60.0,
        refused_results: Any = ("ERROR", "REJECTED", "SKIPPED"),
        on_repeated: str = "fail",
        quiet_time: timedelta | float | str = 600.0,
        rejected_path: Any = None,
        pushed_path: Any = None,
        pushed_columns: Mapping[str, str] | None = None,
        poke_interval: timedelta | float = 120.0,
        timeout: timedelta | float = timedelta(hours=2),
        **kwargs: Any,
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

    def execute_complete(self, context: Context, event: dict[str, Any], limit: str = "timeout") -> Any:
        """Conclude from what the trigger fired, and write the file of what was refused."""
        error = event.get("error") if isinstance(event, dict) else None
        if isinstance(error, dict) and error.get("error") == ItemsRefusedError.__name__:
            self._write_refused(fails=True)
        result = super().execute_complete(context, event, limit)
        return {**result, **self._write_refused(refused=result["refused"])}

    def _look(self) -> PollResult:
        try:
            seen = super()._look()
        except ItemsRefusedError:
            self._write_refused(fails=True)
            raise
        if seen.is_there and seen.result is not None:
            written = self._write_refused(refused=seen.result["refused"])
            return replace(seen, result={**seen.result, **written})
        return seen

    def _write_refused(self, *, refused: int | None = None, fails: bool = False) -> dict[str, Any]:
        """
        Write what was refused, if a file is asked for.

        :param refused: How much was, ``None`` if that is not known.
        :param fails: Whether the task is about to fail, so that a file that can't be written is a warning.
        """
        if not self.rejected_path:
            return {}
        from airflow_provider_coveo.hooks.rejected_items import write_pipeline_rejections

        condition = self._checked()
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
            self.log.warning("Could not write the refused items to %s: %r", self.rejected_path, problem)
            return {}

    def _condition(self) -> Condition:
        return self._checked()

    def _checked(self) -> ItemsIndexedCondition:
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

    def _trigger(self, **how: Any) -> Any:
        from airflow_provider_coveo.triggers.coveo_push import PushedItemsIndexedTrigger

        wait = self._checked()
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
    Wait until so many items may still be pushed today.

    Coveo takes no item beyond the organization's daily quota, so put this first where a push is all or
    nothing. With ``timeout=0`` it is a check: the task looks once, and fails or, with ``soft_fail``, is
    skipped. Coveo documents that the quota renews the next day, and not at which hour. The task fails at once
    if the quota of a whole day is too small, and if the organization is paused. The key must be allowed to
    view the organization, which one that may only push is not. See https://docs.coveo.com/en/63/.

    :param items: How many items. (templated)
    :param deferrable: Whether to wait in the triggerer rather than in a worker. Default: as the setting
        ``[operators] default_deferrable`` says.
    :param poke_interval: Seconds from one look to the next, or a ``timedelta``. Default 600.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :return: ``limit``, ``used`` and ``remaining``.
    :raises CoveoInputError: if a value can't be right, or is above the quota of a day; the task does not
        retry.
    :raises OrganizationPausedError: if the organization is paused.
    :raises AccessDeniedError: if the key may not view the organization.
    :raises CoveoError: if Coveo refuses or does not answer; the task retries where that can help.
    """

    template_fields: Sequence[str] = ("items", *_CoveoOperator.template_fields)

    def __init__(self, *, items: int | str, poke_interval: timedelta | float = 600.0, **kwargs: Any) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.items = items

    def _condition(self) -> Condition:
        from airflow_provider_coveo.coveo.conditions import DailyQuotaCondition, validate_items

        return DailyQuotaCondition(validate_items(self.items))

    def _trigger(self, **how: Any) -> Any:
        from airflow_provider_coveo.coveo.conditions import validate_items
        from airflow_provider_coveo.triggers.coveo_push import PushApiQuotaTrigger

        return PushApiQuotaTrigger(items=validate_items(self.items), **how)
