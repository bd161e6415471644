"""Signed receipts of billed requests."""

import hashlib

import pytest
from httpx import AsyncClient

from harness.issuer import Headers
from harness.usage_events import ADA, BOB, deliver, event
from services.billing.receipts.verifying import verify_receipt

pytestmark = pytest.mark.any_database

JOSE = {"Accept": "application/jose"}
DIGEST = hashlib.sha256(b"input").hexdigest()


async def test_a_receipt_states_who_paid_how_much_for_what(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    sent = event(time="2026-04-01T00:00:00.5Z", rows=3)
    sent["data"]["input_sha256"] = DIGEST
    await deliver(client, service, [sent])

    answer = await client.get(f"/usage/events/{sent['id']}", headers=ada | JOSE)
    jwks = await client.get("/.well-known/jwks.json")

    assert answer.headers["content-type"] == "application/jose"
    assert jwks.headers["cache-control"] == "public, max-age=300"
    assert verify_receipt(answer.text, jwks=jwks.json()) == {
        "id": sent["id"],
        "account": ADA,
        "time": "2026-04-01T00:00:00.500000Z",
        "model": "wine",
        "version": sent["data"]["version"],
        "rows": 3,
        "amount": "0.0008",
        "currency": "USD",
        "input_sha256": DIGEST,
    }


async def test_an_event_of_an_earlier_version_has_no_digest(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    sent = event()
    await deliver(client, service, [sent])

    answer = await client.get(f"/usage/events/{sent['id']}", headers=ada | JOSE)

    jwks = (await client.get("/.well-known/jwks.json")).json()
    assert verify_receipt(answer.text, jwks=jwks)["input_sha256"] is None


async def test_json_stays_the_default_and_no_private_part_is_published(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    sent = event()
    await deliver(client, service, [sent])

    answer = await client.get(f"/usage/events/{sent['id']}", headers=ada)
    [key] = (await client.get("/.well-known/jwks.json")).json()["keys"]

    assert answer.json()["id"] == sent["id"]
    assert key.keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"}


async def test_another_accounts_receipt_is_404(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    sent = event(account=BOB)
    await deliver(client, service, [sent])

    answer = await client.get(f"/usage/events/{sent['id']}", headers=ada | JOSE)

    assert answer.status_code == 404


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64, 1])
async def test_a_malformed_digest_is_rejected(
    client: AsyncClient, service: Headers, digest: object
) -> None:
    sent = event()
    sent["data"]["input_sha256"] = digest

    result = await deliver(client, service, [sent])

    assert result["rejected"][0]["reason"].startswith("data.input_sha256")
