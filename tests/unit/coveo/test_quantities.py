"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from airflow_provider_coveo.coveo.quantities import noun_for, quantity


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_000, "1,000 items")]
)
def test_a_noun_agrees_with_its_number(number: int, words: str) -> None:
    assert quantity(number, "item") == words


@pytest.mark.parametrize(("number", "words"), [(0, "0 batches"), (1, "1 batch"), (5, "5 batches")])
def test_the_plural_can_be_given(number: int, words: str) -> None:
    assert quantity(number, "batch", "batches") == words


def test_a_verb_agrees_with_its_number() -> None:
    assert (noun_for(1, "is", "are"), noun_for(2, "is", "are")) == ("is", "are")
