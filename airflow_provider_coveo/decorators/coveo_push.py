"""The decorator ``@task.coveo_push``: what a function yields goes into a Push source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.operators.base import _is_true
from airflow_provider_coveo.operators.push_base import _ItemsPushOperator
from airflow_provider_coveo.state.cursor_scope import cursor_scope

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_coveo.coveo.results import PushResult


class _CoveoPushDecoratedOperator(DecoratedOperator, _ItemsPushOperator):
    """
    Push what a function yields or returns. For the parameters see :func:`coveo_push_task`.

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
        """Call the function, and push what it gives."""
        # Before the function reads anything.
        self._validate_changes()
        with cursor_scope(lambda: self.hook.organization_id, self.source_id) as scope:
            scope.only_changes = _is_true(self.only_changes)
            items = self.python_callable(*self.op_args, **self._keyword_arguments(context))
            result = self._push(context, self._as_iterable(items))
            scope.ended(result)
        return result

    def _keyword_arguments(self, context: Context) -> dict[str, Any]:
        """Return the function's own arguments, and what else of the context it has parameters for."""
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

    def _as_iterable(self, items: Any) -> Iterable[Any]:
        from airflow_provider_coveo.coveo.items import Delete, Item

        if isinstance(items, (Mapping, Item, Delete, bytes, bytearray, memoryview)):
            return [items]
        if isinstance(items, Iterable) and not isinstance(items, str):
            return items
        raise as_non_retryable(
            CoveoInputError(
                f"The function of task {self.task_id!r} returned {type(items).__name__}, so nothing was "
                f"pushed to source {self.source_id!r}",
                remedy="Yield the items, or return a list of them; an empty one is fine",
            )
        )


def coveo_push_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Make a function into a task that pushes what it yields or returns: ``@task.coveo_push(source_id="…")``.

    The function gives dicts in Coveo's words, :class:`~airflow_provider_coveo.coveo.items.Item`, bytes that
    hold one JSON object each, or :class:`~airflow_provider_coveo.coveo.items.Delete` for deletions. A
    generator is read as fast as its items are pushed, so any number of them needs no more memory than a few
    batches. Nothing in them is taken for a template. See https://docs.coveo.com/en/90/.

    :param python_callable: The function.
    :param source_id: The ID of the Push source. (templated)
    :param batch_bytes: How large a batch is at most, in bytes: 1 KiB to 256 MB. Default 12 MiB. (templated)
    :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3. (templated)
    :param on_invalid: What to do with an item that Coveo would refuse: ``fail`` (the default), or ``skip`` to
        leave it out. (templated)
    :param max_invalid: With ``skip``, the most of them before the task fails: a number, or a share such as
        ``"1%"``, which counts once 10,000 items are read and in the end. Default 100; any number with
        ``rejected_path``. (templated)
    :param rejected_path: The file for what is invalid, as JSON Lines (``.ndjson``, ``.ndjson.gz``), local or
        on an object storage: ``s3://conn_id@bucket/{{ dag_run.run_id }}/rejected.ndjson.gz``. It is written
        when the push ends, whole, and only if there is something. A mapped task needs ``{{ ti.map_index }}``
        in it. Default none. (templated)
    :param resume: Whether a try that meets the same input as an earlier one of its run goes on where that
        one failed or was killed. Default ``True``. (templated)
    :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if that
        will not do. Default ``True``. (templated)
    :param only_changes: Whether to push only what changed since the task's last run, and to delete what its
        input lacks. Default ``False``. (templated)
    :param max_deleted: With ``only_changes``, how many items may be deleted because the input lacks them: a
        number, or a share of those known, such as ``"5%"``. If more are missing, none is deleted and the task
        fails. Default ``"20%"``. (templated)
    :param snapshot_path: With ``only_changes``, the folder for snapshots, local or on an object storage, that
        all workers reach. Default: as the connection's extra ``snapshot_path`` says. (templated)
    :param full_after: With ``only_changes``, how long until everything is pushed again: a ``timedelta``.
        Default seven days.
    :param on_damaged_snapshot: With ``only_changes``, ``fail`` (the default), or ``push_all`` to push
        everything if the snapshot is damaged. (templated)
    :param check_fields: What to do with metadata that the organization has no field for: ``warn``, ``fail``,
        or ``off`` to ask for no fields. Default ``off``, in a dry run ``warn``. (templated)
    :param dry_run: Whether to send nothing, and to return what would be sent. Default ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, where it is not the connection's. (templated)
    :param kwargs: What else a task takes, such as ``task_id``, ``retries`` or ``pool``.
    :return: The task returns what was accepted, as
        :meth:`~airflow_provider_coveo.hooks.coveo_push.CoveoPushHook.push_items` says.
    :raises CoveoInputError: in the task, if a value or an item can't be right; the task does not retry.
    :raises CoveoError: in the task, if Coveo refuses or does not answer; it retries where that can help.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_CoveoPushDecoratedOperator,
        **kwargs,
    )
