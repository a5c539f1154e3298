from __future__ import annotations

import re

import pytest

from airflow_provider_coveo.content.query import read_query
from airflow_provider_coveo.coveo.batches import validate_batch_bytes
from airflow_provider_coveo.coveo.conditions import validate_items
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.indexing import validate_max_refused
from airflow_provider_coveo.coveo.integers import parse_int
from airflow_provider_coveo.coveo.ordering_ids import validate_queue_delay
from airflow_provider_coveo.coveo.push_stats import InvalidItems
from airflow_provider_coveo.coveo.pusher import validate_concurrency

NOT_WHOLE = [None, "", " ", "ten", "1.5", "-1", "1e3", "٣", "²", True, False, 2.0, b"2", [2], "9" * 5000]


@pytest.mark.parametrize(
    ("given", "number"), [(0, 0), (-1, -1), (7, 7), ("7", 7), (" 07\n", 7), (10**30, 10**30)]
)
def test_an_integer_is_accepted_as_int_or_as_the_text_of_a_template(given, number):
    assert parse_int(given) == number


@pytest.mark.parametrize("given", NOT_WHOLE)
def test_anything_else_is_none(given):
    assert parse_int(given) is None


@pytest.mark.parametrize("given", [*NOT_WHOLE, -1])
@pytest.mark.parametrize(
    "check",
    [
        validate_batch_bytes,
        validate_concurrency,
        validate_items,
        validate_max_refused,
        validate_queue_delay,
        # None, and a template that renders to an empty string, mean the default.
        lambda given: InvalidItems.validate("skip", given or -1, "source"),
        lambda given: next(read_query("shop", "SELECT 1", fetch_size=given)),
    ],
)
def test_each_integer_parameter_rejects_other_values_with_a_short_remedy(check, given):
    with pytest.raises(CoveoInputError, match=re.compile("Remedy: ", re.S)) as refused:
        check(given)
    assert len(str(refused.value)) < 500
