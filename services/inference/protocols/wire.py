"""What the prediction protocols have in common with the endpoint that answers them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from starlette.responses import Response

from services.inference.engine.runtime import Answer
from services.inference.models.inputs import Arrays
from services.inference.models.registry import LoadedModel


class Body(NamedTuple):
    """A request's body; `json_length` is its `Inference-Header-Content-Length`, if it has one."""

    content: bytes
    json_length: int | None


class Encoded(NamedTuple):
    """An answer's body, and the headers that say what it is."""

    content: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Query(Protocol):
    """A decoded request: what the model is run on, and how its answer is wanted."""

    @property
    def arrays(self) -> Arrays: ...
    @property
    def rows(self) -> int: ...
    @property
    def probabilities(self) -> bool: ...

    def encode(self, model: LoadedModel, answer: Answer) -> Encoded:
        """The answer's body; `answer` has probabilities if they were wanted."""
        ...


@dataclass(frozen=True, slots=True)
class Wire:
    """One protocol.

    Args:
        route: the template under which its predictions count in the metrics.
        decode: from a body to a query of at most so many rows; raises BodyInvalid.
        identity: the bytes of a body that make two requests with one `Idempotency-Key` the same.
        refusal: gives a problem+json answer the protocol's own form.
    """

    route: str
    decode: Callable[[Body, LoadedModel, int], Query]
    identity: Callable[[Body], bytes]
    refusal: Callable[[Response], Response]
