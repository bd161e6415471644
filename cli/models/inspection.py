"""`tollgate models list`, `show` and `verify`: inspect the model store."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.models.decisions import describe_pin, describe_trials
from cli.options import AsJson, Model, Version
from cli.output import counted, print_error, print_json, print_table, printable, progress
from cli.stores import failures_as_one_line, load_settings, open_store
from registry.deprecations import find_deprecations
from registry.keys import TrustedKeys
from registry.pins import find_pin
from registry.records import Release, VersionNotFound, VersionRefused, Withdrawal
from registry.store import ModelStore
from registry.verify import verify_store


def list_models(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="One model; default: all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all versions with the outcome of their gate, and mark the live ones."""
    with failures_as_one_line():
        store, trusted = open_store(read_only=True)
        pickles = load_settings().allow_joblib
        names = [model] if model else store.list_models()
        rows = [row for name in names for row in _rows(store, trusted, name, allow_joblib=pickles)]
        states = [
            line
            for name in names
            for line in _describe_state(store, trusted, name, allow_joblib=pickles)
        ]
    if as_json:
        print_json(rows)
        return
    if not rows and model:
        typer.echo(f"Model '{printable(model)}' has no versions.")
    elif not rows:
        typer.echo("No models yet; publish one with: tollgate train MODEL --release")
    print_table([_describe_row(row) for row in rows])
    for line in states:
        typer.echo(line)


def show(model: Model, version: Version = None, as_json: AsJson = False) -> None:
    """Show a version's manifest; the default is the live version, else the newest."""
    with failures_as_one_line():
        store, trusted = open_store(read_only=True)
        live = store.live_release(model, trusted, allow_joblib=load_settings().allow_joblib)
        known = [live.version] if live else store.list_versions(model)[-1:]
        if version is None and not known:
            raise VersionNotFound(f"Model '{model}' has no versions.")
        manifest = store.open_version(model, version or known[0], trusted)
        deprecation = find_deprecations(store, model).get(manifest.version)
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
        return
    signature = manifest.signature
    if live and live.version == manifest.version:
        typer.echo(f"{manifest.model} {manifest.version}: gate {manifest.gate}, live")
        why = f": {live.reason}" if live.reason else ""
        typer.echo(f"{live.action} {live.number} by {live.by}, {live.time:%Y-%m-%d %H:%M:%SZ}{why}")
        for line in describe_trials(live):
            typer.echo(line)
    else:
        typer.echo(f"{manifest.model} {manifest.version}: gate {manifest.gate}")
    if deprecation is not None:
        typer.echo(printable(deprecation.describe()))
    typer.echo(f"{signature.task} of {signature.target}")
    if signature.classes is not None:
        typer.echo(f"classes: {', '.join(map(str, signature.classes))}")
    for column in signature.columns:
        typer.echo(f"column: {column.name} ({column.kind})")
    for metric, value in manifest.metrics.get("candidate", {}).items():
        typer.echo(f"{metric}: {value:.4g}")


def verify(as_json: AsJson = False) -> None:
    """Verify every version, file and record of the store; exit with 1 if a check fails."""
    with failures_as_one_line(), progress() as report:
        store, trusted = open_store(read_only=True)
        found = verify_store(store, trusted, report=report)
    if as_json:
        print_json({"checked": found.checked, "failures": found.failures})
    else:
        failed = f"{counted(len(found.failures), 'check')} failed"
        result = failed if found.failures else "all checks passed"
        typer.echo(f"versions and releases checked: {found.checked}, {result}")
        for failure in found.failures:
            print_error(failure)
    if found.failures:
        raise typer.Exit(1)


def _rows(
    store: ModelStore, trusted: TrustedKeys, model: str, *, allow_joblib: bool
) -> list[dict[str, Any]]:
    """Return a row per version, oldest first; the gate of a refused version is the reason."""
    live = store.live_release(model, trusted, allow_joblib=allow_joblib)
    pin = find_pin(store, model, trusted)
    deprecations = find_deprecations(store, model)
    rows = []
    for version in store.list_versions(model):
        refused = None
        try:
            manifest = store.open_version(model, version, trusted)
            gate: str = manifest.gate
            if manifest.serving == "joblib" and not allow_joblib:
                refused = "joblib not allowed"
        except VersionNotFound:
            continue
        except VersionRefused as error:
            gate = f"refused: {error.reason}"
        role = _role(live, version)
        pinned = pin is not None and pin.version == version
        row = {"model": model, "version": version, "gate": gate, "live": role == "live"}
        row |= {"role": role, "refused_by_inference": refused, "pinned": pinned}
        deprecation = deprecations.get(version)
        row["sunset"] = deprecation.sunset.isoformat() if deprecation else None
        rows.append(row)
    return rows


def _describe_row(row: dict[str, Any]) -> list[str]:
    marks = [row["role"], "pinned" if row["pinned"] else None]
    if row["sunset"]:
        marks.append(f"deprecated, sunset {row['sunset'][:10]}")
    if row["refused_by_inference"]:
        marks.append(f"refused by inference: {row['refused_by_inference']}")
    shown = ", ".join(mark for mark in marks if mark)
    return [row["model"], row["version"], row["gate"], shown]


def _describe_state(
    store: ModelStore, trusted: TrustedKeys, model: str, *, allow_joblib: bool
) -> Iterator[str]:
    """Describe a model's withdrawal and pin, which its rows do not show."""
    record = store.live_record(model, trusted, allow_joblib=allow_joblib)
    if isinstance(record, Withdrawal):
        why = f": {record.reason}" if record.reason else ""
        yield f"{model}: no version is live; withdrawn by {record.by}{why}"
    pin = find_pin(store, model, trusted)
    if pin is not None:
        yield f"{model}: {describe_pin(model, pin)}"


def _role(live: Release | None, version: str) -> str | None:
    """Return a version's role for requests that do not name a version."""
    if live is None:
        return None
    if live.version == version:
        return "live"
    if live.canary and live.canary.version == version:
        return "canary"
    return "shadow" if live.shadow and live.shadow.version == version else None
