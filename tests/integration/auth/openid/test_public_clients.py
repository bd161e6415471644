"""Public clients: apps without a secret."""

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from tests.integration.auth.conftest import ADA, PASSWORD, Headers, assert_refused
from tests.integration.auth.openid.signing_in import CALLBACK, App, assert_safe_page, register_app
from tests.integration.auth.pages import Page


@pytest.mark.any_database
class TestPublicClients:
    @pytest.mark.parametrize("grant", ["password", "client_credentials"])
    async def test_they_may_use_no_other_grant(self, weather: App, grant: str) -> None:
        answer = await weather.browser.post(
            "/token",
            data={
                "grant_type": grant,
                "client_id": weather.client_id,
                "username": ADA,
                "password": PASSWORD,
            },
        )

        assert_refused(answer, "unauthorized_client")

    async def test_they_have_no_secret(self, weather: App) -> None:
        code = await weather.get_code()

        assert_refused(await weather.exchange(code, client_secret="x"), "invalid_client", 401)

    async def test_they_cannot_introspect(self, weather: App, client: AsyncClient) -> None:
        tokens = await weather.get_tokens()

        answer = await client.post(
            "/introspect",
            data={"token": tokens["access_token"], "client_id": weather.client_id},
        )

        assert_refused(answer, "invalid_client", 401)

    async def test_a_machine_client_cannot_exchange_a_code(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        machine = (await client.post("/clients", json={"name": "job"}, headers=as_ada)).json()

        answer = await weather.exchange(
            await weather.get_code(),
            client_id=machine["client_id"],
            client_secret=machine["client_secret"],
        )

        assert_refused(answer, "unauthorized_client")

    async def test_they_are_listed_with_their_addresses(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        [shown] = (await client.get("/clients", headers=as_ada)).json()["clients"]

        assert (shown["type"], shown["redirect_uris"]) == ("public", [CALLBACK])

    @pytest.mark.parametrize(
        "body",
        [
            {"redirect_uris": []},
            {"redirect_uris": ["http://app.example.com/"]},
            {"redirect_uris": [CALLBACK] * 11},
            {"post_logout_redirect_uris": ["javascript:alert(1)"]},
            {"type": "confidential"},
            {"scope": "admin"},
        ],
    )
    async def test_an_invalid_one_is_not_registered(
        self, client: AsyncClient, as_ada: Headers, body: dict[str, object]
    ) -> None:
        valid = {"name": "x", "type": "public", "redirect_uris": [CALLBACK]}

        answer = await client.post("/clients", json=valid | body, headers=as_ada)

        assert answer.status_code == 422

    async def test_a_program_on_someones_machine_takes_any_free_port(
        self, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        native = await register_app(
            client, as_ada, app, redirect_uris=["http://127.0.0.1/callback"]
        )
        native.redirect_uri = "http://127.0.0.1:51004/callback"

        shown = await native.authorize()
        tokens = await native.get_tokens()
        again = await native.authorize()

        assert_safe_page(shown, targets=" http://127.0.0.1:51004")
        assert tokens["scope"] == "openid email profile predict"
        assert Page(again).actions == ["/consent"]  # any program can claim a loopback address
        await native.browser.aclose()
