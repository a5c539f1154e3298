"""Triggers as in a triggerer: created from their serialized form, on an event loop."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any


def made_again(trigger: Any) -> Any:
    """Return the trigger as another process creates it from JSON."""
    path, parameters = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(parameters)))


def fired(trigger: Any, within: float = 90) -> dict[str, Any]:
    """Run a trigger until it fires, and return its event for the task."""

    async def first_event() -> Any:
        async for event in made_again(trigger).run():
            return event.payload
        raise AssertionError("The trigger ended without an event")

    return json.loads(json.dumps(asyncio.run(asyncio.wait_for(first_event(), within))))
