"""What every response carries, and which requests are refused by their head alone."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from harness.raw_http import Connection, head
from services.billing.settings import BillingSettings
from services.common.http.protocol import MAX_HEADERS
from services.common.http.server import SECURITY_HEADERS
from tests.integration.echo import running_echo

HOSTS = ("api.example.com", "*.internal", "[::1]")
GET = b"GET /echo HTTP/1.1"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_echo("asyncio") as port:
        yield port


@pytest.fixture(scope="module")
def limited_port() -> Iterator[int]:
    """The port of a service that serves only `HOSTS`."""
    with running_echo("uvloop", trusted_hosts=HOSTS) as port:
        yield port


def answer_to(port: int, *lines: bytes, start: bytes = GET) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the response to a head."""
    with Connection(port) as connection:
        connection.send(head(*lines, start=start))
        status, headers, _ = connection.read()
    return status, headers


class TestSecurityHeaders:
    @pytest.mark.parametrize(
        ("start", "lines", "status"),
        [
            (GET, [b"Host: x"], 200),
            (b"GET /early/404 HTTP/1.1", [b"Host: x"], 404),
            (b"GET /early/500 HTTP/1.1", [b"Host: x"], 500),
            (GET, [b"Host: x", b"Host: y"], 400),
            (GET, [b"Host: x", *[b"A: b"] * MAX_HEADERS], 431),
        ],
    )
    def test_answers_errors_and_refusals_have_them(
        self, port: int, start: bytes, lines: list[bytes], status: int
    ) -> None:
        answered, headers = answer_to(port, *lines, start=start)

        assert answered == status
        assert dict(SECURITY_HEADERS).items() <= headers.items()


class TestNumberOfHeaders:
    def test_it_is_limited_however_short_they_are(self, port: int) -> None:
        most = [b"a:b"] * (MAX_HEADERS - 1)

        assert answer_to(port, b"Host: x", *most)[0] == 200
        assert answer_to(port, b"Host: x", *most, b"a:b")[0] == 431


class TestTrustedHosts:
    @pytest.mark.parametrize(
        "host",
        [b"api.example.com", b"API.example.com:8443", b"a.b.internal", b"[::1]:80"],
    )
    def test_a_listed_host_is_served(self, limited_port: int, host: bytes) -> None:
        assert answer_to(limited_port, b"Host: " + host)[0] == 200

    @pytest.mark.parametrize(
        "host",
        [b"evil.test", b"api.example.com.evil.test", b"xapi.example.com", b"internal", b""],
    )
    def test_another_host_is_refused(self, limited_port: int, host: bytes) -> None:
        assert answer_to(limited_port, b"Host: " + host)[0] == 421

    def test_a_dot_in_a_name_is_only_a_dot(self, limited_port: int) -> None:
        assert answer_to(limited_port, b"Host: apixexample.com")[0] == 421

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            (b"/healthz", 200),
            (b"/readyz", 200),
            (b"/metrics?x=1", 200),
            (b"/healthz/x", 421),
            (b"/x/healthz", 421),
        ],
    )
    def test_probes_may_use_the_address_of_a_pod(
        self, limited_port: int, path: bytes, status: int
    ) -> None:
        start = b"GET %b HTTP/1.1" % path

        assert answer_to(limited_port, b"Host: 10.1.2.3:8001", start=start)[0] == status

    def test_without_the_setting_every_host_is_served(self, port: int) -> None:
        assert answer_to(port, b"Host: anything")[0] == 200

    @pytest.mark.parametrize("value", ["*", "https://a.example", "a.example:80", "a b/c", ".a"])
    def test_what_is_not_a_host_name_prevents_the_start(self, value: str) -> None:
        with pytest.raises(ValidationError):
            BillingSettings.model_validate({"trusted_hosts": value})
