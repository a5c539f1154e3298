"""Operators that create, recreate and delete sources. A retry never creates a second source."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_coveo.airflow_errors import as_non_retryable, invalid_input
from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    CoveoConfigurationError,
    NotFoundError,
    SourceDoesNotExistError,
    SourceNameTakenError,
    SourceTestFailedError,
    missing_privilege_error,
    short_repr,
)
from airflow_provider_coveo.operators.base import (
    _checked,
    _CoveoOperator,
    _given,
    _is_deferrable,
    _is_true,
    _SourceOperator,
    _time_delta_trigger,
    _untemplated,
    _validate_duration,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import ConnectionArguments, SourceArguments
    from airflow_provider_coveo.operators.source_creation import SourceCreation


#: The default item to test a copy with. Nobody can see it in a secured source.
_TEST_ITEM: Final[dict[str, object]] = {
    "documentId": "airflow-provider-coveo://test-item",
    "title": "Test item",
    "data": "Airflow pushes this item to test that a new source is indexed, and deletes it afterward.",
}
_FOR_NOBODY: Final = [{"allowAnonymous": False, "allowedPermissions": [], "deniedPermissions": []}]

#: The operations of a pushed item in the item logs.
_ADDITIONS: Final = ("ADD", "ADD_BY_REFERENCE", "UPDATE")
_DELETING: Final = "deleting_source"


@contextmanager
def _needing(privileges: str) -> Iterator[None]:
    """Name all privileges of the task in a 403 error, so that nobody has to grant them one by one."""
    try:
        yield
    except AccessDeniedError as refused:
        named = missing_privilege_error(refused, "do this", f"the privileges {privileges}").fields()
        raise as_non_retryable(
            AccessDeniedError(refused.tried, **{**named, "cause": refused.cause})
        ) from None


class CreatePushSourceOperator(_CoveoOperator):
    """
    Create a Push source, so that a DAG can set up an environment.

    A task that is retried, cleared or run again finds the source that it created, and creates no second one.
    It rejects a source of that name that somebody else created, unless ``use_existing`` is set. The key needs
    the privileges Sources: View and Create. See https://docs.coveo.com/en/94/.

    Coveo can take some minutes until a new source accepts items, about ten for an organization's first one.
    Create an API key for the source by hand in the Administration Console: in Coveo, an API key can't create
    another one (https://docs.coveo.com/en/60/).

    :param source_name: The name of the source, which can't be changed later. Coveo advises letters, digits,
        hyphens and underscores. (templated)
    :param visibility: Who can see its items: ``SECURED`` for the users in each item's permissions, ``SHARED``
        for everybody, ``PRIVATE`` for the users that the source names. (templated)
    :param use_existing: Whether to accept an existing Push source of that name and visibility. Default
        ``False``. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id``, ``source_name`` and ``visibility``.
    :raises SourceNameTakenError: if somebody else created a source of that name.
    :raises AccessDeniedError: if the key lacks the privilege to create sources, like any push-only key.
    :raises CoveoInputError: if a parameter is invalid; nothing was created, and the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        "source_name",
        "visibility",
        "use_existing",
        *_CoveoOperator.template_fields,
    )

    def __init__(
        self,
        *,
        source_name: str,
        visibility: str,
        use_existing: bool | str = False,
        **kwargs: Unpack[ConnectionArguments],
    ) -> None:
        # So that `.output["source_id"]` works.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.source_name = source_name
        self.visibility = visibility
        self.use_existing = use_existing

    @_needing("Sources: View and Create")
    def execute(self, context: Context) -> dict[str, object]:
        """Create the source, unless it exists."""
        from airflow_provider_coveo.coveo.sources import validate_source_name, validate_visibility
        from airflow_provider_coveo.operators.source_creation import SourceCreation

        name = _checked(validate_source_name, self.source_name)
        visibility = _checked(validate_visibility, self.visibility)
        making = SourceCreation(context, self.hook, name)
        if _is_true(self.use_existing) and making.made is None:
            found = self._existing(name, visibility)
            if found is not None:
                self.log.info("Source %s with the name %s already exists", found["id"], name)
                return self._result(found, name, visibility)
        source = making.once(
            lambda: self.hook.create_source(name, visibility=visibility),
            if_taken="Choose another name, or pass use_existing=True to use that source",
        )
        return self._result(source, name, visibility)

    @staticmethod
    def _result(source: Mapping[str, object], name: str, visibility: str) -> dict[str, object]:
        return {
            "source_id": str(source["id"]),
            "source_name": name,
            "visibility": source.get("sourceVisibility", visibility),
        }

    def _existing(self, name: str, visibility: str) -> Mapping[str, object] | None:
        from airflow_provider_coveo.operators.source_creation import reject_being_deleted

        there = self.hook.sources_named(name)
        if not there:
            return None
        reject_being_deleted(there, name)
        for source in there:
            if source.get("sourceType") == "PUSH" and source.get("sourceVisibility") == visibility:
                return source
        kinds = [f"{s.get('sourceVisibility')} {s.get('sourceType')} source {s['id']}" for s in there]
        raise as_non_retryable(
            SourceNameTakenError(
                f"Could not create the {visibility} Push source {name!r}",
                cause=f"the name belongs to {' and '.join(kinds)}",
                remedy="Choose another name, or pass the visibility of that source",
            )
        )


class DeletePushSourceOperator(_SourceOperator):
    """
    Delete a source and all its items permanently, if its name is confirmed.

    The task compares the name with Coveo's before it deletes anything. A retry after a successful request
    succeeds. The key needs the privileges Sources: View and Edit (https://docs.coveo.com/en/1707/).

    :param source_id: The ID of the source. (templated)
    :param source_name: The name of the source, as a confirmation. (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id`` and ``source_name``.
    :raises CoveoInputError: if the source has another name; nothing was deleted, and the task does not retry.
    :raises NotFoundError: if the source does not exist, and no earlier attempt deleted it.
    :raises AccessDeniedError: if the key lacks the privilege to view and edit the source, like any push-only
        key.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (*_SourceOperator.template_fields, "source_name")

    def __init__(self, *, source_name: str, **kwargs: Unpack[SourceArguments]) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.source_name = source_name

    @_needing("Sources: View and Edit")
    def execute(self, context: Context) -> dict[str, str]:
        """Delete the source, if the name is correct."""
        from airflow_provider_coveo.coveo.sources import is_being_deleted, managed_by
        from airflow_provider_coveo.state.content_changes import ContentChanges, RecentPushes
        from airflow_provider_coveo.state.created_sources import MadeSource
        from airflow_provider_coveo.state.forgotten_items import ForgottenItems
        from airflow_provider_coveo.state.ledger import SourceLedger
        from airflow_provider_coveo.state.snapshot_parts import SnapshotParts
        from airflow_provider_coveo.state.task_store import RunState

        state = RunState(context) if "ti" in context else None
        self.hook.task_context = context
        what = {"source_id": self.source_id, "source_name": self.source_name}
        try:
            source = self.hook.get_source(self.source_id)
        except (NotFoundError, SourceDoesNotExistError):
            if state is None or state.get(_DELETING) != what:
                raise
            self.log.info("Source %s no longer exists: an earlier attempt deleted it", self.source_id)
            source = None
        if source is not None:
            self._reject_other_name(source)
            if managed_by(source):
                self.log.info("Source %s is managed by %s", self.source_id, managed_by(source))
            if state is not None:
                state.set(_DELETING, what)
            if is_being_deleted(source):
                self.log.info("Coveo is already deleting source %s", self.source_id)
            else:
                self.hook.delete_source(self.source_id)
        if state is not None:
            organization_id = self.hook.organization_id
            made = MadeSource.named(organization_id, self.source_name)
            if made is not None and made.source_id == self.source_id:
                made.forget(organization_id)
            SourceLedger(organization_id).forget_content(self.source_id)
            ContentChanges(organization_id, self.source_id).forget()
            RecentPushes(organization_id, self.source_id).forget()
            SnapshotParts(organization_id, self.source_id).forget()
            ForgottenItems(organization_id, self.source_id).forget()
        return what

    def _reject_other_name(self, source: Mapping[str, object]) -> None:
        if source.get("name") != self.source_name:
            raise invalid_input(
                f"Could not delete source {self.source_id!r}",
                cause=f"its name is {source.get('name')!r}, not {short_repr(self.source_name)}",
                remedy="Pass the ID and the name of the same source",
            )


class RecreatePushSourceOperator(_SourceOperator):
    """
    Replace a source with a copy of itself. A separate task deletes the original.

    Coveo advises this if a source can't be reset by time: Coveo for Sitecore or the Crawling Module manages
    it, or a cut-off in the future damaged its ordering IDs. The task duplicates the source, pushes a test
    item to the copy, waits until the item logs show that it is indexed, and deletes the item again. Then it
    hands over: it writes the copy's ID to an Airflow Variable, so that ``source_id="{{ var.value.NAME }}"``
    in your DAGs refers to the copy from then on. The copy is empty: fill it before you delete the original.
    See https://docs.coveo.com/en/35/ and, for the deletion after an approval,
    :func:`~airflow_provider_coveo.task_groups.coveo_source.recreate_push_source`.

    A product that manages the source does not read Airflow's Variables: set the new ID in its configuration.
    The API key of the original works for the copy. In Coveo, an API key can't create another one
    (https://docs.coveo.com/en/60/), so create a new one by hand in the Administration Console.

    The task can be killed, retried, cleared or run again at any point: it resumes with the copy that it
    created, and creates no second one. :mod:`airflow_provider_coveo.state` describes the records for that.
    The task rejects a source of the new name that it did not create. It does not change the original. Two
    runs must not recreate one source at the same time.

    The key needs the privileges Sources: View, Edit and Create, and Organization: View for the item logs.

    :param source_id: The ID of the source to replace. (templated)
    :param new_name: The copy's name, which can't be changed later. Coveo advises letters, digits, hyphens
        and underscores. (templated)
    :param source_id_variable: The Airflow Variable with the source's ID, to which the task writes the copy's
        ID. Default: none, and only the result contains the copy's ID. (templated)
    :param test_item: The item to test the copy with, with Coveo's keys. Default: a small one, which nobody
        can see in a secured source. (references are resolved, strings are not templated)
    :param confirm_timeout: The maximum time to wait until the copy accepts items and the test item is
        indexed. Coveo takes up to ten minutes for the former, and two to five for the latter. Default 30
        minutes.
    :param poll_interval: The interval between two polls of the item logs, for which Coveo can take a minute.
        Default 30 seconds.
    :param deferrable: Whether to wait in the triggerer, without occupying a worker. Default: the setting
        ``[operators] default_deferrable``.
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it differs from the connection's. (templated)
    :return: ``source_id`` and ``source_name`` of the original, ``new_source_id`` and ``new_source_name``,
        ``number_of_items`` in the original, and ``managed_by``: the product that manages it, or an empty
        string.
    :raises SourceNameTakenError: if the new name belongs to a source that this operator did not create.
    :raises SourceTestFailedError: if the test item was rejected, or not indexed in time; the task retries.
    :raises AccessDeniedError: if the key lacks a privilege for this, like any push-only key.
    :raises CoveoInputError: if a parameter is invalid; the task does not retry.
    :raises CoveoError: if the request fails; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        *_SourceOperator.template_fields,
        "new_name",
        "source_id_variable",
        "test_item",
    )

    def __init__(
        self,
        *,
        new_name: str,
        source_id_variable: str | None = None,
        test_item: object = None,
        confirm_timeout: timedelta = timedelta(minutes=30),
        poll_interval: timedelta = timedelta(seconds=30),
        deferrable: bool | None = None,
        **kwargs: Unpack[SourceArguments],
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.new_name = new_name
        self.source_id_variable = source_id_variable
        self.test_item = _untemplated(test_item)
        self.confirm_timeout = confirm_timeout
        self.poll_interval = poll_interval
        self.deferrable = _is_deferrable(deferrable)

    def execute(self, context: Context) -> dict[str, object]:
        """Duplicate the source, test the copy, and hand over to it."""
        return self._recreate(context, waiting_since=time.time(), pushed_at=None)

    def execute_complete(
        self, context: Context, event: object = None, *, waiting_since: float, pushed_at: int | None
    ) -> dict[str, object]:
        """Poll again after a wait."""
        return self._recreate(context, waiting_since=waiting_since, pushed_at=pushed_at)

    @_needing("Sources: View, Edit and Create, and Organization: View")
    def _recreate(self, context: Context, waiting_since: float, pushed_at: int | None) -> dict[str, object]:
        from airflow_provider_coveo.coveo.items import prepared_item
        from airflow_provider_coveo.coveo.sources import managed_by, number_of_items, validate_source_name
        from airflow_provider_coveo.operators.source_creation import SourceCreation

        new_name = _checked(validate_source_name, self.new_name)
        for duration in ("confirm_timeout", "poll_interval"):
            _checked(partial(_validate_duration, duration), getattr(self, duration))
        making = SourceCreation(context, self.hook, new_name)
        if _given(self.test_item) is not None:
            _checked(prepared_item, _given(self.test_item))
        # After the handover, a template of the Variable returns the copy instead of the original.
        original_id = making.original_of(_checked(validate_source_id, self.source_id))
        original = self._original(original_id, making)
        self._reject_wrong_variable(original_id, making)
        name = str(original["name"])
        copy = making.once(
            lambda: self.hook.duplicate_source(original_id, new_name),
            before=lambda: self._hand_back(original_id),
            original_id=original_id,
            original_name=name,
        )
        copy_id = str(copy["id"])
        if not making.is_tested:
            self._test(copy, waiting_since, pushed_at)
            making.note_tested()
        self._hand_over(copy_id)
        return {
            "source_id": original_id,
            "source_name": name,
            "new_source_id": copy_id,
            "new_source_name": new_name,
            # Airflow 3.0 can't save an output that is None.
            "number_of_items": number_of_items(original) or 0,
            "managed_by": managed_by(original) or "",
        }

    def _original(self, original_id: str, making: SourceCreation) -> Mapping[str, object]:
        try:
            original = self.hook.get_source(original_id)
        except (NotFoundError, SourceDoesNotExistError):
            if making.made is None or not making.is_tested:
                raise
            self.log.info("Source %s no longer exists; its copy has replaced it", original_id)
            return {"id": original_id, "name": making.made.original_name}
        if original.get("name") == making.name:
            raise invalid_input(
                f"Could not recreate source {original_id!r}: it already has the name {making.name!r}",
                cause="the copy needs another name, or the source was recreated before, and this is the copy",
                remedy="Choose another new_name",
            )
        return original

    # --- the test ---

    def _test(self, copy: Mapping[str, object], waiting_since: float, pushed_at: int | None) -> None:
        from airflow_provider_coveo.coveo.items import prepared_item

        copy_id, item = str(copy["id"]), self._item_for(copy)
        document_id = prepared_item(item).document_id
        while True:
            if pushed_at is None:
                pushed_at = self._push(copy_id, item)
            if pushed_at is not None and self._is_indexed(copy_id, document_id, pushed_at):
                break
            left = waiting_since + self.confirm_timeout.total_seconds() - time.time()
            if left <= 0:
                raise SourceTestFailedError(
                    f"Could not confirm that source {copy_id!r} is indexed",
                    answer=f"after {self.confirm_timeout} "
                    + (
                        "it still accepts no items"
                        if pushed_at is None
                        else f"the item logs do not show that {document_id!r} is indexed"
                    ),
                    cause="Coveo's indexing pipeline is slow, or the source is still being created",
                    remedy="Check the source in the Log Browser, or increase confirm_timeout; a retry "
                    "resumes with the same source",
                )
            self._wait(min(self.poll_interval.total_seconds(), left), waiting_since, pushed_at)
        self.log.info("Source %s is indexed: it passed the test item; deleting the item", copy_id)
        self.hook.delete_item(copy_id, document_id)

    def _item_for(self, copy: Mapping[str, object]) -> Any:
        if _given(self.test_item) is not None:
            return _given(self.test_item)
        is_secured = copy.get("sourceVisibility") == "SECURED"
        return {**_TEST_ITEM, **({"permissions": _FOR_NOBODY} if is_secured else {})}

    def _push(self, copy_id: str, item: Any) -> int | None:
        """Push the item; return the time before on Coveo's clock, ``None`` if the copy accepts none yet."""
        before = self.hook.clock.now_ms()
        try:
            self.hook.add_or_update_item(copy_id, item)
        except SourceDoesNotExistError:
            self.log.info("Source %s accepts no items yet", copy_id)
            return None
        return before

    def _is_indexed(self, copy_id: str, document_id: str, pushed_at: int) -> bool:
        from airflow_provider_coveo.coveo.rejections import DEFAULT_REFUSALS

        entries = list(
            self.hook.list_item_logs(
                copy_id,
                pushed_at,
                max(pushed_at, self.hook.clock.latest_ms()),
                document_id=document_id,
                # An earlier attempt may have deleted its test item just before it ended.
                operations=_ADDITIONS,
            )
        )
        for entry in entries:
            if entry.get("result") in DEFAULT_REFUSALS:
                raise SourceTestFailedError(
                    f"Could not confirm that source {copy_id!r} is indexed",
                    answer=f"the item {document_id!r} is {entry['result']} at the stage {entry.get('task')}: "
                    f"{entry.get('meta') or 'Coveo gives no reason'}",
                )
        is_indexed = any(entry.get("task") == "INDEXING" for entry in entries)
        if not is_indexed:
            self.log.info("The item logs of source %s do not show the test item as indexed yet", copy_id)
        return is_indexed

    def _wait(self, seconds: float, waiting_since: float, pushed_at: int | None) -> None:
        if not self.deferrable:
            self.hook.wait(seconds)
            return
        self.defer(
            trigger=_time_delta_trigger(timedelta(seconds=seconds)),
            method_name="execute_complete",
            kwargs={"waiting_since": waiting_since, "pushed_at": pushed_at},
        )

    # --- handing over ---

    def _reject_wrong_variable(self, original_id: str, making: SourceCreation) -> None:
        from airflow_provider_coveo.state.variables import read_text

        if not self.source_id_variable:
            return
        held = read_text(self.source_id_variable)
        known = {None, original_id, making.made.source_id if making.made else None}
        if held not in known:
            raise invalid_input(
                f"Could not recreate source {original_id!r}",
                cause=f"the Variable {self.source_id_variable!r} contains another ID: {short_repr(held)}",
                remedy="Use the Variable with this source's ID, or one that does not exist yet",
            )

    def _hand_back(self, original_id: str) -> None:
        """
        Set the Variable to the original again if someone deleted the copy that it names.

        Otherwise a later attempt, whose template of the Variable returns that copy, would not find the
        original.
        """
        from airflow_provider_coveo.state.variables import read_text

        if self.source_id_variable and read_text(self.source_id_variable) is not None:
            self._hand_over(original_id)

    def _hand_over(self, copy_id: str) -> None:
        from airflow_provider_coveo.state.variables import read_text, write_text

        variable = self.source_id_variable
        if not variable:
            return
        if read_text(variable) == copy_id:
            return
        write_text(variable, copy_id, f"The ID of a Coveo source, written by {self.dag_id}.{self.task_id}.")
        held = read_text(variable)
        if held != copy_id:
            raise as_non_retryable(
                CoveoConfigurationError(
                    f"Could not hand over to source {copy_id!r}",
                    answer=f"the Variable {variable!r} still returns {short_repr(held)}",
                    cause="a secrets backend or an environment variable overrides what tasks write",
                    remedy=f"Set it to {copy_id} there yourself, then clear the task",
                )
            )
        self.log.info("The Variable %s now contains the ID of source %s", variable, copy_id)
