"""Prove that the model that is served predicts as the fitted one, and find what it refuses."""

import numpy as np
from sklearn.pipeline import Pipeline

from registry.features import column_input, feature_names
from registry.runtimes.named_table import NamedTable
from registry.runtimes.runtime import Runtime
from trainer.modelling.encoding import TEXTS, encode, encode_in_batches
from trainer.modelling.experiment import Experiment
from trainer.modelling.export import prove_equal
from trainer.modelling.fitting import predict, take
from trainer.types import Features, Indices

UNSEEN = "a category that is not in training"


def prove_on_rows(experiment: Experiment, runtime: Runtime, pipeline: Pipeline) -> None:
    """Check that a model predicts the same as its pipeline for the held-out rows and odd ones.

    Odd rows have missing values and unseen categories. A model of the owner's may refuse some of
    them, and may differ where a value is missing if none is missing in the data: what it does then
    is an accident of its library.

    Raises:
        ExportError: the two differ on a row.
    """
    signature = experiment.problem.signature
    rows = np.flatnonzero(experiment.held_out)
    table, expanded = experiment.problem.table, runtime.expands
    for batch in encode_in_batches(table, signature, rows, expanded=expanded):
        prove_equal(runtime, pipeline, batch, signature)
    odd = _odd_rows(experiment, rows, expanded=expanded)
    if not isinstance(pipeline[0], NamedTable):
        prove_equal(runtime, pipeline, odd, signature)
        return
    has_missing = bool(experiment.problem.table.isna().to_numpy().any())
    for i in range(len(odd)):
        is_complete = i > len(signature.columns)
        row = take(odd, np.array([i]))
        if (has_missing or is_complete) and _accepts(pipeline, row):
            prove_equal(runtime, pipeline, row, signature)


def find_required_columns(experiment: Experiment, pipeline: Pipeline) -> list[str]:
    """Return the columns in which a model of the owner's takes no missing value."""
    signature = experiment.problem.signature
    odd = _odd_rows(experiment, np.flatnonzero(experiment.held_out), expanded=False)
    return [
        column.name
        for i, column in enumerate(signature.columns)
        if not _accepts(pipeline, take(odd, np.array([i])))
    ]


def _accepts(pipeline: Pipeline, features: Features) -> bool:
    try:
        return bool(np.isfinite(predict(pipeline, features)).all())
    except Exception:  # any step may refuse, in its own way
        return False


def _odd_rows(experiment: Experiment, rows: Indices, *, expanded: bool) -> Features:
    table, signature = experiment.problem.table, experiment.problem.signature
    columns = signature.columns
    texts = [i for i, column in enumerate(columns) if column.kind in TEXTS]
    repeated = np.repeat(rows[:1], len(columns) + 1 + len(texts))
    odd = encode(table, signature, repeated, expanded=expanded)
    if isinstance(odd, np.ndarray):
        everything = list(range(len(columns)))
        odd[everything, everything] = odd[len(columns)] = np.nan
        return odd
    for i, column in enumerate(columns):
        for name in feature_names(i, column) if expanded else [column_input(i)]:
            values = odd[name].to_numpy(copy=True)
            values[[i, len(columns)]] = "" if i in texts else np.nan
            if i in texts:
                values[len(columns) + 1 + texts.index(i)] = UNSEEN
            odd[name] = values
    return odd
