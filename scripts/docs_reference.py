"""Pages of the reference, made from the code: settings, commands and metrics."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from cli.main import app

SECTION = re.compile(r"^# -- (.+?) -+$")
SETTING = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$")
SETTINGS_INTRODUCTION = """
Settings are environment variables. An empty value counts as unset. An invalid value stops the
program at start, with one line that names the variable. To change settings for `make up`, copy
`.env.example` to `local.env`, uncomment some, and load the file before you start:

```sh
set -a; . ./local.env; set +a
make up
```
""".splitlines()
SETTINGS_HEAD = ["", "| variable | meaning | default |", "|---|---|---|"]
METRICS_HEAD = ["", "| metric | type | labels | meaning |", "|---|---|---|---|"]
METRICS = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram"}
METRICS |= {"LoopCounter": "counter", "LoopHistogram": "histogram"}


def settings_page(example: str) -> str:
    """Return a table of all settings.

    Args:
        example: the text of `.env.example`, in which comments precede each setting.
    """
    lines = ["# Settings", *SETTINGS_INTRODUCTION]
    comment: list[str] = []
    introduced = False
    for line in example.splitlines():
        if section := SECTION.match(line):
            introduced = True
            title = section[1].partition(":")[0]
            lines += ["", f"## {title[0].upper()}{title[1:]}", *SETTINGS_HEAD]
        elif setting := SETTING.match(line):
            default = f"`{setting[2]}`" if setting[2] else ""
            lines.append(f"| `{setting[1]}` | {_cell(' '.join(comment))} | {_cell(default)} |")
            comment = []
        elif line.startswith("# ") and introduced:
            comment.append(line[2:])
        elif not line.strip():
            comment = []
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return what `--help` says about every command."""
    lines = ["# Commands", "", "`make install` installs the command as `.venv/bin/tollgate`."]
    for name, command in sorted(_commands("tollgate", get_command(app))):
        context = command.context_class(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        text = (command.help or "").partition("\f")[0].strip()
        lines += ["", f"## `{name}`", "", text, "", "```", usage, "```", ""]
        rows = [
            f"| `{', '.join([*option.opts, *option.secondary_opts])}` | {_cell(option.help)} |"
            for option in command.params
            if getattr(option, "help", None) and not option.hidden
        ]
        if rows:
            lines += ["| option | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def metrics_page(services: Path) -> str:
    """Return a table of every service's metrics, as its source declares them."""
    lines = ["# Metrics", "", "Every process answers `GET /metrics` in Prometheus' text format."]
    for service in ("common", "auth", "inference", "billing"):
        found = sorted(_metrics(services / service), key=lambda metric: metric.name)
        title = "Every service" if service == "common" else service.capitalize()
        lines += ["", f"## {title}", *METRICS_HEAD]
        for metric in found:
            suffix = "_total" if metric.kind == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            name = metric.name.removesuffix("_total") + suffix
            lines.append(f"| `{name}` | {metric.kind} | {labels} | {_cell(metric.text)} |")
    return "\n".join(lines) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its whole name."""
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    context = command.context_class(command, info_name=name)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        if found is not None and not found.hidden:
            yield from _commands(f"{name} {child}", found)


@dataclass(frozen=True)
class Metric:
    """A metric as the source declares it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def _metrics(folder: Path) -> Iterator[Metric]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in METRICS:
                match [_literal(argument) for argument in node.args]:
                    case [str(name), str(text), *rest]:
                        labels = tuple(rest[0]) if rest and isinstance(rest[0], list) else ()
                        kind = METRICS[getattr(node.func, "id", "")]
                        yield Metric(name, kind, labels, text)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|")
