"""Tags of a request: at most five pairs, plain text."""

import json

import pytest

from services.common.errors import BadRequest
from services.inference.api.tags import read_tags

LONG = "x" * 64


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (b"team=a", {"team": "a"}),
        (b"team=a,project=b", {"team": "a", "project": "b"}),
        (b"a.B_c-1=.", {"a.B_c-1": "."}),
        (b"a=1,b=1,c=1,d=1,e=1", dict.fromkeys("abcde", "1")),
        (f"{LONG}={LONG}".encode(), {LONG: LONG}),
    ],
)
def test_tags_become_a_json_object(value: bytes, tags: dict[str, str]) -> None:
    assert json.loads(read_tags(value)) == tags


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"team",
        b"=a",
        b"team=",
        b"team=a,",
        b"team=a, project=b",
        b"team=a=b",
        b"team=a;project=b",
        b"team=a,team=a",
        b"a=1,b=1,c=1,d=1,e=1,f=1",
        f"{LONG}x=a".encode(),
        f"a={LONG}x".encode(),
        b"team=a\n",
        "team=ä".encode(),
        b"team=\xff",
        b'team="a"',
        b"team==1+1",
    ],
)
def test_other_values_are_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="X-Tags"):
        read_tags(value)
