"""
A Coveo to run against: the Push API and what surrounds it, over a real loopback socket, in memory.

For people and scripts::

    python -m airflow_provider_coveo.simulator --port 8642

prints an ``export AIRFLOW_CONN_COVEO_DEFAULT=...`` line, and the address of a page that shows each source
with its status, its timeline, its items and its logs. For tests::

    with Simulator(organization="acme", sources=("acme-products",)) as coveo:
        coveo.faults.answer(503, times=2, operation="status", status_type="IDLE")
        ...
        coveo.clock.advance(minutes=15)
        assert coveo.statuses("acme-products") == ["REBUILD", "IDLE"]

See :class:`~airflow_provider_coveo.simulator.server.Simulator`,
:class:`~airflow_provider_coveo.simulator.faults.Faults` and
:class:`~airflow_provider_coveo.simulator.clock.Clock`.

**The control API**

For tests whose client runs in another process. No key is needed; bodies and answers are JSON. What can't
be done answers 400, and an unknown source 404, with a ``message``.

``GET /_simulator/state``
    What the page shows.
``GET /_simulator/requests?since=0&operation=batch``
    The recorded requests from that one on, of that operation; both are optional.
``GET /_simulator/timeline?source=ID``, and the same with ``items`` and ``logs``
    As the methods of those names.
``POST /_simulator/faults``
    ``{"kind": "answer", "status": 503, "times": 2, "operation": "status"}``: ``kind`` is a method of
    ``Faults`` and the rest its arguments.
``DELETE /_simulator/faults``
    Takes back all faults.
``POST /_simulator/clock``
    ``{"advance_seconds": 900}``, ``{"shift_seconds": -90}`` or both.
``POST /_simulator/reset``
    Makes everything as it was at the start.
``POST /_simulator/reject-item``
    ``{"document_id": "https://acme.com/1", "task": "PROCESSING", "result": "REJECTED", "reason": "..."}``
``POST /_simulator/organization``
    ``{"paused": true}`` or ``{"paused": false}``.
``POST /_simulator/limits``
    ``{"call_limit": [150, 300], "retry_after": false, "daily_documents": null, "document_limit": null}``, or
    some of these: as the attributes of those names.
``POST /_simulator/source-state``
    ``{"source": ..., "state": "PAUSED_ON_ERROR", "error_code": ...}``: as ``Simulator.set_source_state``;
    without a state it is taken back.
``POST /_simulator/sources``, ``DELETE /_simulator/sources?source=ID``
    Adds ``{"id": ..., "name": ..., "visibility": "SECURED", "crawler": "SITECORE"}``, of which only the
    ID is required, or removes a source.

**Where Coveo is silent**

The simulator does what Coveo documents. Where nothing is documented and something has to happen, it does
the tamest thing. The real Coveo may differ in any of these. Where it says (noted), each client that
relies on it is noted in ``Simulator.undocumented``.

Left out, with a 404 that says so:
    the Stream API, the update and deletion of fields, schedules, mappings, raw configurations, the update
    of a source, privileges, security caches, the older ``GET`` of the item logs and their ``facets``, the
    resumption of an organization (use the control API).

Statuses
    * The status that runs already: its activity goes on. Another active status: the activity that runs
      ends as completed, and one begins.
    * REFRESH and INCREMENTAL are FULL_REFRESH and INCREMENTAL_REFRESH to the platform API.
      ``pushRefresh`` takes those three operations and IDLE.
    * A source with an activity is REFRESHING, one without is PUSH_READY. In ``sourceStatus``, ``createdDate``
      is when the activity began and ``timestamp`` is now.
    * The abort of an activity that does not run is refused with 412 (noted).
    * An activity that is never ended goes on for ever.
    * A state that was set from outside, such as ERROR or DISABLED, stays until it is taken back from there,
      and no request minds it.

Ordering IDs
    * An update that is not higher than its item, and whatever is below a cut-off that was executed, is
      REJECTED at the stage CONSUMING. A deletion that is too old is SKIPPED there. A deletion with an
      equal ordering ID takes effect.
    * A cut-off counts for later pushes from the moment its deletion is executed, not while that is
      queued.
    * A deleted item is forgotten: a push with a lower ordering ID than its deletion brings it back.
    * A negative ordering ID is refused with 412.

Items and batches
    * A documentId that is no URI: 412 for a single item (noted), REJECTED at CONSUMING in a batch.
    * A documentId in the body that differs from that in the query: 412 (noted).
    * Metadata that is null (noted), an orderingId inside an item (noted), compressionType in the body of
      a single item (noted), and a fileExtension without its dot (noted) are accepted, and mean nothing.
    * More than one of the data keys: as none of them.
    * Content, inline or from a file container, that is not what its compression type says to its last byte:
      ERROR at PROCESSING. DEFLATE has no header; LZMA is a file of ``.lzma`` or ``.xz``.
    * Text or compressed data above 5 MB, and more than 5,000 permissions: REJECTED at CONSUMING.
    * Permissions that are not of the simple or the complete model, such as ``[1]``, or an identityType in
      other letters: 400 for a single item, REJECTED at CONSUMING in a batch. Further keys in them, what is
      null, and an identity without a type (noted) mean nothing. Whether an identity exists does not matter.
    * A documentId twice in one batch (noted): the entries are taken in order, additions before deletions.
    * An empty batch (noted) and one with other keys (noted) are accepted; malformed entries are REJECTED
      at CONSUMING, and a batch that is no JSON is an ERROR at CONSUMING_BATCH.
    * A fileId whose container is unknown, empty, expired or used up: 412 INVALID_PARAMETER (noted).
    * 1 MB is 1,048,576 bytes.
    * ``deleteChildren`` deletes what begins with the ID and a slash. So one of Coveo's pages says; another
      leaves the slash out.
    * ``useVirtualHostedStyleUrl`` changes nothing.

Item logs
    * An item that was not there is an ADD, one that was is an UPDATE, whatever brought its data.
    * An item that is indexed has an entry for CONSUMING, PROCESSING and INDEXING.
    * The cause of a failure is in ``meta`` under ``error``.
    * 100 entries a page, newest first.

Identities
    * A security identity provider is there as soon as it is named.
    * A malformed batch (noted) is accepted and does nothing.

The platform API
    * Dates are milliseconds since the epoch, as descriptions and examples have it, and not the ISO
      strings of the schemas.
    * ``crawlerInstanceType`` is the source type. A source of the Crawling Module has
      ``onPremisesEnabled`` and a ``crawlingModuleId``; one of Coveo for Sitecore has the ``sourceType``
      SITECORE.
    * ``filterHostType`` PUSH finds all sources but those of the Crawling Module, and CLOUD none.
    * A second source with the same name (noted) is allowed. A duplicate is an empty, ordinary Push
      source.
    * Something that is not there is 404 NOT_FOUND; wrong parameters have the codes of the Push API.
    * The fields that Coveo's pages name as every organization's are there from the start.
    * A field whose name exists (noted), and one that contradicts Coveo's description of its options, is
      rejected with 412, and with it the whole batch; a batch with individual results creates the others.
      Options that Coveo does not describe (noted) mean nothing. Fields are listed by name only.
    * ``numberOfDocuments`` counts the items that are indexed at that moment.
    * Only the daily limit of items can be read; without such a limit a large number is shown.

Limits
    * A call counts unless it is refused for the limit; the window slides. Only calls to the Push API
      count.
    * A day begins at midnight UTC. Of its items only additions and updates count. The batch that crosses the
      limit is taken, the one after it is not.
    * Each answer 429 bears ``Retry-After`` with whole seconds: until there is room for the call, or until the
      day ends. ``Simulator.retry_after`` leaves the header out, as a gateway may.
    * A body that is too long for the API has the code REQUEST_ENTITY_TOO_LARGE.
    * Uploads are answered as S3 answers: XML, and ``x-amz-request-id`` instead of ``X-Request-ID``.
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
