"""The interface between the prediction endpoint and the protocols it speaks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from starlette.responses import Response

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse
from services.inference.models.table import LoadedModel


class Body(NamedTuple):
    """A request's body, and what its headers say about it.

    Args:
        json_length: its `Inference-Header-Content-Length`, if present.
        is_csv: whether its `Content-Type` is `text/csv`.
        is_light: whether it is known to take only milliseconds to parse.
    """

    content: bytes
    json_length: int | None
    is_csv: bool = False
    is_light: bool = False


class EncodedResponse(NamedTuple):
    """A response body and the headers that describe it."""

    content: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class InferenceRequest(Protocol):
    """A decoded request: the model's inputs, and which outputs the caller wants."""

    @property
    def arrays(self) -> Arrays: ...
    @property
    def rows(self) -> int: ...
    @property
    def probabilities(self) -> bool: ...
    @property
    def explains(self) -> bool: ...

    def suits(self, model: LoadedModel) -> bool:
        """Return whether a version other than the one it was decoded for can answer it."""
        ...

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode the response; it has probabilities if they were requested."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolCodec:
    """Decodes and encodes one protocol.

    Args:
        route: the path template that labels its predictions in the metrics.
        decode: turns a body into a request of at most that many rows; raises BodyInvalid.
        identity: returns the bytes of a body that identify it under an `Idempotency-Key`.
        encode_error: turns a problem+json response into the protocol's error format.
        price_suffix: follows the model's name in the name of the price, if the plan has one.
    """

    route: str
    decode: Callable[[Body, LoadedModel, int], InferenceRequest]
    identity: Callable[[Body], bytes]
    encode_error: Callable[[Response], Response]
    price_suffix: str = ""
