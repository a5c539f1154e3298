"""A running task, as a hook sees it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from airflow_provider_coveo.state.records import PUSHED_XCOM_KEY


class Task:
    """
    The running task, with its XComs and the events of its assets.

    :param uris: The URIs of its assets.
    """

    def __init__(self, *uris: str) -> None:
        self.xcoms: dict[str, Any] = {}
        self.events = {uri: SimpleNamespace(extra={}) for uri in uris}
        outlets = [SimpleNamespace(uri=uri) for uri in uris]
        self.context: dict[str, Any] = {
            "ti": self.instance("push"),
            "task": SimpleNamespace(outlets=outlets),
            "outlet_events": self,
        }

    def __getitem__(self, outlet: Any) -> Any:
        return self.events[outlet.uri]

    def instance(self, task_id: str, try_number: int = 1) -> Any:
        return SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id=task_id,
            map_index=-1,
            try_number=try_number,
            xcom_push=lambda key, value: self.xcoms.update({key: json.loads(json.dumps(value))}),
        )

    def refuse(self, broken: str) -> None:
        """
        Let the task record nothing any longer.

        :param broken: The way: ``xcom_push`` or ``outlet_events``.
        """

        def refuse(**_: Any) -> None:
            raise RuntimeError("the XCom backend is away")

        if broken == "xcom_push":
            self.context["ti"].xcom_push = refuse
        else:
            self.context["outlet_events"] = None

    @property
    def pushed(self) -> Any:
        return self.xcoms.get(PUSHED_XCOM_KEY)
