"""Messages on stderr, and the exit code that goes with them."""

from typing import NoReturn

import typer


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
