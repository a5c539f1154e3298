"""What a client reports while it works; the hook records it in Airflow, and a plain script need not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_coveo.coveo.errors import CoveoError, CoveoInputError
from airflow_provider_coveo.coveo.only_changes import OnlyChanges

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.batches import Batch
    from airflow_provider_coveo.coveo.items import InvalidItemError
    from airflow_provider_coveo.coveo.results import ComparedResult


class PushRecords(Protocol):
    """What is recorded of a push beside its batches, so that a later attempt knows what still holds."""

    @property
    def is_alone(self) -> bool:
        """Whether this process did nothing else to the source's content since the push started."""

    def still_stands(self, since: str) -> bool:
        """
        Return whether only attempts of this push have changed the source's content.

        :param since: The change to count from, as :meth:`begin` returned it.
        """

    def begin(self, since: str = "") -> str:
        """
        Record that the push sends its first batch.

        :param since: The change since which its earlier batches hold, if there are any.
        :return: The change since which its batches hold; empty if nothing is recorded.
        """

    def batches_before(self) -> int:
        """Return how many batches other attempts of the task sent lately, as far as that is known."""

    def sending(self, batches: int, *, deletes: bool) -> None:
        """
        Record, before Coveo accepts a batch, that the push sends it.

        :param batches: How many batches the push sent before.
        :param deletes: Whether this one deletes items.
        """

    def end(self, batches: int) -> None:
        """
        Record that the push has ended.

        :param batches: How many batches it sent.
        """


class ComparedPush(AbstractContextManager["ComparedPush"], Protocol):
    """
    A push that compares its input with what was accepted before.

    As a context manager, it reads that at first, and after a failure keeps how far the push came.
    """

    @property
    def records(self) -> PushRecords:
        """Where the push records what it does."""

    def batches(
        self,
        items: Iterable[object],
        limit: int,
        on_invalid: Callable[[int, InvalidItemError], bool],
        on_failure: Callable[[Exception], object] | None = None,
        may_delete: Callable[[], bool] | None = None,
    ) -> Iterator[Batch]:
        """
        Cut what changed into batches; see :func:`~airflow_provider_coveo.coveo.batches.item_batches`.

        :param may_delete: Asked at the end of the input whether to delete what it lacks.
        """

    def accepted(self, batch: Batch) -> None:
        """Take note of a batch that Coveo accepted."""

    def finish(self) -> None:
        """Keep what was accepted, since everything was."""

    def result(self, accepted: Mapping[str, Any]) -> ComparedResult:
        """
        Return what was compared.

        :param accepted: The result of the push otherwise.
        """


class RejectedItems(Protocol):
    """Where a push leaves the items that are not sent because Coveo would reject them."""

    def add(self, index: int, error: InvalidItemError) -> None:
        """
        Keep an invalid item.

        :param index: Its place in the input, from 0.
        :param error: What is wrong with it, with the item.
        """

    def end(self, *, succeeded: bool) -> None:
        """
        Write them, because the push has ended.

        :param succeeded: Whether it did; else nothing may be raised.
        """

    def result(self) -> dict[str, object]:
        """Return ``rejected`` and ``rejected_path``."""


class Observer:
    """
    Hears of requests and pushes. This one does nothing; override what you need.

    No method may raise, except ``requesting``, whose context manager may raise what the request raised, and
    ``compared_push``.
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
        Hear that an attempt ended.

        :param outcome: The HTTP status, or the name of an error without a response.
        """

    def retrying(self, error: CoveoError) -> None:
        """
        Hear that a request will be repeated.

        :param error: The error of the last attempt.
        """

    def accepted(self, source_id: str, counts: Mapping[str, int], size: int) -> None:
        """
        Hear that Coveo accepted an item, a deletion or a batch.

        :param source_id: The source.
        :param counts: How many entries there are, by section of a batch.
        :param size: How many bytes they have.
        """

    def item_added(self, source_id: str) -> None:
        """
        Hear that Coveo accepted an item that was pushed by itself.

        :param source_id: The source.
        """

    def push_records(self, source_id: str, *, resumable: bool) -> PushRecords | None:
        """
        Return where a push records what it does, ``None`` for nowhere.

        :param source_id: The source.
        :param resumable: Whether a later attempt may resume the push.
        """
        return None

    def compared_push(self, source_id: str, changes: OnlyChanges, *, dry_run: bool = False) -> ComparedPush:
        """
        Return a push that compares its input with what was accepted before.

        :param source_id: The source.
        :param changes: How it finds out what changed.
        :param dry_run: Whether it only compares, and records nothing.
        :raises CoveoInputError: if there is nowhere to keep what was accepted.
        """
        raise CoveoInputError(
            f"Could not push only what changed to source {source_id!r}",
            cause="this client keeps no snapshots",
            remedy="Use CoveoPushHook, or an observer that returns a ComparedPush",
        )

    def rejected_items(self, source_id: str, path: object) -> RejectedItems:
        """
        Return where a push leaves invalid items.

        :param source_id: The source.
        :param path: The file that the caller asks for.
        :raises CoveoInputError: if it can't be written there, or not by this client.
        """
        raise CoveoInputError(
            f"rejected_path is {path!r}, and this client writes no files",
            remedy="Use CoveoPushHook, or leave it out",
        )

    def pushed(self, source_id: str, result: Mapping[str, object], *, is_complete: bool) -> None:
        """
        Hear that a push ended.

        :param source_id: The source.
        :param result: The result; of a push that failed, what was accepted before.
        :param is_complete: Whether it succeeded.
        """
