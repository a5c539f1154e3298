"""The outcome of an update if a machine of the cluster dies during its pushes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import ITEMS_OF_A_PART, PARTS, PATIENCE, RunningCluster, Update, items_of

# Two minutes on an idle machine are ten on a busy one.
pytestmark = pytest.mark.timeout(1800)

OLD = {"old://1"}
#: The default number of parallel uploads, and one batch that waits to be submitted.
BATCHES_UNDER_WAY = 4
Start = Callable[..., Update]


def assert_all_went_well(update: Update) -> None:
    """The run succeeded, the index matches what its tasks reported, and no old item is left."""
    assert update.wait_for_end() == "success"
    assert update.cluster.coveo.statuses(update.source) == ["REBUILD", "IDLE"]
    assert update.pushes_after_idle() == []
    assert [update.result(part)["accepted_adds"] for part in range(PARTS)] == [ITEMS_OF_A_PART] * PARTS
    assert set(update.cluster.coveo.items(update.source)) == set.union(*map(items_of, range(PARTS)))


@pytest.fixture(autouse=True)
def nothing_else_ends(cluster: RunningCluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """No component of Airflow exits if another one is down, except for the database."""
    yield
    if "database" not in request.node.name:
        assert cluster.restarted == []


def test_the_cluster_is_healthy_and_matches_the_compose_file(cluster: RunningCluster) -> None:
    health = {name: each["health"] for name, each in cluster.status().items()}
    once = {"certificate", "airflow-init"}
    assert health == {name: "done" if name in once else "healthy" for name in cluster.info["components"]}
    assert {"airflow-worker-1", "airflow-worker-2"} <= health.keys()


def test_the_tasks_of_a_dead_worker_fail_and_the_others_continue(
    cluster: RunningCluster, update: Start
) -> None:
    again, once = update("tried_again"), update("tried_once")
    for each in (again, once):
        each.wait_until_all_parts_push()
    workers = {"again": again.workers(), "once": once.workers()}
    assert Counter(workers["again"] + workers["once"]) == {
        "airflow-worker-1": PARTS,
        "airflow-worker-2": PARTS,
    }
    victim = workers["once"][0]

    cluster.kill(victim)
    again.release()
    once.release()

    # The retries resumed where the tasks were killed, on the other worker.
    assert_all_went_well(again)
    for part, worker in enumerate(workers["again"]):
        assert again.parts()[part] == ("success", 2 if worker == victim else 1)
        assert (again.result(part)["resumed_batches"] > 0) == (worker == victim)
    # The others failed visibly: the old items stay, and accepted ones are indexed.
    assert once.wait_for_end() == "failed"
    assert cluster.coveo.statuses(once.source) == ["REBUILD", "IDLE"]
    assert once.pushes_after_idle() == []
    found = set(cluster.coveo.items(once.source))
    assert found >= OLD
    for part, worker in enumerate(workers["once"]):
        assert once.parts()[part] == ("failed" if worker == victim else "success", 1)
        if worker == victim:
            assert 3 <= len(found & items_of(part)) < ITEMS_OF_A_PART
        else:
            assert once.result(part)["accepted_adds"] == len(found & items_of(part)) == ITEMS_OF_A_PART


def test_a_worker_that_reconnects_stops_tasks_that_another_one_has_taken_over(
    cluster: RunningCluster, update: Start
) -> None:
    again = update("tried_again")
    again.wait_until_all_parts_push()
    workers = again.workers()
    lost = workers[0]

    cluster.kill(lost, "--signal=STOP")
    again.release()
    assert_all_went_well(again)
    for part, worker in enumerate(workers):
        assert again.parts()[part] == ("success", 2 if worker == lost else 1)

    cluster.kill(lost, "--signal=CONT")
    for part in [part for part, worker in enumerate(workers) if worker == lost]:
        cluster.wait_until(
            lambda part=part: "Task killed!" in again.log(part),
            PATIENCE,
            f"the first try of part {part} ends",
        )
    # At their next request or heartbeat, its tasks learn that others have replaced them, and stop.
    late = [event for event in again.pushes_after_idle() if event["event"] == "batch"]
    assert len(late) <= workers.count(lost) * BATCHES_UNDER_WAY
    assert cluster.coveo.statuses(again.source) == ["REBUILD", "IDLE"]
    assert set(cluster.coveo.items(again.source)) == set.union(*map(items_of, range(PARTS)))
    assert again.wait_for_end() == "success"


def test_a_restarted_broker_loses_no_task_and_repeats_none(cluster: RunningCluster, update: Start) -> None:
    running, waiting, queued = update("tried_once"), update("tried_once"), None
    for each in (running, waiting):
        each.wait_until_all_parts_push()
    # Its first task stays in the queue, because both workers are full.
    queued = update("tried_once")
    cluster.wait_until(
        lambda: "queued" in {ti["state"] for ti in cluster.task_instances(queued.dag_id, queued.run_id)},
        PATIENCE,
        "a task is queued",
    )

    cluster.kill("redis")
    cluster.up()
    for each in (running, waiting, queued):
        each.release()

    for each in (running, waiting, queued):
        assert_all_went_well(each)
        assert each.parts() == [("success", 1)] * PARTS


def test_a_restarted_scheduler_continues_the_run(cluster: RunningCluster, update: Start) -> None:
    pushing = update("tried_once")
    pushing.wait_until_all_parts_push()

    cluster.kill("airflow-scheduler")
    # The pushes end while no scheduler can start the tasks after them.
    pushing.release()
    cluster.wait_until(lambda: pushing.parts() == [("success", 1)] * PARTS, PATIENCE, "the pushes have ended")
    assert cluster.coveo.statuses(pushing.source) == ["REBUILD"]
    cluster.up()

    assert_all_went_well(pushing)


def test_a_drained_worker_finishes_its_pushes_and_starts_no_more_tasks(
    cluster: RunningCluster, update: Start
) -> None:
    pushing, other = update("tried_once"), update("tried_once")
    for each in (pushing, other):
        each.wait_until_all_parts_push()
    drained = pushing.workers()[0]

    cluster.kill(drained, "--signal=TERM")
    cluster.wait_until(lambda: "Warm shutdown" in cluster.log(drained), PATIENCE, f"{drained} has understood")
    pushing.release()
    other.release()
    assert_all_went_well(pushing)
    assert_all_went_well(other)
    assert pushing.parts() == other.parts() == [("success", 1)] * PARTS

    cluster.wait_until(lambda: not cluster.is_running(drained), PATIENCE, f"{drained} has ended by itself")
    # The other one pushes the new items.
    late = update("tried_once")
    late.wait_until_all_parts_push()
    assert drained not in late.workers()
    late.release()
    assert_all_went_well(late)


def test_a_sensor_resumes_in_another_triggerer_after_the_first_dies(
    cluster: RunningCluster, update: Start
) -> None:
    awaited = f"awaited-{time.time_ns()}"
    cluster.coveo.add_source(awaited)
    cluster.coveo.set_status(awaited, "REFRESH")
    waiting = update("waiting", awaited=awaited)
    sensor = "push_source_update.wait"
    cluster.wait_for_task(waiting.dag_id, waiting.run_id, sensor, {"deferred"}, PATIENCE)

    cluster.kill("airflow-triggerer")
    cluster.coveo.set_status(awaited, "IDLE")
    # The event is not lost, although nothing was waiting for it. Until then, the source does not change.
    assert cluster.task_states(waiting.dag_id, waiting.run_id)[sensor].state == "deferred"
    assert cluster.coveo.statuses(waiting.source) == ["REBUILD"]
    cluster.up()

    assert waiting.wait_for_end() == "success"
    assert cluster.coveo.statuses(waiting.source) == ["REBUILD", "IDLE"]
    assert set(cluster.coveo.items(waiting.source)) == {"one://before", "one://after"}
    result = cluster.xcom(waiting.dag_id, waiting.run_id, sensor)
    assert (result["source_id"], result["status"]) == (awaited, "IDLE")


def test_pushes_wait_for_a_restarted_api_server(cluster: RunningCluster, update: Start) -> None:
    pushing = update("tried_again")
    pushing.wait_until_all_parts_push()

    cluster.kill("airflow-apiserver")
    pushing.release()
    cluster.up()

    assert_all_went_well(pushing)


def test_a_push_that_outlasts_the_visibility_timeout_is_not_repeated(
    cluster: RunningCluster, update: Start
) -> None:
    workers = [name for name in cluster.info["components"] if name.startswith("airflow-worker")]

    def restart_workers() -> None:
        for worker in workers:
            cluster.kill(worker)
        cluster.up()

    name = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"
    cluster.command("set", f"{name}=5")
    try:
        restart_workers()
        pushing = update("tried_once")
        pushing.wait_until_all_parts_push()
        told = "Task already running elsewhere, ignoring redelivered message"
        cluster.wait_until(
            lambda: any(told in cluster.log(worker) for worker in workers), PATIENCE, "a task came again"
        )
        pushing.release()
        assert_all_went_well(pushing)
        assert pushing.parts() == [("success", 1)] * PARTS
    finally:
        cluster.command("set", f"{name}=86400")
        restart_workers()


def test_pushes_wait_for_a_restarted_database(cluster: RunningCluster, update: Start) -> None:
    pushing = update("tried_again")
    pushing.wait_until_all_parts_push()

    cluster.kill("postgres")
    cluster.up()
    pushing.release()

    assert_all_went_well(pushing)
    # Without a database, these exit sooner or later, so no test comes after this one.
    assert set(cluster.restarted) <= {"airflow-scheduler", "airflow-triggerer", "airflow-dag-processor"}
