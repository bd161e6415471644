"""The `tollgate` command; subcommands import their heavy dependencies lazily."""

from importlib.metadata import version
from typing import Annotated

import typer

from cli import checking, deployment, live_report, sweep  # noqa: F401 — commands of groups
from cli.billing import billing
from cli.keys import keys
from cli.models import models
from cli.pipelines import pipelines
from cli.train import train
from cli.up import up
from cli.users import users

app = typer.Typer(
    help="Sell a scikit-learn model as a metered API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(up)
app.command()(train)
app.add_typer(billing, name="billing")
app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(pipelines, name="pipelines")
app.add_typer(users, name="users")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("tollgate"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Accept options of `tollgate` itself."""


def main() -> None:
    """Run the console script."""
    app(prog_name="tollgate")


if __name__ == "__main__":
    main()
