"""A page of the docs site for each service's API, made from its OpenAPI document."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.every_service import create_every_app

HIDDEN = {"/healthz", "/readyz", "/metrics"}
"""Paths that every service has; the page of operations describes them."""


def api_pages() -> dict[str, str]:
    """Return the page of each service, by path in the site."""
    with tempfile.TemporaryDirectory() as folder:
        apps = create_every_app(Path(folder))
    return {f"reference/{name}.md": api_page(name, app.openapi()) for name, app in apps.items()}


def api_page(name: str, document: Mapping[str, Any]) -> str:
    """Return the operations of an OpenAPI document, grouped by tag."""
    lines = [f"# API of {name}", "", document["info"].get("description", "")]
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path not in HIDDEN:
                tag = next(iter(operation.get("tags", [])), name)
                described = _operation(f"{method.upper()} {path}", operation, document)
                groups.setdefault(tag, []).extend(described)
    for tag, described in groups.items():
        lines += ["", f"## {tag[0].upper()}{tag[1:]}", *described]
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    security = [scopes for each in operation.get("security", []) for scopes in each.values()]
    scopes = dict.fromkeys(scope for each in security for scope in each)
    lines = ["", f"### `{title}`", "", operation.get("description", operation["summary"]), ""]
    if scopes:
        lines += [f"Scope: {', '.join(f'`{scope}`' for scope in scopes)}.", ""]
    rows = list(_inputs(operation, document))
    if rows:
        lines += ["| input | type | meaning |", "|---|---|---|", *rows, ""]
    for status, response in sorted(operation["responses"].items()):
        fields = ", ".join(f"`{field}`" for field in _fields(response, document))
        shown = f" → {fields}" if fields and status < "300" else ""
        text = response["description"].replace("Successful Response", "OK")
        lines.append(f"- **{status}** {_cell(text)}{shown}")
    return lines


def _inputs(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each parameter and each member of the body."""
    for parameter in operation.get("parameters", []):
        kind = f"{parameter['in']}, {_type(parameter.get('schema', {}), document)}"
        yield _row(parameter["name"], kind, parameter, required=parameter.get("required", False))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolve(content.get("schema", {}), document)
        required = schema.get("required", [])
        for name, member in schema.get("properties", {}).items():
            yield _row(name, _type(member, document), member, required=name in required)
        if not schema.get("properties"):
            yield f"| body | `{media}` | {_cell(schema.get('description', ''))} |"


def _row(name: str, kind: str, described: Mapping[str, Any], *, required: bool) -> str:
    meaning = described.get("description") or described.get("schema", {}).get("description", "")
    return f"| `{name}`{'' if required else ' (optional)'} | {_cell(kind)} | {_cell(meaning)} |"


def _fields(response: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Return the members of a response's JSON object."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return list(_resolve(schema, document).get("properties", {}))


def _type(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return a schema's type in words."""
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(dict.fromkeys(_type(choice, document) for choice in choices))
    schema = _resolve(schema, document)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), document)}"
    return str(schema.get("const") or schema.get("format") or schema.get("type", "any"))


def _resolve(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a reference leads to."""
    reference = schema.get("$ref", "")
    if reference.startswith("#/components/schemas/"):
        found: Mapping[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
        return found
    return schema


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
