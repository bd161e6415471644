"""Prediction intervals and label sets as a caller sees them."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.keys import TrustedKeys
from registry.records import Manifest
from registry.store import ModelStore
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import serving_shelf
from tests.integration.inference.fast import Served
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf

NUMBERS = "/v1/models/numbers:predict"
MIXED = "/v1/models/mixed:predict"
PRICE = "/v1/models/price:predict"
ONE = {"instances": [NUMBERS_ROW]}


async def post(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post(path, json=body, headers=headers)


def live(samples: Store, model: str) -> Manifest:
    store, trusted = ModelStore(samples.url), TrustedKeys.load(samples.trusted)
    [version] = store.list_versions(model)
    return store.open_version(model, version, trusted)


class TestRegression:
    async def test_intervals_surround_the_value_and_grow_with_the_level(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        rows = [[4.0, 2.0], [None, 1.0], [9.0, 9.0]]

        answers = [
            await post(client, PRICE, bearer, instances=rows, parameters={"intervals": level})
            for level in (0.5, 0.9)
        ]

        narrow, wide = (answer.json()["intervals"] for answer in answers)
        predictions = answers[0].json()["predictions"]
        for value, inner, outer in zip(predictions, narrow, wide, strict=True):
            assert outer[0] < inner[0] < value < inner[1] < outer[1]
        assert list(answers[0].json()) == ["predictions", "intervals"]

    async def test_their_width_is_that_of_the_signed_calibration(
        self, client: httpx.AsyncClient, bearer: dict[str, str], samples: Store
    ) -> None:
        calibration = live(samples, "price").calibration
        assert calibration is not None

        answer = await post(
            client, PRICE, bearer, instances=[[4.0, 2.0]], parameters={"intervals": 0.8}
        )

        [[low, high]] = answer.json()["intervals"]
        assert (high - low) / 2 == pytest.approx(calibration.threshold(0.8))


class TestClassification:
    @pytest.mark.parametrize(("path", "row"), [(NUMBERS, NUMBERS_ROW), (MIXED, MIXED_ROW)])
    async def test_a_label_set_has_the_predicted_label_and_is_never_empty(
        self, client: httpx.AsyncClient, bearer: dict[str, str], path: str, row: Any
    ) -> None:
        answer = await post(client, path, bearer, instances=[row], parameters={"intervals": 0.1})

        document = answer.json()
        assert document["label_sets"] == [document["predictions"]]
        assert list(document) == ["predictions", "label_sets"]

    async def test_an_unsure_prediction_has_several_labels_in_the_order_of_the_classes(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        unsure = [[0.02, -0.01, 0.0], [-0.02, 0.01, 0.0]]
        parameters = {"intervals": 0.95, "probabilities": True}

        answer = await post(client, NUMBERS, bearer, instances=unsure, parameters=parameters)

        assert answer.json()["label_sets"] == [[0, 1], [0, 1]]
        assert len(answer.json()["probabilities"]) == 2


class TestPaths:
    async def test_the_fast_path_gives_the_same_answer(
        self, served: Served, bearer: dict[str, str]
    ) -> None:
        seen, answers = len(served.by_app), []
        body = {**ONE, "parameters": {"intervals": 0.9}}
        async with httpx.AsyncClient() as http:
            for port in (served.ordinary, served.fast, served.fast):
                url = f"http://127.0.0.1:{port}{NUMBERS}"
                answers.append(await http.post(url, json=body, headers=bearer))

        assert [answer.json() for answer in answers] == [answers[0].json()] * 3
        assert answers[0].json()["label_sets"] == [[1]]
        assert served.by_app[seen:] in ([NUMBERS], [NUMBERS] * 2)  # the first may warm the account


class TestRefusals:
    @pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, 0.0, 1.0, "0.9", True, None, [0.9], 1e300])
    async def test_the_level_must_be_between_0_and_1(
        self, client: httpx.AsyncClient, bearer: dict[str, str], level: object
    ) -> None:
        answer = await post(client, PRICE, bearer, **ONE, parameters={"intervals": level})

        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {
                "loc": ["parameters", "intervals"],
                "msg": "Must be a number between 0 and 1, such as 0.9.",
            }
        ]

    async def test_a_level_too_high_for_the_calibration_names_the_highest(
        self, client: httpx.AsyncClient, bearer: dict[str, str], samples: Store
    ) -> None:
        calibration = live(samples, "price").calibration
        assert calibration is not None

        refused = await post(client, PRICE, bearer, **ONE, parameters={"intervals": 0.9999})

        [error] = refused.json()["errors"]
        highest = float(error["msg"].removeprefix("Must be at most ").split(":")[0])
        assert f"calibrated on {calibration.rows} rows" in error["msg"]
        taken = await post(
            client, PRICE, bearer, instances=[[1, 2]], parameters={"intervals": highest}
        )
        assert (refused.status_code, taken.status_code) == (422, 200)

    async def test_a_version_from_before_intervals_says_so_and_still_predicts(
        self, samples: Store, settings: InferenceSettings, tmp_path: Path, bearer: dict[str, str]
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        version = shelf.publish(change=lambda manifest: manifest.pop("calibration"))
        async with serving_shelf(shelf, settings, version) as client:
            refused = await post(client, NUMBERS, bearer, **ONE, parameters={"intervals": 0.9})
            taken = await post(client, NUMBERS, bearer, **ONE)

        assert (refused.status_code, taken.status_code) == (422, 200)
        assert "no calibration" in refused.json()["errors"][0]["msg"]
