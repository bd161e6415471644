"""The docs name what exists: errors, commands, options, make targets, and links of the site."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from cli.main import app
from harness.programs import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FRAMEWORK = {"internal_error"}
"""Codes that no class sets: the default of `ServiceError`."""


def codes_raised() -> set[str]:
    """Return the codes of all errors, as the services' classes set them."""
    found = set()
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found |= {
                    str(each.value.value)
                    for each in node.body
                    if isinstance(each, ast.Assign)
                    and ast.unparse(each.targets[0]) == "code"
                    and isinstance(each.value, ast.Constant)
                }
    return found | FRAMEWORK


def commands_shown(path: Path, program: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of a program in a page's blocks."""
    for block in BLOCK.findall(path.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            call = re.match(rf"\s*(?:\.venv/bin/)?{program}\s(.*)", line)
            if call:
                yield shlex.split(re.sub(r"[\[\]()]", "", call[1]), comments=True)


def test_the_page_of_errors_has_every_code_once() -> None:
    page = (ROOT / "docs/errors.md").read_text()

    documented = re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", page, re.MULTILINE)

    assert sorted(documented) == sorted(codes_raised())


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_tollgate_command_in_the_docs_exists_with_its_options(path: Path) -> None:
    for words in commands_shown(path, "tollgate"):
        command: Any = get_command(app)
        rest = list(words)
        while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            found = command.get_command(command.context_class(command), name)
            assert found is not None, f"tollgate {shlex.join(words)}: no command {name}"
            command = found
        options = {each for option in command.params for each in option.opts} | {"--help"}
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options
        assert not unknown, f"tollgate {shlex.join(words)}: no option {unknown}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_make_target_in_the_docs_exists(path: Path) -> None:
    for words in commands_shown(path, "make"):
        targets = {word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}
        assert targets <= TARGETS, f"make {shlex.join(words)}"
