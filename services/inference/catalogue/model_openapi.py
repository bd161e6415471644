"""The OpenAPI document of one model: the service's own, with the model's columns and classes.

Its operations are those of the service's document that name a model, so errors, headers and the
security scheme are the same in both. A new operation needs one line here.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from registry.cards import Card
from registry.records import Manifest
from services.inference.catalogue import row_schema
from services.inference.catalogue.columns import ColumnRead, describe_columns, show_row

Schema = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_ROW, _PREDICTION = {"$ref": f"{_SCHEMAS}Row"}, {"$ref": f"{_SCHEMAS}Prediction"}


def describe_model(service: Schema, manifest: Manifest) -> Schema:
    """Return the OpenAPI 3.1 document of a model's live version.

    Args:
        service: the document of the whole service.
        manifest: of the live version.
    """
    columns = describe_columns(manifest)
    card = manifest.card or Card()
    texts = [card.summary, *_as_list(card.limitations)]
    document: Schema = {
        "openapi": service["openapi"],
        "info": {
            "title": card.title or manifest.model,
            "version": manifest.version,
            "description": "\n\n".join(filter(None, texts)),
        },
        "servers": [{"url": "/"}],
        "externalDocs": {"url": f"/v1/models/{manifest.model}/card", "description": "Its card."},
        "paths": dict(_paths(service, manifest, columns)),
    }
    own = {"Row": row_schema.as_object(columns), "Prediction": _prediction(manifest)}
    known = service.get("components", {})
    document["components"] = {
        "schemas": _with_referenced(document["paths"], own, known.get("schemas", {})),
        "securitySchemes": deepcopy(known.get("securitySchemes", {})),
    }
    return document


def _paths(
    service: Schema, manifest: Manifest, columns: list[ColumnRead]
) -> Iterator[tuple[str, Schema]]:
    """Yield the path of each operation that the service has, and its description."""
    for verb, adapt in _OPERATIONS.items():
        item = service["paths"].get(f"/v1/models/{{model}}:{verb}")
        if item is None:
            continue
        operation = deepcopy(item["post"])
        operation["operationId"] = verb
        operation["parameters"] = [
            each for each in operation.get("parameters", []) if each["name"] != "model"
        ]
        adapt(operation, service, columns)
        yield f"/v1/models/{manifest.model}:{verb}", {"post": operation}


def _adapt_rows(operation: Schema, service: Schema, columns: list[ColumnRead]) -> None:
    """Give an operation that takes rows the model's rows and predictions."""
    content = operation["requestBody"]["content"]
    body = _inline(content["application/json"], service)
    body["properties"]["instances"] = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [_ROW, row_schema.as_list(columns)]},
        "description": "The rows: objects, or lists of values in the order of the columns.",
    }
    row = show_row(columns)
    content["application/json"]["example"] = {"instances": [row]}
    if "text/csv" in content:
        lines = (",".join(map(_csv_cell, cells)) for cells in (row, row.values()))
        content["text/csv"]["example"] = "\n".join(lines) + "\n"
    answer = _inline(operation["responses"]["200"]["content"]["application/json"], service)
    answer["properties"]["predictions"] = {
        "type": "array",
        "items": _PREDICTION,
        "description": "One for each row.",
    }


def _adapt_label(operation: Schema, service: Schema, columns: list[ColumnRead]) -> None:
    """Give the feedback operation the model's labels."""
    body = _inline(operation["requestBody"]["content"]["application/json"], service)
    label = body["properties"]["label"]
    body["properties"]["label"] = {
        "anyOf": [_PREDICTION, {"type": "array", "items": _PREDICTION}],
        "description": label.get("description", ""),
    }


_OPERATIONS: dict[str, Callable[[Schema, Schema, list[ColumnRead]], None]] = {
    "predict": _adapt_rows,
    "explain": _adapt_rows,
    "feedback": _adapt_label,
}
"""How each operation's description becomes the model's own, by the verb in its path."""


def _inline(media: Schema, service: Schema) -> Schema:
    """Replace a media type's reference to a schema with a copy, and return the copy."""
    name = media["schema"]["$ref"].removeprefix(_SCHEMAS)
    copied: Schema = deepcopy(service["components"]["schemas"][name])
    media["schema"] = copied
    return copied


def _prediction(manifest: Manifest) -> Schema:
    signature = manifest.signature
    described: Schema = {
        "title": signature.target,
        "description": f"The {signature.task}'s answer.",
    }
    if signature.classes is None:
        return described | {"type": "number"}
    return described | {"enum": list(signature.classes)}


def _with_referenced(paths: Schema, own: Schema, known: Schema) -> Schema:
    """Return the model's own schemas, and those of the service that the paths refer to."""
    found: Schema = {}
    waiting = list(_references(paths))
    while waiting:
        name = waiting.pop()
        if name not in found and name not in own:
            found[name] = deepcopy(known[name])
            waiting += _references(found[name])
    return own | found


def _references(value: Any) -> Iterator[str]:
    """Yield the names of the schemas that a part of a document refers to."""
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference.removeprefix(_SCHEMAS)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _csv_cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if set('",\r\n') & set(text) else text


def _as_list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
