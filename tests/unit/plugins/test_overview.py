"""The rows of the page *Push sources*, from records and a database's data about runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from airflow_provider_coveo.plugins.overview import MAX_UPDATES, WATCHDOG_DAG_ID, Viewer, overview
from airflow_provider_coveo.state.database import DagRow, RunRow, TaskRow, UnreadableRecordError
from airflow_provider_coveo.state.ledger import (
    BracketRecord,
    Holder,
    Phase,
    RunRecord,
    SourceRecord,
    bracket_variable,
)
from airflow_provider_coveo.state.watch_record import SeenSource, WatchRecord

NOW = 1_800_000_000.0
ORG, SOURCE, OPEN = "acme", "acme-products", "update.open"
KEY = f"{ORG}/{SOURCE}"


class Facts:
    """The data of Airflow's database, with a record of each kind in this version's format."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.run_rows: dict[tuple[str, str], RunRow] = {}
        self.dag_rows: dict[str, DagRow] = {}
        self.task_rows: dict[tuple[str, str], list[TaskRow]] = {}
        self.pushes: dict[tuple[str, str], list[Any]] = {}
        self.down: set[str] = set()

    # --- records ---

    def hold(self, source: str = SOURCE, **fields: Any) -> SourceRecord:
        record = SourceRecord("d", "r", OPEN, since_ms=int((NOW - 7200) * 1000), status="REBUILD")
        record = SourceRecord(**{**asdict(record), **fields})
        self.values[f"coveo_open__{ORG}__{source}"] = {
            **asdict(record),
            "others": [],
            "organization_id": ORG,
            "source_id": source,
        }
        return record

    def update(
        self,
        run_id: str = "r",
        source: str = SOURCE,
        dag_id: str = "d",
        bracket: tuple[str, int] = (OPEN, -1),
        **fields: Any,
    ) -> None:
        holder = Holder(dag_id, run_id, *bracket)
        record = BracketRecord(
            **{
                "organization_id": ORG,
                "source_id": source,
                "coveo_conn_id": "coveo_default",
                "status": "REBUILD",
                "phase": Phase.CLOSED,
                "opened_at": NOW - 7200,
                "closed_at": NOW - 3600,
                **fields,
            }
        )
        self.values[bracket_variable(holder)] = {**asdict(record), "phase": record.phase.value}
        content = self.values.setdefault(
            f"coveo_content__{ORG}__{source}", {"organization_id": ORG, "source_id": source, "runs": []}
        )
        content["runs"].append(asdict(RunRecord(dag_id, run_id, brackets=(bracket,))))

    def watch(self, *seen: SeenSource, **fields: Any) -> None:
        record = WatchRecord(**{"organization_id": ORG, "dag_id": "dog", "takes_conf": True, **fields})
        self.values[f"coveo_watch__{ORG}"] = asdict(record.with_sources(seen, only=True))
        self.dag_rows["dog"] = DagRow(False, False, None)

    def run(
        self,
        state: str | None = "running",
        *tasks: tuple[str, str | None],
        paused: bool = False,
        gone: bool = False,
    ) -> None:
        self.run_rows["d", "r"] = RunRow(state, NOW - 7300, None if state == "running" else NOW - 60)
        self.dag_rows["d"] = DagRow(paused, gone, NOW + 3600)
        self.task_rows["d", "r"] = [TaskRow(name, -1, its) for name, its in tasks]

    # --- a store ---

    def records(self) -> Mapping[str, Callable[[], Any]]:
        self._ask("records")

        def decoded(value: Any) -> Any:
            if value is UnreadableRecordError:
                raise UnreadableRecordError("InvalidToken")
            return json.loads(json.dumps(value))

        return {name: lambda value=value: decoded(value) for name, value in self.values.items()}

    def runs(self, keys: Iterable[Any]) -> Any:
        self._ask("runs")
        return {key: self.run_rows[key] for key in keys if key in self.run_rows}

    def dags(self, dag_ids: Iterable[str]) -> Any:
        self._ask("dags")
        return {name: self.dag_rows[name] for name in dag_ids if name in self.dag_rows}

    def tasks(self, keys: Iterable[Any], task_ids: Iterable[str]) -> Any:
        self._ask("tasks")
        names = set(task_ids)
        return {key: [row for row in self.task_rows.get(key, []) if row.task_id in names] for key in keys}

    def states(self, keys: Iterable[Any]) -> Any:
        self._ask("tasks")
        return {key: {(row.task_id, row.state) for row in self.task_rows.get(key, [])} for key in keys}

    def failed(self, keys: Iterable[Any]) -> Any:
        self._ask("tasks")
        return {
            key: [row.task_id for row in self.task_rows.get(key, []) if row.state == "failed"] for key in keys
        }

    def pushed(self, keys: Iterable[Any]) -> Any:
        self._ask("pushed")
        return ((key, value) for key in keys for value in self.pushes.get(key, []))

    def _ask(self, what: str) -> None:
        if what in self.down:
            raise OSError("password=secret: connection refused")

    def shown(self, **viewer: Any) -> dict[str, Any]:
        given = {"readable": frozenset(self.dag_rows), "sees_records": True, "may_trigger": lambda _: True}
        return overview(self, lambda: Viewer(**{**given, **viewer}), NOW)

    def row(self, **viewer: Any) -> dict[str, Any]:
        (row,) = self.shown(**viewer)["rows"]
        return dict(row)


@pytest.fixture
def facts() -> Facts:
    return Facts()


def seen(status: str = "REBUILD", *, at: float = NOW - 60, **fields: Any) -> SeenSource:
    active = status != "IDLE"
    since = int((NOW - 7200) * 1000) if active else None
    return SeenSource(
        **{
            "id": SOURCE,
            "name": "Products",
            "status": status,
            "is_active": active,
            "since_ms": since,
            "at": at,
        }
        | fields
    )


# --- active sources and their owners ---


def test_without_records_there_are_no_rows_and_the_watchdog_is_reported_as_absent(facts: Facts) -> None:
    shown = facts.shown()
    assert shown["rows"] == []
    assert shown["organizations"][""]["watchdog"] == {"dag_id": WATCHDOG_DAG_ID, "usable": "absent"}


def test_the_row_of_a_source_with_an_active_bracket_is_complete(facts: Facts) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    facts.run("running", ("work", "running"))
    row = facts.row()
    assert row["state"] == "working"
    assert row["status"]["label"] == "Rebuild"
    assert row["status"]["since"] == NOW - 7200
    (holder,) = row["holders"]
    assert (holder["dag_id"], holder["run_id"], holder["task_id"]) == ("d", "r", OPEN)
    assert holder["is_live"] is True
    (update,) = row["updates"]
    assert update["ended"] is None
    assert row["last"]["result"] == "running"
    assert row["next_run"] == {"dag_id": "d", "at": NOW + 3600, "is_paused": False, "is_gone": False}


ENDED = (("update.close", "failed"), ("update.outcome", "failed"))


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (None, "the run no longer exists"),
        ({"state": "failed"}, "the run has ended (failed)"),
        ({"state": "running", "tasks": ENDED}, "its tasks close and outcome have run"),
        ({"state": "running", "tasks": (("w", "scheduled"),), "paused": True}, "the DAG is paused"),
        ({"state": "running", "tasks": (("w", None),), "gone": True}, "the DAG no longer exists"),
    ],
)
def test_an_active_source_without_an_active_bracket_is_abandoned_with_the_reason(
    facts: Facts, run: dict[str, Any] | None, why: str
) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    if run is not None:
        facts.run(run["state"], *run.get("tasks", ()), paused="paused" in run, gone="gone" in run)
    row = facts.row()
    assert row["state"] == "abandoned"
    assert why in row["holders"][0]["why"]
    assert row["holders"][0]["is_live"] is False


@pytest.mark.parametrize("pending", ["running", None])
@pytest.mark.parametrize(("task", "state"), [("update.work", "working"), ("elsewhere", "abandoned")])
def test_a_member_that_is_pending_after_close_was_marked_keeps_the_bracket_active(
    facts: Facts, task: str, state: str, pending: str | None
) -> None:
    facts.hold()
    facts.run("running", ("update.close", "success"), ("update.outcome", "success"), (task, pending))
    assert facts.row()["state"] == state


@pytest.mark.parametrize("options", [{"paused": True}, {"gone": True}])
def test_a_running_task_keeps_the_bracket_active(facts: Facts, options: Any) -> None:
    facts.hold()
    facts.run("running", ("w", "running"), **options)
    assert facts.row()["state"] == "working"


def test_a_bracket_that_a_task_reopened_is_active_until_that_task_has_ended(facts: Facts) -> None:
    facts.hold(reopened_by=("work", -1))
    for state in ("running", None):
        facts.run("running", *ENDED, ("work", state))
        assert facts.row()["state"] == "working"
    facts.run("running", *ENDED, ("work", "success"))
    assert facts.row()["state"] == "abandoned"


def test_the_state_of_a_mapped_bracket_depends_on_the_tasks_of_its_map_index(facts: Facts) -> None:
    facts.hold(map_index=1)
    facts.run("running")
    facts.task_rows["d", "r"] = [TaskRow(name, index, "success") for name, _ in ENDED for index in (0,)]
    assert facts.row()["state"] == "working"
    facts.task_rows["d", "r"] = [TaskRow(name, 1, "success") for name, _ in ENDED]
    assert facts.row()["state"] == "abandoned"


@pytest.mark.parametrize(
    ("watched", "closed_at", "state", "by"),
    [
        (("REBUILD", NOW - 60), NOW - 3600, "abandoned", "coveo"),
        (("REBUILD", NOW - 3700), NOW - 3600, "idle", "airflow"),
        (("IDLE", NOW - 60), NOW - 3600, "idle", "coveo"),
        (("", NOW - 60), NOW - 3600, "idle", "coveo"),
    ],
)
def test_the_newer_status_of_coveo_and_the_records_is_shown(
    facts: Facts, watched: tuple[str, float], closed_at: float, state: str, by: str
) -> None:
    status, at = watched
    source = seen(status or "IDLE", at=at)
    if not status:
        source = (
            seen("IDLE", at=at, words="PAUSED_ON_ERROR")
            if status
            else SeenSource(SOURCE, words="DISABLED", at=at)
        )
    facts.watch(source)
    facts.update(closed_at=closed_at)
    facts.run("success")
    row = facts.row()
    assert (row["state"], row["status"]["by"]) == (state, by)
    assert row["status"]["as_of"] == max(at, closed_at)


def test_statuses_have_the_names_of_coveo_s_console(facts: Facts) -> None:
    facts.watch(*(seen(status, id=status) for status in ("REBUILD", "REFRESH", "INCREMENTAL", "IDLE")))
    labels = {row["source"]: row["status"]["label"] for row in facts.shown()["rows"]}
    assert labels == {
        "REBUILD": "Rebuild",
        "REFRESH": "Rescan",
        "INCREMENTAL": "Refresh",
        "IDLE": "Ready to receive content",
    }


@pytest.mark.parametrize(
    ("run", "state", "why"),
    [
        ({"state": "running"}, "unsure", "its run is active, and updates it without push_source_update"),
        ({"state": "running", "paused": True}, "abandoned", None),
        ({"state": "success"}, "abandoned", None),
    ],
)
def test_an_active_run_without_a_bracket_makes_the_state_of_its_source_unsure(
    facts: Facts, run: dict[str, Any], state: str, why: str | None
) -> None:
    facts.values[f"coveo_content__{ORG}__{SOURCE}"] = {"runs": [asdict(RunRecord("d", "r"))]}
    facts.run(run["state"], ("push", "scheduled"), paused="paused" in run)
    facts.watch(seen())
    row = facts.row()
    assert row["state"] == state
    assert [each["why"] for each in row["holders"]] == ([why] if why else [])
    (hidden,) = facts.row(readable=frozenset({"dog"}), sees_records=False)["holders"] or [None]
    assert hidden == ({"hidden": True, "is_live": None} if why else None)


# --- the last update ---


def test_the_last_update_shows_its_result_and_what_it_pushed(facts: Facts) -> None:
    facts.update("before")
    facts.update(closed_by="watchdog")
    facts.run("failed", ("work", "failed"), ("update.outcome", "failed"), ("other", "success"))
    facts.pushes["d", "r"] = [
        {KEY: {"accepted": 2, "refused": 1}, "acme/other": {"accepted": 100}},
        {KEY: {"accepted": 3, "deleted": 4, "unchanged": 5}},
        {KEY: {"rejected": 2, "rejected_batches": 1}},
        {KEY: {"rejected": 1}},
    ]
    last = facts.row()["last"]
    assert last["result"] == "failed"
    assert last["failed"] == ["update.outcome", "work"]
    rejected = {"refused": 1, "rejected": 3, "rejected_batches": 1}
    assert last["counts"] == {"accepted": 5, "deleted": 4, "unchanged": 5, **rejected}
    assert (last["began"], last["ended"]) == (NOW - 7200, NOW - 3600)
    assert last["closed_by"] == "watchdog"


def test_the_failed_tasks_of_a_run_are_named_only_in_the_rows_of_their_sources(facts: Facts) -> None:
    for number in (0, 1):
        facts.update(source=f"mapped-{number}", bracket=("mapped.open", number))
    facts.update(source="outer", bracket=("outer.open", -1))
    facts.update(source="inner", bracket=("outer.inner.open", -1))
    facts.run("failed", ("outer.outcome", "failed"), ("outer.push", "failed"), ("prepare", "failed"))
    facts.task_rows["d", "r"] += [
        TaskRow("outer.inner.outcome", -1, "failed"),
        TaskRow("outer.inner.push", -1, "failed"),
        *(TaskRow("mapped.push", number, "failed" if number else "success") for number in (0, 1)),
        *(TaskRow("mapped.outcome", number, "failed" if number else "success") for number in (0, 1)),
    ]
    last = {row["source"]: row["last"] for row in facts.shown()["rows"]}
    assert (last["mapped-0"]["result"], last["mapped-0"]["failed"]) == ("success", [])
    assert last["mapped-1"]["failed"] == ["mapped.outcome", "mapped.push", "prepare"]
    assert last["outer"]["failed"] == ["outer.outcome", "outer.push", "prepare"]
    assert last["inner"]["failed"] == ["outer.inner.outcome", "outer.inner.push", "prepare"]


@pytest.mark.parametrize(
    "odd", [None, [], "x", {KEY: None}, {KEY: {"accepted": "many"}}, {KEY: {"accepted": True}}]
)
def test_invalid_counts_are_left_out(facts: Facts, odd: Any) -> None:
    facts.update()
    facts.run("success")
    facts.pushes["d", "r"] = [odd]
    assert facts.row()["last"]["counts"] is None


def test_a_push_without_a_bracket_has_the_result_and_times_of_its_run(facts: Facts) -> None:
    facts.values[f"coveo_content__{ORG}__{SOURCE}"] = {"runs": [asdict(RunRecord("d", "r"))]}
    facts.run("success")
    last = facts.row()["last"]
    assert (last["result"], last["began"], last["ended"]) == ("success", NOW - 7300, NOW - 60)


def test_the_timeline_is_limited_and_an_open_update_ends_when_the_source_was_seen_idle(facts: Facts) -> None:
    for number in range(MAX_UPDATES + 5):
        facts.update(f"r{number:02}", opened_at=NOW - 9000 + number, closed_at=NOW - 8000 + number)
    facts.update("dead", phase=Phase.UNSURE, opened_at=NOW - 500, closed_at=0.0)
    facts.watch(seen("IDLE", at=NOW - 100))
    updates = facts.row()["updates"]
    assert len(updates) == MAX_UPDATES
    assert updates[-1]["run_id"] == "dead"
    assert updates[-1]["ended"] == NOW - 100


# --- damage ---


@pytest.mark.parametrize("kind", ["coveo_open__", "coveo_content__", "coveo_bracket__", "coveo_watch__"])
@pytest.mark.parametrize(
    "value",
    [UnreadableRecordError, None, [], "x", 3, {}, {"runs": 3}, {"phase": "closed"}, {"sources": {"a": 1}}],
)
def test_a_damaged_record_is_reported_and_hides_no_other_source(facts: Facts, kind: str, value: Any) -> None:
    facts.hold()
    facts.update()
    facts.run("running")
    facts.watch(seen())
    facts.update("other", source="healthy")
    (name,) = [name for name in facts.values if name.startswith(kind) and "healthy" not in name][:1]
    facts.values[name] = value
    shown = facts.shown()
    rows = {row["source"]: row for row in shown["rows"]}
    assert rows["healthy"]["state"] == "idle"
    assert rows["healthy"]["troubles"] == []
    assert SOURCE in rows
    said = [*rows[SOURCE]["troubles"], *shown["troubles"]]
    # An empty record of content means that nothing was done.
    if not (kind == "coveo_content__" and isinstance(value, dict)):
        assert any(name in text for text in said), said


def test_the_row_of_an_unreadable_record_shows_the_reason_and_the_remedy(facts: Facts) -> None:
    facts.values[f"coveo_open__{ORG}__{SOURCE}"] = UnreadableRecordError
    row = facts.row()
    assert (row["organization"], row["source"], row["state"]) == (ORG, SOURCE, "unreadable")
    said = "can't be read (InvalidToken). If no run is updating the source, delete that Variable."
    assert row["troubles"] == [f"The Variable coveo_open__{ORG}__{SOURCE} {said}"]


def test_a_source_that_coveo_no_longer_lists_is_reported_as_deleted(facts: Facts) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    facts.run("failed")
    facts.watch(seen("IDLE", id="other"), at=NOW - 30)
    (trouble,) = next(row["troubles"] for row in facts.shown()["rows"] if row["source"] == SOURCE)
    assert "Coveo's list of sources does not include it: the source was deleted" in trouble
    assert f"delete coveo_content__{ORG}__{SOURCE} and coveo_open__{ORG}__{SOURCE} in" in trouble


@pytest.mark.parametrize("watch", [{"at": 0.0}, {"at": NOW - 7300}, {"at": NOW - 30, "left_out": 1}, None])
def test_a_source_that_the_last_check_could_not_find_is_not_reported_as_deleted(
    facts: Facts, watch: dict[str, Any] | None
) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    facts.run("running")
    facts.watch(*([] if watch else [seen()]), **(watch or {"at": NOW - 30}))
    facts.values[f"coveo_watch__{ORG}"] |= watch or {}
    assert facts.row()["troubles"] == []


@pytest.mark.parametrize("more", [{"color": "blue"}, {"version": 99}])
def test_fields_of_a_later_version_are_ignored(facts: Facts, more: dict[str, Any]) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    facts.watch(seen())
    facts.run("running", ("w", "running"))
    for value in facts.values.values():
        value |= more
    assert facts.row()["state"] == "working"
    assert facts.row()["troubles"] == []


def test_records_of_version_0_1_0_are_shown(facts: Facts) -> None:
    facts.values[f"coveo_open__{ORG}__{SOURCE}"] = {"dag_id": "d", "run_id": "r", "open_task_id": OPEN}
    facts.values[f"coveo_content__{ORG}__{SOURCE}"] = {"dag_id": "d", "run_id": "r", "since": "x"}
    facts.run("running")
    row = facts.row()
    assert (row["state"], row["last"]["run_id"]) == ("working", "r")
    assert row["status"]["label"] == "Active"


@pytest.mark.parametrize("down", ["records", "runs", "dags", "tasks", "pushed"])
def test_a_query_that_fails_is_reported_without_the_driver_s_message(facts: Facts, down: str) -> None:
    facts.hold()
    facts.update(phase=Phase.OPEN, closed_at=0.0)
    facts.run("running", ("w", "running"))
    facts.down.add(down)
    shown = facts.shown()
    assert any("OSError" in text for text in shown["troubles"])
    assert "secret" not in json.dumps(shown)
    assert shown["is_read"] is (down != "records")
    if down == "records":
        assert shown["rows"] == []
    elif down == "pushed":
        assert shown["rows"][0]["state"] == "working"
    else:
        assert shown["rows"][0]["state"] == "unsure"


# --- permissions ---


def test_only_sources_of_readable_dags_are_shown(facts: Facts) -> None:
    facts.update()
    facts.update("r", source="theirs", dag_id="secret")
    facts.watch(seen("IDLE", id="unheard-of"))

    def sources(**viewer: Any) -> set[str]:
        return {row["source"] for row in facts.shown(sees_records=False, **viewer)["rows"]}

    assert sources(readable=frozenset()) == set()
    assert sources(readable=frozenset({"d"})) == {SOURCE}
    assert sources(readable=frozenset({"dog"})) == {SOURCE, "theirs", "unheard-of"}


def test_the_row_of_a_source_names_no_unreadable_dag(facts: Facts) -> None:
    facts.hold(dag_id="secret", run_id="secret-run")
    facts.update()
    facts.update("secret-run", dag_id="secret")
    facts.watch(seen())
    facts.dag_rows["secret"] = DagRow(False, False, None)
    shown = facts.shown(readable=frozenset({"d"}), sees_records=False)
    assert "secret" not in json.dumps(shown)
    assert '"dog"' not in json.dumps(shown)
    (row,) = shown["rows"]
    assert row["holders"] == [{"hidden": True, "is_live": False}]
    assert row["last"]["run_id"] == "r"


def test_a_damaged_record_of_a_hidden_dag_does_not_name_it(facts: Facts) -> None:
    facts.update()
    facts.update("secret-run", dag_id="secret")
    facts.values[bracket_variable(Holder("secret", "secret-run", OPEN))] = UnreadableRecordError
    assert "coveo_bracket__secret" in json.dumps(facts.shown())
    shown = facts.shown(readable=frozenset({"d"}), sees_records=False)
    assert "secret" not in json.dumps(shown)
    assert shown["rows"][0]["troubles"] == [
        "A record of a DAG that you are not allowed to read can't be read."
    ]


def test_the_last_update_is_that_of_a_readable_dag(facts: Facts) -> None:
    facts.update()
    facts.update("later", dag_id="secret")
    facts.run("failed", ("update.push", "failed"), ("update.outcome", "failed"))
    facts.dag_rows["secret"] = DagRow(False, False, None)
    facts.pushes["d", "r"] = [{KEY: {"accepted": 2}}]
    row = facts.row(readable=frozenset({"d"}), sees_records=False)
    assert row["next_run"] == {"dag_id": "d", "at": NOW + 3600, "is_paused": False, "is_gone": False}
    assert (row["last"]["run_id"], row["last"]["result"]) == ("r", "failed")
    assert row["last"]["failed"] == ["update.outcome", "update.push"]
    assert row["last"]["counts"] == {"accepted": 2}


def test_only_the_intended_fields_of_a_record_are_shown(facts: Facts) -> None:
    facts.hold(opening="opening-id")
    facts.update(coveo_conn_id="my_connection", phase=Phase.OPEN, closed_at=0.0)
    for value in facts.values.values():
        value |= {"api_key": "xx-secret", "uploadUri": "https://bucket/?X-Amz-Signature=1", "data": "content"}
    text = json.dumps(facts.shown())
    for hidden in ("xx-secret", "X-Amz", "content", "my_connection", "opening-id"):
        assert hidden not in text


# --- the buttons ---


@pytest.mark.parametrize(
    ("watch", "dag", "viewer", "usable"),
    [
        ({}, DagRow(False, False, None), {}, "ready"),
        ({}, DagRow(True, False, None), {}, "paused"),
        ({}, DagRow(False, True, None), {}, "absent"),
        ({"takes_conf": False}, DagRow(False, False, None), {}, "deaf"),
        ({}, DagRow(False, False, None), {"may_trigger": lambda _: False}, "forbidden"),
        ({}, DagRow(False, False, None), {"readable": frozenset({"d"}), "sees_records": False}, "forbidden"),
    ],
)
def test_the_overview_says_whether_the_buttons_can_be_used(
    facts: Facts, watch: Any, dag: DagRow, viewer: Any, usable: str
) -> None:
    facts.update()
    facts.watch(seen(), **watch)
    facts.dag_rows["dog"] = dag
    facts.dag_rows["d"] = DagRow(False, False, None)
    assert facts.shown(**viewer)["organizations"][ORG]["watchdog"]["usable"] == usable


def test_a_watchdog_of_another_organization_is_not_offered(facts: Facts) -> None:
    facts.watch(seen(), dag_id=WATCHDOG_DAG_ID)
    facts.dag_rows[WATCHDOG_DAG_ID] = DagRow(False, False, None)
    facts.values["coveo_open__two__s"] = 3
    organizations = facts.shown()["organizations"]
    assert organizations[ORG]["watchdog"]["usable"] == "ready"
    assert organizations["two"]["watchdog"] == {"dag_id": WATCHDOG_DAG_ID, "usable": "elsewhere"}


def test_a_deleted_watchdog_is_not_named_to_viewers_who_could_not_read_it(facts: Facts) -> None:
    facts.update()
    facts.watch(seen())
    facts.run("success")
    for dag in (None, DagRow(False, True, None)):
        facts.dag_rows.pop("dog", None)
        facts.dag_rows |= {"dog": dag} if dag else {}
        shown = facts.shown(readable=frozenset({"d"}), sees_records=False)
        assert shown["organizations"][ORG]["watchdog"] == {"dag_id": WATCHDOG_DAG_ID, "usable": "absent"}


def test_the_quota_is_that_of_the_watchdog_s_last_check(facts: Facts) -> None:
    facts.watch(seen(), at=NOW - 60, quota_limit=1000, quota_used=400)
    assert facts.shown()["organizations"][ORG]["quota"] == {"limit": 1000, "used": 400, "as_of": NOW - 60}


def test_sources_that_need_attention_come_first(facts: Facts) -> None:
    facts.watch(seen("IDLE", id="idle"), seen("REBUILD", id="left", name="Z"))
    facts.values["coveo_open__acme__odd"] = UnreadableRecordError
    assert [row["source"] for row in facts.shown()["rows"]] == ["left", "odd", "idle"]


def test_numbers_in_names_are_ordered_as_numbers(facts: Facts) -> None:
    facts.watch(*(seen("IDLE", id=name, name=name) for name in ("Shop 10", "shop 9", "Shop 100")))
    assert [row["name"] for row in facts.shown()["rows"]] == ["shop 9", "Shop 10", "Shop 100"]
