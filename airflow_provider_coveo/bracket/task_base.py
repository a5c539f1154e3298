"""Base class of a bracket's own tasks: it has the IDs of the other tasks, and the opened source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_coveo.bracket.members import UpdateTasks, holder_of_update, states
from airflow_provider_coveo.operators.base import _SOURCE_LINKS, _CoveoOperator
from airflow_provider_coveo.state.airflow_runs import TaskStates
from airflow_provider_coveo.state.ledger import BracketRecord, Holder

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from jinja2 import Environment
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import ConnectionArguments


class _UpdateOperator(_CoveoOperator):
    """
    One of the bracket's tasks, which relies on the wiring by ``push_source_update``.

    :param source_id: The ID of the Push source. (templated)
    :param update_tasks: The bracket's tasks.
    """

    #: Its role in the bracket.
    bracket_role: ClassVar[str] = ""
    #: Whether the task runs even if template rendering fails, because the opened source is recorded.
    works_unrendered: ClassVar[bool] = False

    template_fields: Sequence[str] = ("source_id", *_CoveoOperator.template_fields)
    operator_extra_links = _SOURCE_LINKS

    def __init__(
        self, *, source_id: str, update_tasks: UpdateTasks, **kwargs: Unpack[ConnectionArguments]
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.update_tasks = update_tasks

    def render_template_fields(self, context: Context, jinja_env: Environment | None = None) -> None:
        """Render the templates; a failure must not leave a source open."""
        try:
            super().render_template_fields(context, jinja_env)
        except Exception:
            if not self.works_unrendered:
                raise
            self.log.warning("Template rendering failed; using the values from `open`", exc_info=True)
            self.source_id = ""

    def _holder(self, context: Context) -> Holder:
        return holder_of_update(context, self.update_tasks)

    def _states(self, context: Context, task_ids: Iterable[str]) -> TaskStates:
        return states(context, self.update_tasks, task_ids)

    def _use_source_of(self, record: BracketRecord) -> None:
        """Use the source and the connection that the run's first `open` pinned."""
        rendered = self.coveo_conn_id
        self.source_id, self.coveo_conn_id = record.source_id, record.coveo_conn_id
        self.organization_id = record.organization_id
        # The existing hook was created from the rendered templates.
        self.__dict__.pop("hook", None)
        if rendered == record.coveo_conn_id:
            return
        try:
            self.hook.settings  # noqa: B018 - it reads the connection
        except AirflowNotFoundException:
            self.log.warning(
                "Connection %r, which opened source %s, no longer exists; using %r",
                record.coveo_conn_id,
                record.source_id,
                rendered,
            )
            self.coveo_conn_id = rendered
            self.__dict__.pop("hook", None)
