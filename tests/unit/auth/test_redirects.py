"""Which redirect URIs may be registered, and which a request may use."""

import pytest

from services.auth.clients.redirects import (
    find_problem,
    is_registered,
    source_of,
    with_parameters,
)


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.com/callback",
        "https://app.example.com",
        "https://app.example.com:8443/a?b=c",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:9999/callback",
        "http://[::1]:9999/callback",
        "http://localhost:9999/callback",
    ],
)
def test_https_and_loopback_addresses_may_be_registered(uri: str) -> None:
    assert find_problem(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "app.example.com/callback",
        "http://app.example.com/callback",
        "http://127.0.0.2/callback",
        "http://127.0.0.1.example.com/callback",
        "http://localhost.example.com/",
        "ftp://app.example.com/",
        "javascript:alert(1)",
        "data:text/html,x",
        "com.example.app:/callback",
        "//app.example.com/callback",
        "https:///callback",
        "https:app.example.com",
        "https://app.example.com/#fragment",
        "https://user@app.example.com/",
        "https://user:password@app.example.com/",
        "https://@app.example.com/",
        "https://*.example.com/",
        "https://app.example.com;default-src/",
        "https://app.example.com'/",
        "https://app.example.com\\@evil.example.com/",
        "https://app.example.com/\r\nLocation: https://evil.example.com",
        "https://app.example.com/ x",
        "https://app.example.com/é",
        'https://app.example.com/"',
        "https://app.example.com:0/",
        "https://app.example.com:99999/",
        "https://[::1/",
        "https://app.example.com/" + "x" * 500,
    ],
)
def test_nothing_else_may_be_registered(uri: str) -> None:
    assert find_problem(uri) is not None


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.com/callback/",
        "https://app.example.com/callback?x=1",
        "https://app.example.com/Callback",
        "https://app.example.com/a/../callback",
        "https://app.example.com/%63allback",
        "https://APP.example.com/callback",
        "https://app.example.com:443/callback",
        "https://app.example.com./callback",
        "https://app.example.com/callback#x",
        "https://app.example.com@evil.example.com/callback",
        "http://app.example.com/callback",
        "https://app.example.com.evil.example.com/callback",
        "",
    ],
)
def test_a_request_must_name_a_registered_one_exactly(uri: str) -> None:
    registered = ["https://app.example.com/callback"]

    assert is_registered(registered[0], registered)
    assert not is_registered(uri, registered)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://127.0.0.1:51004/callback", True),
        ("http://127.0.0.1/callback", True),
        ("http://127.0.0.1:51004/callback/", False),
        ("http://127.0.0.1:51004/callback?x=1", False),
        ("https://127.0.0.1:51004/callback", False),
        ("http://127.0.0.1:51004@evil.example.com/callback", False),
        ("http://127.0.0.1:99999/callback", False),
        ("http://127.0.0.1:/callback", False),
        ("http://127.0.0.1.evil.example.com/callback", False),
        ("http://[::1]:51004/callback", False),
        ("http://localhost:51004/callback", False),
    ],
)
def test_only_the_port_of_a_loopback_address_may_differ(uri: str, expected: bool) -> None:
    assert is_registered(uri, ["http://127.0.0.1:8000/callback"]) is expected


def test_the_port_of_a_name_may_not_differ() -> None:
    assert not is_registered("http://localhost:2/", ["http://localhost:1/"])
    assert not is_registered("https://app.example.com:2/", ["https://app.example.com:1/"])


def test_parameters_are_added_to_a_query() -> None:
    assert with_parameters("https://a.io/x", {"code": "a b&c"}) == "https://a.io/x?code=a+b%26c"
    assert with_parameters("https://a.io/x?y=1", {"code": "z"}) == "https://a.io/x?y=1&code=z"


def test_a_policy_allows_the_origin_of_a_redirect_uri() -> None:
    assert source_of("http://127.0.0.1:5100/callback?x=1") == "http://127.0.0.1:5100"
    assert source_of("http://[::1]:5100/callback") == "http:"
