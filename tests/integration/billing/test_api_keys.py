"""Billing accepts API keys, which it verifies with a real auth."""

from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from sqlalchemy import Select, select

from harness.auth import SERVICE, RunningAuth, running_auth
from harness.issuer import Headers
from harness.waiting import eventually_async
from services.auth.models import AuditEntry, PendingAuditEntry
from services.common.identity.api_keys import new_api_key
from tests.integration.billing.conftest import OpenApp, browse

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], scope="session")


@pytest.fixture(scope="module")
async def auth(
    new_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningAuth]:
    async with running_auth(new_database_url("sqlite"), tmp_path_factory.mktemp("auth")) as started:
        yield started


@pytest.fixture
async def client(app: FastAPI, open_app: OpenApp, auth: RunningAuth) -> AsyncIterator[AsyncClient]:
    client_id, secret = SERVICE
    async with (
        open_app(
            auth_address=auth.url, client_id=client_id, client_secret=SecretStr(secret)
        ) as own,
        browse(own) as client,
    ):
        yield client


@pytest.mark.costly
async def test_a_key_reads_its_accounts_usage(client: AsyncClient, auth: RunningAuth) -> None:
    key = (await auth.new_key())["key"]

    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        answer = await client.get("/usage", headers=headers)
        assert (answer.status_code, answer.json()["account"]) == (200, auth.account)
        assert (await client.get("/balance", headers=headers)).status_code == 200
        assert (await client.get("/usage/events", headers=headers)).status_code == 200
        assert (await client.get("/plans", headers=headers)).status_code == 200


async def test_a_key_without_the_scope_is_403(client: AsyncClient, auth: RunningAuth) -> None:
    headers = {"X-API-Key": (await auth.new_key(scope="predict"))["key"]}

    assert (await client.get("/usage", headers=headers)).status_code == 403


async def test_no_key_may_administer_or_report_usage(
    client: AsyncClient, auth: RunningAuth
) -> None:
    headers = {"X-API-Key": (await auth.new_key())["key"]}

    assert (await client.get("/sources", headers=headers)).status_code == 403
    assert (await client.post("/leases", json=[], headers=headers)).status_code == 403
    other = "/usage?account=0198a000-0000-7000-8000-0000000000ff"
    assert (await client.get(other, headers=headers)).status_code == 403


async def test_a_key_for_other_addresses_is_403(client: AsyncClient, auth: RunningAuth) -> None:
    key = (await auth.new_key(allowed_ips=["203.0.113.7"]))["key"]

    answer = await client.get("/usage", headers={"X-API-Key": key})

    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:tollgate:problem:address_not_allowed"


async def test_unknown_and_mistyped_keys_and_two_kinds_of_credentials_are_401(
    client: AsyncClient, auth: RunningAuth, ada: Headers
) -> None:
    key = (await auth.new_key())["key"]
    wrong = [
        {"X-API-Key": new_api_key("live")},
        {"X-API-Key": key + "0"},
        {"X-API-Key": ""},
        {"X-API-Key": ada["Authorization"].removeprefix("Bearer ")},
        {"X-API-Key": key} | ada,
    ]

    for headers in wrong:
        for path in ("/usage", "/plans"):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.costly
class TestRevocation:
    """The whole way: an act in auth, its feed, billing's reader, and the next request."""

    async def refuses(self, client: AsyncClient, headers: Headers) -> bool:
        return (await client.get("/usage", headers=headers)).status_code == 401

    async def test_a_deleted_key_is_refused(self, client: AsyncClient, auth: RunningAuth) -> None:
        key = await auth.new_key()
        headers = {"X-API-Key": key["key"]}
        assert (await client.get("/usage", headers=headers)).status_code == 200

        await auth.delete_key(key["id"])

        await eventually_async(lambda: self.refuses(client, headers))

    async def test_during_an_overlap_both_keys_work_and_then_the_new_one(
        self, client: AsyncClient, auth: RunningAuth
    ) -> None:
        old = await auth.new_key()
        before = {"X-API-Key": old["key"]}
        assert (await client.get("/usage", headers=before)).status_code == 200

        rotated = await auth.http.post(
            f"{auth.url}/api-keys/{old['id']}/rotate",
            json={"overlap_seconds": 2},
            headers=auth.headers,
        )

        after = {"X-API-Key": rotated.json()["key"]}
        assert (await client.get("/usage", headers=after)).status_code == 200
        await eventually_async(lambda: self.refuses(client, before))
        assert (await client.get("/usage", headers=after)).status_code == 200

    async def test_disabling_a_user_ends_the_keys_and_enabling_brings_them_back(
        self, client: AsyncClient, auth: RunningAuth
    ) -> None:
        headers = {"X-API-Key": (await auth.new_key())["key"]}
        assert (await client.get("/usage", headers=headers)).status_code == 200

        await auth.set_disabled(True)
        await eventually_async(lambda: self.refuses(client, headers))
        await auth.set_disabled(False)

        async def accepts() -> bool:
            return (await client.get("/usage", headers=headers)).status_code == 200

        await eventually_async(accepts)


async def test_without_a_client_of_its_own_billing_rejects_keys(
    app: FastAPI, open_app: OpenApp, auth: RunningAuth
) -> None:
    key = (await auth.new_key())["key"]

    async with open_app(auth_address=auth.url) as own, browse(own) as client:
        answer = await client.get("/usage", headers={"X-API-Key": key})

    assert answer.status_code == 401


@pytest.mark.costly
async def test_the_openapi_document_offers_the_key_only_where_it_may_suffice(
    client: AsyncClient,
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert {"api_key": []} in paths["/usage"]["get"]["security"]
    assert {"api_key": []} not in paths["/leases"]["post"]["security"]


async def test_rejected_credentials_are_in_the_audit_log_of_auth(
    client: AsyncClient, auth: RunningAuth
) -> None:
    answer = await client.get("/usage", headers={"X-API-Key": new_api_key("live")})

    async def find_audited() -> set[str | None]:
        async with auth.database.snapshot() as session:
            # In this order, because entries move from the first table to the second.
            pending = await session.scalars(_targets(PendingAuditEntry))
            return {*pending, *await session.scalars(_targets(AuditEntry))}

    async def is_audited() -> bool:
        return bool(await find_audited())

    assert answer.status_code == 401
    await eventually_async(is_audited)
    assert await find_audited() == {SERVICE[0]}


def _targets(table: type[PendingAuditEntry] | type[AuditEntry]) -> Select[str | None]:
    return select(table.target).where(table.action == "token_rejected")
