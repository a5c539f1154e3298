"""A notifier that sets a source's status, for those who wire callbacks themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CoveoSourceStatusNotifier(BaseNotifier):
    """
    Set the status of a Push source when a DAG or a task has failed: by default ``IDLE``.

    Give it to ``on_failure_callback``, of the DAG or of a task; the bracket (``push_source_update``) needs
    none. It does not look who else works on the source: where two runs may do that at a time, the one that
    fails closes the source for the other. Callbacks of a DAG run in the DAG processor, which kills those that
    last longer than ``dag_file_processor_timeout`` (50 s by default), so Coveo is given 20 seconds to
    accept the status, and the connection's ``call_interval`` is not waited for. From Airflow 3.1 on it can be
    awaited as well, in the triggerer, as deadline alerts do. See https://docs.coveo.com/en/35/.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case. Default ``IDLE``.
        (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :param kwargs: What else Airflow's notifiers take.
    :raises CoveoInputError: when it is called, if a value can't be right; nothing was sent.
    :raises CoveoError: when it is called, if Coveo refuses or does not answer.
    """

    template_fields: Sequence[str] = ("source_id", "status", "coveo_conn_id", "organization_id")

    def __init__(
        self,
        *,
        source_id: str,
        status: str = "IDLE",
        coveo_conn_id: str = "coveo_default",
        organization_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.status = status
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id

    def notify(self, context: Context) -> None:
        """Set the status."""
        # A DAG file imports this module; the hook brings requests with it.
        from airflow_provider_coveo.coveo.retries import RetryPolicy
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        hook = CoveoPushHook(
            self.coveo_conn_id,
            organization_id=self.organization_id,
            retry=RetryPolicy(total_seconds=20),
            timeout=10,
            call_interval=0,
            caller=type(self).__name__,
        )
        hook.set_source_status(self.source_id, self.status)

    async def async_notify(self, context: Context) -> None:
        """Set the status without holding up the event loop."""
        await asyncio.to_thread(self.notify, context)
