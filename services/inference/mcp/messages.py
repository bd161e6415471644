"""JSON-RPC messages of the Model Context Protocol: what a server of tools without sessions needs.

https://modelcontextprotocol.io/specification/2025-06-18
"""

from typing import Any, NamedTuple

import orjson

from services.common import strict_json

VERSIONS = ("2025-11-25", "2025-06-18")
"""The supported revisions, the newest first; what this server sends is the same in all of them."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

Id = int | str
Document = dict[str, Any]


class Request(NamedTuple):
    """A request that wants an answer."""

    id: Id
    method: str
    params: Document


class ProtocolError(Exception):
    """A message that violates the protocol; the answer is a JSON-RPC error.

    Args:
        code: of JSON-RPC.
        message: one sentence, without secrets.
        id: of the request, if it is known.
    """

    def __init__(self, code: int, message: str, *, id: Id | None = None) -> None:
        self.code = code
        self.message = message
        self.id = id
        super().__init__(message)

    def encode(self) -> bytes:
        """Return the JSON-RPC response."""
        error = {"code": self.code, "message": self.message}
        return orjson.dumps({"jsonrpc": "2.0", "id": self.id, "error": error})


def read_message(content: bytes) -> Request | None:
    """Return the request in a body; None for a notification or a response, which need no answer.

    Raises:
        ProtocolError: the body is not one message of JSON-RPC 2.0.
    """
    try:
        message = strict_json.loads(content)
    except strict_json.DuplicateMemberError as error:
        raise ProtocolError(PARSE_ERROR, "An object has the same member twice.") from error
    except orjson.JSONDecodeError as error:
        raise ProtocolError(PARSE_ERROR, "The body is not valid JSON.") from error
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ProtocolError(INVALID_REQUEST, "The body must be one message of JSON-RPC 2.0.")
    if "method" not in message and ("result" in message or "error" in message):
        return None
    return _read_call(message)


def _read_call(message: Document) -> Request | None:
    id, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if "id" in message and (not isinstance(id, int | str) or isinstance(id, bool)):
        raise ProtocolError(INVALID_REQUEST, "`id` must be a string or an integer.")
    if not isinstance(method, str):
        raise ProtocolError(INVALID_REQUEST, "`method` must be a string.", id=id)
    if id is None:
        return None
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, "`params` must be an object.", id=id)
    return Request(id, method, params)


def encode_result(id: Id, result: Document) -> bytes:
    """Return the JSON-RPC response of a request that succeeded."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id, "result": result})


def choose_version(requested: object) -> str:
    """Return the revision to speak with a client: the requested one, if it is supported."""
    return next((version for version in VERSIONS if version == requested), VERSIONS[0])
