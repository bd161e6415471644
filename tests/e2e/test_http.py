"""The three services as their clients reach them: raw sockets, a real proxy, urllib and Java."""

import json
import subprocess
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from harness.platform import Platform
from harness.raw_http import WAIT_S, Connection, head
from harness.reverse_proxies import proxied
from harness.samples import PREDICT, WINE
from harness.waiting import eventually
from services.common.http.server import SECURITY_HEADERS

SERVICES = ("auth", "inference", "billing")
ATTEMPTS = 20
TOO_MUCH = b"x" * (20 * 1024 * 1024)


@pytest.fixture(scope="module")
def ingress(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an nginx in front of inference."""
    folder = tmp_path_factory.mktemp("ingress")
    with proxied("nginx", platform.ports["inference"], folder) as port:
        yield port


@pytest.mark.parametrize("service", SERVICES)
class TestEveryService:
    def test_a_body_after_an_upgrade_is_not_a_request(
        self, platform: Platform, service: str
    ) -> None:
        smuggled = head(b"Host: x", start=b"GET /smuggled HTTP/1.1")
        lines = (b"Host: x", b"Connection: upgrade", b"Upgrade: x")
        length = b"Content-Length: %d" % len(smuggled)
        with Connection(platform.ports[service]) as connection:
            connection.send(head(*lines, length, start=b"GET /healthz HTTP/1.1"))
            first = connection.read()
            connection.send(smuggled + head(b"Host: x", start=b"GET /readyz HTTP/1.1"))
            second = connection.read()

        assert first[2] == {"status": "ok"}
        assert second[2] == {"status": "ok", "failing": {}}

    @pytest.mark.parametrize(
        ("status", "lines"),
        [
            (400, [b"A: b"]),
            (400, [b"Host: x", b"Host: x"]),
            (400, [b"Host: x", b"Content-Length: 1", b"Transfer-Encoding: chunked"]),
            (400, [b"Host: x", b"A: b", b" c"]),
            (400, [b"Host: x\nA: b"]),
            (501, [b"Host: x", b"Transfer-Encoding: gzip, chunked"]),
            (431, [b"Host: x", b"A: " + b"x" * 70_000]),
        ],
        ids=["no host", "two", "two lengths", "folded", "bare LF", "coding", "large"],
    )
    def test_an_ambiguous_request_ends_the_connection(
        self, platform: Platform, service: str, status: int, lines: list[bytes]
    ) -> None:
        with Connection(platform.ports[service]) as connection:
            connection.send(head(*lines, start=b"GET /healthz HTTP/1.1"))

            assert connection.read()[0] == status
            assert connection.is_closed()


@pytest.mark.parametrize(
    ("service", "path", "status", "with_token"),
    [
        ("auth", "/register", 413, False),
        ("auth", "/clients", 401, False),
        ("billing", "/events", 401, False),
        ("inference", PREDICT, 401, False),
        ("inference", PREDICT, 413, True),
    ],
)
def test_a_response_before_the_body_reaches_a_client_that_closes(
    platform: Platform, service: str, path: str, status: int, with_token: bool
) -> None:
    headers = {"Content-Type": "application/json"}
    if with_token:
        headers["Authorization"] = f"Bearer {platform.new_token()}"

    for _ in range(15):
        request = Request(f"{platform.urls[service]}{path}", data=TOO_MUCH, headers=headers)
        with pytest.raises(HTTPError) as refused, urlopen(request, timeout=WAIT_S):
            pass
        with refused.value as answer:
            assert answer.code == status
            assert json.load(answer)["status"] == status


@pytest.mark.parametrize("service", SERVICES)
def test_every_response_has_the_security_headers(platform: Platform, service: str) -> None:
    with platform.client(service, platform.new_token()) as client:
        answers = [
            client.get("/healthz"),
            client.get("/docs"),
            client.get("/nowhere"),
            client.delete("/healthz"),
            client.get("/openapi.json", headers={"X-Long": "x" * 70_000}),
        ]
        if service == "inference":  # the first by the app, the later ones by the fast path
            answers += [client.post(PREDICT, json=WINE) for _ in range(3)]

    assert [answer.status_code for answer in answers[:5]] == [200, 200, 404, 405, 431]
    for answer in answers:
        for name, value in SECURITY_HEADERS:
            assert answer.headers.get_list(name) == [value]


def test_a_strangers_unfinished_request_does_not_take_over_another_callers(
    platform: Platform, ingress: int
) -> None:
    # A parser skips blank lines before a request, so the next may begin wherever a read ends.
    smuggled = b"\r\n" * 200_000 + b"POST /v1/models/other:predict HTTP/1.1\r\nHost: x\r\nX-Rest: "
    attack = head(
        b"Host: x",
        b"Connection: upgrade",
        b"Upgrade: anything",
        b"Content-Length: %d" % len(smuggled),
        start=b"POST /v1/models/wine:predict HTTP/1.1",
    )
    token = platform.new_token()
    body = json.dumps({"instances": [WINE]}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    for _ in range(ATTEMPTS):
        with Connection(ingress) as stranger:
            stranger.send(attack + smuggled)
            assert stranger.read()[0] == 401
        request = Request(f"http://127.0.0.1:{ingress}{PREDICT}", data=body, headers=headers)
        with urlopen(request, timeout=WAIT_S) as answer:
            assert answer.headers["X-Model-Name"] == "wine"

    eventually(lambda: platform.usage(token)["requests"] >= ATTEMPTS)
    assert platform.usage(token)["requests"] == ATTEMPTS


@pytest.mark.costly
@pytest.mark.parametrize("way", ["direct", "behind nginx"])
def test_a_java_client_with_defaults_predicts(
    platform: Platform, ingress: int, java_client: list[str], way: str
) -> None:
    port = ingress if way == "behind nginx" else platform.ports["inference"]

    result = subprocess.run(
        [
            *java_client,
            f"http://127.0.0.1:{port}{PREDICT}",
            json.dumps({"instances": [WINE]}),
            "3",
            platform.new_token(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.stdout.splitlines() == ['200 {"predictions":[0]}'] * 3, result.stderr
