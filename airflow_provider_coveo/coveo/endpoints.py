"""The endpoints of Coveo's APIs: hosts by region, paths by operation, and valid replacements."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoInputError, short_repr
from airflow_provider_coveo.coveo.integers import parse_int


class Region(NamedTuple):
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
_PUSH_HOST: Final = r"api[a-z0-9\-]*\.cloud\.coveo\.com"
_PLATFORM_HOST: Final = r"platform[a-z0-9\-]*\.cloud\.coveo\.com"
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

    :param host: A host name or an IP address, with or without scheme, port and path.
    :param port: The port if ``host`` has none.
    :param scheme: The scheme if ``host`` has none.
    :param field: The field's name, for the message.
    :raises CoveoConfigurationError: if it is not a usable URL, or is ``http`` to another machine.
    """
    text = _bracketed(host.strip())
    # With spaces, as in Coveo's name of a region.
    _reject_region_name(re.sub(r"[ ()]+", "-", text), field, host)
    if problem := _unusable_text(text):
        raise _unusable(field, host, problem)
    try:
        if "://" not in text:
            loopback = _is_loopback(urlsplit(f"//{text}").hostname or "")
            text = f"{scheme or ('http' if loopback else 'https')}://{text}"
        parts = urlsplit(text)
        named_port = parts.port
    except ValueError:
        # The error's text can contain a part of a password.
        why = "its brackets enclose no IPv6 address" if "[" in text else "its port is not a number to 65535"
        raise _unusable(field, host, why) from None
    if parts.scheme not in {"http", "https"}:
        raise _unusable(field, host, f"its scheme is {parts.scheme!r}, not https")
    hostname = _validate_hostname(parts, field, host)
    effective_port = _validate_port(named_port, port, field, host)
    _check_coveo_host(hostname, effective_port, parts.path, field, host)
    if parts.username is not None or any(sign in text for sign in "?#"):
        raise _unusable(field, host, "it can contain only scheme, host, port and path")
    if parts.scheme == "http" and not _is_loopback(hostname):
        raise CoveoConfigurationError(
            f"The connection's {field} {host!r} uses http, which sends the API key in clear text",
            remedy="Use https; http is for this machine's own loopback address only",
        )
    authority = f"[{hostname}]" if ":" in hostname else hostname
    if effective_port is not None:
        authority = f"{authority}:{effective_port}"
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}"


def _bracketed(text: str) -> str:
    """Return a host with the brackets of an IPv6 address, which Airflow removes when it reads a URI."""
    try:
        return f"[{text}]" if ipaddress.ip_address(text).version == 6 else text
    except ValueError:
        return text


def _unusable_text(text: str) -> str | None:
    """Return why a text can't be part of a URL as it is, before a URL parser silently repairs it."""
    if any(sign.isspace() or not sign.isprintable() for sign in text):
        return "it contains white space or a control character"
    if "\\" in text:
        return "it contains a backslash"
    if not text.isascii():
        return "it is not ASCII; write an international name as xn--…"
    return None


def _reject_region_name(name: str, field: str, host: str) -> None:
    if re.fullmatch(_REGION_NAME, name.lower().rstrip(".-")):
        raise CoveoConfigurationError(
            f"The connection's {field} {_shown(host)} is the name of a region, not of a host",
            cause="the region is in the wrong field; nothing was sent",
            remedy=f"Leave {field} empty, and set the region in the extra, as in "
            f'{{"region": "eu"}}: one of {regions_in_words()}',
        )


def _validate_hostname(parts: SplitResult, field: str, host: str) -> str:
    """Return a URL's host name without a final dot, which not all servers and certificates accept."""
    hostname = parts.hostname or ""
    labels = hostname.removesuffix(".").split(".")
    problem = None
    if not hostname or len(hostname) > 253 or not re.match(_HOSTNAME, hostname):
        problem = "it has no valid host name"
    elif any(label.startswith("-") or label.endswith("-") for label in labels):
        problem = "a part of its name starts or ends with a hyphen"
    elif ("[" in parts.netloc or labels[-1].isdigit()) and not _is_ip_address(hostname):
        problem = "it is neither a name nor an IP address"
    elif hostname in {"http", "https"}:
        problem = "its scheme is misspelled, or occurs twice"
    elif hostname in {"none", "null"}:
        problem = "a setting without a value became text"
    if problem is not None:
        raise _unusable(field, host, problem)
    _reject_region_name(hostname, field, host)
    return hostname.removesuffix(".")


def _validate_port(named: int | None, port: object, field: str, host: str) -> int | None:
    """Return the port of a host, which the connection's own port must not contradict."""
    given = parse_int(port) if port is not None else None
    if port is not None and given is None:
        raise _unusable(field, host, f"its port is {short_repr(port)}")
    for each in (named, given):
        if each is not None and not 0 < each < 65_536:
            raise _unusable(field, host, f"its port is {each}")
    if named is not None and given is not None and named != given:
        raise _unusable(field, host, f"it has the port {named}, and the connection's port is {given}")
    return given if named is None else named


def _check_coveo_host(name: str, port: int | None, path: str, field: str, host: str) -> None:
    if field not in {"host", "platform_host"}:
        return
    if problem := _unusable_path(path):
        raise _unusable(field, host, problem)
    if name != _COVEO_DOMAIN and not name.endswith(f".{_COVEO_DOMAIN}"):
        return
    is_organization = re.fullmatch(_ORGANIZATION_HOST, name) is not None
    if field == "host":
        serves = re.fullmatch(_PUSH_HOST, name) is not None or region_of(f"https://{name}") is not None
    else:
        serves = re.fullmatch(_PLATFORM_HOST, name) is not None or is_organization
    remedy = f"Leave {field} empty, and set the region in the extra: one of {regions_in_words()}; "
    remedy += "see https://docs.coveo.com/en/78/"
    if not serves:
        raise CoveoConfigurationError(
            f"The connection's {field} {_shown(host)} is a Coveo host that does not serve the "
            + ("Push API" if field == "host" else "platform's API"),
            cause="it is an organization endpoint; nothing was sent"
            if is_organization
            else "there is no such API host; nothing was sent",
            remedy=remedy,
        )
    if path.strip("/") or port not in {None, 443}:
        raise CoveoConfigurationError(
            f"The connection's {field} {_shown(host)} is a Coveo host with a path or a port, which its APIs "
            "do not have",
            cause="it is the address of a page or of an operation; nothing was sent",
            remedy=remedy,
        )


def _unusable_path(path: str) -> str | None:
    """Return why a path can't precede those of the APIs."""
    segments = unquote(path).lower().split("/")
    if "." in segments or ".." in segments:
        return "its path has a segment that is a dot"
    if "organizations" in segments or segments[-2:] == ["push", "v1"] or segments[-3:-1] == ["push", "v1"]:
        return "its path is already that of an API"
    return None


def region_of(url: str) -> Region | None:
    """
    Return the region that a base URL belongs to, ``None`` if it is not one of Coveo's.

    :param url: The base URL of an API of Coveo's.
    """
    hostname = urlsplit(url).hostname
    for region in REGIONS.values():
        if hostname in {urlsplit(region.push_url).hostname, urlsplit(region.platform_url).hostname}:
            return region
    return None


def _shown(host: str) -> str:
    """Return a host for a message, unless it can contain a password or another secret."""
    return "'…'" if any(sign in host for sign in "@?#") else short_repr(host)


def _unusable(field: str, host: str, why: str) -> CoveoConfigurationError:
    return CoveoConfigurationError(
        f"Invalid {field} in the connection: {_shown(host)} is not a base URL: {why}",
        cause="a misspelled or incomplete value; nothing was sent",
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
    if hostname.lower().removesuffix(".") == "localhost":
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


def has_path(base: str) -> bool:
    """Return whether a base URL has a path, as that of a gateway does; Coveo's own have none."""
    return bool(urlsplit(base).path)


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
