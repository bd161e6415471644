"""The kernel, `services/common`, contains only what several packages use (docs/adr/0022)."""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.programs import ROOT

KERNEL = "services.common"
MAX_CODE_LINES = 3300
SERVICES = ("auth", "billing", "console", "inference")
USERS = (*(f"services/{name}" for name in SERVICES), "cli", "functions", "trainer")
"""Packages that may not import one another, except that the command line imports all."""
RUN_AS_A_PROGRAM = "services.common.http.readiness"
"""For the health checks of every service's container."""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def files() -> dict[str, Path]:
    """Return the modules of the kernel by name, without those that are empty."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "services/common").rglob("*.py")
        if path.stat().st_size
    }


def imported(path: Path) -> Iterator[str]:
    """Return the names that a user of the kernel imports, each of which may be a module."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source if KERNEL in source else "")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def importers() -> dict[str, set[str]]:
    """Return what imports each module of the kernel: packages, and modules of the kernel."""
    found: dict[str, set[str]] = defaultdict(set)
    paths = {name: [path] for name, path in files().items()}
    paths |= {user: [*(ROOT / user).rglob("*.py")] for user in USERS}
    for user, sources in paths.items():
        for name in {name for path in sources for name in imported(path)}:
            if name.startswith(KERNEL) and name != user:
                found[name].add(user)
    return found


def users_of(module: str) -> set[str]:
    """Return the packages that use a module of the kernel, directly or through the kernel."""
    users, waiting, seen = set(), [module], set()
    while waiting:
        seen.add(name := waiting.pop())
        users |= importers()[name] & set(USERS)
        waiting += importers()[name] - set(USERS) - seen
    return users


def count_code_lines(path: Path) -> int:
    """Count the lines of a file that are neither empty, comments nor docstrings."""
    source = path.read_text()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE and token.string:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(1 for _ in code)


def test_several_packages_use_each_module_of_the_kernel() -> None:
    modules = files().keys() - {RUN_AS_A_PROGRAM}

    assert {name for name in modules if len(users_of(name)) < 2} == set()


def test_the_kernel_stays_small() -> None:
    assert sum(map(count_code_lines, files().values())) <= MAX_CODE_LINES
