"""What all operators for Coveo have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook


class _CoveoOperator(BaseOperator):
    """What the operators share: the connection and the hook."""

    template_fields: Sequence[str] = ("coveo_conn_id", "organization_id")
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


class _CoveoPushOperator(_CoveoOperator):
    """What the operators for one source share."""

    template_fields: Sequence[str] = ("source_id", *_CoveoOperator.template_fields)

    def __init__(self, *, source_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id


def _is_true(value: bool | str) -> bool:
    return value.strip().lower() == "true" if isinstance(value, str) else bool(value)
