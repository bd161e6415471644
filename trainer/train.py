"""One training, from the data in the bucket to a signed version in the model store."""

import io
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal

import joblib
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from services.common.model_records import (
    Manifest,
    Signature,
    VersionNotFound,
    VersionRefused,
    WarmUp,
    new_version_name,
)
from services.common.model_store import ModelStore, TrustedKeys
from trainer.columns import Problem, encode, state_problem, to_json
from trainer.data import DatasetFile, read_dataset
from trainer.errors import DataError, ExportError
from trainer.export import OnnxModel
from trainer.gate import Verdict, judge
from trainer.kinds import Mask, Metric, Outputs, Task
from trainer.releases import Promoter
from trainer.report import render_report
from trainer.scoring import choose_metric, know_nothing, row_losses, scores
from trainer.search import Chosen, Report, choose
from trainer.settings import TrainerSettings
from trainer.split import hold_out

WARM_UP_ROWS = 5
ROWS_WORTH_THREADS = 100_000
PACKAGES = ("joblib", "numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        gate: None if nothing was done, because a run under the same key had made `version`.
        reasons: why the gate failed, in sentences.
        metrics: as in the manifest.
        release: number of the record that has the version live; None if it was not to be.
    """

    model: str
    version: str
    gate: Literal["passed", "failed"] | None
    reasons: list[str]
    metrics: dict[str, Any]
    release: int | None


@dataclass(frozen=True)
class Live:
    """The live version on the rows held out: what it says of them, or why it cannot be asked."""

    version: str
    outputs: Outputs | None = None
    note: str | None = None


def train(
    settings: TrainerSettings,
    model: str,
    *,
    target: str | None = None,
    release: bool = False,
    once: str | None = None,
    reason: str = "",
    report: Report = lambda doing, share: None,
) -> Outcome:
    """Train, judge, sign and publish a version; release it, if asked to and if it passed.

    Args:
        model: a folder of the data store, and the model's name.
        target: the column to predict; None for what `dataset.json` or the last version says.
        once: a key; if a run under it has finished, nothing is done.
        reason: why it is released, for the record.

    Raises:
        DataError: the data cannot be trained on; nothing was published.
        TrainerError: no candidate can be served as ONNX; nothing was published.
        StoreError: the store or a key cannot be used, or somebody else released another version.
    """
    store = ModelStore(settings.model_store_url)
    if once is not None and (done := store.find_done(model, once)):
        return Outcome(model, done, gate=None, reasons=[], metrics={}, release=None)

    report("reading the data", 0.0)
    dataset = read_dataset(settings.data_store_url, model)
    key, trusted = settings.load_signing_key(), settings.load_trusted_keys()
    last = _last_signature(store, model, trusted)
    named, task = _choose_target(asked=target, stated=dataset.stated, last=last)
    problem = state_problem(dataset.table, target=named, task=task)
    metric = choose_metric(problem.signature, dataset.stated.metric)

    held_out = hold_out(problem, seed=settings.seed)
    threads = _count_threads(len(problem.truth))
    with threadpool_limits(threads):
        chosen = choose(
            problem, held_out, metric=metric, seed=settings.seed, threads=threads, report=report
        )
    report("judging", 0.9)
    live = _ask_live(store, model, trusted, problem, held_out)
    verdict, metrics = _judge(problem, held_out, chosen, live, metric)

    report("publishing", 0.95)
    now = datetime.now(UTC)
    manifest = Manifest(
        model=model,
        version=new_version_name(now),
        gate=verdict.gate,
        signature=problem.signature,
        metrics=metrics,
        data=dataset.objects,
        warm_up=_warm_up(problem, held_out, chosen.model),
        environment=_environment(settings),
        files={},
        created_at=now,
    )
    pickled = io.BytesIO()
    joblib.dump(chosen.pipeline, pickled)
    files = {
        "model.onnx": chosen.onnx,
        "model.joblib": pickled.getvalue(),
        "report.html": render_report(manifest).encode(),
    }
    store.publish(manifest, files, key)

    number = None
    if release and verdict.gate == "passed":
        promoter = Promoter(store=store, trusted=trusted, by=settings.actor)
        number = promoter.release(model, version=manifest.version, reason=reason).live.number
    if once is not None:
        # Last: a run that died before is done again, and a second version does no harm.
        store.mark_done(model, once, manifest.version)
    report("done", 1.0)
    return Outcome(model, manifest.version, verdict.gate, verdict.reasons, metrics, release=number)


def _last_signature(store: ModelStore, model: str, trusted: TrustedKeys) -> Signature | None:
    for version in reversed(store.list_versions(model)):
        try:
            return store.open_version(model, version, trusted).signature
        except (VersionNotFound, VersionRefused):
            continue
    return None


def _choose_target(
    *, asked: str | None, stated: DatasetFile, last: Signature | None
) -> tuple[str, Task | None]:
    """The target, and its task where that is known from `dataset.json` or the last version."""
    target = asked or stated.target or (last.target if last else None)
    if target is None:
        raise DataError("No target is named: use --target, or say it in dataset.json.")
    if stated.task and stated.target in (None, target):
        return target, stated.task
    return target, last.task if last and last.target == target else None


def _count_threads(rows: int) -> int:
    """One for little data: threads that wait for each other on a busy machine take the longest."""
    return (os.cpu_count() or 1) if rows > ROWS_WORTH_THREADS else 1


def _ask_live(
    store: ModelStore, model: str, trusted: TrustedKeys, problem: Problem, held_out: Mask
) -> Live | None:
    """The live version's answers, its probabilities in the order of the problem's classes.

    It is asked in its own signature's terms; a column that the data no longer has is missing.
    """
    release = store.live_release(model, trusted)
    if release is None:
        return None
    try:
        manifest = store.open_release(model, release, trusted)
        signature = manifest.signature
        if (signature.task, signature.target) != (problem.signature.task, problem.signature.target):
            return Live(release.version, note="It predicts something else.")
        served = OnnxModel(store.read_file(manifest, "model.onnx"), signature)
        outputs = served.answer(encode(problem.table[held_out], signature.columns)).outputs
    except (VersionRefused, ExportError) as error:
        return Live(release.version, note=str(error))
    if signature.classes is None or problem.signature.classes is None:
        return Live(release.version, outputs)
    aligned = np.zeros((len(outputs), len(problem.signature.classes)))
    for position, label in enumerate(problem.signature.classes):
        if label in signature.classes:
            aligned[:, position] = outputs[:, signature.classes.index(label)]
    return Live(release.version, aligned)


def _judge(
    problem: Problem, held_out: Mask, chosen: Chosen, live: Live | None, metric: Metric
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict, and the metrics for the manifest; all on the rows held out."""
    signature, truth = problem.signature, problem.truth[held_out]
    features = encode(problem.table[held_out], signature.columns)
    outputs = chosen.model.answer(features).outputs
    dummy = know_nothing(signature, metric, problem.truth[~held_out], rows=len(truth))
    said = live.outputs if live else None
    verdict = judge(
        metric=metric,
        candidate=row_losses(metric, truth, outputs),
        dummy=row_losses(metric, truth, dummy),
        live=None if said is None else row_losses(metric, truth, said),
    )
    metrics: dict[str, Any] = {
        "metric": metric,
        "chosen": chosen.name,
        "candidate": scores(signature, truth, outputs),
        "dummy": scores(signature, truth, dummy),
        "live": None,
        "candidates": {name: asdict(tried) for name, tried in chosen.tried.items()},
        "rows": {"training": int((~held_out).sum()), "held_out": int(held_out.sum())},
        "margins": {"dummy": verdict.dummy_margin, "live": verdict.live_margin},
        "reasons": verdict.reasons,
    }
    if live is not None:
        measured = {} if said is None else scores(signature, truth, said)
        metrics["live"] = {"version": live.version, "note": live.note, **measured}
    return verdict, metrics


def _warm_up(problem: Problem, held_out: Mask, model: OnnxModel) -> WarmUp:
    signature = problem.signature
    rows = problem.table[held_out].iloc[:WARM_UP_ROWS]
    answers = model.answer(encode(rows, signature.columns))
    return WarmUp(
        rows=to_json(rows, signature.columns),
        predictions=answers.predictions(signature.classes),
        probabilities=None if signature.classes is None else answers.outputs.tolist(),
    )


def _environment(settings: TrainerSettings) -> dict[str, str]:
    environment = {"python": platform.python_version()}
    environment |= {package: metadata.version(package) for package in PACKAGES}
    environment["seed"] = str(settings.seed)
    if settings.commit:
        environment["commit"] = settings.commit
    return environment
