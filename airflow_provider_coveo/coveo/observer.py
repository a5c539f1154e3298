"""The events that a client reports. The hook records them in Airflow; a plain script can ignore them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.batches import Batch
    from airflow_provider_coveo.coveo.items import InvalidItemError
    from airflow_provider_coveo.coveo.only_changes import OnlyChanges
    from airflow_provider_coveo.coveo.results import ComparedResult, RejectedResult


_of_push: Final[ContextVar[bool]] = ContextVar("coveo_batch_of_push", default=False)


@contextmanager
def batch_of_push() -> Iterator[None]:
    """Mark the requests of this thread as a batch of a push, which has records of its own."""
    token = _of_push.set(True)
    try:
        yield
    finally:
        _of_push.reset(token)


def is_batch_of_push() -> bool:
    """Return whether this thread submits a batch of a push."""
    return _of_push.get()


class PushRecords(Protocol):
    """Records of a push besides its batches: a later attempt checks which batches are still valid."""

    @property
    def is_alone(self) -> bool:
        """Whether nothing else in this process has changed the source's content since the push began."""

    def still_stands(self, since: str) -> bool:
        """
        Return whether only attempts of this push have changed the source's content.

        :param since: The change after which to look, as :meth:`begin` returned it.
        """

    def begin(self, since: str = "") -> str:
        """
        Record that the push sends its first batch.

        :param since: The change from which on its earlier batches are valid, if there are any.
        :return: The change from which on its batches are valid; empty if nothing is recorded.
        """

    def batches_before(self) -> int:
        """Return how many batches other attempts of the task sent recently, as far as known."""

    def sending(self, batches: int, *, deletes: bool) -> None:
        """
        Record, before Coveo accepts a batch, that the push sends it.

        :param batches: The number of batches sent before.
        :param deletes: Whether the batch deletes items.
        """

    def end(self, batches: int) -> None:
        """
        Record that the push has ended.

        :param batches: The number of batches sent.
        """


class ComparedPush(AbstractContextManager["ComparedPush"], Protocol):
    """
    A push that compares its input with what was accepted before.

    It is a context manager. On entry, it reads what was accepted; after a failure, it saves the push's
    progress.
    """

    @property
    def records(self) -> PushRecords:
        """Records the push's changes to the source."""

    def batches(
        self,
        items: Iterable[object],
        limit: int,
        on_invalid: Callable[[int, InvalidItemError], bool],
        on_failure: Callable[[Exception], object] | None = None,
        may_delete: Callable[[], bool] | None = None,
    ) -> Iterator[Batch]:
        """
        Cut the changes into batches; see :func:`~airflow_provider_coveo.coveo.batches.item_batches`.

        :param may_delete: Called at the end of the input; returns whether to delete the items missing from
            it.
        """

    def accepted(self, batch: Batch) -> None:
        """Note that Coveo accepted a batch."""

    def finish(self) -> None:
        """Save the new state: Coveo accepted everything."""

    def result(self, accepted: Mapping[str, object]) -> ComparedResult:
        """
        Return the result of the comparison.

        :param accepted: The rest of the push's result.
        """


class RejectedItems(Protocol):
    """Collects the items that a push does not send because Coveo would reject them."""

    def add(self, index: int, error: InvalidItemError) -> None:
        """
        Add an invalid item.

        :param index: Its index in the input, from 0.
        :param error: The error, with the item.
        """

    def end(self, *, succeeded: bool) -> None:
        """
        Write the items: the push has ended.

        :param succeeded: Whether the push succeeded. If not, this must not raise anything.
        """

    def result(self) -> RejectedResult:
        """Return ``rejected`` and ``rejected_path``."""


class Observer:
    """
    Is notified of requests and pushes. This class does nothing; override the methods that you need.

    No method may raise an exception, except ``requesting``, ``push_records`` and ``compared_push``, before
    anything is sent; and the context manager of ``requesting``, which may raise the request's exception.
    """

    def requesting(self, method: str, path: str) -> AbstractContextManager[None]:
        """
        Return a context manager that is entered before a request's first attempt, and left after its last.

        :param method: The HTTP method.
        :param path: The path.
        """
        return nullcontext()

    def requested(self, outcome: int | str) -> None:
        """
        An attempt ended.

        :param outcome: The HTTP status, or the name of the error if there is no response.
        """

    def retrying(self, error: CoveoError) -> None:
        """
        A request will be retried.

        :param error: The error of the last attempt.
        """

    def accepted(self, source_id: str, counts: Mapping[str, int], size: int) -> None:
        """
        Coveo accepted an item, a deletion or a batch.

        :param source_id: The source.
        :param counts: The number of entries, by section of a batch.
        :param size: Their size in bytes.
        """

    def item_added(self, source_id: str) -> None:
        """
        Coveo accepted an item that was pushed on its own.

        :param source_id: The source.
        """

    def dry_push(self, source_id: str) -> None:
        """
        A dry run of a push starts.

        :param source_id: The source.
        :raises CoveoInputError: if the run must push.
        """

    def push_records(self, source_id: str, *, resumable: bool) -> PushRecords | None:
        """
        Return the records of a push, or ``None`` to record nothing.

        :param source_id: The source.
        :param resumable: Whether a later attempt may resume the push.
        """
        return None

    def compared_push(self, source_id: str, changes: OnlyChanges, *, dry_run: bool = False) -> ComparedPush:
        """
        Return a push that compares its input with what was accepted before.

        :param source_id: The source.
        :param changes: The options of the comparison.
        :param dry_run: Whether to only compare, and record nothing.
        :raises CoveoInputError: if there is no storage for snapshots.
        """
        raise CoveoInputError(
            f"Could not push only changes to source {source_id!r}",
            cause="this client has no storage for snapshots",
            remedy="Use CoveoPushHook, or an observer that returns a ComparedPush",
        )

    def rejected_items(self, source_id: str, path: object) -> RejectedItems:
        """
        Return the collector of a push's invalid items.

        :param source_id: The source.
        :param path: The requested file.
        :raises CoveoInputError: if the path is invalid, or this client can't write files.
        """
        raise CoveoInputError(
            f"Invalid rejected_path: {path!r}; this client writes no files",
            remedy="Use CoveoPushHook, or omit rejected_path",
        )

    def pushed(self, source_id: str, result: Mapping[str, object], *, is_complete: bool) -> None:
        """
        A push ended.

        :param source_id: The source.
        :param result: The result; if the push failed, the result up to then.
        :param is_complete: Whether the push succeeded.
        """
