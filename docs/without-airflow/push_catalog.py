"""Replace the content of a Push source, without Airflow."""

import logging
import os
import signal
import sys
from collections.abc import Iterator

from airflow_provider_coveo.coveo.client import CoveoClient
from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.transports.requests_transport import RequestsTransport

SOURCE_ID = "acme-products"


def catalog() -> Iterator[dict[str, object]]:
    for sku, name, price in [("4711", "Anvil", 89.9), ("4712", "Rocket skates", 249)]:
        yield {
            "documentId": f"product://{sku}",
            "title": name,
            "data": f"The famous {name}.",
            "price": price,
        }


logging.basicConfig(level=logging.INFO)
settings = ConnectionSettings.read(
    login=os.environ["COVEO_ORGANIZATION"],
    password=os.environ["COVEO_API_KEY"],
    host=os.environ.get("COVEO_HOST"),  # the simulator's address; unset for Coveo itself
    # extra={"region": "eu"},  # if the organization is not in the region us
)
client = CoveoClient(settings, RequestsTransport())
# Without this, Python ends at a SIGTERM (kill, a service that stops) without running `finally`.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
try:
    # In the `try`, because Coveo may carry out a request whose response is lost.
    opened = client.sources.set_source_status(SOURCE_ID, "REBUILD")
    pushed = client.push.push_items(SOURCE_ID, catalog())
    client.push.delete_old_items(SOURCE_ID, opened["ordering_id"])
finally:
    client.sources.set_source_status(SOURCE_ID, "IDLE")
print(f"Coveo accepted {pushed['accepted_adds']} items.")
