"""The fields of an organization: list them, create missing ones, and check items against them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.errors import AccessDeniedError, CoveoError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.quantities import quantity
from airflow_provider_coveo.coveo.retries import ONE_ATTEMPT, OUTCOME_UNKNOWN, RetryPolicy

if TYPE_CHECKING:
    from airflow_provider_coveo.coveo.fields import FieldCheck, FieldConflict
    from airflow_provider_coveo.coveo.responses import JsonObject

CHECK_FIELDS: Final = ("warn", "fail", "off")
#: The maximum number of names in each list of a result.
_MAX_NAMES: Final = 100
#: With these statuses, Coveo may reject a field that somebody else has just created.
_MAY_BE_CREATED: Final = frozenset({400, 409, 412})


class FieldsResult(TypedDict):
    """The result of creating fields."""

    #: The number of fields that were created.
    created: int
    #: The number of fields that already existed.
    existing: int
    #: The first created fields; in a dry run, the first missing ones.
    fields: list[str]
    #: The first fields that exist with another type and were not changed.
    conflicts: list[FieldConflict]
    #: Whether this was a dry run, which creates nothing.
    dry_run: bool


class Fields:
    """
    The fields of an organization.

    :param caller: Makes the requests.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list_fields(self) -> list[JsonObject]:
        """
        Return the organization's fields, each with ``name``, ``type`` and its options.

        See https://docs.coveo.com/en/1833/.

        :raises AccessDeniedError: if the key lacks the privilege to view fields, like any push-only key.
        :raises CoveoError: if Coveo returns another error, or does not answer.
        """
        return list(self._fields())

    def create_fields(
        self,
        fields: Mapping[str, object],
        *,
        exact: Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> FieldsResult:
        """
        Create the given fields that the organization lacks. See https://docs.coveo.com/en/144/.

        Calling it again is safe: existing fields are not changed. If a request gets no response, or somebody
        else creates the same fields at the same time, the fields are listed again before a retry.

        :param fields: The names, each with its type (``LONG``, ``LONG_64``, ``DOUBLE``, ``DATE`` or
            ``STRING``) or its options (``{"type": "STRING", "multiValueFacet": True}``). A name begins with a
            lowercase letter and consists of up to 255 lowercase letters, digits and underscores.
        :param exact: The names of the fields whose existing type must be exactly the given one. Any other
            type is reported as a conflict. For the other fields, only a type that can't hold the given one is
            reported. Default: all.
        :param dry_run: Whether to only report which fields are missing. Default ``False``.
        :return: ``created`` and ``existing``: the number of each; ``fields``: the first 100 names that were
            created, or are missing in a dry run; ``conflicts``: the first 100 fields that exist with another
            type, each with ``name``, ``type`` and ``existing_type``; ``dry_run``.
        :raises CoveoInputError: before anything is sent, if Coveo would reject a field.
        :raises AccessDeniedError: if the key lacks the privileges to view and create fields.
        :raises CoveoError: if Coveo returns another error, or does not answer.
        """
        from airflow_provider_coveo.coveo.fields import MAX_FIELDS_PER_REQUEST, FieldPlan, validate_fields

        wanted = validate_fields(fields)
        strict = wanted.keys() if exact is None else set(exact)
        plan = FieldPlan.of(wanted, self._by_name(), strict)
        created: list[str] = []
        if dry_run:
            names = [str(field["name"]) for field in plan.missing]
            self._caller.log.info(
                "Dry run: %d of %s missing: %s", len(names), quantity(len(wanted), "field"), names[:20]
            )
        else:
            for first in range(0, len(plan.missing), MAX_FIELDS_PER_REQUEST):
                created += self._create(plan.missing[first : first + MAX_FIELDS_PER_REQUEST])
            if len(created) < len(plan.missing):
                # Somebody else just created the others, perhaps with another type.
                plan = FieldPlan.of(wanted, self._by_name(), strict)
            names = created
        for conflict in plan.conflicts[:_MAX_NAMES]:
            self._caller.log.warning(
                "Field %s has the type %s, not %s; left unchanged",
                conflict["name"],
                conflict["existing_type"],
                conflict["type"],
            )
        missing = len(plan.missing) if dry_run else len(created)
        return {
            "created": len(created),
            "existing": len(wanted) - missing,
            "fields": names[:_MAX_NAMES],
            "conflicts": list(plan.conflicts[:_MAX_NAMES]),
            "dry_run": dry_run,
        }

    def field_check(
        self, check_fields: object, *, default: Literal["warn", "off"] = "off"
    ) -> tuple[FieldCheck | None, bool]:
        """
        Return the check for metadata without a field that a push's ``check_fields`` asks for.

        :param check_fields: ``warn``, ``fail``, ``off``, or ``None`` for the default.
        :param default: The default.
        :return: The check, or ``None`` for no check; and whether metadata without a field is an error.
        :raises CoveoInputError: if it is another value.
        :raises CoveoError: with ``fail``, if the fields can't be listed.
        """
        mode = validate_check_fields(check_fields, default)
        if mode == "off":
            return None, False
        try:
            # Don't retry for long just to warn; with "fail", the push depends on the fields.
            known = [str(field["name"]) for field in self._fields(None if mode == "fail" else ONE_ATTEMPT)]
        except CoveoError as error:
            if mode == "fail":
                raise
            if isinstance(error, AccessDeniedError):
                self._caller.log.warning(
                    "Fields are not checked: the API key lacks the privilege to view them"
                )
            else:
                self._caller.log.warning("Fields are not checked: %s", error)
            return None, False
        from airflow_provider_coveo.coveo.fields import FieldCheck

        return FieldCheck(known), mode == "fail"

    def _by_name(self) -> dict[str, JsonObject]:
        return {str(field["name"]): field for field in self._fields()}

    def _fields(self, retry: RetryPolicy | None = None) -> Iterator[JsonObject]:
        from airflow_provider_coveo.coveo.fields import fields_page_call

        for page in itertools.count():
            found = self._caller.call(fields_page_call(self._caller.organization_id, page), retry)
            yield from found.fields
            if found.is_last:
                return

    def _create(self, fields: Sequence[Mapping[str, object]]) -> list[str]:
        """Create fields, and return the names of the fields that this call may have created."""
        from airflow_provider_coveo.coveo.fields import create_fields_call

        left = {str(field["name"]): field for field in fields}
        is_unsure = False
        created: list[str] = []

        def attempt(number: int) -> None:
            nonlocal is_unsure
            if is_unsure:
                is_unsure = False
                created.extend(self._take_out_existing(left))
            while left:
                try:
                    call = create_fields_call(self._caller.organization_id, left.values())
                    self._caller.call(call, ONE_ATTEMPT)
                except OUTCOME_UNKNOWN:
                    is_unsure = True
                    raise
                except CoveoError as error:
                    if error.status_code not in _MAY_BE_CREATED or not self._take_out_existing(left):
                        raise
                else:
                    created.extend(left)
                    left.clear()

        self._caller.repeat(attempt)
        if created:
            self._caller.log.info("Created %s: %s", quantity(len(created), "field"), ", ".join(created[:20]))
        return created

    def _take_out_existing(self, left: dict[str, Mapping[str, object]]) -> list[str]:
        """Remove the fields that exist by now, and return their names."""
        existing = self._by_name().keys() & left.keys()
        for name in existing:
            del left[name]
        return sorted(existing)


def validate_check_fields(value: object, default: str = "off") -> str:
    """
    Return how a push checks fields.

    :param value: ``warn``, ``fail`` or ``off``, in any case; ``None`` or an empty text for the default.
    :param default: The default.
    :raises CoveoInputError: if it is another value.
    """
    mode = value.strip().lower() if isinstance(value, str) else value
    if mode is None or mode == "":
        return default
    if mode not in CHECK_FIELDS:
        raise CoveoInputError(
            f"Invalid check_fields: {short_repr(value)}", remedy="Use 'warn', 'fail' or 'off'"
        )
    return str(mode)
