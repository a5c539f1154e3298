"""A client that adds nothing to a test's requests."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import requests

from airflow_provider_coveo.simulator import Simulator

SOURCE = "acme-products"
TIMEOUT = 30


class Client:
    """
    Requests to a simulator.

    :param coveo: the simulator.
    :param key: the API key; ``None`` for none at all.
    """

    def __init__(self, coveo: Simulator, key: str | None) -> None:
        self.coveo = coveo
        self.session = requests.Session()
        self.session.trust_env = False
        if key is not None:
            self.session.headers["Authorization"] = f"Bearer {key}"
        organization = coveo.organization
        self.push = f"{coveo.url}/push/v1/organizations/{organization}"
        self.platform = f"{coveo.url}/rest/organizations/{organization}"
        self.logs = f"{coveo.url}/logs/v1/organizations/{organization}"

    def status(self, value: str | None, source: str = SOURCE, **options: Any) -> requests.Response:
        parameters = {} if value is None else {"statusType": value}
        return self.session.post(f"{self.push}/sources/{source}/status", params=parameters, **options)

    def put(
        self, document_id: str, item: Any = None, source: str = SOURCE, **parameters: Any
    ) -> requests.Response:
        return self.session.put(
            f"{self.push}/sources/{source}/documents",
            params={"documentId": document_id, **parameters},
            json={"data": "text"} if item is None else item,
        )

    def put_raw(self, document_id: str, body: bytes, **headers: str) -> requests.Response:
        return self.session.put(
            f"{self.push}/sources/{SOURCE}/documents",
            params={"documentId": document_id},
            data=body,
            headers={"Content-Type": "application/json", **headers},
        )

    def delete(self, document_id: str, source: str = SOURCE, **parameters: Any) -> requests.Response:
        return self.session.delete(
            f"{self.push}/sources/{source}/documents", params={"documentId": document_id, **parameters}
        )

    def older_than(self, ordering_id: object, source: str = SOURCE, **parameters: Any) -> requests.Response:
        return self.session.delete(
            f"{self.push}/sources/{source}/documents/olderthan",
            params={"orderingId": str(ordering_id), **parameters},
        )

    def container(self) -> dict[str, Any]:
        answer = self.session.post(f"{self.push}/files")
        assert answer.status_code == 201, answer.text
        described: dict[str, Any] = answer.json()
        return described

    def upload(self, container: dict[str, Any], body: Any, **headers: str | None) -> requests.Response:
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.put(
            container["uploadUri"],
            data=body,
            headers={**container["requiredHeaders"], **changed},
            timeout=TIMEOUT,
        )

    def filled_container(self, content: Any) -> str:
        container = self.container()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        assert self.upload(container, body).status_code == 200
        file_id: str = container["fileId"]
        return file_id

    def send_batch(self, file_id: str, source: str = SOURCE, **parameters: Any) -> requests.Response:
        return self.session.put(
            f"{self.push}/sources/{source}/documents/batch", params={"fileId": file_id, **parameters}
        )

    def batch(self, content: Any, source: str = SOURCE, **parameters: Any) -> requests.Response:
        return self.send_batch(self.filled_container(content), source, **parameters)

    def get(self, path: str, **parameters: Any) -> requests.Response:
        return self.session.get(self.platform + path, params=parameters)

    def post(self, path: str, body: Any = None, **parameters: Any) -> requests.Response:
        return self.session.post(self.platform + path, params=parameters, json=body)

    def item_logs(self, body: dict[str, Any] | None = None, **parameters: Any) -> requests.Response:
        return self.session.post(
            self.logs, params={**self.window(), **parameters}, json=body or {"tasks": []}
        )

    def log_counts(self, body: dict[str, Any] | None = None, **parameters: Any) -> requests.Response:
        return self.session.post(
            f"{self.logs}/facetsStats", params={**self.window(), **parameters}, json=body or {"tasks": []}
        )

    def window(self) -> dict[str, str]:
        """The last six days and the next minute on Coveo's clock."""
        now = self.coveo.clock.utcnow().timestamp()
        return {"from": _iso(now - 6 * 86_400), "to": _iso(now + 60)}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def error(response: requests.Response) -> tuple[int, str]:
    """Return the status and the errorCode of a response that is a complete Coveo error."""
    body = response.json()
    assert body.keys() == {"errorCode", "message"}
    assert body["message"]
    return response.status_code, body["errorCode"]
