from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_coveo.coveo.connection import ConnectionSettings
from airflow_provider_coveo.coveo.errors import CoveoConfigurationError

KEY = "xx564559b1-0045-48e1-953c-3addd1ee4457"


def read(**fields: Any) -> ConnectionSettings:
    given: dict[str, Any] = {
        "login": "acme", "password": KEY, "host": None, "port": None, "schema": None, "extra": {}
    }  # fmt: skip
    return ConnectionSettings.read(**{**given, **fields})


def test_the_organization_and_the_key_are_sufficient() -> None:
    settings = read()
    assert settings.organization_id == "acme"
    assert settings.push_url == "https://api.cloud.coveo.com"
    assert settings.platform_url == "https://platform.cloud.coveo.com"
    assert settings.timeout == (10.0, 60.0)
    assert settings.verify is True


def test_fields_that_a_form_saves_blank_count_as_missing() -> None:
    blank = {"region": "", "platform_host": " ", "timeout": None, "proxies": "", "verify": ""}
    assert read(host="", schema="", extra=blank) == read()


@pytest.mark.parametrize(
    "extra", [{"extra__coveo__region": "eu"}, {"extra__coveo__region": "eu", "region": "eu"}]
)
def test_a_field_can_have_the_prefixed_name_that_the_form_of_airflow_2_saves(extra: dict[str, str]) -> None:
    assert read(extra=extra) == read(extra={"region": "eu"})


def test_a_custom_host_also_replaces_the_platform_host() -> None:
    settings = read(host="http://127.0.0.1", port=8642)
    assert settings.push_url == settings.platform_url == "http://127.0.0.1:8642"
    assert settings.region is None
    other = read(host="https://push.example.com", extra={"platform_host": "platform.example.com"})
    assert other.platform_url == "https://platform.example.com"


@pytest.mark.parametrize(
    "host",
    [
        *("https://api-eu.cloud.coveo.com", "API-EU.cloud.coveo.com.", "api-eu.cloud.coveo.com:443"),
        *("https://platform-eu.cloud.coveo.com", "platform-eu.cloud.coveo.com/"),
    ],
)
@pytest.mark.parametrize("extra", [{}, {"region": "eu"}])
def test_one_of_coveo_s_own_hosts_determines_the_region(host: str, extra: dict[str, str]) -> None:
    assert read(host=host, extra=extra) == read(extra={"region": "eu"})
    with pytest.raises(CoveoConfigurationError, match="that of region eu, but its region is 'us'"):
        read(host=host, extra={"region": "us"})
    own = read(host=host, extra={"platform_host": "platform.example.com"})
    assert (own.push_url, own.platform_url) == (
        "https://api-eu.cloud.coveo.com", "https://platform.example.com"
    )  # fmt: skip


@pytest.mark.parametrize("port", [None, 0, 443, "443", ""])
def test_without_a_host_the_port_can_only_be_that_of_https(port: Any) -> None:
    assert read(port=port) == read()
    with pytest.raises(CoveoConfigurationError, match="port 8443, but no host"):
        read(port=8443)


def test_a_passed_organization_takes_precedence_over_the_login() -> None:
    assert read(organization_id="other").organization_id == "other"
    with pytest.raises(CoveoConfigurationError, match="blank"):
        read(organization_id=" ")


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 0), ("", 0), ("0", 0), ("8.2", 8.2), (3, 3), (30, 30)]
)
def test_a_call_interval_is_a_number_of_seconds(given: Any, expected: float) -> None:
    assert read(extra={"call_interval": given}).call_interval == expected


@pytest.mark.parametrize("given", ["-1", "soon", 31, True, "nan", [1]])
def test_an_invalid_call_interval_is_rejected(given: Any) -> None:
    with pytest.raises(CoveoConfigurationError, match="call_interval"):
        read(extra={"call_interval": given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [("5", (5, 5)), ("5, 30", (5, 30)), (7, (7, 7)), ([2, 3.5], (2, 3.5)), ("", (10, 60))],
)
def test_a_timeout_is_one_number_or_two(given: Any, expected: tuple[float, float]) -> None:
    assert read(extra={"timeout": given}).timeout == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, True), ("true", True), ("False", False), (False, False), ("0", False), (__file__, __file__),
    ],
)  # fmt: skip
def test_verify_is_a_boolean_or_the_path_of_a_file(given: Any, expected: Any) -> None:
    assert read(extra={"verify": given}).verify == expected


@pytest.mark.parametrize(
    "given",
    [{"https": "http://p:1"}, '{"https": "http://p:1"}'],
)
def test_proxies_are_an_object_or_its_json(given: Any) -> None:
    assert read(extra={"proxies": given}).proxies == {"https": "http://p:1"}


def test_a_single_proxy_is_used_for_both_schemes() -> None:
    assert read(extra={"proxies": "http://p:1"}).proxies == {"http": "http://p:1", "https": "http://p:1"}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"login": None}, "organization"),
        ({"login": "a/b"}, "organization"),
        ({"login": "a b"}, "organization"),
        ({"password": None}, "API key"),
        ({"password": "  "}, "API key"),
        ({"password": f"{KEY}\n{KEY}"}, "API key"),
        ({"password": f"{KEY}é"}, "API key"),
        ({"extra": {"region": "mars"}}, "region"),
        ({"extra": {"region": 3}}, "region"),
        ({"host": "http://example.com"}, "http"),
        ({"extra": {"platform_host": "http://example.com"}}, "platform_host"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"timeout": 0}}, "timeout"),
        ({"extra": {"timeout": "1,2,3"}}, "timeout"),
        ({"extra": {"timeout": True}}, "timeout"),
        ({"extra": {"timeout": "nan"}}, "timeout"),
        ({"extra": {"proxies": "{broken"}}, "proxies"),
        ({"extra": {"proxies": 7}}, "proxies"),
        ({"extra": {"proxies": {"https": "http://user:xx564559@127.0.0.1:99999"}}}, "proxy"),
        ({"extra": {"proxies": {"htps": "http://127.0.0.1:3128"}}}, "htps"),
        ({"extra": [1]}, "extra"),
        ({"extra": '{"region": "eu",}'}, "line 1, column 17"),
        ({"extra": "region=eu"}, "extra"),
        ({"extra": "{"}, "extra"),
        ({"extra": '"eu"'}, "not an object"),
        ({"extra": "[]"}, "not an object"),
        ({"extra": "null"}, "not an object"),
        ({"extra": "7"}, "not an object"),
        ({"extra": '"{\\"region\\": \\"eu\\"}"'}, "not an object"),
        ({"extra": "[" * 100_000}, "extra"),
        ({"extra": '{"region": "us", "region": "eu"}'}, "'region' twice"),
        ({"extra": '{"region": "eu"} {}'}, "extra"),
        ({"extra": '{"proxies": "http://user:xx564559@p:1"'}, "extra"),
        ({"extra": {"regoin": "eu"}}, r"regoin.*Spell it region"),
        ({"extra": {"extra__coveo__regoin": "eu"}}, "Spell it region"),
        ({"extra": {"extra__coveo__region": "eu", "region": "us"}}, "twice, with different values"),
        ({"extra": {"proxy": "http://p:1"}}, "Spell it proxies"),
        ({"extra": {"platform-host": "https://p"}}, "Spell it platform_host"),
        ({"extra": {"timeouts": 5}}, "Spell it timeout"),
        ({"extra": {" region": "eu"}}, "Spell it region"),
        ({"extra": {"colour": "red"}}, "colour.*Remove it"),
        ({"extra": {"region": ["eu"]}}, "region"),
        ({"extra": {"region": {}}}, "region"),
        ({"extra": {"region": True}}, "region"),
        ({"extra": {"platform_host": 7}}, "platform_host"),
        ({"extra": {"platform_host": "eu"}}, "name of a region"),
        ({"extra": {"timeout": {"10": 60}}}, "timeout"),
        ({"extra": {"timeout": [True, 5]}}, "timeout"),
        ({"extra": {"timeout": [5, None]}}, "timeout"),
        ({"extra": {"timeout": 10**400}}, "timeout"),
        ({"extra": {"total_timeout": 0}}, "total_timeout"),
        ({"extra": {"total_timeout": "1,2"}}, "total_timeout"),
        ({"extra": {"total_timeout": True}}, "total_timeout"),
        ({"extra": {"total_timeout": 86_401}}, "total_timeout"),
        ({"extra": {"call_interval": [1]}}, "call_interval"),
        ({"extra": {"verify": {}}}, "verify"),
        ({"extra": {"verify": []}}, "verify"),
        ({"extra": {"verify": 0.5}}, "verify"),
        ({"extra": {"proxies": []}}, "proxies"),
        ({"extra": {"proxies": {"https": 3128}}}, "proxies"),
        ({"host": "http://127.0.0.1:1", "extra": {"proxies": "http://p:1"}}, "in clear"),
        ({"host": "localhost", "extra": {"proxies": {"http": "p:1"}}}, "in clear"),
        ({"host": "localhost", "extra": {"proxies": {"all://localhost": "p:1"}}}, "in clear"),
        ({"extra": {"platform_host": "http://[::1]:1", "proxies": "https://p:1"}}, "in clear"),
        ({"schema": "eu"}, "schema.*region"),
        ({"schema": "ftp", "host": "p.example.com"}, "schema"),
        ({"schema": "http"}, "schema"),
        ({"extra": {"Region": "eu"}}, "Region"),
        ({"extra": {"verify": "x" * 100_000}}, "verify"),
        ({"password": "Bearer xx"}, "space"),
        ({"login": "None"}, "template"),
        ({"host": "https://a..b"}, "host"),
        ({"host": "https://*.com"}, "host"),
        ({"host": "x" * 300 + ".com"}, "host"),
        ({"host": "[::1"}, "host"),
        ({"host": "127.0.0.1", "port": 99999}, "port"),
        ({"extra": {"verify": "/no/such/bundle.pem"}}, "verify"),
    ],
)
def test_the_error_of_an_invalid_setting_names_it_without_secrets(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(CoveoConfigurationError, match=names) as refused:
        read(**fields)
    assert KEY not in str(refused.value)
    assert "xx564559" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("extra", [None, "", "  ", "{}", {}, '{"region": null}', b'{"region": ""}'])
def test_an_empty_extra_is_the_same_as_none(extra: Any) -> None:
    assert read(extra=extra) == read()


def test_the_extra_can_be_json_text() -> None:
    settings = read(extra='{"region": "eu", "timeout": "5,20", "total_timeout": "90"}')
    assert settings.push_url == "https://api-eu.cloud.coveo.com"
    assert settings.timeout == (5, 20)
    assert settings.total_seconds(10**9) == 90


def test_no_representation_shows_the_key() -> None:
    assert KEY not in repr(read())
    assert KEY not in str(read())
