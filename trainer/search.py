"""The search for the model to serve: the best in cross-validation that survives the export."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from trainer.candidates import NAMES, build, cross_validate, fit
from trainer.columns import Problem, encode
from trainer.errors import ExportError, TrainerError
from trainer.export import OnnxModel, prove_equal, to_onnx
from trainer.kinds import Mask, Metric
from trainer.scoring import score
from trainer.split import assign_folds

MANY_ROWS = 10_000  # above, three folds tell as much as five
UNSEEN = "a category no training held"

# Called with what begins now and the share of the work that is done, 0 to 1.
Report = Callable[[str, float], None]


@dataclass
class Tried:
    """How a candidate fared: its metric in cross-validation, and why it is out, if it is."""

    score: float | None = None
    dropped: str | None = None


@dataclass(frozen=True)
class Chosen:
    """The candidate to serve: fitted on the training rows, and proved to answer alike as ONNX."""

    name: str
    pipeline: Pipeline
    onnx: bytes
    model: OnnxModel
    tried: dict[str, Tried]


def choose(
    problem: Problem, held_out: Mask, *, metric: Metric, seed: int, threads: int, report: Report
) -> Chosen:
    """Try every candidate on the training rows, and fit the best.

    Args:
        held_out: [N] rows that nothing is fitted on; the export is proved on them.
        threads: at most that many in a fit that spreads its work itself.

    Raises:
        DataError: the classes are too small to cross-validate.
        TrainerError: no candidate can be fitted and exported.
    """
    training = ~held_out
    features = encode(problem.table, problem.signature.columns)
    seen, labels, truth = features[training], problem.labels[training], problem.truth[training]
    most = 3 if len(labels) > MANY_ROWS else 5
    folds = assign_folds(problem, seed=seed, training=training, most=most)[training]

    def unfitted(name: str) -> Pipeline:
        return build(name, problem.signature, seen, seed=seed, jobs=threads)

    tried = {name: Tried() for name in NAMES}
    ranking: list[tuple[float, str]] = []
    for position, (name, result) in enumerate(tried.items()):
        report(f"cross-validating {name}", 0.1 + 0.2 * position)
        try:
            losses = cross_validate(unfitted(name), seen, labels, truth, folds=folds, metric=metric)
        except ValueError:
            result.dropped = "The values are too extreme to fit it."
            continue
        result.score = score(metric, losses)
        ranking.append((float(losses.mean()), name))

    probes = [features[held_out], encode(_with_gaps(problem, held_out), problem.signature.columns)]
    for _, name in sorted(ranking):
        report(f"fitting {name}", 0.75)
        pipeline = fit(unfitted(name), seen, labels)
        if name == "random_forest":
            pipeline[-1].set_params(n_jobs=1)  # served, many predictions share the processors
        try:
            onnx = to_onnx(pipeline, problem.signature)
            model = OnnxModel(onnx, problem.signature)
            for probe in probes:
                prove_equal(model, pipeline, probe)
        except ExportError as error:
            tried[name].dropped = str(error)
            continue
        return Chosen(name=name, pipeline=pipeline, onnx=onnx, model=model, tried=tried)
    told = " ".join(f"{name}: {result.dropped}" for name, result in tried.items())
    raise TrainerError(f"No candidate can be served. {told}")


def _with_gaps(problem: Problem, held_out: Mask) -> pd.DataFrame:
    """A held-out row with each column missing in turn, with all missing, and with unseen text."""
    columns = problem.signature.columns
    texts = [i for i, column in enumerate(columns) if column.kind == "text"]
    one = problem.table[held_out].iloc[:1].to_numpy(dtype=object)
    rows = np.repeat(one, len(columns) + 1 + len(texts), axis=0)
    rows[np.arange(len(columns)), np.arange(len(columns))] = np.nan
    rows[len(columns)] = np.nan
    rows[np.arange(len(columns) + 1, len(rows)), texts] = UNSEEN
    return pd.DataFrame(rows, columns=problem.table.columns, dtype=str)
