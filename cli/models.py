"""`tollgate models`: what is in the model store, and what of it is live."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.train import failures_as_one_line, progress

if TYPE_CHECKING:
    from services.common.model_releases import Decision, Promoter
    from services.common.model_store import ModelStore, Release, TrustedKeys

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
        store, trusted = open_store(read_only=True)
        names = [model] if model else store.list_models()
        rows = [row for name in names for row in _rows(store, trusted, name)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("No model has been published yet: tollgate train MODEL --release")
    for row in rows:
        mark = row["role"] or ""
        typer.echo(f"{row['model']:<24} {row['version']}  {row['gate']:<18} {mark}".rstrip())


@models.command()
def show(model: Model, version: Version = None, as_json: AsJson = False) -> None:
    """The manifest of a version: by default the live one, else the newest."""
    with failures_as_one_line():
        from services.common.model_store import VersionNotFound

        store, trusted = open_store(read_only=True)
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
        for line in _beside(live):
            typer.echo(line)
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
def canary(
    model: Model,
    version: Version = None,
    percent: Annotated[
        float | None, typer.Option(help="Of the callers; above 0, at most 100.", max=100)
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the canary.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Have a version answer some of the callers; it is rolled back if it does worse.

    Releasing that version puts it live for all, and ends the canary.
    """
    if off == (version is not None) or off == (percent is not None):
        raise typer.BadParameter("say which version, --to, and how much, --percent; or else --off")
    if percent is not None and not percent > 0:
        raise typer.BadParameter("--percent is above 0; --off ends the canary")
    with failures_as_one_line():
        decision = _promoter().canary(model, version=version, percent=percent or 0.0, reason=reason)
    _tell(model, decision, as_json=as_json)


@models.command()
def shadow(
    model: Model,
    version: Version = None,
    off: Annotated[bool, typer.Option("--off", help="End the shadow.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Have a version computed as well, unseen and unbilled, and count where it disagrees."""
    if off == (version is not None):
        raise typer.BadParameter("say which version, --to; or else --off")
    with failures_as_one_line():
        decision = _promoter().shadow(model, version=version, reason=reason)
    _tell(model, decision, as_json=as_json)


@models.command()
def feedback(model: Model, as_json: AsJson = False) -> None:
    """Export rows whose true outcome callers told to the model's folder of the data store.

    Each is exported once. As with any data that lands there, a training may follow.
    """
    with failures_as_one_line():
        from services.common.feedback_store import FeedbackStore
        from trainer.settings import TrainerSettings

        settings = TrainerSettings.load()
        store = FeedbackStore(settings.feedback_store_url)
        written = store.export(model, settings.data_store_url)
    if as_json:
        typer.echo(json.dumps({"model": model, "files": written}))
    else:
        typer.echo("\n".join(written) or f"{model}: no labelled rows that were not exported yet")


@models.command()
def verify(as_json: AsJson = False) -> None:
    """Check every version, file and release of the store; exit code 1 names what does not hold."""
    from services.common.model_verify import verify_store

    with failures_as_one_line(), progress() as report:
        store, trusted = open_store(read_only=True)
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


def open_store(*, read_only: bool) -> tuple["ModelStore", "TrustedKeys"]:
    from services.common.model_store import ModelStore
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.load()
    store = ModelStore(settings.model_store_url, read_only=read_only)
    return store, settings.load_trusted_keys()


def _promoter() -> "Promoter":
    from services.common.model_releases import Promoter
    from trainer.settings import TrainerSettings

    store, trusted = open_store(read_only=False)
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
        role = _role(live, version)
        told = {"gate": gate, "live": role == "live", "role": role}
        rows.append({"model": model, "version": version, **told})
    return rows


def _role(live: "Release | None", version: str) -> str | None:
    """What a version is to the callers who name none."""
    if live is None:
        return None
    if live.version == version:
        return "live"
    if live.canary and live.canary.version == version:
        return "canary"
    return "shadow" if live.shadow and live.shadow.version == version else None


def _tell(model: str, decision: "Decision", *, as_json: bool) -> None:
    live = decision.live
    if as_json:
        told = {"written": decision.written, "live": live.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **told}))
        return
    already = "" if decision.written else " already"
    typer.echo(f"{model}: version {live.version} is live{already}, release {live.number}")
    for line in _beside(live):
        typer.echo(line)


def _beside(live: "Release") -> Iterator[str]:
    """What is tried beside the live version, a line each."""
    if live.canary:
        yield f"canary: version {live.canary.version} for {live.canary.percent:g} % of the callers"
    if live.shadow:
        yield f"shadow: version {live.shadow.version}"
