"""The `tollgate models` group and the helpers that its commands share."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cli.train import failures_as_one_line

if TYPE_CHECKING:
    from registry.keys import TrustedKeys
    from registry.pins import Pin
    from registry.releases import Decision, ReleaseManager
    from registry.store import ModelStore, ReleaseRecord
    from trainer.settings import TrainerSettings

models = typer.Typer(help="Inspect model versions, and decide which is live.")

Model = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str | None, typer.Option("--to", metavar="VERSION", help="The version.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HelmRelease = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Query from inside the cluster, with a Job of this Helm release."
    ),
]
Namespace = Annotated[str, typer.Option(help="Namespace of the pods.")]
Withdraw = Annotated[bool, typer.Option("--withdraw", help="Roll the release back if it is bad.")]


def load_settings() -> "TrainerSettings":
    from trainer.settings import TrainerSettings

    return TrainerSettings.load()


def open_store(*, read_only: bool) -> tuple["ModelStore", "TrustedKeys"]:
    """Open the configured model store, and load the trusted keys."""
    from registry.store import ModelStore

    settings = load_settings()
    store = ModelStore(settings.model_store_url, read_only=read_only)
    return store, settings.load_trusted_keys()


def open_release_manager() -> "ReleaseManager":
    """Return the writer of release records, with the configured actor as author."""
    from registry.releases import ReleaseManager

    settings = load_settings()
    store, trusted = open_store(read_only=False)
    return ReleaseManager(store, trusted, settings.actor, allow_joblib=settings.allow_joblib)


def find_pin_in_force(release_manager: "ReleaseManager", model: str) -> "Pin | None":
    """Return the pin that blocks automatic releases of a model."""
    from registry.pins import find_pin

    return find_pin(release_manager.store, model, release_manager.trusted)


def print_decision(model: str, decision: "Decision", *, pin: "Pin | None", as_json: bool) -> None:
    """Print what is live after a command, and the pin that blocks automatic releases."""
    record = decision.live
    if as_json:
        document = {"written": decision.written, "live": record.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **document, "pinned": pin is not None}))
        return
    already = "" if decision.written else " already"
    what = f"version {record.version} is live" if record.version else "no version is live"
    typer.echo(f"{model}: {what}{already}, release {record.number}")
    for line in describe_trials(record):
        typer.echo(line)
    if pin is not None:
        typer.echo(describe_pin(model, pin))


def describe_pin(model: str, pin: "Pin") -> str:
    """Describe a pin and how to end it."""
    return (
        f"{pin.describe()}; automatic releases do not go live until: tollgate models unpin {model}"
    )


def describe_trials(record: "ReleaseRecord") -> Iterator[str]:
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
