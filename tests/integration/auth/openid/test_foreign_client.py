"""Authlib, as a client that others wrote, completes every grant from the discovery document."""

from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from fastapi import FastAPI
from httpx import AsyncClient
from joserfc import jwt
from joserfc.jwk import KeySet

from services.auth.openid.devices import DEVICE_GRANT
from services.common.identity.guards import SCOPES
from tests.integration.auth.conftest import ADA, ISSUER, PASSWORD, Headers
from tests.integration.auth.openid.signing_in import CALLBACK, SIGNED_OUT, App

pytestmark = pytest.mark.any_database

VERIFIER = "v" * 50


@pytest.fixture
async def metadata(client: AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"{ISSUER}/.well-known/openid-configuration")).json()
    return found


def authlib_client(app: FastAPI, **options: Any) -> Any:
    return AsyncOAuth2Client(transport=httpx2.ASGITransport(app=app), **options)


async def test_it_signs_a_person_in_and_out(
    app: FastAPI, weather: App, metadata: dict[str, Any], client: AsyncClient, ada: dict[str, str]
) -> None:
    assert "S256" in metadata["code_challenge_methods_supported"]
    async with authlib_client(
        app,
        client_id=weather.client_id,
        redirect_uri=CALLBACK,
        scope="openid email profile predict",
        code_challenge_method="S256",
        token_endpoint_auth_method="none",
    ) as foreign:
        url, weather.state = foreign.create_authorization_url(
            metadata["authorization_endpoint"], code_verifier=VERIFIER, nonce="n-1"
        )
        shown = await weather.browser.get(url)
        consent = await weather.sign_in(shown)
        allowed = await weather.send(consent, decision="allow")
        tokens = await foreign.fetch_token(
            metadata["token_endpoint"],
            authorization_response=allowed.headers["Location"],
            code_verifier=VERIFIER,
        )
        info = (await foreign.get(metadata["userinfo_endpoint"])).json()
        refreshed = await foreign.refresh_token(
            metadata["token_endpoint"], refresh_token=tokens["refresh_token"]
        )
        await foreign.revoke_token(
            metadata["revocation_endpoint"], token=refreshed["refresh_token"]
        )
    keys = KeySet.import_key_set((await client.get(metadata["jwks_uri"])).json())
    id_token = jwt.decode(
        tokens["id_token"], keys, algorithms=metadata["id_token_signing_alg_values_supported"]
    )
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]},
        aud={"essential": True, "value": weather.client_id},
        exp={"essential": True},
        nonce={"essential": True, "value": "n-1"},
    ).validate(id_token.claims)
    gone = await weather.browser.get(
        metadata["end_session_endpoint"],
        params={"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT},
    )

    assert info["sub"] == id_token.claims["sub"] == ada["id"]
    assert info["email"] == ADA
    assert (
        await client.get(
            "/userinfo", headers={"Authorization": f"Bearer {refreshed['access_token']}"}
        )
    ).status_code == 401
    assert gone.headers["Location"] == SIGNED_OUT


async def test_it_signs_in_a_device(
    app: FastAPI, weather: App, metadata: dict[str, Any], client: AsyncClient
) -> None:
    started = (
        await client.post(
            metadata["device_authorization_endpoint"],
            data={"client_id": weather.client_id, "scope": "openid predict"},
        )
    ).json()
    parts = urlsplit(started["verification_uri_complete"])
    entering = await weather.sign_in(await weather.browser.get(f"{parts.path}?{parts.query}"))
    await weather.send(await weather.send(entering), decision="allow")

    async with authlib_client(
        app, client_id=weather.client_id, token_endpoint_auth_method="none"
    ) as foreign:
        tokens = await foreign.fetch_token(
            metadata["token_endpoint"],
            grant_type=DEVICE_GRANT,
            device_code=started["device_code"],
        )

    assert tokens["scope"] == "openid predict"
    assert tokens["id_token"]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_it_gets_a_machines_token(
    app: FastAPI, metadata: dict[str, Any], client: AsyncClient, as_ada: Headers, method: str
) -> None:
    made = (await client.post("/clients", json={"name": "job"}, headers=as_ada)).json()
    assert method in metadata["token_endpoint_auth_methods_supported"]

    async with authlib_client(
        app,
        client_id=made["client_id"],
        client_secret=made["client_secret"],
        token_endpoint_auth_method=method,
    ) as foreign:
        tokens = await foreign.fetch_token(
            metadata["token_endpoint"], grant_type="client_credentials", scope="predict"
        )
        introspected = await foreign.introspect_token(
            metadata["introspection_endpoint"], token=tokens["access_token"]
        )

    assert introspected.json()["active"] is True


async def test_it_signs_in_with_a_password(
    app: FastAPI, metadata: dict[str, Any], ada: dict[str, str]
) -> None:
    async with authlib_client(
        app, client_id="tollgate-web", token_endpoint_auth_method="none"
    ) as foreign:
        tokens = await foreign.fetch_token(
            metadata["token_endpoint"], grant_type="password", username=ADA, password=PASSWORD
        )

    assert set(tokens["scope"].split()) <= set(SCOPES)


async def test_every_grant_of_the_document_is_completed_above(metadata: dict[str, Any]) -> None:
    assert set(metadata["grant_types_supported"]) == {
        "authorization_code",
        "refresh_token",
        "password",
        "client_credentials",
        DEVICE_GRANT,
    }
