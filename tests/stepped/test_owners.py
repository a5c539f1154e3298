"""Who owns a source, while several brackets look at it, leave it to each other, and are rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.stepped.steps import leave_active, play_all_but, start_together, step_to

if TYPE_CHECKING:
    from tests.stepped.engine import Engine


def _ready(engine: Engine, name: str) -> None:
    """Play the tasks of a run until one of them is about to start."""
    for _ in range(10):
        engine.tick()
        names = [actor.name for actor in engine.runnable()]
        if name in names:
            return
        for other in names:
            if other.startswith(name[0]):
                engine.finish(other)
    raise AssertionError(f"{name} does not start: {engine.story()}")


def _play(engine: Engine, key: str, *, but: str = "") -> None:
    """Play the tasks and callbacks of a run, except one task."""
    for _ in range(12):
        engine.tick()
        for actor in list(engine.runnable()):
            if actor.name.startswith(f"{key}.") and actor.name != but:
                engine.finish(actor.name)
        for process in list(engine.callbacks):
            if process.actor.name.startswith(f"{key}."):
                engine.finish(process.actor.name)


@pytest.fixture(params=[False, True], ids=["3.3", "3.1"])
def looks_for_seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether Airflow reports that a DAG is paused; 3.0 and 3.1 don't, so that a check takes two seconds."""
    from airflow_provider_coveo.state import liveness

    real = liveness.run_facts
    if request.param:
        monkeypatch.setattr(liveness, "run_facts", lambda *run: real(*run)._replace(is_paused=None))
    return bool(request.param)


def test_a_claim_keeps_the_record_of_a_bracket_that_opens_during_the_check(
    engine: Engine, looks_for_seconds: bool
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.in_a_row(), shapes.exclusive_other(), shapes.other())
    engine.trigger("z", "in_a_row")
    engine.until("z.work1", "answered", "push")
    engine.pause("in_a_row")
    engine.finish("z.work1")
    engine.trigger("c", "exclusive_other")
    _ready(engine, "c.open")
    # On 3.0 and 3.1, it stands at the check; on others, at its claim.
    engine.step("c.open")
    engine.trigger("d", "other")
    _ready(engine, "d.open")
    engine.finish("d.open")
    _ready(engine, "d.work1")
    step_to(engine, "d.work1", "answered", "push")
    engine.finish("c.open")
    assert engine.tries("c")["open"].startswith("deferred"), engine.story()
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.settle()
    assert engine.run_states()["d"] == "success", engine.story()


def test_a_bracket_that_leaves_a_source_keeps_the_record_of_one_that_opens_during_the_check(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.state import liveness
    from tests.stepped import shapes

    real = liveness.run_facts
    monkeypatch.setattr(liveness, "run_facts", lambda *run: real(*run)._replace(is_paused=None))
    engine.add(shapes.one_task(), shapes.in_a_row(), shapes.other())
    engine.trigger("c", "in_a_row")
    _ready(engine, "c.work1")
    engine.trigger("a", "one_task")
    _ready(engine, "a.close")
    # It is now between two tasks.
    engine.finish("c.work1")
    engine.actor("a.close").actor.stops_at_each_wait = True
    step_to(engine, "a.close", "wait")
    engine.trigger("d", "other")
    _ready(engine, "d.open")
    engine.finish("d.open")
    _ready(engine, "d.work1")
    step_to(engine, "d.work1", "answered", "push")
    engine.finish("a.close")
    _play(engine, "c")
    _play(engine, "a")
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.finish("d.work1")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("order", ["unsure, then rejected", "IDLE fails"])
def test_a_source_that_is_left_for_a_rejected_opening_is_closed_with_the_connection_that_worked(
    engine: Engine, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from tests.stepped import shapes

    retrying = shapes.a_dag("retrying", default_args={"retries": 1})
    with retrying as dag, shapes.bracket(coveo_conn_id="bad"):
        shapes.work.override(task_id="work1")()
    connection = json.loads(engine.simulator.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_BAD", json.dumps({**connection, "password": "xx-wrong-key"}))
    engine.add(shapes.one_task(), dag)
    engine.trigger("a", "one_task")
    engine.until("a.work1", "answered", "push")
    engine.trigger("c", "retrying")
    _ready(engine, "c.open")
    step_to(engine, "c.open", "request", "REBUILD")
    if order == "unsure, then rejected":
        engine.step("c.open", "refuse-later:503")
        engine.finish("c.open")
        assert engine.tries("c")["open"].startswith("up_for_retry"), engine.story()
    engine.finish("a.work1")
    _play(engine, "a", but="c.open")
    assert engine.last_status("one") == "REBUILD", engine.story()
    if order == "IDLE fails":
        step_to(engine, "c.open", "request", "IDLE")
        engine.step("c.open", "refuse-later:503")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.run_states()["c"] == "failed", engine.story()


def test_a_rejected_opening_gives_a_source_back_that_another_bracket_opens_meanwhile(engine: Engine) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task(), shapes.other(), shapes.in_a_row())
    engine.trigger("a", "one_task")
    engine.until("a.work1", "answered", "push")
    engine.trigger("c", "other")
    _ready(engine, "c.open")
    step_to(engine, "c.open", "request", "REBUILD")
    engine.finish("a.work1")
    _play(engine, "a")
    engine.step("c.open", "refuse:403")
    step_to(engine, "c.open", "request", "IDLE")
    engine.trigger("d", "in_a_row")
    _ready(engine, "d.open")
    engine.finish("d.open")
    _ready(engine, "d.work1")
    engine.finish("d.work1")
    engine.finish("c.open")
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


def test_no_source_is_left_for_a_run_with_a_deleted_runs_id_that_works_elsewhere(engine: Engine) -> None:
    from tests.stepped import shapes

    engine.add(shapes.named_by_variable(), shapes.other())
    engine.set_variable("s", "one")
    engine.trigger("a", "named_by_variable")
    engine.until("a.work1", "answered", "push")
    engine.mark("a", "open", "failed")
    for _ in range(4):
        engine.tick()
    for process in list(engine.callbacks):
        engine.lose_callback(process.actor.name)
    for process in list(engine.processes):
        engine.terminate(process.actor.name)
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.delete_run("a")
    engine.set_variable("s", "two")
    engine.trigger("a", "named_by_variable")
    engine.until("a.work1", "answered", "push")
    engine.trigger("c", "other")
    _play(engine, "c")
    assert engine.last_status("one") == "IDLE", engine.story()
    engine.settle()
    assert engine.last_status("one") == engine.last_status("two") == "IDLE", engine.story()


@pytest.mark.parametrize("at", ["request", "answered"])
def test_a_task_that_is_cleared_while_the_bracket_closes_keeps_the_source_open(
    engine: Engine, at: str
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task())
    engine.trigger("a", "one_task")
    engine.tell("a", "work1", "fail")
    engine.until("a.close", at, "IDLE")
    engine.clear("a", "work1", downstream=False, upstream=False, only_failed=False)
    # From 3.3 on, Airflow clears the setups and teardowns of a task with it; before, it does not.
    engine.mark("a", "open", "success")
    for _ in range(6):
        engine.tick()
        if "a.work1" in [actor.name for actor in engine.runnable()]:
            break
    step_to(engine, "a.work1", "request", "push")
    for process in list(engine.processes):
        if process.actor.name == "a.close":
            while not process.actor.ended:
                engine._step(process)
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("who", ["another run", "another bracket of the run"])
def test_a_bracket_that_left_its_source_does_not_close_what_somebody_else_opens_later(
    engine: Engine, who: str
) -> None:
    from tests.stepped import shapes

    is_other = who == "another run"
    with shapes.a_dag(f"leaving_{is_other}") as dag:
        with shapes.bracket(group_id="first"):
            shapes.work.override(task_id="work1")()
        if not is_other:
            with shapes.bracket(group_id="second"):
                shapes.work.override(task_id="work2")()
        shapes.work.override(task_id="long")("three")
    engine.add(dag, shapes.other())
    engine.trigger("a", dag.dag_id)
    engine.until("a.work1", "answered", "push")
    held = "a.work2"
    if is_other:
        engine.trigger("c", "other")
        held = "c.work1"

    play_all_but(engine, "a.work1", "a.long", held)
    play_all_but(engine, "a.long", held)
    play_all_but(engine, "a.long")
    assert engine.sequence("one").count("IDLE") == 1, engine.story()
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.let_time_pass(3600)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.last_status("one") == "REFRESH", engine.story()


def test_an_exclusive_bracket_does_not_take_an_activity_for_one_that_a_dead_bracket_left(
    engine: Engine,
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.in_a_row(), shapes.exclusive_other())
    engine.trigger("a", "in_a_row")
    leave_active(engine)
    engine.let_time_pass(86400)
    engine.set_status_as_somebody_else("one", "IDLE")
    engine.let_time_pass(3600)
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.let_time_pass(60)
    engine.trigger("c", "exclusive_other")
    _play(engine, "c")
    assert engine.tries("c")["open"].startswith("deferred"), engine.story()
    assert engine.last_status("one") == "REFRESH", engine.story()
    engine.set_status_as_somebody_else("one", "IDLE")
    engine.settle()
    assert engine.run_states()["c"] == "success", engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("how", ["waits in vain", "is not rendered", "upstream fails"])
def test_a_cleared_run_whose_open_opens_nothing_closes_nothing(engine: Engine, how: str) -> None:
    from tests.stepped import shapes

    exclusive = how == "waits in vain"
    with shapes.a_dag(f"opens_nothing_{how.replace(' ', '_')}") as dag:
        before = shapes.work.override(task_id="before")("three")
        with shapes.bracket(exclusive=exclusive, status="{{ var.value.status }}") as update:
            shapes.work.override(task_id="work1")()
        before >> update
    engine.add(dag)
    engine.set_variable("status", "REBUILD")
    engine.trigger("a", dag.dag_id)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    engine.set_status_as_somebody_else("one", "REFRESH")
    if how == "is not rendered":
        engine.set_variable("status", "nonsense")
    elif how == "upstream fails":
        engine.tell("a", "before", "fail")
    engine.clear_run("a")
    if exclusive:
        for _ in range(10):
            _play(engine, "a")
            engine.fire()
            engine.let_time_pass(600)
    engine.settle()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert engine.last_status("one") == "REFRESH", engine.story()


@pytest.mark.parametrize("how", ["cleared", "created again"])
def test_an_exclusive_bracket_does_not_take_an_activity_for_its_own_of_an_earlier_pass(
    engine: Engine, how: str
) -> None:
    engine.trigger("a", "exclusive")
    engine.until("a.work1", "answered", "push")
    engine.mark("a", "open", "failed")
    for _ in range(3):
        engine.tick()
    for process in list(engine.callbacks):
        engine.lose_callback(process.actor.name)
    for process in list(engine.processes):
        engine.terminate(process.actor.name)
    assert engine.last_status("one") == "REBUILD", engine.story()
    engine.let_time_pass(86400)
    engine.set_status_as_somebody_else("one", "IDLE")
    engine.let_time_pass(3600)
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.let_time_pass(60)
    if how == "cleared":
        engine.clear_run("a")
    else:
        engine.delete_run("a")
        engine.create_again("a")
    _play(engine, "a")
    assert engine.tries("a")["open"].startswith("deferred"), engine.story()
    for _ in range(10):
        engine.fire()
        engine.let_time_pass(600)
        _play(engine, "a")
    engine.settle()
    assert engine.run_states()["a"] == "failed", engine.story()
    assert engine.last_status("one") == "REFRESH", engine.story()
    engine.set_status_as_somebody_else("one", "IDLE")
    engine.clear_run("a")
    engine.settle()
    assert engine.run_states()["a"] == "success", (engine.story(), engine.errors)


def test_a_bracket_checks_each_owner_although_one_has_just_left(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_coveo.state.ledger import SourceLedger
    from tests.stepped import shapes

    with shapes.a_dag("third") as third, shapes.bracket():
        shapes.work.override(task_id="work1")() >> shapes.work.override(task_id="work2")()
    engine.add(shapes.one_task(), shapes.other(), third)
    engine.trigger("d", "third")
    engine.until("d.work1", "answered", "push")

    engine.trigger("c", "other")
    play_all_but(engine, "d.work1", "c.work1", rounds=6)
    engine.trigger("a", "one_task")
    play_all_but(engine, "d.work1", "c.work1", "a.work1", rounds=6)
    engine.finish("a.work1")
    engine.finish("c.work1")
    leave, left = SourceLedger.leave, []

    def leave_just_after(self: Any, source_id: str, bracket: Any, coveo_conn_id: str, to: Any) -> bool:
        if not left:
            # Exactly now, the other one leaves.
            left.append(to)
            others = [holder for holder in self.holders(source_id) if holder.bracket != to.bracket]
            self._write_holders(source_id, others)
        return leave(self, source_id, bracket, coveo_conn_id, to)

    monkeypatch.setattr(SourceLedger, "leave", leave_just_after)
    _play(engine, "a")
    assert left, engine.story()
    assert engine.last_status("one") == "REBUILD", engine.story()


def test_what_a_deleted_run_left_is_closed_with_a_connection_that_works(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from tests.stepped import shapes

    names = {"source_id": "{{ var.value.s }}", "coveo_conn_id": "{{ var.value.c }}"}
    with shapes.a_dag("other_connection") as dag, shapes.bracket(**names):
        shapes.work.override(task_id="work1")("three") >> shapes.work.override(task_id="work2")("three")
    connection = json.loads(engine.simulator.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_BAD", json.dumps({**connection, "password": "xx-wrong-key"}))
    engine.add(dag)
    engine.set_variable("s", "one")
    engine.set_variable("c", "coveo_default")
    engine.trigger("a", "other_connection")
    leave_active(engine)
    engine.set_variable("s", "two")
    engine.set_variable("c", "bad")
    engine.delete_run("a")
    engine.let_time_pass(60)
    engine.create_again("a")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("last", ["closes", "is rejected"])
def test_a_bracket_that_left_its_source_does_not_close_it_after_a_chain_of_others(
    engine: Engine, last: str
) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("leaving_first") as dag:
        with shapes.bracket():
            shapes.work.override(task_id="work1")()
        shapes.work.override(task_id="long")("three")
    engine.add(dag, shapes.other(), shapes.in_a_row())

    engine.trigger("a", "leaving_first")
    play_all_but(engine, "a.work1", "a.long")
    engine.trigger("c", "other")
    play_all_but(engine, "a.work1", "a.long", "c.work1")
    engine.trigger("d", "in_a_row")
    if last == "is rejected":
        _ready(engine, "d.open")
        step_to(engine, "d.open", "request", "REBUILD")
    play_all_but(engine, "a.long", "c.work1", "d.work1", "d.open")
    play_all_but(engine, "a.long", "d.work1", "d.open")
    if last == "is rejected":
        engine.step("d.open", "refuse:403")
    play_all_but(engine, "a.long")
    assert engine.last_status("one") == "IDLE", engine.story()
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.let_time_pass(3600)
    engine.settle()
    assert engine.run_states()["a"] == "success", engine.story()
    assert engine.last_status("one") == "REFRESH", engine.story()


@pytest.mark.parametrize("who", ["an exclusive bracket", "the watchdog"])
def test_a_paused_bracket_does_not_close_what_was_opened_after_another_closed_it(
    engine: Engine, who: str
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task(), shapes.exclusive_other())
    engine.trigger("a", "one_task")
    engine.until("a.work1", "answered", "push")
    engine.pause("one_task")
    engine.finish("a.work1")
    if who == "the watchdog":
        engine.let_time_pass(86400)
        engine.trigger("w", "watchdog")
        _play(engine, "w")
    else:
        engine.trigger("c", "exclusive_other")
        _play(engine, "c")
    assert engine.last_status("one") == "IDLE", engine.story()
    engine.set_status_as_somebody_else("one", "REFRESH")
    engine.let_time_pass(600)
    engine.pause("one_task", False)
    engine.settle()
    assert engine.last_status("one") == "REFRESH", engine.story()


def test_a_bracket_that_opens_again_while_another_closes_is_not_told_that_it_is_closed(
    engine: Engine,
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.in_a_row(), shapes.other())
    engine.trigger("c", "in_a_row")
    leave_active(engine, "c")
    engine.trigger("a", "other")
    engine.until("a.close", "request", "IDLE")
    engine.clear_run("c")
    _ready(engine, "c.work2")
    step_to(engine, "c.work2", "request", "push")
    engine.finish("a.close")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.run_states()["c"] == "success", engine.story()


@pytest.mark.parametrize("answer", ["go", "refuse:429"])
def test_a_status_that_is_set_again_does_not_outlive_the_bracket_for_which_it_is_set(
    engine: Engine, answer: str
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task(), shapes.other())
    engine.trigger("a", "one_task")
    engine.until("a.work1", "answered", "push")
    engine.finish("a.work1")
    _ready(engine, "a.close")
    step_to(engine, "a.close", "request", "IDLE")
    engine.trigger("c", "other")
    _ready(engine, "c.work1")
    step_to(engine, "a.close", "request", "REBUILD")
    if answer != "go":
        engine.step("a.close", answer)
    _play(engine, "c")
    assert engine.last_status("one") == "IDLE", engine.story()
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert set(engine.run_states().values()) == {"success"}, engine.story()


def test_a_rejected_re_opening_does_not_hide_that_another_task_has_opened_the_source(engine: Engine) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("two_siblings") as dag, shapes.bracket():
        shapes.work.override(task_id="work1")()
        shapes.work.override(task_id="work2")()
    engine.add(dag)
    engine.trigger("a", "two_siblings")
    engine.tell("a", "work1", "fail")
    engine.tell("a", "work2", "fail")
    engine.settle()
    engine.clear("a", "work1", "work2", downstream=True, upstream=False, only_failed=False)
    engine.mark("a", "open", "success")
    start_together(engine, "a.work1", "a.work2")
    engine.tell("a", "work1", "fail")
    engine.tell("a", "work2", "fail")
    step_to(engine, "a.work1", "request", "REBUILD")
    step_to(engine, "a.work2", "request", "REBUILD")
    step_to(engine, "a.work1", "request", "push")
    engine.step("a.work2", "refuse:403")
    engine.finish("a.work2")
    engine.finish("a.work1")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


def _wait_while_writing(monkeypatch: pytest.MonkeyPatch, name: str, phase: str) -> None:
    """Let a task wait in the middle of writing its bracket's record, as with a slow database."""
    from airflow_provider_coveo.bracket import opening
    from tests.stepped.actors import Actor

    real, waited = opening.write_bracket, []

    def write(holder: Any, record: Any) -> None:
        actor = Actor.current
        if not waited and actor is not None and actor.name == name and record.phase.value == phase:
            waited.append(name)
            actor.stop_at("wait")
        real(holder, record)

    monkeypatch.setattr(opening, "write_bracket", write)


def _open_with_owners_of_before(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let run a open the source, and write the owners that it had read before b closed it."""
    _wait_while_writing(monkeypatch, "a.open", "opening")
    engine.trigger("a", "other")
    _ready(engine, "a.open")
    engine.actor("a.open").actor.stops_at_each_wait = True
    step_to(engine, "a.open", "wait")
    engine.finish("b.close")
    engine.finish("a.open")


def test_a_source_is_not_left_to_a_bracket_that_has_closed_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task(), shapes.other())
    engine.trigger("b", "one_task")
    _ready(engine, "b.close")
    _open_with_owners_of_before(engine, monkeypatch)
    play_all_but(engine, "b.outcome")
    assert engine.run_states() == {"a": "success", "b": "running"}, engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("other", ["other", "exclusive_other"])
def test_a_bracket_whose_entry_could_not_be_deleted_owns_the_source_no_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Nothing is left to it, and no exclusive bracket waits for it."""
    from airflow_provider_coveo.state import ledger
    from tests.stepped import shapes
    from tests.stepped.actors import Actor

    real = ledger.delete_variable

    def failing(name: str) -> None:
        if name.startswith("coveo_open__") and Actor.current is not None and Actor.current.name == "b.close":
            raise RuntimeError("database is locked")
        real(name)

    monkeypatch.setattr(ledger, "delete_variable", failing)
    engine.add(shapes.one_task(), getattr(shapes, other)())
    engine.trigger("b", "one_task")
    _ready(engine, "b.close")
    engine.finish("b.close")
    engine.trigger("a", other)
    play_all_but(engine, "b.outcome", rounds=10)
    assert engine.run_states() == {"a": "success", "b": "running"}, engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()


def test_a_source_is_not_left_to_a_re_opened_bracket_that_has_closed_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.stepped import shapes

    with shapes.a_dag("and_a_long_one") as dag:
        with shapes.bracket():
            shapes.work.override(task_id="work1")()
        shapes.work.override(task_id="long")("three")
    engine.add(dag, shapes.other())
    engine.trigger("b", dag.dag_id)
    play_all_but(engine, "b.long")
    engine.clear("b", "work1", downstream=False, upstream=False, only_failed=False)
    engine.mark("b", "open", "success")
    play_all_but(engine, "b.long", "b.close", rounds=6)
    _open_with_owners_of_before(engine, monkeypatch)
    play_all_but(engine, "b.long", rounds=10)
    assert engine.run_states() == {"a": "success", "b": "running"}, engine.story()
    assert engine.last_status("one") == "IDLE", engine.story()


def test_a_source_is_not_left_to_a_bracket_that_is_sending_idle(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.stepped import shapes

    engine.add(shapes.one_task(), shapes.other())
    engine.trigger("b", "one_task")
    _ready(engine, "b.close")
    _wait_while_writing(monkeypatch, "a.open", "opening")
    engine.trigger("a", "other")
    _ready(engine, "a.open")
    engine.actor("a.open").actor.stops_at_each_wait = True
    step_to(engine, "a.open", "wait")
    # Coveo carries out its IDLE before a's REBUILD, and its process ends after a's.
    step_to(engine, "b.close", "answered", "IDLE")
    engine.finish("a.open")
    play_all_but(engine, "b.close", "b.outcome")
    assert engine.run_states()["a"] == "success", engine.story()
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()


@pytest.mark.parametrize("clears", ["run", "open"])
def test_an_exclusive_bracket_closes_the_activity_that_another_one_left_to_it(
    engine: Engine, clears: str
) -> None:
    from tests.stepped import shapes

    with shapes.a_dag(f"exclusive_{clears}") as exclusive, shapes.bracket(exclusive=True):
        shapes.work.override(task_id="work1")(pushes=2)
    with shapes.a_dag(f"changes_{clears}") as changes, shapes.bracket(status="INCREMENTAL"):
        shapes.work.override(task_id="work1")()
    engine.add(exclusive, changes)
    engine.trigger("b", exclusive.dag_id)
    engine.until("b.work1", "answered", "push")
    engine.let_time_pass(900)
    engine.trigger("a", changes.dag_id)
    play_all_but(engine, "b.work1")
    assert engine.sequence("one").split()[-2:] == ["INCREMENTAL", "push"], engine.story()
    if clears == "run":
        engine.clear_run("b")
    else:
        engine.clear("b", "open")
    engine.settle()
    assert engine.last_status("one") == "IDLE", engine.story()
    assert engine.run_states() == {"a": "success", "b": "success"}, (engine.story(), engine.errors)
