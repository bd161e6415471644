"""What tensors of the Open Inference Protocol v2 may look like: datatypes, shapes and layouts."""

import math
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from services.inference.api.v2.tensors import NUMPY
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW
from tests.integration.inference.test_binary_tensors import post as post_binary
from tests.integration.inference.test_binary_tensors import tensor, text
from tests.integration.inference.test_infer import MIXED, NUMBERS, mixed, numbers, output, post

NUMBER_DATATYPES = [datatype for datatype in NUMPY if datatype != "BOOL"]
INTEGERS = [datatype for datatype in NUMBER_DATATYPES if "INT" in datatype]


def columns(
    *rows: list[Any], datatype: str = "FP32", shape: list[int] | None = None
) -> list[dict[str, Any]]:
    """Return one input per column of the model `numbers`."""
    shape = shape or [len(rows), 1]
    return [
        {"name": name, "datatype": datatype, "shape": shape, "data": list(values)}
        for name, values in zip("abc", zip(*rows, strict=True), strict=True)
    ]


class TestDatatype:
    @pytest.mark.parametrize("datatype", NUMBER_DATATYPES)
    async def test_any_number_is_accepted_as_json_and_as_bytes(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str
    ) -> None:
        row = [int(value) for value in NUMBERS_ROW]
        raw = np.array(row, dtype=NUMPY[datatype]).tobytes()
        plain = await post(client, NUMBERS, bearer, inputs=[numbers(NUMBERS_ROW)])

        as_json = await post(client, NUMBERS, bearer, inputs=[numbers(row, datatype=datatype)])
        as_bytes = await post_binary(
            client, NUMBERS, bearer, tail=raw, inputs=[tensor("features", datatype, [1, 3], raw)]
        )

        assert as_json.status_code == as_bytes.status_code == 200
        assert as_json.json()["outputs"] == as_bytes.json()["outputs"] == plain.json()["outputs"]

    @pytest.mark.parametrize("datatype", INTEGERS)
    async def test_an_integer_beyond_its_datatype_is_refused(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str
    ) -> None:
        limits = np.iinfo(NUMPY[datatype])
        rows: list[list[Any]] = [
            [int(limits.max), int(limits.min), None],
            [int(limits.max) + 1, 0, 0],
        ]

        within, beyond = [
            await post(client, NUMBERS, bearer, inputs=[numbers(row, datatype=datatype)])
            for row in rows
        ]

        assert within.status_code == 200
        assert beyond.status_code == 400
        assert "inputs.features" in beyond.json()["error"]

    @pytest.mark.parametrize(
        ("datatype", "value"),
        [("FP16", -math.inf), ("FP32", math.inf), ("FP64", -math.inf), ("FP16", math.nan)],
    )
    async def test_a_number_that_is_not_finite_is_refused_in_bytes(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str, value: float
    ) -> None:
        raw = np.array([1, value, 2], dtype=NUMPY[datatype]).tobytes()

        answer = await post_binary(
            client, NUMBERS, bearer, tail=raw, inputs=[tensor("features", datatype, [1, 3], raw)]
        )

        assert answer.status_code == 400
        assert "inputs.features.b: " in answer.json()["error"]

    @pytest.mark.parametrize("datatype", ["FP32", "FP64"])
    async def test_nan_in_bytes_and_null_in_json_are_the_same_missing_value(
        self, client: httpx.AsyncClient, bearer: dict[str, str], datatype: str
    ) -> None:
        raw = np.array([-1.0, math.nan, 2.0], dtype=NUMPY[datatype]).tobytes()

        missing = await post_binary(
            client, NUMBERS, bearer, tail=raw, inputs=[tensor("features", datatype, [1, 3], raw)]
        )
        null = await post(client, NUMBERS, bearer, inputs=[numbers([-1.0, None, 2.0])])

        assert missing.status_code == 200
        assert missing.json()["outputs"] == null.json()["outputs"]

    async def test_null_is_a_missing_value_in_every_datatype(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        for datatype in NUMBER_DATATYPES:
            answer = await post(
                client, NUMBERS, bearer, inputs=[numbers([1, None, 2], datatype=datatype)]
            )

            assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("column", "datatype"), [("size", "BOOL"), ("sold", "INT8"), ("colour", "FP32")]
    )
    async def test_of_another_kind_than_the_column_is_refused(
        self, client: httpx.AsyncClient, bearer: dict[str, str], column: str, datatype: str
    ) -> None:
        answer = await post(client, MIXED, bearer, inputs=mixed(**{column: {"datatype": datatype}}))

        assert answer.status_code == 400
        assert f"inputs.{column}: The datatype must be" in answer.json()["error"]


class TestShape:
    @pytest.mark.parametrize("shape", [[1], [1, 1]])
    async def test_of_a_column_may_have_one_or_two_dimensions(
        self, client: httpx.AsyncClient, bearer: dict[str, str], shape: list[int]
    ) -> None:
        flat = mixed(**{name: {"shape": shape} for name in MIXED_ROW})
        expected = await post(client, MIXED, bearer, inputs=mixed())

        answer = await post(client, MIXED, bearer, inputs=flat)

        assert answer.json()["outputs"] == expected.json()["outputs"]

    @pytest.mark.parametrize("shape", [[], [1, 1, 1], [1, 2], [3, 1], [2]])
    async def test_that_does_not_match_is_refused(
        self, client: httpx.AsyncClient, bearer: dict[str, str], shape: list[int]
    ) -> None:
        answer = await post(client, MIXED, bearer, inputs=mixed(size={"shape": shape}))

        assert answer.status_code == 400


class TestColumns:
    @pytest.mark.parametrize("shape", [[2], [2, 1]])
    async def test_of_a_numeric_model_may_each_be_an_input(
        self, client: httpx.AsyncClient, bearer: dict[str, str], shape: list[int]
    ) -> None:
        rows: list[list[Any]] = [NUMBERS_ROW, [-1.0, None, 2.0]]
        matrix = await post(client, NUMBERS, bearer, inputs=[numbers(*rows)])

        by_column = await post(client, NUMBERS, bearer, inputs=columns(*rows, shape=shape))

        assert by_column.status_code == 200
        assert by_column.json()["outputs"] == matrix.json()["outputs"]

    async def test_may_be_described_as_a_data_frame_is_by_mlserver(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        inputs = columns(NUMBERS_ROW, NUMBERS_ROW, datatype="FP64")
        for each in inputs:
            each["parameters"] = {"content_type": "np"}

        answer = await post(
            client, NUMBERS, bearer, inputs=inputs, parameters={"content_type": "pd"}
        )

        assert answer.status_code == 200
        assert output(answer, "predict")["shape"] == [2]

    async def test_that_are_missing_or_unknown_are_named(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        inputs = columns(NUMBERS_ROW)
        inputs[1]["name"] = "z"

        answer = await post(client, NUMBERS, bearer, inputs=inputs)

        assert answer.status_code == 400
        assert "inputs.b: Missing input. inputs.z: Unknown input." in answer.json()["error"]

    async def test_cannot_be_mixed_with_the_matrix(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        inputs = [numbers(NUMBERS_ROW), *columns(NUMBERS_ROW)]

        answer = await post(client, NUMBERS, bearer, inputs=inputs)

        assert answer.status_code == 400
        assert "inputs.features: Unknown input." in answer.json()["error"]


class TestRawBody:
    async def test_is_the_only_input_and_gets_binary_outputs(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        rows = [NUMBERS_ROW, [-1.0, -2.0, math.nan]]
        raw = np.array(rows, dtype="<f4").tobytes()
        headers = {**bearer, "Inference-Header-Content-Length": "0", "Idempotency-Key": "raw"}

        answer = await client.post(NUMBERS, content=raw, headers=headers)
        repeat = await client.post(NUMBERS, content=raw, headers=headers)

        length = int(answer.headers["inference-header-content-length"])
        document = orjson.loads(answer.content[:length])
        [labels, _] = document["outputs"]
        assert labels["shape"] == [2]
        assert np.frombuffer(answer.content[length : length + 16], dtype="<i8").tolist() == [1, 0]
        assert answer.headers["x-usage-event"] == repeat.headers["x-usage-event"]

    @pytest.mark.parametrize("size", [0, 11, 13])
    async def test_of_a_wrong_size_is_refused(
        self, client: httpx.AsyncClient, bearer: dict[str, str], size: int
    ) -> None:
        headers = {**bearer, "Inference-Header-Content-Length": "0"}

        answer = await client.post(NUMBERS, content=bytes(size), headers=headers)

        assert answer.status_code == 400

    async def test_is_refused_by_a_model_with_several_inputs(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        headers = {**bearer, "Inference-Header-Content-Length": "0"}

        answer = await client.post(MIXED, content=text(b"red"), headers=headers)

        assert answer.status_code == 400
        assert "one input" in answer.json()["error"]


class TestEnvelope:
    async def test_a_response_has_an_id_even_if_the_request_has_none(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        inputs = [numbers(NUMBERS_ROW)]

        answers = [
            await post(client, NUMBERS, bearer, inputs=inputs),
            await post(client, NUMBERS, bearer, inputs=inputs, id=None),
        ]

        ids = {answer.json()["id"] for answer in answers}
        assert len(ids) == 2
        assert all(type(each) is str and each for each in ids)

    async def test_unknown_members_and_parameters_are_ignored(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        input = {**numbers(NUMBERS_ROW), "nonsense": 1, "parameters": {"a": 1, "b": "x"}}
        wanted = [{"name": "predict", "parameters": {"classification": 3}}]

        answer = await post(
            client,
            NUMBERS,
            bearer,
            inputs=[input],
            outputs=wanted,
            parameters={"sequence_id": 0, "priority": 2, "x": True, "y": "z"},
            model_name="numbers",
        )

        assert answer.status_code == 200

    async def test_tensorflow_servings_signature_name_is_ignored_in_v1(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        body = {"signature_name": "serving_default", "instances": [NUMBERS_ROW]}

        answer = await client.post("/v1/models/numbers:predict", json=body, headers=bearer)

        assert answer.json() == {"predictions": [1]}

    async def test_an_unknown_model_or_version_is_named_in_the_error(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        version = "20260101t000000z-00000000"

        v2 = await post(client, "/v2/models/wines/infer", bearer)
        v1 = await client.post("/v1/models/wines:predict", json={}, headers=bearer)
        described = await client.get("/v2/models/wines", headers=bearer)
        older = await post(client, f"/v2/models/numbers/versions/{version}/infer", bearer)

        assert v2.json()["error"] == described.json()["error"] == "Model 'wines' not found."
        assert v1.json()["detail"] == "Model 'wines' not found."
        assert older.json()["error"] == f"Version '{version}' of model 'numbers' not found."
