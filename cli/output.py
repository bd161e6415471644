"""What commands print: JSON and tables on stdout; errors, warnings and progress on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NoReturn

import structlog
import typer


def log_to_stderr() -> None:
    """Keep stdout for what commands print; structlog would log to it."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def print_json(document: Any) -> None:
    """Print a JSON document on one line of stdout; what JSON has no type for is printed as text."""
    typer.echo(json.dumps(document, default=str))


def print_table(rows: Sequence[Sequence[str]], *, err: bool = False) -> None:
    """Print rows with their columns aligned, to stdout or stderr."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        typer.echo(printable("  ".join(cells)).rstrip(), err=err)


def printable(text: str) -> str:
    """Return text on one line of a terminal; unprintable characters, as in data, are escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as "1 process" or "2 processes"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def exit_with_error(message: str) -> NoReturn:
    """Print an error on one line of stderr and exit with code 1."""
    print_error(message)
    raise typer.Exit(1)


def print_error(message: str) -> None:
    """Print an error on one line of stderr."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def warn(message: str) -> None:
    """Print a warning on one line of stderr."""
    typer.echo(f"warning: {' '.join(message.split())}", err=True)


@contextmanager
def progress(*, first_shown: float = 0.0) -> Iterator[Callable[[str, float], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise a line per step.

    Args:
        first_shown: hold lines until this share is reached, so that an early failure prints only
            its error.
    """
    if not sys.stderr.isatty():
        waiting: list[str] = []

        def report(doing: str, share: float) -> None:
            waiting.append(f"{share:4.0%} {doing}")
            if share >= first_shown:
                typer.echo("\n".join(waiting), err=True)
                waiting.clear()

        yield report
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)
