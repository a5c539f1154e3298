"""The creation of a source under a name, once over all attempts of all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_coveo.airflow_errors import as_non_retryable
from airflow_provider_coveo.coveo.errors import (
    CoveoError,
    NoAnswerError,
    NotFoundError,
    ServiceError,
    SourceDoesNotExistError,
    SourceNameTakenError,
    UnexpectedAnswerError,
)
from airflow_provider_coveo.coveo.sources import created_ms, is_being_deleted
from airflow_provider_coveo.state.created_sources import MadeSource

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook


class SourceCreation:
    """
    The creation of a source with a name, across all attempts of all runs.

    :param context: The task's context; a task that is executed by hand saves nothing.
    :param hook: The hook.
    :param name: The name of the source to create.
    """

    def __init__(self, context: Context, hook: CoveoPushHook, name: str) -> None:
        self._hook = hook
        self._remembers = "ti" in context
        self.name = name
        #: The record of an earlier attempt.
        self.made: MadeSource | None = (
            MadeSource.named(hook.organization_id, name) if self._remembers else None
        )

    def original_of(self, source_id: str) -> str:
        """Return the source to duplicate, which an earlier attempt may have replaced."""
        made = self.made
        if made is not None and made.original_id is not None and source_id == made.source_id:
            return made.original_id
        return source_id

    def once(
        self,
        make: Callable[[], Mapping[str, object]],
        *,
        before: Callable[[], None] = lambda: None,
        original_id: str | None = None,
        original_name: str | None = None,
        if_taken: str = "",
    ) -> Mapping[str, object]:
        """
        Return the source that an earlier attempt created, or create it.

        :param make: Sends the request.
        :param before: Called before that.
        :param original_id: The source that is duplicated.
        :param original_name: The name of that source.
        :param if_taken: The remedy for a source of the name that no earlier attempt created.
        """
        source = self._known(original_id)
        there = self._hook.sources_named(self.name) if source is None else [source]
        reject_being_deleted(there, self.name)
        if source is not None:
            return source
        if len(there) == 1 and self._is_ours(there[0], original_id):
            (source,) = there
            self._hook.log.info("Resuming with source %s, which an earlier attempt created", source["id"])
        elif there:
            raise as_non_retryable(
                SourceNameTakenError(
                    f"Could not create a source with the name {self.name!r}",
                    cause="the name is taken, and this task has no record of creating source "
                    + " and ".join(str(source["id"]) for source in there),
                    remedy=if_taken,
                )
            )
        else:
            before()
            self._keep(
                MadeSource(
                    name=self.name,
                    since=self._hook.clock.now_ms(),
                    original_id=original_id,
                    original_name=original_name,
                )
            )
            try:
                source = make()
            except CoveoError as error:
                if not isinstance(error, (NoAnswerError, ServiceError, UnexpectedAnswerError)):
                    self._forget()
                raise
        if self.made is not None:
            self._keep(replace(self.made, source_id=str(source["id"])))
        return source

    @property
    def is_tested(self) -> bool:
        """Whether the source has indexed its test item."""
        return self.made is not None and self.made.tested

    def note_tested(self) -> None:
        """Record that the source has indexed its test item."""
        if self.made is not None:
            self._keep(replace(self.made, tested=True))

    def _known(self, original_id: str | None) -> Mapping[str, object] | None:
        """Return the source whose ID an earlier attempt recorded, unless it has been deleted."""
        made = self.made
        if made is None or made.original_id != original_id or made.source_id is None:
            return None
        try:
            source = self._hook.get_source(made.source_id)
        except (NotFoundError, SourceDoesNotExistError):
            self._hook.log.info("Source %s of an earlier attempt no longer exists", made.source_id)
            return None
        self._hook.log.info("An earlier attempt created source %s", made.source_id)
        return source

    def _is_ours(self, source: Mapping[str, object], original_id: str | None) -> bool:
        """Return whether a source of the name is the one that an earlier attempt requested."""
        made = self.made
        if made is None or made.original_id != original_id:
            return False
        if made.source_id is not None:
            return made.source_id == str(source["id"])
        # That request had no response, and no source had the name before.
        created = created_ms(source)
        return created is None or created >= made.since

    def _keep(self, made: MadeSource) -> None:
        self.made = made
        if self._remembers:
            made.keep(self._hook.organization_id)

    def _forget(self) -> None:
        if self.made is not None and self._remembers:
            self.made.forget(self._hook.organization_id)
        self.made = None


def reject_being_deleted(sources: Iterable[Mapping[str, object]], name: str) -> None:
    """
    Reject a source that is being deleted, with an error that Airflow retries.

    :param sources: The sources that have a name.
    :param name: The name.
    :raises SourceNameTakenError: if Coveo is deleting one of them.
    """
    for source in sources:
        if is_being_deleted(source):
            raise SourceNameTakenError(
                f"Could not create a source with the name {name!r}",
                cause=f"Coveo is still deleting source {source['id']}, which has the name",
                remedy="Retry after that source is deleted",
            )
