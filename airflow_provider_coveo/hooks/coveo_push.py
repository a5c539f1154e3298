"""The hook: provides what the client needs from Airflow, and offers the client's methods."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import requests
from airflow.exceptions import AirflowProviderDeprecationWarning
from airflow.providers.http.hooks.http import HttpHook
from requests.auth import AuthBase

from airflow_provider_coveo.airflow_errors import non_retryable_errors
from airflow_provider_coveo.coveo.batches import Body
from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.client import CoveoClient
from airflow_provider_coveo.coveo.client.fields import Fields
from airflow_provider_coveo.coveo.client.identities import Identities
from airflow_provider_coveo.coveo.client.item_logs import ItemLogs
from airflow_provider_coveo.coveo.client.limits import Limits
from airflow_provider_coveo.coveo.client.push import Push
from airflow_provider_coveo.coveo.client.sources import Sources
from airflow_provider_coveo.coveo.connection import ConnectionSettings, unreadable_extra
from airflow_provider_coveo.coveo.containers import Uploaded
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.ordering_ids import CoveoClock
from airflow_provider_coveo.coveo.responses import Response
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.stop import StopSignal
from airflow_provider_coveo.coveo.transport import Request, Timeouts
from airflow_provider_coveo.get_provider_info import CONNECTION_FORM
from airflow_provider_coveo.hooks.content_changes import changed_source, recording
from airflow_provider_coveo.hooks.dry_runs import reject_in_dry_run
from airflow_provider_coveo.hooks.form import form_behaviour, form_widgets
from airflow_provider_coveo.hooks.forwarding import forwarded
from airflow_provider_coveo.hooks.observer import HookObserver
from airflow_provider_coveo.hooks.overrides import STEPS, HookClient, Overrides
from airflow_provider_coveo.hooks.wire import mask_in_logs, user_agent
from airflow_provider_coveo.state.cursor_scope import holding_cursors, moving_cursors
from airflow_provider_coveo.state.moved_sources import reject_moved_source
from airflow_provider_coveo.transports.requests_transport import (
    BearerAuth,
    RequestsTransport,
    configure_session,
    mount_limits,
    send_prepared,
)

if TYPE_CHECKING:
    from logging import Logger

    from airflow.providers.common.compat.sdk import Connection, Context

R = TypeVar("R")


class CoveoPushHook(HttpHook):
    """
    A hook for Coveo's Push API, and for the platform APIs around a Push source.

    Every request has a timeout, never follows a redirect, and writes one line to the log. After 429, 5xx or
    no response, ``retry`` determines whether it is retried. If a retry can't fix an error, the error is also
    an ``AirflowFailException``, so Airflow does not retry the task either.

    Push API calls are at least ``call_interval`` seconds apart. While one of them waits after 429, no other
    call of the process starts.

    Threads can share a hook: each has its own session.

    See https://docs.coveo.com/en/68/ for the Push API and https://docs.coveo.com/en/78/ for its reference.

    :param coveo_conn_id: The :ref:`Coveo connection <howto/connection:coveo>`: organization ID, API key,
        region. Default ``coveo_default``.
    :param organization_id: The organization, if it differs from the connection's.
    :param retry: The retry policy for requests. Default: retry for up to 900 seconds.
    :param timeout: Seconds to wait for a connection, and for the next byte in either direction: a number or a
        pair. Overrides the connection's value; default 10 and 60.
    :param total_timeout: The maximum duration of one request in seconds, up to 86400. Overrides the
        connection's value. Default: five times the second ``timeout``, plus one second for each 16 KiB of
        the request, but no more than 3600 unless that ``timeout`` alone requires more.
    :param call_interval: Seconds between two Push API calls, 0 to 30. Overrides the connection's value;
        default 0.
    :param caller: The user of the hook, for the ``User-Agent`` header.
    :raises CoveoConfigurationError: on first use, if the connection's settings are unusable.
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
        self._stop = StopSignal()
        caller_of_requests = Caller(
            self._read_settings,
            RequestsTransport(lambda: self.get_conn()),
            retry=self._retry,
            stop=self._stop,
            observer=HookObserver(self),
            log=cast("Logger", self.log),
            is_timeout_fixed=timeout is not None,
        )
        #: The client, which sends every request.
        self.client = self._client(caller_of_requests)
        #: The sources for which it is already recorded that Coveo accepted an item from the task's run.
        self.recorded_sources: set[str] = set()
        #: The context of the task that uses the hook, if it differs from the task that Airflow executes.
        self.task_context: Context | None = None
        #: The last change that the hook recorded, by source.
        self.last_changes: dict[str, str] = {}

    # Airflow 2.11 looks for these two in the class itself, not in its base classes.

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, object]:
        """Return the form's fields besides the standard ones."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, object]:
        """Return the form's hidden fields, labels and placeholders."""
        return form_behaviour()

    def __reduce__(self) -> tuple[object, ...]:
        # Sessions and locks can't be pickled: a copy creates its own.
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

    # --- the session: overrides where HttpHook's does not suit Coveo ---

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings, read on first use."""
        if self._settings is None:
            # Creating the session reads the connection anyway; this saves a separate lookup.
            self.get_conn()
        return cast("ConnectionSettings", self._settings)

    def _read_settings(self) -> ConnectionSettings:
        settings, organization_id = self.settings, self.organization_id
        if organization_id == settings.organization_id:
            return settings
        # A subclass has its own.
        return replace(settings, organization_id=organization_id)

    @property
    def organization_id(self) -> str:
        """The ID of the organization that requests go to."""
        return self.settings.organization_id

    def _set_base_url(self, connection: Connection) -> None:
        self._settings = ConnectionSettings.read(
            login=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            # Airflow's own parser treats an extra that is not JSON as empty.
            extra=connection.extra,
            organization_id=self._given_organization_id,
            timeout=self._given_timeout,
            total_timeout=self._given_total_timeout,
            call_interval=self._given_call_interval,
        )
        mask_in_logs(self._settings.api_key)
        # Reading this property makes Airflow mask the secrets in it.
        connection.extra_dejson  # noqa: B018
        self.base_url = self._settings.push_url
        self._base_url_initialized = True

    def get_conn(
        self, headers: dict[str, str] | None = None, extra_options: dict[str, object] | None = None
    ) -> requests.Session:
        """
        Return a session with the API key, the user agent and the connection's transport settings.

        Without arguments, it returns this thread's session, so that a hook reuses its connection.
        """
        if headers or extra_options:
            return self._new_session(headers, extra_options)
        session: requests.Session | None = getattr(self._sessions, "api", None)
        if session is None:
            session = self._new_session(None, None)
            self._sessions.api = session
        return session

    def _new_session(
        self, headers: dict[str, str] | None, extra_options: dict[str, object] | None
    ) -> requests.Session:
        try:
            # HttpHook reads its extra options only if there are any.
            session = super().get_conn(headers, {"allow_redirects": False, **(extra_options or {})})
        except ValueError as problem:
            if isinstance(problem, CoveoError) or "extra" not in str(problem):
                raise
            # Airflow 2.11 itself rejects an extra that is not a JSON object; its message repeats the extra.
            raise unreadable_extra() from None
        # Keep an adapter that was passed to the hook.
        if getattr(self, "adapter", None) is None:
            mount_limits(session)
        return session

    def _extract_auth(self, connection: Connection) -> AuthBase:
        return BearerAuth(self.settings.api_key)

    def _configure_session_from_extra(
        self, session: requests.Session, connection: Connection, extra_options: Mapping[str, object]
    ) -> requests.Session:
        # HttpHook would send every unknown extra as a header.
        configure_session(session, self.settings, extra_options)
        session.headers["User-Agent"] = f"{user_agent()} caller/{self._caller}"
        session.headers["Accept"] = "application/json"
        self.merged_extra = {"timeout": self.settings.timeout, **extra_options}
        return session

    def run_and_check(
        self,
        session: requests.Session,
        prepped_request: requests.PreparedRequest,
        extra_options: dict[str, Any],
    ) -> requests.Response:
        """Send a request of ``run``, with the same checks, retries and records as the client's requests."""
        path = urlsplit(str(prepped_request.url)).path
        action = f"Could not {prepped_request.method} {path}"
        request = Request(action, str(prepped_request.method), path, expected=None)
        timeout = extra_options.get("timeout") or self.settings.timeout
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        size = int(prepped_request.headers.get("Content-Length") or 0)
        timeouts = Timeouts(connect, read, self.settings.total_seconds(size, timeout))
        allow_redirects = extra_options.get("allow_redirects", False)

        def send(stop: StopSignal) -> Response:
            return send_prepared(
                session, prepped_request, action, stop, timeouts=timeouts, allow_redirects=allow_redirects
            )

        def attempt(number: int) -> Response:
            check = extra_options.get("check_response", True)
            return self.client.caller.attempt(request, send, number, path=path, check=check)

        reject_in_dry_run(str(prepped_request.method), path)
        source_id = changed_source(prepped_request.method, path)
        reject_moved_source(self.organization_id, source_id)
        with recording(self, source_id):
            return cast("requests.Response", self.client.hook_caller.repeat(attempt).raw)

    # --- stopping, waiting and the clock ---

    def stop(self) -> None:
        """
        End requests in flight within two seconds, and prevent new ones.

        It also ends waits, and requests in any phase: connecting, sending, waiting or receiving. A request
        that was sent completely gets one more second for its response. Operators call this from ``on_kill``.
        It takes no lock, so a signal handler can call it.
        """
        self._stop.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """
        Wait for the given time, or until :meth:`stop` is called.

        :param seconds: The time in seconds.
        """
        self._stop.wait(seconds)

    @property
    def clock(self) -> CoveoClock:
        """Coveo's clock, from this thread's last response; the worker's clock before the first response."""
        return self.client.caller.clock

    # --- the client, and the steps that a subclass can override ---

    def _client(self, caller: Caller) -> HookClient:
        return HookClient(caller, Overrides(self, _OWN_STEPS, self._branch))

    def _branch(self) -> CoveoPushHook:
        branch = type(self).__new__(type(self))
        branch.__dict__.update(self.__dict__)
        branch._stop = StopSignal(self._stop)
        branch.client = branch._client(self.client.caller.stoppable(branch._stop))
        return branch

    # --- the client's methods: their signatures and docstrings are in airflow_provider_coveo.coveo.client ---

    test_connection = forwarded(CoveoClient.test_connection)
    poll = forwarded(CoveoClient.poll)

    set_source_status = forwarded(Sources.set_source_status, "sources")
    get_source = forwarded(Sources.get_source, "sources")
    list_sources = forwarded(Sources.list_sources, "sources")
    sources_named = forwarded(Sources.sources_named, "sources")
    create_source = forwarded(Sources.create_source, "sources")
    duplicate_source = forwarded(Sources.duplicate_source, "sources")
    delete_source = forwarded(Sources.delete_source, "sources")
    abort_activity = forwarded(Sources.abort_activity, "sources")

    add_or_update_item = holding_cursors(forwarded(Push.add_or_update_item, "push"))
    push_items = non_retryable_errors(moving_cursors(forwarded(Push.push_items, "push")))
    delete_item = holding_cursors(forwarded(Push.delete_item, "push"))
    delete_old_items = forwarded(Push.delete_old_items, "push")
    current_cut_off = forwarded(Push.current_cut_off, "push")

    list_fields = forwarded(Fields.list_fields, "fields")
    create_fields = forwarded(Fields.create_fields, "fields")
    push_identities = forwarded(Identities.push_identities, "identities")
    delete_old_identities = forwarded(Identities.delete_old_identities, "identities")

    count_item_logs = forwarded(ItemLogs.count_item_logs, "item_logs")
    list_item_logs = forwarded(ItemLogs.list_item_logs, "item_logs")

    get_limit = forwarded(Limits.get_limit, "limits")
    daily_items = forwarded(Limits.daily_items, "limits")
    remaining_daily_items = forwarded(Limits.remaining_daily_items, "limits")

    # --- deprecated: parts of a push, which no longer needs the hook ---

    def branch(self) -> CoveoPushHook:
        """Return a hook that shares this one's connection and can be stopped alone; deprecated."""
        _deprecated("branch", "CoveoPushHook(...)")
        return self._branch()

    def repeated(self, attempt: Callable[[int], R], retry: RetryPolicy | None = None) -> R:
        """
        Repeat attempts until one succeeds; deprecated, use ``client.caller.repeat``.

        :param attempt: The attempt; called with its number, from 1.
        :param retry: The retry policy. Default: the hook's.
        """
        _deprecated("repeated", "client.caller.repeat")
        return self.client.caller.repeat(attempt, retry)

    def upload(self, data: bytes | Body, tried: str) -> Uploaded:
        """
        Upload data into a new file container; deprecated, use ``client.containers.upload``.

        :param data: The data.
        :param tried: The action, for error messages.
        """
        _deprecated("upload", "client.containers.upload")
        return self.client.containers.upload(data, tried)

    def take_batch(self, path: str, file_id: str, tried: str, retry: RetryPolicy) -> Response:
        """
        Submit the batch in a file container; deprecated, use ``client.containers.submit``.

        :param path: The path of the request.
        :param file_id: The container's ``fileId``.
        :param tried: The action, for error messages.
        :param retry: The retry policy.
        """
        _deprecated("take_batch", "client.containers.submit")
        return self.client.containers.submit(path, file_id, tried, retry)


_OWN_STEPS: Final = {step: getattr(CoveoPushHook, step) for step in STEPS}


def _deprecated(name: str, instead: str) -> None:
    message = f"CoveoPushHook.{name} is deprecated; use {instead} instead"
    warnings.warn(message, AirflowProviderDeprecationWarning, stacklevel=3)


def _made_again(
    hook_class: type[CoveoPushHook], coveo_conn_id: str, arguments: dict[str, Any]
) -> CoveoPushHook:
    return hook_class(coveo_conn_id, **arguments)
