"""The live version: its signature, and its predictions for the held-out rows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from registry.keys import TrustedKeys
from registry.records import Manifest, Signature, VersionNotFound, VersionRefused
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import load_pickled
from registry.store import ModelStore
from trainer.data.problem import Problem
from trainer.errors import ExportError
from trainer.modelling.serving import load_onnx, predict_rows
from trainer.types import Indices, Outputs


@dataclass(frozen=True)
class LivePredictions:
    """The live version's outputs for the held-out rows, or a note on why it cannot predict them."""

    manifest: Manifest
    outputs: Outputs | None = None
    note: str | None = None


def find_predecessor(
    store: ModelStore, model: str, trusted: TrustedKeys, *, allow_joblib: bool
) -> Manifest | None:
    """Return the live version, else the newest valid one, else None.

    Args:
        allow_joblib: whether inference serves pickles, so that a pickle may be live.
    """
    release = store.live_release(model, trusted, allow_joblib=allow_joblib)
    if release is not None:
        return store.open_release(model, release, trusted)
    for version in reversed(store.list_versions(model)):
        try:
            return store.open_version(model, version, trusted)
        except (VersionNotFound, VersionRefused):
            continue
    return None


def predict_with_live(
    store: ModelStore,
    manifest: Manifest,
    problem: Problem,
    rows: Indices,
    *,
    allow_joblib: bool,
) -> LivePredictions:
    """Predict rows with the live version; probabilities follow the order of the problem's classes.

    The rows are encoded by its own signature; a column that the data no longer has is missing.
    """
    signature = manifest.signature
    if (signature.task, signature.target) != (problem.signature.task, problem.signature.target):
        return LivePredictions(manifest, note="It predicts a different target or task.")
    try:
        runtime = _load(store, manifest, allow_joblib=allow_joblib)
        table = _read_as(signature, problem.table)
        outputs = predict_rows(runtime, table, signature, rows)
    except (VersionRefused, ExportError) as error:
        return LivePredictions(manifest, note=str(error))
    if signature.classes is None or problem.signature.classes is None:
        return LivePredictions(manifest, outputs)
    aligned = np.zeros((len(outputs), len(problem.signature.classes)))
    for position, label in enumerate(problem.signature.classes):
        if label in signature.classes:
            aligned[:, position] = outputs[:, signature.classes.index(label)]
    return LivePredictions(manifest, aligned)


def _read_as(signature: Signature, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with missing values by a signature's rules, as in its requests."""
    rules = signature.value_rules
    if rules is None:
        return table
    kinds = {column.name: column.kind for column in signature.columns}
    changed: dict[str, pd.Series] = {}
    for name, values in table.items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            lost = values.cat.categories.intersection(list(rules.missing))
            if len(lost):
                changed[str(name)] = values.cat.remove_categories(lost)
        elif rules.missing_numbers and kinds.get(str(name)) == "number":
            numbers = np.array(rules.missing_numbers).astype(np.float32)
            changed[str(name)] = values.mask(values.astype(np.float32).isin(numbers))
    return table.assign(**changed)


def _load(store: ModelStore, manifest: Manifest, *, allow_joblib: bool) -> Runtime:
    """Load the model as it is served.

    Raises:
        ExportError: it is a pickle that must not be opened here, or it cannot be loaded.
        VersionRefused: its file does not match the signed digest, or it is a pickle from another
            version of scikit-learn.
    """
    if manifest.serving == "onnx":
        content = store.read_file(manifest, "model.onnx")
        return load_onnx(content, manifest.signature, expands=manifest.origin is None)
    if not allow_joblib:
        raise ExportError("It is a joblib pickle, which is not allowed here.")
    content = store.read_file(manifest, "model.joblib")  # a trusted key signed its digest
    return load_pickled(content, manifest)
