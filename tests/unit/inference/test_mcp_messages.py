"""The messages of MCP clients, good and bad."""

import orjson
import pytest

from services.inference.mcp.messages import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    VERSIONS,
    ProtocolError,
    Request,
    choose_version,
    read_message,
)


def message(**members: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", **members})


@pytest.mark.parametrize("id", [0, -1, "", "a"])
def test_a_request_is_read(id: int | str) -> None:
    read = read_message(message(id=id, method="tools/call", params={"name": "wine"}))

    assert read == Request(id, "tools/call", {"name": "wine"})


def test_a_request_may_leave_out_its_parameters() -> None:
    assert read_message(message(id=1, method="ping")) == Request(1, "ping", {})


@pytest.mark.parametrize(
    "members",
    [
        {"method": "notifications/initialized"},
        {"method": "notifications/cancelled", "params": {"requestId": 1}},
        {"id": 1, "result": {}},
        {"id": 1, "error": {"code": 1, "message": "no"}},
    ],
    ids=lambda members: str(sorted(members)),
)
def test_what_needs_no_answer_is_recognized(members: dict[str, object]) -> None:
    assert read_message(message(**members)) is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", PARSE_ERROR),
        (b"{", PARSE_ERROR),
        (b"\xff", PARSE_ERROR),
        (b"[" * 100_000, PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', PARSE_ERROR),
        (b"1", INVALID_REQUEST),
        (b"[]", INVALID_REQUEST),
        (orjson.dumps([{"jsonrpc": "2.0", "id": 1, "method": "ping"}]), INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', INVALID_REQUEST),
        (message(id=1), INVALID_REQUEST),
        (message(id=1, method=2), INVALID_REQUEST),
        (message(id=None, method="ping"), INVALID_REQUEST),
        (message(id=True, method="ping"), INVALID_REQUEST),
        (message(id=1.5, method="ping"), INVALID_REQUEST),
        (message(id=[], method="ping"), INVALID_REQUEST),
        (message(id=1, method="ping", params=[]), INVALID_PARAMS),
    ],
)
def test_anything_else_is_refused(content: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        read_message(content)

    assert refused.value.code == code
    assert orjson.loads(refused.value.encode())["error"]["code"] == code


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        *((version, version) for version in VERSIONS),
        ("2024-11-05", VERSIONS[0]),
        ("2099-01-01", VERSIONS[0]),
        (None, VERSIONS[0]),
        ({}, VERSIONS[0]),
    ],
)
def test_a_supported_revision_is_spoken_and_otherwise_the_newest_is_offered(
    requested: object, chosen: str
) -> None:
    assert choose_version(requested) == chosen
