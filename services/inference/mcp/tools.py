"""A model as a tool: its description, its arguments and its result."""

from typing import Any

from registry.cards import Card
from registry.deprecations import Deprecation
from registry.records import Manifest
from services.common.errors import ServiceError, problem_type
from services.inference.api.v2.document import error_text
from services.inference.catalogue import row_schema
from services.inference.catalogue.columns import describe_columns

Schema = dict[str, Any]

_RECEIPT = {
    "type": "object",
    "description": "What the call cost, and the version that answered.",
    "required": ["event_id", "amount", "currency", "model", "version"],
    "properties": {
        "event_id": {"type": "string", "description": "The id under which the call is billed."},
        "amount": {"type": "string", "description": "A decimal number."},
        "currency": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "string"},
    },
}
_LEVEL = {
    "type": "number",
    "exclusiveMinimum": 0,
    "exclusiveMaximum": 1,
    "description": "Add bounds that contain the truth with this probability, such as 0.9.",
}


def describe_tool(manifest: Manifest, *, deprecation: Deprecation | None) -> Schema:
    """Return the tool that predicts with a model.

    Args:
        manifest: of the live version.
        deprecation: of the live version, if it is deprecated.
    """
    card = manifest.card or Card()
    return {
        "name": manifest.model,
        "title": card.title or manifest.model,
        "description": _describe(manifest, card, deprecation),
        "inputSchema": _arguments(manifest),
        "outputSchema": _result(manifest),
        # Not `readOnlyHint`, which lets some clients call without asking: every call costs money.
        "annotations": {"destructiveHint": False, "openWorldHint": False},
    }


def _describe(manifest: Manifest, card: Card, deprecation: Deprecation | None) -> str:
    signature = manifest.signature
    kind = "a class" if signature.classes is not None else "a number"
    sentences = [
        f"Predict {signature.target!r}, {kind}, for rows of data.",
        card.summary,
        "Every call is billed; `receipt` in the result shows its cost.",
    ]
    if deprecation is not None:
        sentences.append(f"Deprecated: this version may stop on {deprecation.sunset:%Y-%m-%d}.")
    return " ".join(filter(None, sentences))


def _arguments(manifest: Manifest) -> Schema:
    """Return the schema of the body of a v1 prediction, which is what the arguments are."""
    options: Schema = {}
    if manifest.signature.classes is not None:
        options["probabilities"] = {
            "type": "boolean",
            "description": "Add the probability of each class.",
        }
    if manifest.calibration is not None:
        options["intervals"] = _LEVEL
    properties: Schema = {
        "instances": {
            "type": "array",
            "minItems": 1,
            "items": row_schema.as_object(describe_columns(manifest)),
            "description": "The rows to predict.",
        }
    }
    if options:
        properties["parameters"] = {
            "type": "object",
            "properties": options,
            "additionalProperties": False,
        }
    return {
        "type": "object",
        "properties": properties,
        "required": ["instances"],
        "additionalProperties": False,
    }


def _result(manifest: Manifest) -> Schema:
    """Return the schema of a v1 prediction's answer with its receipt.

    It leaves open which classes there are: another version may have answered.
    """
    signature = manifest.signature
    numbers = {"type": "array", "items": {"type": "number"}}
    properties: Schema = {
        "predictions": {
            "type": "array",
            "description": f"{signature.target!r} of each row.",
        }
    }
    if signature.classes is None:
        properties["intervals"] = {
            "type": "array",
            "items": numbers,
            "description": "The lowest and the highest plausible value of each row.",
        }
    else:
        classes = ", ".join(map(str, signature.classes))
        properties["probabilities"] = {
            "type": "array",
            "items": numbers,
            "description": f"Of each row, in this order of the classes: {classes}.",
        }
        properties["label_sets"] = {
            "type": "array",
            "items": {"type": "array"},
            "description": "The plausible classes of each row.",
        }
    properties["receipt"] = _RECEIPT
    return {
        "type": "object",
        "properties": properties,
        "required": ["predictions", "receipt"],
    }


def describe_failure(error: ServiceError) -> str:
    """Return in words why a call failed, for the model that made it."""
    text = error_text(error.detail, error.extra.get("errors", []))
    retry_after = error.headers.get("Retry-After")
    hint = f" Retry after {retry_after} s." if retry_after else ""
    return f"{text}{hint} (problem type: {problem_type(error.code)})"
