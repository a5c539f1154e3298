"""Methods that a subclass of the hook overrides, at the socket: the hook's other methods go through them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.only_changes import OnlyChanges
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.hooks.overrides import STEPS
from airflow_provider_coveo.simulator import Simulator
from tests.conftest import SOURCE

pytestmark = pytest.mark.filterwarnings("ignore::airflow.exceptions.AirflowProviderDeprecationWarning")

OTHER = "acme-other"
ITEM = {"documentId": "product://1", "title": "Anvil", "data": "An anvil."}
LARGE_ITEM = {"documentId": "product://2", "data": "x" * 6_000_000}
MEMBER = {"identity": {"name": "anna", "type": "USER"}, "members": [], "wellKnowns": []}

Use = Callable[[CoveoPushHook], Any]

#: All methods that send requests. Each of them must call what all of them call.
EVERY_REQUEST: dict[str, Use] = {
    "set_source_status": lambda hook: hook.set_source_status(SOURCE, "REBUILD"),
    "get_source": lambda hook: hook.get_source(SOURCE),
    "list_sources": lambda hook: hook.list_sources(),
    "sources_named": lambda hook: hook.sources_named("any"),
    "create_source": lambda hook: hook.create_source("acme-2", visibility="SHARED"),
    "duplicate_source": lambda hook: hook.duplicate_source(SOURCE, "acme-2"),
    "delete_source": lambda hook: hook.delete_source(SOURCE),
    "abort_activity": lambda hook: hook.abort_activity(SOURCE, "activity"),
    "add_or_update_item": lambda hook: hook.add_or_update_item(SOURCE, ITEM),
    "push_items": lambda hook: hook.push_items(SOURCE, [ITEM]),
    "delete_item": lambda hook: hook.delete_item(SOURCE, "product://1"),
    "delete_old_items": lambda hook: hook.delete_old_items(SOURCE),
    "current_cut_off": lambda hook: hook.current_cut_off(SOURCE),
    "list_fields": lambda hook: hook.list_fields(),
    "create_fields": lambda hook: hook.create_fields({"price": "DOUBLE"}),
    "push_identities": lambda hook: hook.push_identities("provider", members=[MEMBER]),
    "delete_old_identities": lambda hook: hook.delete_old_identities("provider", 1_600_000_000_000),
    "count_item_logs": lambda hook: hook.count_item_logs(SOURCE, "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
    "list_item_logs": lambda hook: list(
        hook.list_item_logs(SOURCE, "2026-01-01T00:00Z", "2026-01-02T00:00Z")
    ),
    "get_limit": lambda hook: hook.get_limit(),
    "daily_items": lambda hook: hook.daily_items(),
    "remaining_daily_items": lambda hook: hook.remaining_daily_items(),
    "test_connection": lambda hook: hook.test_connection(),
    "run": lambda hook: hook.run("/rest/organizations/acme/sources/pages"),
}
USES_ALL = pytest.mark.parametrize("use", EVERY_REQUEST.values(), ids=EVERY_REQUEST.keys())
#: The path of ``run`` is the caller's, and its base URL the connection's.
ALL_BUT_RUN = {name: use for name, use in EVERY_REQUEST.items() if name != "run"}
USES_ALL_BUT_RUN = pytest.mark.parametrize("use", ALL_BUT_RUN.values(), ids=ALL_BUT_RUN.keys())
#: The methods that upload data to file containers.
UPLOADS = pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda hook: hook.push_items(SOURCE, [ITEM]), id="push_items"),
        pytest.param(lambda hook: hook.add_or_update_item(SOURCE, LARGE_ITEM), id="add_or_update_item"),
        pytest.param(EVERY_REQUEST["push_identities"], id="push_identities"),
    ],
)


def paths(coveo: Simulator) -> list[str]:
    return [request.path for request in coveo.requests]


def tried(use: Use, hook: CoveoPushHook) -> None:
    """Use a hook, whether or not Coveo accepts the requests."""
    with suppress(CoveoError):
        use(hook)


def test_the_tests_cover_every_method_that_sends_requests() -> None:
    public = {name for name, value in vars(CoveoPushHook).items() if name[0] != "_" and callable(value)}
    form = {"get_connection_form_widgets", "get_ui_field_behaviour"}
    others = form | {"get_conn", "run_and_check", "stop", "wait", "poll", *STEPS}
    assert public - others <= EVERY_REQUEST.keys()
    assert set(STEPS) == {
        *("branch", "upload", "take_batch", "repeated", "stop", "is_stopped"),
        *("daily_items", "remaining_daily_items"),
    }


# --- overrides for every request ---


@USES_ALL_BUT_RUN
def test_settings(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    class Hook(CoveoPushHook):
        @property
        def settings(self) -> Any:
            settings = super().settings
            urls = {name: f"{getattr(settings, name)}/gateway" for name in ("push_url", "platform_url")}
            return replace(settings, **urls)

    tried(use, Hook(retry=RetryPolicy(total_seconds=0)))
    assert coveo.requests
    assert all(path.startswith("/gateway/") for path in paths(coveo))
    # Coveo's OpenAPI files don't declare the gateway's paths.
    coveo.reset()


@USES_ALL_BUT_RUN
def test_organization_id(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    class Hook(CoveoPushHook):
        @property
        def organization_id(self) -> str:
            return "elsewhere"

    tried(use, Hook(retry=RetryPolicy(total_seconds=0)))
    assert coveo.requests
    assert all("/organizations/elsewhere" in path for path in paths(coveo))


def test_organization_id_of_a_snapshot(
    coveo: Simulator, connect: Callable[..., None], tmp_path: Path
) -> None:
    class Hook(CoveoPushHook):
        @property
        def organization_id(self) -> str:
            return "acme"

    connect(login="other")
    result = Hook().push_items(SOURCE, [ITEM], changes=OnlyChanges(str(tmp_path), name="all"))
    assert result["snapshot"] == f"{tmp_path}/acme/{SOURCE}/all/snapshot"


@USES_ALL
def test_get_conn(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    class Hook(CoveoPushHook):
        def get_conn(self, *args: Any, **kwargs: Any) -> requests.Session:
            session = super().get_conn(*args, **kwargs)
            session.headers["X-Own"] = "yes"
            return session

    tried(use, Hook(method="GET"))
    assert coveo.requests
    of_coveo = [request for request in coveo.requests if "authorization" in request.headers]
    assert all(request.headers.get("x-own") == "yes" for request in of_coveo)


@USES_ALL
def test_repeated(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    numbers = []

    class Hook(CoveoPushHook):
        def repeated(self, attempt: Callable[[int], Any], retry: RetryPolicy | None = None) -> Any:
            def counted(number: int) -> Any:
                numbers.append(number)
                return attempt(number)

            return super().repeated(counted, retry)

    tried(use, Hook(method="GET"))
    # A batch is retried as a whole, as well as each of its requests; so is creating or deleting a source.
    assert len(numbers) >= len(coveo.requests) > 0


@USES_ALL
def test_every_retry_goes_through_repeated(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    class Hook(CoveoPushHook):
        def repeated(self, attempt: Callable[[int], Any], retry: RetryPolicy | None = None) -> Any:
            return attempt(1)

    coveo.faults.answer(503, times=9)
    tried(use, Hook(method="GET", retry=RetryPolicy(total_seconds=5, first_wait=0.01, longest_wait=0.01)))
    assert len(coveo.requests) == 1


def test_run_and_check(coveo: Simulator, connect: Callable[..., None]) -> None:
    class Hook(CoveoPushHook):
        def run_and_check(self, session: Any, prepped_request: Any, extra_options: Any) -> Any:
            prepped_request.headers["X-Own"] = "yes"
            return super().run_and_check(session, prepped_request, extra_options)

    EVERY_REQUEST["run"](Hook(method="GET"))
    assert coveo.requests[0].headers["x-own"] == "yes"


# --- overrides for a push ---


@UPLOADS
def test_upload(coveo: Simulator, connect: Callable[..., None], use: Use) -> None:
    class Hook(CoveoPushHook):
        def upload(self, data: Any, tried: str) -> Any:
            assert "Could not" in tried
            super().upload(b"a copy", tried)
            # According to its deprecation warning.
            return self.client.containers.upload(data, tried)

    use(Hook())
    copies = [request for request in coveo.requests if request.body == b"a copy"]
    assert len(copies) == 1
    assert sum(path.endswith("/files") for path in paths(coveo)) == 2


@pytest.mark.parametrize("is_of_requests", [False, True])
def test_take_batch(coveo: Simulator, connect: Callable[..., None], is_of_requests: bool) -> None:
    class Hook(CoveoPushHook):
        def take_batch(self, path: str, file_id: str, tried: str, retry: RetryPolicy) -> Any:
            response = super().take_batch(path.replace(SOURCE, OTHER), file_id, tried, retry)
            return response.raw if is_of_requests else response

    coveo.add_source(OTHER)
    result = Hook().push_items(SOURCE, [ITEM])
    assert coveo.items(SOURCE) == {}
    assert set(coveo.items(OTHER)) == {"product://1"}
    assert result["last_request_id"] == coveo.requests[-1].response_headers["x-request-id"]


@pytest.mark.parametrize("name", ["push_items", "push_identities"])
def test_branch(coveo: Simulator, connect: Callable[..., None], name: str) -> None:
    class Hook(CoveoPushHook):
        def branch(self) -> CoveoPushHook:
            super().branch().stop()
            return CoveoPushHook(caller="branch")

    EVERY_REQUEST[name](Hook())
    agents = [
        request.headers["user-agent"].rpartition("/")[2]
        for request in coveo.requests
        if request.path.endswith("/batch")
    ]
    assert set(agents) == {"branch"}


def test_upload_and_take_batch_of_a_branch(coveo: Simulator, connect: Callable[..., None]) -> None:
    class Hook(CoveoPushHook):
        target = "/nowhere/"

        def branch(self) -> CoveoPushHook:
            branch: Any = super().branch()
            branch.target = f"/{OTHER}/"
            return branch  # type: ignore[no-any-return]

        def take_batch(self, path: str, file_id: str, tried: str, retry: RetryPolicy) -> Any:
            return super().take_batch(path.replace(f"/{SOURCE}/", self.target), file_id, tried, retry)

    coveo.add_source(OTHER)
    Hook().push_items(SOURCE, [ITEM])
    assert set(coveo.items(OTHER)) == {"product://1"}


def test_is_stopped(coveo: Simulator, connect: Callable[..., None]) -> None:
    class Hook(CoveoPushHook):
        @property
        def is_stopped(self) -> bool:
            return super().is_stopped or any(path.endswith("/batch") for path in paths(coveo))

    items = ({"documentId": f"product://{number}", "data": "x" * 600} for number in itertools.count())
    with pytest.raises(CoveoError, match="nothing more was sent"):
        Hook().push_items(SOURCE, items, batch_bytes=1024, upload_concurrency=1)
    assert coveo.items(SOURCE)


def test_stop(coveo: Simulator, connect: Callable[..., None]) -> None:
    class Hook(CoveoPushHook):
        def stop(self) -> None:
            super().stop()
            CoveoPushHook().set_source_status(SOURCE, "IDLE")

    Hook().push_items(SOURCE, [ITEM])
    assert coveo.statuses(SOURCE)
    assert set(coveo.items(SOURCE)) == {"product://1"}


# --- the remaining daily quota ---


@pytest.mark.parametrize("name", ["daily_items", "remaining_daily_items"])
def test_the_quota(
    coveo: Simulator, connect: Callable[..., None], logged: Callable[[], str], name: str
) -> None:
    class DailyItems(CoveoPushHook):
        def daily_items(self) -> tuple[int, int]:
            return 10, 9

    class RemainingDailyItems(CoveoPushHook):
        def remaining_daily_items(self) -> int:
            return 1

    hook = DailyItems() if name == "daily_items" else RemainingDailyItems()
    items = [{"documentId": f"product://{number}", "data": "x"} for number in range(2)]
    assert hook.remaining_daily_items() == 1
    assert hook.push_items(SOURCE, items, dry_run=True)["remaining_daily_items"] == 1
    hook.push_items(SOURCE, items, check_quota=True)
    assert "The daily quota is too small: 1 item" in logged()
    assert not any("/limits" in path for path in paths(coveo))


@pytest.mark.parametrize("name", ["daily_items", "remaining_daily_items"])
def test_the_quota_by_super(coveo: Simulator, connect: Callable[..., None], name: str) -> None:
    class DailyItems(CoveoPushHook):
        def daily_items(self) -> tuple[int, int]:
            limit, used = super().daily_items()
            return limit, used + 1

    class RemainingDailyItems(CoveoPushHook):
        def remaining_daily_items(self) -> int:
            return (super().remaining_daily_items() or 0) - 1

    limit, used = CoveoPushHook().daily_items()
    hook = DailyItems() if name == "daily_items" else RemainingDailyItems()
    assert hook.push_items(SOURCE, [ITEM], dry_run=True)["remaining_daily_items"] == limit - used - 1
    assert sum("/limits" in path for path in paths(coveo)) == 2


# --- other ways to replace a method ---


def test_a_method_set_on_a_hook_and_one_patched_in_its_class(
    coveo: Simulator, hook: CoveoPushHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = []

    def upload(self: CoveoPushHook, data: Any, tried: str) -> Any:
        uploaded.append(tried)
        return self.client.containers.upload(data, tried)

    hook.upload = lambda data, tried: upload(hook, data, tried)  # type: ignore[method-assign]
    hook.push_items(SOURCE, [ITEM])
    assert len(uploaded) == 1
    monkeypatch.setattr(CoveoPushHook, "upload", upload)
    CoveoPushHook().push_items(SOURCE, [ITEM])
    assert len(uploaded) == 2


def test_a_hook_without_overrides_uses_nothing_that_is_deprecated(
    coveo: Simulator, hook: CoveoPushHook
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hook.push_items(SOURCE, [ITEM], check_quota=True)
        hook.add_or_update_item(SOURCE, LARGE_ITEM)
        hook.push_identities("provider", members=[MEMBER])
