"""The endpoints of Coveo's APIs: hosts by region, paths by operation, and valid replacements."""

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

    :param name: The value of the connection's ``region``.
    :param title: Coveo's name for it.
    :param push_url: The base URL of the Push API and of the Source Logs API.
    :param platform_url: The base URL of the platform's REST API.
    """

    name: str
    title: str
    push_url: str
    platform_url: str


#: Regions by name. See https://docs.coveo.com/en/78/ for the hosts of the Push API.
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

# Compiled when they are first used, because every DAG file imports this module.
_HOSTNAME: Final = r"[A-Za-z0-9_\-]{1,63}(?:\.[A-Za-z0-9_\-]{1,63})*\.?\Z|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\Z"
#: A host name that consists of these words only, one of them a place, is a region of Coveo or of a cloud.
_PLACES: Final = (
    "us|usa|america|virginia|ohio|oregon|ca|can|canada|montreal|eu|eur|emea|europe|ireland|dublin|uk|ap|apac"
    "|asia|au|aus|australia|sydney|hipaa"
)
_BESIDE_PLACES: Final = "gov|north|south|east|west|central|region|api|platform"
_REGION_NAME: Final = (
    rf"(?:(?:{_BESIDE_PLACES})[\d_\-]*)*(?:{_PLACES})[\d_\-]*(?:(?:{_PLACES}|{_BESIDE_PLACES})[\d_\-]*)*"
    r"|[a-z]{2}-[a-z]+-\d"
)
#: Within this domain, only hosts with these names serve Coveo's APIs.
_COVEO_DOMAIN: Final = "coveo.com"
_COVEO_HOST: Final = r"(?:api|platform)[a-z0-9\-]*\.cloud\.coveo\.com"
_ORGANIZATION_HOST: Final = r"[a-z0-9\-]+(?:\.[a-z]+)?\.org\.coveo\.com"
_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z"


def region_named(name: str | None) -> Region:
    """
    Return the region of that name, the default region if the name is blank.

    :raises CoveoConfigurationError: if there is no such region.
    """
    wanted = (name or "").strip().lower() or DEFAULT_REGION
    if wanted in REGIONS:
        return REGIONS[wanted]
    raise CoveoConfigurationError(
        f"Invalid region: {short_repr(name)}", remedy=f"Use one of {regions_in_words()}"
    )


def regions_in_words() -> str:
    """Return a list of the regions, with the connection's value and Coveo's name of each."""
    return ", ".join(f"{region.name} ({region.title})" for region in REGIONS.values())


def base_url(host: str, *, port: int | None = None, scheme: str | None = None, field: str = "host") -> str:
    """
    Return the base URL for a connection's host field, without a trailing slash.

    The default scheme is ``https``. ``http``, which sends the API key in clear text, is for loopback hosts
    only.

    :param host: A host name, with or without scheme, port and path.
    :param port: The port if ``host`` has none.
    :param scheme: The scheme if ``host`` has none.
    :param field: The field's name, for the message.
    :raises CoveoConfigurationError: if it is not a usable URL, or is ``http`` to another machine.
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
    if not parts.hostname or len(parts.hostname) > 253 or not re.match(_HOSTNAME, parts.hostname):
        raise _unusable(field, host, "it has no valid host name")
    labels = parts.hostname.rstrip(".").split(".")
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        raise _unusable(field, host, "a part of its name starts or ends with a hyphen")
    if labels[-1].isdigit() and not _is_ip_address(parts.hostname):
        raise _unusable(field, host, "it is neither a name nor an IP address")
    name = parts.hostname.lower().rstrip(".")
    if re.fullmatch(_REGION_NAME, name):
        raise CoveoConfigurationError(
            f"The connection's {field} {short_repr(host)} is the name of a region, not of a host",
            cause="the region is in the wrong field; nothing was sent",
            remedy=f"Leave {field} empty, and set the region in the extra, as in "
            f'{{"region": "eu"}}: one of {regions_in_words()}',
        )
    _check_coveo_host(name, field, host)
    if parts.username is not None or parts.query or parts.fragment:
        raise _unusable(field, "…", "it can contain only scheme, host, port and path")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise CoveoConfigurationError(
            f"The connection's {field} {host!r} uses http, which sends the API key in clear text",
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
    is_organization = re.fullmatch(_ORGANIZATION_HOST, name) is not None
    if re.fullmatch(_COVEO_HOST, name) or (is_organization and field == "platform_host"):
        return
    raise CoveoConfigurationError(
        f"The connection's {field} {short_repr(host)} is a Coveo host that does not serve the Push API",
        cause="it is an organization endpoint; nothing was sent"
        if is_organization
        else "there is no such API host; nothing was sent",
        remedy=f"Leave {field} empty, and set the region in the extra: one of {regions_in_words()}; "
        "see https://docs.coveo.com/en/78/",
    )


def _unusable(field: str, host: str, why: str) -> CoveoConfigurationError:
    return CoveoConfigurationError(
        f"Invalid {field} in the connection: {short_repr(host)} is not a base URL: {why}",
        remedy="Leave it empty to use the region's host, or set a URL such as https://proxy.example.com",
    )


def _is_ip_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def is_on_this_machine(url: str) -> bool:
    """
    Return whether a URL points to this machine's own loopback address.

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
    Return a valid source ID.

    :raises CoveoInputError: if it is empty, or contains characters that no ID has.
    """
    return _validate_id(source_id, "source ID", "Copy it from the Sources page of the Administration Console")


def validate_organization_id(organization_id: object) -> str:
    """
    Return a valid organization ID.

    :raises CoveoInputError: if it is empty, or contains characters that no ID has.
    """
    return _validate_id(
        organization_id,
        "organization ID",
        "Set the connection's login, or pass organization_id; see https://docs.coveo.com/en/148/",
    )


def _validate_id(value: object, name: str, remedy: str) -> str:
    if not isinstance(value, str):
        raise CoveoInputError(f"The {name} must be a string, not {type(value).__name__}", remedy=remedy)
    if not value.strip():
        raise CoveoInputError(f"The {name} is empty", remedy=remedy)
    if value == "None":
        raise CoveoInputError(f"The {name} is 'None'", cause="a template rendered to nothing", remedy=remedy)
    if not re.match(_ID, value):
        raise CoveoInputError(
            f"Invalid {name}: {short_repr(value)}; it can contain only letters, digits, '-', '_' and '.'",
            remedy=remedy,
        )
    return value


def push_path(organization_id: str, *segments: str) -> str:
    """Return the path of an operation of the Push API, every segment percent-encoded."""
    return _path("push/v1/organizations", organization_id, segments)


def is_push_path(path: str) -> bool:
    """Return whether a path belongs to the Push API, whose calls Coveo limits."""
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
    Return the base URL of the Administration Console, ``None`` if it is unknown.

    Each region's console is on its platform host (https://docs.coveo.com/en/35/ links to them). What another
    host serves is unknown, unless it is a loopback host in ``platform_host``: the simulator, which serves its
    own page there.

    :param region: The connection's region, ``None`` if the connection sets its own host.
    :param push_url: The base URL of the Push API.
    :param platform_url: The base URL of the platform's REST API.
    :param is_named: Whether the connection itself sets the platform's host.
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
