"""Predictions as a caller sees them: responses, receipts and errors."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW

NUMBERS = "/v1/models/numbers:predict"
MIXED = "/v1/models/mixed:predict"
PRICE = "/v1/models/price:predict"


async def post(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post(path, json=body, headers=headers)


class TestPrediction:
    async def test_a_list_and_an_object_of_columns_are_the_same_row(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        as_object = dict(zip("abc", NUMBERS_ROW, strict=True))

        answer = await post(client, NUMBERS, bearer, instances=[NUMBERS_ROW, as_object])

        assert answer.status_code == 200
        first, second = answer.json()["predictions"]
        assert first == second == 1

    async def test_probabilities_come_in_the_order_of_the_classes(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        parameters = {"probabilities": True}

        answer = await post(client, MIXED, bearer, instances=[MIXED_ROW], parameters=parameters)

        described = await client.get("/v1/models/mixed", headers=bearer)
        classes = described.json()["signature"]["classes"]
        [label], [shares] = answer.json()["predictions"], answer.json()["probabilities"]
        assert classes == ["big", "small"]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert label == classes[shares.index(max(shares))]

    async def test_missing_values_and_unseen_categories_are_accepted_in_every_column(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        rows = [{**MIXED_ROW, name: None} for name in MIXED_ROW]

        answer = await post(client, MIXED, bearer, instances=[*rows, {**MIXED_ROW, "colour": "ü"}])

        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 4

    async def test_a_number_is_valid_if_it_is_finite_as_float32(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        largest, larger = {**MIXED_ROW, "size": 3.4028235e38}, {**MIXED_ROW, "size": 3.4028236e38}

        taken = await post(client, MIXED, bearer, instances=[largest])
        refused = await post(client, MIXED, bearer, instances=[larger])
        also_refused = await post(client, NUMBERS, bearer, instances=[[3.4028236e38, 1]])

        assert taken.status_code == 200
        assert refused.status_code == also_refused.status_code == 422
        assert refused.json()["errors"][0]["loc"][-1] == "size"

    async def test_a_regression_returns_numbers(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await post(client, PRICE, bearer, instances=[[4.0, 2.0], [None, 1.0]])

        predictions = answer.json()["predictions"]
        assert predictions[0] == pytest.approx(10.0, abs=1.0)
        assert isinstance(predictions[1], float)

    async def test_a_large_request_gets_the_same_predictions_off_the_event_loop(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        rows = [[float(n % 7 - 3), 0.5, 0.0] for n in range(9_000)]

        answer = await post(client, NUMBERS, bearer, instances=rows)
        one_by_one = await post(client, NUMBERS, bearer, instances=rows[:7])

        assert answer.json()["predictions"][:7] == one_by_one.json()["predictions"]
        assert len(answer.json()["predictions"]) == 9_000


class TestReceipt:
    async def test_names_model_version_event_and_amount(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        answer = await post(client, NUMBERS, bearer, instances=[NUMBERS_ROW] * 3)

        await eventually(lambda: answer.headers["x-usage-event"] in neighbours.charged)
        event = neighbours.charged[answer.headers["x-usage-event"]]
        assert answer.headers["x-usage-amount"] == "0.0008 USD"
        assert event["data"]["rows"] == 3
        assert event["data"]["price_id"] == "price-1"
        assert answer.headers["x-model-name"] == event["data"]["model"] == "numbers"
        assert answer.headers["x-model-version"] == event["data"]["version"]

    async def test_a_key_and_body_determine_the_event(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        keyed = {**bearer, "Idempotency-Key": "order 7"}

        first = await post(client, NUMBERS, keyed, instances=[NUMBERS_ROW])
        repeat = await post(client, NUMBERS, keyed, instances=[NUMBERS_ROW])
        other = await post(client, NUMBERS, keyed, instances=[[0.0, 0.0, 0.0]])

        assert first.headers["x-usage-event"] == repeat.headers["x-usage-event"]
        assert first.json() == repeat.json()
        assert other.headers["x-usage-event"] != first.headers["x-usage-event"]

    async def test_two_accounts_may_use_the_same_key(
        self, client: httpx.AsyncClient, neighbours: Neighbours
    ) -> None:
        events = set()
        for _ in range(2):
            headers = {"Authorization": f"Bearer {neighbours.token()}", "Idempotency-Key": "k"}
            answer = await post(client, NUMBERS, headers, instances=[NUMBERS_ROW])
            events.add(answer.headers["x-usage-event"])

        assert len(events) == 2

    async def test_errors_are_not_billed(
        self,
        client: httpx.AsyncClient,
        account: str,
        bearer: dict[str, str],
        neighbours: Neighbours,
    ) -> None:
        await post(client, NUMBERS, bearer, instances=[["x"]])
        await post(client, "/v1/models/none:predict", bearer, instances=[NUMBERS_ROW])
        answer = await post(client, NUMBERS, bearer, instances=[NUMBERS_ROW])

        await eventually(lambda: bool(neighbours.charged_to(account)))
        assert neighbours.charged_to(account) == [answer.headers["x-usage-event"]]

    async def test_a_valid_request_id_is_echoed(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        sane = await post(client, NUMBERS, {**bearer, "X-Request-ID": "abc-1"}, instances=[])
        insane = await post(client, NUMBERS, {**bearer, "X-Request-ID": "a b\x7f"}, instances=[])

        assert sane.headers["x-request-id"] == sane.json()["request_id"] == "abc-1"
        assert insane.headers["x-request-id"] != "a b\x7f"


class TestRefusal:
    async def test_token_scope_model_and_body_are_checked_in_order(
        self, client: httpx.AsyncClient, neighbours: Neighbours
    ) -> None:
        reader = {"Authorization": f"Bearer {neighbours.token(scope='usage:read')}"}
        caller = {"Authorization": f"Bearer {neighbours.token()}"}
        unknown = "/v1/models/unknown:predict"
        bad: dict[str, Any] = {"content": b"{" * 100}

        assert (await client.post(unknown, **bad)).status_code == 401
        forbidden = await client.post(unknown, headers=reader, **bad)
        assert forbidden.status_code == 403
        assert "insufficient_scope" in forbidden.headers["www-authenticate"]
        assert (await client.post(unknown, headers=caller, **bad)).status_code == 404
        assert (await client.post(NUMBERS, headers=caller, **bad)).status_code == 422

    @pytest.mark.parametrize(
        "body",
        [
            b'{"instances":[[NaN,1,2]]}',
            b'{"instances":[[Infinity,1,2]]}',
            b'{"instances":[[1e400,1,2]]}',
            b'{"instances":[[1e308,1,2]]}',
            b'{"instances":[[-3.5e38,1,2]]}',
            b'{"instances":[["nan",1,2]]}',
            b'{"instances":[["1",1,2]]}',
            b'{"instances":[[true,1,2]]}',
            b'{"instances":[[[1],1,2]]}',
            b'{"instances":[["\\ud800",1,2]]}',
            b'{"instances":[[%s,1,2]]}' % (b"9" * 5_000),
            b'{"x":"a:b","instances":[[%s,1,2]]}' % (b"9" * 5_000),
            b'{"instances":%s}' % (b"[" * 100_000),
            b'{"a":' * 100_000,
            b'{"instances":[["a:b",%s1%s]]}' % (b"[" * 990, b"]" * 990),
            b'{"instances":[[1,2,3]],"instances":[[1,2,3]]}',
            b'{"instances":[{"a":1,"b":2,"c":3,"a":1}]}',
            b'{"instances":[{"a":1,"b":2,"c":3,"a" :1}]}',
            b'\xef\xbb\xbf{"instances":[[1,2,3]]}',
            b'{"instances":[["\xff",2,3]]}',
            b'{"instances":[[1,2]]}',
            b'{"instances":[[1,2,3],[1,2,3,4]]}',
            b'{"instances":[]}',
            b'{"instances":[[]]}',
            b'{"instances":{}}',
            b'{"instances":[1,2,3]}',
            b'{"instances":[{"a":1,"b":2}]}',
            b'{"instances":[[1,2,3]],"more":1}',
            b'{"instances":[[1,2,3]],"parameters":[]}',
            b'{"instances":[[1,2,3]],"parameters":{"probabilities":1}}',
            b'{"instances":[[1,2,3]],"parameters":{"x":true}}',
            b"[]",
            b"null",
            b"",
            b'{"instances":[%s[1,2,3]]}' % (b"[1,2,3]," * 10_000),
        ],
        ids=lambda body: repr(body[:40]),
    )
    async def test_invalid_input_is_422_and_not_echoed(
        self, client: httpx.AsyncClient, bearer: dict[str, str], body: bytes
    ) -> None:
        answer = await client.post(NUMBERS, content=body, headers=bearer)

        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert 1 <= len(answer.json()["errors"]) <= 50
        assert len(answer.content) < 8_000
        assert "99999999" not in answer.text

    async def test_every_invalid_column_is_named(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        row = {"size": "large", "colour": 7, "age": 3}

        answer = await post(client, MIXED, bearer, instances=[row])

        named = {error["loc"][-1] for error in answer.json()["errors"]}
        assert named == {"size", "colour", "age", "sold"}

    async def test_at_most_fifty_errors_are_listed(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await post(client, NUMBERS, bearer, instances=[["x", "y", "z"]] * 1_000)

        assert len(answer.json()["errors"]) == 50

    @pytest.mark.parametrize("key", ["", "x" * 256, "tab\tkey", "schlüssel".encode("latin-1")])
    async def test_an_invalid_idempotency_key_is_400(
        self, client: httpx.AsyncClient, bearer: dict[str, str], key: str | bytes
    ) -> None:
        name = b"Idempotency-Key"
        value = key if isinstance(key, bytes) else key.encode()
        headers = [(name, value), *((k.encode(), v.encode()) for k, v in bearer.items())]

        answer = await client.post(NUMBERS, json={"instances": [NUMBERS_ROW]}, headers=headers)

        assert answer.status_code == 400

    async def test_a_body_over_the_limit_is_413_however_it_is_sent(
        self, settings: InferenceSettings, bearer: dict[str, str]
    ) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b" " * 1_000

        limited = settings.model_copy(update={"max_body_bytes": 2_000})
        async with serving(limited) as client:
            whole = await client.post(NUMBERS, content=b" " * 3_000, headers=bearer)
            chunked = await client.post(NUMBERS, content=chunks(), headers=bearer)

        assert whole.status_code == chunked.status_code == 413

    async def test_values_without_a_finite_output_are_422_and_not_billed(
        self,
        client: httpx.AsyncClient,
        account: str,
        bearer: dict[str, str],
        neighbours: Neighbours,
    ) -> None:
        extreme = await post(client, PRICE, bearer, instances=[[3e38, -3e38]])
        answer = await post(client, PRICE, bearer, instances=[[1.0, 1.0]])

        assert extreme.status_code == 422
        await eventually(lambda: bool(neighbours.charged_to(account)))
        assert neighbours.charged_to(account) == [answer.headers["x-usage-event"]]

    async def test_an_encoded_body_is_415(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        headers = {**bearer, "Content-Encoding": "gzip"}

        answer = await client.post(NUMBERS, content=b"\x1f\x8b", headers=headers)

        assert answer.status_code == 415

    async def test_an_account_without_a_plan_gets_402_until_it_has_one(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        async def status() -> int:
            return (await post(client, NUMBERS, bearer, instances=[NUMBERS_ROW])).status_code

        async def pays() -> bool:
            return await status() == 200

        neighbours.status = "no_plan"
        assert await status() == 402

        neighbours.status = "ok"
        await eventually(pays)

    async def test_without_billing_new_accounts_get_503_and_known_ones_are_served(
        self,
        client: httpx.AsyncClient,
        account: str,
        bearer: dict[str, str],
        neighbours: Neighbours,
    ) -> None:
        known = bearer
        new = {"Authorization": f"Bearer {neighbours.token()}"}
        assert (await post(client, NUMBERS, known, instances=[NUMBERS_ROW])).status_code == 200

        neighbours.failing = {"/leases": 500, "/events": 500}

        assert (await post(client, NUMBERS, known, instances=[NUMBERS_ROW])).status_code == 200
        refused = await post(client, NUMBERS, new, instances=[NUMBERS_ROW])
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        neighbours.failing = {}
        await eventually(lambda: len(neighbours.charged_to(account)) == 2)

    async def test_many_requests_of_a_new_account_load_its_terms_once(
        self,
        client: httpx.AsyncClient,
        account: str,
        bearer: dict[str, str],
        neighbours: Neighbours,
    ) -> None:

        answers = await asyncio.gather(
            *(post(client, NUMBERS, bearer, instances=[NUMBERS_ROW]) for _ in range(20))
        )

        assert {answer.status_code for answer in answers} == {200}
        assert [ask["account"] for ask in neighbours.lease_requests].count(account) == 1
