"""The names that the reference of 0.1 documented can still be imported."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "errors": "error_from_answer error_from_json error_to_json shortened shown without_privilege "
    "without_url_queries",
    "items": "COMPRESSION_TYPES DATA_KEYS DOCUMENT_ID Delete Entry InvalidItemError Item LARGEST_INLINE_DATA "
    "LARGEST_REQUEST LARGEST_UPLOAD LargeContent PreparedItem RESERVED_KEYS RULES as_dict checked_base64 "
    "checked_document_id checked_item known_file_extension permanent_id prepared_item",
    "statuses": "SourceStatus checked_active_status",
    "ordering_ids": "CoveoClock DEFAULT_QUEUE_DELAY_MINUTES checked_cut_off checked_queue_delay now_ms "
    "parsed_ordering_id",
    "retries": "COUNTED_OVER_SECONDS RetryPolicy retry_after_seconds",
    "sources": "VISIBILITIES active_since_ms checked_source_name checked_visibility created_ms is_active "
    "is_being_deleted managed_by push_status status_in_words trouble",
}


@pytest.mark.parametrize("path", [f"{module}.{name}" for module in NAMES for name in NAMES[module].split()])
def test_every_public_name_of_version_0_1_still_exists(path: str) -> None:
    module, name = path.split(".")
    assert hasattr(importlib.import_module(f"airflow_provider_coveo.coveo.{module}"), name)


def test_the_readers_of_files_and_rows_have_their_names_of_0_1() -> None:
    from airflow_provider_coveo.hooks import item_files, item_rows

    assert all(map(callable, (item_files.items_of_files, item_files.item_maker, item_rows.items_of_query)))
