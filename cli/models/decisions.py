"""What commands that decide which version is live have in common: pins, and what they print."""

from collections.abc import Iterator

import typer

from cli.output import print_json
from cli.stores import failures_as_one_line, open_release_manager
from registry.pins import Pin, find_pin
from registry.releases import Decision, ReleaseManager
from registry.store import ReleaseRecord


def find_pin_in_force(release_manager: ReleaseManager, model: str) -> Pin | None:
    """Return the pin that blocks automatic releases of a model."""
    return find_pin(release_manager.store, model, release_manager.trusted)


def print_decision(model: str, decision: Decision, *, pin: Pin | None, as_json: bool) -> None:
    """Print what is live after a command, and the pin that blocks automatic releases."""
    record = decision.live
    if as_json:
        document = {"written": decision.written, "live": record.model_dump(mode="json")}
        print_json({"model": model, **document, "pinned": pin is not None})
        return
    already = "" if decision.written else " already"
    what = f"version {record.version} is live" if record.version else "no version is live"
    typer.echo(f"{model}: {what}{already}, release {record.number}")
    for line in describe_trials(record):
        typer.echo(line)
    if pin is not None:
        typer.echo(describe_pin(model, pin))


def describe_pin(model: str, pin: Pin) -> str:
    """Describe a pin and how to end it."""
    return (
        f"{pin.describe()}; no version is released automatically until: "
        f"tollgate models unpin {model}"
    )


def describe_trials(record: ReleaseRecord) -> Iterator[str]:
    """Describe a record's canary and shadow, a line each."""
    if record.canary:
        share = f"{record.canary.percent:g} % of callers"
        yield f"canary: version {record.canary.version} for {share}"
    if record.shadow:
        yield f"shadow: version {record.shadow.version}"


def withdraw_bad(model: str, release: int, reason: str) -> bool:
    """Roll a bad release back; return whether a record was written."""
    with failures_as_one_line():
        decision = open_release_manager().roll_back(model, expected_release=release, reason=reason)
    if decision.written:
        live = decision.live.version or "no version"
        typer.echo(f"{model}: release {release} was withdrawn; {live} is live", err=True)
    return decision.written
