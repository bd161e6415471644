"""Answer the calls of `inference.GRPCInferenceService` with the steps that answer HTTP requests.

A call's metadata are its headers: `authorization` or `x-api-key`, `idempotency-key`,
`x-request-id`, `x-request-timeout` and `x-tags`. They are checked before the message is read, so
every call is registered as a stream of requests, of which it reads one; the two look the same on
the wire. The receipt, and the deprecation of the version if there is one, are in the trailing
metadata.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from services.common.errors import STOPPING, BadRequest, ServiceError
from services.common.http.app import Check
from services.common.identity.caller import Caller
from services.common.identity.guards import authenticate
from services.common.telemetry.requests import request_id
from services.inference.access import check_model, check_scope
from services.inference.api import steps
from services.inference.api.admission import FairSlots
from services.inference.api.collaborators import Admission, Models, Monitoring
from services.inference.api.grpc import document
from services.inference.api.grpc.messages import open_inference_pb2 as messages
from services.inference.api.predictions import PredictEndpoint, expected
from services.inference.api.reading import BODY_DEADLINE_S, BodyTooSlow, check_deadline, read_head
from services.inference.api.steps import Call
from services.inference.api.v2 import document as rest
from services.inference.api.v2 import metadata

STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    402: grpc.StatusCode.RESOURCE_EXHAUSTED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The gRPC status for each HTTP status; any other is INTERNAL.

Credit (402) and rate (429) are both a quota of the caller that is used up, which is what
RESOURCE_EXHAUSTED means. The metadata `x-error-code` and the text say which, and only the second
has a `retry-after`.
"""
READING_AT_ONCE = 8
"""Messages that are received at once. Their bytes count only once they have arrived, so this bounds
the memory that they take before."""
MAX_DETAIL_CHARS = 1000
"""Clients reject metadata beyond 8 KiB, and a character may take 12 bytes."""

_USED = frozenset(
    {
        "authorization",
        "idempotency-key",
        "x-api-key",
        "x-request-id",
        "x-request-timeout",
        "x-tags",
    }
)

CONTENT_LENGTH = b"content-length"
"""The only header of a prediction that says nothing in gRPC."""

M = TypeVar("M", bound=Message)
Context = grpc.aio.ServicerContext[bytes, bytes]


class Incoming(NamedTuple):
    """A call as it arrives; `headers` are its metadata, `started` is on the performance counter."""

    context: Context
    headers: list[tuple[bytes, bytes]]
    request_id: str
    started: float


Answer = Callable[[Incoming], Awaitable[bytes]]


class InferenceService:
    """Answers the calls of the protocol.

    Args:
        endpoint: whose steps a prediction takes.
        reading: messages that are received at once; they are counted once they have arrived.
        checks: the service's readiness checks by name.
        version: the server's version.
    """

    def __init__(
        self,
        endpoint: PredictEndpoint,
        *,
        admission: Admission,
        models: Models,
        monitoring: Monitoring,
        reading: FairSlots,
        checks: Mapping[str, Check],
        version: str,
    ) -> None:
        self._endpoint = endpoint
        self._admission = admission
        self._models = models
        self._monitoring = monitoring
        self._reading = reading
        self._checks = checks
        self._version = version
        self.stopping = False
        """Set to refuse new calls; those that have begun are answered."""

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of all calls; it takes and returns serialized messages."""
        calls: dict[str, Answer] = {
            "ModelInfer": self._model_infer,
            "ModelMetadata": self._model_metadata,
            "ModelReady": self._model_ready,
            "ServerLive": self._server_live,
            "ServerMetadata": self._server_metadata,
            "ServerReady": self._server_ready,
        }
        return grpc.method_handlers_generic_handler(
            document.SERVICE,
            {
                name: grpc.stream_unary_rpc_method_handler(self._answering(name, answer))
                for name, answer in calls.items()
            },
        )

    def _answering(self, name: str, answer: Answer) -> Any:
        """Return the handler of one call, which also measures it and sends its errors."""
        path = f"/{document.SERVICE}/{name}"

        async def handle(_: AsyncIterator[bytes], context: Context) -> bytes:
            headers = _headers(context)
            call = Incoming(context, headers, request_id(headers), time.perf_counter())
            status = 499
            try:
                if self.stopping:
                    raise STOPPING
                content = await answer(call)
                status = 200
                return content
            except Exception as raised:
                error = expected(raised, path=path, request_id=call.request_id)
                status = _http_status(error)
            finally:
                seconds = time.perf_counter() - call.started
                self._monitoring.metrics.observe(path, status, seconds)
            return await _abort(context, error, request_id=call.request_id)

        return handle

    # -- predictions -----------------------------------------------------------------------------

    async def _model_infer(self, call: Incoming) -> bytes:
        """Answer a prediction: check the credentials, read the message, find the model, predict."""
        endpoint, admission = self._endpoint, self._admission
        model_name = ""
        try:
            caller = await endpoint.authorize(call.headers, address=_address(call.context))
            head = read_head(call.headers, max_bytes=admission.max_body_bytes)
            with admission.memory.reserve(caller.account) as memory:
                content = await self._read(call.context, caller)
                memory.grow(len(content))
                target = document.find_target(content)
                model_name = target.model
                model = await endpoint.find_model(caller, target)
                prediction = await endpoint.predict(
                    Call(caller, target, document.PATH, head, content, call.started),
                    model,
                    memory,
                    check=partial(check_deadline, head, started=call.started),
                )
        except Exception as raised:
            error = expected(raised, path=document.PATH, request_id=call.request_id)
            endpoint.report_refusal(
                error,
                model_name,
                _http_status(error),
                path=document.PATH,
                request_id=call.request_id,
            )
            raise error from raised
        headers = steps.response_headers(prediction, request_id=call.request_id)
        call.context.set_trailing_metadata(
            [(name.decode(), value.decode()) for name, value in headers if name != CONTENT_LENGTH]
        )
        endpoint.observe(prediction)
        return prediction.encoded.content

    async def _read(self, context: Context, caller: Caller) -> bytes:
        """Receive the call's message.

        Raises:
            BadRequest: the call has no message.
            BodyTooSlow: it did not arrive in time.
        """
        try:
            async with (
                asyncio.timeout(BODY_DEADLINE_S),
                self._reading.acquire(caller.account),
            ):
                content: Any = await context.read()
        except TimeoutError as error:
            raise BodyTooSlow() from error
        if content is grpc.aio.EOF:
            raise BadRequest("The call has no message.")
        return bytes(content)

    # -- descriptions, neither billed nor limited --------------------------------------------------

    async def _server_live(self, call: Incoming) -> bytes:
        return messages.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, call: Incoming) -> bytes:
        failing = await metadata.find_failing(self._checks)
        return messages.ServerReadyResponse(ready=failing is None).SerializeToString()

    async def _server_metadata(self, call: Incoming) -> bytes:
        await self._check_caller(call)
        described = metadata.describe_server(self._version)
        return messages.ServerMetadataResponse(**described.model_dump()).SerializeToString()

    async def _model_ready(self, call: Incoming) -> bytes:
        caller = await self._check_caller(call)
        asked = await self._parse(messages.ModelReadyRequest(), call.context, caller)
        check_model(caller, asked.name)
        await metadata.find_manifest(
            self._models.table, self._models.loader, asked.name, asked.version or None
        )
        return messages.ModelReadyResponse(ready=True).SerializeToString()

    async def _model_metadata(self, call: Incoming) -> bytes:
        caller = await self._check_caller(call)
        asked = await self._parse(messages.ModelMetadataRequest(), call.context, caller)
        check_model(caller, asked.name)
        described = await metadata.describe_model(
            self._models.table, self._models.loader, asked.name, asked.version or None
        )
        return messages.ModelMetadataResponse(**described.model_dump()).SerializeToString()

    async def _check_caller(self, call: Incoming) -> Caller:
        address = _address(call.context)
        caller = await authenticate(self._admission.verifier, call.headers, address=address)
        check_scope(caller)
        return caller

    async def _parse(self, message: M, context: Context, caller: Caller) -> M:
        try:
            message.ParseFromString(await self._read(context, caller))
        except DecodeError as error:
            raise BadRequest("The message is not one of this call.") from error
        return message


def _headers(context: Context) -> list[tuple[bytes, bytes]]:
    """Return the metadata that are headers too, as HTTP delivers them."""
    given = context.invocation_metadata() or ()
    return [
        (name.encode(), value.encode("latin-1") if isinstance(value, str) else value)
        for name, value in given
        if name in _USED
    ]


def _address(context: Context) -> str:
    """Return the IP address of a call's peer; "" if it has none."""
    kind, _, rest = unquote(context.peer()).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].strip("[]").partition("%")[0]


def _http_status(error: ServiceError) -> int:
    """Return the status with which HTTP would answer under `/v2`; metrics and logs have it."""
    return 400 if error.status == 422 else error.status


async def _abort(context: Context, error: ServiceError, *, request_id: str) -> bytes:
    """End a call with an error, and the headers that HTTP would send as trailing metadata."""
    trailing = [
        ("x-request-id", request_id),
        ("x-error-code", error.code),
        *((name.lower(), value) for name, value in error.headers.items()),
    ]
    code = STATUS_CODES.get(error.status, grpc.StatusCode.INTERNAL)
    text = rest.error_text(error.detail, error.extra.get("errors", []))
    await context.abort(code, text[:MAX_DETAIL_CHARS], tuple(trailing))
    raise AssertionError  # abort raises
