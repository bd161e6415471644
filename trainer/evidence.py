"""What a report shows beside the metrics: which columns matter, would more rows help."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from trainer.candidates import answer, build, fit, take
from trainer.columns import encode
from trainer.kinds import Features, Outputs
from trainer.scoring import row_losses, score
from trainer.search import Chosen, Task

MOST_ROWS = 2_000
MOST_ANSWERS = 200_000  # over all columns, to find out which matter
SHUFFLES = 3
CURVE = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Step:
    """A step of the learning curve: the metric on rows not fitted on, and on those fitted on."""

    rows: int
    unseen: float
    fitted: float


@dataclass(frozen=True)
class Evidence:
    """About the chosen model.

    Args:
        truth: of the rows held out; as `Problem.truth`.
        outputs: what the model says of them.
        importances: by column, how much the mean row loss grows when its cells are shuffled.
        curve: of models like it, fitted on fewer rows.
    """

    truth: npt.NDArray[Any]
    outputs: Outputs
    importances: dict[str, float]
    curve: list[Step]


def gather(task: Task, chosen: Chosen, outputs: Outputs) -> Evidence:
    """Measure on the rows held out, of which some are enough; none of it decides anything."""
    truth = task.problem.truth[task.held_out]
    return Evidence(
        truth=truth,
        outputs=outputs,
        importances=_importances(task, chosen),
        curve=_learning_curve(task, chosen),
    )


def _importances(task: Task, chosen: Chosen) -> dict[str, float]:
    columns = task.problem.signature.columns
    most = int(np.clip(MOST_ANSWERS // (len(columns) * SHUFFLES), 50, MOST_ROWS))
    rows = np.flatnonzero(task.held_out)[:most]
    truth = task.problem.truth[rows]
    features = encode(task.problem.table, columns, rows)
    chance = np.random.default_rng(task.bench.seed)

    def loss(given: Features) -> float:
        said = chosen.model.answer(given).outputs
        return float(row_losses(task.metric, truth, said, task.weights).mean())

    whole = loss(features)
    found: dict[str, float] = {}
    for i, column in enumerate(columns):
        losses = [
            loss(_shuffled(features, i, chance.permutation(len(rows)))) for _ in range(SHUFFLES)
        ]
        found[column.name] = float(np.mean(losses)) - whole
    return found


def _shuffled(features: Features, column: int, order: npt.NDArray[np.int64]) -> Features:
    if isinstance(features, np.ndarray):
        changed = features.copy()
        changed[:, column] = features[order, column]
        return changed
    name = f"column_{column}"
    return features.assign(**{name: features[name].to_numpy()[order]})


def _learning_curve(task: Task, chosen: Chosen) -> list[Step]:
    """On the rows that candidates were compared on, with one fold of them unseen."""
    known, unseen = task.folds[-1]
    features = encode(task.problem.table, task.problem.signature.columns, task.tuning)
    labels, truth = task.problem.labels[task.tuning], task.problem.truth[task.tuning]
    order = np.random.default_rng(task.bench.seed).permutation(known)
    steps = []
    for share in CURVE:
        part = order[: max(2, int(len(order) * share))]
        if task.bench.signature.classes is not None and len(np.unique(truth[part])) < len(
            np.unique(truth)
        ):
            continue  # too few rows to know every class
        seen = take(features, part)
        pipeline = clone(build(chosen.candidate, task.bench, seen))
        try:
            fit(pipeline, seen, labels[part])
            unseen_loss, fitted_loss = (
                row_losses(
                    task.metric, truth[rows], answer(pipeline, take(features, rows)), task.weights
                )
                for rows in (unseen[:MOST_ROWS], part[:MOST_ROWS])
            )
        except ValueError:
            continue  # too extreme
        steps.append(
            Step(len(part), score(task.metric, unseen_loss), score(task.metric, fitted_loss))
        )
    return steps
