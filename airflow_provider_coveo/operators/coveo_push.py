"""Operators for Coveo Push sources. They render, call the hook, and return small JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook


class _CoveoPushOperator(BaseOperator):
    """What the operators share: the source, the connection and the hook."""

    template_fields: Sequence[str] = ("source_id", "coveo_conn_id", "organization_id")
    ui_color: str = "#d7e3fc"

    def __init__(
        self,
        *,
        source_id: str,
        coveo_conn_id: str = "coveo_default",
        organization_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
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
