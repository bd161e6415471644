"""`tollgate models deprecate`: ask callers to leave a version by a stated date."""

from datetime import datetime
from typing import Annotated

import typer

from cli.dates import parse_future
from cli.options import AsJson, Model, Reason
from cli.output import print_json, printable
from cli.stores import failures_as_one_line, load_settings, open_store
from registry.deprecations import deprecate as write_deprecation
from registry.deprecations import find_deprecations


def deprecate(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to leave.")],
    sunset: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="When it may stop answering: a date or RFC 3339 time, UTC."
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="End the deprecation.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Announce the end of VERSION: its predictions carry `Deprecation` and `Sunset` headers.

    It answers as before, also after its sunset. Another --sunset replaces the first one.
    """
    if undo == (sunset is not None):
        raise typer.BadParameter("use either --sunset or --undo")
    ends: datetime | None = None if sunset is None else parse_future(sunset, option="--sunset")
    with failures_as_one_line():
        store, _ = open_store(read_only=False)
        by = load_settings().actor
        record = write_deprecation(store, model, version=version, sunset=ends, by=by, reason=reason)
        in_force = find_deprecations(store, model).get(version)
    if as_json:
        written = record.model_dump(mode="json") if record else None
        document = {"model": model, "written": record is not None, "record": written}
        print_json(document | {"deprecated": in_force is not None})
        return
    state = in_force.describe() if in_force else "not deprecated"
    already = "" if record else ", already"
    typer.echo(printable(f"{model}: version {version} is {state}{already}"))
