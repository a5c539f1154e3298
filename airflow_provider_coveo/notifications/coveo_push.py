"""A notifier that sets a source's status, for DAGs that define their own callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_coveo.threads import in_thread

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CoveoSourceStatusNotifier(BaseNotifier):
    """
    Set the status of a Push source when a DAG or a task fails, by default to ``IDLE``.

    Pass it to ``on_failure_callback`` of the DAG or of a task; the bracket (``push_source_update``) does not
    need it. It doesn't check whether anyone else is updating the source: if two runs do so at once, the one
    that fails closes the source for the other.

    Callbacks of a DAG run in the DAG processor, which kills those that run longer than
    ``dag_file_processor_timeout`` (50 s by default). So the notifier gives Coveo 20 seconds to accept the
    status, and does not wait for the connection's ``call_interval``. From Airflow 3.1 on, the triggerer can
    await it too, for deadline alerts. See https://docs.coveo.com/en/35/.

    :param source_id: The ID of the Push source. (templated)
    :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case. Default ``IDLE``.
        (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :param kwargs: Other arguments of Airflow's notifiers.
    :raises CoveoInputError: when it is called, if a parameter is invalid; nothing was sent.
    :raises CoveoError: when it is called, if the request fails.
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
        # DAG files import this module, and the hook imports requests.
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
        """Set the status without blocking the event loop."""
        await in_thread(self.notify, context)
