"""The decorator ``@task.coveo_push``, which pushes the items that a function yields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.operators.base import _flag
from airflow_provider_coveo.operators.dry_run import runs_dry
from airflow_provider_coveo.operators.push_base import _ItemsPushOperator
from airflow_provider_coveo.state.cursor_scope import cursor_scope

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator
    from typing_extensions import Unpack

    from airflow_provider_coveo.coveo.results import PushResult
    from airflow_provider_coveo.operators.arguments import PushArguments


class _CoveoPushDecoratedOperator(DecoratedOperator, _ItemsPushOperator):
    """
    Push the items that a function yields or returns. For the parameters, see :func:`coveo_push_task`.

    :param python_callable: The function.
    :param op_args: Its positional arguments. (templated)
    :param op_kwargs: Its keyword arguments. (templated)
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *_ItemsPushOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}

    custom_operator_name: str = "@task.coveo_push"

    def execute(self, context: Context) -> PushResult:
        """Call the function, and push its items."""
        # Before the function reads anything.
        self._validate_changes()
        with cursor_scope(lambda: self.hook.organization_id, self.source_id) as scope:
            scope.only_changes = _flag(self, "only_changes")
            scope.is_dry = runs_dry(self.is_dry_run, context)
            items = self.python_callable(*self.op_args, **self._keyword_arguments(context))
            result = self._push(context, self._as_iterable(items))
            scope.ended(result)
        return result

    def _keyword_arguments(self, context: Context) -> dict[str, object]:
        """Return the function's own arguments, and the context values that match its other parameters."""
        parameters = inspect.signature(self.python_callable).parameters.values()
        positional = [
            parameter.name
            for parameter in parameters
            if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        ]
        taken = set(positional[: len(self.op_args)])
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        names = {parameter.name for parameter in parameters} - taken
        wanted = {
            key: context[key]  # type: ignore[literal-required]
            for key in context
            if (key in names or takes_all) and key not in taken
        }
        return {**wanted, **self.op_kwargs}

    def _as_iterable(self, items: object) -> Iterable[object]:
        from airflow_provider_coveo.coveo.items import Delete, Item

        if isinstance(items, (Mapping, Item, Delete, bytes, bytearray, memoryview)):
            return [items]
        if isinstance(items, Iterable) and not isinstance(items, str):
            return items
        raise invalid_input(
            f"Could not push to source {self.source_id!r}: the function of task {self.task_id!r} "
            f"returned {type(items).__name__}; nothing was sent",
            remedy="Yield the items, or return a list of them, which can be empty",
        )


def coveo_push_task(
    python_callable: Callable[..., object] | None = None, **kwargs: Unpack[PushArguments]
) -> TaskDecorator:
    """
    Turn a function into a task that pushes the items it yields or returns:
    ``@task.coveo_push(source_id="…")``.

    An item is a dict with Coveo's keys, an :class:`~airflow_provider_coveo.coveo.items.Item`, bytes that hold
    one JSON object, or a :class:`~airflow_provider_coveo.coveo.items.Delete` for a deletion. The task reads a
    generator only as fast as it pushes, so any number of items needs no more memory than a few batches. Items
    are never rendered as templates. See https://docs.coveo.com/en/90/.

    :param python_callable: The function.
    :param source_id: The ID of the Push source. (templated)
    :param batch_bytes: The maximum size of a batch in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: The number of batches that are uploaded at the same time, 1 to 32. Default 3.
        (templated)
    :param on_invalid: The handling of an item that Coveo would reject: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, the maximum number of them before the task fails: a number, or a share
        such as ``"1%"``, which is checked after 10,000 items and at the end. Default 100; any number with
        ``rejected_path``. (templated)
    :param rejected_path: The file for invalid items, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: ``s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz``. It is written
        completely when the push ends, and only if there are any. For a mapped task, the path must contain
        ``{{ ti.map_index }}``. Default none. (templated)
    :param resume: Whether an attempt with the same input as an earlier one of its run resumes where that one
        failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to check first how many items can still be pushed today, and to warn if that
        is too few. Default ``True``. (templated)
    :param only_changes: Whether to push only what changed since the task's last run, and to delete what its
        input lacks. Default ``False``. (templated)
    :param max_deleted: With ``only_changes``, the maximum number of items to delete because the input lacks
        them: a number, or a share of the known items, such as ``"5%"``. If more are missing, none is deleted
        and the task fails. Default ``"20%"``. (templated)
    :param snapshot_path: With ``only_changes``, the folder for snapshots, local or on an object storage, that
        all workers can access. Default: the connection's extra ``snapshot_path``. (templated)
    :param full_after: With ``only_changes``, the time until everything is pushed again: a ``timedelta``.
        Default seven days.
    :param on_damaged_snapshot: With ``only_changes``, ``fail`` (the default), or ``push_all`` to push
        everything if the snapshot is damaged. (templated)
    :param check_fields: The handling of metadata for which the organization has no field: ``warn``, ``fail``,
        or ``off`` to skip the check. ``None`` or an empty text means the default: ``off``, in a dry run
        ``warn``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :param kwargs: Other arguments of a task, such as ``task_id``, ``retries`` or ``pool``.
    :return: The task returns the accepted counts, as
        :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items` does.
    :raises CoveoInputError: in the task, if a parameter or an item is invalid; the task does not retry.
    :raises CoveoError: in the task, if the request fails; the task retries if that can help.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_CoveoPushDecoratedOperator,
        **kwargs,
    )
