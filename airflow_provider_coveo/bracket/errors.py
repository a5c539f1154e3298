"""Why a bracket's task, or a task in a bracket, fails. None of them is retried: that could not help."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException


class PushSourceUpdateFailed(AirflowFailException):
    """Raised by the last task of a bracket whose update failed, so that the run shows it."""


class PushSourceUpdateNotBracketed(AirflowFailException):
    """Raised before a task works on a source that nothing would close."""


class PushSourceInUse(AirflowFailException):
    """Raised in an exclusive bracket whose source did not become free in time."""


class NothingWasPushed(AirflowFailException):
    """Raised instead of deleting old items of a source to which the run is not known to have pushed."""


class UnknownFirstOpening(AirflowFailException):
    """Raised instead of deleting old items if it is not known since when the run has been pushing."""


class TooManyDeletions(AirflowFailException):
    """Raised instead of deleting old items if more of them would be deleted than ``max_deleted`` allows."""


class DryRunNotPossible(AirflowFailException):
    """Raised in a bracket whose run is dry, before a task sends something."""
