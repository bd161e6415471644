"""`tollgate models pin` and `unpin`: block automatic releases, and allow them again."""

from typing import Annotated

import typer

from cli.dates import parse_future
from cli.models.decisions import describe_pin, find_pin_in_force, print_decision
from cli.options import AsJson, Model, Reason
from cli.output import print_json
from cli.stores import failures_as_one_line, open_release_manager
from registry import pinning
from registry.releases import ReleaseManager


def pin(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to keep live.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="When the pin expires: a date or RFC 3339 time, UTC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep VERSION live: new versions are published but not released automatically."""
    if not reason.strip():
        raise typer.BadParameter("--reason must not be empty")
    ends = None if until is None else parse_future(until, option="--until")
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = pinning.pin(release_manager, model, version=version, until=ends, reason=reason)
        _print_pin(release_manager, model, decision, as_json=as_json)


def unpin(model: Model, reason: Reason = "", as_json: AsJson = False) -> None:
    """Allow automatic releases again, after a pin or a rollback."""
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = pinning.unpin(release_manager, model, reason=reason)
        _print_pin(release_manager, model, decision, as_json=as_json)


def _print_pin(
    release_manager: ReleaseManager, model: str, decision: pinning.PinDecision, *, as_json: bool
) -> None:
    in_force = find_pin_in_force(release_manager, model)
    if as_json:
        record = decision.record.model_dump(mode="json") if decision.record else None
        document = {"model": model, "written": record is not None, "record": record}
        print_json(document | {"pinned": in_force is not None})
        return
    if decision.release is not None:
        print_decision(model, decision.release, pin=None, as_json=False)
    if in_force is not None:
        typer.echo(f"{model}: {describe_pin(model, in_force)}")
    else:
        already = "" if decision.record else " already"
        typer.echo(f"{model}: not pinned{already}; automatic releases are allowed")
