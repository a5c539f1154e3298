"""Security identities and their aliases."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_coveo.simulator import Simulator
from tests.simulator.client import Client, error

PROVIDER = "My Provider"
USER = {"name": "ann@acme.com", "type": "USER"}
GROUP = {"name": "staff", "type": "GROUP"}


def send(client: Client, method: str, path: str, body: Any = None, **parameters: Any) -> requests.Response:
    url = f"{client.push}/providers/{PROVIDER}/{path}"
    return client.session.request(method, url, params=parameters, json=body)


def test_identities_and_aliases_are_kept_by_provider(coveo: Simulator, client: Client) -> None:
    assert send(client, "PUT", "permissions", {"identity": GROUP, "members": [USER]}).status_code == 202
    alias = {"identity": USER, "mappings": [{**USER, "provider": "Email"}]}
    assert send(client, "PUT", "mappings", alias).status_code == 202
    group, user = coveo.identities(PROVIDER)
    assert (group["kind"], group["members"], group["disabled"]) == ("identity", [USER], False)
    assert (user["kind"], user["mappings"]) == ("alias", alias["mappings"])
    assert coveo.identities("Other") == []


def test_pushing_a_group_replaces_its_members(coveo: Simulator, client: Client) -> None:
    send(client, "PUT", "permissions", {"identity": GROUP, "members": [USER]})
    send(client, "PUT", "permissions", {"identity": GROUP, "members": []})
    (group,) = coveo.identities(PROVIDER)
    assert group["members"] == []


def test_an_identity_is_disabled_by_a_delete_with_a_body(coveo: Simulator, client: Client) -> None:
    send(client, "PUT", "permissions", {"identity": USER})
    assert send(client, "DELETE", "permissions", {"identity": USER}).status_code == 202
    assert coveo.identities(PROVIDER)[0]["disabled"] is True


def test_a_batch_of_identities_is_read_from_its_container(coveo: Simulator, client: Client) -> None:
    send(client, "PUT", "permissions", {"identity": {"name": "old", "type": "USER"}})
    content = {
        "members": [{"identity": GROUP, "members": [USER]}],
        "mappings": [{"identity": USER, "mappings": []}],
        "deleted": [{"identity": {"name": "old", "type": "USER"}}],
    }
    file_id = client.filled_container(content)
    assert send(client, "PUT", "permissions/batch", fileId=file_id).status_code == 202
    disabled = {one["identity"]["name"]: one["disabled"] for one in coveo.identities(PROVIDER)}
    assert disabled == {"old": True, "staff": False, "ann@acme.com": False}


def test_old_identities_are_disabled_after_the_queue_delay(coveo: Simulator, client: Client) -> None:
    send(client, "PUT", "permissions", {"identity": USER}, orderingId=10)
    send(client, "PUT", "permissions", {"identity": GROUP}, orderingId=11)
    assert send(client, "DELETE", "permissions/olderthan", orderingId=11).status_code == 202
    assert not any(one["disabled"] for one in coveo.identities(PROVIDER))
    coveo.clock.advance(minutes=15)
    assert [one["disabled"] for one in coveo.identities(PROVIDER)] == [True, False]
    assert error(send(client, "DELETE", "permissions/olderthan")) == (412, "MISSING_PARAMETER")


@pytest.mark.parametrize("body", [{}, {"identity": {}}, {"identity": {"name": "a", "type": "User"}}, []])
def test_a_malformed_identity_is_rejected(client: Client, body: Any) -> None:
    assert error(send(client, "PUT", "permissions", body)) == (400, "INVALID_JSON")


def test_a_malformed_batch_of_identities_is_noted(coveo: Simulator, client: Client) -> None:
    contents: list[Any] = [b"no JSON", {"members": [{"identity": {}}]}, {"deleted": [GROUP]}]
    for content in contents:
        file_id = client.filled_container(content)
        assert send(client, "PUT", "permissions/batch", fileId=file_id).status_code == 202
    assert len(coveo.undocumented) == 3
