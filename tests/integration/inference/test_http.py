"""Inference as an HTTP service: methods, errors, CORS and the OpenAPI document."""

import httpx
import pytest

from services.inference.models.table import ModelTable
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import serving

PREDICT = "/v1/models/numbers:predict"
INFER = "/v2/models/numbers/infer"
BODY = {"instances": [[1.0, 2.0, 3.0]]}
ORIGIN = "https://app.example.com"


class TestMethods:
    @pytest.mark.parametrize(
        "path",
        [
            PREDICT,
            INFER,
            "/v2/models/numbers/versions/1/infer",
            "/v1/models/numbers:feedback",
            "/v2/repository/index",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
    async def test_prediction_paths_allow_only_post(
        self, client: httpx.AsyncClient, bearer: dict[str, str], method: str, path: str
    ) -> None:
        answer = await client.request(method, path, headers=bearer)
        options = await client.options(path)

        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
        assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")

    async def test_v2_errors_have_the_protocols_format(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        assert (await client.get(INFER, headers=bearer)).json().keys() == {"error"}

    async def test_an_unhandled_error_has_the_protocols_format(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(ModelTable, "live", fail)

        answers = [
            await client.get(path, headers=bearer)
            for path in ("/v2/models/numbers", "/v1/models/numbers")
        ]

        assert [answer.status_code for answer in answers] == [500, 500]
        assert answers[0].json().keys() == {"error"}
        assert answers[1].headers["content-type"] == "application/problem+json"

    @pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
    async def test_health_supports_head(self, client: httpx.AsyncClient, path: str) -> None:
        answer = await client.head(path)

        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize("path", [f"{PREDICT}/", f"{INFER}/", "/v1/models/", "/v2/models/"])
    async def test_a_path_with_an_extra_slash_is_not_found(
        self, client: httpx.AsyncClient, bearer: dict[str, str], path: str
    ) -> None:
        for method in ("GET", "POST"):
            answer = await client.request(method, path, headers=bearer)

            assert answer.status_code == 404
            assert "location" not in answer.headers

    async def test_a_path_that_ends_in_a_line_feed_is_not_found(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        for path in (PREDICT, INFER):
            answer = await client.post(f"{path}%0A", headers=bearer, json=BODY)

            assert answer.status_code in (404, 400, 422)


class TestCors:
    async def test_an_allowed_origin_may_predict_and_read_the_receipt(
        self, settings: InferenceSettings, bearer: dict[str, str]
    ) -> None:
        listed = settings.model_copy(update={"cors_origins": (ORIGIN,)})
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
        }
        async with serving(listed) as client:
            preflight = await client.options(PREDICT, headers=asked)
            answer = await client.post(PREDICT, json=BODY, headers=bearer | {"Origin": ORIGIN})
            refused = await client.post(PREDICT, json=BODY, headers={"Origin": ORIGIN})
            other = await client.post(
                PREDICT, json=BODY, headers=bearer | {"Origin": "https://evil.example"}
            )

        assert preflight.status_code == 200
        assert preflight.headers["x-request-id"]
        assert (answer.status_code, refused.status_code) == (200, 401)
        for each in (preflight, answer, refused):
            assert each.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Usage-Event" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in other.headers

    async def test_by_default_no_origin_is_allowed(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await client.post(PREDICT, json=BODY, headers=bearer | {"Origin": ORIGIN})

        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


class TestOpenApi:
    async def test_errors_are_json_under_v2_and_problems_elsewhere(
        self, client: httpx.AsyncClient
    ) -> None:
        document = (await client.get("/openapi.json")).json()

        for path, item in document["paths"].items():
            expected = "application/json" if path.startswith("/v2") else "application/problem+json"
            for operation in item.values():
                for status, response in operation["responses"].items():
                    if status == "default" or (status >= "400" and path != "/readyz"):
                        assert list(response["content"]) == [expected], (path, status)
            if path.startswith("/v2"):
                assert all("422" not in operation["responses"] for operation in item.values())

    async def test_binary_responses_are_documented(self, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()

        content = document["paths"]["/v2/models/{model}/infer"]["post"]["responses"]["200"]
        assert set(content["content"]) == {"application/json", "application/octet-stream"}
