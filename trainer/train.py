"""One training, from the data in the bucket to a signed version in the model store."""

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
from trainer.candidates import Workbench
from trainer.columns import Problem, encode, state_problem, to_json
from trainer.data import fetch_dataset
from trainer.dataset_file import DatasetFile
from trainer.errors import DataError
from trainer.evidence import gather
from trainer.export import Model, answer_rows
from trainer.gate import Verdict, judge
from trainer.kinds import Indices, Outputs, Task
from trainer.live import Live, ask_live, find_predecessor, list_changes
from trainer.notes import describe_categories, describe_data, describe_times
from trainer.releasing import Released, find_gate_of_run, release_automatically
from trainer.report import render_report
from trainer.scoring import balance, choose_metric, know_nothing, row_losses, scores
from trainer.search import Chosen, Report, choose, lay_out
from trainer.search import Task as Work
from trainer.settings import TrainerSettings
from trainer.split import hash_rows, hold_out
from trainer.statistics import describe
from trainer.table import read_table

WARM_UP_ROWS = 5
MOST_CHANGES = 10  # named in a message
ROWS_WORTH_THREADS = 25_000  # held out
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
    """What a training came to.

    Args:
        gate: of a repeat as recorded; None if the version of the earlier run cannot be read.
        serving: what the version is served from; None for a repeat.
        reasons: why the gate failed, or would have, in sentences.
        metrics: as in the manifest.
        notes: what was read, dropped, ignored and cut, in sentences.
        release: number of the record that has the version live; None if it did not go live.
        warnings: what its owner should know, in sentences.
        pinned: why a release was held back, as a sentence.
        refused: why inference would refuse the version, as a sentence.
        repeated: whether this is the recorded outcome of an earlier run under the same key.
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
        """Whether the version failed its gate, or was to go live and cannot be served."""
        return self.gate == "failed" or self.refused is not None


def train(
    settings: TrainerSettings,
    model: str,
    *,
    target: str | None = None,
    release: bool = False,
    once: str | None = None,
    reason: str = "",
    force: bool = False,
    allow_signature_change: bool = False,
    report: Report = lambda doing, share: None,
) -> Outcome:
    """Train, judge, sign and publish a version; release it, if asked to and if it passed.

    Args:
        model: a folder of the data store, and the model's name.
        target: the column to predict; None for what `dataset.json` or the last version says.
        once: an idempotency key; if a run under it has finished, its outcome is returned.
        reason: why it is released, or forced, for the record.
        force: let it through its gate, for the `reason` given.
        allow_signature_change: whether columns, classes, target and task may differ from the last
            version.

    Raises:
        DataError: the data cannot be trained on; nothing was published.
        TrainerError: no candidate can be fitted; nothing was published.
        StoreError: the store or a key cannot be used, or somebody else released another version.
    """
    store = ModelStore(settings.model_store_url)
    if once is not None and (run := store.find_run(model, once)):
        return _repeat(store, model, run, settings.load_trusted_keys())

    key, trusted = settings.load_signing_key(), settings.load_trusted_keys()
    before = find_predecessor(store, model, trusted, allow_joblib=settings.allow_joblib)
    report("reading the data", 0.0)
    with tempfile.TemporaryDirectory(prefix="tollgate-train-") as folder:
        dataset = fetch_dataset(
            settings.data_store_url, model, into=Path(folder), most_bytes=settings.max_data_bytes
        )
        stated = dataset.stated
        named, task = _choose_target(asked=target, stated=stated, before=before)
        exact = [name for name in (named, stated.time, stated.group) if name is not None]
        table = read_table(dataset.parts, stated=stated, precise=exact, target=named)
        known = {} if before is None else {c.name: c.kind for c in before.signature.columns}
        problem = state_problem(table, target=named, task=task, stated=stated, known_kinds=known)
    notes = describe_data(dataset, table, problem)
    in_memory = table.size
    has_dates = stated.time is not None and table.kinds[stated.time] == "text"
    del table
    changes = [] if before is None else list_changes(before.signature, problem.signature)
    if before is not None and changes and not allow_signature_change:
        raise DataError(
            f"Not what version {before.version} was trained on: {_list_some(changes)}. If that "
            "is meant, and callers know: --allow-signature-change."
        )
    if before is not None and changes:
        notes.append(f"Changed since version {before.version}: {_list_some(changes)}.")
    metric = choose_metric(problem.signature, stated.metric)

    hashes = hash_rows(problem, seed=settings.seed, by=list(known))
    held_out = hold_out(problem, hashes, share=stated.held_out)
    rows, weights = np.flatnonzero(held_out), None
    notes += describe_times(problem, stated.time, held_out, is_text=has_dates)
    if stated.class_weight == "balanced" and problem.signature.classes is not None:
        weights = balance(problem.truth[~held_out], classes=len(problem.signature.classes))
    work = lay_out(
        problem,
        hashes,
        held_out,
        metric=metric,
        weights=weights,
        bench=Workbench(
            problem.signature, settings.seed, _count_threads(len(rows)), weights is not None
        ),
        # Parquet may be packed: its size is that of its values.
        data_bytes=max(dataset.size, in_memory),
    )
    with threadpool_limits(1):  # the last fit alone is worth more, and asks for them
        chosen = choose(work, stated.estimators, report=report)
        report("judging", 0.85)
        outputs = answer_rows(chosen.model, problem.table, problem.signature.columns, rows)
        live = None
        pickles = settings.allow_joblib
        if before and store.live_release(model, trusted, allow_joblib=pickles):
            live = ask_live(store, before, problem, rows, allow_joblib=pickles)
        notes += describe_categories(problem, work.rows, chosen.candidate.family)
        verdict, metrics = _judge(work, chosen, outputs, live, seed=settings.seed)
        report("gathering evidence", 0.9)
        evidence = gather(work, chosen, outputs)

    report("publishing", 0.95)
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

    released = Released()
    if release and gate != "failed":
        release_manager = ReleaseManager(
            store, trusted, settings.actor, allow_joblib=settings.allow_joblib
        )
        released = release_automatically(release_manager, manifest, reason=reason)
    if once is not None:
        # Last: a run that died before is done again, and a second version does no harm.
        run = RunRecord(
            version=manifest.version,
            key=once,
            time=datetime.now(UTC),
            gate=gate,
            release=released.number,
            pinned=released.pinned,
            refused=released.refused,
        )
        store.record_run(model, once, run)
    report("done", 1.0)
    return Outcome(
        model,
        manifest.version,
        gate,
        manifest.serving,
        reasons=verdict.reasons,
        metrics=metrics,
        release=released.number,
        notes=notes,
        warnings=dataset.warnings + _warnings(stated, manifest.serving),
        pinned=released.pinned,
        refused=released.refused,
    )


def _repeat(store: ModelStore, model: str, run: RunRecord, trusted: TrustedKeys) -> Outcome:
    """The recorded outcome of an earlier run."""
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
    more = len(changes) - MOST_CHANGES
    return "; ".join(changes[:MOST_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _choose_target(
    *, asked: str | None, stated: DatasetFile, before: Manifest | None
) -> tuple[str, Task | None]:
    """The target, and its task where that is known from `dataset.json` or the last version."""
    last = before.signature if before else None
    target = asked or stated.target or (last.target if last else None)
    if target is None:
        raise DataError("No target is named: use --target, or say it in dataset.json.")
    if stated.task and stated.target in (None, target):
        return target, stated.task
    return target, last.task if last and last.target == target else None


def _warnings(stated: DatasetFile, serving: str) -> list[str]:
    found = [f"dataset.json: unknown field {name!r}." for name in stated.unknown]
    if serving == "joblib":
        found.append("It has no ONNX form: inference serves it only if INFERENCE_ALLOW_JOBLIB.")
    return found


def _count_threads(rows: int) -> int:
    """One for little data: threads that wait for each other on a busy machine take longest."""
    return (os.cpu_count() or 1) if rows > ROWS_WORTH_THREADS else 1


def _judge(
    work: Work, chosen: Chosen, outputs: Outputs, live: Live | None, *, seed: int
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict, and the metrics for the manifest; all on the rows held out."""
    problem, metric, weights = work.problem, work.metric, work.weights
    signature, truth = problem.signature, problem.truth[work.held_out]
    known = problem.truth[~work.held_out]
    dummy = know_nothing(signature, metric, known, rows=len(truth), weights=weights)
    said = live.outputs if live else None
    verdict = judge(
        metric=metric,
        candidate=row_losses(metric, truth, outputs, weights),
        dummy=row_losses(metric, truth, dummy, weights),
        live=None if said is None else row_losses(metric, truth, said, weights),
        seed=seed,
        groups=None if problem.groups is None else problem.groups[work.held_out],
    )
    metrics: dict[str, Any] = {
        "metric": metric,
        "balanced": weights is not None,
        "chosen": chosen.candidate.family,
        "parameters": chosen.candidate.parameters,
        "candidate": scores(signature, truth, outputs),
        "dummy": scores(signature, truth, dummy),
        "live": None,
        "candidates": {name: asdict(tried) for name, tried in chosen.tried.items()},
        "rows": {"training": int((~work.held_out).sum()), "held_out": len(truth)},
        "rows_read": problem.rows_read,
        "rows_without_target": problem.rows_read - len(problem.truth),
        "fitted_rows": len(work.rows),
        "gain": asdict(verdict.gain),
        "lag": None if verdict.lag is None else asdict(verdict.lag),
        "reasons": verdict.reasons,
    }
    if live is not None:
        measured = {} if said is None else scores(signature, truth, said)
        metrics["live"] = {"version": live.manifest.version, "note": live.note, **measured}
    return verdict, metrics


def _warm_up(problem: Problem, rows: Indices, model: Model) -> WarmUp:
    signature = problem.signature
    answers = model.answer(encode(problem.table, signature.columns, rows))
    return WarmUp(
        rows=to_json(problem.table, signature.columns, rows),
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
