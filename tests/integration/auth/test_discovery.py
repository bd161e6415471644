"""Discovery from the issuer's URL, readiness and the docs page."""

import base64
import json
import re
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from httpx import AsyncClient

from tests.integration.auth.conftest import ISSUER, OpenApp, SignIn, browse

pytestmark = pytest.mark.any_database


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


@pytest.mark.parametrize("document", ["openid-configuration", "oauth-authorization-server"])
async def test_a_library_verifies_a_token_from_the_issuer_url_alone(
    client: AsyncClient, ada: dict[str, str], sign_in: SignIn, document: str
) -> None:
    token = (await sign_in()).json()["access_token"]

    metadata = (await client.get(f"{ISSUER}/.well-known/{document}")).json()
    keys = {key["kid"]: key for key in (await client.get(metadata["jwks_uri"])).json()["keys"]}

    assert metadata["issuer"] == ISSUER
    signed, _, signature = token.rpartition(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in signed.split("."))
    key = keys[header["kid"]]
    public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    public.verify(
        base64.urlsafe_b64decode(signature + "=="),
        signed.encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    assert claims["iss"] == metadata["issuer"]
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert "d" not in key


async def test_every_listed_endpoint_exists(client: AsyncClient) -> None:
    metadata = (await client.get("/.well-known/openid-configuration")).json()

    urls = [url for name, url in metadata.items() if name.endswith(("_endpoint", "_uri"))]
    assert len(urls) == 8
    for url in urls:
        assert (await client.get(url)).status_code != 404


@pytest.fixture
async def fresh(open_app: OpenApp) -> AsyncIterator[AsyncClient]:
    async with open_app() as app, browse(app) as client:
        yield client


async def test_it_is_ready_on_a_migrated_database(fresh: AsyncClient) -> None:
    answer = await fresh.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "failing": {}})


async def test_the_docs_page_signs_in_here_and_uses_no_other_host(fresh: AsyncClient) -> None:
    page = (await fresh.get("/docs")).text
    schema = (await fresh.get("/openapi.json")).json()

    assert not re.search(r'(src|href)="(https?:)?//', page)
    flows = schema["components"]["securitySchemes"]["account"]["flows"]
    assert flows["password"]["tokenUrl"] == f"{ISSUER}/token"
    assert {"/register", "/token", "/clients", "/users/me"} <= set(schema["paths"])
