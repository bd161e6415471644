"""What every service is as an HTTP server: guards before bodies, limits, logs, operations."""

import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, cast

import pytest
import structlog
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from jose.backends.base import Key
from pydantic import BaseModel, ConfigDict

from services.common.errors import NotFound, ServiceError, Unavailable
from services.common.http import listen, new_router, service_app
from services.common.http_methods import Cors
from services.common.identity import AnyCaller, TokenVerifier
from services.common.logs import configure_logging
from services.common.observe import log

LIMIT = 1000

router = new_router(tag="samples")


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    size: float


class Gone(ServiceError):
    """A sample that has gone."""

    status = 410
    code = "gone"


@router.post("/samples")
async def take(body: Sample) -> dict[str, str]:
    return {"name": body.name}


@router.post("/private")
async def take_from_known(body: Sample, caller: AnyCaller) -> dict[str, str]:
    return {"name": body.name}


@router.get("/things/{name}")
async def read(name: str) -> dict[str, str]:
    return {"name": name}


@router.put("/things/{name}")
async def write(name: str, body: Sample) -> dict[str, str]:
    return {"name": body.name}


@router.get("/broken/{how}")
async def break_down(how: str) -> None:
    failures: dict[str, Exception] = {
        "bug": ZeroDivisionError("SELECT secret FROM /etc/passwd"),
        "busy": Unavailable("Come back later.", retry_after_s=7),
        "gone": Gone("It has gone.", since="yesterday"),
        "unknown": NotFound(),
    }
    raise failures[how]


class NoKeys:
    async def find(self, kid: str) -> Key | None:
        return None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def database() -> str | None:
        return cast(str | None, app.state.ailment)

    app.state.ailment = None
    app.state.verifier = TokenVerifier(NoKeys(), issuer="http://auth.test")
    app.state.checks = {"database": database}
    yield


@pytest.fixture
async def app() -> AsyncIterator[FastAPI]:
    app = service_app(
        title="Sample",
        description="A service.",
        token_url="http://auth.test/token",
        lifespan=lifespan,
        max_body_bytes=LIMIT,
        cors=Cors(["http://page.test"], ["GET", "PUT"], ["Authorization"], ["X-Request-ID"]),
    )
    app.include_router(router)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://sample.test") as client:
        yield client


def assert_problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:tollgate:problem:{code}"
    assert body["status"] == status
    assert body["instance"] == answer.request.url.path
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"title", "detail"} <= set(body)


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/broken/unknown", 404, "not_found"),
            ("/broken/gone", 410, "gone"),
            ("/broken/busy", 503, "unavailable"),
            ("/broken/bug", 500, "internal_error"),
            ("/nowhere", 404, "not_found"),
            ("/samples", 405, "method_not_allowed"),
        ],
    )
    async def test_each_is_a_problem_document(
        self, client: AsyncClient, path: str, status: int, code: str
    ) -> None:
        answer = await client.get(path)

        assert_problem(answer, status, code)
        assert "passwd" not in answer.text

    async def test_they_may_carry_headers_and_members(self, client: AsyncClient) -> None:
        busy, gone = await client.get("/broken/busy"), await client.get("/broken/gone")

        assert busy.headers["Retry-After"] == "7"
        assert gone.json()["since"] == "yesterday"

    async def test_a_body_that_does_not_fit_names_every_field_and_repeats_nothing(
        self, client: AsyncClient
    ) -> None:
        answer = await client.post("/samples", json={"size": "hunter2", "password": "hunter2"})

        assert_problem(answer, 422, "invalid_input")
        named = {tuple(error["loc"]) for error in answer.json()["errors"]}
        assert named == {("body", "name"), ("body", "size"), ("body", "password")}
        assert all(set(error) == {"loc", "msg"} for error in answer.json()["errors"])
        assert "hunter2" not in answer.text

    async def test_at_most_fifty_are_named_and_names_are_clipped(self, client: AsyncClient) -> None:
        unexpected = {f"é\n{n}": 1 for n in range(60)}
        answer = await client.post("/samples", json=unexpected)

        errors = answer.json()["errors"]
        assert len(errors) == 50
        assert all(name.isascii() and "\n" not in name for error in errors for name in error["loc"])

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b"\xef\xbb\xbf{}",
            b'{"name": "\\ud800", "size": 1}',
            b'{"name": "x", "size": NaN}',
            b'{"name": "x", "size": Infinity}',
            b'{"name": "x", "size": 1e400}',
            b'{"name": "x", "size": true}',
            b'{"name": "x", "size": "1"}',
            b'{"name": "x", "size": ' + b"9" * 900 + b"}",
            b"[" * 900,
            b"null",
            b'"text"',
        ],
    )
    async def test_hostile_json_is_the_clients_fault(
        self, client: AsyncClient, body: bytes
    ) -> None:
        answer = await client.post(
            "/samples", content=body, headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 422, "invalid_input")


class TestBodies:
    async def test_an_anonymous_body_is_not_even_read(self, client: AsyncClient) -> None:
        read = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            for _ in range(16):
                read += 1
                yield b"{bad json" * 7000

        answer = await client.post("/private", content=body())

        assert_problem(answer, 401, "invalid_token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert read == 0

    async def test_a_large_one_is_413_whether_announced_or_not(self, client: AsyncClient) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1
                yield b"x" * 100

        announced = await client.post("/samples", content=b"x" * (LIMIT + 1))
        assert_problem(announced, 413, announced.json()["type"].rpartition(":")[2])

        chunked = await client.post("/samples", content=endless())
        assert chunked.status_code == 413
        assert read <= LIMIT / 100 + 2

    async def test_a_compressed_one_is_415(self, client: AsyncClient) -> None:
        for encoding in ("gzip", "br", "deflate", "zstd"):
            answer = await client.post(
                "/samples", content=b"\x1f\x8b", headers={"Content-Encoding": encoding}
            )

            assert_problem(answer, 415, "unsupported_media_type")

    async def test_a_good_one_is_taken(self, client: AsyncClient) -> None:
        answer = await client.post("/samples", json={"name": "x", "size": 1.5})

        assert (answer.status_code, answer.json()) == (200, {"name": "x"})


class TestDuplicateMembers:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"name": "x", "size": 1, "size": 2}',
            b'{"name":"x","size":1,"size":1}',
            b'{"name":"x","size":1,"si\\u007ae":2}',
            b'{"name":"x","size":{"a":1,"a":1}}',
            b'[{"name":"x"},{"a":[{"b":1,"b":2}]}]',
        ],
    )
    async def test_they_are_refused(self, client: AsyncClient, body: bytes) -> None:
        answer = await client.post(
            "/samples", content=body, headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 400, "duplicate_member")

    async def test_a_token_is_asked_for_before(self, client: AsyncClient) -> None:
        answer = await client.post(
            "/private", content=b'{"a":1,"a":2}', headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 401, "invalid_token")

    @pytest.mark.parametrize(
        "text", ['{"name" : "a:b", "size": 1}', '{"size":1e0,"name":"\\u0061"}']
    )
    async def test_what_only_looks_otherwise_is_taken(self, client: AsyncClient, text: str) -> None:
        answer = await client.post(
            "/samples", content=text.encode(), headers={"Content-Type": "application/json"}
        )

        assert answer.status_code == 200


class TestMethods:
    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/things/x"])
    async def test_head_is_get_without_a_body(self, client: AsyncClient, path: str) -> None:
        got, asked = await client.get(path), await client.head(path)

        assert asked.status_code == got.status_code == 200
        assert asked.headers["content-type"] == got.headers["content-type"]
        assert int(asked.headers["content-length"]) > 0
        assert asked.content == b""

    async def test_head_is_counted_under_its_route(self, client: AsyncClient) -> None:
        await client.head("/things/x")

        text = (await client.get("/metrics")).text

        assert 'http_requests_total{method="HEAD",route="/things/{name}",status="200"} 1.0' in text

    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/healthz", "GET, HEAD, OPTIONS"),
            ("/samples", "POST, OPTIONS"),
            ("/things/x", "GET, HEAD, PUT, OPTIONS"),
            ("/docs/assets/favicon.png", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_all_methods_of_a_path_are_named(
        self, client: AsyncClient, path: str, allow: str
    ) -> None:
        options = await client.options(path)
        refused = await client.delete(path)

        assert (options.status_code, options.headers["allow"]) == (204, allow)
        assert options.headers["x-request-id"]
        assert_problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == allow

    async def test_head_of_a_path_without_get_is_refused(self, client: AsyncClient) -> None:
        answer = await client.head("/samples")

        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
    async def test_an_unknown_path_is_404_to_all(self, client: AsyncClient, method: str) -> None:
        assert (await client.request(method, "/nowhere")).status_code == 404


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["/samples/", "/healthz/", "/things/x/", "/docs/", "/docs/assets", "//"],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
    async def test_none_is_redirected_to(self, client: AsyncClient, method: str, path: str) -> None:
        answer = await client.request(method, f"http://sample.test{path}")

        assert answer.status_code == 404
        assert "location" not in answer.headers


class TestCors:
    PAGE: ClassVar = {"Origin": "http://page.test"}

    async def test_a_listed_page_may_call_and_read(self, client: AsyncClient) -> None:
        preflight = await client.options(
            "/things/x", headers=self.PAGE | {"Access-Control-Request-Method": "PUT"}
        )
        answer = await client.get("/things/x", headers=self.PAGE)

        assert preflight.status_code == 200
        assert preflight.headers["x-request-id"]
        for each in (preflight, answer):
            assert each.headers["access-control-allow-origin"] == "http://page.test"
            assert "access-control-allow-credentials" not in each.headers
        assert answer.headers["access-control-expose-headers"] == "X-Request-ID"

    async def test_no_other_page_may(self, client: AsyncClient) -> None:
        other = {"Origin": "http://other.test", "Access-Control-Request-Method": "PUT"}

        for answer in (
            await client.options("/things/x", headers=other),
            await client.get("/things/x", headers=other),
        ):
            assert "access-control-allow-origin" not in answer.headers


class TestDocsPage:
    async def test_it_cannot_be_framed_and_runs_no_script_but_its_own(
        self, client: AsyncClient
    ) -> None:
        page = await client.get("/docs")

        policy = dict(
            part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ")
        )
        assert page.headers["x-frame-options"] == "DENY"
        assert policy["frame-ancestors"] == policy["default-src"] == "'none'"
        assert "unsafe" not in policy["script-src"]
        assert policy["connect-src"] == "'self' http://auth.test"
        assert "'unsafe-eval'" not in str(policy)


class TestOpenApi:
    async def test_content_types_are_as_answered(self, client: AsyncClient) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]

        assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
        for operation in (paths["/samples"]["post"], paths["/things/{name}"]["put"]):
            assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
            assert list(operation["responses"]["default"]["content"]) == [
                "application/problem+json"
            ]


class TestRequestIds:
    async def test_a_sane_one_is_kept(self, client: AsyncClient) -> None:
        answer = await client.get("/healthz", headers={"X-Request-ID": "abc-1.2:3_4"})

        assert answer.headers["x-request-id"] == "abc-1.2:3_4"

    @pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "é", '"}', "${jndi:ldap://x}"])
    async def test_any_other_is_replaced(self, client: AsyncClient, sent: str) -> None:
        answer = await client.get("/healthz", headers=[(b"X-Request-ID", sent.encode())])

        assert answer.headers["x-request-id"] not in ("", sent)


class TestOperations:
    async def test_ready_names_what_fails(self, app: FastAPI, client: AsyncClient) -> None:
        assert (await client.get("/readyz")).json() == {"status": "ok", "failing": {}}

        app.state.ailment = "It is away."
        answer = await client.get("/readyz")

        assert answer.status_code == 503
        assert answer.json()["failing"] == {"database": "It is away."}
        assert answer.headers["Retry-After"] == "1"
        assert (await client.get("/healthz")).status_code == 200

    async def test_a_scrape_tells_what_ready_last_answered(
        self, app: FastAPI, client: AsyncClient
    ) -> None:
        told = []
        for ailment in (None, "It is away.", None):
            app.state.ailment = ailment
            await client.get("/readyz")
            told.append("\nservice_ready 1.0\n" in (await client.get("/metrics")).text)

        assert told == [True, False, True]

    async def test_metrics_count_by_route_and_not_by_path(self, client: AsyncClient) -> None:
        for path in ("/broken/gone", "/broken/unknown", "/nowhere/1", "/nowhere/2"):
            await client.get(path)
        await client.request("BREW", "/nowhere")

        text = (await client.get("/metrics")).text

        assert 'route="/broken/{how}",status="410"} 1.0' in text
        assert 'http_requests_total{method="GET",route="unmatched",status="404"} 2.0' in text
        assert 'method="other"' in text
        assert "nowhere" not in text

    async def test_the_docs_page_needs_no_other_host(self, client: AsyncClient) -> None:
        page = await client.get("/docs")

        assert "//" not in page.text.replace("http://sample.test", "").split("<script>")[0]
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
            assert (await client.get(f"/docs/assets/{asset}")).status_code == 200

    def test_a_port_in_use_is_one_clear_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
            listen("127.0.0.1", taken.getsockname()[1], variable="SAMPLE_PORT")

        said = capsys.readouterr().err
        assert said.startswith("error: SAMPLE_PORT: cannot listen on 127.0.0.1:")
        assert said.count("\n") == 1


@contextmanager
def logging_as_a_service() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("sample")
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class TestLogs:
    @pytest.mark.parametrize(
        "hostile",
        [
            "a\r\nb",
            "\x1b[31mred\x1b[0m",
            "${jndi:ldap://evil.test/a}",
            "x" * 1_000_000,
            "\u2028é\0",
        ],
    )
    async def test_whatever_is_sent_is_one_json_line(
        self, client: AsyncClient, capsys: pytest.CaptureFixture[str], hostile: str
    ) -> None:
        headers = [(b"user-agent", hostile.encode()), (b"x-request-id", hostile.encode())]
        with logging_as_a_service():
            await client.get("/nowhere", headers=headers, params={"token": "hunter2"})
            log.info("hostile", value=hostile)
            logging.getLogger("foreign").warning("hostile %s", hostile)

        said = capsys.readouterr().err
        lines = [json.loads(line) for line in said.splitlines()]
        assert [line["event"][:7] for line in lines] == ["request", "hostile", "hostile"]
        assert all(line["service"] == "sample" for line in lines)
        assert said.isascii()
        assert "\x1b" not in said
        assert len(said) < 10_000
        assert "hunter2" not in said

    async def test_a_bug_is_one_line_with_its_trace_and_request(
        self, client: AsyncClient, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with logging_as_a_service():
            answer = await client.get("/broken/bug")

        error, request = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert (error["event"], error["level"]) == ("unhandled_error", "error")
        assert "ZeroDivisionError" in error["exception"]
        assert error["request_id"] == request["request_id"] == answer.headers["x-request-id"]
        assert request["status"] == 500
