from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.coveo.endpoints import (
    REGIONS,
    base_url,
    platform_path,
    push_path,
    region_named,
    validate_organization_id,
    validate_source_id,
)
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError, CoveoInputError


@pytest.mark.parametrize(
    ("name", "push", "platform"),
    [
        ("us", "https://api.cloud.coveo.com", "https://platform.cloud.coveo.com"),
        ("ca", "https://api-ca.cloud.coveo.com", "https://platform-ca.cloud.coveo.com"),
        ("eu", "https://api-eu.cloud.coveo.com", "https://platform-eu.cloud.coveo.com"),
        ("au", "https://api-au.cloud.coveo.com", "https://platform-au.cloud.coveo.com"),
        ("hipaa", "https://apihipaa.cloud.coveo.com", "https://platformhipaa.cloud.coveo.com"),
    ],
)
def test_each_region_has_its_hosts(name: str, push: str, platform: str) -> None:
    region = region_named(name.upper())
    assert (region.push_url, region.platform_url) == (push, platform)


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_the_default_region_is_the_united_states(blank: str | None) -> None:
    assert region_named(blank) is REGIONS["us"]


def test_the_error_of_an_unknown_region_lists_the_regions() -> None:
    with pytest.raises(CoveoConfigurationError, match=r"us .*ca .*eu .*au .*hipaa"):
        region_named("mars")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("https://proxy.example.com/", "https://proxy.example.com"),
        ("proxy.example.com", "https://proxy.example.com"),
        ("proxy.example.com:8443/coveo/", "https://proxy.example.com:8443/coveo"),
        ("http://127.0.0.1:8642", "http://127.0.0.1:8642"),
        ("127.0.0.1", "http://127.0.0.1:8642"),
        ("localhost", "http://localhost:8642"),
        ("http://[::1]:8642/", "http://[::1]:8642"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        # Airflow removes the brackets when it reads a URI.
        ("2001:db8::1", "https://[2001:db8::1]"),
        ("::1", "http://[::1]:8642"),
        ("Proxy.Example.COM", "https://proxy.example.com"),
        ("proxy.example.com.", "https://proxy.example.com"),
        ("localhost.", "http://localhost:8642"),
        (" proxy.example.com\n", "https://proxy.example.com"),
        ("xn--bcher-kva.example.com", "https://xn--bcher-kva.example.com"),
        ("HTTPS://proxy.example.com:", "https://proxy.example.com"),
        ("gateway.example.com/rest", "https://gateway.example.com/rest"),
    ],
)
def test_a_host_is_accepted_in_any_usual_form(host: str, expected: str) -> None:
    port = 8642 if expected.endswith("8642") else None
    assert base_url(host, port=port) == expected


@pytest.mark.parametrize(
    "host",
    [
        "http://api.cloud.coveo.com",
        "http://10.0.0.7:8080",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "ftp://api.cloud.coveo.com",
        "https://",
        "https://user:secret@api.cloud.coveo.com",
        "https://api.cloud.coveo.com?x=1",
        "https://api.cloud.coveo.com:notaport",
        "https://api cloud",
        "https://[::1",
        "eu",
        "EU",
        " us ",
        "hipaa",
        "https://ca",
        "https://au/",
        "ireland",
        "eu-west-1",
        "us-east-1:443",
        "1",
        "10.0.0",
        "10.0.0.256",
        "-a.example.com",
        "a-.example.com",
        "api.cloud.coveo.com, api-eu.cloud.coveo.com",
        "mailto:someone",
        "user:secret@eu",
        "user:secret@proxy.example.com:port",
        "https://user:se/secret@proxy.example.com",
        "https://user:secret@",
        "https://user:secret@a!b",
        "http://user:secret@proxy.example.com",
        "user:secret@proxy.example.com:0",
        "user:secret@acme.org.coveo.com",
        "https://user:secret@api.cloud.coveo.com/push/v1",
        "secret@@proxy.example.com",
        "https://proxy.example.com?key=secret",
        "https://proxy.example.com/#secret",
        "https://a!b?key=secret",
        "eu?key=secret",
        "https://proxy.example.com?",
        "https://proxy.example.com#",
        "proxy\texample.com",
        "proxy.example.com\n.example.org",
        "proxy.example.com/a b",
        "proxy.example.com/\x7f",
        "proxy.example.com\\@example.org",
        "\\\\proxy.example.com",
        "proxy..example.com",
        "proxy.example.com..",
        "b\u00fccher.example.com",
        "proxy\u3002example.com",
        "\uff50roxy.example.com",
        "proxy.example.com:0",
        "proxy.example.com:65536",
        "proxy.example.com:8443:1",
        "https:/proxy.example.com",
        "https//proxy.example.com",
        "https://https://proxy.example.com",
        "https:proxy.example.com",
        "//proxy.example.com",
        "[proxy.example.com]",
        "[v1.proxy]",
        "[2001:db8::1",
        "[fe80::1%25eth0]",
        "127.0.0.1.",
        "127.1",
        "None",
        "null",
        "proxy.example.com/a/../b",
        "proxy.example.com/a/%2E%2e",
        "proxy.example.com/push/v1",
        "proxy.example.com/coveo/push/v1/",
        "proxy.example.com/rest/organizations/acme",
    ],
)
def test_an_unsafe_or_unusable_host_is_rejected(host: str) -> None:
    for field in ("host", "platform_host"):
        with pytest.raises(CoveoConfigurationError) as refused:
            base_url(host, field=field)
        assert "secret" not in str(refused.value)
        assert f"{field}" in str(refused.value)
        assert refused.value.remedy


@pytest.mark.parametrize(
    ("host", "port", "problem"),
    [
        ("proxy.example.com:8443", 9000, "it has the port 8443, and the connection's port is 9000"),
        ("https://proxy.example.com:8443", 443, "it has the port 8443"),
        ("[::1]:8642", 8643, "it has the port 8642"),
        ("proxy.example.com", 0, "its port is 0"),
        ("proxy.example.com", -1, "its port is -1"),
        ("proxy.example.com", 65_536, "its port is 65536"),
        ("proxy.example.com", "x", "its port is 'x'"),
    ],
)
def test_a_port_that_contradicts_that_of_the_host_is_rejected(host: str, port: Any, problem: str) -> None:
    assert base_url("proxy.example.com:8443", port=8443) == "https://proxy.example.com:8443"
    with pytest.raises(CoveoConfigurationError, match=problem):
        base_url(host, port=port)


@pytest.mark.parametrize(
    ("host", "field"),
    [
        ("https://platform.cloud.coveo.com/admin/#acme/content/sources/", "host"),
        ("https://platform.cloud.coveo.com/rest", "host"),
        ("https://api-eu.cloud.coveo.com/x", "host"),
        ("https://api-eu.cloud.coveo.com:8443", "host"),
        ("https://platform-eu.cloud.coveo.com/admin/", "platform_host"),
        ("acme.org.coveo.com/x", "platform_host"),
    ],
)
def test_one_of_coveo_s_own_hosts_with_a_path_or_a_port_is_rejected(host: str, field: str) -> None:
    with pytest.raises(CoveoConfigurationError, match=r"Coveo host with a path or a port.*nothing was sent"):
        base_url(host, field=field)


@pytest.mark.parametrize(
    ("host", "field"),
    [("https://platform-xx.cloud.coveo.com", "host"), ("https://api.cloud.coveo.com", "platform_host")],
)
def test_one_of_coveo_s_own_hosts_in_the_wrong_field_is_rejected(host: str, field: str) -> None:
    with pytest.raises(CoveoConfigurationError, match="does not serve"):
        base_url(host, field=field)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "eu",
            "EU",
            "eu.",
            "https://eu/",
            "eu:443",
            "hipaa.",
            "us-gov-west-1",
            "eu-west",
            "europe-west1",
            "eu1",
        ),
        *("us-east", "useast", "us_east_1", "ap-southeast-2", "canada-central", "australia-east", "virginia"),
        *("api-eu", "platform-au", "apihipaa", "sa-east-1", "region-eu"),
        *("EU (Ireland)", "US East", "Canada Central", "eu/x", "http://eu"),
    ],
)
def test_the_error_for_a_region_in_place_of_a_host_names_its_field(host: str) -> None:
    with pytest.raises(
        CoveoConfigurationError, match=r'name of a region.*\{"region": "eu"\}.*eu \(Ireland\)'
    ):
        base_url(host)


@pytest.mark.parametrize(
    "host",
    [
        *("coveo.com", "cloud.coveo.com", "eu.coveo.com", "api.eu.cloud.coveo.com", "api.cloud.coveo.com."),
        *(
            "acme.org.coveo.com",
            "acme.admin.org.coveo.com",
            "usageanalytics.coveo.com",
            "API.Cloud.Coveo.com",
        ),
    ],
)
def test_of_coveo_s_own_hosts_only_those_of_its_apis_are_accepted(host: str) -> None:
    if host.lower().rstrip(".") == "api.cloud.coveo.com":
        assert base_url(host)
        return
    with pytest.raises(CoveoConfigurationError, match=r"does not serve the Push API.*region.*eu \(Ireland\)"):
        base_url(host)


def test_an_organization_endpoint_can_be_the_platform_host() -> None:
    assert base_url("acme.org.coveo.com", field="platform_host") == "https://acme.org.coveo.com"


@pytest.mark.parametrize(
    "host",
    ["gateway", "api", "coveo-eu", "west", "coveo-proxy", "eu.example.com", "my_proxy.internal", "10.0.0.7"],
)
def test_a_host_can_have_any_name_except_that_of_a_region(host: str) -> None:
    assert base_url(host) == f"https://{host}"


@pytest.mark.parametrize("check", [validate_source_id, validate_organization_id])
@pytest.mark.parametrize("value", ["", "  ", "a/b", "a b", "../x", "a?b", "a\n", None, 7, "é"])
def test_an_invalid_id_is_rejected(check: object, value: object) -> None:
    with pytest.raises(CoveoInputError):
        check(value)  # type: ignore[operator]


def test_ids_in_coveo_s_format_are_accepted() -> None:
    assert validate_source_id("acme-rp5rxzbdz753uhndklv2ztkfgy") == "acme-rp5rxzbdz753uhndklv2ztkfgy"


def test_paths_encode_the_characters_of_a_provider_s_name() -> None:
    assert push_path("acme", "providers", "My Provider/2") == (
        "/push/v1/organizations/acme/providers/My%20Provider%2F2"
    )
    assert platform_path("acme", "sources") == "/rest/organizations/acme/sources"
