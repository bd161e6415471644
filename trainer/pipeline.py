"""One training run, from the data store to a signed version in the model store."""

import io
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from services.common.model_records import Manifest, RunRecord, WarmUp, new_version_name
from services.common.model_releases import ReleaseManager
from services.common.model_store import ModelStore, TrustedKeys
from trainer.data.config import DatasetConfig
from trainer.data.download import fetch_dataset
from trainer.data.problem import Problem, define_problem, encode, to_json
from trainer.data.split import hash_rows, hold_out
from trainer.data.table import read_table
from trainer.errors import DataError
from trainer.evaluation.diagnostics import gather_evidence
from trainer.evaluation.gate import Verdict, judge
from trainer.evaluation.live import (
    LivePredictions,
    find_predecessor,
    list_changes,
    predict_with_live,
)
from trainer.evaluation.statistics import describe
from trainer.modelling.candidates import TrainingContext
from trainer.modelling.export import Model, predict_rows
from trainer.modelling.metrics import balance, choose_metric, predict_baseline, row_losses, scores
from trainer.modelling.search import (
    ChosenModel,
    Experiment,
    ProgressCallback,
    choose,
    plan_experiment,
)
from trainer.releasing import ReleaseOutcome, find_gate_of_run, release_automatically
from trainer.report.notes import describe_categories, describe_data, describe_times
from trainer.report.render import render_report
from trainer.settings import TrainerSettings
from trainer.types import Indices, Outputs, Task

WARM_UP_ROWS = 5
MAX_CHANGES = 10  # named in a message
MIN_ROWS_FOR_THREADS = 25_000  # held out
PACKAGES = (
    "joblib",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "skl2onnx",
)

Gate = Literal["passed", "failed", "forced"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training run.

    Args:
        gate: None for a repeat, if neither the record nor the version says.
        serving: the format that is served; None for a repeat.
        reasons: sentences why the gate failed, or would have without `force`.
        metrics: as in the manifest; empty for a repeat.
        notes: sentences about what was read, dropped, ignored and truncated.
        release: the release number; None if the version did not go live.
        warnings: sentences about likely mistakes.
        pinned: a sentence about the pin that blocked the release.
        refused: a sentence why inference would refuse the version.
        repeated: whether this is the recorded outcome of an earlier run with the same key.
    """

    model: str
    version: str
    gate: Gate | None
    serving: Literal["onnx", "joblib"] | None
    reasons: list[str]
    metrics: dict[str, Any]
    release: int | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pinned: str | None = None
    refused: str | None = None
    repeated: bool = False

    @property
    def is_failure(self) -> bool:
        """Return whether the version failed its gate, or cannot be served although requested."""
        return self.gate == "failed" or self.refused is not None


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
    report_progress: ProgressCallback = lambda doing, share: None,
) -> Outcome:
    """Train, evaluate, sign and publish a version; on request, release it if it passes its gate.

    Args:
        model: the model's name, and its folder in the data store.
        target: the column to predict; None for that of `dataset.json` or the previous version.
        idempotency_key: if a run with this key has finished, return its outcome.
        reason: why it is released or forced, for the record.
        force: pass the gate regardless, for the given `reason`.
        allow_signature_change: whether columns, classes, target and task may differ from the
            previous version.

    Raises:
        DataError: the data or `dataset.json` is invalid; nothing was published.
        TrainerError: no candidate can be fitted; nothing was published.
        StoreError: the store or a key is unusable, or another process released a different version.
    """
    store = ModelStore(settings.model_store_url)
    if idempotency_key is not None and (run := store.find_run(model, idempotency_key)):
        return _repeat(store, model, run, settings.load_trusted_keys())

    key, trusted = settings.load_signing_key(), settings.load_trusted_keys()
    before = find_predecessor(store, model, trusted, allow_joblib=settings.allow_joblib)
    report_progress("reading the data", 0.0)
    with tempfile.TemporaryDirectory(prefix="tollgate-train-") as folder:
        dataset = fetch_dataset(
            settings.data_store_url, model, into=Path(folder), max_bytes=settings.max_data_bytes
        )
        config = dataset.config
        named, task = _choose_target(requested=target, config=config, before=before)
        exact = [name for name in (named, config.time, config.group) if name is not None]
        table = read_table(dataset.parts, config=config, precise=exact, target=named)
        known = {} if before is None else {c.name: c.kind for c in before.signature.columns}
        problem = define_problem(table, target=named, task=task, config=config, known_kinds=known)
    notes = describe_data(dataset, table, problem)
    in_memory = table.size
    has_dates = config.time is not None and table.kinds[config.time] == "text"
    del table
    changes = [] if before is None else list_changes(before.signature, problem.signature)
    if before is not None and changes and not allow_signature_change:
        raise DataError(
            f"The signature differs from that of version {before.version}: {_list_some(changes)}. "
            "If this is intended and callers are prepared, use --allow-signature-change."
        )
    if before is not None and changes:
        notes.append(f"Changed since version {before.version}: {_list_some(changes)}.")
    metric = choose_metric(problem.signature, config.metric)

    hashes = hash_rows(problem, seed=settings.seed, by=list(known))
    held_out = hold_out(problem, hashes, share=config.held_out)
    rows, weights = np.flatnonzero(held_out), None
    notes += describe_times(problem, config.time, held_out, is_text=has_dates)
    if config.class_weight == "balanced" and problem.signature.classes is not None:
        weights = balance(problem.truth[~held_out], classes=len(problem.signature.classes))
    experiment = plan_experiment(
        problem,
        hashes,
        held_out,
        metric=metric,
        weights=weights,
        context=TrainingContext(
            problem.signature, settings.seed, _count_threads(len(rows)), weights is not None
        ),
        # Parquet may be compressed, so use the size in memory if it is larger.
        data_bytes=max(dataset.size, in_memory),
    )
    with threadpool_limits(1):  # only the final fit benefits from more, and sets its own
        chosen = choose(experiment, config.estimators, report_progress=report_progress)
        report_progress("evaluating", 0.85)
        outputs = predict_rows(chosen.model, problem.table, problem.signature.columns, rows)
        live = None
        pickles = settings.allow_joblib
        if before and store.live_release(model, trusted, allow_joblib=pickles):
            live = predict_with_live(store, before, problem, rows, allow_joblib=pickles)
        notes += describe_categories(problem, experiment.rows, chosen.candidate.family)
        verdict, metrics = _judge(experiment, chosen, outputs, live, seed=settings.seed)
        report_progress("gathering evidence", 0.9)
        evidence = gather_evidence(experiment, chosen, outputs)

    report_progress("publishing", 0.95)
    now = datetime.now(UTC)
    gate: Gate = "passed" if not verdict.reasons else "forced" if force else "failed"
    manifest = Manifest(
        model=model,
        version=new_version_name(now),
        gate=gate,
        serving="joblib" if chosen.onnx is None else "onnx",
        forced_reason=reason if gate == "forced" else None,
        signature=problem.signature,
        metrics=metrics,
        data=dataset.objects,
        warm_up=_warm_up(problem, rows[:WARM_UP_ROWS], chosen.model),
        environment=_environment(settings),
        files={},
        created_at=now,
        statistics=describe(problem, outputs),
    )
    page = render_report(
        manifest,
        evidence,
        before=live.manifest if live else None,
        changes=changes,
        notes=notes + dataset.warnings,
    )
    pickled = io.BytesIO()
    joblib.dump(chosen.pipeline, pickled)
    files = {"model.joblib": pickled.getvalue(), "report.html": page.encode()}
    if chosen.onnx is not None:
        files["model.onnx"] = chosen.onnx
    store.publish(manifest, files, key)

    released = ReleaseOutcome()
    if release and gate != "failed":
        release_manager = ReleaseManager(
            store, trusted, settings.actor, allow_joblib=settings.allow_joblib
        )
        released = release_automatically(release_manager, manifest, reason=reason)
    if idempotency_key is not None:
        # Last: a run that dies before this is repeated, and a second version does no harm.
        run = RunRecord(
            version=manifest.version,
            key=idempotency_key,
            time=datetime.now(UTC),
            gate=gate,
            release=released.number,
            pinned=released.pinned,
            refused=released.refused,
        )
        store.record_run(model, idempotency_key, run)
    report_progress("done", 1.0)
    return Outcome(
        model,
        manifest.version,
        gate,
        manifest.serving,
        reasons=verdict.reasons,
        metrics=metrics,
        release=released.number,
        notes=notes,
        warnings=dataset.warnings + _warnings(config, manifest.serving),
        pinned=released.pinned,
        refused=released.refused,
    )


def _repeat(store: ModelStore, model: str, run: RunRecord, trusted: TrustedKeys) -> Outcome:
    """Return the recorded outcome of an earlier run."""
    gate, reasons = find_gate_of_run(store, model, run, trusted)
    return Outcome(
        model,
        run.version,
        gate,
        None,
        reasons=reasons,
        metrics={},
        release=run.release,
        pinned=run.pinned,
        refused=run.refused,
        repeated=True,
    )


def _list_some(changes: list[str]) -> str:
    more = len(changes) - MAX_CHANGES
    return "; ".join(changes[:MAX_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _choose_target(
    *, requested: str | None, config: DatasetConfig, before: Manifest | None
) -> tuple[str, Task | None]:
    """Return the target, and its task if `dataset.json` or the previous version has it."""
    last = before.signature if before else None
    target = requested or config.target or (last.target if last else None)
    if target is None:
        raise DataError("No target: use --target, or set it in dataset.json.")
    if config.task and config.target in (None, target):
        return target, config.task
    return target, last.task if last and last.target == target else None


def _warnings(config: DatasetConfig, serving: str) -> list[str]:
    found = [f"dataset.json: unknown field {name!r}." for name in config.unknown]
    if serving == "joblib":
        found.append(
            "The version has no ONNX form: inference serves it only with "
            "INFERENCE_ALLOW_JOBLIB=true."
        )
    return found


def _count_threads(rows: int) -> int:
    """Return 1 for little data: on a busy machine, threads would mostly wait for each other."""
    return (os.cpu_count() or 1) if rows > MIN_ROWS_FOR_THREADS else 1


def _judge(
    experiment: Experiment,
    chosen: ChosenModel,
    outputs: Outputs,
    live: LivePredictions | None,
    *,
    seed: int,
) -> tuple[Verdict, dict[str, Any]]:
    """Return the gate's verdict and the manifest's metrics, both on the held-out rows."""
    problem, metric, weights = experiment.problem, experiment.metric, experiment.weights
    signature, truth = problem.signature, problem.truth[experiment.held_out]
    known = problem.truth[~experiment.held_out]
    baseline = predict_baseline(signature, metric, known, rows=len(truth), weights=weights)
    live_outputs = live.outputs if live else None
    verdict = judge(
        metric=metric,
        candidate=row_losses(metric, truth, outputs, weights),
        baseline=row_losses(metric, truth, baseline, weights),
        live=None if live_outputs is None else row_losses(metric, truth, live_outputs, weights),
        seed=seed,
        groups=None if problem.groups is None else problem.groups[experiment.held_out],
    )
    metrics: dict[str, Any] = {
        "metric": metric,
        "balanced": weights is not None,
        "chosen": chosen.candidate.family,
        "parameters": chosen.candidate.parameters,
        "candidate": scores(signature, truth, outputs),
        # The stored name of the baseline, as in earlier manifests.
        "dummy": scores(signature, truth, baseline),
        "live": None,
        "candidates": {name: asdict(result) for name, result in chosen.results.items()},
        "rows": {"training": int((~experiment.held_out).sum()), "held_out": len(truth)},
        "rows_read": problem.rows_read,
        "rows_without_target": problem.rows_read - len(problem.truth),
        "fitted_rows": len(experiment.rows),
        "gain": asdict(verdict.gain),
        "lag": None if verdict.lag is None else asdict(verdict.lag),
        "reasons": verdict.reasons,
    }
    if live is not None:
        measured = {} if live_outputs is None else scores(signature, truth, live_outputs)
        metrics["live"] = {"version": live.manifest.version, "note": live.note, **measured}
    return verdict, metrics


def _warm_up(problem: Problem, rows: Indices, model: Model) -> WarmUp:
    signature = problem.signature
    predictions = model.predict(encode(problem.table, signature.columns, rows))
    return WarmUp(
        rows=to_json(problem.table, signature.columns, rows),
        predictions=predictions.for_clients(signature.classes),
        probabilities=None if signature.classes is None else predictions.outputs.tolist(),
    )


def _environment(settings: TrainerSettings) -> dict[str, str]:
    environment = {"python": platform.python_version()}
    environment |= {package: metadata.version(package) for package in PACKAGES}
    environment["seed"] = str(settings.seed)
    if settings.commit:
        environment["commit"] = settings.commit
    return environment
