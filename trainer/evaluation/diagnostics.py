"""Diagnose the chosen model for the report: column importances and the learning curve."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from registry.features import column_input, feature_names
from registry.records import Column
from trainer.modelling.candidates import build
from trainer.modelling.encoding import encode
from trainer.modelling.experiment import Experiment
from trainer.modelling.fitting import fit, predict, take
from trainer.modelling.metrics import row_losses, score
from trainer.modelling.search import ChosenModel
from trainer.modelling.serving import compute, outputs_of
from trainer.types import Features, Outputs

MAX_ROWS = 2_000
MAX_PREDICTIONS = 200_000  # for the importances of all columns
SHUFFLES = 3
CURVE = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Step:
    """A point of the learning curve: the metric on unseen rows and on training rows."""

    rows: int
    unseen: float
    fitted: float


@dataclass(frozen=True)
class Diagnostics:
    """What the chosen model depends on, and whether more rows would help.

    Args:
        truth: of the held-out rows, as in `Problem.truth`.
        outputs: the model's outputs for the held-out rows.
        importances: by column, how much the mean row loss grows when its cells are shuffled.
        curve: the learning curve of the chosen candidate.
    """

    truth: npt.NDArray[Any]
    outputs: Outputs
    importances: dict[str, float]
    curve: list[Step]


def diagnose(experiment: Experiment, chosen: ChosenModel, outputs: Outputs) -> Diagnostics:
    """Measure on the held-out rows, or a sample of them; the gate does not depend on it."""
    truth = experiment.problem.truth[experiment.held_out]
    return Diagnostics(
        truth=truth,
        outputs=outputs,
        importances=_importances(experiment, chosen),
        curve=_learning_curve(experiment, chosen),
    )


def _importances(experiment: Experiment, chosen: ChosenModel) -> dict[str, float]:
    columns = experiment.problem.signature.columns
    most = int(np.clip(MAX_PREDICTIONS // (len(columns) * SHUFFLES), 50, MAX_ROWS))
    rows = np.flatnonzero(experiment.held_out)[:most]
    truth = experiment.problem.truth[rows]
    features = encode(
        experiment.problem.table,
        experiment.problem.signature,
        rows,
        expanded=chosen.runtime.expands,
    )
    chance = np.random.default_rng(experiment.context.seed)

    def loss(given: Features) -> float:
        outputs = outputs_of(compute(chosen.runtime, given, experiment.problem.signature))
        return float(row_losses(experiment.metric, truth, outputs, experiment.weights).mean())

    whole = loss(features)
    found: dict[str, float] = {}
    for i, column in enumerate(columns):
        losses = [
            loss(_shuffled(features, i, column, chance.permutation(len(rows))))
            for _ in range(SHUFFLES)
        ]
        found[column.name] = float(np.mean(losses)) - whole
    return found


def _shuffled(
    features: Features, position: int, column: Column, order: npt.NDArray[np.int64]
) -> Features:
    if isinstance(features, np.ndarray):
        changed = features.copy()
        changed[:, position] = features[order, position]
        return changed
    own = column_input(position)
    names = [own] if own in features else feature_names(position, column)
    return features.assign(**{name: features[name].to_numpy()[order] for name in names})


def _learning_curve(experiment: Experiment, chosen: ChosenModel) -> list[Step]:
    """Fit the candidate on growing parts of the tuning rows; the last fold stays unseen."""
    if chosen.candidate.family == "imported":
        return []  # it cannot be fitted again
    known, unseen = experiment.folds[-1]
    features = encode(
        experiment.problem.table,
        experiment.problem.signature,
        experiment.tuning,
        expanded=chosen.runtime.expands,
    )
    labels, truth = (
        experiment.problem.labels[experiment.tuning],
        experiment.problem.truth[experiment.tuning],
    )
    order = np.random.default_rng(experiment.context.seed).permutation(known)
    steps = []
    for share in CURVE:
        part = order[: max(2, int(len(order) * share))]
        if experiment.context.signature.classes is not None and len(np.unique(truth[part])) < len(
            np.unique(truth)
        ):
            continue  # too few rows to contain every class
        seen = take(features, part)
        pipeline = clone(build(chosen.candidate, experiment.context, seen))
        try:
            fit(pipeline, seen, labels[part])
            unseen_loss, fitted_loss = (
                row_losses(
                    experiment.metric,
                    truth[rows],
                    predict(pipeline, take(features, rows)),
                    experiment.weights,
                )
                for rows in (unseen[:MAX_ROWS], part[:MAX_ROWS])
            )
        except ValueError:
            continue  # the values are too extreme to fit
        steps.append(
            Step(
                len(part),
                score(experiment.metric, unseen_loss),
                score(experiment.metric, fitted_loss),
            )
        )
    return steps
