"""Parsing a JSON text in pieces gives the same result as parsing it at once."""

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import BodyInvalid
from services.inference.api import json_structure
from services.inference.api.json_body import (
    LIGHT_BYTES,
    LIGHT_CONTAINERS,
    LIGHT_VALUES,
    WHOLE_BYTES,
    is_light,
    open_object,
    refuse_duplicates,
)
from services.inference.api.json_structure import (
    MAX_DEPTH,
    MAX_VALUE_BYTES,
    JsonLimits,
    scan,
)

AMPLE = JsonLimits(commas=10**9, containers=10**9, members=10**9)

texts = st.text(alphabet='ab"\\,:[]{}\n é𝄞', max_size=6)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=30,
)


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Any:
    """Make windows and pieces so small that every text spans many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_structure, "PIECE_BYTES", 5)
        patch.setattr(json_structure, "WINDOW_BYTES", 7)
        yield


@given(document=documents, indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_a_valid_text_is_parsed_as_by_orjson(document: Any, indent: Any, ascii: bool) -> None:
    content = json.dumps(document, indent=indent, ensure_ascii=ascii).encode()

    structure = scan(content)

    assert structure.load() == orjson.loads(content)
    assert structure.count_members() == _members(document)


@given(document=documents, seed=st.integers(0, 2**32))
def test_a_damaged_text_is_refused_or_parsed_as_by_orjson(document: Any, seed: int) -> None:
    content = _damage(json.dumps(document).encode(), random.Random(seed))

    try:
        expected = orjson.loads(content)
    except orjson.JSONDecodeError:
        with pytest.raises(BodyInvalid):
            scan(content).load()
    else:
        assert scan(content).load() == expected


@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"[", b"]", b"[1]]", b"[[1]", b"[1}", b"[1,]", b"[,1]", b"[,]", b"[1 2]",
        b"[1][2]", b"[1],[2]", b'{"a":1}{"b":2}', b'{"a":1,}', b'{"a"}', b'{"a":}', b"{1:2}",
        b'{"a":1:2}', b'{"a":[1,2,3,4,5,6}', b'["abcdefgh', b'["abcdefgh\\"]', b'{"a" "b":1}',
        b"[1,2,3,4,5\x0b]", b"\x0c[1,2,3,4,5,6]", b"\xef\xbb\xbf[1,2,3,4]", b'["\xff",2,3,4]',
        b"[1111,2222,3333", b"1111,2222,3333", b'"aaaa":"bbbb","cccc":1', b"[NaN,1,2,3,4,5]",
    ],
)  # fmt: skip
def test_invalid_json_is_refused(content: bytes) -> None:
    with pytest.raises(BodyInvalid):
        scan(content).load()


@pytest.mark.parametrize("run", range(12))
def test_runs_of_backslashes_may_cross_windows(run: int) -> None:
    for lead in range(8):
        content = b'["%b%b\\"",":",1]' % (b"a" * lead, b"\\\\" * run)

        assert scan(content).load() == orjson.loads(content)
        assert scan(content).count_members() == 0


class TestLimits:
    def test_nesting_is_limited(self) -> None:
        deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH

        assert scan(deepest).load() == orjson.loads(deepest)
        with pytest.raises(BodyInvalid):
            scan(b"[" + deepest + b"]")

    def test_more_values_are_refused_before_the_rest_is_scanned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scanned = []
        drop_escapes = json_structure._drop_escapes

        def count(*arguments: Any) -> Any:
            scanned.append(1)
            return drop_escapes(*arguments)

        monkeypatch.setattr(json_structure, "_drop_escapes", count)
        for content in (b"[" + b"1," * 10_000 + b"1]", b"[" + b"[],{}," * 10_000 + b"1]"):
            scanned.clear()

            with pytest.raises(BodyInvalid):
                scan(content, AMPLE._replace(commas=20, containers=20))

            assert len(scanned) < 30

    def test_commas_and_brackets_in_text_do_not_count(self) -> None:
        content = orjson.dumps({"a": ',,,[[[{{{"' * 100})

        limits = JsonLimits(commas=0, containers=1, members=1)
        assert scan(content, limits).load() == orjson.loads(content)

    def test_the_members_of_one_object_are_limited(self) -> None:
        content = orjson.dumps({"a": 1, "b": {"c": [1, 2, 3, 4], "d": 2}})

        assert scan(content, AMPLE._replace(members=2)).load() == orjson.loads(content)
        with pytest.raises(BodyInvalid) as refused:
            scan(content, AMPLE._replace(members=1)).load()
        assert "too many members" in refused.value.extra["errors"][0]["msg"]

    @pytest.mark.parametrize("value", [b'"%b"', b"%b", b"1%b"], ids=["text", "space", "number"])
    @pytest.mark.parametrize("around", [b'{"a":%b}', b"[%b]"])
    def test_the_length_of_one_value_is_limited(
        self, value: bytes, around: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(json_structure, "WINDOW_BYTES", MAX_VALUE_BYTES // 4)
        longest = around % (value % (b" " * (MAX_VALUE_BYTES - 3)))
        too_long = around % (value % (b" " * MAX_VALUE_BYTES))

        scan(longest, AMPLE)
        with pytest.raises(BodyInvalid) as refused:
            scan(too_long, AMPLE)
        assert "too long" in refused.value.extra["errors"][0]["msg"]


@given(document=documents)
def test_what_was_parsed_in_pieces_is_freed_in_pieces(document: Any) -> None:
    long = [document] * json_structure.PIECE_BYTES
    structure = scan(orjson.dumps([document, long, 1, 2, 3, 4, 5]))
    whole = structure.load()
    inner = whole[1]

    structure.free()

    assert (whole, inner) == ([], [])


@given(document=documents)
def test_members_are_the_raw_bytes_of_the_values(document: Any) -> None:
    content = json.dumps({"é": document, "b:": [document]}, indent=2, ensure_ascii=False).encode()

    members = scan(content).members()

    assert list(members) == ["é", "b:"]
    assert orjson.loads(members["é"]) == orjson.loads(content)["é"]
    assert b"  %b,\n" % (b'"\xc3\xa9": ' + members["\xe9"]) in content


@pytest.mark.parametrize("padding", [b"", b" " * 70_000])
class TestDuplicates:
    @pytest.mark.parametrize(
        "content",
        [
            b'{"a":1,"a":1}',
            b'{"a":"12:30","b":[{"c":1,"c":2}]}',
            b'{"a":[[{"x":":","x":1}]]}',
            b'{"a":{"b":1,"\\u0062":2}}',
        ],
    )
    def test_are_found_at_any_depth(self, content: bytes, padding: bytes) -> None:
        content += padding
        with open_object(content, AMPLE) as document, pytest.raises(BodyInvalid):
            refuse_duplicates(content, document, [document])

    @pytest.mark.parametrize(
        "content", [b'{"a":"12:30","b":[{"c":1}]}', b'{"a":{"b":{"c":":::"}}}', b'{":":":"}']
    )
    def test_are_not_seen_in_text(self, content: bytes, padding: bytes) -> None:
        content += padding
        with open_object(content, AMPLE) as document:
            refuse_duplicates(content, document, [document])


def _members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_members, value.values()))
    return sum(map(_members, value)) if isinstance(value, list) else 0


def _damage(content: bytes, chance: random.Random) -> bytes:
    """Delete, double or replace a byte or two."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(damaged) + 1)
        damaged[at : at + chance.randint(0, 1)] = chance.choice(
            [b"", b",", b":", b"[", b"]", b"{", b"}", b'"', b"\\", b" ", b"1", b"x"]
        )
    return bytes(damaged)


def _padded(text: bytes, *, size: int = LIGHT_BYTES) -> bytes:
    """Return a text with blank space, so that it is too large to be light whatever it is."""
    return text + b" " * (size - len(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[" * WHOLE_BYTES, True),
        (_padded(b"1,"), True),
        (_padded(b"1,", size=LIGHT_BYTES + 1), False),
        (_padded(b"1," * LIGHT_VALUES), True),
        (_padded(b"1," * (LIGHT_VALUES + 1)), False),
        (_padded(b"[]" * LIGHT_CONTAINERS), True),
        (_padded(b"[]" * (LIGHT_CONTAINERS + 1)), False),
        (_padded(b"{}" * (LIGHT_CONTAINERS + 1)), False),
        (_padded(b"[]{}" * LIGHT_CONTAINERS), False),
        (_padded(b":" * (LIGHT_VALUES + 1)), False),
        (_padded(b"\\" * (LIGHT_VALUES + 1)), False),
    ],
)
def test_a_large_text_is_light_if_it_has_few_values(text: bytes, *, expected: bool) -> None:
    assert is_light(text) is expected


def test_a_batch_of_256_rows_of_64_columns_is_light() -> None:
    rows = [[0.1234567890123456] * 64 for _ in range(256)]

    assert is_light(orjson.dumps({"instances": rows}))
