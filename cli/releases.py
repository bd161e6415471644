"""`tollgate models release`, `rollback`, `canary`, `shadow`, `pin` and `unpin`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.models_app import (
    AsJson,
    Model,
    Reason,
    Version,
    describe_pin,
    find_pin_in_force,
    models,
    open_release_manager,
    print_decision,
)
from cli.train import failures_as_one_line

if TYPE_CHECKING:
    from registry.pinning import PinDecision
    from registry.releases import ReleaseManager


@models.command()
def release(
    model: Model, version: Version = None, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Put a version live; by default the newest that passed its gate."""
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = release_manager.release(model, version=version, reason=reason)
        pin = find_pin_in_force(release_manager, model)
    print_decision(model, decision, pin=pin, as_json=as_json)


@models.command()
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

    Automatic releases do not go live afterwards, until `unpin` or a manual release.
    """
    with failures_as_one_line():
        from registry.pinning import unpin as end_pin

        release_manager = open_release_manager()
        decision = release_manager.roll_back(model, version=version, reason=reason)
        if not pin:
            end_pin(release_manager, model, reason=f"rolled back without a pin: {reason}")
        in_force = find_pin_in_force(release_manager, model)
    print_decision(model, decision, pin=in_force, as_json=as_json)


@models.command()
def canary(
    model: Model,
    version: Version = None,
    percent: Annotated[
        float | None, typer.Option(help="Share of callers; above 0, at most 100.", max=100)
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


@models.command()
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


@models.command("pin")
def pin_model(
    model: Model,
    version: Annotated[str, typer.Argument(help="The version to keep live.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="When the pin expires: a date or RFC 3339 time, UTC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep VERSION live: automatic releases are published, but do not go live."""
    if not reason.strip():
        raise typer.BadParameter("--reason must not be empty")
    ends = None if until is None else _parse_end(until)
    with failures_as_one_line():
        from registry.pinning import pin

        release_manager = open_release_manager()
        decision = pin(release_manager, model, version=version, until=ends, reason=reason)
        _print_pin(release_manager, model, decision, as_json=as_json)


@models.command("unpin")
def unpin_model(model: Model, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let automatic releases go live again, after a pin or a rollback."""
    with failures_as_one_line():
        from registry.pinning import unpin

        release_manager = open_release_manager()
        decision = unpin(release_manager, model, reason=reason)
        _print_pin(release_manager, model, decision, as_json=as_json)


def _print_pin(
    release_manager: "ReleaseManager", model: str, decision: "PinDecision", *, as_json: bool
) -> None:
    in_force = find_pin_in_force(release_manager, model)
    if as_json:
        record = decision.record.model_dump(mode="json") if decision.record else None
        document = {"model": model, "written": record is not None, "record": record}
        typer.echo(json.dumps(document | {"pinned": in_force is not None}))
        return
    if decision.release is not None:
        print_decision(model, decision.release, pin=None, as_json=False)
    if in_force is not None:
        typer.echo(f"{model}: {describe_pin(model, in_force)}")
    else:
        already = "" if decision.record else " already"
        typer.echo(f"{model}: not pinned{already}; automatic releases go live")


def _parse_end(text: str) -> datetime:
    """Parse the end of a pin; a date means midnight UTC at its start.

    Raises:
        BadParameter: the text is neither a date nor a time, or is in the past.
    """
    try:
        ends = datetime.fromisoformat(text)
        ends = ends.replace(tzinfo=UTC) if ends.tzinfo is None else ends.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter("--until must be a date such as 2026-12-31") from None
    if ends <= datetime.now(UTC):
        raise typer.BadParameter("--until must not be in the past")
    return ends
