"""The version that a candidate follows: what it took, and what it says of the rows held out."""

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
from trainer.columns import Problem
from trainer.errors import ExportError
from trainer.export import Model, OnnxModel, PickledModel, answer_rows
from trainer.kinds import Indices, Outputs, kind_of_classes


@dataclass(frozen=True)
class Live:
    """The live version on the rows held out: what it says of them, or why it cannot be asked."""

    manifest: Manifest
    outputs: Outputs | None = None
    note: str | None = None


def find_predecessor(
    store: ModelStore, model: str, trusted: TrustedKeys, *, allow_joblib: bool
) -> Manifest | None:
    """The live version, or the newest valid one while none is live; None for a first one.

    Args:
        allow_joblib: whether inference serves pickles, so that one may be live.
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
    """Return what callers or readers of a model would notice, each as a clause.

    Changes of kinds and classes come first, as a message may have no room for all.
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
    """Return which words changed their meaning; versions that state no rules are not compared."""
    if before is None or now is None:
        return []
    return [
        *(f"{text!r} now means missing" for text in now.missing if text not in before.missing),
        *(f"{text!r} meant missing" for text in before.missing if text not in now.missing),
    ]


def ask_live(
    store: ModelStore,
    manifest: Manifest,
    problem: Problem,
    rows: Indices,
    *,
    allow_joblib: bool,
) -> Live:
    """The live version's answers, its probabilities in the order of the problem's classes.

    It is asked in its own signature's terms; a column that the data no longer has is missing.
    """
    signature = manifest.signature
    if (signature.task, signature.target) != (problem.signature.task, problem.signature.target):
        return Live(manifest, note="It predicts something else.")
    try:
        model = _load(store, manifest, allow_joblib=allow_joblib)
        table = _read_as(signature, problem.table)
        outputs = answer_rows(model, table, signature.columns, rows)
    except (VersionRefused, ExportError) as error:
        return Live(manifest, note=str(error))
    if signature.classes is None or problem.signature.classes is None:
        return Live(manifest, outputs)
    aligned = np.zeros((len(outputs), len(problem.signature.classes)))
    for position, label in enumerate(problem.signature.classes):
        if label in signature.classes:
            aligned[:, position] = outputs[:, signature.classes.index(label)]
    return Live(manifest, aligned)


def _read_as(signature: Signature, table: pd.DataFrame) -> pd.DataFrame:
    """The table with what is missing by a signature's rules, as its requests would have it."""
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
    """The model as it is served.

    Raises:
        ExportError: it is a pickle, and not one that may be opened here.
        VersionRefused: its file does not hold.
    """
    signature = manifest.signature
    if manifest.serving == "onnx":
        return OnnxModel(store.read_file(manifest, "model.onnx"), signature)
    if not allow_joblib:
        raise ExportError("It is served by joblib, which is not allowed here.")
    if manifest.environment.get("scikit-learn") != sklearn.__version__:
        raise ExportError("It is served by joblib, and was made with another scikit-learn.")
    content = store.read_file(manifest, "model.joblib")  # a trusted key signed its digest
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        return PickledModel(joblib.load(io.BytesIO(content)), signature.classes is not None)
