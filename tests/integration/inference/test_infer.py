"""The Open Inference Protocol v2 in JSON, as a caller sees it."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW

NUMBERS = "/v2/models/numbers/infer"
MIXED = "/v2/models/mixed/infer"
PRICE = "/v2/models/price/infer"


def numbers(*rows: list[Any], datatype: str = "FP64", **changes: Any) -> dict[str, Any]:
    """Return the input of the model `numbers`."""
    flat = [value for row in rows for value in row]
    tensor = {"name": "features", "datatype": datatype, "shape": [len(rows), 3], "data": flat}
    return tensor | changes


def mixed(**columns: Any) -> list[dict[str, Any]]:
    """Return one row of inputs of the model `mixed`, with changes to some columns."""
    datatypes = {"size": "FP32", "colour": "BYTES", "sold": "BOOL"}
    tensors = []
    for name, value in MIXED_ROW.items():
        tensor = {"name": name, "datatype": datatypes[name], "shape": [1, 1], "data": [value]}
        changed = columns.get(name, {})
        tensors.append(tensor | (changed if isinstance(changed, dict) else {"data": [changed]}))
    return tensors


async def post(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post(path, json=body, headers=headers)


def output(answer: httpx.Response, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(o for o in answer.json()["outputs"] if o["name"] == name)
    return found


class TestPrediction:
    async def test_matches_v1(self, client: httpx.AsyncClient, bearer: dict[str, str]) -> None:
        rows: list[list[Any]] = [NUMBERS_ROW, [-1.0, -2.0, None]]

        v2 = await post(client, NUMBERS, bearer, inputs=[numbers(*rows)])
        v1 = await client.post(
            "/v1/models/numbers:predict",
            json={"instances": rows, "parameters": {"probabilities": True}},
            headers=bearer,
        )

        assert v2.status_code == 200
        assert output(v2, "predict") == {
            "name": "predict",
            "datatype": "INT64",
            "shape": [2],
            "data": v1.json()["predictions"],
        }
        flat = [share for row in v1.json()["probabilities"] for share in row]
        assert output(v2, "predict_proba") == {
            "name": "predict_proba",
            "datatype": "FP64",
            "shape": [2, 2],
            "data": flat,
        }
        assert v2.json()["model_name"] == "numbers"
        assert v2.json()["model_version"] == v2.headers["x-model-version"]

    async def test_data_may_be_flat_or_a_list_of_rows(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        nested = numbers(NUMBERS_ROW, NUMBERS_ROW, data=[NUMBERS_ROW, NUMBERS_ROW])

        answers = [
            (await post(client, NUMBERS, bearer, inputs=[tensor])).json()["outputs"]
            for tensor in (nested, numbers(NUMBERS_ROW, NUMBERS_ROW))
        ]

        assert answers[0] == answers[1]

    async def test_each_column_is_an_input_if_one_is_not_numeric(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await post(client, MIXED, bearer, inputs=mixed())
        v1 = await client.post(
            "/v1/models/mixed:predict", json={"instances": [MIXED_ROW]}, headers=bearer
        )

        assert output(answer, "predict")["datatype"] == "BYTES"
        assert output(answer, "predict")["data"] == v1.json()["predictions"]

    @pytest.mark.parametrize("column", MIXED_ROW)
    async def test_null_is_a_missing_value_in_every_column(
        self, client: httpx.AsyncClient, bearer: dict[str, str], column: str
    ) -> None:
        answer = await post(client, MIXED, bearer, inputs=mixed(**{column: None}))

        assert answer.status_code == 200

    @pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64"])
    async def test_numbers_may_have_any_suitable_datatype(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str
    ) -> None:
        inputs = mixed(size={"datatype": datatype, "data": [5]})

        answer = await post(client, MIXED, bearer, inputs=inputs)

        assert answer.status_code == 200

    async def test_a_regression_has_one_output(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [4, 2]}

        answer = await post(client, PRICE, bearer, inputs=[tensor])

        [only] = answer.json()["outputs"]
        assert only["datatype"] == "FP64"
        assert only["data"] == [pytest.approx(10.0, abs=1.0)]

    async def test_the_id_is_echoed_with_only_the_requested_outputs(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await post(
            client,
            NUMBERS,
            bearer,
            id="mine",
            inputs=[numbers(NUMBERS_ROW)],
            outputs=[{"name": "predict_proba"}],
        )

        assert answer.json()["id"] == "mine"
        assert [o["name"] for o in answer.json()["outputs"]] == ["predict_proba"]

    async def test_a_version_may_be_named(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        described = await client.get("/v2/models/numbers", headers=bearer)
        [version] = described.json()["versions"]
        path = f"/v2/models/numbers/versions/{version}/infer"

        answer = await post(client, path, bearer, inputs=[numbers(NUMBERS_ROW)])

        assert answer.status_code == 200
        assert answer.headers["x-model-version"] == version


class TestReceipt:
    async def test_matches_a_v1_receipt(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        answer = await post(client, NUMBERS, bearer, inputs=[numbers(*[NUMBERS_ROW] * 3)])

        await eventually(lambda: answer.headers["x-usage-event"] in neighbours.charged)
        event = neighbours.charged[answer.headers["x-usage-event"]]
        assert event["data"]["rows"] == 3
        assert event["data"]["model"] == answer.headers["x-model-name"] == "numbers"
        assert answer.headers["x-usage-amount"] == "0.0008 USD"

    async def test_a_repeat_with_its_key_has_the_same_event_for_any_id_and_order(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        keyed = {**bearer, "Idempotency-Key": "order 7"}
        tensor = orjson.dumps(numbers(NUMBERS_ROW)).decode()
        bodies = (
            f'{{"id": "a", "inputs": [{tensor}], "outputs": [{{"name": "predict"}}]}}',
            f' {{ "outputs":[{{"name": "predict"}}] , "id":"b:{{", "inputs" :\n[{tensor}] }} ',
            f'{{"id": "a", "inputs": [{tensor} ], "outputs": [{{"name": "predict"}}]}}',
            f'{{"id": "a", "inputs": [{tensor}]}}',
        )

        first, repeat, spaced, other = [
            (await client.post(NUMBERS, content=body, headers=keyed)).headers["x-usage-event"]
            for body in bodies
        ]

        assert first == repeat
        assert len({first, spaced, other}) == 3

    async def test_errors_are_not_billed(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        await post(client, NUMBERS, bearer, inputs=[numbers([1.0, True, 0.0])])
        paid = await post(client, NUMBERS, bearer, inputs=[numbers(NUMBERS_ROW)])

        await eventually(lambda: paid.headers["x-usage-event"] in neighbours.charged)
        assert neighbours.charged_to(account) == [paid.headers["x-usage-event"]]


def refused_inputs() -> dict[str, list[dict[str, Any]]]:
    """Inputs that `numbers` rejects, by a part of the expected error."""
    row = numbers(NUMBERS_ROW)
    return {
        "features: Missing input": [],
        "nonsense: Unknown input": [row, {**row, "name": "nonsense"}],
        "Duplicate input": [row, row],
        "features: The datatype must be FP32, FP64": [{**row, "datatype": "BOOL"}],
        "features: The shape must be [-1, 3]": [{**row, "shape": [3, 1]}],
        "shape: Must be a list of non-negative integers": [{**row, "shape": [True, 3]}],
        "data: Must be a list of values": [{**row, "data": None}],
        "1 × 3 values": [{**row, "data": [1.0, 2.0]}],
        "3 values, as declared by the shape": [{**row, "data": [[1.0, 2.0]]}],
        "features.b: Each element must be": [numbers([1.0, True, 3.0])],
        "features.c: Each element must be": [numbers([1.0, 2.0, "3"])],
        "features.a: Each number must be finite": [numbers([1e308, 2.0, 3.0])],
        "1 to 10000 rows": [{**row, "shape": [10_001, 3]}],
        "10000 rows.": [{**row, "shape": [10**18, 3]}],
        "inputs: Must have 1 to 10000 rows": [{**row, "shape": [0, 3], "data": []}],
        "name: Must be a string": [{**row, "name": 7}],
        "binary_data_size": [{**row, "parameters": {"binary_data_size": 24}}],
    }


class TestRefusal:
    @pytest.mark.parametrize("named", refused_inputs())
    async def test_names_the_problem(
        self, client: httpx.AsyncClient, bearer: dict[str, str], named: str
    ) -> None:
        answer = await post(client, NUMBERS, bearer, inputs=refused_inputs()[named])

        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().keys() == {"error"}
        assert named in answer.json()["error"]

    async def test_names_every_invalid_column(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        inputs = mixed(size=True, colour=3, sold={"shape": [1, 2]})

        answer = await post(client, MIXED, bearer, inputs=inputs)

        assert answer.status_code == 400
        for column in MIXED_ROW:
            assert f"inputs.{column}: " in answer.json()["error"]

    @pytest.mark.parametrize(
        "value", [{"datatype": "INT64", "data": [1.5]}, {"datatype": "INT64", "data": [2**63]}]
    )
    async def test_of_a_number_outside_its_datatype(
        self, client: httpx.AsyncClient, bearer: dict[str, str], value: dict[str, Any]
    ) -> None:
        answer = await post(client, MIXED, bearer, inputs=mixed(size=value))

        assert answer.status_code == 400
        assert "inputs.size" in answer.json()["error"]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"{",
            b"\xff",
            b'{"inputs": NaN}',
            b'{"inputs": 1}',
            b'{"inputs": [1]}',
            b'{"inputs": [], "inputs": []}',
            b'{"inputs": [], "parameters": 3}',
            b'{"inputs": [], "id": 3}',
            b'{"inputs": [], "x": ' + b"[" * 1000 + b"]" * 1000 + b', "y": ":"}',
        ],
    )
    async def test_of_a_body_that_violates_the_protocol(
        self, client: httpx.AsyncClient, bearer: dict[str, str], content: bytes
    ) -> None:
        keyed = {**bearer, "Idempotency-Key": "k"}

        answer = await client.post(NUMBERS, content=content, headers=keyed)

        assert answer.status_code == 400
        assert answer.json().keys() == {"error"}

    @pytest.mark.parametrize(
        "outputs",
        [[{"name": "nonsense"}], [{"name": "predict"}] * 2, [{}], 3, [{"name": ["predict"]}]],
    )
    async def test_of_unknown_outputs(
        self, client: httpx.AsyncClient, bearer: dict[str, str], outputs: object
    ) -> None:
        answer = await post(client, NUMBERS, bearer, inputs=[numbers(NUMBERS_ROW)], outputs=outputs)

        assert answer.status_code == 400
        assert "outputs" in answer.json()["error"]

    async def test_checks_token_scope_existence_and_body_in_order(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        without_scope = {"Authorization": f"Bearer {neighbours.token(scope='usage:read')}"}

        statuses = [
            (await client.post(path, content=b"{", headers=headers)).status_code
            for path, headers in (
                ("/v2/models/nothing/infer", {}),
                ("/v2/models/nothing/infer", without_scope),
                ("/v2/models/nothing/infer", bearer),
                (NUMBERS, bearer),
            )
        ]

        assert statuses == [401, 403, 404, 400]

    @pytest.mark.parametrize(
        "model",
        [
            "..%2f..%2fetc",
            "%2e%2e",
            "a%0ab",
            "*",
            "gs:%2f%2fevil%2fx",
            "http:%2f%2f169.254.169.254",
            "numbers/versions/..%2f..",
            "numbers/versions/20260101t000000z-00000000",
            "numbers/versions/latest",
            "x" * 10_000,
        ],
    )
    async def test_of_unknown_models_and_versions(
        self, client: httpx.AsyncClient, bearer: dict[str, str], model: str
    ) -> None:
        answers = await asyncio.gather(
            client.post(f"/v2/models/{model}/infer", json={}, headers=bearer),
            client.get(f"/v2/models/{model}", headers=bearer),
            client.get(f"/v2/models/{model}/ready", headers=bearer),
        )

        for answer in answers:
            assert answer.status_code == 404
            assert answer.json().keys() == {"error"}

    async def test_of_an_account_without_credit_has_the_protocols_format(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        neighbours.status = "no_credit"

        answer = await post(client, NUMBERS, bearer, inputs=[numbers(NUMBERS_ROW)])

        assert answer.status_code == 402
        assert answer.json().keys() == {"error"}
        assert "x-request-id" in answer.headers
