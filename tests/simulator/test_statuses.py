"""The effects of a status on a source, and how the platform shows them."""

from __future__ import annotations

import pytest

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import SOURCE, Client, error


def test_a_source_whose_status_was_never_set_is_ready_to_receive_content(coveo: Simulator) -> None:
    assert coveo.statuses(SOURCE) == []
    assert coveo.source(SOURCE)["information"]["sourceStatus"]["type"] == "PUSH_READY"


@pytest.mark.parametrize(
    ("status", "operation"),
    [("REBUILD", "REBUILD"), ("REFRESH", "FULL_REFRESH"), ("INCREMENTAL", "INCREMENTAL_REFRESH")],
)
def test_an_active_status_begins_an_activity_and_idle_completes_it(
    coveo: Simulator, client: Client, status: str, operation: str
) -> None:
    begun = client.status(status)
    assert (begun.status_code, begun.content) == (201, b"")
    shown = coveo.source(SOURCE)["information"]["sourceStatus"]
    assert (shown["type"], shown["refreshType"]) == ("REFRESHING", operation)
    (activity,) = coveo.activities(SOURCE)
    assert (activity["operation"], activity["state"]) == (operation, "EXECUTING")
    assert shown["activityId"] == activity["id"]

    assert client.status("IDLE").status_code == 201
    (activity,) = coveo.activities(SOURCE)
    assert (activity["state"], activity["result"]) == ("EXECUTED", "SUCCESS")
    information = coveo.source(SOURCE)["information"]
    assert information["sourceStatus"]["type"] == "PUSH_READY"
    assert information["lastOperation"]["operationType"] == operation
    assert coveo.statuses(SOURCE) == [status, "IDLE"]


def test_idle_is_accepted_without_an_activity(coveo: Simulator, client: Client) -> None:
    assert client.status("IDLE").status_code == 201
    assert coveo.activities(SOURCE) == []


def test_the_same_status_continues_the_activity(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    client.status("REBUILD")
    assert coveo.statuses(SOURCE) == ["REBUILD", "REBUILD"]
    assert len(coveo.activities(SOURCE)) == 1
    assert coveo.undocumented == []


def test_another_active_status_ends_the_activity_and_begins_one(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    client.status("REFRESH")
    assert [one["state"] for one in coveo.activities(SOURCE)] == ["EXECUTED", "EXECUTING"]


def test_the_status_is_read_in_any_case(coveo: Simulator, client: Client, tolerated: list[str]) -> None:
    tolerated.append("statusType")
    assert client.status("rebuild").status_code == 201
    assert coveo.statuses(SOURCE) == ["REBUILD"]


def test_the_console_s_name_of_a_status_is_rejected(client: Client) -> None:
    assert error(client.status("RESCAN")) == (412, "INVALID_PARAMETER")
    assert error(client.status(None)) == (412, "MISSING_PARAMETER")


def test_items_pushed_during_an_activity_are_counted(coveo: Simulator, client: Client) -> None:
    client.put("https://acme.com/1")
    client.status("REBUILD")
    client.put("https://acme.com/1")
    client.put("https://acme.com/2")
    client.put("https://acme.com/3")
    client.delete("https://acme.com/3")
    client.status("IDLE")
    last = coveo.source(SOURCE)["information"]["lastOperation"]
    assert last["numberOfAddedDocuments"] == 2
    assert last["numberOfUpdatedDocuments"] == 1
    assert last["numberOfRemovedDocuments"] == 1


def test_the_timeline_shows_the_events_in_order(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    client.put("https://acme.com/1")
    client.batch({"addOrUpdate": [{"documentId": "https://acme.com/2", "data": "text"}]})
    client.delete("https://acme.com/2")
    client.older_than(1, queueDelay=0)
    client.status("IDLE")
    events = coveo.timeline(SOURCE)
    assert [event["event"] for event in events] == [
        "status",
        "push",
        "batch",
        "delete",
        "delete_old_items_queued",
        "delete_old_items",
        "status",
    ]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_an_activity_can_be_aborted(coveo: Simulator, client: Client) -> None:
    client.status("REBUILD")
    activity = coveo.activities(SOURCE)[0]["id"]
    assert client.post(f"/sources/{SOURCE}/tasks/abort", activityId=activity).status_code == 200
    assert coveo.activities(SOURCE)[0]["result"] == "ABORT"
    assert coveo.source(SOURCE)["information"]["sourceStatus"]["type"] == "PUSH_READY"
    assert coveo.statuses(SOURCE) == ["REBUILD"]

    assert client.post(f"/sources/{SOURCE}/tasks/abort", activityId=activity).status_code == 412
    assert len(coveo.undocumented) == 1


def test_the_platform_api_sets_the_status_by_its_own_names(coveo: Simulator, client: Client) -> None:
    refresh = f"/sources/{SOURCE}/pushRefresh"
    assert client.post(refresh, activityOperation="FULL_REFRESH").status_code == 200
    assert client.post(refresh, activityOperation="IDLE").status_code == 200
    assert coveo.statuses(SOURCE) == ["REFRESH", "IDLE"]
    assert error(client.post(refresh, activityOperation="INCREMENTAL")) == (412, "INVALID_PARAMETER")


def test_activities_can_be_filtered_and_are_listed_newest_first(coveo: Simulator, client: Client) -> None:
    coveo.add_source("other")
    for status in ("REBUILD", "REFRESH", "IDLE"):
        client.status(status)
    client.status("REBUILD", source="other")
    mine = {"resourceIds": [SOURCE], "resourceTypes": ["SOURCE"]}
    page = client.post("/activities/latest", mine, perPage=1).json()
    assert (page["totalEntries"], page["totalPages"]) == (2, 2)
    assert page["items"][0]["operation"] == "FULL_REFRESH"
    running = client.post("/activities/public", {"states": ["EXECUTING"]}).json()["items"]
    assert [one["resourceId"] for one in running] == ["other"]
    assert client.get(f"/activities/{running[0]['id']}").json()["resourceName"] == "other"
    assert client.get("/activities/none").status_code == 404


def test_activities_can_be_listed_for_at_most_31_days(client: Client) -> None:
    client.status("REBUILD")
    month = {"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00.5Z"}
    assert error(client.post("/activities/public", {"states": []}, **month)) == (412, "INVALID_PARAMETER")
    month["to"] = "2020-02-01T00:00:00.000+00:00"
    assert client.post("/activities/public", {"states": []}, **month).json()["items"] == []
