"""Publish a finished model for which there is no data: the gate cannot judge it."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from registry.records import Column, Manifest, Signature, WarmUp, new_version_name
from registry.runtimes.runtime import Runtime
from registry.value_rules import ValueRules
from trainer.data.target import MAX_CLASSES
from trainer.evaluation.compatibility import accept_changes
from trainer.evaluation.live import find_predecessor
from trainer.importing.choosing import choose_imported
from trainer.importing.finished import FinishedModel, ModelFileError, failures_of
from trainer.modelling.encoding import TEXTS, encode, to_arrays, to_json
from trainer.modelling.export import prove_equal
from trainer.modelling.fitting import predict
from trainer.modelling.metrics import choose_metric
from trainer.modelling.search import ChosenModel
from trainer.modelling.serving import check_finite
from trainer.outcome import Outcome
from trainer.pipeline import Run, publish_files
from trainer.releasing import Gate
from trainer.report.render import render_report
from trainer.version import describe_environment, model_files

SAMPLE_ROWS = 20
WARM_UP_ROWS = 5
LATEST_TIME = 2**31
"""The latest made-up time, in seconds since 1970."""
UNJUDGED = (
    "There is no data to judge the model on: only its columns and that it predicts finite numbers "
    "for made-up rows could be checked."
)


def publish_unjudged(
    run: Run,
    finished: FinishedModel,
    *,
    name: str,
    target: str | None,
    reason: str,
    force: bool,
    release: bool,
    allow_signature_change: bool,
) -> Outcome:
    """Publish a model whose gate fails, unless it is forced, because there are no rows.

    Without rows, it has neither an explainer nor a calibration.

    Raises:
        ModelFileError: the model cannot be served, or does not name its columns or target.
        DataError: the signature has changed.
        StoreError: the store is unusable, or another process released a different version.
    """
    settings = run.settings
    before = find_predecessor(run.store, run.model, run.trusted, allow_joblib=settings.allow_joblib)
    signature = _new_signature(
        finished, name, target or (before.signature.target if before else None)
    )
    changes = accept_changes(before, signature, allowed=allow_signature_change)
    table = _made_up_rows(signature, seed=settings.seed)
    rows = np.arange(len(table))
    features = encode(table, signature, rows, expanded=False)

    def prove(runtime: Runtime, pipeline: Pipeline) -> None:
        prove_equal(runtime, pipeline, features, signature)

    with failures_of(name, "it cannot predict made-up rows"):
        chosen = choose_imported(finished, signature, features, name=name, prove=prove)
        check_finite(predict(chosen.pipeline, features), rows="made-up rows")
        warm_up = _warm_up(chosen, signature, table)
    gate: Gate = "forced" if force else "failed"
    now = datetime.now(UTC)
    manifest = Manifest(
        model=run.model,
        version=new_version_name(now),
        gate=gate,
        serving="joblib" if chosen.onnx is None else "onnx",
        forced_reason=reason if force else None,
        signature=signature,
        metrics=_metrics(signature, chosen),
        data=[],
        warm_up=warm_up,
        environment=describe_environment(seed=settings.seed, commit=settings.commit),
        files={},
        created_at=now,
        origin=chosen.origin,
    )
    notes = [UNJUDGED, *finished.notes]
    page = render_report(manifest, None, before=before, changes=changes, notes=notes)
    files = model_files(chosen, None) | {"report.html": page.encode()}
    released = publish_files(run, manifest, files, release=release, reason=reason)
    return Outcome(
        run.model,
        manifest.version,
        gate,
        manifest.serving,
        reasons=[UNJUDGED],
        metrics=manifest.metrics,
        release=released.number,
        notes=notes,
        pinned=released.pinned,
        refused=released.refused,
    )


def _new_signature(finished: FinishedModel, name: str, target: str | None) -> Signature:
    """Return the signature as far as the model states it; other columns are numbers."""
    if finished.columns is None:
        raise ModelFileError(
            f"{name}: does not name its columns, and there is no data that does. Put data in the "
            "model's data folder."
        )
    if target is None:
        raise ModelFileError(f"{name}: does not name what it predicts; use --target.")
    if finished.classes is not None and not 2 <= len(finished.classes) <= MAX_CLASSES:
        raise ModelFileError(f"{name}: has {len(finished.classes)} classes.")
    is_classifier = finished.task == "classification"
    if is_classifier and finished.classes is None:
        raise ModelFileError(f"{name}: does not name its classes, and there is no data that does.")
    return Signature(
        task="classification" if is_classifier else "regression",
        target=target,
        columns=[
            Column(name=each, kind=finished.kinds.get(each, "number")) for each in finished.columns
        ],
        classes=finished.classes if is_classifier else None,
        value_rules=ValueRules(),
    )


def _made_up_rows(signature: Signature, *, seed: int) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for column in signature.columns:
        if column.kind in TEXTS:
            columns[column.name] = pd.Categorical(["a"] * SAMPLE_ROWS)
        elif column.kind == "datetime":
            columns[column.name] = chance.integers(LATEST_TIME, size=SAMPLE_ROWS).astype(float)
        elif column.kind == "boolean":
            columns[column.name] = chance.integers(2, size=SAMPLE_ROWS).astype(np.float32)
        else:
            columns[column.name] = chance.normal(size=SAMPLE_ROWS).astype(np.float32)
    return pd.DataFrame(columns)


def _warm_up(chosen: ChosenModel, signature: Signature, table: pd.DataFrame) -> WarmUp:
    rows = np.arange(WARM_UP_ROWS)
    response = chosen.runtime.run(
        to_arrays(table, signature, rows),
        probabilities=signature.classes is not None,
    )
    return WarmUp(
        rows=to_json(table, signature.columns, rows),
        predictions=response.predictions,
        probabilities=response.probabilities,
    )


def _metrics(signature: Signature, chosen: ChosenModel) -> dict[str, Any]:
    """Return the fields that a manifest's metrics have, without any measurement."""
    return {
        "metric": choose_metric(signature, None),
        "balanced": False,
        "chosen": chosen.candidate.family,
        "parameters": {},
        "candidate": {},
        "dummy": {},
        "live": None,
        "candidates": {},
        "rows": {"training": 0, "held_out": 0},
        "rows_read": 0,
        "rows_without_target": 0,
        "fitted_rows": 0,
        "gain": None,
        "lag": None,
        "reasons": [UNJUDGED],
    }
