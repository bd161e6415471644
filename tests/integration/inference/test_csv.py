"""Predictions for CSV bodies: the rules, the answers and the bill of JSON."""

import tracemalloc
from typing import Any

import httpx
import pytest

from registry.records import Column, Signature
from services.common.errors import BodyInvalid
from services.inference.api.v1 import csv_body
from services.inference.models.inputs import Inputs
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours

NUMBERS = "/v1/models/numbers:predict"
MIXED = "/v1/models/mixed:predict"
Bearer = dict[str, str]


@pytest.fixture
def inputs() -> Inputs:
    columns = [Column(name=name, kind="number") for name in "abc"]
    return Inputs(Signature(task="regression", target="y", columns=columns, classes=None))


async def send(
    client: httpx.AsyncClient, path: str, bearer: Bearer, content: bytes | str, **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    csv = {"content-type": "text/csv"} | bearer | named
    raw = content.encode() if isinstance(content, str) else content
    return await client.post(path, content=raw, headers=csv)


@pytest.mark.parametrize(
    ("content", "instances"),
    [
        ("size,colour,sold\n5,red,true\n", [[5.0, "red", True]]),
        ("sold,size,colour\r\nFALSE,1e1,blue\r\n", [[10.0, "blue", False]]),
        ('\ufeff"size","colour",sold\n.5,"red, or ""rot""",\n', [[0.5, 'red, or "rot"', None]]),
        ("size,colour,sold\r1,red,true\r2,blue,true", [[1.0, "red", True], [2.0, "blue", True]]),
        ("\nsize, colour ,sold\n\n5,red,true\n\n", [[5.0, "red", True]]),
        ("size,colour,sold\n,,\n", [[None, None, None]]),
        ("size,colour,sold\nNA,NA, n/a \n", [[None, "NA", None]]),
        ('size,colour,sold\n 5 ,"two\nlines",true\n', [[5.0, "two\nlines", True]]),
        ("size,colour,sold\n5,grün,true\n", [[5.0, "grün", True]]),
        (f"size,colour,sold\n5,{'x' * 200_000},true\n", [[5.0, "x" * 200_000, True]]),
    ],
)
async def test_a_csv_body_gets_the_answer_of_the_same_rows_in_json(
    client: httpx.AsyncClient, bearer: Bearer, content: str, instances: list[Any]
) -> None:
    answer = await send(client, MIXED, bearer, content)
    same = await client.post(MIXED, json={"instances": instances}, headers=bearer)

    assert answer.status_code == 200
    assert answer.json() == same.json()
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (
            "size,color,sold,size\n5,red,true,5\n",
            [
                (["header", "colour"], "Missing column."),
                (["header", "color"], "Unknown column."),
                (["header", "size"], "The column occurs twice."),
            ],
        ),
        (
            "size,colour,sold\nbig,red,maybe\n5,red\n5,red,true,x\n",
            [
                (
                    ["instances", 0, "size"],
                    "Must be a number within the range of float32, or null.",
                ),
                (["instances", 0, "sold"], "Must be true, false or null."),
                (["instances", 1], "The length of each row must be 3, not 2."),
                (["instances", 2], "The length of each row must be 3, not 4."),
            ],
        ),
        ("size,colour,sold\n1e39,red,true\n", [(["instances", 0, "size"], None)]),
        ("size,colour,sold\nnan,red,true\n", []),
        ("size,colour,sold\ninf,red,true\n", [(["instances", 0, "size"], None)]),
        ("size,colour,sold\n1_0,red,true\n", [(["instances", 0, "size"], None)]),
        ("size,colour,sold\n١,red,true\n", [(["instances", 0, "size"], None)]),
        ("size;colour;sold\n5;red;true\n", None),
        ('size,colour,sold\n5,"red,true\n', [(["body"], "A quote is not closed.")]),
        ('size,colour,sold\n5,5" red,true\n5,5" red,true\n', [(["body"], None)]),
        ('size,colour,sold\n5,"red"x,true\n', [(["body"], None)]),
        (b"size,colour,sold\n5,gr\xfcn,true\n", [(["body"], "The body is not UTF-8.")]),
        ("size,colour,sold\n", [(["body"], None)]),
        ("\n\n", [(["body"], None)]),
        ("", [(["body"], None)]),
    ],
)
async def test_what_is_wrong_is_named_and_not_billed(
    client: httpx.AsyncClient,
    bearer: Bearer,
    content: str | bytes,
    errors: list[tuple[list[Any], str | None]] | None,
) -> None:
    answer = await send(client, MIXED, bearer, content)

    if errors == []:
        assert answer.status_code == 200  # a spelling of "missing"
        return
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-usage-event" not in answer.headers
    found = [(each["loc"], each["msg"]) for each in answer.json()["errors"]]
    if errors is not None:
        assert [loc for loc, _ in found] == [loc for loc, _ in errors]
        assert all(want in (None, got) for (_, got), (_, want) in zip(found, errors, strict=True))


async def test_at_most_50_columns_are_named(client: httpx.AsyncClient, bearer: Bearer) -> None:
    header = ",".join(f"x{i}" for i in range(200))

    answer = await send(client, MIXED, bearer, f"{header}\n")

    assert len(answer.json()["errors"]) == 50


async def test_rows_are_limited_as_in_json(client: httpx.AsyncClient, bearer: Bearer) -> None:
    most = await send(client, NUMBERS, bearer, "a,b,c\n" + "1,2,3\n" * 10_000)
    more = await send(client, NUMBERS, bearer, "a,b,c\n" + "1,2,3\n" * 10_001)
    too_large = await send(client, NUMBERS, bearer, b"a,b,c\n" + b" " * (8 << 20))

    assert len(most.json()["predictions"]) == 10_000
    assert more.status_code == 422
    assert more.json()["errors"][0]["msg"] == "Too many rows; the maximum is 10000."
    assert too_large.status_code == 413


@pytest.mark.parametrize(
    "content",
    [
        b"a,b,c\n" + b"," * (7 << 20),
        b"," * (7 << 20),
        b"a,b,c\n" + b"\n" * (7 << 20),
        b"a,b,c\n" + b'"' * (7 << 20),
        b'a,b,c\nx"' + b"," * (7 << 20),
        b'a,b,c\n1,"' + b"," * (7 << 20) + b'"\n',
    ],
    ids=["cells", "header", "lines", "quotes", "a quote in a cell", "a long cell"],
)
def test_no_body_becomes_many_objects(content: bytes, inputs: Inputs) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BodyInvalid):
            inputs.decode(csv_body.read_instances(content, inputs, max_rows=10_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 16 * len(content)


async def test_a_repeat_with_its_key_is_billed_once(
    client: httpx.AsyncClient, bearer: Bearer, neighbours: Neighbours, account: str
) -> None:
    content, other = "a,b,c\n1,2,3\n4,5,6\n", "a,b,c\n1,2,3\n4,5,6"

    first = await send(client, NUMBERS, bearer, content, idempotency_key="k")
    again = await send(client, NUMBERS, bearer, content, idempotency_key="k")
    changed = await send(client, NUMBERS, bearer, other, idempotency_key="k")

    ids = [answer.headers["x-usage-event"] for answer in (first, again, changed)]
    assert ids[0] == ids[1] != ids[2]
    await eventually(lambda: _charged(neighbours, account, {ids[0], ids[2]}))
    assert first.headers["x-usage-amount"] == "0.0007 USD"
    assert neighbours.charged[ids[0]]["data"]["rows"] == 2


async def _charged(neighbours: Neighbours, account: str, ids: set[str]) -> bool:
    return set(neighbours.charged_to(account)) == ids


async def test_v2_does_not_read_csv(client: httpx.AsyncClient, bearer: Bearer) -> None:
    answer = await send(client, "/v2/models/numbers/infer", bearer, "a,b,c\n1,2,3\n")

    assert answer.status_code == 400
