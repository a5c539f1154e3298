"""Thousands of injected faults: a push reports what is really in the source."""

from __future__ import annotations

import os
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.items import Delete
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.simulator import Simulator
from airflow_provider_coveo.simulator.faults import Fault
from tests.unit.push.model import examples, indexed, one_by_one

_S3_REFUSAL = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
_HTML = "<html><head><title>Be right back</title></head></html>"
#: All kinds are among them at each rate. ``COVEO_FAULTS=10000`` tries more, which takes a minute and a half.
_FAULTS_WANTED = examples(int(os.environ.get("COVEO_FAULTS", "4000")))
#: The undocumented behavior that these faults cause.
_EXPECTED = ("the response to a fileId whose container has expired",)


def set_faults(coveo: Simulator, seed: int, rate: float) -> list[Fault]:
    def some(share: float) -> dict[str, Any]:
        return {"times": None, "probability": rate * share, "seed": seed}

    faults = coveo.faults
    return [
        faults.answer(429, headers={"Retry-After": "0"}, **some(0.1)),
        faults.answer(403, body=_S3_REFUSAL, content_type="application/xml", operation="upload", **some(0.1)),
        faults.answer(503, body=_HTML, content_type="text/html", **some(0.05)),
        faults.answer(503, body=_HTML, content_type="text/html", applied=True, **some(0.05)),
        faults.expire_container(operation=["upload", "batch"], **some(0.1)),
        faults.truncate(5, operation="files", **some(0.05)),
        faults.stall(0.4, **some(0.004)),
        faults.stall(0.4, applied=False, **some(0.004)),
        faults.random(seed=seed, rate=rate * 0.6),
    ]


def a_push(generator: random.Random, number: int) -> list[Any]:
    operations: list[Any] = []
    for _ in range(generator.randint(1, 120)):
        document_id = f"push://{number}/{generator.randint(0, 60)}"
        if generator.random() < 0.1:
            operations.append(Delete(document_id))
        else:
            operations.append({"documentId": document_id, "data": "x" * generator.randint(0, 300)})
    return operations


def _nothing(*args: object) -> None:
    pass


def count(result: dict[str, Any]) -> int:
    accepted: int = result["accepted_adds"] + result["accepted_deletes"]
    return accepted


# It takes half a minute on two idle cores, and much longer on busy ones.
@pytest.mark.timeout(900)
def test_the_index_is_what_was_reported_under_thousands_of_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    # Writing tens of thousands of log lines would take longer than the pushes.
    monkeypatch.setattr(
        CoveoPushHook, "log", SimpleNamespace(info=_nothing, warning=_nothing, error=_nothing)
    )
    generator = random.Random(4)  # noqa: S311 - repeatable on purpose
    hit = pushes = failed = 0
    with Simulator(sources=(), request_limit=10, body_limit=0) as coveo:
        monkeypatch.setenv("AIRFLOW_CONN_COVEO_DEFAULT", coveo.connection_json())
        hook = CoveoPushHook(
            retry=RetryPolicy(total_seconds=1.5, first_wait=0.001, longest_wait=0.004), timeout=(5, 0.2)
        )
        until = time.monotonic() + 800
        while hit < _FAULTS_WANTED and time.monotonic() < until:
            pushes += 1
            coveo.reset()
            source = f"source-{pushes}"
            coveo.add_source(source)
            faults = set_faults(coveo, seed=pushes, rate=generator.choice([0.3, 0.6, 0.8]))
            operations = a_push(generator, pushes)
            try:
                result = hook.push_items(
                    source,
                    operations,
                    batch_bytes=generator.choice([1024, 2000, 6000]),
                    upload_concurrency=generator.randint(1, 6),
                )
            except CoveoError as error:
                failed += 1
                result = error.accepted or {}
                # The accepted batches are the beginning of the input; the next batch may be indexed, too.
                ends = range(count(result), len(operations) + 1)
            else:
                ends = range(count(result), count(result) + 1)
                assert count(result) == len(operations)
            begun = indexed(coveo, source)
            assert any(begun == one_by_one(operations[:end]) for end in ends), pushes
            assert not [text for text in coveo.undocumented if text not in _EXPECTED]
            hit += sum(fault.used for fault in faults)
    assert hit >= _FAULTS_WANTED
    assert failed < pushes / 2, "most pushes succeed"
