"""Base classes and helpers of all operators for Coveo."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator, XComArg, conf

from airflow_provider_coveo.airflow_errors import as_non_retryable, invalid_input
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.flags import parse_flag
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.links.coveo_push import (
    CoveoLogBrowserLink,
    CoveoSourcesLink,
    PushSourceLink,
    keep_links,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
    from airflow_provider_coveo.operators.arguments import AirflowArguments, ConnectionArguments

T = TypeVar("T")

#: The base class of values that Airflow resolves when a task starts; its module depends on the version.
_ResolveMixin: Any = next(base for base in XComArg.__mro__ if base.__name__ == "ResolveMixin")


class _CoveoOperator(BaseOperator):
    """Base class of the operators: the connection and the hook."""

    template_fields: Sequence[str] = ("coveo_conn_id", "organization_id")
    operator_extra_links: Collection[BaseOperatorLink] = (CoveoSourcesLink(), CoveoLogBrowserLink())
    ui_color: str = "#d7e3fc"

    def __init__(
        self,
        *,
        coveo_conn_id: str = "coveo_default",
        organization_id: str | None = None,
        **kwargs: Unpack[AirflowArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id

    def pre_execute(self, context: Context) -> None:
        """Save the task's links to Coveo's console, for use during and after the task."""
        keep_links(self, context)
        super().pre_execute(context)

    @cached_property
    def hook(self) -> CoveoPushHook:
        """The hook for this task's connection."""
        # DAG files import this module repeatedly, and the hook imports requests.
        from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

        return CoveoPushHook(
            self.coveo_conn_id,
            organization_id=self.organization_id,
            caller=type(self).__name__,
        )

    def on_kill(self) -> None:
        """End a wait between two attempts, so that a killed task stops."""
        self.hook.stop()


#: The links of a task for one source.
_SOURCE_LINKS: Final = (*_CoveoOperator.operator_extra_links, PushSourceLink())


class _SourceOperator(_CoveoOperator):
    """Base class of the operators for one source."""

    template_fields: Sequence[str] = ("source_id", *_CoveoOperator.template_fields)
    operator_extra_links = _SOURCE_LINKS

    def __init__(self, *, source_id: str, **kwargs: Unpack[ConnectionArguments]) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id


def _filled(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the parameters that were passed and did not render to nothing."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _without_none(values: Mapping[str, object]) -> dict[str, Any]:
    """Leave out None, which Airflow 3.0 can't save as an output, and which means “not passed”."""
    return {name: value for name, value in values.items() if value is not None}


def _given_connection(coveo_conn_id: Any, organization_id: object) -> dict[str, Any]:
    """Return the arguments that a task group passes to its tasks; a DAG's default_args can set the others."""
    return _without_none({"coveo_conn_id": coveo_conn_id, "organization_id": organization_id})


def _is_true(value: bool | str) -> bool:
    return value.strip().lower() == "true" if isinstance(value, str) else bool(value)


def _is_deferrable(given: bool | None) -> bool:
    """Return whether a task waits in the triggerer. Default: ``[operators] default_deferrable``."""
    return conf.getboolean("operators", "default_deferrable", fallback=False) if given is None else given


def _flag(operator: object, name: str) -> bool:
    """Return a switch of an operator, or fail the task immediately if it is neither on nor off."""
    return _checked(lambda value: parse_flag(name, value), getattr(operator, name))


def _checked(check: Callable[[Any], T], value: object) -> T:
    """Return the validated value, or fail the task immediately."""
    try:
        return check(value)
    except CoveoInputError as error:
        invalid = as_non_retryable(error)
    raise invalid


def _refuse_nothing(value: object, tried: str, cause: str) -> None:
    """Reject a parameter that was passed but rendered to None, which would mean its default."""
    if value is None:
        raise invalid_input(tried, cause=cause, remedy="See that task's log, or leave the parameter out")


def _validate_duration(name: str, value: object) -> timedelta:
    if isinstance(value, timedelta) and value > timedelta(0):
        return value
    raise CoveoInputError(f"Invalid {name}: {short_repr(value)}", remedy="Use a timedelta above 0")


class _Untemplated(_ResolveMixin):  # type: ignore[misc]
    """
    Items in a task's parameters. References to other tasks are resolved, but strings are not templates.

    Its ``repr`` shows the number of items instead of the items, so that no document's content gets into the
    serialized DAG or a task's rendered templates.

    :param value: The items.
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def iter_references(self) -> Iterator[tuple[object, str]]:
        """Find the references to other tasks, from which Airflow derives upstream tasks."""
        yield from XComArg.iter_xcom_references(self.value)

    def resolve(self, context: Context, **kwargs: object) -> _Untemplated:
        """Return a copy with the results of other tasks."""
        return _Untemplated(_resolved(self.value, context, kwargs))

    def __repr__(self) -> str:
        """Return the number or the type of the items, without their content."""
        if isinstance(self.value, Sized):
            return f"<{quantity(len(self.value), 'item')}, not shown>"
        return f"<items from {type(self.value).__name__}, not shown>"


def _resolved(value: Any, context: Context, options: Mapping[str, object]) -> object:
    if isinstance(value, _ResolveMixin):
        return value.resolve(context, **options)
    if type(value) in {list, tuple}:
        return type(value)(_resolved(entry, context, options) for entry in value)
    if type(value) is dict:
        return {key: _resolved(entry, context, options) for key, entry in value.items()}
    return value


def _untemplated(value: object) -> object:
    """Prevent Airflow from rendering documents as templates; only a plain string is a template."""
    return value if value is None or isinstance(value, (str, _Untemplated)) else _Untemplated(value)


def _given(value: object) -> Any:
    return value.value if isinstance(value, _Untemplated) else value


def _joined(value: object) -> Any:
    """Flatten a list of lists, such as the result of a mapped task."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return value
    # Check only the class of an entry, because an item can be anything, and the push validates it.
    if isinstance(value, list) and not any(issubclass(type(entry), (list, tuple)) for entry in value):
        return value
    return itertools.chain.from_iterable(
        entry if issubclass(type(entry), (list, tuple)) else (entry,) for entry in value
    )


def _time_delta_trigger(delta: timedelta) -> Any:
    for module in ("airflow.providers.standard.triggers.temporal", "airflow.triggers.temporal"):
        # Airflow 2.11 has it in its core, unless the standard provider is installed as well.
        with suppress(ImportError):
            return importlib.import_module(module).TimeDeltaTrigger(delta)
    raise ImportError("Neither Airflow nor its standard provider has a TimeDeltaTrigger")
