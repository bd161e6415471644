"""Times and sentences in every protocol, on the fast path and on the ordinary one."""

import csv
import io
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry.datetimes import format_time
from services.inference.settings import InferenceSettings
from tests.integration.inference.fast import Client, Reply, Served, connected, post, serving_both
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.test_binary_tensors import tensor, text
from trainer.pipeline import train
from trainer.settings import TrainerSettings

COLUMNS = ("at", "review", "size")
WORDS = ("the", "room", "was", "near", "that", "old", "house", "with", "two", "windows", "and")
ROWS: list[list[Any]] = [
    ["2026-01-31T14:00:00+01:00", 'Wonderful, "old" house\nwith two windows.', 2.5],
    ["2026-02-01", "NA", None],
    [None, None, 4.0],
]
MODELS = ("spent", "mood")
"""A regression and a classification."""


@pytest.fixture(scope="module")
async def both(
    samples: Store, settings: InferenceSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("kinds")
    own = TrainerSettings(
        data_store=f"file://{folder}/data",
        model_store=f"file://{folder}/models",
        signing_key=samples.signing_key,
    )
    chance = random.Random(1)
    lines: dict[str, list[list[Any]]] = {model: [] for model in MODELS}
    for i in range(160):
        word, seconds = ("wonderful" if i % 2 else "dreadful"), chance.randrange(10**8)
        size = round(chance.random(), 3)
        review = " ".join([*chance.sample(WORDS, 6), word])
        row = [format_time(1.7e9 + seconds), review, size]
        lines["spent"].append([*row, seconds / 1e7 + size + 3 * (i % 2)])
        lines["mood"].append([*row, "good" if i % 2 else "bad"])
    for model, rows in lines.items():
        part = folder / "data" / model / "part.csv"
        part.parent.mkdir(parents=True)
        part.write_text(as_csv((*COLUMNS, "y"), rows))
        stated = {"target": "y", "estimators": ["linear"], "card": {"public": True}}
        (part.parent / "dataset.json").write_text(json.dumps(stated))
        assert train(own, model, release=True).gate == "passed"
    changes = {
        "model_store": own.model_store_url,
        "cache_dir": folder / "cache",
        "journal_dir": folder / "journal",
    }
    async with serving_both(settings.model_copy(update=changes)) as served:
        yield served


@pytest.fixture
def served(both: Served, neighbours: Neighbours) -> Served:
    return both


def as_csv(header: tuple[str, ...], rows: list[list[Any]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([header, *rows])
    return file.getvalue()


async def ask_both(served: Served, authorization: str, request: bytes) -> Reply:
    """Return the answer to a prediction, which both paths give alike."""
    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        for model in MODELS:
            await predict(fast, authorization, model, {"instances": ROWS})
        served.by_app.clear()
        reply = await fast.ask(request)
        assert reply.lasting == (await ordinary.ask(request)).lasting
    return reply


async def predict(
    client: Client, authorization: str, model: str, document: Any, *, verb: str = "predict"
) -> Any:
    path, body = f"/v1/models/{model}:{verb}", json.dumps(document).encode()
    reply = await client.ask(post(path, body, authorization))
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


async def get(served: Served, path: str) -> Any:
    async with connected(served.ordinary) as client:
        reply = await client.ask(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode()
        )
    assert reply.status == 200
    return json.loads(reply.body)


@pytest.mark.costly
@pytest.mark.parametrize("model", MODELS)
async def test_every_protocol_gets_the_same_predictions(
    served: Served, authorization: str, model: str
) -> None:
    v1, v2 = f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    by_column = list(zip(*ROWS, strict=True))
    json_inputs = [
        {"name": name, "datatype": datatype, "shape": [3, 1], "data": list(values)}
        for name, datatype, values in zip(
            COLUMNS, ("BYTES", "BYTES", "FP64"), by_column, strict=True
        )
    ]
    raw = [text(*((value or "").encode() for value in values)) for values in by_column[:2]]
    binary_inputs = [tensor("at", "BYTES", [3], raw[0]), tensor("review", "BYTES", [3, 1], raw[1])]
    tensors = json.dumps({"id": "7", "inputs": json_inputs}).encode()
    head = json.dumps({"id": "7", "inputs": [*binary_inputs, json_inputs[2]]}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    requests = {
        "lists": post(v1, json.dumps({"instances": ROWS}).encode(), authorization),
        "objects": post(v1, json.dumps({"instances": objects}).encode(), authorization),
        "CSV": post(v1, as_csv(COLUMNS, ROWS).encode(), authorization, "Content-Type: text/csv"),
        "JSON tensors": post(v2, tensors, authorization),
        "binary tensors": post(v2, head + b"".join(raw), authorization, length),
    }

    found = {}
    for name, request in requests.items():
        reply = await ask_both(served, authorization, request)
        assert reply.status == 200, reply.body
        document = json.loads(reply.body)
        found[name] = document.get("predictions") or document["outputs"][0]["data"]
        # The request to the ordinary port is answered by the app, and CSV always is.
        assert len(served.by_app) == (2 if name == "CSV" else 1)

    assert len(found["lists"]) == len(ROWS)
    assert all(each == found["lists"] for each in found.values())


async def test_a_wrong_time_is_refused_by_column(served: Served, authorization: str) -> None:
    body = json.dumps({"instances": [["soon", "fine", 1]]}).encode()

    reply = await ask_both(
        served, authorization, post("/v1/models/mood:predict", body, authorization)
    )

    assert reply.status == 422
    [error] = json.loads(reply.body)["errors"]
    assert error["loc"] == ["instances", 0, "at"]
    assert "ISO 8601" in error["msg"]


async def test_are_explained_and_bounded(served: Served, authorization: str) -> None:
    rows = {"instances": ROWS}
    bounded = {"instances": ROWS, "parameters": {"intervals": 0.9}}

    async with connected(served.ordinary) as client:
        explained = await predict(client, authorization, "spent", rows, verb="explain")
        intervals = await predict(client, authorization, "spent", bounded)
        sets = await predict(client, authorization, "mood", bounded)

    for value, each in zip(explained["predictions"], explained["explanations"], strict=True):
        assert list(each["contributions"]) == list(COLUMNS)
        assert each["approximate"] is False
        assert each["base"] + sum(each["contributions"].values()) == pytest.approx(value, abs=1e-5)
    for value, (low, high) in zip(intervals["predictions"], intervals["intervals"], strict=True):
        assert low < value < high
    for label, labels in zip(sets["predictions"], sets["label_sets"], strict=True):
        assert label in labels


@pytest.mark.costly
async def test_are_described_to_buyers(served: Served) -> None:
    document = await get(served, "/v1/models/spent/openapi.json")
    card = await get(served, "/v1/models/spent/card")

    properties = document["components"]["schemas"]["Row"]["properties"]
    assert properties["at"]["type"] == ["string", "null"]
    assert properties["at"]["format"] == "date-time"
    assert properties["at"]["examples"] == ["2026-01-31T12:00:00Z"]
    assert properties["review"]["type"] == ["string", "null"]
    assert "format" not in properties["review"]
    assert (
        properties["review"]["description"] == "A text. In training: 7 to 7 words; never missing."
    )
    at, review, size = card["columns"]
    assert at["min"] < at["max"]
    assert at["min"].startswith("2023-")
    assert (review["min"], review["max"]) == (None, None)
    assert size["min"] < size["max"]
