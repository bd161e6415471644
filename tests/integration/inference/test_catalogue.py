"""The catalogue, cards and OpenAPI documents of models, as buyers read them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from registry.deprecations import deprecate
from services.common.http.client import http_client
from services.inference.catalogue import prices
from services.inference.catalogue.history import ReleaseHistory
from services.inference.catalogue.prices import PriceList, find_price
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import CARD, Store
from tests.integration.inference.shelf import Shelf
from tests.integration.inference.test_deprecations import SUNSET

Bearer = dict[str, str]
PUBLIC, PRIVATE, ABSENT = "mixed", "numbers", "nothing"
HTML = {"accept": "text/html"}


@pytest.mark.parametrize("document", ["card", "openapi.json"])
class TestAccess:
    async def test_a_public_model_needs_no_token(
        self, client: httpx.AsyncClient, document: str
    ) -> None:
        answer = await client.get(f"/v1/models/{PUBLIC}/{document}")

        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=60"

    async def test_without_a_token_a_private_model_looks_like_one_that_does_not_exist(
        self, client: httpx.AsyncClient, document: str
    ) -> None:
        answers = [
            await client.get(f"/v1/models/{model}/{document}") for model in (PRIVATE, ABSENT)
        ]

        varying = {"instance", "request_id"}
        bodies = [
            {name: value for name, value in each.json().items() if name not in varying}
            for each in answers
        ]
        assert [each.status_code for each in answers] == [401, 401]
        assert bodies[0] == bodies[1]
        assert [each.headers["www-authenticate"] for each in answers] == ["Bearer", "Bearer"]

    async def test_a_private_model_needs_the_scope_predict(
        self, client: httpx.AsyncClient, neighbours: Neighbours, bearer: Bearer, document: str
    ) -> None:
        other = {"Authorization": f"Bearer {neighbours.token(scope='usage:read')}"}
        path = f"/v1/models/{PRIVATE}/{document}"

        allowed = await client.get(path, headers=bearer)
        refused = await client.get(path, headers=other)
        public = await client.get(f"/v1/models/{PUBLIC}/{document}", headers=other)

        assert [each.status_code for each in (allowed, refused, public)] == [200, 403, 200]
        assert allowed.headers["cache-control"] == "private, no-cache"

    async def test_a_bad_token_is_refused_and_an_unknown_model_is_not_found(
        self, client: httpx.AsyncClient, bearer: Bearer, document: str
    ) -> None:
        bad = {"Authorization": "Bearer nonsense"}

        refused = await client.get(f"/v1/models/{PUBLIC}/{document}", headers=bad)
        missing = await client.get(f"/v1/models/{ABSENT}/{document}", headers=bearer)

        assert (refused.status_code, missing.status_code) == (401, 404)

    async def test_what_a_client_has_already_is_not_sent_again(
        self, client: httpx.AsyncClient, document: str
    ) -> None:
        path = f"/v1/models/{PUBLIC}/{document}"
        first = await client.get(path)

        tag = first.headers["etag"]
        again = await client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        changed = await client.get(path, headers={"If-None-Match": '"other"'})

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert changed.content == first.content


class TestCatalogue:
    async def test_lists_public_models_only_and_needs_no_token(
        self, client: httpx.AsyncClient
    ) -> None:
        answer = await client.get("/v1/catalogue")

        [entry] = answer.json()["models"]
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert entry == {
            "name": PUBLIC,
            "title": CARD["title"],
            "summary": CARD["summary"],
            "version": entry["version"],
            "task": "classification",
            "columns": [
                {"name": "size", "kind": "number"},
                {"name": "colour", "kind": "text"},
                {"name": "sold", "kind": "boolean"},
            ],
        }

    async def test_is_read_anew_when_a_release_changes_it(
        self, settings: InferenceSettings, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        changes = {
            "model_store": shelf.store_url,
            "journal_dir": tmp_path / "journal",
            "cache_dir": tmp_path / "own-cache",
        }

        async with serving(settings.model_copy(update=changes)) as client:
            tag = (await client.get("/v1/catalogue")).headers["etag"]
            kept = await client.get("/v1/catalogue", headers={"If-None-Match": tag})
            version = shelf.publish(card={"public": True, "title": "Numbers"})
            shelf.release(version)

            async def has_both() -> bool:
                answer = await client.get("/v1/catalogue", headers={"If-None-Match": tag})
                return answer.status_code == 200 and len(answer.json()["models"]) == 2

            await eventually(has_both)
            deprecate(
                shelf.store, "numbers", version=version, sunset=SUNSET, by="ada", reason="secret"
            )

            async def is_deprecated() -> bool:
                card = (await client.get("/v1/models/numbers/card")).json()
                return bool(card["versions"][0]["sunset"])

            await eventually(is_deprecated)
            card = (await client.get("/v1/models/numbers/card")).json()

        assert kept.status_code == 304
        assert [each["live"] for each in card["versions"]] == [True, False]
        assert card["versions"][0]["sunset"] == "2999-01-31T12:00:00Z"
        assert "secret" not in json.dumps(card)


class TestCard:
    async def test_says_what_a_buyer_needs_to_know(self, client: httpx.AsyncClient) -> None:
        card = (await client.get(f"/v1/models/{PUBLIC}/card")).json()

        size, colour, sold = card["columns"]
        assert (card["title"], card["limitations"]) == (CARD["title"], CARD["limitations"])
        assert (card["task"], card["target"], card["classes"]) == (
            "classification", "label", ["big", "small"],
        )  # fmt: skip
        assert 0 <= size["min"] < size["example"] < size["max"] <= 10
        assert set(colour["categories"]) == {"red", "green", "blue"}
        assert (sold["kind"], sold["missing"]) == ("boolean", 0)
        metrics = card["metrics"]
        assert metrics["this_version"]["accuracy"] > metrics["baseline"]["accuracy"]
        assert metrics["held_out_rows"] > 0
        assert card["data"]["rows"] == 120
        assert [each["version"] for each in card["versions"]] == [card["version"]]
        assert card["price"]["tiers"][0]["per_request"] == "0.0005"

    async def test_is_a_page_for_browsers(self, client: httpx.AsyncClient) -> None:
        browser = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

        page = await client.get(f"/v1/models/{PUBLIC}/card", headers=browser)
        data = await client.get(f"/v1/models/{PUBLIC}/card", headers={"accept": "*/*"})

        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert data.headers["content-type"] == "application/json"
        assert page.headers["vary"] == data.headers["vary"] == "Accept"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<h1><bdi>Big or small</bdi></h1>" in page.text
        assert "0.0005" in page.text
        assert "http" not in page.text.replace("https-", "")

    async def test_of_a_regression_has_no_classes(
        self, client: httpx.AsyncClient, bearer: Bearer
    ) -> None:
        path = "/v1/models/price/card"

        card = (await client.get(path, headers=bearer)).json()
        page = await client.get(path, headers=bearer | HTML)

        assert (card["task"], card["classes"], card["title"]) == ("regression", None, "price")
        assert "Classes" not in page.text


class TestPrices:
    async def test_are_read_once_a_minute_and_kept_for_a_while_when_billing_fails(
        self, neighbours: Neighbours
    ) -> None:
        seconds = 0.0
        async with http_client() as http:
            listed = PriceList(http, billing_url=neighbours.url, clock=lambda: seconds)
            for seconds in (0.0, 1.0, 59.0):  # noqa: B007  # the clock reads it
                assert find_price(await listed.plans(), "wine").status == "available"
            assert neighbours.plan_reads == 1
            neighbours.failing["/plans"] = 503

            seconds = prices.REFRESH_S + 1
            kept = find_price(await listed.plans(), "wine").status
            seconds = prices.MAX_AGE_S + 1
            lost = find_price(await listed.plans(), "wine").status
            neighbours.failing.clear()
            seconds += prices.RETRY_S
            back = find_price(await listed.plans(), "wine").status
            await listed.close()

        assert (kept, lost, back) == ("available", "unavailable", "available")

    async def test_of_a_billing_that_answers_nonsense_are_unavailable(
        self, neighbours: Neighbours
    ) -> None:
        neighbours.plans = [{"name": "x"}]
        async with http_client() as http:
            listed = PriceList(http, billing_url=neighbours.url)
            assert await listed.plans() is None
            await listed.close()

    async def test_a_page_does_not_wait_long_for_billing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prices, "WAIT_S", 0.01)
        hanging = asyncio.Event()

        async def hang(request: httpx.Request) -> httpx.Response:
            await hanging.wait()
            return httpx.Response(200)

        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as http:
            listed = PriceList(http, billing_url="http://billing")
            assert await listed.plans() is None
            await listed.close()


class TestHistory:
    async def test_survives_without_the_store(self, samples: Store, tmp_path: Path) -> None:
        shelf = Shelf(samples, tmp_path)
        await shelf.watcher.poll()
        first = shelf.live
        shelf.take_away()
        history = ReleaseHistory(shelf.store, shelf.cache)

        away = await history.versions(shelf.table.live("numbers"))

        assert [each.version for each in away] == [first]

    async def test_shows_only_versions_that_verify(self, samples: Store, tmp_path: Path) -> None:
        shelf = Shelf(samples, tmp_path)
        first = shelf.store.list_versions("numbers")[0]
        damaged, newest = shelf.publish(), shelf.publish()
        for version in (damaged, newest, first):
            shelf.release(version)
        (shelf.folder / "numbers/versions" / damaged / "manifest.json").write_text("{}")
        await shelf.watcher.poll()

        found = await ReleaseHistory(shelf.store, shelf.cache).versions(shelf.table.live("numbers"))

        assert [each.version for each in found] == [first, newest]


class TestOpenApi:
    async def read(
        self, client: httpx.AsyncClient, model: str, bearer: Bearer | None = None
    ) -> dict[str, Any]:
        answer = await client.get(f"/v1/models/{model}/openapi.json", headers=bearer)
        document: dict[str, Any] = answer.json()
        return document

    @pytest.mark.parametrize("model", ["mixed", "numbers", "price"])
    async def test_is_valid(self, client: httpx.AsyncClient, bearer: Bearer, model: str) -> None:
        document = await self.read(client, model, bearer)

        OpenAPIV31SpecValidator(document).validate()
        assert document["openapi"].startswith("3.1")
        assert {f"/v1/models/{model}:predict", f"/v1/models/{model}:feedback"} <= set(
            document["paths"]
        )

    async def test_the_operations_are_those_of_the_service(self, client: httpx.AsyncClient) -> None:
        service = (await client.get("/openapi.json")).json()
        verbs = [path.partition(":")[2] for path in service["paths"] if "{model}:" in path]

        document = await self.read(client, PUBLIC)

        assert sorted(document["paths"]) == sorted(f"/v1/models/{PUBLIC}:{verb}" for verb in verbs)
        ours = document["paths"][f"/v1/models/{PUBLIC}:predict"]["post"]
        theirs = service["paths"]["/v1/models/{model}:predict"]["post"]
        assert ours["security"] == theirs["security"]
        assert ours["responses"].keys() == theirs["responses"].keys()
        schemes = document["components"]["securitySchemes"]
        assert schemes == service["components"]["securitySchemes"]
        scheme = schemes["account"]
        assert scheme["flows"]["password"]["tokenUrl"].endswith("/token")

    async def test_every_column_is_typed_and_described_with_an_example(
        self, client: httpx.AsyncClient
    ) -> None:
        document = await self.read(client, PUBLIC)

        schemas = document["components"]["schemas"]
        row = schemas["Row"]
        types = {name: each["type"] for name, each in row["properties"].items()}
        assert types == {
            "size": ["number", "null"],
            "colour": ["string", "null"],
            "sold": ["boolean", "null"],
        }
        for column in row["properties"].values():
            assert column["description"]
            jsonschema.validate(column["examples"][0], column)
        assert schemas["Prediction"]["enum"] == ["big", "small"]
        assert "ValidationError" not in schemas

    @pytest.mark.parametrize("model", ["mixed", "numbers", "price"])
    async def test_its_examples_are_answered_as_it_says(
        self, client: httpx.AsyncClient, bearer: Bearer, model: str
    ) -> None:
        document = await self.read(client, model, bearer)
        path = f"/v1/models/{model}:predict"
        operation = document["paths"][path]["post"]
        content = operation["requestBody"]["content"]
        as_csv = bearer | {"content-type": "text/csv"}

        answers = [
            await client.post(path, json=content["application/json"]["example"], headers=bearer),
            await client.post(path, content=content["text/csv"]["example"], headers=as_csv),
        ]

        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        for answer in answers:
            assert answer.status_code == 200
            jsonschema.validate(answer.json(), whole)
        assert answers[0].json() == answers[1].json()
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"predictions": [[]]}, whole)
