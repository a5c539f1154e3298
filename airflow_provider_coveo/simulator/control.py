"""The control API under ``/_simulator/`` and the page at ``/``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.routing import Route

from airflow_provider_coveo.simulator.call import json_answer
from airflow_provider_coveo.simulator.exchange import Answer, Exchange
from airflow_provider_coveo.simulator.json_body import decode
from airflow_provider_coveo.simulator.models import activity_model
from airflow_provider_coveo.simulator.records import Source
from airflow_provider_coveo.simulator.world import World

#: The maximum length of each list on the page.
SHOWN_ITEMS = 200
SHOWN_STATUSES = 100
SHOWN_EVENTS = 200
SHOWN_LOGS = 100
SHOWN_REQUESTS = 100
SHOWN_NOTES = 20
#: The maximum size of a recorded body in a response.
SHOWN_BODY = 100_000

_OWN_NAMES = ("127.0.0.1", "localhost")
_PAGE = Path(__file__).with_name("page.html")
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)


class ControlError(Exception):
    """
    An invalid control request.

    :param message: the reason.
    """


def handle(simulator: World, route: Route, exchange: Exchange) -> Answer:
    """Handle a control request."""
    host = exchange.headers.get("host", "")
    own_origin = f"{simulator.scheme}://{host}"
    if host.rpartition(":")[0] not in _OWN_NAMES or exchange.headers.get("origin", own_origin) != own_origin:
        # Otherwise, any web page in a browser on this machine could send one.
        return json_answer({"message": "Only this machine and the simulator's own page can do this."}, 403)
    try:
        answer: Answer = route.endpoint(simulator, exchange)
    except (ControlError, ValueError, TypeError) as error:
        return json_answer({"message": str(error)}, 400)
    except LookupError as error:
        return json_answer({"message": str(error.args[0])}, 404)
    return answer


def page(simulator: World, exchange: Exchange) -> Answer:
    """Show the page."""
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Answer(200, _PAGE.read_bytes(), "text/html; charset=utf-8", headers)


def get_state(simulator: World, exchange: Exchange) -> Answer:
    """Return the data of the page."""
    state, clock = simulator.state, simulator.clock
    with state.reading():
        exchanges = simulator.requests
        return json_answer(
            {
                "organization": state.id,
                "url": simulator.url,
                "paused": state.paused,
                "clock": {
                    "now": clock.now_ms(),
                    "advanced_seconds": clock.advanced_seconds,
                    "shift_seconds": clock.shift_seconds,
                },
                "sources": [_source(simulator, source) for source in state.sources.values()],
                "requests": [_request(one) for one in exchanges[-SHOWN_REQUESTS:]],
                "request_count": len(exchanges),
                "faults": [fault.describe() for fault in simulator.faults.active],
                "undocumented": state.undocumented[-SHOWN_NOTES:],
                "undocumented_count": len(state.undocumented),
            }
        )


def get_requests(simulator: World, exchange: Exchange) -> Answer:
    """Return the recorded requests."""
    since = int(exchange.query.get("since", "0"))
    operation = exchange.query.get("operation")
    found = [one for one in simulator.requests[since:] if operation in (None, one.operation)]
    return json_answer([{**_request(one), **_details(one)} for one in found])


def get_timeline(simulator: World, exchange: Exchange) -> Answer:
    """Return the timeline of a source."""
    return json_answer(simulator.timeline(_query_source(exchange)))


def get_items(simulator: World, exchange: Exchange) -> Answer:
    """Return the items of a source."""
    return json_answer(simulator.items(_query_source(exchange)))


def get_logs(simulator: World, exchange: Exchange) -> Answer:
    """Return the item logs of a source."""
    return json_answer(simulator.logs(_query_source(exchange)))


def add_fault(simulator: World, exchange: Exchange) -> Answer:
    """Add a fault."""
    return json_answer(simulator.faults.from_json(_body(exchange)).describe(), 201)


def clear_faults(simulator: World, exchange: Exchange) -> Answer:
    """Remove all faults."""
    simulator.faults.clear()
    return Answer(204)


def turn_clock(simulator: World, exchange: Exchange) -> Answer:
    """Change the clock."""
    body = _body(exchange)
    if not body or body.keys() - {"advance_seconds", "shift_seconds"}:
        raise ControlError("The body must contain advance_seconds, shift_seconds or both")
    if "shift_seconds" in body:
        simulator.clock.shift(seconds=body["shift_seconds"])
    if "advance_seconds" in body:
        simulator.clock.advance(seconds=body["advance_seconds"])
    return json_answer({"now": simulator.clock.now_ms()})


def reset(simulator: World, exchange: Exchange) -> Answer:
    """Restore the initial state."""
    simulator.reset()
    return Answer(204)


def reject_item(simulator: World, exchange: Exchange) -> Answer:
    """Let the pipeline reject an item."""
    simulator.reject_item(**_body(exchange))
    return Answer(204)


def set_organization(simulator: World, exchange: Exchange) -> Answer:
    """Pause or resume the organization."""
    paused = _body(exchange).get("paused")
    if not isinstance(paused, bool):
        raise ControlError("The body must contain paused, true or false")
    if paused:
        simulator.pause_organization()
    else:
        simulator.resume_organization()
    return json_answer({"paused": paused})


def set_limits(simulator: World, exchange: Exchange) -> Answer:
    """Set or remove the limits of calls and items."""
    body = _body(exchange)
    if not body or body.keys() - {"call_limit", "retry_after", "daily_documents", "document_limit"}:
        raise ControlError("The body must contain call_limit, retry_after, daily_documents or document_limit")
    if "call_limit" in body:
        calls, seconds = body["call_limit"] or (0, 0)
        simulator.call_limit = (int(calls), float(seconds)) if calls else None
    for name in ("retry_after", "daily_documents", "document_limit"):
        if name in body:
            setattr(simulator, name, body[name])
    return Answer(204)


def set_source_state(simulator: World, exchange: Exchange) -> Answer:
    """Set or remove the state of a source."""
    body = _body(exchange)
    simulator.set_source_state(body.pop("source", ""), body.pop("state", None), **body)
    return Answer(204)


def add_source(simulator: World, exchange: Exchange) -> Answer:
    """Add a source."""
    body = _body(exchange)
    source_id = body.pop("id", None)
    if not isinstance(source_id, str):
        raise ControlError("The body must contain the ID of the source")
    simulator.add_source(source_id, **body)
    return json_answer(simulator.source(source_id), 201)


def remove_source(simulator: World, exchange: Exchange) -> Answer:
    """Remove a source."""
    simulator.remove_source(_query_source(exchange))
    return Answer(204)


def _body(exchange: Exchange) -> dict[str, Any]:
    body = decode(exchange.body)
    if not isinstance(body, dict):
        raise ControlError("The body must be a JSON object")
    return body


def _query_source(exchange: Exchange) -> str:
    source_id = exchange.query.get("source")
    if source_id is None:
        raise ControlError("The query must contain source=<id>")
    return source_id


def _source(simulator: World, source: Source) -> dict[str, object]:
    newest = islice(reversed(source.updated.items()), SHOWN_ITEMS)
    events = source.timeline[-SHOWN_EVENTS:]
    logs = [
        record.entry(simulator.organization, source.id, stage, result)
        for record in source.log[-SHOWN_LOGS:]
        for stage, result in record.results()
    ]
    return {
        "id": source.id,
        "name": source.name,
        "visibility": source.visibility,
        "crawler": source.crawler,
        "created": source.created,
        "console_status": source.console_name,
        "activity": activity_model(simulator.state, source.running) if source.running else None,
        "statuses": [{"at": at, "status": status.value} for at, status in source.shown[-SHOWN_STATUSES:]],
        "events": events,
        "event_count": len(source.timeline),
        "items": [
            {
                "id": name,
                "title": _title(source.items[name]),
                "orderingId": source.items[name]["orderingId"],
                "updated": updated,
            }
            for name, updated in newest
        ],
        "item_count": len(source.items),
        "logs": logs[-SHOWN_LOGS:],
        "log_count": source.log_entries,
    }


def _title(item: Mapping[str, object]) -> str:
    title = next((value for key, value in item.items() if key.lower() == "title"), "")
    return str(title)[:200]


def _request(exchange: Exchange) -> dict[str, object]:
    return {
        "at": exchange.at,
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "operation": exchange.operation,
        "source": exchange.source,
        "status": exchange.status,
        "seconds": exchange.seconds,
        "body_size": exchange.body_size,
        "client_port": exchange.client_port,
        "fault": exchange.fault,
    }


def _details(exchange: Exchange) -> dict[str, object]:
    return {
        "raw_query": exchange.raw_query,
        "headers": exchange.headers,
        "body": exchange.body[:SHOWN_BODY].decode("utf-8", "replace"),
        "response_headers": exchange.response_headers,
        "response_body": exchange.response_body[:SHOWN_BODY].decode("utf-8", "replace"),
    }


ROUTES = [
    Route("/", page, methods=["GET"], name="page"),
    # The path of Coveo's Administration Console; browsers don't send the part after the "#".
    Route("/admin/", page, methods=["GET"], name="page"),
    Route("/_simulator/state", get_state, methods=["GET"], name="control_state"),
    Route("/_simulator/requests", get_requests, methods=["GET"], name="control_requests"),
    Route("/_simulator/timeline", get_timeline, methods=["GET"], name="control_timeline"),
    Route("/_simulator/items", get_items, methods=["GET"], name="control_items"),
    Route("/_simulator/logs", get_logs, methods=["GET"], name="control_logs"),
    Route("/_simulator/faults", add_fault, methods=["POST"], name="control_add_fault"),
    Route("/_simulator/faults", clear_faults, methods=["DELETE"], name="control_clear_faults"),
    Route("/_simulator/clock", turn_clock, methods=["POST"], name="control_clock"),
    Route("/_simulator/reset", reset, methods=["POST"], name="control_reset"),
    Route("/_simulator/reject-item", reject_item, methods=["POST"], name="control_reject_item"),
    Route("/_simulator/limits", set_limits, methods=["POST"], name="control_limits"),
    Route("/_simulator/organization", set_organization, methods=["POST"], name="control_organization"),
    Route("/_simulator/source-state", set_source_state, methods=["POST"], name="control_source_state"),
    Route("/_simulator/sources", add_source, methods=["POST"], name="control_add_source"),
    Route("/_simulator/sources", remove_source, methods=["DELETE"], name="control_remove_source"),
]
