"""Recreate a source: a copy replaces it, and the original is deleted after an approval."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowOptionalProviderFeatureException,
    AirflowSkipException,
    BaseOperator,
    Param,
    TaskGroup,
)

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.coveo.errors import short_repr
from airflow_provider_coveo.operators.base import _given_connection
from airflow_provider_coveo.operators.coveo_source import DeletePushSourceOperator, RecreatePushSourceOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import TaskArguments
    from airflow_provider_coveo.task_groups.arguments import GroupArguments, NamedGroupArguments

#: A DAG's default_args must neither move the deletion before the approval nor let the approval expire.
_IN_ORDER: dict[str, Any] = {"trigger_rule": "all_success", "depends_on_past": False}

_SUBJECT = "Delete the old Coveo source?"
_BODY = """\
{{%- set done = ti.xcom_pull(task_ids={task_id!r}) -%}}
Source **{{{{ done.source_name }}}}** (`{{{{ done.source_id }}}}`) and its \
{{{{ done.number_of_items }}}} item{{{{ "s" if done.number_of_items != 1 }}}} will be deleted permanently.

**{{{{ done.new_source_name }}}}** (`{{{{ done.new_source_id }}}}`) replaces it. It was tested, and contains \
what has been pushed to it since.
{{% if done.managed_by %}}
{{{{ done.managed_by }}}} manages the old source: set the new ID in its configuration first.
{{% endif %}}
Approve when the new source has all content and nothing uses the old ID anymore.
"""


class ApproveByParamOperator(BaseOperator):
    """
    Succeed if the person who started the run repeated a source's name in a param of the DAG, else skip.

    It replaces the approval in Airflow before 3.1, which has none.

    :param param: The name of the param.
    :param source_name: The name of the source to delete. (templated)
    :raises CoveoInputError: if the param names another source; the task does not retry.
    """

    template_fields: Sequence[str] = ("source_name",)
    ui_color: str = "#d7e3fc"

    def __init__(self, *, param: str, source_name: object, **kwargs: Unpack[TaskArguments]) -> None:
        super().__init__(**kwargs)
        self.param = param
        self.source_name = source_name

    def execute(self, context: Context) -> str:
        """Compare the param with the name."""
        params = context["params"]
        approved = params.get(self.param)
        if not approved:
            raise AirflowSkipException(
                f"The deletion of source {self.source_name!r} is not approved. To approve it, trigger the "
                f'DAG again with the same params and "{self.param}": "{self.source_name}"'
            )
        if approved != self.source_name:
            raise invalid_input(
                f"Could not delete source {self.source_name!r}",
                cause=f"the param {self.param!r} approves the deletion of {short_repr(approved)}",
                remedy="Repeat the name of the old source exactly",
            )
        return str(approved)


class RecreatePushSource(TaskGroup):
    """
    The task group that ``recreate_push_source`` creates.

    :param recreation: The arguments of ``RecreatePushSourceOperator``, except for those below.
    :param coveo_conn_id: The Coveo connection.
    :param organization_id: The organization, if it differs from the connection's.
    :param approval_param: The DAG's param for the approval on Airflow before 3.1.
    """

    #: Duplicates the source, tests the copy and hands over to it.
    recreate: RecreatePushSourceOperator
    #: Waits for the approval, or reads it from the run's params.
    approve: BaseOperator
    #: Deletes the original.
    delete_old: DeletePushSourceOperator

    def __init__(
        self,
        *,
        recreation: dict[str, Any],
        coveo_conn_id: str | None,
        organization_id: str | None,
        approval_param: str,
        **kwargs: Unpack[NamedGroupArguments],
    ) -> None:
        super().__init__(**kwargs)
        connection = _given_connection(coveo_conn_id, organization_id)
        with self:
            self.recreate = RecreatePushSourceOperator(
                task_id="recreate",
                # Two runs at the same time could each create a copy.
                max_active_tis_per_dag=1,
                do_xcom_push=True,
                **connection,
                **recreation,
            )
            done: Any = self.recreate.output
            self.approve = self._approval(approval_param, done["source_name"])
            self.delete_old = DeletePushSourceOperator(
                task_id="delete_old",
                # Not a template of the Variable, which contains the ID of the copy by now.
                source_id=done["source_id"],
                source_name=done["source_name"],
                **connection,
                **_IN_ORDER,
            )
            self.recreate >> self.approve >> self.delete_old

    @property
    def new_source_id(self) -> Any:
        """The ID of the copy, as an XComArg."""
        output: Any = self.recreate.output
        return output["new_source_id"]

    def _approval(self, param: str, source_name: object) -> BaseOperator:
        try:
            from airflow.providers.standard.operators.hitl import ApprovalOperator
        except (ImportError, AirflowOptionalProviderFeatureException):
            if param not in self.dag.params:
                self.dag.params[param] = Param(
                    "",
                    type="string",
                    description="To approve the deletion of the old source, enter its name",
                )
            return ApproveByParamOperator(
                task_id="approve", param=param, source_name=source_name, **_IN_ORDER
            )
        return ApprovalOperator(
            task_id="approve",
            subject=_SUBJECT,
            body=_BODY.format(task_id=self.recreate.task_id),
            # Airflow would use it as the time limit for the response.
            execution_timeout=None,
            **_IN_ORDER,
        )


def recreate_push_source(
    *,
    source_id: object,
    new_name: object,
    source_id_variable: object = None,
    test_item: object = None,
    confirm_timeout: timedelta = timedelta(minutes=30),
    poll_interval: timedelta = timedelta(seconds=30),
    deferrable: bool | None = None,
    coveo_conn_id: str | None = None,
    organization_id: str | None = None,
    approval_param: str = "delete_old_source",
    group_id: str = "recreate_push_source",
    **kwargs: Unpack[GroupArguments],
) -> RecreatePushSource:
    """
    Replace a source with a copy of itself, and delete the original once someone approves.

    .. code-block:: python

        recreated = recreate_push_source(
            source_id="{{ var.value.acme_products_source_id }}",
            new_name="acme-products-2",
            source_id_variable="acme_products_source_id",
        )
        recreated.recreate >> fill_the_new_source() >> recreated.approve

    The group's tasks are ``recreate`` (see
    :class:`~airflow_provider_coveo.operators.coveo_source.RecreatePushSourceOperator`), ``approve`` and
    ``delete_old``. Each can be killed, retried or cleared; there is only one copy in the end, and the
    original stays until the approval. The copy is empty: push the content to it in a task between
    ``recreate`` and ``approve``, as above, or from another DAG before you approve.

    On Airflow 3.1 and later, ``approve`` shows a request in the UI under *Required Actions*, and waits for
    the response; *Reject* keeps the original. Before 3.1, it reads the DAG's param ``approval_param``, which
    must repeat the original's name. If the param is empty, the task is skipped: check the copy, then trigger
    the DAG again with the same params and that one. The second run resumes with the same copy.

    :param source_id: The ID of the source to replace. (templated)
    :param new_name: The copy's name, which can't be changed later. (templated)
    :param source_id_variable: The Airflow Variable with the source's ID, to which the task writes the copy's
        ID. Default: none. (templated)
    :param test_item: The item to test the copy with, with Coveo's keys. Default: a small one.
    :param confirm_timeout: The maximum time to wait until the test item is indexed. Default 30 minutes.
    :param poll_interval: The interval between two polls of the item logs. Default 30 seconds.
    :param deferrable: Whether to wait in the triggerer, without occupying a worker. Default: the setting
        ``[operators] default_deferrable``.
    :param coveo_conn_id: The Coveo connection. Default: the DAG's ``default_args``, or ``coveo_default``.
        (templated)
    :param organization_id: The organization, if it differs from the connection's. Default: the DAG's
        ``default_args``. (templated)
    :param approval_param: The DAG's param for the approval before Airflow 3.1; it is added to the DAG if
        missing. Default ``delete_old_source``.
    :param group_id: The task group's ID. Default ``recreate_push_source``, with a numeric suffix if a DAG has
        several.
    :param kwargs: Other arguments of a ``TaskGroup``, such as ``tooltip`` or ``default_args``.
    :return: The group, whose attributes ``recreate``, ``approve`` and ``delete_old`` are its tasks, and
        ``new_source_id`` is the copy's ID.
    """
    return RecreatePushSource(
        recreation={
            "source_id": source_id,
            "new_name": new_name,
            "source_id_variable": source_id_variable,
            "test_item": test_item,
            "confirm_timeout": confirm_timeout,
            "poll_interval": poll_interval,
            "deferrable": deferrable,
        },
        coveo_conn_id=coveo_conn_id,
        organization_id=organization_id,
        approval_param=approval_param,
        group_id=group_id,
        add_suffix_on_collision=True,
        **kwargs,
    )
