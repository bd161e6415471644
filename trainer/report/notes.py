"""Notes of a training run about its data: what was read, dropped, ignored and truncated."""

import numpy as np
import pandas as pd

from trainer.data.load import LoadedData
from trainer.data.problem import Problem
from trainer.modelling.preparing import (
    MAX_ENCODED_CATEGORIES,
    count_features,
    uses_target_encoding,
)
from trainer.modelling.search import ChosenModel
from trainer.types import Indices, Mask, Source
from trainer.wording import counted, listed

MAX_NAMED = 20


def describe_data(loaded: LoadedData) -> list[str]:
    """Return sentences about what was read and how much of it is used."""
    problem, parts = loaded.problem, len(loaded.dataset.parts)
    target, columns = problem.signature.target, problem.signature.columns
    notes = [
        f"Read {counted(problem.rows_read, 'row')} from {counted(parts, 'file')}.",
        *loaded.dataset.notes,
        *loaded.notes,
    ]
    if dropped := problem.rows_read - len(problem.table):
        notes.append(
            f"Dropped {counted(dropped, 'row')} without a value in the target {target!r}; "
            f"{len(problem.table):,} are left."
        )
    used = [f"{column.name} ({column.kind})" for column in columns]
    notes.append(f"Columns: {listed(used, most=MAX_NAMED)}.")
    unused = [f"{name} ({why})" for name, why in (loaded.ignored | problem.excluded).items()]
    notes.append(f"Not used as columns: {listed(unused, most=MAX_NAMED)}.")
    empty = [column.name for column in columns if problem.table[column.name].isna().all()]
    if empty:
        notes.append(f"Empty columns: {listed(empty, most=MAX_NAMED)}.")
    return notes


def describe_categories(problem: Problem, rows: Indices, family: Source) -> list[str]:
    """Return a sentence for each text column with more categories than the model can use.

    Args:
        rows: the rows that the model is fitted on.
    """
    if family in ("pipeline", "imported"):
        return []  # how they encode text is their own affair
    is_encoded = uses_target_encoding(family, problem.signature)
    notes = []
    for column in problem.signature.columns:
        values: pd.Series = problem.table[column.name]
        if column.kind != "text" or not isinstance(values.dtype, pd.CategoricalDtype):
            continue
        codes = values.cat.codes.to_numpy()[rows]
        count = int(np.count_nonzero(np.bincount(codes[codes >= 0])))
        most = count_features(family, problem.signature, count)
        if count <= most:
            continue
        known = f"Column {column.name!r} has {count:,} categories in the training rows; "
        unknown = count - (MAX_ENCODED_CATEGORIES if is_encoded else most)
        if is_encoded:
            known += f"the {most} most frequent are used by themselves, and all by the mean target"
        else:
            known += f"the {most} most frequent are used"
        more = f", but the {unknown:,} least frequent count as unknown" if unknown > 0 else ""
        notes.append(f"{known}{more}.")
    return notes


def describe_origin(chosen: ChosenModel) -> list[str]:
    """Return sentences about the owner's model: why it was not chosen, or what serving it needs."""
    notes = []
    lost = [
        f"{name}: {result.dropped}"
        for name, result in chosen.results.items()
        if name.partition(" ")[0] == "pipeline" and result.dropped is not None
    ]
    if lost and chosen.candidate.family != "pipeline":
        notes.append(
            f"The pipeline was better but has no ONNX form ({lost[0]}) To choose it anyway, let "
            "inference serve pickles, and set TRAINER_ALLOW_JOBLIB=true."
        )
    if chosen.onnx is None and chosen.origin is not None and chosen.origin.requires:
        needed = [f"{name} {version}" for name, version in chosen.origin.requires.items()]
        notes.append(f"To serve it, inference needs {listed(needed, most=MAX_NAMED)}.")
    if chosen.required:
        names = listed([repr(name) for name in chosen.required], most=MAX_NAMED)
        notes.append(
            f"The model does not take missing values in {names}: a request with null there gets an "
            "error or an arbitrary prediction."
        )
    return notes


def describe_times(
    problem: Problem, name: str | None, held_out: Mask, *, is_text: bool
) -> list[str]:
    """Return a sentence about how the time column splits the rows, if there is one.

    Args:
        is_text: whether the times are dates rather than numbers.
    """
    if name is None or problem.times is None:
        return []
    first = float(problem.times[held_out].min())
    shown = f"{pd.Timestamp(first, unit='s', tz='UTC'):%Y-%m-%dT%H:%M:%SZ}" if is_text else first
    without = int(np.isneginf(problem.times).sum())
    more = f" Rows without a time count as older than all others ({without:,})." if without else ""
    return [
        f"The {counted(int(held_out.sum()), 'row')} with {name!r} from {shown} on "
        f"{'is' if held_out.sum() == 1 else 'are'} held out to evaluate the model.{more}"
    ]
