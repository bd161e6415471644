"""Answers the requests of MCP clients; a call of a tool is a prediction like any other."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request

from services.common.contracts import format_amount
from services.common.identity.caller import Caller
from services.inference.access import may_use
from services.inference.api.collaborators import Admission, Models
from services.inference.api.predictions import PredictEndpoint, expected
from services.inference.api.reading import check_wanted, read_head
from services.inference.api.steps import Call, Prediction
from services.inference.api.targets import find_target
from services.inference.catalogue.documents import Documents
from services.inference.mcp import messages, tools
from services.inference.mcp.messages import Document, ProtocolError
from services.inference.models.table import ModelNotFound

INSTRUCTIONS = (
    "Each tool predicts with one model. Send all rows of a question in one call; a missing value "
    "is null. Every successful call is billed to the account of the API key; failed ones are free."
)


class ToolServer:
    """Lists the models as tools and calls them; keeps no session.

    Args:
        endpoint: whose steps a call takes.
        version: the server's version.
    """

    def __init__(
        self, endpoint: PredictEndpoint, *, admission: Admission, models: Models, version: str
    ) -> None:
        self._endpoint = endpoint
        self._admission = admission
        self._models = models
        self._version = version
        self._described = Documents()
        self._methods: dict[str, Callable[[Document, Request, Caller], Awaitable[Document]]] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
        }

    async def answer(self, message: messages.Request, request: Request, caller: Caller) -> bytes:
        """Return the response to a message.

        Args:
            request: the HTTP request that it came in.

        Raises:
            ProtocolError: the method or its parameters are unknown.
        """
        method = self._methods.get(message.method)
        if method is None:
            raise ProtocolError(messages.METHOD_NOT_FOUND, "Unknown method.", id=message.id)
        try:
            result = await method(message.params, request, caller)
        except ProtocolError as error:
            error.id = message.id
            raise
        return messages.encode_result(message.id, result)

    async def _initialize(self, params: Document, request: Request, caller: Caller) -> Document:
        return {
            "protocolVersion": messages.choose_version(params.get("protocolVersion")),
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "tollgate", "title": "Tollgate", "version": self._version},
            "instructions": INSTRUCTIONS,
        }

    async def _ping(self, params: Document, request: Request, caller: Caller) -> Document:
        return {}

    async def _list_tools(self, params: Document, request: Request, caller: Caller) -> Document:
        """Return the models that the caller may use, on one page."""
        if params.get("cursor") is not None:
            raise ProtocolError(messages.INVALID_PARAMS, "Invalid cursor.")
        table = self._models.table
        names = [name for name in table.names() if may_use(caller, name)]
        return {"tools": [orjson.Fragment(await self._describe(name)) for name in names]}

    async def _describe(self, name: str) -> bytes:
        table = self._models.table
        manifest = table.live(name).manifest
        deprecation = table.deprecations(name).get(manifest.version)
        document = await self._described.get(
            name,
            made_from=(manifest.version, deprecation),
            make=lambda: orjson.dumps(tools.describe_tool(manifest, deprecation=deprecation)),
        )
        return document.content

    async def _call_tool(self, params: Document, request: Request, caller: Caller) -> Document:
        """Predict; why a call is refused is in its result, so that the caller can react to it."""
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            message = "`name` must be a string, and `arguments` an object."
            raise ProtocolError(messages.INVALID_PARAMS, message)
        rid = request.state.request_id
        path = f"/v1/models/{name}:predict"
        try:
            prediction = await self._predict(path, arguments, request)
        except Exception as raised:
            error = expected(raised, path=path, request_id=rid)
            self._endpoint.report_refusal(error, name, error.status, path=path, request_id=rid)
            if isinstance(error, ModelNotFound):
                raise ProtocolError(messages.INVALID_PARAMS, "Unknown tool.") from error
            return {"content": [_text(tools.describe_failure(error))], "isError": True}
        result = _result(prediction)
        self._endpoint.observe(prediction)
        return result

    async def _predict(self, path: str, arguments: Document, request: Request) -> Prediction:
        """Take the steps of a v1 prediction whose body is the arguments.

        Under an `Idempotency-Key`, it has the identity of that prediction, too.

        Raises:
            ServiceError: the call is refused; nothing is billed.
        """
        started = time.perf_counter()
        endpoint, admission, headers = self._endpoint, self._admission, request.scope["headers"]
        target = find_target(path)
        if target is None:
            raise ModelNotFound()
        address = request.client.host if request.client else ""
        caller = await endpoint.authorize(headers, address=address)
        model = await endpoint.find_model(caller, target)
        head = read_head(headers, max_bytes=admission.max_body_bytes)
        head = head._replace(json_length=None, is_csv=False)
        content = orjson.dumps(arguments)
        with admission.memory.reserve(caller.account) as memory:
            memory.grow(len(content))
            return await endpoint.predict(
                Call(caller, target, path, head, content, started),
                model,
                memory,
                check=partial(check_wanted, request.scope, head, started=started),
            )


def _result(prediction: Prediction) -> Document:
    """Return a prediction with its receipt: as structured content, and as the same in text."""
    manifest, spending = prediction.model.manifest, prediction.spending
    document = orjson.loads(prediction.encoded.content) | {
        "receipt": {
            "event_id": prediction.event_id,
            "amount": format_amount(spending.amount),
            "currency": spending.currency,
            "model": manifest.model,
            "version": manifest.version,
        }
    }
    text = orjson.dumps(document).decode()
    return {"content": [_text(text)], "structuredContent": document, "isError": False}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
