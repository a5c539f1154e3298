"""Where Coveo's APIs are: hosts by region, paths by operation, and what may stand in for them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoInputError, short_repr


@dataclass(frozen=True)
class Region:
    """
    A region that Coveo hosts organizations in.

    :param name: The name to put into the connection's ``region``.
    :param title: How Coveo calls it.
    :param push_url: The base URL of the Push API and of the Source Logs API.
    :param platform_url: The base URL of the platform's REST API.
    """

    name: str
    title: str
    push_url: str
    platform_url: str


#: By name. See https://docs.coveo.com/en/78/ for the hosts of the Push API.
REGIONS: Final[dict[str, Region]] = {
    region.name: region
    for region in (
        Region("us", "US East", "https://api.cloud.coveo.com", "https://platform.cloud.coveo.com"),
        Region("ca", "Canada", "https://api-ca.cloud.coveo.com", "https://platform-ca.cloud.coveo.com"),
        Region("eu", "Ireland", "https://api-eu.cloud.coveo.com", "https://platform-eu.cloud.coveo.com"),
        Region("au", "Australia", "https://api-au.cloud.coveo.com", "https://platform-au.cloud.coveo.com"),
        Region("hipaa", "HIPAA", "https://apihipaa.cloud.coveo.com", "https://platformhipaa.cloud.coveo.com"),
    )
}
DEFAULT_REGION: Final = "us"

_HOSTNAME = re.compile(
    r"[A-Za-z0-9_\-]{1,63}(?:\.[A-Za-z0-9_\-]{1,63})*\.?\Z|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\Z"
)
#: No host is called by these words alone, one of which is a place's: a region of Coveo's, or of a cloud's.
_PLACES: Final = (
    "us|usa|america|virginia|ohio|oregon|ca|can|canada|montreal|eu|eur|emea|europe|ireland|dublin|uk|ap|apac"
    "|asia|au|aus|australia|sydney|hipaa"
)
_BESIDE_PLACES: Final = "gov|north|south|east|west|central|region|api|platform"
_REGION_NAME = re.compile(
    rf"(?:(?:{_BESIDE_PLACES})[\d_\-]*)*(?:{_PLACES})[\d_\-]*(?:(?:{_PLACES}|{_BESIDE_PLACES})[\d_\-]*)*"
    r"|[a-z]{2}-[a-z]+-\d"
)
#: Beneath this domain, Coveo's APIs are at hosts of these names only.
_COVEO_DOMAIN: Final = "coveo.com"
_COVEO_HOST = re.compile(r"(?:api|platform)[a-z0-9\-]*\.cloud\.coveo\.com")
_ORGANIZATION_HOST = re.compile(r"[a-z0-9\-]+(?:\.[a-z]+)?\.org\.coveo\.com")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")


def region_named(name: str | None) -> Region:
    """
    Return the region of that name, the default one where the name is blank.

    :raises CoveoConfigurationError: if there is no such region.
    """
    wanted = (name or "").strip().lower() or DEFAULT_REGION
    if wanted in REGIONS:
        return REGIONS[wanted]
    raise CoveoConfigurationError(
        f"There is no Coveo region {short_repr(name)}", remedy=f"Use one of {regions_in_words()}"
    )


def regions_in_words() -> str:
    """Return the list of the regions, by what is put into a connection, and by what Coveo calls them."""
    return ", ".join(f"{region.name} ({region.title})" for region in REGIONS.values())


def base_url(host: str, *, port: int | None = None, scheme: str | None = None, field: str = "host") -> str:
    """
    Return the base URL that a connection's host field means, without a slash at its end.

    ``https`` is assumed. ``http``, which sends the API key in clear, is for loopback hosts only.

    :param host: A host name, with or without scheme, port and path.
    :param port: The port where ``host`` names none.
    :param scheme: The scheme where ``host`` names none.
    :param field: The field's name, for the message.
    :raises CoveoConfigurationError: if it is no usable URL, or is ``http`` to another machine.
    """
    text = host.strip()
    try:
        if "://" not in text:
            loopback = _is_loopback(urlsplit(f"//{text}").hostname or "")
            text = f"{scheme or ('http' if loopback else 'https')}://{text}"
        parts = urlsplit(text)
        effective_port = parts.port or port
    except ValueError as error:
        raise _unusable(field, host, str(error)) from None
    if effective_port is not None and not 0 < effective_port < 65_536:
        raise _unusable(field, host, f"its port is {effective_port}")
    if parts.scheme not in {"http", "https"}:
        raise _unusable(field, host, f"its scheme is {parts.scheme!r}, not https")
    if not parts.hostname or len(parts.hostname) > 253 or not _HOSTNAME.match(parts.hostname):
        raise _unusable(field, host, "it names no host")
    labels = parts.hostname.rstrip(".").split(".")
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        raise _unusable(field, host, "a part of its name begins or ends with a hyphen")
    if labels[-1].isdigit() and not _is_ip_address(parts.hostname):
        raise _unusable(field, host, "it is neither a name nor an IP address")
    name = parts.hostname.lower().rstrip(".")
    if _REGION_NAME.fullmatch(name):
        raise CoveoConfigurationError(
            f"The connection's {field} {short_repr(host)} is the name of a region, not of a host",
            cause="the region was put into the wrong field; nothing was sent",
            remedy=f"Leave {field} empty, and give the region in the extra, as in "
            f'{{"region": "eu"}}: one of {regions_in_words()}',
        )
    _check_coveo_host(name, field, host)
    if parts.username is not None or parts.query or parts.fragment:
        raise _unusable(field, "…", "it may hold scheme, host, port and path only")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise CoveoConfigurationError(
            f"The connection's {field} {host!r} asks for http, which sends the API key in clear",
            remedy="Use https; http is for this machine's own loopback address only",
        )
    hostname = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = f"{hostname}:{effective_port}" if effective_port else hostname
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}"


def _check_coveo_host(name: str, field: str, host: str) -> None:
    if field not in {"host", "platform_host"} or (
        name != _COVEO_DOMAIN and not name.endswith(f".{_COVEO_DOMAIN}")
    ):
        return
    is_organization = _ORGANIZATION_HOST.fullmatch(name) is not None
    if _COVEO_HOST.fullmatch(name) or (is_organization and field == "platform_host"):
        return
    raise CoveoConfigurationError(
        f"The connection's {field} {short_repr(host)} is a host of Coveo's where the Push API is not",
        cause="it is an organization endpoint; nothing was sent"
        if is_organization
        else "there is no such API host; nothing was sent",
        remedy=f"Leave {field} empty, and give the region in the extra: one of {regions_in_words()}; "
        "see https://docs.coveo.com/en/78/",
    )


def _unusable(field: str, host: str, why: str) -> CoveoConfigurationError:
    return CoveoConfigurationError(
        f"The connection's {field} {short_repr(host)} is not a base URL: {why}",
        remedy="Leave it empty to use the region's host, or give a URL such as https://proxy.example.com",
    )


def _is_ip_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def is_on_this_machine(url: str) -> bool:
    """
    Say whether a URL leads to this machine's own loopback address.

    :param url: A URL, with or without a scheme.
    """
    try:
        return _is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
    except ValueError:
        return False


def _is_loopback(hostname: str) -> bool:
    if hostname.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False


def validate_source_id(source_id: object) -> str:
    """
    Return the ID of a source if it can be one.

    :raises CoveoInputError: if it is empty or has characters that no ID has.
    """
    return _validate_id(
        source_id, "a source ID", "Copy it from the Sources page of the Administration Console"
    )


def validate_organization_id(organization_id: object) -> str:
    """
    Return the ID of an organization if it can be one.

    :raises CoveoInputError: if it is empty or has characters that no ID has.
    """
    return _validate_id(
        organization_id,
        "an organization ID",
        "Put it into the connection's login, or pass organization_id; see https://docs.coveo.com/en/148/",
    )


def _validate_id(value: object, what: str, remedy: str) -> str:
    name = what.split(" ", 1)[1]
    if not isinstance(value, str):
        raise CoveoInputError(f"The {name} must be a string, not {type(value).__name__}", remedy=remedy)
    if not value.strip():
        raise CoveoInputError(f"The {name} is empty", remedy=remedy)
    if value == "None":
        raise CoveoInputError(f"The {name} is 'None'", cause="a template rendered to nothing", remedy=remedy)
    if not _ID.match(value):
        raise CoveoInputError(
            f"{short_repr(value)} is not {what}: letters, digits, '-', '_' and '.' are all that it can hold",
            remedy=remedy,
        )
    return value


def push_path(organization_id: str, *segments: str) -> str:
    """Return the path of an operation of the Push API, every segment percent-encoded."""
    return _path("push/v1/organizations", organization_id, segments)


def is_push_path(path: str) -> bool:
    """Say whether a path is one of the Push API, whose calls Coveo limits."""
    return "/push/v1/organizations/" in path


def platform_path(organization_id: str, *segments: str) -> str:
    """Return the path of an operation of the platform's REST API, every segment percent-encoded."""
    return _path("rest/organizations", organization_id, segments)


def console_page(console_url: str, organization_id: str, page: str) -> str:
    """
    Return the address of a page of the Administration Console.

    :param console_url: The base URL of the platform that serves the console.
    :param organization_id: The organization.
    :param page: The page's path below the organization, such as ``content/sources/``.
    """
    return f"{console_url}/admin/#/{quote(organization_id, safe='')}/{page}"


def console_url(*, region: Region | None, push_url: str, platform_url: str, is_named: bool) -> str | None:
    """
    Return the base URL of the Administration Console, ``None`` where it isn't known.

    Each region's console is on its platform host (https://docs.coveo.com/en/35/ links to them). Of another
    host it isn't known what it serves, unless it is a loopback host that was named as the platform's: the
    simulator, which shows its own page there.

    :param region: The connection's region, ``None`` where the connection names a host of its own.
    :param push_url: The base URL of the Push API.
    :param platform_url: The base URL of the platform's REST API.
    :param is_named: Whether the connection itself names the platform's host.
    """
    if is_named and _is_loopback(urlsplit(platform_url).hostname or ""):
        return platform_url
    if region is None:
        for known in REGIONS.values():
            if platform_url == known.platform_url or push_url == known.push_url:
                return known.platform_url
    return None if region is None else region.platform_url


def _path(prefix: str, organization_id: str, segments: tuple[str, ...]) -> str:
    return "/".join(["", prefix, *(quote(segment, safe="") for segment in (organization_id, *segments))])
