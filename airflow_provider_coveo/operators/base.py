"""What all operators for Coveo have in common."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.links.coveo_push import (
    CoveoLogBrowserLink,
    CoveoSourcesLink,
    PushSourceLink,
    keep_links,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

T = TypeVar("T")

#: What Airflow resolves when a task begins; where it stands depends on Airflow's version.
_ResolveMixin: Any = next(base for base in XComArg.__mro__ if base.__name__ == "ResolveMixin")


class _CoveoOperator(BaseOperator):
    """What the operators share: the connection and the hook."""

    template_fields: Sequence[str] = ("coveo_conn_id", "organization_id")
    operator_extra_links: tuple[Any, ...] = (CoveoSourcesLink(), CoveoLogBrowserLink())
    ui_color: str = "#d7e3fc"

    def __init__(
        self,
        *,
        coveo_conn_id: str = "coveo_default",
        organization_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.coveo_conn_id = coveo_conn_id
        self.organization_id = organization_id

    def pre_execute(self, context: Any) -> None:
        """Keep the task's links to Coveo's console, for the time that it works and after."""
        keep_links(self, context)
        super().pre_execute(context)

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


#: The links of a task that works on one source.
_SOURCE_LINKS: Final = (*_CoveoOperator.operator_extra_links, PushSourceLink())


class _SourceOperator(_CoveoOperator):
    """What the operators for one source share."""

    template_fields: Sequence[str] = ("source_id", *_CoveoOperator.template_fields)
    operator_extra_links = _SOURCE_LINKS

    def __init__(self, *, source_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Return those of some parameters that were given, and did not render to nothing."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _without_none(values: Mapping[str, object]) -> dict[str, Any]:
    """Leave out what is None, which Airflow 3.0 can't keep as an output, and which is no parameter given."""
    return {name: value for name, value in values.items() if value is not None}


def _given_connection(coveo_conn_id: Any, organization_id: Any) -> dict[str, Any]:
    """Return what a task group passes on to its tasks: what is left out, a DAG's default_args may say."""
    return _without_none({"coveo_conn_id": coveo_conn_id, "organization_id": organization_id})


def _is_true(value: bool | str) -> bool:
    return value.strip().lower() == "true" if isinstance(value, str) else bool(value)


def _checked(check: Callable[[Any], T], value: object) -> T:
    """Return a value as it was checked, or fail the task at once."""
    try:
        return check(value)
    except CoveoInputError as error:
        refused = as_non_retryable(error)
    raise refused


def _refuse_nothing(value: object, tried: str, cause: str) -> None:
    """Refuse a parameter that was given, and turned out as nothing, which would stand for its default."""
    if value is not None:
        return
    raise as_non_retryable(
        CoveoInputError(tried, cause=cause, remedy="See that task's log, or leave the parameter out")
    )


def _validate_duration(name: str, value: object) -> timedelta:
    if isinstance(value, timedelta) and value > timedelta(0):
        return value
    raise CoveoInputError(f"{name} is {short_repr(value)}", remedy="Give a timedelta above zero")


class _Untemplated(_ResolveMixin):  # type: ignore[misc]
    """
    Items in a task's parameters: references to other tasks in them are resolved, texts are no templates.

    It shows how many items there are and not the items, so that no document's content gets into the DAG's
    serialized form or among a task's rendered templates.

    :param value: What was given.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Find the references to other tasks, from which Airflow tells what is upstream."""
        yield from XComArg.iter_xcom_references(self.value)

    def resolve(self, context: Context, **kwargs: Any) -> _Untemplated:
        """Return the same with what other tasks returned."""
        return _Untemplated(_resolved(self.value, context, kwargs))

    def __repr__(self) -> str:
        """Say what there is without showing it."""
        if isinstance(self.value, Sized):
            return f"<{len(self.value)} items, not shown>"
        return f"<items from {type(self.value).__name__}, not shown>"


def _resolved(value: Any, context: Context, options: dict[str, Any]) -> Any:
    if isinstance(value, _ResolveMixin):
        return value.resolve(context, **options)
    if type(value) in {list, tuple}:
        return type(value)(_resolved(entry, context, options) for entry in value)
    if type(value) is dict:
        return {key: _resolved(entry, context, options) for key, entry in value.items()}
    return value


def _untemplated(value: Any) -> Any:
    """Keep Airflow from taking what is in documents for templates; a plain string is one."""
    return value if value is None or isinstance(value, (str, _Untemplated)) else _Untemplated(value)


def _given(value: Any) -> Any:
    return value.value if isinstance(value, _Untemplated) else value


def _joined(value: Any) -> Any:
    """Return a list whose entries may be lists themselves, such as a mapped task returns, as one."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return value
    # What an entry is, its class says: an item may be anything, and is judged when it is pushed.
    if isinstance(value, list) and not any(issubclass(type(entry), (list, tuple)) for entry in value):
        return value
    return itertools.chain.from_iterable(
        entry if issubclass(type(entry), (list, tuple)) else (entry,) for entry in value
    )


def _time_delta_trigger(delta: timedelta) -> Any:
    for module in ("airflow.providers.standard.triggers.temporal", "airflow.triggers.temporal"):
        # Airflow 2.11 has it in its core, unless the standard provider is installed beside it.
        with suppress(ImportError):
            return importlib.import_module(module).TimeDeltaTrigger(delta)
    raise ImportError("Neither Airflow nor its standard provider has a TimeDeltaTrigger")
