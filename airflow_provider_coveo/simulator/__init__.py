"""
A simulated Coveo: the Push API and the APIs around it, on a real loopback socket, in memory.

For people and scripts::

    python -m airflow_provider_coveo.simulator --port 8642

prints an ``export AIRFLOW_CONN_COVEO_DEFAULT=...`` line, and the address of a page that shows the status,
the timeline, the items and the logs of each source. For tests::

    with Simulator(organization="acme", sources=("acme-products",)) as coveo:
        coveo.faults.answer(503, times=2, operation="status", status_type="IDLE")
        ...
        coveo.clock.advance(minutes=15)
        assert coveo.statuses("acme-products") == ["REBUILD", "IDLE"]

See :class:`~airflow_provider_coveo.simulator.server.Simulator`,
:class:`~airflow_provider_coveo.simulator.faults.Faults` and
:class:`~airflow_provider_coveo.simulator.clock.Clock`.

**The control API**

For tests whose client runs in another process. It needs no key; request and response bodies are JSON. An
invalid request returns 400, and an unknown source 404, with a ``message``.

``GET /_simulator/state``
    The data of the page.
``GET /_simulator/requests?since=0&operation=batch``
    The recorded requests from that index on, of that operation; both parameters are optional.
``GET /_simulator/timeline?source=ID``, and the same with ``items`` and ``logs``
    Same as the methods of those names.
``POST /_simulator/faults``
    ``{"kind": "answer", "status": 503, "times": 2, "operation": "status"}``: ``kind`` is a method of
    ``Faults``, and the other keys are its arguments.
``DELETE /_simulator/faults``
    Removes all faults.
``POST /_simulator/clock``
    ``{"advance_seconds": 900}``, ``{"shift_seconds": -90}`` or both.
``POST /_simulator/reset``
    Restores the initial state.
``POST /_simulator/reject-item``
    ``{"document_id": "https://acme.com/1", "task": "PROCESSING", "result": "REJECTED", "reason": "..."}``
``POST /_simulator/organization``
    ``{"paused": true}`` or ``{"paused": false}``.
``POST /_simulator/limits``
    ``{"call_limit": [150, 300], "retry_after": false, "daily_documents": null, "document_limit": null}``, or
    some of these keys. They set the attributes of the same names.
``POST /_simulator/source-state``
    ``{"source": ..., "state": "PAUSED_ON_ERROR", "error_code": ...}``: same as
    ``Simulator.set_source_state``; without ``state``, it removes the state.
``POST /_simulator/sources``, ``DELETE /_simulator/sources?source=ID``
    Adds ``{"id": ..., "name": ..., "visibility": "SECURED", "crawler": "SITECORE"}``, of which only the
    ID is required, or removes a source.

**Behavior that Coveo does not document**

The simulator follows Coveo's documentation. If that is silent, the simulator does the least surprising thing.
The real Coveo may behave differently in each of these cases. In the cases marked (noted), each request that
relies on the behavior is recorded in ``Simulator.undocumented``.

Not simulated (a 404 says so):
    the Stream API, updating and deleting fields, schedules, mappings, raw configurations, updating a source,
    privileges, security caches, the older ``GET`` of the item logs and their ``facets``, resuming an
    organization (use the control API).

Statuses
    * Setting the current status: its activity continues. Setting another active status: the current activity
      ends as completed, and a new one begins.
    * The platform API calls REFRESH and INCREMENTAL FULL_REFRESH and INCREMENTAL_REFRESH.
      ``pushRefresh`` accepts these three operations and IDLE.
    * A source with an activity is REFRESHING, a source without one is PUSH_READY. In ``sourceStatus``,
      ``createdDate`` is the start of the activity, and ``timestamp`` is the current time.
    * Aborting an activity that is not running returns 412 (noted).
    * An activity that nobody ends continues forever.
    * A state that a test sets, such as ERROR or DISABLED, stays until the test removes it. It does not affect
      requests.

Ordering IDs
    * An update whose ordering ID is not higher than its item's, or is below an executed cut-off, is REJECTED
      at the stage CONSUMING. A deletion that is too old is SKIPPED there. A deletion with an equal ordering
      ID takes effect.
    * A cut-off applies to later pushes once its deletion is executed, not while it is queued.
    * A deleted item is forgotten: a push with a lower ordering ID than its deletion restores it.
    * A negative ordering ID returns 412.

Items and batches
    * A documentId that is not a URI: 412 for a single item (noted), REJECTED at CONSUMING in a batch.
    * A documentId in the body that differs from that in the query: 412 (noted).
    * Metadata that is null (noted), an orderingId inside an item (noted), compressionType in the body of
      a single item (noted), and a fileExtension without its dot (noted) are accepted and ignored.
    * More than one of the data keys: treated like none of them.
    * Content, inline or from a file container, that does not match its compression type up to the last byte:
      ERROR at PROCESSING. DEFLATE has no header; LZMA is an ``.lzma`` or ``.xz`` file.
    * Text or compressed data above 5 MB, and more than 5,000 permissions: REJECTED at CONSUMING.
    * Permissions that match neither the simple nor the complete model, such as ``[1]``, or an identityType
      in another case: 400 for a single item, REJECTED at CONSUMING in a batch. Unknown keys, null values and
      an identity without a type (noted) are ignored. Whether an identity exists does not matter.
    * A documentId twice in one batch (noted): the entries apply in order, additions before deletions.
    * An empty batch (noted) and one with other keys (noted) are accepted; malformed entries are REJECTED
      at CONSUMING, and a batch that is not JSON is an ERROR at CONSUMING_BATCH.
    * A fileId whose container is unknown, empty, expired or already used: 412 INVALID_PARAMETER (noted).
    * 1 MB is 1,048,576 bytes.
    * ``deleteChildren`` deletes the items whose IDs begin with the ID and a slash. One of Coveo's pages
      says so; another omits the slash.
    * ``useVirtualHostedStyleUrl`` has no effect.

Item logs
    * A new item is an ADD, an existing one an UPDATE, whatever the origin of its data.
    * An item that is indexed has an entry for CONSUMING, PROCESSING and INDEXING.
    * The cause of a failure is in ``meta`` under ``error``.
    * 100 entries per page, newest first.

Identities
    * A security identity provider exists as soon as a request names it.
    * A malformed batch (noted) is accepted and has no effect.

The platform API
    * Dates are milliseconds since the epoch, as in Coveo's descriptions and examples, not the ISO strings of
      the schemas.
    * ``crawlerInstanceType`` is the source type. A source of the Crawling Module has
      ``onPremisesEnabled`` and a ``crawlingModuleId``; one of Coveo for Sitecore has the ``sourceType``
      SITECORE.
    * ``filterHostType`` PUSH finds all sources except those of the Crawling Module, and CLOUD finds none.
    * A second source with the same name (noted) is allowed. A duplicate is an empty, ordinary Push
      source.
    * Anything missing is 404 NOT_FOUND; invalid parameters have the codes of the Push API.
    * The fields that every organization has according to Coveo's pages exist from the start.
    * A field whose name exists (noted), and one that contradicts Coveo's description of its options, is
      rejected with 412, and with it the whole batch; a batch with individual results creates the others.
      Options that Coveo does not describe (noted) are ignored. Fields are sorted by name only.
    * ``numberOfDocuments`` counts the items that are currently indexed.
    * Only the daily limit of items can be read; without such a limit, a large number is returned.

Limits
    * A call counts unless it is rate-limited; the window slides. Only calls to the Push API count.
    * A day begins at midnight UTC. Only additions and updates count toward its items. The batch that crosses
      the limit is accepted, the next one is not.
    * Each 429 has a ``Retry-After`` in integer seconds: until the call fits into the limit, or until the day
      ends. ``Simulator.retry_after`` can omit the header, as a gateway may do.
    * A body that is too long for the API has the code REQUEST_ENTITY_TOO_LARGE.
    * Uploads get responses like S3's: XML, and ``x-amz-request-id`` instead of ``X-Request-ID``.
"""

from airflow_provider_coveo.simulator.exchange import Exchange

try:
    from airflow_provider_coveo.simulator.server import Simulator
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"The simulator needs {missing.name}: pip install 'airflow-provider-coveo[simulator]'",
        name=missing.name,
    ) from None

__all__ = ["Exchange", "Simulator"]
