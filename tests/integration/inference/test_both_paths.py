"""The same requests on the fast path and on the ordinary one: the same answers."""

import json

import pytest

from tests.integration.inference.fast import (
    V1,
    V2,
    Served,
    connected,
    one_row,
    post,
    warm,
)
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

TENSOR = {"name": "features", "datatype": "FP64", "shape": [1, 3], "data": NUMBERS_ROW}
BODIES: dict[str, tuple[str, bytes]] = {
    "a list": (V1, one_row()),
    "an object": (V1, b'{"instances": [{"a": 1, "b": 2.5, "c": null}]}'),
    "several rows": (V1, json.dumps({"instances": [NUMBERS_ROW] * 5}).encode()),
    "probabilities": (V1, one_row(parameters={"probabilities": True})),
    "a signature name": (V1, one_row(signature_name="serving_default")),
    "missing values": (V1, json.dumps({"instances": [[None, 1, 2.5]]}).encode()),
    "an unknown member": (V1, one_row(other=1)),
    "a duplicate member": (V1, b'{"instances": [[1, 2, 3]], "instances": [[1, 2, 3]]}'),
    "a duplicate column": (V1, b'{"instances": [{"a": 1, "a": 2, "b": 3, "c": 4}]}'),
    "a boolean for a number": (V1, json.dumps({"instances": [[True, 1, 2]]}).encode()),
    "text for a number": (V1, json.dumps({"instances": [["x", 1, 2]]}).encode()),
    "a number too large for float32": (V1, b'{"instances": [[1e39, 1, 2]]}'),
    "an integer of 30 digits": (V1, b'{"instances": [[' + b"9" * 30 + b", 1, 2]]}"),
    "rows of different lengths": (V1, b'{"instances": [[1, 2, 3], [1, 2]]}'),
    "no rows": (V1, b'{"instances": []}'),
    "rows that are no lists": (V1, b'{"instances": [1, 2, 3]}'),
    "a list instead of an object": (V1, b"[1, 2, 3]"),
    "no JSON": (V1, b"{"),
    "no body": (V1, b""),
    "an unknown model": ("/v1/models/nothing:predict", one_row()),
    "an unknown version": ("/v2/models/numbers/versions/nothing/infer", one_row()),
    "a name with an escape": ("/v1/models/num%62ers:predict", one_row()),
    "a query": (f"{V1}?a=b", one_row()),
    "a tensor": (V2, json.dumps({"id": "7", "inputs": [TENSOR]}).encode()),
    "one of the outputs": (
        V2,
        json.dumps({"id": "7", "inputs": [TENSOR], "outputs": [{"name": "predict"}]}).encode(),
    ),
    "a tensor of the wrong shape": (
        V2,
        json.dumps({"inputs": [{**TENSOR, "shape": [2, 3]}]}).encode(),
    ),
    "a model of text": ("/v1/models/mixed:predict", one_row()),
    "a path below": (f"{V1}/more", one_row()),
}


@pytest.mark.parametrize("name", BODIES)
async def test_both_paths_answer_alike(served: Served, authorization: str, name: str) -> None:
    path, body = BODIES[name]
    request = post(path, body, authorization)

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await warm(fast, authorization)
        replies = [await fast.ask(request), await fast.ask(request), await ordinary.ask(request)]

    assert replies[0].lasting == replies[1].lasting == replies[2].lasting


CSV: dict[str, bytes] = {
    "one row": b"a,b,c\n1,2.5,3\n",
    "another order, BOM, CRLF and quotes": b'\xef\xbb\xbf"c","a",b\r\n3,1,"2.5"\r\n',
    "an empty cell": b"a,b,c\n1,,3",
    "an unknown and a missing column": b"a,b,d\n1,2,3\n",
    "a word for a number": b"a,b,c\nx,2,3\n",
    "rows of different lengths": b"a,b,c\n1,2,3\n1,2\n",
    "only a header": b"a,b,c\n",
    "a quote that is not closed": b'a,b,c\n1,2,"3\n',
    "JSON": one_row(),
    "nothing": b"",
}


@pytest.mark.parametrize("media_type", ["text/csv", "Text/CSV; charset=utf-8"])
@pytest.mark.parametrize("name", CSV)
async def test_csv_is_answered_alike_on_both_ports_and_never_by_the_fast_path(
    served: Served, authorization: str, name: str, media_type: str
) -> None:
    request = post(V1, CSV[name], authorization, f"Content-Type: {media_type}")

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await warm(fast, authorization)
        served.by_app.clear()
        replies = [await fast.ask(request), await fast.ask(request), await ordinary.ask(request)]

    assert replies[0].lasting == replies[1].lasting == replies[2].lasting
    assert served.by_app == [V1] * 3


HEADERS: dict[str, tuple[str, ...]] = {
    "no token": (),
    "an empty token": ("Authorization: Bearer ",),
    "an unknown token": ("Authorization: Bearer abc",),
    "another scheme": ("Authorization: Basic abc",),
    "two tokens": ("Authorization: Bearer abc", "Authorization: Bearer abc"),
    "a lower-case scheme": ("authorization: bearer {token}",),
    "an Idempotency-Key": ("{own}", "Idempotency-Key: k"),
    "a bad Idempotency-Key": ("{own}", "Idempotency-Key: \t"),
    "two Idempotency-Keys": ("{own}", "Idempotency-Key: a", "Idempotency-Key: b"),
    "compressed content": ("{own}", "Content-Encoding: gzip"),
    "a request id": ("{own}", "X-Request-ID: mine"),
    "a bad request id": ("{own}", "X-Request-ID: a b"),
    "tags": ("{own}", "X-Tags: team=a,project=b"),
    "bad tags": ("{own}", "X-Tags: team"),
    "tags twice": ("{own}", "X-Tags: team=a", "X-Tags: team=a"),
    "a bad timeout": ("{own}", "X-Request-Timeout: soon"),
    "a page's origin": ("{own}", "Origin: https://example.com"),
    "a connection to be closed": ("{own}", "Connection: close"),
    "a JSON length": ("{own}", "Inference-Header-Content-Length: 5"),
    "upper case": ("{upper}",),
    "an API key": ("X-API-Key: {key}",),
    "an API key as a bearer token": ("Authorization: Bearer {key}",),
    "a token and an API key": ("{own}", "X-API-Key: {key}"),
    "an API key in both headers": ("Authorization: Bearer {key}", "X-API-Key: {key}"),
    "two API keys": ("X-API-Key: {key}", "X-API-Key: {key}"),
    "a token in place of an API key": ("X-API-Key: {token}",),
    "an empty API key": ("X-API-Key: ",),
    "a mistyped API key": ("X-API-Key: {key}0",),
    "an API key for this model": ("X-API-Key: {for_numbers}",),
    "an API key for other models": ("X-API-Key: {for_others}",),
    "an API key for this address": ("X-API-Key: {for_here}",),
    "an API key for other addresses": ("X-API-Key: {for_elsewhere}",),
    "an API key that may not predict": ("X-API-Key: {reading}",),
    "a test key": ("X-API-Key: {test}",),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_both_paths_treat_headers_alike(
    served: Served, neighbours: Neighbours, authorization: str, account: str, name: str
) -> None:
    token = authorization.rpartition(" ")[2]
    words = {"own": authorization, "token": token, "upper": f"AUTHORIZATION: Bearer {token}"}
    words |= {
        "key": neighbours.new_key(account=account),
        "for_numbers": neighbours.new_key(account=account, models=["numbers"]),
        "for_others": neighbours.new_key(account=account, models=["mixed"]),
        "for_here": neighbours.new_key(account=account, allowed_ips=["127.0.0.0/8"]),
        "for_elsewhere": neighbours.new_key(account=account, allowed_ips=["203.0.113.7"]),
        "reading": neighbours.new_key(account=account, scope="usage:read"),
        "test": neighbours.new_key(account=account, mode="test"),
    }
    request = post(V1, one_row(), *(line.format(**words) for line in HEADERS[name]))

    async with connected(served.fast) as fast, connected(served.ordinary) as ordinary:
        await warm(fast, authorization)
        replies = [await ordinary.ask(request), await fast.ask(request)]

    assert replies[0].lasting == replies[1].lasting
    if name == "a request id":
        assert [reply.headers["x-request-id"] for reply in replies] == ["mine", "mine"]
