"""Invalid requests at the authorization endpoint, and who gets to see the error."""

from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.common.db.database import Database
from tests.integration.auth.conftest import Headers, assert_refused
from tests.integration.auth.openid.signing_in import CALLBACK, App, assert_safe_page, wait_for_audit


@pytest.mark.any_database
class TestRequestsThatArePages:
    """The client or its redirect URI is wrong: nothing may be sent there."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"client_id": None},
            {"client_id": "tgc_unknown"},
            {"client_id": "tollgate-web"},
            {"client_id": "é"},
            {"client_id": "x" * 5000},
            {"redirect_uri": None},
            {"redirect_uri": "https://evil.example.com/callback"},
            {"redirect_uri": f"{CALLBACK}/"},
            {"redirect_uri": f"{CALLBACK}?x=1"},
            {"redirect_uri": f"{CALLBACK}#x"},
            {"redirect_uri": "https://app.example.com/callback@evil.example.com"},
            {"redirect_uri": "javascript:alert(1)"},
            {"redirect_uri": "//evil.example.com"},
            {"redirect_uri": "https://app.example.com/callback\r\nX: y"},
        ],
    )
    async def test_the_person_sees_an_error_and_is_not_redirected(
        self, weather: App, app: FastAPI, database: Database, changes: dict[str, str | None]
    ) -> None:
        answer = await weather.authorize(**changes)

        assert answer.status_code == 400
        assert_safe_page(answer)
        await wait_for_audit(database, "authorization_rejected")

    @pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
    async def test_a_repeated_client_or_redirect_uri_is_an_error(
        self, weather: App, name: str
    ) -> None:
        valid = weather.parameters()

        answer = await weather.browser.get(f"/authorize?{urlencode([*valid.items(), (name, 'x')])}")

        assert answer.status_code == 400
        assert_safe_page(answer)

    @pytest.mark.parametrize("query", ["", "%ff", "client_id=%ff", "&" * 100, "a=1&" * 50, "é"])
    async def test_a_malformed_query_is_an_error(self, weather: App, query: str) -> None:
        answer = await weather.browser.get(f"/authorize?{query}")
        posted = await weather.browser.post("/authorize", content=query.encode())

        assert answer.status_code == 400
        assert_safe_page(answer)
        assert (await weather.follow(posted)).status_code == 400

    async def test_raw_bytes_in_the_query_are_an_error(self, app: FastAPI) -> None:
        sent = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": "/authorize", "root_path": "", "headers": [],
            "query_string": b"client_id=\xff\xfe", "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("auth.test", 80), "http_version": "1.1",
        }  # fmt: skip
        await app(scope, receive, send)  # type: ignore[arg-type]

        assert sent[0]["status"] == 400

    async def test_a_machine_client_is_none(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        machine = await client.post("/clients", json={"name": "job"}, headers=as_ada)

        answer = await weather.authorize(client_id=machine.json()["client_id"])

        assert answer.status_code == 400

    async def test_a_deleted_app_is_unknown(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        code = await weather.get_code()

        await client.delete(f"/clients/{weather.client_id}", headers=as_ada)

        assert (await weather.authorize()).status_code == 400
        assert_refused(await weather.exchange(code), "invalid_client", 401)


@pytest.mark.any_database
class TestRequestsThatTheClientGetsBack:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"response_type": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"code_challenge": "é" * 43}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"scope": "unknown"}, "invalid_scope"),
            ({"scope": "openid admin"}, "invalid_scope"),
            ({"scope": "openid billing:write"}, "invalid_scope"),
            ({"nonce": "x" * 256}, "invalid_request"),
            ({"nonce": "\0"}, "invalid_request"),
            ({"prompt": "maybe"}, "invalid_request"),
            ({"prompt": "none login"}, "invalid_request"),
            ({"max_age": "-1"}, "invalid_request"),
            ({"max_age": "soon"}, "invalid_request"),
            ({"max_age": "9" * 30}, "invalid_request"),
            ({"request": "x"}, "request_not_supported"),
            ({"request_uri": "https://x"}, "request_uri_not_supported"),
            ({"registration": "{}"}, "registration_not_supported"),
        ],
    )
    async def test_an_invalid_request_is_the_standards_error(
        self,
        weather: App,
        app: FastAPI,
        database: Database,
        changes: dict[str, str | None],
        error: str,
    ) -> None:
        answer = await weather.authorize(**changes)

        got = weather.read(answer)
        assert got["error"] == error
        assert set(got) == {"error", "error_description"}
        await wait_for_audit(database, "authorization_refused", weather.client_id)

    async def test_a_repeated_parameter_is_an_error(self, weather: App) -> None:
        query = urlencode([*weather.parameters().items(), ("nonce", "another")])

        answer = await weather.browser.get(f"/authorize?{query}")

        assert weather.read(answer)["error"] == "invalid_request"

    async def test_a_malformed_state_is_not_sent_back(self, weather: App) -> None:
        answer = await weather.authorize(state="a\r\nb")

        assert "state" not in answer.headers["Location"].split("error_description")[0]
        assert "error=invalid_request" in answer.headers["Location"]
        assert "%0D" not in answer.headers["Location"]

    async def test_another_account_is_refused(self, weather: App) -> None:
        await weather.get_code()

        answer = await weather.authorize(account="another")

        assert weather.read(answer)["error"] == "access_denied"

    async def test_unknown_scopes_are_ignored(self, weather: App) -> None:
        tokens = await weather.get_tokens(scope="openid phone offline_access")

        assert tokens["scope"] == "openid"
