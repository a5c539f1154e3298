"""The operator that creates the fields that metadata needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_provider_coveo.airflow_errors import invalid_input
from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.operators.base import _checked, _CoveoOperator, _given, _joined, _untemplated
from airflow_provider_coveo.operators.dry_run import runs_dry
from airflow_provider_coveo.operators.file_input import FILE_PARAMETERS, items_in_files

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Unpack

    from airflow_provider_coveo.operators.arguments import ConnectionArguments


class CreateFieldsOperator(_CoveoOperator):
    """
    Create the fields that metadata needs and the organization lacks.

    Coveo keeps metadata only if a field of that name exists, or a mapping of the source uses it. Names of
    fields are in lowercase; Coveo reads the keys of metadata in any case, so that ``productName`` goes into
    the field ``productname``. Pass fields by name, or items to read, or both: fields by name take precedence.

    In items, integers need LONG_64 and other numbers DOUBLE; texts that are all ISO 8601 dates, or times
    with a zone, DATE; other texts, and booleans, STRING; lists STRING with ``multiValueFacet``. Fields that
    every organization has, such as ``title`` and ``date``, are left out. All values of CSV and TSV files are
    texts: for numbers in them, pass ``fields``. The task logs a warning if texts all look like numbers.

    It can be repeated, and run at the same time as others: a field that exists is left as it is. If its type
    can't hold the metadata, the task reports that and succeeds. The key needs the privileges to view and
    create fields, which a push-only key lacks. See https://docs.coveo.com/en/144/.

    :param fields: The fields: names, each with its type (``LONG``, ``LONG_64``, ``DOUBLE``, ``DATE`` or
        ``STRING``) or its options in Coveo's words (``{"type": "STRING", "multiValueFacet": True}``).
        (templated)
    :param items: Items to read, as in ``PushItemsOperator``. (references are resolved, strings are not
        templated)
    :param path: Files to read, as in ``PushItemsOperator``. (templated)
    :param max_items: The maximum number of items to read. Default: all. (templated)
    :param file_format: As in ``PushItemsOperator``. (templated)
    :param columns: As in ``PushItemsOperator``. (templated)
    :param delimiter: As in ``PushItemsOperator``. (templated)
    :param quotechar: As in ``PushItemsOperator``. (templated)
    :param escapechar: As in ``PushItemsOperator``. (templated)
    :param null_values: As in ``PushItemsOperator``. (templated)
    :param column_names: As in ``PushItemsOperator``. (templated)
    :param encoding: As in ``PushItemsOperator``. (templated)
    :param partitioning: As in ``PushItemsOperator``. (templated)
    :param dry_run: Whether to create nothing, and to return which fields are missing. Default ``False``.
        (templated)
    :param coveo_conn_id: The Coveo connection. Default ``coveo_default``. (templated)
    :param organization_id: The organization, if it is not the connection's. (templated)
    :return: ``created`` and ``existing``: their numbers; ``fields``: the names of the created ones (in a dry
        run, of the missing ones), the first 100; ``conflicts``: fields whose type can't hold the metadata,
        each with ``name``, ``type`` and ``existing_type``; ``dry_run``; ``items`` and ``invalid``: the
        numbers of items that were read, and that a push would reject.
    :raises CoveoInputError: before anything is sent, if Coveo would reject a field, or a key of the items
        can't be the name of one; the task does not retry.
    :raises CoveoError: if Coveo returns an error or does not respond; the task retries if that can help.
    """

    template_fields: Sequence[str] = (
        *_CoveoOperator.template_fields,
        "fields",
        "items",
        "path",
        "max_items",
        *FILE_PARAMETERS,
        "is_dry_run",
    )

    def __init__(
        self,
        *,
        fields: Mapping[str, object] | None = None,
        items: object = None,
        path: object = None,
        max_items: int | str | None = None,
        file_format: str | None = None,
        columns: Mapping[str, str] | None = None,
        delimiter: str | None = None,
        quotechar: str | bool | None = "default",
        escapechar: str | None = None,
        null_values: str | Sequence[str] | None = None,
        column_names: Sequence[str] | None = None,
        encoding: str | None = None,
        partitioning: str | bool | None = "hive",
        dry_run: bool | str = False,
        **kwargs: Unpack[ConnectionArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.fields = fields
        self.items = _untemplated(items)
        self.path = path
        self.max_items = max_items
        self.file_format = file_format
        self.columns = columns
        self.delimiter = delimiter
        self.quotechar = quotechar
        self.escapechar = escapechar
        self.null_values = null_values
        self.column_names = column_names
        self.encoding = encoding
        self.partitioning = partitioning
        self.is_dry_run = dry_run

    def execute(self, context: Context) -> dict[str, object]:
        """Create the fields."""
        from airflow_provider_coveo.coveo.fields import survey_items, validate_fields

        items = _joined(_given(self.items))
        if (self.fields is None and items is None and self.path is None) or None not in (items, self.path):
            what = "both items and a path" if None not in (items, self.path) else "neither fields nor items"
            raise invalid_input(
                f"Task {self.task_id!r} has {what} to create fields for",
                remedy="Pass fields, items or a path",
            )
        given = _checked(validate_fields, {} if self.fields is None else self.fields)
        limit = None if self.max_items in (None, "") else _checked(_validate_max_items, self.max_items)
        if self.path is not None:
            items = items_in_files(self)
        survey = survey_items(() if items is None else items, limit)
        needed = _checked(lambda names: survey.fields(without=names), given.keys())
        numeric = [name for name in survey.numeric_texts() if name in needed]
        if numeric:
            self.log.warning(
                "All values of these fields are texts that look like numbers, as in a CSV file, so they get "
                "the type STRING, which nobody can change later: %s%s. For numbers, pass their types, such "
                "as fields={%r: 'DOUBLE'}",
                ", ".join(numeric[:20]),
                f" and {len(numeric) - 20:,} more" if len(numeric) > 20 else "",
                numeric[0],
            )
        result = self.hook.create_fields(
            {**needed, **given}, exact=list(given), dry_run=runs_dry(self.is_dry_run, context)
        )
        return {**result, "items": survey.items, "invalid": survey.invalid}


def _validate_max_items(value: object) -> int:
    limit = parse_int(value)
    if limit is None or limit < 1:
        raise CoveoInputError(f"Invalid max_items: {short_repr(value)}", remedy="Pass an integer above zero")
    return limit
