"""One training run, in four stages: prepare → search → evaluate → publish.

Each stage takes what the stages before it returned, and returns a frozen dataclass.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.keys import TrustedKeys
from registry.records import Manifest, RunRecord
from registry.releases import ReleaseManager
from registry.store import ModelStore
from trainer.data.load import LoadedData, load_data
from trainer.data.split import hash_rows, hold_out
from trainer.evaluation.compatibility import accept_changes, name_some
from trainer.evaluation.evaluate import Evaluation, evaluate_model
from trainer.evaluation.live import find_predecessor, predict_with_live
from trainer.modelling.candidates import TrainingContext
from trainer.modelling.experiment import Experiment, plan_experiment
from trainer.modelling.metrics import balance, choose_metric
from trainer.modelling.own_pipeline import (
    PipelineFile,
    Timed,
    check_pipeline_path,
    load_pipeline,
)
from trainer.modelling.search import ChosenModel, ProgressCallback, search_models
from trainer.modelling.serving import check_finite, predict_rows
from trainer.outcome import Outcome
from trainer.releasing import Gate, ReleaseOutcome, find_gate_of_run, release_automatically
from trainer.report.notes import (
    describe_categories,
    describe_data,
    describe_origin,
    describe_times,
)
from trainer.report.render import render_report
from trainer.settings import TrainerSettings
from trainer.types import Task
from trainer.version import explain_version, model_files, new_manifest

MIN_ROWS_FOR_THREADS = 25_000  # held out


@dataclass(frozen=True)
class Run:
    """What all stages of one training run share."""

    settings: TrainerSettings
    model: str
    store: ModelStore
    signing_key: Ed25519PrivateKey
    trusted: TrustedKeys
    report_progress: ProgressCallback


@dataclass(frozen=True)
class Prepared:
    """The rows to learn from, and the version to compare with.

    Args:
        before: the live version, else the newest; None for the first.
        changes: what callers would notice, compared with `before`.
        notes: sentences about what was read, dropped and ignored.
    """

    loaded: LoadedData
    experiment: Experiment
    before: Manifest | None
    changes: list[str]
    notes: list[str]


def train(
    settings: TrainerSettings,
    model: str,
    *,
    target: str | None = None,
    release: bool = False,
    idempotency_key: str | None = None,
    reason: str = "",
    force: bool = False,
    allow_signature_change: bool = False,
    pipeline: PipelineFile | None = None,
    timed: Timed = nullcontext,
    report_progress: ProgressCallback = lambda doing, share: None,
) -> Outcome:
    """Train, evaluate, sign and publish a version.

    On request, release it if it passes its gate.

    Args:
        model: the model's name, and its folder in the data store.
        target: the column to predict; None for that of `dataset.json` or the previous version.
        idempotency_key: if a run with this key has finished, return its outcome.
        reason: why it is released or forced, for the record.
        force: pass the gate regardless, for the given `reason`.
        allow_signature_change: whether columns, classes, target and task may differ from the
            previous version.
        pipeline: training code of the owner's, which competes with the built-in candidates.
        timed: wraps the times in which that code runs.

    Raises:
        DataError: the data or `dataset.json` is invalid; nothing was published.
        TrainerError: no candidate can be fitted, or the owner's code failed; nothing was published.
        StoreError: the store or a key is unusable, or another process released a different version.
    """
    store = ModelStore(settings.model_store_url)
    if idempotency_key is not None and (record := store.find_run(model, idempotency_key)):
        return _repeat(store, model, record, settings.load_trusted_keys())

    key, trusted = settings.load_signing_key(), settings.load_trusted_keys()
    run = Run(settings, model, store, key, trusted, report_progress)
    if pipeline is not None:
        check_pipeline_path(pipeline.path, data_store_url=settings.data_store_url)
        pipeline = replace(pipeline, timed=timed)
    prepared = prepare(
        run, target=target, allow_signature_change=allow_signature_change, pipeline=pipeline
    )
    with threadpool_limits(1):  # only the final fit benefits from more, and sets its own
        chosen = search(run, prepared)
        own = prepared.experiment.context.own
        with nullcontext() if own is None else own.running("the estimator cannot be evaluated"):
            evaluation = evaluate(run, prepared, chosen)
    outcome = publish(
        run, prepared, chosen, evaluation, release=release, reason=reason, force=force
    )
    if idempotency_key is not None:
        # Last: a run that dies before this is repeated, and a second version does no harm.
        _record(store, outcome, idempotency_key)
    report_progress("done", 1.0)
    return outcome


def prepare(
    run: Run,
    *,
    target: str | None,
    allow_signature_change: bool,
    pipeline: PipelineFile | None = None,
    task: Task | None = None,
    adapt: Callable[[LoadedData], LoadedData] = lambda loaded: loaded,
) -> Prepared:
    """Read the data, and choose the rows to fit on, to tune on and to hold out.

    Args:
        pipeline: training code of the owner's, to load.
        task: the task if neither `dataset.json` nor the previous version states it.
        adapt: changes the data before it is used, such as the order of its columns.

    Raises:
        DataError: the data or `dataset.json` is invalid, or the signature has changed.
        PipelineError: the owner's code cannot be loaded.
    """
    settings = run.settings
    before = find_predecessor(run.store, run.model, run.trusted, allow_joblib=settings.allow_joblib)
    signature = None if before is None else before.signature
    run.report_progress("reading the data", 0.0)
    loaded = adapt(
        load_data(
            settings.data_store_url,
            run.model,
            target=target,
            before=signature,
            max_bytes=settings.max_data_bytes,
            task=task,
        )
    )
    problem, config = loaded.problem, loaded.dataset.config
    notes = describe_data(loaded)
    changes = accept_changes(before, problem.signature, allowed=allow_signature_change)
    if before is not None and changes:
        notes.append(f"Changed since version {before.version}: {name_some(changes)}.")
    metric = choose_metric(problem.signature, config.metric)

    known = [] if signature is None else [column.name for column in signature.columns]
    hashes = hash_rows(problem, seed=settings.seed, by=known)
    held_out = hold_out(problem, hashes, share=config.held_out)
    notes += describe_times(problem, config.time, held_out, is_text=loaded.has_dates)
    weights = None
    if config.class_weight == "balanced" and problem.signature.classes is not None:
        weights = balance(problem.truth[~held_out], classes=len(problem.signature.classes))
    threads = _count_threads(int(held_out.sum()))
    context = TrainingContext(
        signature=problem.signature,
        seed=settings.seed,
        jobs=threads,
        balanced=weights is not None,
        own=None if pipeline is None else load_pipeline(pipeline, problem.signature),
    )
    experiment = plan_experiment(
        problem,
        hashes,
        held_out,
        metric=metric,
        weights=weights,
        context=context,
        data_bytes=loaded.size,
    )
    return Prepared(loaded, experiment, before, changes, notes)


def search(run: Run, prepared: Prepared) -> ChosenModel:
    """Find and fit the best model that can be served.

    Raises:
        TrainerError: no candidate can be fitted.
    """
    config, experiment = prepared.loaded.dataset.config, prepared.experiment
    return search_models(
        experiment,
        config.families(rows=len(experiment.tuning)),
        serves_pickles=run.settings.allow_joblib,
        report_progress=run.report_progress,
    )


def evaluate(run: Run, prepared: Prepared, chosen: ChosenModel) -> Evaluation:
    """Measure the model and the live version on the held-out rows, and judge them.

    Raises:
        TrainerError: the model's output is not finite.
    """
    run.report_progress("evaluating", 0.85)
    problem, before = prepared.loaded.problem, prepared.before
    allow_joblib = run.settings.allow_joblib
    rows = np.flatnonzero(prepared.experiment.held_out)
    outputs = predict_rows(chosen.runtime, problem.table, problem.signature, rows)
    check_finite(outputs)
    live = None
    if before and run.store.live_release(run.model, run.trusted, allow_joblib=allow_joblib):
        live = predict_with_live(run.store, before, problem, rows, allow_joblib=allow_joblib)
    return evaluate_model(prepared.experiment, chosen, outputs, live)


def publish(
    run: Run,
    prepared: Prepared,
    chosen: ChosenModel,
    evaluation: Evaluation,
    *,
    release: bool,
    reason: str,
    force: bool,
) -> Outcome:
    """Sign and store the version with its report, and release it if requested.

    Args:
        reason: why it is released or forced, for the record.
        force: pass the gate regardless.

    Raises:
        StoreError: the store is unusable, or another process released a different version.
    """
    run.report_progress("publishing", 0.95)
    settings, dataset = run.settings, prepared.loaded.dataset
    experiment, verdict = prepared.experiment, evaluation.verdict
    explainer = explain_version(experiment, chosen)
    gate: Gate = "passed" if not verdict.reasons else "forced" if force else "failed"
    manifest = new_manifest(
        run.model,
        experiment,
        chosen,
        evaluation,
        explainer,
        gate=gate,
        forced_reason=reason if gate == "forced" else None,
        data=dataset.objects,
        seed=settings.seed,
        commit=settings.commit,
        card=dataset.config.card.card if dataset.config.card else None,
    )
    notes = [
        *prepared.notes,
        *describe_categories(experiment.problem, experiment.rows, chosen.candidate.family),
        *describe_origin(chosen),
    ]
    warnings = prepared.loaded.warnings + dataset.warnings
    page = render_report(
        manifest,
        evaluation.diagnostics,
        before=evaluation.live.manifest if evaluation.live else None,
        changes=prepared.changes,
        notes=notes + warnings,
    )
    files = model_files(chosen, explainer) | {"report.html": page.encode()}
    released = publish_files(run, manifest, files, release=release, reason=reason)
    return Outcome(
        run.model,
        manifest.version,
        gate,
        manifest.serving,
        reasons=verdict.reasons,
        metrics=evaluation.metrics,
        release=released.number,
        notes=notes,
        warnings=_warnings(prepared, manifest, released),
        pinned=released.pinned,
        refused=released.refused,
    )


def publish_files(
    run: Run, manifest: Manifest, files: dict[str, bytes], *, release: bool, reason: str
) -> ReleaseOutcome:
    """Sign and store a version, and release it if that is requested and its gate allows it.

    Args:
        reason: why it is released, for the record.

    Raises:
        StoreError: the store is unusable, or another process released a different version.
    """
    settings = run.settings
    run.store.publish(manifest, files, run.signing_key)
    if not release or manifest.gate == "failed":
        return ReleaseOutcome()
    manager = ReleaseManager(
        run.store, run.trusted, settings.actor, allow_joblib=settings.allow_joblib
    )
    return release_automatically(manager, manifest, reason=reason)


def _repeat(store: ModelStore, model: str, record: RunRecord, trusted: TrustedKeys) -> Outcome:
    """Return the recorded outcome of an earlier run."""
    gate, reasons = find_gate_of_run(store, model, record, trusted)
    return Outcome(
        model,
        record.version,
        gate,
        None,
        reasons=reasons,
        metrics={},
        release=record.release,
        pinned=record.pinned,
        refused=record.refused,
        repeated=True,
    )


def _record(store: ModelStore, outcome: Outcome, idempotency_key: str) -> None:
    record = RunRecord(
        version=outcome.version,
        key=idempotency_key,
        time=datetime.now(UTC),
        gate=outcome.gate,
        release=outcome.release,
        pinned=outcome.pinned,
        refused=outcome.refused,
    )
    store.record_run(outcome.model, idempotency_key, record)


def _warnings(prepared: Prepared, manifest: Manifest, released: ReleaseOutcome) -> list[str]:
    dataset = prepared.loaded.dataset
    unknown = [f"dataset.json: unknown field {name!r}." for name in dataset.config.unknown]
    found = prepared.loaded.warnings + dataset.warnings + unknown
    if manifest.serving == "joblib" and released.refused is None:
        found.append(
            "The version has no ONNX form: inference serves it only with "
            "INFERENCE_ALLOW_JOBLIB=true."
        )
    return found


def _count_threads(rows: int) -> int:
    """Return 1 for little data: on a busy machine, threads would mostly wait for each other."""
    return (os.cpu_count() or 1) if rows > MIN_ROWS_FOR_THREADS else 1
