"""Import a finished model as a new version: read → prepare → convert → evaluate → publish."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.records import StoreError, is_model_name
from registry.runtimes.runtime import Runtime
from registry.store import ModelStore
from trainer.data.load import LoadedData
from trainer.errors import NoData
from trainer.importing.choosing import choose_imported
from trainer.importing.columns import describe_renaming, match_data
from trainer.importing.finished import FinishedModel, failures_of
from trainer.importing.read import read_model
from trainer.modelling.encoding import encode
from trainer.modelling.own_pipeline import Timed
from trainer.modelling.proving import find_required_columns, prove_on_rows
from trainer.modelling.search import ProgressCallback
from trainer.outcome import Outcome
from trainer.pipeline import Run, evaluate, prepare, publish
from trainer.settings import TrainerSettings
from trainer.unjudged import publish_unjudged


def import_model(
    settings: TrainerSettings,
    model: str,
    path: Path,
    *,
    target: str | None = None,
    trust_pickle: bool = False,
    release: bool = False,
    reason: str = "",
    force: bool = False,
    allow_signature_change: bool = False,
    timed: Timed = nullcontext,
    report_progress: ProgressCallback = lambda doing, share: None,
) -> Outcome:
    """Read a finished model, evaluate it on the data's held-out rows, sign and publish it.

    On request, release it if it passes its gate.

    Args:
        model: the model's name, and its folder in the data store. Without data, the gate cannot
            judge the model and fails unless it is forced.
        path: a model file, or an MLflow model folder.
        target: the column it predicts; None for that of `dataset.json` or the previous version.
        trust_pickle: whether code in a pickle may be executed.
        reason: why it is released or forced, for the record.
        force: pass the gate regardless, for the given `reason`.
        allow_signature_change: whether columns, classes, target and task may differ from the
            previous version.
        timed: wraps the times in which code of the file, or of its library, runs.

    Raises:
        ModelFileError: the file is not a model that can be served; nothing was published.
        DataError: the data or `dataset.json` is invalid; nothing was published.
        StoreError: the store or a key is unusable, or another process released a different version.
    """
    if not is_model_name(model):
        raise StoreError(f"{ascii(model)[:80]} is not a valid model name.")
    store = ModelStore(settings.model_store_url)
    key, trusted = settings.load_signing_key(), settings.load_trusted_keys()
    run = Run(settings, model, store, key, trusted, report_progress)
    report_progress("reading the model", 0.0)
    with timed():
        finished = read_model(path, trust_pickle=trust_pickle)
    name = path.resolve().name
    try:
        prepared = prepare(
            run,
            target=target,
            allow_signature_change=allow_signature_change,
            task=finished.task,
            adapt=_adapt(finished),
        )
    except NoData:
        with timed():
            return publish_unjudged(
                run,
                finished,
                name=name,
                target=target,
                reason=reason,
                force=force,
                release=release,
                allow_signature_change=allow_signature_change,
            )
    experiment = prepared.experiment
    signature = experiment.problem.signature
    report_progress("converting", 0.4)
    rows = np.flatnonzero(experiment.held_out)[:1]
    features = encode(experiment.problem.table, signature, rows, expanded=False)

    def prove(runtime: Runtime, pipeline: Pipeline) -> None:
        prove_on_rows(experiment, runtime, pipeline)

    with timed(), threadpool_limits(1), failures_of(name, "it cannot predict the data's rows"):
        chosen = choose_imported(finished, signature, features, name=name, prove=prove)
        required = find_required_columns(experiment, chosen.pipeline)
        chosen = replace(chosen, required=required)
        evaluation = evaluate(run, prepared, chosen)
    prepared.notes.extend([*finished.notes, *describe_renaming(finished, signature)])
    outcome = publish(
        run, prepared, chosen, evaluation, release=release, reason=reason, force=force
    )
    report_progress("done", 1.0)
    return outcome


def _adapt(finished: FinishedModel) -> Callable[[LoadedData], LoadedData]:
    return lambda loaded: match_data(loaded, finished)
