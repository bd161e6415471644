"""Generate the chart's schema and README table from the comments in values.yaml.

python scripts/chart_docs.py            write values.schema.json and README.md
python scripts/chart_docs.py --check    fail if either is stale

A `# --` comment above a key describes it; `# @schema {…}` extends the JSON schema derived from its
default. A service's key without a comment inherits that of `auth`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path("deploy/helm/tollgate")
TABLE = "<!-- values -->"
SERVICES = ("auth", "inference", "billing", "console")
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


@dataclass(frozen=True)
class Key:
    """A value with its path, default and description."""

    path: tuple[str, ...]
    default: Any
    is_map: bool
    text: str
    schema: dict[str, Any]


def main() -> None:
    keys = read_keys((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    head, _, rest = readme.read_text().partition(TABLE)
    _, _, tail = rest.partition(TABLE)
    contents = {
        CHART / "values.schema.json": json.dumps(schema_of(keys), indent=2) + "\n",
        readme: f"{head}{TABLE}\n{table_of(keys)}{TABLE}{tail}",
    }
    stale = [
        path for path, text in contents.items() if not path.exists() or path.read_text() != text
    ]
    if sys.argv[1:] == ["--check"]:
        if stale:
            names = ", ".join(map(str, stale))
            sys.exit(f"error: {names} is stale; run python scripts/chart_docs.py")
        return
    for path in stale:
        path.write_text(contents[path])


def read_keys(text: str) -> list[Key]:
    """Return every key of values.yaml in order, each map before its contents."""
    lines = text.splitlines()
    keys: dict[tuple[str, ...], Key] = {}

    def walk(node: yaml.MappingNode, above: tuple[str, ...]) -> None:
        for name, value in node.value:
            path = (*above, name.value)
            text, schema = comment_above(lines, name.start_mark.line)
            auth_key = keys.get(("auth", *path[1:]))
            default = yaml.safe_load(yaml.serialize(value))
            is_map = isinstance(value, yaml.MappingNode) and not value.flow_style
            if not text and auth_key:
                text, schema = auth_key.text, auth_key.schema
                is_map = auth_key.is_map
            # A map with a schema is passed to Kubernetes unchanged; other maps are chart keys.
            is_map = is_map and not schema
            if not text and not is_map:
                sys.exit(f"error: {'.'.join(path)} has no description in values.yaml")
            keys[path] = Key(path, default, is_map, text, schema)
            if is_map:
                walk(value, path)

    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        sys.exit("error: values.yaml is not a map")
    walk(root, ())
    return list(keys.values())


def comment_above(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """Return the description and the schema in the comment directly above a line."""
    block: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].strip().removeprefix("#").strip())
    schema = {}
    for text in block:
        if text.startswith("@schema "):
            schema = json.loads(text.removeprefix("@schema "))
    words = [text for text in block if not text.startswith("@schema ")]
    joined = " ".join(words)
    return (joined.removeprefix("-- ") if joined.startswith("-- ") else ""), schema


def schema_of(keys: list[Key]) -> dict[str, Any]:
    """Return the JSON schema (draft 7, for Helm), which rejects unknown keys."""
    root: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#"}
    root |= closed("")
    root["properties"]["global"] = {"type": "object"}  # Helm passes it to every chart
    maps: dict[tuple[str, ...], dict[str, Any]] = {(): root}
    for key in keys:
        if key.is_map:
            entry = maps[key.path] = closed(key.text)
        else:
            entry = {"description": key.text, "type": type_of(key.default), **key.schema}
            if entry["type"] == "object":
                entry.setdefault("additionalProperties", False)
        maps[key.path[:-1]]["properties"][key.path[-1]] = entry
    return root


def closed(text: str) -> dict[str, Any]:
    description = {"description": text} if text else {}
    return {**description, "type": "object", "additionalProperties": False, "properties": {}}


def type_of(default: Any) -> str:
    if isinstance(default, dict):
        return "object"
    return "array" if isinstance(default, list) else TYPES[type(default)]


def table_of(keys: list[Key]) -> str:
    """Return the README's table; keys that the services share appear once, as `<service>.…`."""
    rows = ["| key | default | what it does |", "|---|---|---|"]
    for key in keys:
        if key.is_map:
            continue
        name, defaults = ".".join(key.path), [json.dumps(key.default)]
        of_services = [k for k in keys if k.path[0] in SERVICES and k.path[1:] == key.path[1:]]
        if key.path[0] in SERVICES and len(of_services) > 1:
            if key.path[0] != SERVICES[0]:
                continue
            name = ".".join(("<service>", *key.path[1:]))
            each = [json.dumps(k.default) for k in of_services]
            defaults = each if len(set(each)) > 1 else each[:1]
        text = key.text.replace("|", "\\|")
        rows.append(f"| `{name}` | `{' / '.join(defaults)}` | {text} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
