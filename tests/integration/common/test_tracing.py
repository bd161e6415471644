"""The content of spans, what they leave out, and their traces."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text

from harness.otlp_collector import CollectedSpan, Collector, collecting
from harness.ports import free_port
from services.common.db.database import Database
from services.common.errors import Unavailable
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.common.http.routing import new_router
from services.common.telemetry import open_tracing
from services.common.telemetry import tracing as tracing_module
from services.common.telemetry.tracing import Tracing
from tests.integration.common.sample import ADDRESSES

SECRET = "hunter2"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

router = new_router(tag="samples")


@router.get("/samples/{name}")
async def show(name: str) -> str:
    return name


@router.get("/broken/{name}")
async def break_down(name: str) -> None:
    raise Unavailable(f"{name} is broken.")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def tracing(collector: Collector) -> Iterator[Tracing]:
    tracing = open_tracing("sample", endpoint=collector.url)
    assert tracing is not None
    yield tracing
    tracing.close()


@asynccontextmanager
async def traced_client(tracing: Tracing) -> AsyncIterator[AsyncClient]:
    """Yield a client of a service with tracing; all spans are sent when the block ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.checks = {}
        yield

    app = service_app(
        title="Sample",
        description="A service.",
        token_url="http://auth.test/token",
        addresses=ADDRESSES,
        lifespan=lifespan,
        max_body_bytes=1000,
        tracing=tracing,
    )
    app.include_router(router)
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://sample.test") as client,
    ):
        yield client


def only(collector: Collector) -> CollectedSpan:
    [span] = collector.spans
    return span


class TestRequests:
    async def test_a_span_has_the_route_and_the_response_but_no_caller_input(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        headers = {"Authorization": f"Bearer {SECRET}", "User-Agent": SECRET, "tracestate": "a=b"}
        async with traced_client(tracing) as client:
            answer = await client.get(
                f"/samples/{SECRET}?of={SECRET}",
                headers=headers | {"traceparent": f"00-{TRACE}-{SPAN}-01"},
            )

        span = only(collector)
        assert (span.service, span.name) == ("sample", "GET /samples/{name}")
        assert (span.trace, span.parent) == (TRACE, SPAN)
        assert span.attributes == {
            "http.request.method": "GET",
            "http.route": "/samples/{name}",
            "http.response.status_code": 200,
            "http.response.header.x-request-id": answer.headers["X-Request-ID"],
        }
        assert SECRET not in collector.texts[0]

    async def test_a_failure_is_recorded_without_its_message(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        async with traced_client(tracing) as client:
            await client.get(f"/broken/{SECRET}")

        assert only(collector).attributes["http.response.status_code"] == 503
        assert "STATUS_CODE_ERROR" in collector.texts[0]
        assert SECRET not in collector.texts[0]

    @pytest.mark.parametrize(
        "traceparent",
        ["", "00", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-01" * 99],
    )
    async def test_an_invalid_traceparent_is_ignored(
        self, collector: Collector, tracing: Tracing, traceparent: str
    ) -> None:
        async with traced_client(tracing) as client:
            await client.get("/samples/one", headers={"traceparent": traceparent})

        assert only(collector).parent == ""
        assert only(collector).trace not in (TRACE, "0" * 32)

    async def test_a_trace_that_the_caller_does_not_sample_is_not_sent(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        async with traced_client(tracing) as client:
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
            assert (await client.get("/samples/one", headers=headers)).status_code == 200

        assert collector.spans == []

    async def test_probes_are_not_traced_and_unknown_methods_are_grouped(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        async with traced_client(tracing) as client:
            for path in ("/healthz", "/readyz", "/metrics"):
                await client.get(path)
            await client.request(SECRET.upper(), "/samples/one")

        assert only(collector).attributes["http.request.method"] == "_OTHER"
        assert SECRET.upper() not in collector.texts[0]


class TestCalls:
    async def test_a_call_has_a_span_whose_id_is_propagated(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        with tracing.start_handover("asking") as traceparent:
            async with http_client(tracing=tracing) as client:
                # This calls the collector itself, which responds 404.
                response = await client.post(f"{collector.url}/usage/{SECRET}", content=b"")
        tracing.close()

        [call] = collector.find(name="POST /usage")
        assert traceparent.split("-")[1:3] == [call.trace, call.parent]
        assert response.request.headers["traceparent"].split("-")[1:3] == [call.trace, call.id]
        assert call.attributes["http.response.status_code"] == 404
        assert SECRET not in "".join(collector.texts)

    def test_work_for_very_many_traces_is_recorded_in_only_some_of_them(
        self, collector: Collector, tracing: Tracing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracing_module, "MAX_FOLLOWED", 2)
        named = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 5)]

        with tracing.follow("bill", named):
            pass
        tracing.close()

        assert [int(span.trace, 16) for span in collector.find(name="bill")] == [1, 2]

    async def test_a_failed_call_records_the_reason(
        self, collector: Collector, tracing: Tracing
    ) -> None:
        async with http_client(tracing=tracing) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{free_port()}/usage")
        tracing.close()

        assert only(collector).attributes["error.type"] == "ConnectError"


class TestStatements:
    async def test_a_statement_is_recorded_without_its_values(
        self, collector: Collector, tracing: Tracing, tmp_path: Path
    ) -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/sample.db", tracing=tracing)
        with tracing.start_handover("storing"):
            async with database.transaction() as session:
                await session.execute(text("CREATE TABLE samples (name TEXT)"))
                await session.execute(text("INSERT INTO samples VALUES (:name)"), {"name": SECRET})
                connection = await session.connection()
                await connection.exec_driver_sql(f"UPDATE samples SET name = '{SECRET}'")
            with pytest.raises(Unavailable):
                async with database.transaction() as session:
                    await session.execute(text("SELECT :name FROM missing"), {"name": SECRET})
        async with database.snapshot() as session:
            await session.execute(text("SELECT 1"))  # outside any trace
        await database.close()
        tracing.close()

        statements = [span for span in collector.spans if span.name not in ("storing", "BEGIN")]
        assert {span.name: span.attributes.get("db.query.text") for span in statements} == {
            "CREATE": "CREATE TABLE samples (name TEXT)",
            "INSERT samples": "INSERT INTO samples VALUES (?)",
            "UPDATE samples": None,
            "SELECT missing": "SELECT ? FROM missing",
        }
        assert statements[-1].attributes["error.type"] == "OperationalError"
        assert SECRET not in "".join(collector.texts)
