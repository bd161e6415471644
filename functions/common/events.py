"""Parse a CloudEvent into an arrival, or into a reason to ignore it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from functions.common.log import Severity
from functions.common.settings import Place
from registry.records import is_model_name

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

FINALIZED = "google.cloud.storage.object.v1.finalized"


class Ignored(Exception):
    """The event needs no action: log and acknowledge it, and never retry it.

    Args:
        severity: WARNING for events that a real bucket never sends, or that need attention.
        decision: a label for the counter of decisions.
    """

    def __init__(
        self, reason: str, *, severity: Severity = "INFO", decision: str = "ignored"
    ) -> None:
        super().__init__(reason)
        self.severity: Severity = severity
        self.decision = decision


class _Object(BaseModel):
    """The trusted fields of google.events.cloud.storage.v1.StorageObjectData.

    Size and times are read from the store. A 64-bit integer may be a string.
    """

    bucket: str = Field(min_length=3, max_length=222)
    name: str = Field(min_length=1, max_length=1024)
    generation: int = Field(ge=0, lt=2**63)


@dataclass(frozen=True)
class Arrival:
    """One generation of an object under a model's folder.

    Args:
        name: the full object name, including any prefix.
        path: relative to the model's folder, such as `part-1.csv`.
    """

    bucket: str
    name: str
    generation: str
    model: str
    path: str

    @property
    def identity(self) -> str:
        """Return the idempotency key of the training run."""
        return f"{self.bucket}/{self.name}#{self.generation}"

    @property
    def folder(self) -> str:
        """Return the model's folder in the bucket, with a trailing slash."""
        return self.name.removesuffix(self.path)

    @property
    def payload(self) -> dict[str, str]:
        """Return the workflow's `client_payload`."""
        return {
            "model": self.model,
            "bucket": self.bucket,
            "name": self.name,
            "generation": self.generation,
        }


def read_event(event: "CloudEvent", watched: Place) -> Arrival:
    """Return the arrival that an event describes.

    Raises:
        Ignored: the event has a different type or place, or is malformed.
    """
    if event["type"] != FINALIZED:
        raise Ignored("The event has an unexpected type.", severity="WARNING")
    data: Any = event.data
    if not isinstance(data, Mapping):
        raise Ignored("The event does not describe an object.", severity="WARNING")
    try:
        stored = _Object.model_validate(data)
    except ValidationError as error:
        raise Ignored("The event describes a malformed object.", severity="WARNING") from error
    if stored.bucket != watched.bucket:
        raise Ignored("The event comes from a different bucket.", severity="WARNING")
    if not stored.name.startswith(watched.prefix):
        raise Ignored("The object is outside the store.")
    model, _, path = stored.name.removeprefix(watched.prefix).partition("/")
    if not is_model_name(model) or not path:
        raise Ignored("The object is not in a model's folder.")
    return Arrival(stored.bucket, stored.name, str(stored.generation), model, path)
