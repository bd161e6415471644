"""`tollgate models`: what is in the model store, and what of it is live."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.train import failures_as_one_line, progress

if TYPE_CHECKING:
    from services.common.model_store import ModelStore, TrustedKeys
    from trainer.releases import Decision, Promoter

models = typer.Typer(help="Look at the versions of models, and decide which is live.")

Model = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Which version.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(help="One model; default: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """All models and versions: gate, time, and which one is live."""
    with failures_as_one_line():
        store, trusted = _open_store(read_only=True)
        names = [model] if model else store.list_models()
        rows = [row for name in names for row in _rows(store, trusted, name)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("No model has been published yet: tollgate train MODEL --release")
    for row in rows:
        mark = "live" if row["live"] else ""
        typer.echo(f"{row['model']:<24} {row['version']}  {row['gate']:<18} {mark}".rstrip())


@models.command()
def show(model: Model, version: Version = None, as_json: AsJson = False) -> None:
    """The manifest of a version: by default the live one, else the newest."""
    with failures_as_one_line():
        from services.common.model_store import VersionNotFound

        store, trusted = _open_store(read_only=True)
        live = store.live_release(model, trusted)
        known = [live.version] if live else store.list_versions(model)[-1:]
        if version is None and not known:
            raise VersionNotFound(f"There is no version of {model}.")
        manifest = store.open_version(model, version or known[0], trusted)
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
        return
    signature = manifest.signature
    if live and live.version == manifest.version:
        typer.echo(f"{manifest.model} {manifest.version}: gate {manifest.gate}, live")
        why = f": {live.reason}" if live.reason else ""
        typer.echo(f"{live.action} {live.number} by {live.by}, {live.time:%Y-%m-%d %H:%M:%SZ}{why}")
    else:
        typer.echo(f"{manifest.model} {manifest.version}: gate {manifest.gate}")
    typer.echo(f"{signature.task} of {signature.target}")
    if signature.classes is not None:
        typer.echo(f"classes: {', '.join(map(str, signature.classes))}")
    for column in signature.columns:
        typer.echo(f"column: {column.name} ({column.kind})")
    for metric, value in manifest.metrics.get("candidate", {}).items():
        typer.echo(f"{metric}: {value:.4g}")


@models.command()
def release(
    model: Model, version: Version = None, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Put a version live; by default the newest that passed its gate."""
    with failures_as_one_line():
        _tell(model, _promoter().release(model, version=version, reason=reason), as_json=as_json)


@models.command()
def rollback(
    model: Model, version: Version = None, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Go back; by default to the newest earlier live version that no rollback has left."""
    with failures_as_one_line():
        _tell(model, _promoter().roll_back(model, version=version, reason=reason), as_json=as_json)


@models.command()
def verify(as_json: AsJson = False) -> None:
    """Check every version, file and release of the store; exit code 1 names what does not hold."""
    from services.common.model_verify import verify_store

    with failures_as_one_line(), progress() as report:
        store, trusted = _open_store(read_only=True)
        found = verify_store(store, trusted, report=report)
    if as_json:
        typer.echo(json.dumps({"checked": found.checked, "failures": found.failures}))
    else:
        told = f"{len(found.failures)} things are wrong" if found.failures else "all of them hold"
        typer.echo(f"{found.checked} versions and releases checked, {told}")
        for failure in found.failures:
            typer.echo(f"error: {failure}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _open_store(*, read_only: bool) -> tuple["ModelStore", "TrustedKeys"]:
    from services.common.model_store import ModelStore
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.load()
    store = ModelStore(settings.model_store_url, read_only=read_only)
    return store, settings.load_trusted_keys()


def _promoter() -> "Promoter":
    from trainer.releases import Promoter
    from trainer.settings import TrainerSettings

    store, trusted = _open_store(read_only=False)
    return Promoter(store=store, trusted=trusted, by=TrainerSettings.load().actor)


def _rows(store: "ModelStore", trusted: "TrustedKeys", model: str) -> list[dict[str, Any]]:
    """A line for every version, oldest first; the gate of one that does not hold is the reason."""
    from services.common.model_store import VersionNotFound, VersionRefused

    live = store.live_release(model, trusted)
    rows = []
    for version in store.list_versions(model):
        try:
            gate: str = store.open_version(model, version, trusted).gate
        except VersionNotFound:
            continue
        except VersionRefused as error:
            gate = f"refused: {error.reason}"
        is_live = live is not None and live.version == version
        rows.append({"model": model, "version": version, "gate": gate, "live": is_live})
    return rows


def _tell(model: str, decision: "Decision", *, as_json: bool) -> None:
    live = decision.live
    if as_json:
        told = {"written": decision.written, "live": live.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **told}))
    elif decision.written:
        typer.echo(f"{model}: version {live.version} is live, release {live.number}")
    else:
        typer.echo(f"{model}: version {live.version} is live already, release {live.number}")
