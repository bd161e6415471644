"""Groups of commands that are imported when they are used, and listed where they can run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
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


class _Commands(Mapping[str, Any]):
    """Commands by name, each imported when it is looked up."""

    def __init__(self, table: Mapping[str, Command], groups: Mapping[str, Any]) -> None:
        self._table = table
        self._groups = groups

    def __getitem__(self, name: str) -> Any:
        found = self._table.get(name)
        if found is None:
            return self._groups[name]
        if missing := found.find_missing():
            return _new_refusal(name, missing)
        module, _, function = found.function.partition(":")
        return _new_command(name, getattr(import_module(module), function))

    def __iter__(self) -> Iterator[str]:
        return chain(self._table, self._groups)

    def __len__(self) -> int:
        return len(self._table) + len(self._groups)


class _Group(TyperGroup):
    table: ClassVar[Mapping[str, Command]] = {}

    def __init__(self, *, commands: Any = None, **options: Any) -> None:
        lazy: Any = _Commands(self.table, commands or {})
        super().__init__(commands=lazy, **options)
        commands_missing = all(map(Command.find_missing, self.table.values()))
        self.hidden = commands_missing and all(each.hidden for each in (commands or {}).values())


def new_group(commands: Mapping[str, Command], *, help_text: str) -> typer.Typer:
    """Return a group of commands; help lists it unless none of them can run here."""
    return typer.Typer(
        cls=type("Group", (_Group,), {"table": commands}),
        help=help_text,
        callback=lambda: None,  # without one, Typer takes a lone group for an empty app
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def _new_command(name: str, function: Callable[..., None], **options: Any) -> Any:
    single = typer.Typer(add_completion=False)
    single.command(name, **options)(function)
    return typer.main.get_command(single)


def _new_refusal(name: str, missing: list[str]) -> Any:
    """Return a hidden command that accepts any arguments and says what is missing."""
    parts = " and ".join(missing)
    needs = f"needs {parts}, which {'is' if len(missing) == 1 else 'are'} not installed here"

    def refuse(context: typer.Context) -> None:
        exit_with_error(
            f"`{context.command_path}` {needs}; run it in another image, or in a checkout after "
            "`make install`"
        )

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    help_text = f"{needs.capitalize()}."
    return _new_command(name, refuse, hidden=True, help=help_text, context_settings=anything)


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
