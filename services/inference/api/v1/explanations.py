"""Decode requests for explanations, and encode the responses."""

from typing import Any, NamedTuple

import numpy as np
import orjson

from registry.explanations import Explanations
from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse
from services.common.errors import BodyInvalid, ServiceError
from services.inference.api.codec import Body, EncodedResponse, ProtocolCodec
from services.inference.api.v1.document import HEADERS, decode_rows, refuse_unexpected
from services.inference.models.table import LoadedModel

ROUTE = "/v1/models/{model}:explain"
PRICE_SUFFIX = ":explain"
OTHER = "(other)"
"""The name under which the contributions beyond `top` are summed."""

_PARAMETERS = {"top"}


class NotExplainable(ServiceError):
    """The version was published without anything to explain it by."""

    status = 501
    code = "not_explainable"
    detail = "This version of the model cannot be explained; train it again."


class ExplainRequest(NamedTuple):
    """A decoded request; `top` is how many columns to name in each row, None for all."""

    arrays: Arrays
    rows: int
    top: int | None

    @property
    def probabilities(self) -> bool:
        """Return False: the response does not contain them."""
        return False

    @property
    def explains(self) -> bool:
        """Return True."""
        return True

    def suits(self, model: LoadedModel) -> bool:
        """Return whether another version can explain as many rows."""
        return model.explainer is not None and self.rows <= model.explainer.max_rows

    def encode(self, model: LoadedModel, response: InferenceResponse) -> EncodedResponse:
        """Encode `predictions` and `explanations`."""
        explanations = response.explanations
        if explanations is None:
            raise ValueError("the rows were not explained")
        names = [column.name for column in model.inputs.columns]
        document = {
            "predictions": response.predictions,
            "explanations": _describe(explanations, names, self.top),
        }
        return EncodedResponse(orjson.dumps(document), HEADERS)


def decode(body: Body, model: LoadedModel, max_rows: int) -> ExplainRequest:
    """Decode a request according to the model's signature.

    Raises:
        NotExplainable: the version has no explainer.
        BodyInvalid: as for a prediction; or it has more rows than can be explained at once.
    """
    if model.explainer is None:
        raise NotExplainable()
    most = min(max_rows, model.explainer.max_rows)
    arrays, rows, top = decode_rows(body, model, most, _read_top)
    return ExplainRequest(arrays, rows, top)


def _read_top(parameters: dict[str, Any], model: LoadedModel) -> int | None:
    refuse_unexpected(parameters, _PARAMETERS, ["parameters"])
    top = parameters.get("top")
    if "top" in parameters and (type(top) is not int or top < 1):
        message = "Must be a positive integer."
        raise BodyInvalid([{"loc": ["parameters", "top"], "msg": message}])
    return top


def _describe(
    explanations: Explanations, names: list[str], top: int | None
) -> list[dict[str, Any]]:
    return [
        {
            "base": base,
            "contributions": _name(row, names, top),
            "approximate": explanations.is_approximate,
        }
        for base, row in zip(explanations.base.tolist(), explanations.contributions, strict=True)
    ]


def _name(row: Any, names: list[str], top: int | None) -> dict[str, float]:
    """Return the contributions by column; with `top`, the largest first and then the others."""
    if top is None or top >= len(names):
        return dict(zip(names, row.tolist(), strict=True))
    order = np.argsort(-np.abs(row), kind="stable")
    named = {names[i]: float(row[i]) for i in order[:top]}
    named[OTHER] = named.get(OTHER, 0.0) + float(row[order[top:]].sum())
    return named


CODEC = ProtocolCodec(
    route=ROUTE,
    decode=decode,
    identity=lambda body: body.content,
    encode_error=lambda problem: problem,
    price_suffix=PRICE_SUFFIX,
)
