"""Billing as an HTTP service: unambiguous JSON bodies, and CORS."""

import orjson
import pytest
from httpx import ASGITransport, AsyncClient

from harness.issuer import Headers
from harness.usage_events import ADA, event, total, used
from tests.integration.billing.conftest import OpenApp

pytestmark = pytest.mark.any_database

JSON = {"Content-Type": "application/json"}


class TestDuplicateMembers:
    async def test_a_credit_with_two_amounts_is_refused(
        self, client: AsyncClient, admin: Headers, ada: Headers
    ) -> None:
        body = '{"amount": "1", "amount": "1000", "currency": "USD", "reason": "x"}'

        answer = await client.post(
            f"/accounts/{ADA}/credits",
            content=body,
            headers=admin | JSON | {"Idempotency-Key": "k"},
        )
        balance = await client.get("/balance", headers=ada)

        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:tollgate:problem:duplicate_member"
        assert "1000" not in balance.text

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/plans"), ("PUT", f"/accounts/{ADA}/plan")]
    )
    async def test_a_plan_with_a_duplicate_member_is_refused(
        self, client: AsyncClient, admin: Headers, method: str, path: str
    ) -> None:
        body = '{"plan": "a", "plan": "b", "prices": [{"model": "a", "model": "b"}]}'

        answer = await client.request(method, path, content=body, headers=admin | JSON)

        assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request")

    async def test_a_lease_request_with_a_duplicate_member_is_refused(
        self, client: AsyncClient, service: Headers
    ) -> None:
        body = '{"journal": "a", "journal": "b"}'

        answer = await client.post("/leases", content=body, headers=service | JSON)

        assert answer.status_code == 400

    @pytest.mark.parametrize("doubled", ["subject", "data"])
    async def test_an_event_with_a_duplicate_member_is_refused(
        self, client: AsyncClient, service: Headers, ada: Headers, doubled: str
    ) -> None:
        good, bad = event(), event()
        text = orjson.dumps([good, bad])
        twice = b'"%b":%b,"%b":' % (
            doubled.encode(),
            orjson.dumps(bad[doubled]),
            doubled.encode(),
        )
        head, member, tail = text.rpartition(b'"%b":' % doubled.encode())

        answer = await client.post(
            "/events",
            content=head + twice + tail,
            headers=service | {"Content-Type": "application/cloudevents-batch+json"},
        )

        assert member
        assert answer.status_code == 400
        assert await total(client, ada) == used(0, 0, "0")

    async def test_a_batch_in_another_notation_is_accepted(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        text = orjson.dumps([event(), event()], option=orjson.OPT_INDENT_2)

        answer = await client.post(
            "/events",
            content=text,
            headers=service | {"Content-Type": "application/cloudevents-batch+json"},
        )

        assert answer.status_code == 202
        assert (await total(client, ada))["requests"] == 2


class TestCors:
    async def test_pages_of_a_listed_origin_may_call(self, open_app: OpenApp) -> None:
        origin = "https://app.example.com"
        async with open_app(cors_origins=(origin,)) as app:
            transport = ASGITransport(app=app)
            async with AsyncClient(transport=transport, base_url="http://billing.test") as client:
                preflight = await client.options(
                    "/usage",
                    headers={
                        "Origin": origin,
                        "Access-Control-Request-Method": "GET",
                        "Access-Control-Request-Headers": "Authorization",
                    },
                )
                refused = await client.get("/usage", headers={"Origin": origin})

        assert preflight.status_code == 200
        assert refused.status_code == 401
        for answer in (preflight, refused):
            assert answer.headers["access-control-allow-origin"] == origin

    async def test_without_origins_no_page_may_call(self, client: AsyncClient) -> None:
        answer = await client.get("/plans", headers={"Origin": "https://app.example.com"})

        assert "access-control-allow-origin" not in answer.headers
