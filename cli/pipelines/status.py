"""`tollgate pipelines`: follow each drop of data from the bucket to a served release."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.models.decisions import describe_pin, find_pin_in_force
from cli.options import AsJson, HelmRelease, Model, Namespace, Urls
from cli.output import print_json, printable, warn
from cli.pipelines.progress import (
    DropRecords,
    Known,
    Progress,
    Step,
    find_later_drops,
    judge_drop,
    judge_run,
)
from cli.pipelines.records import find_newest_data, is_trained_on, read_records
from cli.serving.cluster import ClusterError, run_check
from cli.serving.processes import Served, ask_urls
from cli.settings import LocalSettings
from cli.stores import failures_as_one_line, load_settings, open_release_manager
from registry.keys import TrustedKeys
from registry.records import (
    Manifest,
    Release,
    RunRecord,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
)
from registry.store import ModelStore

SHOWN = 10


def status(
    model: Model,
    urls: Urls = None,
    helm_release: HelmRelease = None,
    namespace: Namespace = "default",
    limit: Annotated[int, typer.Option(help="Number of newest drops to show.", min=1)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show how far each drop of data has come, and what it waits for.

    Its stages are: seen, dispatched, trained, gated, released, served.
    """
    with failures_as_one_line():
        settings, local = load_settings(), LocalSettings.load()
        release_manager = open_release_manager()
        store = release_manager.store
        releases = _releases(store, model)
        number = max(releases, default=0)
        pin = find_pin_in_force(release_manager, model)
        versions = _newest_versions(store, model, release_manager.trusted, limit)
        known = Known(
            model=model,
            now=datetime.now(UTC),
            runs=_runs(store, model, versions),
            releases=releases,
            served=_ask(model, number, urls, helm_release, namespace),
            report_link=f"{settings.model_store_url}/{model}/versions/{{version}}/report.html",
            runs_link=_runs_link(local.pipeline_repository),
            is_pinned=pin is not None,
        )
        found = _drops(settings.data_store_url, local.pipeline_records, model, known, versions)
    newest = found[:limit]
    if as_json:
        document = {"model": model, "pin": pin.describe() if pin else None}
        drops = [asdict(each) for each in newest]
        print_json({**document, "drops": drops})
        return
    if not newest:
        typer.echo(f"{model}: no data has arrived yet")
    for progress in newest:
        for line in _describe(progress):
            typer.echo(printable(line))
    if pin is not None:
        typer.echo(f"{model}: {describe_pin(model, pin)}")


def _describe(progress: Progress) -> Iterator[str]:
    yield progress.drop
    for step in progress.steps:
        yield _describe_step(step)
    if progress.waits is not None:
        yield f"  {'stopped' if progress.is_stopped else 'waits':<11} {progress.waits}"


def _describe_step(step: Step) -> str:
    when = f"{step.time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if step.time else "–"
    parts = [f"{step.stage:<11} {when:<20}", step.detail, step.link or ""]
    return f"  {'  '.join(part for part in parts if part)}".rstrip()


def _drops(
    data_url: str, records_url: str, model: str, known: Known, versions: Sequence[Manifest]
) -> list[Progress]:
    """Return a model's drops, and its training runs with other keys, newest first."""
    drops = read_records(records_url, model) if records_url else {}
    for newest in find_newest_data(data_url, model):
        if not _is_dealt_with(newest, drops, known, versions):
            drops[newest.drop] = newest
    judged = [(each.seen, judge_drop(each, known)) for each in find_later_drops(drops.values())]
    judged += [
        (run.time, judge_run(run, known, drop=key))
        for key, run in known.runs.items()
        if key not in drops
    ]
    earliest = datetime.min.replace(tzinfo=UTC)
    judged.sort(key=lambda pair: pair[0] or earliest, reverse=True)
    return [progress for _, progress in judged]


def _is_dealt_with(
    newest: DropRecords,
    drops: dict[str, DropRecords],
    known: Known,
    versions: Sequence[Manifest],
) -> bool:
    """Return whether the newest data was dispatched as part of a drop, or trained on manually."""
    if newest.drop in drops or newest.drop in known.runs:
        return True
    dispatched = (each.dispatched for each in drops.values())
    if any(time and newest.seen and time >= newest.seen for time in dispatched):
        return True
    return is_trained_on(newest, versions)


def _releases(store: ModelStore, model: str) -> dict[int, Release | Withdrawal]:
    """Return the readable release records by number."""
    found = {}
    for number in store.list_releases(model):
        try:
            record = store.find_record(model, number)
        except VersionRefused:
            continue
        if record is not None:
            found[number] = record
    return found


def _newest_versions(
    store: ModelStore, model: str, trusted: TrustedKeys, limit: int
) -> list[Manifest]:
    """Return the newest versions that verify."""
    found = []
    for version in store.list_versions(model)[-limit:]:
        try:
            found.append(store.open_version(model, version, trusted))
        except (VersionNotFound, VersionRefused):
            continue
    return found


def _runs(store: ModelStore, model: str, versions: Sequence[Manifest]) -> dict[str, RunRecord]:
    """Return the training runs by idempotency key; old records only have the key's digest.

    A manual training without a key left no record but its version.
    """
    found = {}
    for digest in store.list_runs(model):
        try:
            run = store.read_run(model, digest)
        except VersionRefused:
            continue
        if run is not None:
            found[run.key or f"key {digest[:12]}"] = run
    recorded = {run.version for run in found.values()}
    for manifest in versions:
        if manifest.version not in recorded:
            run = RunRecord(version=manifest.version, time=manifest.created_at, gate=manifest.gate)
            found[f"version {manifest.version}"] = run
    return found


def _ask(
    model: str, number: int, urls: list[str] | None, helm_release: str | None, namespace: str
) -> Served | None:
    """Return the served release of each process; None if no process was requested."""
    if urls:
        return ask_urls(model, urls)
    if not helm_release:
        return None
    arguments = ["models", "wait", model, "--release", str(max(number, 1)), "--json"]
    arguments += ["--resolve", "$(TOLLGATE_INFERENCE_PODS)", "--within", "0"]
    try:
        document: dict[str, Any] = run_check(
            arguments, helm_release=helm_release, namespace=namespace, within_s=0
        )
    except ClusterError as error:
        warn(str(error))
        return {}
    served = document.get("served")
    return served if isinstance(served, dict) else {}


def _runs_link(repository: str) -> str | None:
    if not repository:
        return None
    return f"https://github.com/{repository}/actions/workflows/train.yml"
