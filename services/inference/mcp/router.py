"""`POST /mcp`: the models as tools, over the Model Context Protocol's streamable HTTP.

Every answer is complete, so there is no stream of events and no session: `GET` and `DELETE` get
405. https://modelcontextprotocol.io/specification/2025-06-18/basic/transports
"""

from fastapi import Request, Response

from services.common.errors import ServiceError
from services.common.http.routing import new_router
from services.inference.access import PredictingCaller
from services.inference.mcp.messages import INVALID_REQUEST, VERSIONS, ProtocolError, read_message
from services.inference.mcp.server import ToolServer


class OriginNotAllowed(ServiceError):
    """The request comes from a web page that may not call this service."""

    status = 403
    code = "origin_not_allowed"
    detail = (
        "This origin may not call this service; an operator can add it to INFERENCE_CORS_ORIGINS."
    )


router = new_router(tag="mcp")


# Not in the OpenAPI document, which cannot describe JSON-RPC: `tools/list` is the description.
@router.post("/mcp", include_in_schema=False)
async def answer(request: Request, caller: PredictingCaller) -> Response:
    """Answer one message of an MCP client."""
    _check_origin(request)
    server: ToolServer = request.app.state.tools
    try:
        _check_version(request)
        message = read_message(await request.body())
    except ProtocolError as error:
        return _json(error.encode(), status=400)
    if message is None:
        return Response(status_code=202)
    try:
        return _json(await server.answer(message, request, caller))
    except ProtocolError as error:
        return _json(error.encode())


def _check_origin(request: Request) -> None:
    """Check that a page may call, so that none can reach the service through a forged name.

    Raises:
        OriginNotAllowed: it may not.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin not in request.app.state.origins:
        raise OriginNotAllowed()


def _check_version(request: Request) -> None:
    """Check that the revision in the header, which older clients do not send, is supported.

    Raises:
        ProtocolError: it is not.
    """
    version = request.headers.get("mcp-protocol-version", VERSIONS[0])
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        raise ProtocolError(
            INVALID_REQUEST, f"MCP-Protocol-Version must be one of these: {supported}."
        )


def _json(content: bytes, *, status: int = 200) -> Response:
    return Response(content, status_code=status, media_type="application/json")
