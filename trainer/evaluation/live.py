"""The live version: its signature, and its predictions for the held-out rows."""

import io
import warnings
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from services.common.features import ValueRules
from services.common.model_records import (
    Label,
    Manifest,
    Signature,
    VersionNotFound,
    VersionRefused,
)
from services.common.model_store import ModelStore, TrustedKeys
from trainer.data.problem import Problem
from trainer.errors import ExportError
from trainer.modelling.export import Model, OnnxModel, PickledModel, predict_rows
from trainer.types import Indices, Outputs, kind_of_classes


@dataclass(frozen=True)
class LivePredictions:
    """The live version's outputs for the held-out rows, or a note why it cannot predict them."""

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


def list_changes(before: Signature, now: Signature) -> list[str]:
    """Return the changes that a model's callers would notice, each as a clause.

    Changes of kinds and classes come first, because a message may not have room for all.
    """
    kinds = {column.name: column.kind for column in before.columns}
    kinds_now = {column.name: column.kind for column in now.columns}
    changes = [
        f"column {name!r} was {kind} and is {kinds_now[name]}"
        for name, kind in kinds.items()
        if kinds_now.get(name, kind) != kind
    ]
    if before.target != now.target:
        changes.append(f"the target was {before.target!r} and is {now.target!r}")
    if before.task != now.task:
        changes.append(f"the task was {before.task} and is {now.task}")
    elif kind_of_classes(before.classes) != kind_of_classes(now.classes):
        kind, kind_now = kind_of_classes(before.classes), kind_of_classes(now.classes)
        changes.append(f"the target was {kind} and is {kind_now}")
    elif before.target == now.target:
        changes += _list_class_changes(before.classes or [], now.classes or [])
    changes += [f"column {name!r} is new" for name in kinds_now if name not in kinds]
    changes += [f"column {name!r} is missing" for name in kinds if name not in kinds_now]
    return changes + _list_rule_changes(before.value_rules, now.value_rules)


def _list_class_changes(before: list[Label], now: list[Label]) -> list[str]:
    return [
        *(f"class {label!r} is new" for label in now if label not in before),
        *(f"class {label!r} is gone" for label in before if label not in now),
    ]


def _list_rule_changes(before: ValueRules | None, now: ValueRules | None) -> list[str]:
    """Return changes in which words mean missing; older versions without rules do not compare."""
    if before is None or now is None:
        return []
    return [
        *(f"{text!r} now means missing" for text in now.missing if text not in before.missing),
        *(
            f"{text!r} no longer means missing"
            for text in before.missing
            if text not in now.missing
        ),
    ]


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
        model = _load(store, manifest, allow_joblib=allow_joblib)
        table = _read_as(signature, problem.table)
        outputs = predict_rows(model, table, signature.columns, rows)
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


def _load(store: ModelStore, manifest: Manifest, *, allow_joblib: bool) -> Model:
    """Load the model as it is served.

    Raises:
        ExportError: it is a pickle that must not be opened here.
        VersionRefused: its file does not match the signed digest.
    """
    signature = manifest.signature
    if manifest.serving == "onnx":
        return OnnxModel(store.read_file(manifest, "model.onnx"), signature)
    if not allow_joblib:
        raise ExportError("It is a joblib pickle, which is not allowed here.")
    if manifest.environment.get("scikit-learn") != sklearn.__version__:
        raise ExportError("It is a joblib pickle from a different scikit-learn version.")
    content = store.read_file(manifest, "model.joblib")  # a trusted key signed its digest
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        return PickledModel(joblib.load(io.BytesIO(content)), signature.classes is not None)
