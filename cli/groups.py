"""Groups of commands that are imported when they are used, and listed where they can run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from cli.output import exit_with_error


@dataclass(frozen=True)
class Part:
    """A part of Tollgate, which is installed if all its modules can be found."""

    name: str
    modules: tuple[str, ...]

    def is_installed(self) -> bool:
        """Return whether commands that need this part can run here."""
        return all(map(_is_found, self.modules))


@dataclass(frozen=True)
class Command:
    """A command: its function, as `module:name`, and the parts of Tollgate that it needs."""

    function: str
    needs: tuple[Part, ...]

    def find_missing(self) -> list[str]:
        """Return the names of the parts that it needs and that are not installed."""
        return [part.name for part in self.needs if not part.is_installed()]


class _Group(TyperGroup):
    """A group that imports a command when it is used, or when help describes it."""

    table: ClassVar[Mapping[str, Command]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        commands = self.table.values()
        self.hidden = bool(self.table) and all(map(Command.find_missing, commands))

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.table, *self.commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = self.table.get(cmd_name)
        if found is None:
            return super().get_command(ctx, cmd_name)
        if missing := found.find_missing():
            return _new_refusal(f"{ctx.command_path} {cmd_name}", cmd_name, missing)
        module, _, name = found.function.partition(":")
        return _new_command(cmd_name, getattr(import_module(module), name))


def new_group(commands: Mapping[str, Command], *, help_text: str) -> typer.Typer:
    """Return a group of commands; help lists it unless none of them can run here."""
    cls = type("Group", (_Group,), {"table": commands})
    return typer.Typer(
        cls=cls,
        help=help_text,
        callback=lambda: None,  # without one, Typer takes a lone group for an empty app
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def _new_command(name: str, function: Callable[..., None], **options: Any) -> Any:
    single = typer.Typer(add_completion=False)
    single.command(name, **options)(function)
    return typer.main.get_command(single)


def _new_refusal(path: str, name: str, missing: list[str]) -> Any:
    """Return a hidden command that accepts any arguments and says what is missing."""
    reason = (
        f"`{path}` needs {', '.join(missing)}, not installed here; "
        "run it in another image, or in a checkout after `make install`"
    )

    def refuse() -> None:
        exit_with_error(reason)

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return _new_command(name, refuse, hidden=True, help=f"{reason}.", context_settings=anything)


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
