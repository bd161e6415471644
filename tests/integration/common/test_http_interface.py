"""Methods, paths, origins and documents of every service, and unambiguous JSON."""

from typing import ClassVar

import pytest
from httpx import AsyncClient

from tests.integration.common.sample import assert_problem


class TestDuplicateMembers:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"name": "x", "size": 1, "size": 2}',
            b'{"name":"x","size":1,"size":1}',
            b'{"name":"x","size":1,"si\\u007ae":2}',
            b'{"name":"x","size":{"a":1,"a":1}}',
            b'[{"name":"x"},{"a":[{"b":1,"b":2}]}]',
        ],
    )
    async def test_they_are_refused(self, client: AsyncClient, body: bytes) -> None:
        answer = await client.post(
            "/samples", content=body, headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 400, "duplicate_member")

    async def test_the_token_is_checked_first(self, client: AsyncClient) -> None:
        answer = await client.post(
            "/private", content=b'{"a":1,"a":2}', headers={"Content-Type": "application/json"}
        )

        assert_problem(answer, 401, "invalid_token")

    @pytest.mark.parametrize(
        "text", ['{"name" : "a:b", "size": 1}', '{"size":1e0,"name":"\\u0061"}']
    )
    async def test_equivalent_json_is_accepted(self, client: AsyncClient, text: str) -> None:
        answer = await client.post(
            "/samples", content=text.encode(), headers={"Content-Type": "application/json"}
        )

        assert answer.status_code == 200


class TestMethods:
    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/things/x"])
    async def test_head_is_get_without_a_body(self, client: AsyncClient, path: str) -> None:
        get_response, head_response = await client.get(path), await client.head(path)

        assert head_response.status_code == get_response.status_code == 200
        assert head_response.headers["content-type"] == get_response.headers["content-type"]
        assert int(head_response.headers["content-length"]) > 0
        assert head_response.content == b""

    async def test_head_is_counted_under_its_route(self, client: AsyncClient) -> None:
        await client.head("/things/x")

        text = (await client.get("/metrics")).text

        assert 'http_requests_total{method="HEAD",route="/things/{name}",status="200"} 1.0' in text

    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/healthz", "GET, HEAD, OPTIONS"),
            ("/samples", "POST, OPTIONS"),
            ("/things/x", "GET, HEAD, PUT, OPTIONS"),
            ("/docs/assets/favicon.png", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_allow_lists_all_methods_of_a_path(
        self, client: AsyncClient, path: str, allow: str
    ) -> None:
        options = await client.options(path)
        refused = await client.delete(path)

        assert (options.status_code, options.headers["allow"]) == (204, allow)
        assert options.headers["x-request-id"]
        assert_problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == allow

    async def test_head_of_a_path_without_get_is_refused(self, client: AsyncClient) -> None:
        answer = await client.head("/samples")

        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
    async def test_an_unknown_path_is_404_for_every_method(
        self, client: AsyncClient, method: str
    ) -> None:
        assert (await client.request(method, "/nowhere")).status_code == 404


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        ["/samples/", "/healthz/", "/things/x/", "/docs/", "/docs/assets", "//"],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
    async def test_no_path_is_redirected(self, client: AsyncClient, method: str, path: str) -> None:
        answer = await client.request(method, f"http://sample.test{path}")

        assert answer.status_code == 404
        assert "location" not in answer.headers


class TestCors:
    PAGE: ClassVar = {"Origin": "http://page.test"}

    async def test_a_listed_page_may_call_and_read(self, client: AsyncClient) -> None:
        preflight = await client.options(
            "/things/x", headers=self.PAGE | {"Access-Control-Request-Method": "PUT"}
        )
        answer = await client.get("/things/x", headers=self.PAGE)

        assert preflight.status_code == 200
        assert preflight.headers["x-request-id"]
        for each in (preflight, answer):
            assert each.headers["access-control-allow-origin"] == "http://page.test"
            assert "access-control-allow-credentials" not in each.headers
        assert answer.headers["access-control-expose-headers"] == "X-Request-ID"

    async def test_other_pages_may_not_call(self, client: AsyncClient) -> None:
        other = {"Origin": "http://other.test", "Access-Control-Request-Method": "PUT"}

        for answer in (
            await client.options("/things/x", headers=other),
            await client.get("/things/x", headers=other),
        ):
            assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize(
        ("asked", "named"),
        [
            ({"Origin": "http://other.test"}, "origin"),
            ({"Access-Control-Request-Method": "POST"}, "method"),
            ({"Access-Control-Request-Headers": "X-Secret"}, "headers"),
        ],
    )
    async def test_a_refused_preflight_is_an_error_like_any_other(
        self, client: AsyncClient, asked: dict[str, str], named: str
    ) -> None:
        allowed = self.PAGE | {"Access-Control-Request-Method": "PUT"}

        answer = await client.options("/things/x", headers=allowed | asked)

        assert_problem(answer, 400, "bad_request")
        assert named in answer.json()["detail"]
        assert "Origin" in answer.headers["vary"]


class TestDocsPage:
    async def test_it_cannot_be_framed_and_runs_no_script_but_its_own(
        self, client: AsyncClient
    ) -> None:
        page = await client.get("/docs")

        policy = dict(
            part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ")
        )
        assert policy["frame-ancestors"] == policy["default-src"] == "'none'"
        assert "unsafe" not in policy["script-src"]
        assert policy["connect-src"] == "'self' http://auth.test"
        assert "'unsafe-eval'" not in str(policy)


class TestOpenApi:
    async def test_content_types_match_the_responses(self, client: AsyncClient) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]

        assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
        for operation in (paths["/samples"]["post"], paths["/things/{name}"]["put"]):
            assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
            assert list(operation["responses"]["default"]["content"]) == [
                "application/problem+json"
            ]
