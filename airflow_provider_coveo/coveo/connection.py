"""The settings of an Airflow connection of type ``coveo``, read from its plain fields and validated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_provider_coveo.coveo.endpoints import (
    Region,
    base_url,
    console_url,
    is_on_this_machine,
    region_named,
    region_of,
    validate_organization_id,
)
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int

#: Seconds to wait for a connection, and for the next byte in either direction.
DEFAULT_TIMEOUT: Final = (10.0, 60.0)

#: A request can take this many times the allowed silence, plus a second for this many bytes that it sends.
_SILENCES: Final = 5
_BYTES_PER_SECOND: Final = 16 * 1024
#: A file container expires after an hour (https://docs.coveo.com/en/43/), so a longer upload is useless.
_MAX_BY_SIZE: Final = 3600.0
_DAY: Final = 86_400

#: The longest interval between two calls, in seconds: a callback has less than a minute in total.
_MAX_CALL_INTERVAL: Final = 30.0

_EXTRAS: Final = frozenset(
    {
        "region",
        "platform_host",
        "timeout",
        "total_timeout",
        "proxies",
        "verify",
        "call_interval",
        "snapshot_path",
    }
)


@dataclass(frozen=True)
class ConnectionSettings:
    """
    The settings that every request needs.

    :param organization_id: The Coveo organization.
    :param api_key: The secret; left out of ``repr``.
    :param region: The region, ``None`` if the connection sets a host that is not Coveo's.
    :param push_url: The base URL of the Push API.
    :param platform_url: The base URL of the platform's REST API.
    :param console_url: The base URL of the Administration Console, ``None`` if it is unknown.
    :param timeout: Seconds to wait for a connection, and for the next byte in either direction.
    :param total_timeout: Seconds that one request can take in total, ``None`` to derive them from its size.
    :param proxies: Proxies by scheme; empty to use those of the environment.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param call_interval: Seconds between two Push API calls of one process, and before its first one.
    :param snapshot_path: The folder for the snapshots of pushes that push only what changed.
    """

    organization_id: str
    api_key: str = field(repr=False)
    region: Region | None
    push_url: str
    platform_url: str
    console_url: str | None = None
    timeout: tuple[float, float] = DEFAULT_TIMEOUT
    total_timeout: float | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    call_interval: float = 0.0
    snapshot_path: str | None = None

    @classmethod
    def read(
        cls,
        *,
        login: str | None,
        password: str | None,
        host: str | None = None,
        port: int | None = None,
        schema: str | None = None,
        extra: str | Mapping[str, object] | None = None,
        organization_id: str | None = None,
        timeout: object = None,
        total_timeout: object = None,
        call_interval: object = None,
    ) -> ConnectionSettings:
        """
        Read the fields of a connection. Blank fields, which forms save, count as missing.

        :param extra: The extra as it is stored, or its parsed JSON.
        :param organization_id: Overrides ``login``.
        :param timeout: Overrides the extra of that name.
        :param total_timeout: Overrides the extra of that name.
        :param call_interval: Overrides the extra of that name.
        :raises CoveoConfigurationError: if a field is missing or invalid.
        """
        given = _given_extras(_parsed(extra))
        _check_scheme(schema, is_needed=not _is_blank(host))
        region: Region | None = region_named(_text(given, "region"))
        # The key is never sent to any other host than the configured one.
        push_url = platform_url = ""
        if host is not None and not _is_blank(host):
            scheme = None if schema is None or _is_blank(schema) else schema.strip().lower()
            own_port = None if _is_blank(port) else port
            push_url = platform_url = base_url(host, port=own_port, scheme=scheme)
            region = _own_region(push_url, _text(given, "region"))
        elif not _is_blank(port) and parse_int(port) not in {0, 443}:
            raise _port_without_host(port)
        if region is not None:
            push_url, platform_url = region.push_url, region.platform_url
        if "platform_host" in given:
            platform_url = base_url(str(_text(given, "platform_host")), field="platform_host")
        proxies = _proxies(given.get("proxies"))
        _reject_exposed_key(proxies, push_url, platform_url)
        return cls(
            organization_id=_organization_id(organization_id, login),
            api_key=_api_key(password),
            region=region,
            push_url=push_url,
            platform_url=platform_url,
            console_url=console_url(
                region=region,
                push_url=push_url,
                platform_url=platform_url,
                is_named="platform_host" in given,
            ),
            timeout=_timeout(given.get("timeout") if timeout is None else timeout),
            total_timeout=_total_timeout(
                given.get("total_timeout") if total_timeout is None else total_timeout
            ),
            proxies=proxies,
            verify=_verify(given.get("verify")),
            call_interval=_call_interval(
                given.get("call_interval") if call_interval is None else call_interval
            ),
            snapshot_path=_text(given, "snapshot_path"),
        )

    def total_seconds(
        self, size: int, timeout: float | tuple[float | None, float | None] | None = None
    ) -> float:
        """
        Return the seconds that a request can take in total.

        :param size: The size of its body in bytes.
        :param timeout: Its own timeout, if it has one: a number, or a pair.
        """
        if self.total_timeout is not None:
            return self.total_timeout
        silence = timeout[-1] if isinstance(timeout, tuple) else timeout
        base = _SILENCES * float(self.timeout[1] if silence is None else silence)
        return max(base, min(_MAX_BY_SIZE, base + size / _BYTES_PER_SECOND))


def unreadable_extra(why: str = "it is not a JSON object") -> CoveoConfigurationError:
    """
    Return the error for an extra that can't be read.

    :param why: The problem, without the content, which can include a proxy's password.
    """
    return CoveoConfigurationError(
        f"Could not read the connection's extra: {why}",
        cause="a missing or surplus comma, quote or brace; nothing was sent",
        remedy='Enter a JSON object, as in {"region": "eu"}',
    )


_FORM_PREFIX: Final = "extra__coveo__"


def _parsed(extra: object) -> object:
    if extra is None or (isinstance(extra, (str, bytes)) and not extra.strip()):
        return {}
    if not isinstance(extra, (str, bytes)):
        return extra
    try:
        return json.loads(extra, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        raise unreadable_extra(
            f"it is not JSON ({error.msg} at line {error.lineno}, column {error.colno})"
        ) from None
    except CoveoConfigurationError:
        raise
    except (ValueError, RecursionError):
        raise unreadable_extra("it is not JSON") from None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise unreadable_extra(f"it has {short_repr(name)} twice")
    return dict(pairs)


def _given_extras(extra: object) -> dict[str, object]:
    if not isinstance(extra, Mapping):
        raise unreadable_extra(f"its JSON is a {type(extra).__name__}, not an object")
    given: dict[str, object] = {}
    for key, value in extra.items():
        # Airflow 2.11's form saves a provider's fields with this prefix, next to the plain names.
        name = key.removeprefix(_FORM_PREFIX) if isinstance(key, str) else key
        if name not in _EXTRAS:
            raise _unknown(str(key))
        if _is_blank(value):
            continue
        if name in given and given[name] != value:
            raise unreadable_extra(f"it has {short_repr(name)} twice, with different values")
        given[name] = value
    return given


def _unknown(key: str) -> CoveoConfigurationError:
    # Only this error needs it, and every task imports this module.
    import difflib

    plain = key.strip().lower().removeprefix(_FORM_PREFIX).replace("-", "_").replace(" ", "_")
    meant = difflib.get_close_matches(plain, sorted(_EXTRAS), n=1)
    return CoveoConfigurationError(
        f"The connection's extra has {short_repr(key)}, which would be ignored",
        cause="a misspelled name, or a setting of another connection type; nothing was sent",
        remedy=(f"Spell it {meant[0]}" if meant else "Remove it")
        + f"; the extra of a Coveo connection accepts {', '.join(sorted(_EXTRAS))}",
    )


def _check_scheme(schema: str | None, *, is_needed: bool) -> None:
    if schema is None or _is_blank(schema):
        return
    allowed = {"http", "https"} if is_needed else {"https"}
    if schema.strip().lower() not in allowed:
        raise CoveoConfigurationError(
            f"Invalid schema in the connection: {short_repr(schema)}",
            cause="the schema is the URL scheme of the connection's host; nothing was sent",
            remedy='Leave it empty; set a region in the extra, as in {"region": "eu"}',
        )


def _own_region(url: str, named: str | None) -> Region | None:
    """Return the region whose host a connection sets, ``None`` if the host is not Coveo's."""
    region = region_of(url)
    if region is not None and named is not None and region_named(named) is not region:
        raise CoveoConfigurationError(
            f"The connection's host is that of region {region.name}, but its region is {short_repr(named)}",
            cause="one of them was changed alone; nothing was sent",
            remedy="Leave host empty",
        )
    return region


def _port_without_host(port: object) -> CoveoConfigurationError:
    return CoveoConfigurationError(
        f"The connection has the port {short_repr(port)}, but no host",
        cause="Coveo's own hosts have no other port than 443; nothing was sent",
        remedy="Leave it empty, or set the host that has this port",
    )


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(extra: Mapping[str, object], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise CoveoConfigurationError(
            f"The connection's {name} must be a string, not {type(value).__name__}",
            remedy="Set one string in quotes",
        )
    return value


def _organization_id(given: str | None, login: str | None) -> str:
    if given is not None and _is_blank(given):
        raise CoveoConfigurationError(
            "Invalid organization_id: it is blank",
            cause="a template rendered to nothing",
            remedy="Leave it out (None) to use the connection's login",
        )
    try:
        return validate_organization_id((login or "").strip() if given is None else given)
    except CoveoInputError as error:
        raise CoveoConfigurationError(error.tried, cause=error.cause, remedy=error.remedy) from None


def _api_key(password: str | None) -> str:
    key = (password or "").strip()
    remedy = (
        "Set the connection's password to the API key of the Push source; "
        "see https://docs.coveo.com/en/1546/#api-key"
    )
    if not key:
        raise CoveoConfigurationError("The connection has no API key", remedy=remedy)
    if " " in key:
        raise CoveoConfigurationError(
            "The connection's API key contains a space", remedy="Enter the key alone, without “Bearer”"
        )
    if not key.isascii() or not key.isprintable():
        raise CoveoConfigurationError(
            "The connection's API key contains characters that an HTTP header can't hold", remedy=remedy
        )
    return key


def _timeout(value: object) -> tuple[float, float]:
    if value is None:
        return DEFAULT_TIMEOUT
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, (int, float)):
        parts = [parts]
    seconds = [_seconds(part) for part in parts] if isinstance(parts, (list, tuple)) else []
    if len(seconds) not in {1, 2} or not all(0 < s < _DAY for s in seconds):
        raise CoveoConfigurationError(
            f"Invalid timeout: {short_repr(value)}",
            remedy="Set seconds above 0: one number, or two (connection, silence), as in 10,60",
        )
    return seconds[0], seconds[-1]


def _seconds(value: Any) -> float:
    """Return a number of seconds; for anything else, a number outside of all bounds."""
    try:
        return -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return -1.0


def _total_timeout(value: object) -> float | None:
    if value is None:
        return None
    seconds = _seconds(value)
    if not 0 < seconds <= _DAY:
        raise CoveoConfigurationError(
            f"Invalid total_timeout: {short_repr(value)}",
            remedy=f"Set seconds above 0, up to {_DAY}, or leave it empty to suit each request's size",
        )
    return seconds


def _call_interval(value: object) -> float:
    seconds = 0.0 if value is None else _seconds(value)
    if not 0 <= seconds <= _MAX_CALL_INTERVAL:
        raise CoveoConfigurationError(
            f"Invalid call_interval: {short_repr(value)}",
            remedy=f"Set 0 to {_MAX_CALL_INTERVAL:g} seconds; if that is not enough, reduce the slots of the "
            "pool",
        )
    return seconds


def _proxies(value: object) -> dict[str, str]:
    if value is None:
        return {}
    parsed = value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
    if isinstance(parsed, str):
        parsed = {"http": parsed.strip(), "https": parsed.strip()}
    if not isinstance(parsed, Mapping) or not all(
        isinstance(part, str) for pair in parsed.items() for part in pair
    ):
        # A proxy's URL can contain a password, so the message does not repeat the value.
        raise CoveoConfigurationError(
            "The connection's proxies are neither a URL nor a JSON object of scheme to URL",
            remedy='Set a URL, or an object such as {"https": "http://proxy.example.com:3128"}',
        )
    for scheme, url in parsed.items():
        _check_proxy(scheme, url)
    return dict(parsed)


def _check_proxy(scheme: str, url: str) -> None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise CoveoConfigurationError(f"The connection's proxy for {short_repr(scheme)} is not a URL")
    if scheme.partition("://")[0] not in {"http", "https", "all"}:
        raise CoveoConfigurationError(
            f"The connection's proxies name the scheme {short_repr(scheme)}, so requests would bypass that "
            "proxy",
            remedy="Use http, https or all",
        )


def _reject_exposed_key(proxies: Mapping[str, str], *urls: str) -> None:
    """Reject a proxy on another machine that would receive the API key in clear text."""
    if all(urlsplit(url).scheme == "https" for url in urls):
        return
    if all(
        scheme.partition("://")[0] == "https" or is_on_this_machine(url) for scheme, url in proxies.items()
    ):
        return
    raise CoveoConfigurationError(
        "The connection's host is http on this machine, and its proxy is on another machine: the proxy would "
        "receive the API key in clear text",
        remedy="Remove the proxies, or use https",
    )


def _verify(value: object) -> bool | str:
    if value is None or isinstance(value, bool):
        return True if value is None else value
    if not isinstance(value, (str, int)):
        raise CoveoConfigurationError(
            f"Invalid verify in the connection: it is a {type(value).__name__}",
            remedy="Set true, false, or the path of a CA bundle that exists on every worker",
        )
    text = str(value).strip()
    if text.lower() in {"true", "yes", "1"}:
        return True
    if text.lower() in {"false", "no", "0"}:
        return False
    try:
        exists = Path(text).exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise CoveoConfigurationError(
            f"The connection's verify names {short_repr(text)}, and this worker has no such file",
            remedy="Set true, false, or the path of a CA bundle that exists on every worker",
        )
    return text
