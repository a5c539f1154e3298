"""Names that 0.1.0 defined here; they are now in :mod:`airflow_provider_coveo.bracket`."""

from __future__ import annotations

import importlib
from typing import Any, Final

_MOVED: Final = {
    "OPENING_XCOM_KEY": "version_0_1.OPENING_XCOM_KEY",
    "ClosePushSourceUpdateOperator": "end_tasks.ClosePushSourceUpdateOperator",
    "DeleteOldItemsOfUpdateOperator": "delete_task.DeleteOldItemsOfUpdateOperator",
    "JudgePushSourceUpdateOperator": "end_tasks.JudgePushSourceUpdateOperator",
    "NothingWasPushed": "errors.NothingWasPushed",
    "OpenPushSourceUpdateOperator": "open_task.OpenPushSourceUpdateOperator",
    "PushSourceInUse": "errors.PushSourceInUse",
    "PushSourceUpdateFailed": "errors.PushSourceUpdateFailed",
    "PushSourceUpdateNotBracketed": "errors.PushSourceUpdateNotBracketed",
    "UnknownFirstOpening": "errors.UnknownFirstOpening",
    "UpdateTasks": "members.UpdateTasks",
    "_members": "members.members",
    "_own_tasks": "members.own_tasks",
    "_time_delta_trigger": "open_task._time_delta_trigger",
    "holder_of_update": "members.holder_of_update",
    "reopen_if_closed": "reopening.reopen_if_closed",
}

__all__ = list(_MOVED)


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported late, because the bracket's tasks derive from this package's operators.
    module, _, moved_to = _MOVED[name].partition(".")
    return getattr(importlib.import_module(f"airflow_provider_coveo.bracket.{module}"), moved_to)
