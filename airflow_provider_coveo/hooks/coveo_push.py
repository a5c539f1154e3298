"""The hook through which every request to Coveo goes."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import requests
import tenacity
from airflow.providers.http.hooks.http import HttpHook
from requests.auth import AuthBase

from airflow_provider_coveo.airflow_errors import non_retryable_errors
from airflow_provider_coveo.coveo.batches import (
    ADD,
    DEFAULT_BATCH_BYTES,
    DELETE,
    Body,
    Checkpoint,
    deletions,
    item_batches,
    validate_batch_bytes,
)
from airflow_provider_coveo.coveo.connection import ConnectionSettings, unreadable_extra
from airflow_provider_coveo.coveo.endpoints import (
    base_url,
    is_push_path,
    platform_path,
    push_path,
    regions_in_words,
    validate_source_id,
)
from airflow_provider_coveo.coveo.errors import (
    AccessDeniedError,
    AuthenticationError,
    CoveoConfigurationError,
    CoveoError,
    CoveoInputError,
    NoAnswerError,
    NotFoundError,
    ServiceError,
    UnexpectedAnswerError,
    UploadError,
    short_repr,
)
from airflow_provider_coveo.coveo.identities import (
    DELETED,
    MAPPINGS,
    MEMBERS,
    identity_batches,
    validate_provider_id,
)
from airflow_provider_coveo.coveo.items import Delete, prepared_item, validate_document_id
from airflow_provider_coveo.coveo.ordering_ids import (
    DEFAULT_QUEUE_DELAY_MINUTES,
    CoveoClock,
    now_ms,
    validate_cut_off,
    validate_queue_delay,
)
from airflow_provider_coveo.coveo.questions import DAILY_ITEMS_LIMIT, asking, limit_question
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.sources import managed_by
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.coveo.throttle import CallThrottle, call_throttle
from airflow_provider_coveo.get_provider_info import CONNECTION_FORM
from airflow_provider_coveo.hooks.content_changes import PushRecords, changed_source, recording
from airflow_provider_coveo.hooks.item_logs import ItemLogRequests
from airflow_provider_coveo.hooks.lineage import tell_lineage
from airflow_provider_coveo.hooks.metrics import count_accepted, count_request
from airflow_provider_coveo.hooks.push import (
    DEFAULT_MAX_INVALID,
    DEFAULT_UPLOAD_CONCURRENCY,
    ContainerPush,
    InvalidItems,
    Quota,
    Uploaded,
    validate_concurrency,
    validate_iterable,
)
from airflow_provider_coveo.hooks.responses import (
    clock_of,
    json_object,
    request_id_of,
    response_error,
    retry_options,
    unexpected,
)
from airflow_provider_coveo.hooks.run_records import (
    counted_if_it_fails,
    record_accepted,
    record_pushed,
)
from airflow_provider_coveo.hooks.sources import SourceRequests
from airflow_provider_coveo.hooks.wire import (
    BearerAuth,
    NoAuth,
    failure_of,
    mask_in_logs,
    mount_limits,
    read_body,
    sent,
    stopped_error,
    transport_error,
    unsent_error,
    user_agent,
)
from airflow_provider_coveo.state.cursor_scope import moving_cursors
from airflow_provider_coveo.transports.exchange import Exchange, StopSignal

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

P = ParamSpec("P")
R = TypeVar("R")

#: How many file containers are tried for one upload before its refusal is taken for final.
_CONTAINERS_PER_UPLOAD = 3
#: How the path ends that has Coveo take a batch of items.
_BATCH = "/documents/batch"


class CoveoPushHook(SourceRequests, ItemLogRequests, HttpHook):
    """
    Talk to Coveo's Push API, and to the platform APIs around a Push source.

    Every request has a timeout, is repeated as ``retry`` says after 429, 5xx or no answer, never follows a
    redirect, and leaves one line in the log. An error that a retry can't mend is raised in a form that
    Airflow does not retry either (it is an ``AirflowFailException`` besides being what its class says).

    Calls of the Push API keep the distance that the connection's ``call_interval`` asks for, and while one of
    them waits after 429, no other call of the process begins.

    One hook may be shared by threads: each has its own session.

    See https://docs.coveo.com/en/68/ for the Push API and https://docs.coveo.com/en/78/ for its reference.

    :param coveo_conn_id: The :ref:`Coveo connection <howto/connection:coveo>`: organization ID, API key,
        region. Default ``coveo_default``.
    :param organization_id: The organization, where it is not the connection's.
    :param retry: How patiently requests are repeated; default: for up to 900 seconds.
    :param timeout: Seconds to wait for a connection, and for the next byte to move in either direction: a
        number or a pair. Wins over the connection's; default 10 and 60.
    :param total_timeout: Seconds that one request may take in all, up to 86400. Wins over the connection's;
        default five times the second ``timeout``, and a second for each 16 KiB of the request, but no more
        than 3600 unless that ``timeout`` asks for more.
    :param call_interval: Seconds between two Push API calls, 0 to 30. Wins over the connection's; default 0.
    :param caller: Who uses the hook, for the ``User-Agent`` header.
    :raises CoveoConfigurationError: on first use, if the connection can't be used as it stands.
    """

    conn_name_attr = "coveo_conn_id"
    default_conn_name = "coveo_default"
    conn_type = CONNECTION_FORM["connection-type"]
    hook_name = CONNECTION_FORM["hook-name"]

    def __init__(
        self,
        coveo_conn_id: str = default_conn_name,
        *,
        organization_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | tuple[float, float] | None = None,
        total_timeout: float | None = None,
        call_interval: float | None = None,
        caller: str = "CoveoPushHook",
        **kwargs: Any,
    ) -> None:
        super().__init__(http_conn_id=coveo_conn_id, **kwargs)
        self.coveo_conn_id = coveo_conn_id
        self._given_organization_id = organization_id
        self._given_timeout = timeout
        self._given_total_timeout = total_timeout
        self._given_call_interval = call_interval
        self._retry = RetryPolicy() if retry is None else retry
        self._caller = re.sub(r"[^\w.\-]", "_", caller, flags=re.ASCII)
        self._settings: ConnectionSettings | None = None
        self._sessions = threading.local()
        self._stopped = StopSignal()
        self._clocks_of_own_sources: dict[str, CoveoClock] = {}
        #: The sources of which the running task's run has recorded that Coveo accepted an item.
        self.recorded_sources: set[str] = set()
        #: The context of the task that uses the hook, where it is not the one that Airflow executes.
        self.task_context: Any = None
        #: The change of each source's content that the hook recorded last.
        self.last_changes: dict[str, str] = {}

    def __reduce__(self) -> Any:
        # Sessions and locks stay behind: a copy makes its own.
        arguments = {
            "organization_id": self._given_organization_id,
            "retry": self._retry,
            "timeout": self._given_timeout,
            "total_timeout": self._given_total_timeout,
            "call_interval": self._given_call_interval,
            "caller": self._caller,
            "method": self.method,
        }
        return _made_again, (type(self), self.coveo_conn_id, arguments)

    # --- the connection form of Airflow 2.11; Airflow 3 reads the same from the provider's metadata ---

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields beside the standard ones."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField
        from wtforms.validators import any_of, optional

        widgets = {}
        for name, described in CONNECTION_FORM["conn-fields"].items():
            schema = described["schema"]
            widgets[name] = StringField(
                lazy_gettext(described["label"]),
                widget=BS3TextFieldWidget(),
                description=described["description"],
                default=schema.get("default"),
                validators=[optional(), *([any_of(schema["enum"])] if "enum" in schema else [])],
            )
        return widgets

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the form hides, how it labels fields, and what it hints at."""
        behaviour = CONNECTION_FORM["ui-field-behaviour"]
        return {
            "hidden_fields": list(behaviour["hidden-fields"]),
            "relabeling": dict(behaviour["relabeling"]),
            "placeholders": dict(behaviour["placeholders"]),
        }

    # --- the session: what HttpHook would do otherwise than Coveo needs it ---

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings, read on first use."""
        if self._settings is None:
            # Making the session reads the connection, which is one look-up less than reading it for itself.
            self.get_conn()
        return cast("ConnectionSettings", self._settings)

    @property
    def organization_id(self) -> str:
        """The organization that the hook works on."""
        return self.settings.organization_id

    def _set_base_url(self, connection: Connection) -> None:
        self._settings = ConnectionSettings.read(
            login=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            # Airflow's own reading of the extra takes what is not JSON for nothing.
            extra=connection.extra,
            organization_id=self._given_organization_id,
            timeout=self._given_timeout,
            total_timeout=self._given_total_timeout,
            call_interval=self._given_call_interval,
        )
        mask_in_logs(self._settings.api_key)
        # Reading it has Airflow mask the secrets in it.
        connection.extra_dejson  # noqa: B018
        self.base_url = self._settings.push_url
        self._base_url_initialized = True

    def get_conn(
        self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None
    ) -> requests.Session:
        """
        Return a session with the API key, the user agent and the connection's transport settings.

        Without arguments it is this thread's own, so that a warm hook reuses its connection.
        """
        if headers or extra_options:
            return self._new_session(headers, extra_options)
        session = getattr(self._sessions, "api", None)
        if session is None:
            session = self._new_session(None, None)
            self._sessions.api = session
        return cast("requests.Session", session)

    def _new_session(
        self, headers: dict[Any, Any] | None, extra_options: dict[str, Any] | None
    ) -> requests.Session:
        try:
            # HttpHook looks at its extra options only where there are some.
            session = super().get_conn(headers, {"allow_redirects": False, **(extra_options or {})})
        except ValueError as problem:
            if isinstance(problem, CoveoError) or "extra" not in str(problem):
                raise
            # Airflow 2.11 itself refuses an extra that is no JSON object; its text repeats what there is.
            raise unreadable_extra() from None
        # An adapter that the hook was given is left in its place.
        if getattr(self, "adapter", None) is None:
            mount_limits(session)
        return session

    def _extract_auth(self, connection: Connection) -> AuthBase:
        return BearerAuth(self.settings.api_key)

    def _configure_session_from_extra(
        self, session: requests.Session, connection: Connection, extra_options: dict[str, Any]
    ) -> requests.Session:
        # HttpHook would send every extra that it does not know as a header.
        self._configure_transport(session, extra_options)
        session.headers["User-Agent"] = f"{user_agent()} caller/{self._caller}"
        session.headers["Accept"] = "application/json"
        self.merged_extra = {"timeout": self.settings.timeout, **extra_options}
        return session

    def _configure_transport(self, session: requests.Session, options: Mapping[str, Any]) -> None:
        session.proxies = dict(options.get("proxies") or options.get("proxy") or self.settings.proxies)
        session.verify = options.get("verify", self.settings.verify)
        session.stream = True
        session.cert = options.get("cert")

    def run_and_check(
        self,
        session: requests.Session,
        prepped_request: requests.PreparedRequest,
        extra_options: dict[Any, Any],
    ) -> requests.Response:
        """Send a request of ``run``, with the same care as the hook's own."""
        path = urlsplit(str(prepped_request.url)).path
        tried = f"Could not {prepped_request.method} {path}"

        def attempt(number: int) -> requests.Response:
            with self._turn(path):
                return self._send(
                    session,
                    prepped_request,
                    tried,
                    number,
                    timeout=extra_options.get("timeout") or self.settings.timeout,
                    allow_redirects=extra_options.get("allow_redirects", False),
                    check=extra_options.get("check_response", True),
                )

        with recording(self, changed_source(prepped_request.method, path)):
            return self.repeated(attempt)

    # --- one request ---

    def stop(self) -> None:
        """
        End what is under way within two seconds, and let no further request begin.

        It ends waits, and requests while they connect, send, wait and receive. A request that was sent whole
        may still get its response for one second. Operators call it from ``on_kill``; it takes no lock, so
        that a signal handler may call it.
        """
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> None:
        """
        Wait that long, or until :meth:`stop` is called.

        :param seconds: How long.
        """
        self._stopped.wait(seconds)

    @property
    def clock(self) -> CoveoClock:
        """Coveo's clock by the last answer in this thread; the worker's own before there was one."""
        return getattr(self._sessions, "clock", None) or CoveoClock.from_http_date(None)

    def branch(self) -> CoveoPushHook:
        """Return a hook that shares this one's connection, is stopped with it, and can be stopped alone."""
        branch = type(self).__new__(type(self))
        branch.__dict__.update(self.__dict__)
        branch._stopped = StopSignal(self._stopped)
        return branch

    def _request(
        self,
        tried: str,
        method: str,
        path: str,
        *,
        platform_api: bool = False,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        retry: RetryPolicy | None = None,
        answer_seconds: float | None = None,
        expected: int = 200,
    ) -> requests.Response:
        """
        Make one request of the Push API or the platform's, and return its answer or raise its error.

        :param answer_seconds: How long an answer may take at least, unless the hook was given a timeout.
        :param expected: The status that is documented as this call's success.
        """
        session = self.get_conn()
        base = self.settings.platform_url if platform_api else self.settings.push_url
        url = base + path
        if query:
            # requests would write a space as '+', which a URI's query does not know.
            url += "?" + urlencode(query, quote_via=quote, safe="")
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            prepared = session.prepare_request(requests.Request(method, url, data=body, headers=headers))
        except (requests.RequestException, UnicodeError) as problem:
            raise transport_error(tried, problem) from None
        timeout = self.settings.timeout
        if answer_seconds is not None and self._given_timeout is None:
            timeout = (timeout[0], max(timeout[1], answer_seconds))

        may_be_done = 0

        def attempt(number: int) -> requests.Response:
            nonlocal may_be_done
            try:
                with self._turn(path):
                    return self._send(session, prepared, tried, number, timeout=timeout, expected=expected)
            except (ServiceError, NoAnswerError) as error:
                may_be_done += error.may_be_done
                raise

        # A push records by itself what it sends.
        changed = None if path.endswith(_BATCH) else changed_source(method, path)
        with recording(self, changed):
            answer = self.repeated(attempt, retry)
        self._sessions.sent_again = may_be_done
        return answer

    def _sent_again(self, what: str) -> int:
        """
        Return how many times this thread's last request was sent although Coveo may have carried it out.

        :param what: What was requested, in words.
        """
        times = int(getattr(self._sessions, "sent_again", 0))
        if times:
            self.log.warning(
                "%s was sent again, though Coveo may have taken it: it may show %d times in the item logs.",
                what,
                times + 1,
            )
        return times

    @property
    def _throttle(self) -> CallThrottle:
        settings = self.settings
        return call_throttle(settings.push_url, settings.organization_id, settings.call_interval)

    def _turn(self, path: str) -> AbstractContextManager[None]:
        if not is_push_path(path):
            return nullcontext()
        return self._throttle.turn(self._wait_for_turn, self._stopped.is_set)

    def _wait_for_turn(self, seconds: float) -> None:
        self.log.info("The next call to Coveo is to wait for its turn: %.1f s.", seconds)
        self._stopped.wait(seconds)

    def repeated(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        """
        Make attempts, each given its number, until one succeeds or patience is at its end.

        :param attempt: What is done; it is given the number of the attempt, from 1.
        :param retry: How patient to be; the hook's own patience by default.
        """
        policy = self._retry if retry is None else retry
        attempts = itertools.count(1)
        retrying = tenacity.Retrying(
            stop=tenacity.stop_before_delay(policy.total_seconds)
            | tenacity.stop_when_event_set(cast("threading.Event", self._stopped)),
            sleep=tenacity.sleep_using_event(cast("threading.Event", self._stopped)),
            **retry_options(policy, self.log, self._throttle.refused),
        )
        return retrying(lambda: attempt(next(attempts)))

    def _send(
        self,
        session: requests.Session,
        prepared: requests.PreparedRequest,
        tried: str,
        attempt: int,
        *,
        timeout: Any,
        allow_redirects: bool = False,
        check: bool = True,
        default_class: type[CoveoError] | None = None,
        expected: int | None = None,
    ) -> requests.Response:
        if self._stopped.is_set():
            unsent = stopped_error(tried, "nothing was sent")
            unsent.may_be_done = False
            raise unsent
        where = urlsplit(str(prepared.url))
        started = time.monotonic()
        answer: requests.Response | None = None
        failure: CoveoError | None = None
        size = int(prepared.headers.get("Content-Length") or 0)
        exchange = Exchange(total=self.settings.total_seconds(size, timeout), stop=self._stopped)
        try:
            with exchange:
                answer = sent(session, prepared, timeout=timeout, allow_redirects=allow_redirects)
                read_body(answer)
        except Exception as problem:
            # The text of these exceptions can hold a signed URL, so they are not chained to ours.
            failure = failure_of(exchange, tried, problem)
        if failure is None and answer is not None and answer.ok and not exchange.is_sent:
            failure = unsent_error(tried, answer.status_code)
        refused = None
        if failure is None and answer is not None:
            refused = response_error(answer, tried, default_class, expected)
            # Whether it holds what it should, only who reads it can tell.
            answer.give_up_connection = exchange.end  # type: ignore[attr-defined]
        if failure is not None or refused is not None:
            exchange.end()
        else:
            exchange.end_if_uncertain()
        milliseconds = (time.monotonic() - started) * 1000
        outcome = type(failure).__name__ if failure is not None or answer is None else answer.status_code
        self.log.info(
            "%s %s -> %s in %.0f ms (attempt %d)",
            prepared.method,
            where.path,
            outcome,
            milliseconds,
            attempt,
        )
        count_request(outcome)
        if failure is not None:
            raise failure
        assert answer is not None
        self._sessions.clock = clock_of(answer)
        if refused is not None and check:
            raise refused
        return answer

    def upload(self, data: bytes | Body, tried: str) -> Uploaded:
        """
        Put ``data`` into a new file container. See https://docs.coveo.com/en/43/.

        :param data: What the container is to hold.
        :param tried: What is tried, for the error.
        """
        for container in range(1, _CONTAINERS_PER_UPLOAD + 1):
            made_at = time.monotonic()
            answer = self._request(tried, "POST", push_path(self.organization_id, "files"), expected=201)
            described = json_object(answer, tried, "fileId", "uploadUri", "requiredHeaders")
            if not _is_container(described):
                raise unexpected(answer, tried, "not a file container with texts for what it needs")
            try:
                _check_upload_uri(answer, str(described["uploadUri"]), tried)
                self._put_into_container(described, data, tried)
            except UploadError as error:
                if container == _CONTAINERS_PER_UPLOAD:
                    raise
                self.log.warning("The file container was refused; a new one is made. %s", error)
            else:
                return Uploaded(str(described["fileId"]), made_at, clock_of(answer))
        raise AssertionError("unreachable: the last container returns or raises")

    def take_batch(self, path: str, file_id: str, tried: str, retry: RetryPolicy) -> requests.Response:
        """
        Have Coveo take the batch that is in a file container.

        :param path: The path of the request.
        :param file_id: The container's ``fileId``.
        :param tried: What is tried, for the error.
        :param retry: How patient to be.
        """
        return self._request(tried, "PUT", path, query={"fileId": file_id}, retry=retry, expected=202)

    def _put_into_container(self, described: Mapping[str, Any], data: bytes | Body, tried: str) -> None:
        session = getattr(self._sessions, "upload", None)
        if session is None:
            session = requests.Session()
            session.auth = NoAuth()
            self._configure_transport(session, {})
            mount_limits(session)
            self._sessions.upload = session
        try:
            prepared = session.prepare_request(
                requests.Request(
                    "PUT", described["uploadUri"], data=data, headers=described["requiredHeaders"]
                )
            )
        except (requests.RequestException, UnicodeError) as problem:
            # Its text can hold the presigned URL.
            raise transport_error(tried, problem) from None
        timeout = self.settings.timeout
        answer = self.repeated(
            lambda attempt: self._send(
                session,
                prepared,
                tried,
                attempt,
                timeout=timeout,
                default_class=UploadError,
                expected=200,
            )
        )
        if answer.content.strip():
            raise UnexpectedAnswerError(
                tried,
                status_code=answer.status_code,
                cause="a file container answers with nothing, so something answered in its place",
                remedy="Check the proxies of the connection and of the environment",
            )

    # --- the status ---

    @non_retryable_errors
    def set_source_status(self, source_id: str, status: SourceStatus | str) -> dict[str, Any]:
        """
        Tell Coveo that a content update begins or ends, by one request.

        It changes what the console shows and what its activity log records; it deletes nothing and does not
        wait for the indexing pipeline. To repeat it does no harm, but that Coveo may record the activity
        twice. See https://docs.coveo.com/en/35/.

        :param source_id: The Push source.
        :param status: ``REBUILD``, ``REFRESH``, ``INCREMENTAL`` or ``IDLE``, in any case.
        :return: ``source_id``, ``status``, ``request_id``, and ``ordering_id``: the moment by Coveo's clock
            in epoch milliseconds, which is the cut-off to delete older items by once all content is pushed.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        source_id = validate_source_id(source_id)
        status = SourceStatus.parse(status)
        answer = self._request(
            f"Could not set the status of source {source_id!r} to {status}",
            "POST",
            push_path(self.organization_id, "sources", source_id, "status"),
            query={"statusType": status.value},
            expected=201,
        )
        self.log.info("Source %s is %s.", source_id, status)
        return {
            "source_id": source_id,
            "status": status.value,
            "ordering_id": clock_of(answer).now_ms(),
            "request_id": request_id_of(answer),
        }

    # --- items ---

    @non_retryable_errors
    def delete_old_items(
        self,
        source_id: str,
        ordering_id: int | str | None = None,
        *,
        queue_delay: int | str = DEFAULT_QUEUE_DELAY_MINUTES,
    ) -> dict[str, Any]:
        """
        Delete the items that were last pushed before a moment; with the present moment, reset the source.

        Refused before anything is deleted: a cut-off that is in the future, in another unit or no positive
        whole number, and a source that Coveo for Sitecore or the Crawling Module manages. See
        https://docs.coveo.com/en/131/.

        :param source_id: The Push source.
        :param ordering_id: Items whose last orderingId is strictly lower are deleted: epoch milliseconds.
            Default: the present by Coveo's clock.
        :param queue_delay: Minutes, 0 or more, that Coveo waits before it deletes, so that pushes made
            before are through. Default 15.
        :return: ``source_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
        :raises CoveoInputError: if an argument can't be right, or the source is managed by a product.
        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        source_id = validate_source_id(source_id)
        minutes = validate_queue_delay(queue_delay)
        if ordering_id is not None:
            validate_cut_off(ordering_id, now_ms())
        clock = self._clock_of_own_source(source_id)
        cut_off = (
            clock.now_ms()
            if ordering_id is None
            else validate_cut_off(ordering_id, clock.latest_cut_off_ms())
        )
        answer = self._request(
            f"Could not delete the items of source {source_id!r} that are older than {cut_off}",
            "DELETE",
            push_path(self.organization_id, "sources", source_id, "documents", "olderthan"),
            query={"orderingId": cut_off, "queueDelay": minutes},
            expected=202,
        )
        self.log.info(
            "Items of source %s older than orderingId %d will be deleted in %d min.",
            source_id,
            cut_off,
            minutes,
        )
        return {
            "source_id": source_id,
            "ordering_id": cut_off,
            "queue_delay": minutes,
            "request_id": request_id_of(answer),
        }

    @non_retryable_errors
    def current_cut_off(self, source_id: str) -> int:
        """
        Return the cut-off that :meth:`delete_old_items` would take for now, without deleting anything.

        :param source_id: The Push source.
        :raises CoveoInputError: if the source is managed by a product, so that it has no such cut-off.
        """
        return self._clock_of_own_source(validate_source_id(source_id)).now_ms()

    @non_retryable_errors
    def add_or_update_item(
        self, source_id: str, item: Mapping[str, Any], *, ordering_id: int | str | None = None
    ) -> dict[str, Any]:
        """
        Add one item, or replace it whole. For more than a handful of items, batches are what Coveo asks for.

        Text above 5 MB goes by a file container, and so does what would make a request of more than 6 MB. See
        https://docs.coveo.com/en/133/.

        :param source_id: The Push source.
        :param item: ``documentId``, one of ``data``, ``compressedBinaryData`` (Base64) and
            ``compressedBinaryDataFileId``, and metadata.
        :param ordering_id: Leave it out, as Coveo advises: the item is then stamped when it arrives.
        :return: ``source_id``, ``document_id``, ``request_id`` and ``repeated_items``: how many times it was
            sent although Coveo may have taken it before. Coveo has accepted the item, which does not mean
            that it is indexed.
        :raises CoveoInputError: before anything is sent, if the item or another argument can't be right.
        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        source_id = validate_source_id(source_id)
        prepared = prepared_item(item)
        tried = f"Could not push the item {prepared.document_id!r} to source {source_id!r}"
        query: dict[str, Any] = {"documentId": prepared.document_id, **_ordering(ordering_id)}
        if prepared.compression_type is not None:
            query["compressionType"] = prepared.compression_type
        if prepared.is_too_large_for_its_request:
            large = prepared.large_content()
            # What is too large even without its content is refused before anything is sent.
            prepared.body_for_container("")
            body = prepared.body_for_container(self.upload(large.data, tried).file_id)
            if large.compression_type is not None:
                query["compressionType"] = large.compression_type
        else:
            body = prepared.body()
        answer = self._request(
            tried,
            "PUT",
            push_path(self.organization_id, "sources", source_id, "documents"),
            query=query,
            body=body,
            expected=202,
        )
        repeated = self._sent_again(f"The item {prepared.document_id!r}")
        count_accepted(source_id, {ADD: 1}, len(body))
        record_accepted(self, source_id)
        return {
            "source_id": source_id,
            "document_id": prepared.document_id,
            "request_id": request_id_of(answer),
            "repeated_items": repeated,
        }

    @non_retryable_errors
    @moving_cursors
    def push_items(
        self,
        source_id: str,
        items: Iterable[Any],
        *,
        delete: Iterable[str | Delete] = (),
        batch_bytes: int | str = DEFAULT_BATCH_BYTES,
        upload_concurrency: int | str = DEFAULT_UPLOAD_CONCURRENCY,
        on_invalid: Literal["fail", "skip"] = "fail",
        max_invalid: int | str = DEFAULT_MAX_INVALID,
        progress: Callable[[dict[str, Any]], None] | None = None,
        checkpoint: Checkpoint | None = None,
        check_quota: bool = False,
    ) -> dict[str, Any]:
        """
        Push any number of items in batches: fast, in constant memory, and with an exact account.

        The input is read once, as fast as it is pushed; what is held of it are the batches in flight. Each
        item is checked and encoded once. Batches are uploaded in parallel, and Coveo is asked to take them in
        input order, each after its own upload succeeded. So the index ends as if the items had been pushed
        one by one: of two with one ID the later counts, also where one of them is a deletion. Where the push
        fails, what was accepted is the beginning of the input, and the error says how much of it that is.

        Text above 5 MB goes by a file container of its own. No orderingId is sent, as Coveo advises. See
        https://docs.coveo.com/en/90/.

        :param source_id: The Push source.
        :param items: What to push: dicts in Coveo's words, :class:`~airflow_provider_coveo.coveo.items.Item`,
            bytes that hold one JSON object each (they are checked, and sent as they are; only permissions in
            other letters than Coveo's are written anew), and
            :class:`~airflow_provider_coveo.coveo.items.Delete` for deletions.
        :param delete: What to delete after that: IDs, or ``Delete``.
        :param batch_bytes: How large a batch is at most: 1 KiB to 256 MB. An item that is larger by itself
            goes alone. Default 12 MiB.
        :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. One more may
            wait to be taken. Default 3.
        :param on_invalid: What to do with an item that Coveo would refuse. ``fail`` (the default) ends the
            push and reports the first 20; ``skip`` leaves them out, counts them and lists the first 20.
        :param max_invalid: With ``skip``, above how many invalid items the push fails all the same. Default
            100.
        :param progress: Called with the result so far after each batch that was accepted.
        :param checkpoint: Where to keep which batches were accepted, so that a later call with the same
            input goes on where this one failed. It is of one push in one task, and not shared by others.
        :param check_quota: Whether to ask first how many items may still be pushed today, and to warn if
            that will not do, or when it no longer does. Default ``False``.
        :return: ``source_id``; ``accepted_adds`` and ``accepted_deletes``: how many entries of the input
            Coveo has accepted, which does not mean that they are indexed yet; ``replaced``: how many of them
            were not sent because a later one of the same batch has the same ID; ``batches`` and ``bytes``;
            ``resumed_batches``: how many of them an earlier try got accepted, so that they were not sent
            again, and ``resumed_entries``: how many entries these stand for; ``repeated_batches``: how many
            times a batch was sent although Coveo may have taken it before, because no answer told, or an
            earlier try was killed, and ``repeated_items``: how many operations those held, so that the item
            logs may show up to that many more; ``earlier_items``: how many operations another try of the
            task, which had succeeded, sent within the last hour, so that they may still be in Coveo's
            pipeline; ``deletes_with_children``, and how many of these are among ``repeated_items``:
            ``repeated_deletes_with_children``; ``seconds``;
            ``first_request_id`` and ``last_request_id`` of what was sent; ``ordering_id``: the moment by
            Coveo's clock in epoch milliseconds before the first batch was sent, by whichever try it was;
            ``invalid`` and ``invalid_items``: how many items were left out, and the first of them with
            ``index``, ``document_id`` and ``rule``.
        :raises CoveoInputError: if an argument can't be right; nothing was sent then. Also if items are
            invalid: those in batches before them were accepted.
        :raises CoveoError: if Coveo refuses, or does not answer. ``accepted`` holds the result up to then.
        """
        source_id = validate_source_id(source_id)
        limit = validate_batch_bytes(batch_bytes)
        invalid = InvalidItems.checked(on_invalid, max_invalid, f"source {source_id!r}")
        push = ContainerPush(
            self,
            path=push_path(self.organization_id, "sources", source_id, "documents", "batch"),
            target=f"source {source_id!r}",
            noun="items",
            names={ADD: "accepted_adds", DELETE: "accepted_deletes"},
            concurrency=validate_concurrency(upload_concurrency),
            checkpoint=checkpoint,
            records=PushRecords(self, source_id, resumable=checkpoint is not None),
            progress=progress,
            count=lambda batch: count_accepted(source_id, batch.counts, batch.size),
        )
        entries = itertools.chain(validate_iterable(items, "items"), deletions(delete))
        if check_quota:
            push.quota = Quota(self.remaining_daily_items(), len(items) if isinstance(items, Sized) else None)
        with counted_if_it_fails(self, source_id, lambda: {**push.result(), **invalid.result()}):
            try:
                push.run(item_batches(entries, limit, invalid.goes_on, invalid.input_failed))
            except Exception as failure:
                told = invalid.told_with(failure, self.log)
                if told is failure:
                    raise
                raise told from failure.__cause__
            if invalid.failure is not None:
                self.log.error("The input failed behind an invalid item.", exc_info=invalid.failure)
            invalid.raise_if_too_many(push)
        push.complete()
        tell_lineage(self, self.organization_id, source_id)
        result = {
            "source_id": source_id,
            **push.result(),
            "deletes_with_children": push.account.children,
            "repeated_deletes_with_children": push.account.repeated_children,
            **invalid.result(),
        }
        if result["accepted_adds"]:
            record_accepted(self, source_id)
        record_pushed(self, source_id, result)
        self.log.info(
            "Source %s: %d items and %d deletions accepted in %d batches (%.1f MB, %.1f s), %d of which an "
            "earlier try had pushed; %d items were invalid and left out.",
            source_id,
            result["accepted_adds"],
            result["accepted_deletes"],
            result["batches"],
            result["bytes"] / 1e6,
            result["seconds"],
            result["resumed_batches"],
            result["invalid"],
        )
        if invalid.found.count:
            self.log.warning("Left out because Coveo would refuse them: %s", invalid.found.words())
        return result

    @non_retryable_errors
    def delete_item(
        self,
        source_id: str,
        document_id: str,
        *,
        delete_children: bool = False,
        ordering_id: int | str | None = None,
    ) -> dict[str, Any]:
        """
        Delete one item. See https://docs.coveo.com/en/171/.

        :param source_id: The Push source.
        :param document_id: The item's ``documentId``.
        :param delete_children: Whether to delete the items too whose IDs begin with this one's. It is a
            prefix, not the ``parentId``.
        :param ordering_id: Leave it out, as Coveo advises.
        :return: ``source_id``, ``document_id``, ``request_id`` and ``repeated_items``: how many times it was
            sent although Coveo may have taken it before. Accepted does not mean deleted yet.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        source_id = validate_source_id(source_id)
        document_id = validate_document_id(document_id)
        if not isinstance(delete_children, bool):
            raise CoveoInputError(
                f"delete_children is {short_repr(delete_children)}",
                cause="any text counts as true in Python, and true deletes every item with that prefix",
                remedy="Give True or False",
            )
        answer = self._request(
            f"Could not delete the item {document_id!r} from source {source_id!r}",
            "DELETE",
            push_path(self.organization_id, "sources", source_id, "documents"),
            query={
                "documentId": document_id,
                "deleteChildren": "true" if delete_children else "false",
                **_ordering(ordering_id),
            },
            expected=202,
        )
        repeated = self._sent_again(f"The deletion of {document_id!r}")
        count_accepted(source_id, {DELETE: 1}, 0)
        return {
            "source_id": source_id,
            "document_id": document_id,
            "request_id": request_id_of(answer),
            "repeated_items": repeated,
        }

    # --- security identities ---

    @non_retryable_errors
    def push_identities(
        self,
        provider_id: str,
        *,
        members: Iterable[Mapping[str, Any]] = (),
        mappings: Iterable[Mapping[str, Any]] = (),
        deleted: Iterable[Mapping[str, Any]] = (),
        batch_bytes: int | str = DEFAULT_BATCH_BYTES,
        upload_concurrency: int | str = DEFAULT_UPLOAD_CONCURRENCY,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """
        Push security identities in batches: first members, then mappings, then what is deleted.

        Push them before the items whose permissions name them. To push a group replaces its list of members.
        See https://docs.coveo.com/en/55/.

        :param provider_id: The security identity provider.
        :param members: Identities with what they hold: dicts with ``identity`` (``name`` and ``type``),
            ``members`` and ``wellKnowns``.
        :param mappings: Identities with their aliases in other providers: dicts with ``identity`` and
            ``mappings``. A user with aliases belongs here and not among the members.
        :param deleted: Identities to disable: dicts with ``name`` and ``type``.
        :param batch_bytes: How large a batch is at most: 1 KiB to 256 MB. Default 12 MiB.
        :param upload_concurrency: How many batches are uploaded at the same time, 1 to 32. Default 3.
        :param progress: Called with the result so far after each batch that was accepted.
        :return: ``provider_id``; ``accepted_members``, ``accepted_mappings`` and ``accepted_deleted``;
            ``batches``, ``bytes``, ``seconds``, ``first_request_id``, ``last_request_id`` and ``replaced``;
            ``repeated_batches`` and ``repeated_items`` as :meth:`push_items` says;
            ``ordering_id``: the moment before by Coveo's clock in epoch milliseconds, which is the cut-off
            to disable older identities by.
        :raises CoveoInputError: if an argument or an identity can't be right; batches before that identity
            were accepted.
        :raises CoveoError: if Coveo refuses, or does not answer. ``accepted`` holds the result up to then.
        """
        provider_id = validate_provider_id(provider_id)
        target = f"security identity provider {provider_id!r}"
        limit = validate_batch_bytes(batch_bytes)
        invalid = InvalidItems(False, 0, target)
        push = ContainerPush(
            self,
            path=push_path(self.organization_id, "providers", provider_id, "permissions", "batch"),
            target=target,
            noun="identities",
            names={MEMBERS: "accepted_members", MAPPINGS: "accepted_mappings", DELETED: "accepted_deleted"},
            concurrency=validate_concurrency(upload_concurrency),
            progress=progress,
        )
        sections = (
            validate_iterable(members, "members"),
            validate_iterable(mappings, "mappings"),
            validate_iterable(deleted, "deleted"),
        )
        push.run(identity_batches(*sections, limit, invalid.goes_on))
        invalid.raise_if_too_many(push)
        self.log.info("%s: %d identities accepted.", target, push.account.total)
        result = push.result()
        del result["resumed_batches"], result["resumed_entries"], result["earlier_items"]
        return {"provider_id": provider_id, **result}

    @non_retryable_errors
    def delete_old_identities(
        self,
        provider_id: str,
        ordering_id: int | str,
        *,
        queue_delay: int | str = DEFAULT_QUEUE_DELAY_MINUTES,
    ) -> dict[str, Any]:
        """
        Disable the identities that were last pushed before a moment. See https://docs.coveo.com/en/33/.

        :param provider_id: The security identity provider.
        :param ordering_id: Identities whose last orderingId is strictly lower are disabled: epoch
            milliseconds, such as the ``ordering_id`` that :meth:`push_identities` returns.
        :param queue_delay: Minutes, 0 or more, that Coveo waits before that, so that pushes made before are
            through. Default 15.
        :return: ``provider_id``, ``ordering_id``, ``queue_delay`` and ``request_id``.
        :raises CoveoInputError: before anything is sent, if an argument can't be right.
        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        provider_id = validate_provider_id(provider_id)
        minutes = validate_queue_delay(queue_delay)
        cut_off = validate_cut_off(ordering_id, now_ms())
        answer = self._request(
            f"Could not disable the identities of provider {provider_id!r} that are older than {cut_off}",
            "DELETE",
            push_path(self.organization_id, "providers", provider_id, "permissions", "olderthan"),
            query={"orderingId": cut_off, "queueDelay": minutes},
            expected=202,
        )
        return {
            "provider_id": provider_id,
            "ordering_id": cut_off,
            "queue_delay": minutes,
            "request_id": request_id_of(answer),
        }

    # --- limits ---

    @non_retryable_errors
    def get_limit(self, key: str = DAILY_ITEMS_LIMIT) -> dict[str, Any]:
        """
        Return a limit of the organization, and how much of it is used. See https://docs.coveo.com/en/63/.

        :param key: Which one. Default: how many items may be pushed a day.
        :return: ``limit``, ``actualCount`` and what else Coveo says of it.
        :raises AccessDeniedError: if the key may not view the organization, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        return self.conclusion(asking(limit_question(self.organization_id, key)))

    def daily_items(self) -> tuple[int, int]:
        """
        Return how many items may be pushed in a day, and how many have been today; asked for once.

        :raises CoveoError: if Coveo does not say, as it does not to a key that may not view limits.
        """
        tried = "Could not read how many items may be pushed in a day"
        path = limit_question(self.organization_id).path
        answer = self._request(tried, "GET", path, platform_api=True, retry=RetryPolicy(total_seconds=0))
        limit = json_object(answer, tried, "limit", "actualCount")
        if not all(type(limit[name]) is int for name in ("limit", "actualCount")):
            raise UnexpectedAnswerError(tried, answer="not a limit and a count")
        return limit["limit"], limit["actualCount"]

    def remaining_daily_items(self) -> int | None:
        """
        Return how many items may still be pushed today, ``None`` where that can't be told.

        It is asked for once and briefly: not to know it is no reason to fail.
        """
        try:
            limit, used = self.daily_items()
            return max(0, limit - used)
        except CoveoError as error:
            self.log.info("How many items may still be pushed today is not known. %s", error)
            return None

    def _clock_of_own_source(self, source_id: str) -> CoveoClock:
        """
        Return Coveo's clock, once it is sure that no product of Coveo's manages the source.

        :raises CoveoInputError: if one does.
        """
        if source_id in self._clocks_of_own_sources:
            return self._clocks_of_own_sources[source_id]
        tried = f"Could not read source {source_id!r}"
        try:
            answer = self._request(
                tried,
                "GET",
                platform_path(self.organization_id, "sources", source_id, "light"),
                platform_api=True,
            )
        except AccessDeniedError:
            self.log.warning(
                "The API key may not view source %s, so it was not checked whether Coveo for Sitecore or the "
                "Crawling Module manages it.",
                source_id,
            )
        else:
            _refuse_managed(source_id, json_object(answer, tried, "id"))
        self._clocks_of_own_sources[source_id] = self._sessions.clock
        return self._clocks_of_own_sources[source_id]

    # --- the connection test ---

    def test_connection(self) -> tuple[bool, str]:
        """
        Say whether the connection works, and if not, which of organization, key and region is wrong.

        Nothing is changed at Coveo: a page of one source is asked for. A key that may only push can't have
        it, and is told from a wrong one by how Coveo refuses.
        """
        try:
            settings = self.settings
        except CoveoError as error:
            return False, str(error)
        region = f" in region {settings.region.name}" if settings.region else f" at {settings.push_url}"
        where = f"organization {settings.organization_id!r}{region}"
        verdict = self._probe()
        if isinstance(verdict, int):
            return True, f"Connected to {where}; the key can view {verdict} Push sources."
        if isinstance(verdict, AccessDeniedError):
            return True, (
                f"Connected to {where}. The key may not view sources, as is usual for a key that may only "
                "push: whether it may push shows with the first request."
            )
        # The key is not tried in the other regions: it goes to the hosts of the connection only.
        hint = "" if settings.region is None else f" Check the region, too: Coveo has {regions_in_words()}."
        if isinstance(verdict, NotFoundError):
            return False, f"There is no {where}. {verdict}{hint}"
        if isinstance(verdict, AuthenticationError):
            return False, f"The API key is not valid for {where}. {verdict}{hint}"
        return False, str(verdict)

    def _probe(self) -> int | CoveoError:
        """Return how many Push sources the key can view, or why it can't."""
        try:
            page = self._sources_page(0, 1, host_type="PUSH", retry=RetryPolicy(total_seconds=0))
        except CoveoError as error:
            return error
        return int(page.get("totalEntries", len(page["sourceModels"])))


def _is_container(described: Mapping[str, Any]) -> bool:
    """Say whether an answer describes a file container that something can be put into."""
    headers = described["requiredHeaders"]
    if not described["fileId"] or not isinstance(headers, dict):
        return False
    texts = [described["fileId"], described["uploadUri"], *headers, *headers.values()]
    return all(
        isinstance(text, str) and text == text.strip() and text.isascii() and text.isprintable()
        for text in texts
    )


def _check_upload_uri(answer: requests.Response, uri: str, tried: str) -> None:
    """Refuse to upload where a presigned URL, which is as good as a key, would not be as safe as one."""
    try:
        base_url(uri.partition("?")[0], field="uploadUri")
    except CoveoConfigurationError:
        # Its text has the address.
        pass
    else:
        return
    answer.give_up_connection()  # type: ignore[attr-defined]
    raise CoveoConfigurationError(
        tried,
        answer="the address for the upload is no https URL",
        cause="something answered in Coveo's place",
        remedy="Check the connection's host, and the proxies of the connection and of the environment",
    )


def _made_again(
    hook_class: type[CoveoPushHook], coveo_conn_id: str, arguments: dict[str, Any]
) -> CoveoPushHook:
    return hook_class(coveo_conn_id, **arguments)


def _refuse_managed(source_id: str, source: Mapping[str, Any]) -> None:
    product = managed_by(source)
    if product is None:
        return
    raise CoveoInputError(
        f"Source {source_id!r} is managed by {product}, so its old items can't be deleted by time",
        cause="its ordering IDs are on another scale than milliseconds; a request by hand would damage it",
        remedy="Recreate the source: duplicate it, test the copy, delete the original; "
        "see https://docs.coveo.com/en/35/",
    )


def _ordering(ordering_id: int | str | None) -> dict[str, int]:
    return {} if ordering_id is None else {"orderingId": validate_cut_off(ordering_id, now_ms())}
