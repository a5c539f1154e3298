"""Errors of a bracket's tasks. Airflow does not retry them, because a retry can't help."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException


class PushSourceUpdateFailed(AirflowFailException):
    """Raised by the last task of a bracket whose update failed, so that the run shows it."""


class PushSourceUpdateNotBracketed(AirflowFailException):
    """Raised before a task opens a source that nothing would close."""


class PushSourceInUse(AirflowFailException):
    """Raised in an exclusive bracket if its source is still in use after the timeout."""


class NothingWasPushed(AirflowFailException):
    """Raised instead of deleting old items if there is no record that the run pushed to the source."""


class UnknownFirstOpening(AirflowFailException):
    """Raised instead of deleting old items if the time of the run's first push is unknown."""


class SharedByMapIndexes(AirflowFailException):
    """Raised instead of deleting old items if several map indexes of a bracket update the same source."""


class MappedSourceChanged(AirflowFailException):
    """Raised in a mapped bracket if a map index has another source than the one that it opened."""


class TooManyDeletions(AirflowFailException):
    """Raised instead of deleting old items if more of them would be deleted than ``max_deleted`` allows."""


class DryRunNotPossible(AirflowFailException):
    """Raised in a bracket's dry run, before a task sends something."""
