"""Explanations as a caller sees them: contributions, receipts, prices and errors."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.explain.artefact import FILE
from registry.explain.encoded import EncodedExplainer
from registry.records import VersionRefused
from services.inference.models.loader import load_version
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving_shelf
from tests.integration.inference.fast import Served
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf

NUMBERS = "/v1/models/numbers:explain"
MIXED = "/v1/models/mixed:explain"
PRICE = "/v1/models/price:explain"
PREDICT = "/v1/models/numbers:predict"
ONE = {"instances": [NUMBERS_ROW]}
OWN_PRICE = {"per_request": "0.002", "per_row": "0.001"}


async def post(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post(path, json=body, headers=headers)


def total(explanation: dict[str, Any]) -> float:
    return float(explanation["base"] + sum(explanation["contributions"].values()))


class TestExplanation:
    async def test_a_regression_adds_up_to_the_value(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await post(client, PRICE, bearer, instances=[[4.0, 2.0], {"a": None, "b": 1}])

        document = answer.json()
        assert answer.status_code == 200
        for prediction, explanation in zip(
            document["predictions"], document["explanations"], strict=True
        ):
            assert total(explanation) == pytest.approx(prediction, abs=1e-5)
            assert list(explanation["contributions"]) == ["a", "b"]
            assert explanation["approximate"] is False

    @pytest.mark.parametrize(
        ("model", "row"), [("numbers", NUMBERS_ROW), ("mixed", MIXED_ROW), ("numbers", [-3, 0, 1])]
    )
    async def test_a_classification_adds_up_to_the_log_odds_of_the_predicted_class(
        self, client: httpx.AsyncClient, bearer: dict[str, str], model: str, row: Any
    ) -> None:
        path = f"/v1/models/{model}:predict"
        parameters = {"probabilities": True}
        predicted = await post(client, path, bearer, instances=[row], parameters=parameters)

        answer = await post(client, f"/v1/models/{model}:explain", bearer, instances=[row])

        [explanation] = answer.json()["explanations"]
        assert answer.json()["predictions"] == predicted.json()["predictions"]
        share = 1 / (1 + math.exp(-total(explanation)))
        assert share == pytest.approx(max(predicted.json()["probabilities"][0]), abs=1e-5)

    async def test_a_text_column_gets_the_sum_of_its_categories(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        odd = {"size": None, "colour": "ü", "sold": None}

        answer = await post(client, MIXED, bearer, instances=[MIXED_ROW, odd])

        known, unknown = answer.json()["explanations"]
        assert list(known["contributions"]) == list(unknown["contributions"]) == list(MIXED_ROW)
        assert known["contributions"]["colour"] > unknown["contributions"]["colour"]

    async def test_top_names_the_largest_and_sums_the_others(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        every = await post(client, NUMBERS, bearer, **ONE)

        one = await post(client, NUMBERS, bearer, **ONE, parameters={"top": 1})
        three = await post(client, NUMBERS, bearer, **ONE, parameters={"top": 3})

        [whole], [short] = every.json()["explanations"], one.json()["explanations"]
        largest = max(whole["contributions"], key=lambda name: abs(whole["contributions"][name]))
        assert list(short["contributions"]) == [largest, "(other)"]
        assert total(short) == pytest.approx(total(whole))
        assert three.json() == every.json()


class TestReceipt:
    async def test_it_is_billed_as_the_model_if_explanations_have_no_price(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        neighbours.own_prices = {"numbers": OWN_PRICE}

        answer = await post(client, NUMBERS, bearer, instances=[NUMBERS_ROW] * 2)

        assert answer.headers["X-Model-Name"] == "numbers"
        assert answer.headers["X-Usage-Amount"] == "0.004 USD"
        [event] = await self.charged(neighbours, account)
        assert event["id"] == answer.headers["X-Usage-Event"]
        assert (event["data"]["model"], event["data"]["rows"]) == ("numbers", 2)

    async def test_it_is_billed_by_its_own_price_and_name_if_the_plan_has_one(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        neighbours.own_prices = {"numbers:explain": OWN_PRICE}

        answer = await post(client, NUMBERS, bearer, **ONE)
        predicted = await post(client, PREDICT, bearer, **ONE)

        assert answer.headers["X-Usage-Amount"] == "0.003 USD"
        assert predicted.headers["X-Usage-Amount"] == "0.0006 USD"
        await eventually(lambda: len(neighbours.charged_to(account)) == 2)
        explained, plain = (
            neighbours.charged[each.headers["X-Usage-Event"]]["data"]
            for each in (answer, predicted)
        )
        assert (explained["model"], explained["price_id"]) == ("numbers:explain",) * 2
        assert (plain["model"], plain["price_id"]) == ("numbers", "price-1")
        assert explained["version"] == plain["version"]

    async def test_a_repeat_with_its_key_is_billed_once_and_apart_from_a_prediction(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        keyed = {**bearer, "Idempotency-Key": "k"}

        first, again = [await post(client, NUMBERS, keyed, **ONE) for _ in range(2)]
        predicted = await post(client, PREDICT, keyed, **ONE)

        assert first.json() == again.json()
        assert first.headers["X-Usage-Event"] == again.headers["X-Usage-Event"]
        assert predicted.headers["X-Usage-Event"] != first.headers["X-Usage-Event"]
        await eventually(lambda: len(neighbours.charged_to(account)) == 2)

    async def test_without_credit_only_a_paid_repeat_is_answered(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        neighbours.own_prices = {"numbers:explain": OWN_PRICE}
        neighbours.wallets.top_up(account, "0.003")
        keyed = {**bearer, "Idempotency-Key": "k"}
        paid = await post(client, NUMBERS, keyed, **ONE)

        again = await post(client, NUMBERS, keyed, **ONE)
        other = await post(client, NUMBERS, bearer, **ONE)

        assert (paid.status_code, again.status_code, other.status_code) == (200, 200, 402)
        assert again.headers["X-Usage-Amount"] == "0.003 USD"
        await eventually(lambda: neighbours.wallets.balance(account) == 0)

    async def test_the_ordinary_path_answers_and_is_counted_under_its_own_route(
        self, served: Served, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        seen = len(served.by_app)
        url = f"http://127.0.0.1:{served.fast}{NUMBERS}"
        async with httpx.AsyncClient() as http:
            answers = [await http.post(url, json=ONE, headers=bearer) for _ in range(2)]
        await post(client, NUMBERS, bearer, **ONE)

        metrics = (await client.get("/metrics")).text
        assert [answer.status_code for answer in answers] == [200, 200]
        assert served.by_app[seen:] == [NUMBERS] * 2
        assert 'route="/v1/models/{model}:explain"' in metrics

    @staticmethod
    async def charged(neighbours: Neighbours, account: str) -> list[dict[str, Any]]:
        await eventually(lambda: bool(neighbours.charged_to(account)))
        return [neighbours.charged[each] for each in neighbours.charged_to(account)]


class TestRefusals:
    @pytest.mark.parametrize("top", [0, -1, 1.0, "3", True, None, []])
    async def test_top_must_be_a_positive_integer(
        self, client: httpx.AsyncClient, bearer: dict[str, str], top: object
    ) -> None:
        answer = await post(client, NUMBERS, bearer, **ONE, parameters={"top": top})

        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"loc": ["parameters", "top"], "msg": "Must be a positive integer."}
        ]

    @pytest.mark.parametrize("name", ["tops", "probabilities", "intervals"])
    async def test_an_unknown_parameter_is_refused(
        self, client: httpx.AsyncClient, bearer: dict[str, str], name: str
    ) -> None:
        answer = await post(client, NUMBERS, bearer, **ONE, parameters={name: 1})

        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"loc": ["parameters", name], "msg": "Unknown field."}]

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            ({}, ["instances"]),
            ({"instances": []}, ["instances"]),
            ({"instances": [[1.0]]}, ["instances", 0]),
            ({"instances": [[1.0, "x", 2.0]]}, ["instances", 0, "b"]),
            ({"instances": [NUMBERS_ROW], "parameters": []}, ["parameters"]),
            ({"instances": [NUMBERS_ROW] * 1_001}, ["instances"]),
        ],
    )
    async def test_bodies_are_checked_as_for_predictions(
        self,
        client: httpx.AsyncClient,
        bearer: dict[str, str],
        body: dict[str, Any],
        where: list[Any],
    ) -> None:
        answer = await post(client, NUMBERS, bearer, **body)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == where

    async def test_the_order_of_checks_is_that_of_predictions(
        self, client: httpx.AsyncClient, bearer: dict[str, str], neighbours: Neighbours
    ) -> None:
        other = {"Authorization": f"Bearer {neighbours.token(scope='usage:read')}"}

        anonymous = await post(client, "/v1/models/unknown:explain", {})
        without_scope = await post(client, "/v1/models/unknown:explain", other)
        unknown = await post(client, "/v1/models/unknown:explain", bearer)

        statuses = [answer.status_code for answer in (anonymous, without_scope, unknown)]
        assert statuses == [401, 403, 404]
        assert unknown.headers["content-type"] == "application/problem+json"


class TestOlderVersions:
    """Versions from before explanations existed."""

    @pytest.fixture
    def shelf(self, samples: Store, tmp_path: Path) -> Shelf:
        return Shelf(samples, tmp_path)

    async def test_they_are_explained_by_sampling_from_their_recorded_rows(
        self, shelf: Shelf, settings: InferenceSettings, bearer: dict[str, str]
    ) -> None:
        version = shelf.publish(change=without_explainer)
        shares = {"probabilities": True}
        async with serving_shelf(shelf, settings, version) as old:
            answer = await post(old, NUMBERS, bearer, **ONE)
            predicted = await post(old, PREDICT, bearer, **ONE, parameters=shares)
            too_many = await post(old, NUMBERS, bearer, instances=[NUMBERS_ROW] * 101)

        [explanation] = answer.json()["explanations"]
        [share] = predicted.json()["probabilities"]
        assert explanation["approximate"] is True
        assert total(explanation) == pytest.approx(max(share), abs=1e-5)
        assert too_many.status_code == 422

    async def test_one_without_recorded_rows_cannot_be_explained(
        self,
        shelf: Shelf,
        settings: InferenceSettings,
        bearer: dict[str, str],
        neighbours: Neighbours,
        account: str,
    ) -> None:
        version = shelf.publish(change=without_anything)
        async with serving_shelf(shelf, settings, version) as old:
            answer = await post(old, NUMBERS, bearer, **ONE)

        assert answer.status_code == 501
        assert answer.json()["type"] == "urn:tollgate:problem:not_explainable"
        assert not neighbours.charged_to(account)

    async def test_a_damaged_explainer_is_refused_like_a_damaged_model(self, shelf: Shelf) -> None:
        version = shelf.publish()
        path = shelf.folder / "numbers/versions" / version / FILE
        path.write_bytes(path.read_bytes()[:-1] + b"x")

        with pytest.raises(VersionRefused, match="does not match its signed digest"):
            load_version(shelf.cache, "numbers", version, allow_joblib=False)

    async def test_a_restart_without_the_store_still_explains(self, shelf: Shelf) -> None:
        await shelf.watcher.poll()
        shelf.take_away()

        model = load_version(shelf.cache, "numbers", shelf.live, allow_joblib=False)

        assert isinstance(model.explainer, EncodedExplainer)


def without_explainer(manifest: dict[str, Any]) -> None:
    del manifest["explainer"], manifest["calibration"]


def without_anything(manifest: dict[str, Any]) -> None:
    without_explainer(manifest)
    manifest["warm_up"] = {"rows": [], "predictions": [], "probabilities": []}
