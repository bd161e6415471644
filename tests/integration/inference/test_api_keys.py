"""Predictions with API keys, on both paths."""

import asyncio
import json
import uuid

import grpc
import httpx
import pytest
from jose import jwt

from services.common.identity.api_keys import new_api_key
from services.inference.api import unbilled
from services.inference.api.grpc.messages import open_inference_pb2 as messages
from tests.integration.inference.conftest import eventually
from tests.integration.inference.fast import V1, Client, Served, connected, one_row, post
from tests.integration.inference.grpc_client import GrpcClient
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

BODY = {"instances": [NUMBERS_ROW]}
HEADERS = ("X-API-Key: {}", "Authorization: Bearer {}")


def as_key(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


class TestPredicting:
    @pytest.mark.parametrize("header", HEADERS)
    async def test_only_the_first_prediction_asks_auth_and_leaves_the_fast_path(
        self, served: Served, neighbours: Neighbours, account: str, header: str
    ) -> None:
        key = neighbours.new_key(account=account)
        request = post(V1, one_row(), header.format(key))

        async with connected(served.fast) as client:
            replies = [await client.ask(request) for _ in range(20)]

        assert {reply.status for reply in replies} == {200}
        assert neighbours.introspected == [key]
        assert served.by_app == [V1]
        ids = {reply.headers["x-usage-event"] for reply in replies}
        await eventually(lambda: ids == set(neighbours.charged_to(account)))

    async def test_the_receipt_names_the_key(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account)

        answer = await client.post(V1, json=BODY, headers=as_key(key))

        event = answer.headers["x-usage-event"]
        await eventually(lambda: event in neighbours.charged)
        data = neighbours.charged[event]["data"]
        assert data["client_id"] == neighbours.api_keys[key]["client_id"]

    async def test_first_predictions_at_once_ask_auth_once(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account)

        answers = await asyncio.gather(
            *(client.post(V1, json=BODY, headers=as_key(key)) for _ in range(20))
        )

        assert {answer.status_code for answer in answers} == {200}
        assert neighbours.introspected == [key]

    async def test_a_wrong_checksum_is_401_without_asking_auth(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account)
        mistyped = key[:-1] + ("0" if key[-1] != "0" else "1")

        for wrong in (mistyped, key[:-7], "tg_live_", key + "\xe9"):
            answer = await client.post(V1, json=BODY, headers={b"X-API-Key": wrong.encode()})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'

        assert neighbours.introspected == []

    async def test_an_unknown_key_is_401(
        self, client: httpx.AsyncClient, neighbours: Neighbours
    ) -> None:
        answer = await client.post(V1, json=BODY, headers=as_key(new_api_key("live")))

        assert answer.status_code == 401

    async def test_two_kinds_of_credentials_are_401(
        self,
        client: httpx.AsyncClient,
        neighbours: Neighbours,
        account: str,
        bearer: dict[str, str],
    ) -> None:
        key = neighbours.new_key(account=account)

        for path in (V1, "/v2/models/numbers/infer"):
            answer = await client.post(path, json=BODY, headers=bearer | as_key(key))
            assert answer.status_code == 401
        assert (await client.get("/v1/models", headers=bearer | as_key(key))).status_code == 401

    @pytest.mark.parametrize("failure", [500, 503, 401])
    async def test_while_auth_fails_a_known_key_predicts_and_an_unknown_one_gets_503(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str, failure: int
    ) -> None:
        known, unknown = (neighbours.new_key(account=account) for _ in range(2))
        assert (await client.post(V1, json=BODY, headers=as_key(known))).status_code == 200
        neighbours.failing["/introspect"] = failure

        answers = [await client.post(V1, json=BODY, headers=as_key(k)) for k in (known, unknown)]

        assert [answer.status_code for answer in answers] == [200, 503]
        assert answers[1].headers["retry-after"] == "1"

    async def test_feedback_can_be_given(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        headers = as_key(neighbours.new_key(account=account))
        predicted = await client.post(V1, json=BODY, headers=headers)

        feedback = {
            "usage_event": predicted.headers["x-usage-event"],
            "label": predicted.json()["predictions"][0],
        }
        answer = await client.post("/v1/models/numbers:feedback", json=feedback, headers=headers)

        assert answer.status_code == 200


class TestLimits:
    async def test_another_model_is_403_wherever_it_is_named(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        headers = as_key(neighbours.new_key(account=account, models=["mixed"]))
        feedback = {"usage_event": str(uuid.uuid4()), "label": 0}
        calls = [
            ("POST", V1, BODY),
            ("POST", "/v1/models/numbers:explain", BODY),
            ("POST", "/v1/models/numbers:feedback", feedback),
            ("POST", "/v1/models/nothing:predict", BODY),
            ("GET", "/v1/models/numbers", None),
            ("GET", "/v1/models/numbers/card", None),
            ("GET", "/v1/models/numbers/openapi.json", None),
        ]

        for method, path, body in calls:
            answer = await client.request(method, path, json=body, headers=headers)
            assert (path, answer.status_code) == (path, 403)
            assert answer.json()["type"] == "urn:tollgate:problem:model_not_allowed"

    async def test_another_model_is_403_in_the_open_inference_protocol(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        headers = as_key(neighbours.new_key(account=account, models=["mixed"]))

        for path in ("", "/ready", "/versions/x", "/versions/x/ready"):
            answer = await client.get(f"/v2/models/numbers{path}", headers=headers)
            assert (path, answer.status_code) == (path, 403)
        answer = await client.post("/v2/models/numbers/infer", json={}, headers=headers)
        assert answer.json() == {"error": "This API key is limited to other models."}

    async def test_its_own_model_is_answered_on_the_fast_path(
        self, served: Served, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account, models=["numbers"])
        request = post(V1, one_row(), f"X-API-Key: {key}")

        async with connected(served.fast) as client:
            statuses = [(await client.ask(request)).status for _ in range(5)]

        assert statuses == [200] * 5
        assert served.by_app == [V1]

    async def test_another_address_is_403(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        elsewhere = as_key(neighbours.new_key(account=account, allowed_ips=["203.0.113.0/24"]))
        here = as_key(neighbours.new_key(account=account, allowed_ips=["127.0.0.1", "::1"]))

        for path in (V1, "/v1/models/nothing:predict"):
            answer = await client.post(path, json=BODY, headers=elsewhere)
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:tollgate:problem:address_not_allowed"
        assert (await client.get("/v1/models", headers=elsewhere)).status_code == 403
        assert (await client.post(V1, json=BODY, headers=here)).status_code == 200
        assert (await client.get("/v1/models", headers=here)).status_code == 200

    async def test_a_key_without_the_scope_is_403(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account, scope="usage:read")

        answer = await client.post(V1, json=BODY, headers=as_key(key))

        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:tollgate:problem:insufficient_scope"


class TestTestKeys:
    async def test_they_predict_without_a_charge_on_both_paths(
        self, served: Served, neighbours: Neighbours, account: str
    ) -> None:
        test = neighbours.new_key(account=account, mode="test")
        live = neighbours.new_key(account=account)
        requests = [
            post(V1, one_row(), f"X-API-Key: {test}"),
            post(V1, one_row(), f"X-API-Key: {test}", "Idempotency-Key: k"),
            post(V1, one_row(), f"X-API-Key: {live}"),
        ]

        async with connected(served.fast) as client:
            replies = [await client.ask(request) for request in requests]

        assert [reply.headers["x-usage-amount"] for reply in replies] == [
            "0 USD (test)",
            "0 USD (test)",
            "0.0006 USD",
        ]
        assert replies[0].lasting[2] == replies[2].lasting[2]
        charged = replies[2].headers["x-usage-event"]
        await eventually(lambda: neighbours.charged_to(account) == [charged])

    async def test_they_need_no_credit(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        neighbours.wallets.available[account] = 0
        test, live = (neighbours.new_key(account=account, mode=m) for m in ("test", "live"))

        answers = [await client.post(V1, json=BODY, headers=as_key(key)) for key in (test, live)]

        assert [answer.status_code for answer in answers] == [200, 402]
        assert neighbours.wallets.available[account] == 0

    async def test_a_key_that_a_test_key_used_is_still_charged(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        test, live = (neighbours.new_key(account=account, mode=m) for m in ("test", "live"))
        once = {"Idempotency-Key": "k"}
        await client.post(V1, json=BODY, headers=as_key(test) | once)

        answer = await client.post(V1, json=BODY, headers=as_key(live) | once)

        event = answer.headers["x-usage-event"]
        await eventually(lambda: neighbours.charged_to(account) == [event])

    async def test_those_of_an_account_share_a_rate_limit(
        self,
        client: httpx.AsyncClient,
        neighbours: Neighbours,
        account: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        slow = unbilled.UNBILLED_LIMIT.model_copy(update={"per_second": 0.001})
        monkeypatch.setattr(unbilled, "UNBILLED_LIMIT", slow)
        keys = [neighbours.new_key(account=account, mode="test") for _ in range(2)]
        live = neighbours.new_key(account=account)

        answers = [await client.post(V1, json=BODY, headers=as_key(keys[n % 2])) for n in range(11)]
        other = await client.post(V1, json=BODY, headers=as_key(live))

        assert [answer.status_code for answer in answers] == [200] * 10 + [429]
        assert int(answers[10].headers["retry-after"]) > 0
        assert other.status_code == 200

    def test_the_limit_is_ten_requests_a_second(self) -> None:
        assert (unbilled.UNBILLED_LIMIT.per_second, unbilled.UNBILLED_LIMIT.burst) == (10, 10)


class TestGrpc:
    @pytest.fixture
    def message(self) -> bytes:
        request = messages.ModelInferRequest(model_name="numbers")
        tensor = request.inputs.add(name="features", datatype="FP64", shape=[1, 3])
        tensor.contents.fp64_contents.extend(NUMBERS_ROW)
        content: bytes = request.SerializeToString()
        return content

    async def test_a_key_in_the_metadata_predicts(
        self, anonymous: GrpcClient, neighbours: Neighbours, account: str, message: bytes
    ) -> None:
        key = neighbours.new_key(account=account)

        _, receipt = await anonymous.infer(message, x_api_key=key)
        _, again = await GrpcClient(anonymous.channel, key).infer(message)

        assert receipt["x-usage-amount"] == again["x-usage-amount"] == "0.0006 USD"
        assert neighbours.introspected == [key]

    async def test_two_kinds_of_credentials_are_refused(
        self, caller: GrpcClient, neighbours: Neighbours, account: str, message: bytes
    ) -> None:
        error = await caller.refused(message, x_api_key=neighbours.new_key(account=account))

        assert error.code().name == "UNAUTHENTICATED"

    async def test_its_limits_apply(
        self, anonymous: GrpcClient, neighbours: Neighbours, account: str, message: bytes
    ) -> None:
        keys = [
            neighbours.new_key(account=account, models=["mixed"]),
            neighbours.new_key(account=account, allowed_ips=["203.0.113.7"]),
        ]

        errors = [await anonymous.refused(message, x_api_key=key) for key in keys]
        here = neighbours.new_key(account=account, allowed_ips=["127.0.0.1"])
        await anonymous.infer(message, x_api_key=here)

        assert [error.code().name for error in errors] == ["PERMISSION_DENIED"] * 2
        codes = [dict(error.trailing_metadata() or ())["x-error-code"] for error in errors]
        assert codes == ["model_not_allowed", "address_not_allowed"]

    async def test_descriptions_of_other_models_are_refused(
        self, anonymous: GrpcClient, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account, models=["mixed"])
        calls = {
            "ModelReady": messages.ModelReadyRequest(name="numbers"),
            "ModelMetadata": messages.ModelMetadataRequest(name="numbers"),
        }

        for name, request in calls.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anonymous.call(name, request, x_api_key=key)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    async def test_a_test_key_is_not_charged(
        self, anonymous: GrpcClient, neighbours: Neighbours, account: str, message: bytes
    ) -> None:
        key = neighbours.new_key(account=account, mode="test")

        _, receipt = await anonymous.infer(message, x_api_key=key)

        assert receipt["x-usage-amount"] == "0 USD (test)"


class TestRevocation:
    async def test_a_revoked_key_is_refused_on_both_paths(
        self, served: Served, neighbours: Neighbours, account: str
    ) -> None:
        key = neighbours.new_key(account=account)
        request = post(V1, one_row(), f"X-API-Key: {key}")
        async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
            assert [(await fast.ask(request)).status for _ in range(3)] == [200] * 3

            neighbours.revoke("api_key", neighbours.api_keys.pop(key)["client_id"])

            await eventually(lambda: refuses(fast, request))
            assert (await ordinary.ask(request)).status == 401

    @pytest.mark.parametrize("kind", ["account", "jti"])
    async def test_a_revoked_token_is_refused_on_both_paths(
        self, served: Served, neighbours: Neighbours, account: str, kind: str
    ) -> None:
        token = neighbours.token(account=account)
        names = {"account": account, "jti": jwt.get_unverified_claims(token)["jti"]}
        request = post(V1, one_row(), f"Authorization: Bearer {token}")
        async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
            assert [(await fast.ask(request)).status for _ in range(3)] == [200] * 3

            neighbours.revoke(kind, names[kind])

            await eventually(lambda: refuses(fast, request))
            assert (await ordinary.ask(request)).status == 401

    async def test_while_the_feed_fails_what_is_known_keeps_working(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        headers = as_key(neighbours.new_key(account=account))
        assert (await client.post(V1, json=BODY, headers=headers)).status_code == 200
        neighbours.failing |= {"/revocations": 503, "/introspect": 503}

        assert (await client.post(V1, json=BODY, headers=headers)).status_code == 200


async def refuses(client: Client, request: bytes) -> bool:
    return (await client.ask(request)).status == 401


async def test_the_openapi_document_offers_the_key(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    scheme = document["components"]["securitySchemes"]["api_key"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-Key")
    predict = document["paths"]["/v1/models/{model}:predict"]["post"]
    assert {"api_key": []} in predict["security"]
    assert json.dumps(document).count('{"api_key": []}') >= 10
