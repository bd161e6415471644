"""Auth as an HTTP service: no redirects, unambiguous JSON, correct OpenAPI."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.integration.auth.conftest import PASSWORD, Headers

pytestmark = pytest.mark.any_database


@pytest.mark.parametrize("path", ["/token/", "/register/", "/users/me/", "/clients/"])
async def test_a_path_with_an_extra_slash_is_not_found(client: AsyncClient, path: str) -> None:
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}

    answer = await client.post(path, data=form, headers={"Host": "evil.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert "evil.example" not in answer.text


async def test_allow_lists_the_methods_of_all_routes_of_a_path(client: AsyncClient) -> None:
    answer = await client.put("/clients")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


@pytest.mark.parametrize("path", ["/token", "/revoke", "/introspect"])
async def test_a_wrong_method_on_an_oauth_endpoint_is_an_oauth_error(
    client: AsyncClient, path: str
) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": "invalid_request", "error_description": "Method Not Allowed"}


class TestDuplicateMembers:
    async def test_registration_rejects_two_passwords(self, client: AsyncClient) -> None:
        body = f'{{"email": "bob@example.com", "password": "a", "password": "{PASSWORD}"}}'

        answer = await client.post(
            "/register", content=body, headers={"Content-Type": "application/json"}
        )

        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:tollgate:problem:duplicate_member"

    async def test_client_creation_rejects_two_scopes(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        body = '{"name": "job", "scope": "predict", "scope": "predict usage:read"}'

        answer = await client.post(
            "/clients", content=body, headers=as_ada | {"Content-Type": "application/json"}
        )

        assert answer.status_code == 400
        assert "job" not in (await client.get("/clients", headers=as_ada)).text


class TestOpenApi:
    async def test_the_oauth_endpoints_document_their_own_errors(self, client: AsyncClient) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]

        for path in ("/token", "/revoke", "/introspect"):
            responses: dict[str, Any] = paths[path]["post"]["responses"]
            errors = [responses[status] for status in responses if status.startswith(("4", "5"))]
            assert len(errors) >= 3
            for error in errors:
                schema = error["content"]["application/json"]["schema"]
                assert schema["required"] == ["error", "error_description"]

    async def test_responses_without_json_are_not_documented_as_json(
        self, client: AsyncClient
    ) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]

        assert "content" not in paths["/revoke"]["post"]["responses"]["200"]
        assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
