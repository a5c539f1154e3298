"""The tasks of a bracket that do nothing, which Airflow's scheduler completes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from airflow.providers.standard.operators.empty import EmptyOperator
else:
    try:
        from airflow.providers.standard.operators.empty import EmptyOperator
    except ImportError:  # Airflow 2.11 without the standard provider
        from airflow.operators.empty import EmptyOperator


class _PushSourceUpdateBegin(EmptyOperator):
    """The first task of a bracket, which does nothing: it lets the teardowns run if ``open`` fails."""

    bracket_role: ClassVar[str] = "begin"
    custom_operator_name = "PushSourceUpdateBegin"


class _PushSourceUpdateBranchEnd(EmptyOperator):
    """A task after a branch that ends the bracket: the branch can skip it instead of ``close``."""

    bracket_role: ClassVar[str] = "branch_end"
    custom_operator_name = "PushSourceUpdateBranchEnd"
