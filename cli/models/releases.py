"""`tollgate models release`, `rollback`, `canary` and `shadow`: decide which version is live."""

from typing import Annotated

import typer

from cli.models.decisions import find_pin_in_force, print_decision
from cli.options import AsJson, Model, Reason, Version
from cli.stores import failures_as_one_line, open_release_manager
from registry import pinning


def release(
    model: Model, version: Version = None, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Put a version live; by default the newest that passed its gate."""
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = release_manager.release(model, version=version, reason=reason)
        pin = find_pin_in_force(release_manager, model)
    print_decision(model, decision, pin=pin, as_json=as_json)


def rollback(
    model: Model,
    version: Version = None,
    reason: Reason = "",
    pin: Annotated[
        bool, typer.Option("--pin/--no-pin", help="Block automatic releases from now on.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Roll back, by default to the newest earlier live version that was not itself rolled back.

    Afterwards, new versions are not released automatically until `unpin` or a manual release.
    """
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = release_manager.roll_back(model, version=version, reason=reason)
        if not pin:
            pinning.unpin(release_manager, model, reason=f"rolled back without a pin: {reason}")
        in_force = find_pin_in_force(release_manager, model)
    print_decision(model, decision, pin=in_force, as_json=as_json)


def canary(
    model: Model,
    version: Version = None,
    percent: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="Share of callers; above 0, at most 100.", max=100),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the canary.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Serve a version to a share of callers; it is rolled back if it performs worse.

    Releasing the version puts it live for all callers and ends the canary.
    """
    if off == (version is not None) or off == (percent is not None):
        raise typer.BadParameter("use --to and --percent together, or --off alone")
    if percent is not None and not percent > 0:
        raise typer.BadParameter("--percent must be above 0; use --off to end the canary")
    with failures_as_one_line():
        decision = open_release_manager().canary(
            model, version=version, percent=percent or 0.0, reason=reason
        )
    print_decision(model, decision, pin=None, as_json=as_json)


def shadow(
    model: Model,
    version: Version = None,
    off: Annotated[bool, typer.Option("--off", help="End the shadow.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Run a version on live requests, invisible and unbilled, and count its disagreements."""
    if off == (version is not None):
        raise typer.BadParameter("use either --to or --off")
    with failures_as_one_line():
        decision = open_release_manager().shadow(model, version=version, reason=reason)
    print_decision(model, decision, pin=None, as_json=as_json)
