"""What a prediction request addresses, by its path."""

from typing import NamedTuple

from services.inference.api.codec import ProtocolCodec
from services.inference.api.v1 import document as v1
from services.inference.api.v1 import explanations as v1_explanations
from services.inference.api.v2 import document as v2

_V1, _V1_END, _V1_EXPLAIN = "/v1/models/", ":predict", ":explain"
_V2, _V2_END, _V2_VERSION = "/v2/models/", "/infer", "/versions/"


class Target(NamedTuple):
    """A model, or one of its versions, and the protocol; without a `version`, the live one."""

    codec: ProtocolCodec
    model: str
    version: str | None = None


def find_target(path: str) -> Target | None:
    """Return the target of a `POST` to `path`, or None if it is not a prediction."""
    if path.startswith(_V1) and path.endswith(_V1_END):
        return Target(v1.CODEC, path[len(_V1) : -len(_V1_END)])
    if path.startswith(_V2) and path.endswith(_V2_END):
        model, separator, version = path[len(_V2) : -len(_V2_END)].partition(_V2_VERSION)
        return Target(v2.CODEC, model, version if separator else None)
    return None


def find_explanation(path: str) -> Target | None:
    """Return the target of a `POST` to `path`, or None if it does not ask for explanations.

    They always take the ordinary path.
    """
    if path.startswith(_V1) and path.endswith(_V1_EXPLAIN):
        return Target(v1_explanations.CODEC, path[len(_V1) : -len(_V1_EXPLAIN)])
    return None
