"""Any input is pushed unchanged or rejected with a message; nothing is silently pushed in part."""

from __future__ import annotations

import itertools
import json
import math
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.coveo.item_encoding import ItemEncoder
from airflow_provider_coveo.coveo.items import Delete, InvalidItemError
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from tests.unit.push.model import examples

_TEXT = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "L"]), max_size=5),
    st.just("x" * 100_000),
    st.just("{{ ds }}"),
)
_KEYS = st.one_of(
    st.sampled_from(
        ["data", "Data", "DATA", "documentId", "DOCUMENTID", "orderingId", "compressionType", "fileExtension",
         "parentId", "permissions", "title", "Title", "", "price"]
    ),
    _TEXT,
)  # fmt: skip
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.sampled_from(["a://b", ".html", "GZIP"])
)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3)
)
_PYTHON = st.one_of(
    _JSON,
    st.binary(max_size=5),
    st.decimals(),
    st.datetimes(),
    st.datetimes(timezones=st.just(timezone.utc)),
    st.dates(),
    st.uuids(),
    st.sampled_from([object(), object, len, {1}, (1, "x"), ((1,),), 1j, range(3), Decimal("NaN")]),
)
_ITEMS = st.dictionaries(st.one_of(_KEYS, st.integers(), st.none()), _PYTHON, max_size=6).map(
    lambda given: {"documentId": "fuzz://1", "data": "", **given}
)
_BYTES = st.one_of(
    st.binary(max_size=40),
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(_KEYS, _JSON, max_size=6).map(
        lambda given: json.dumps({"documentId": "fuzz://1", "data": "", **given}).encode()
    ),
    st.lists(st.tuples(_KEYS, _SCALARS), max_size=4).map(
        lambda members: (
            '{"documentId":"fuzz://1","data":"x"'
            + "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in members)
            + "}"
        ).encode()
    ),
    st.integers(1, 200_000).map(lambda depth: b'{"documentId":"fuzz://1","x":' + b"[" * depth + b"]" * depth),
)
_ANYTHING = st.one_of(_ITEMS, _ITEMS, _BYTES, _BYTES, _PYTHON, st.builds(Delete, _PYTHON, _PYTHON))
_sources = itertools.count()


@settings(max_examples=examples(400), deadline=None, suppress_health_check=list(HealthCheck))
@given(fuzzed=_ANYTHING)
def test_fuzzed_items_are_pushed_or_rejected(
    coveo: Simulator, monkeypatch: pytest.MonkeyPatch, fuzzed: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
    coveo.reset()
    source = f"source-{next(_sources)}"
    coveo.add_source(source)
    good = {"documentId": "good://1", "data": "good"}
    refusal = ""
    try:
        result = CoveoPushHook().push_items(source, [good, fuzzed])
    except CoveoInputError as refused:
        refusal = str(refused)
    if refusal:
        assert len(refusal) < 5_000
        assert coveo.requests == [], "the good item was not pushed either"
        skipped = CoveoPushHook().push_items(source, [good, fuzzed], on_invalid="skip")
        assert (skipped["accepted_adds"], skipped["invalid"]) == (1, 1)
        assert set(coveo.items(source)) == {"good://1"}
    else:
        assert result["accepted_adds"] + result["accepted_deletes"] == 2
        assert len(coveo.items(source)) == result["accepted_adds"]
    rejected = [event for event in coveo.timeline(source) if event["event"] == "rejected"]
    assert not [event for event in rejected if "fileId" not in event["reason"]]
    assert not [text for text in coveo.undocumented if "fileId" not in text]


@settings(max_examples=examples(1500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fuzzed=_ITEMS)
def test_the_json_of_an_accepted_dict_is_accepted_and_has_the_same_values(fuzzed: Any) -> None:
    encoder = ItemEncoder()
    try:
        taken = encoder.encode(fuzzed)
    except InvalidItemError:
        return
    assert isinstance(taken, tuple)
    assert encoder.encode(taken[1]) == taken, "its sent form is itself a valid item"
    for key, value in json.loads(taken[1]).items():
        given = fuzzed[key]
        if type(given) in {str, bool, int}:
            assert value == given
        elif type(given) is float:
            assert math.isclose(value, given)
        elif isinstance(given, (datetime, date)):
            assert value == given.isoformat()


@settings(max_examples=examples(1500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fuzzed=_BYTES)
def test_json_is_accepted_if_the_dict_that_it_contains_is(fuzzed: bytes) -> None:
    encoder = ItemEncoder()
    try:
        pairs = json.loads(fuzzed, object_pairs_hook=list)
        as_dict = json.loads(fuzzed)
        keys = [key.lower() for key, _ in pairs] if isinstance(as_dict, dict) else []
        repeated = len(set(keys)) < len(keys)
        expected = None if repeated or not isinstance(as_dict, dict) else encoder.encode(as_dict)
    except (InvalidItemError, ValueError, RecursionError):
        expected = None
    try:
        taken = encoder.encode(fuzzed)
    except InvalidItemError:
        assert expected is None
    else:
        assert expected is not None
        assert isinstance(taken, tuple)
        assert isinstance(expected, tuple)
        assert taken[0] == expected[0]
        assert taken[1] == fuzzed.strip()
