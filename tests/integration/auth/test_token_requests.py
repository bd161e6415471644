"""Requests to the token endpoint: their form, their client, their origin (RFC 6749)."""

import httpx
import pytest
from httpx import AsyncClient
from jose import jwt
from sqlalchemy.exc import OperationalError

from services.auth.tokens.errors import TemporarilyUnavailable, oauth_errors
from services.common.db.database import Database
from tests.integration.auth.conftest import PASSWORD, SignIn, assert_refused

pytestmark = pytest.mark.any_database

FORM = "application/x-www-form-urlencoded"


class TestForm:
    async def post(self, client: AsyncClient, body: str | bytes, **headers: str) -> httpx.Response:
        content = body.encode() if isinstance(body, str) else body
        return await client.post(
            "/token", content=content, headers={"Content-Type": FORM, **headers}
        )

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "grant_type=",
            "grant_type=password",
            "grant_type=password&username=ada@example.com",
            "grant_type=password&username=ada@example.com&password=",
            "grant_type=refresh_token",
            "grant_type=password&grant_type=password&username=a&password=b",
            "grant_type=password&username=a&username=b&password=c",
            "grant_type=password&username=%ff&password=c",
            "grant_type=password&username=%ED%A0%80&password=c",
            b"grant_type=password&username=\xff&password=c",
            "&".join(f"p{n}=1" for n in range(100)),
        ],
    )
    async def test_a_bad_form_is_invalid_request(
        self, client: AsyncClient, body: str | bytes
    ) -> None:
        assert_refused(await self.post(client, body), "invalid_request")

    @pytest.mark.parametrize(
        "content_type", ["application/json", "multipart/form-data", "", "text/plain"]
    )
    async def test_anything_but_a_form_is_invalid_request(
        self, client: AsyncClient, content_type: str
    ) -> None:
        body = b'{"grant_type": "password"}'

        answer = await client.post("/token", content=body, headers={"Content-Type": content_type})

        assert_refused(answer, "invalid_request")

    async def test_a_form_may_name_its_charset(
        self, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        body = "grant_type=password&username=ada%40example.com&password=correct+horse+battery"

        answer = await self.post(client, body, **{"Content-Type": f"{FORM}; charset=UTF-8"})

        assert answer.status_code == 200

    @pytest.mark.parametrize("grant_type", ["implicit", "PASSWORD", "urn:x", "x" * 999])
    async def test_another_grant_is_unsupported(self, client: AsyncClient, grant_type: str) -> None:
        answer = await self.post(client, f"grant_type={grant_type}")

        assert_refused(answer, "unsupported_grant_type")

    async def test_a_large_or_compressed_form_gets_an_oauth_error(
        self, client: AsyncClient
    ) -> None:
        large = await self.post(client, "grant_type=" + "x" * 20_000)
        compressed = await self.post(client, b"\x1f\x8b", **{"Content-Encoding": "gzip"})

        assert_refused(large, "invalid_request", 413)
        assert_refused(compressed, "invalid_request", 415)

    async def test_an_unreachable_database_gets_an_oauth_error(
        self, client: AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "deadline_s", 0)

        answer = await self.post(client, "grant_type=password&username=a@x.io&password=b")

        assert_refused(answer, "temporarily_unavailable", 503)
        assert answer.headers["Retry-After"] == "1"


class TestClientAuthentication:
    async def test_empty_basic_credentials_are_ignored(
        self, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        form = {"grant_type": "password", "username": ada["email"], "password": PASSWORD}

        answer = await client.post("/token", data=form, headers={"Authorization": "Basic Og=="})

        assert answer.status_code == 200

    @pytest.mark.parametrize("client_id", ["", "tollgate-web"])
    async def test_an_empty_or_first_party_client_in_the_form_is_ignored(
        self, ada: dict[str, str], sign_in: SignIn, client_id: str
    ) -> None:
        answer = await sign_in(client_id=client_id, client_secret="")

        assert answer.status_code == 200

    async def test_a_service_gets_a_token_with_basic_or_form_credentials(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials"}
        by_basic = await client.post("/token", data=form, auth=inference)
        by_form = await client.post(
            "/token", data=form | {"client_id": inference[0], "client_secret": inference[1]}
        )

        for answer in (by_basic, by_form):
            assert answer.status_code == 200
            assert answer.json()["scope"] == "billing:write"
            assert "refresh_token" not in answer.json()
            claims = jwt.get_unverified_claims(answer.json()["access_token"])
            assert (claims["sub"], claims["client_id"]) == ("inference", "inference")

    async def test_a_wrong_secret_is_401_with_a_challenge(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials"}
        for credentials in (("inference", "wrong"), ("nöbody", "x"), ("inference", "")):
            by_basic = await client.post("/token", data=form, auth=credentials)
            by_form = await client.post(
                "/token",
                data=form | {"client_id": credentials[0], "client_secret": credentials[1]},
            )

            for answer in (by_basic, by_form):
                assert_refused(answer, "invalid_client", 401)
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")

    @pytest.mark.parametrize("path", ["/token", "/introspect"])
    async def test_no_client_where_one_is_needed_is_401_with_a_challenge(
        self, client: AsyncClient, path: str
    ) -> None:
        form = {"grant_type": "client_credentials", "token": "x"}

        answer = await client.post(path, data=form)

        assert_refused(answer, "invalid_client", 401)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")

    @pytest.mark.parametrize(
        "value",
        ["Basic !", "Basic", "Basic YQ==", "Basic /zov", "Basic JWZmOg==", "Basic " + "A" * 999],
    )
    async def test_a_malformed_basic_header_is_invalid_client(
        self, client: AsyncClient, value: str
    ) -> None:
        answer = await client.post(
            "/token", data={"grant_type": "client_credentials"}, headers={"Authorization": value}
        )

        assert_refused(answer, "invalid_client", 401)

    async def test_client_credentials_require_a_client(self, client: AsyncClient) -> None:
        answer = await client.post("/token", data={"grant_type": "client_credentials"})

        assert_refused(answer, "invalid_client", 401)

    async def test_two_authentication_methods_are_rejected(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials", "client_secret": inference[1]}
        both = await client.post("/token", data=form, auth=inference)
        twice = await client.post(
            "/token",
            data={"grant_type": "client_credentials"},
            headers=httpx.Headers([("Authorization", "Basic Og==")] * 2),
        )

        assert_refused(both, "invalid_request")
        assert_refused(twice, "invalid_request")

    async def test_a_client_cannot_use_the_password_grant(
        self, client: AsyncClient, ada: dict[str, str], inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "password", "username": ada["email"], "password": PASSWORD}

        answer = await client.post("/token", data=form, auth=inference)

        assert_refused(answer, "unauthorized_client")

    async def test_a_service_cannot_exceed_its_scope(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials", "scope": "billing:write admin"}

        assert_refused(await client.post("/token", data=form, auth=inference), "invalid_scope")

    async def test_a_service_token_belongs_to_no_user(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials"}
        token = (await client.post("/token", data=form, auth=inference)).json()["access_token"]

        answer = await client.get("/users/me", headers={"Authorization": f"Bearer {token}"})

        assert answer.status_code == 401


class TestCors:
    async def preflight(self, client: AsyncClient, path: str, origin: str) -> httpx.Response:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-requested-with",
        }
        return await client.options(path, headers=headers)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    @pytest.mark.parametrize("port", [8001, 8002, 8003])
    async def test_the_local_docs_pages_may_sign_in(
        self, client: AsyncClient, ada: dict[str, str], host: str, port: int
    ) -> None:
        origin = f"http://{host}:{port}"

        preflight = await self.preflight(client, "/token", origin)
        answer = await client.post("/token", data={"grant_type": "x"}, headers={"Origin": origin})

        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Access-Control-Allow-Credentials" not in answer.headers

    async def test_other_origins_and_other_endpoints_are_not_allowed(
        self, client: AsyncClient
    ) -> None:
        other_origin = await self.preflight(client, "/token", "http://evil.example")
        other_path = await self.preflight(client, "/users/me", "http://localhost:8001")
        answer = await client.post(
            "/token", data={"grant_type": "x"}, headers={"Origin": "http://evil.example"}
        )

        for refused in (other_origin, other_path, answer):
            assert "Access-Control-Allow-Origin" not in refused.headers
        assert other_origin.json()["error"] == "invalid_request"


async def test_a_lost_transaction_gets_an_oauth_error_with_503(database: Database) -> None:
    with pytest.raises(TemporarilyUnavailable) as refused, oauth_errors():
        async with database.transaction():
            raise OperationalError("UPDATE …", {}, Exception(1213, "Deadlock found"))

    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "1"
    assert "UPDATE" not in refused.value.detail
