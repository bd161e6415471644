"""The search for the model to serve: the best in cross-validation that survives the export."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from trainer.candidates import (
    MAX_CATEGORIES,
    Candidate,
    Workbench,
    build,
    cross_validate,
    fit,
    variants,
)
from trainer.columns import Problem, encode, encode_in_turn
from trainer.errors import ExportError, TrainerError
from trainer.export import Model, OnnxModel, PickledModel, prove_equal, to_onnx
from trainer.kinds import Family, Features, Floats, Hashes, Indices, Mask, Metric
from trainer.scoring import score
from trainer.split import Fold, make_folds, thin_out

FEW_ROWS = 1_000  # up to here five folds tell more than three
TUNING_ROWS = 8_000
TUNED_FAMILIES = 2
TOO_EXTREME = "The values are too extreme to fit it."
UNSEEN = "a category no training held"

# Fitting takes this many times the encoded rows: as given, imputed, as float64, binned, and more.
COPIES_OF_FEATURES = 7
# Of the size of the data, for the table and the fit; reading takes some more before.
MEMORY_PER_DATA = 3.0
LEAST_MEMORY = 64 * 1024**2

# Called with what begins now and the share of the work that is done, 0 to 1.
Report = Callable[[str, float], None]


@dataclass
class Tried:
    """How a candidate fared: its metric in cross-validation, and why it is out, if it is."""

    score: float | None = None
    dropped: str | None = None


@dataclass(frozen=True)
class Task:
    """What the candidates are tried on.

    Args:
        rows: the training rows that are fitted on, ascending.
        tuning: those of them that candidates are compared on, and `folds` of these.
        weights: [classes] what a row of each class counts, or None.
    """

    problem: Problem
    held_out: Mask
    rows: Indices
    tuning: Indices
    folds: list[Fold]
    metric: Metric
    weights: Floats | None
    bench: Workbench


@dataclass(frozen=True)
class Chosen:
    """The candidate to serve: fitted on the training rows, and proved to answer alike as ONNX.

    `onnx` is None if no candidate has an ONNX form: then `model` is the pipeline itself.
    """

    candidate: Candidate
    pipeline: Pipeline
    onnx: bytes | None
    model: Model
    tried: dict[str, Tried] = field(default_factory=dict)


def lay_out(
    problem: Problem,
    hashes: Hashes,
    held_out: Mask,
    *,
    metric: Metric,
    weights: Floats | None,
    bench: Workbench,
    data_bytes: int,
) -> Task:
    """Pick the rows to fit on and to compare on.

    Args:
        data_bytes: size of the data: fitting takes a fixed multiple of it, and of more rows than
            fit into that, a sample by hash is taken.

    Raises:
        DataError: the classes are too small to cross-validate.
    """
    used = int(problem.table.memory_usage(index=False).sum())
    memory = max(MEMORY_PER_DATA * data_bytes - used, LEAST_MEMORY)
    most = int(memory / (COPIES_OF_FEATURES * _encoded_bytes(problem)))
    rows = thin_out(problem, hashes, among=~held_out, most=most)
    training = np.zeros(len(held_out), dtype=np.bool_)
    training[rows] = True
    tuning = thin_out(problem, hashes, among=training, most=TUNING_ROWS)
    folds = make_folds(problem, hashes, rows=tuning, most=5 if len(tuning) <= FEW_ROWS else 3)
    return Task(problem, held_out, rows, tuning, folds, metric, weights, bench)


def choose(task: Task, families: list[Family], *, report: Report) -> Chosen:
    """Compare the families, tune the best, and fit the best of all that can be exported.

    Raises:
        TrainerError: no candidate can be fitted.
    """
    features = encode(task.problem.table, task.problem.signature.columns, task.tuning)
    tried: dict[str, Tried] = {}
    ranking: list[tuple[float, int, Candidate]] = []

    def try_out(candidate: Candidate) -> None:
        told = tried[candidate.name] = Tried()
        try:
            losses = _cross_validate(task, candidate, features)
        except ValueError:
            told.dropped = TOO_EXTREME
            return
        told.score = score(task.metric, losses)
        ranking.append((float(losses.mean()), len(tried), candidate))

    is_classifier = task.bench.signature.classes is not None
    options = {name: variants(name, is_classifier=is_classifier) for name in families}
    for position, name in enumerate(options):
        report(f"cross-validating {name}", 0.1 + 0.3 * position / len(options))
        try_out(options[name][0])
    best = [candidate.family for *_, candidate in sorted(ranking)[:TUNED_FAMILIES]]
    wanted = [candidate for name in best for candidate in options[name][1:]]
    for position, candidate in enumerate(wanted):
        report(f"tuning {candidate.name}", 0.4 + 0.3 * position / len(wanted))
        try_out(candidate)
    return _fit_best(task, [candidate for *_, candidate in sorted(ranking)], tried, report)


def _fit_best(
    task: Task, ranking: list[Candidate], tried: dict[str, Tried], report: Report
) -> Chosen:
    """The first that exports; if none does, the first of all, to be served by joblib."""
    failed: set[Family] = set()
    spare: Chosen | None = None
    for candidate in ranking:
        if candidate.family in failed and spare is not None:
            continue  # what has no ONNX form has none with other parameters either
        report(f"fitting {candidate.name}", 0.7)
        try:
            pipeline = _fit(task, candidate)
            onnx = to_onnx(pipeline, task.bench.signature)
            model = OnnxModel(onnx, task.bench.signature)
            for probe in _probes(task):
                prove_equal(model, pipeline, probe)
        except ValueError:  # of scikit-learn: it takes no infinity, which its own steps can make
            tried[candidate.name].dropped = TOO_EXTREME
            continue
        except ExportError as error:
            tried[candidate.name].dropped = str(error)
            failed.add(candidate.family)
            if spare is None:
                is_classifier = task.bench.signature.classes is not None
                spare = Chosen(
                    candidate, pipeline, None, PickledModel(pipeline, is_classifier), tried
                )
            continue
        return Chosen(candidate, pipeline, onnx, model, tried)
    if spare is not None:
        return spare
    told = " ".join(f"{name}: {result.dropped}" for name, result in tried.items())
    raise TrainerError(f"No candidate can be fitted. {_describe_largest(task.problem)} {told}")


def _describe_largest(problem: Problem) -> str:
    """Name the largest number of all, the usual reason why nothing can be fitted."""
    numbers: dict[str, float] = {}
    for column in problem.signature.columns:
        values = problem.table[column.name]
        if column.kind == "number" and values.notna().any():
            numbers[column.name] = float(values.iloc[int(values.abs().argmax())])
    if problem.signature.classes is None:
        numbers[problem.signature.target] = float(problem.truth[np.abs(problem.truth).argmax()])
    if not numbers:
        return ""
    name = max(numbers, key=lambda each: abs(numbers[each]))
    return f"The largest number is {numbers[name]:.6g}, in column {name!r}."


def _cross_validate(task: Task, candidate: Candidate, features: Features) -> Floats:
    return cross_validate(
        build(candidate, task.bench, features),
        features,
        task.problem.labels[task.tuning],
        task.problem.truth[task.tuning],
        folds=task.folds,
        metric=task.metric,
        weights=task.weights,
    )


def _fit(task: Task, candidate: Candidate) -> Pipeline:
    features = encode(task.problem.table, task.problem.signature.columns, task.rows)
    pipeline = build(candidate, task.bench, features)
    with threadpool_limits(task.bench.jobs):
        fit(pipeline, features, task.problem.labels[task.rows])
    if candidate.family == "random_forest":
        pipeline[-1].set_params(n_jobs=1)  # served, many predictions share the processors
    return pipeline


def _probes(task: Task) -> Iterator[Features]:
    """The rows held out; and a row with each column missing, all missing, and unseen text."""
    table, columns = task.problem.table, task.problem.signature.columns
    rows = np.flatnonzero(task.held_out)
    yield from encode_in_turn(table, columns, rows)

    texts = [i for i, column in enumerate(columns) if column.kind == "text"]
    odd = encode(table, columns, np.repeat(rows[:1], len(columns) + 1 + len(texts)))
    everything = list(range(len(columns)))
    if isinstance(odd, np.ndarray):
        odd[everything, everything] = odd[len(columns)] = np.nan
        yield odd
        return
    for i in everything:
        values = odd[f"column_{i}"].to_numpy(copy=True)
        values[[i, len(columns)]] = "" if i in texts else np.nan
        if i in texts:
            values[len(columns) + 1 + texts.index(i)] = UNSEEN
        odd[f"column_{i}"] = values
    yield odd


def _encoded_bytes(problem: Problem) -> int:
    """Bytes of a row as models are fitted on it: float32 cells, text as one cell per category."""
    total = 0
    for column in problem.signature.columns:
        values: pd.Series = problem.table[column.name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            total += 8 + 4 * min(len(values.cat.categories), MAX_CATEGORIES)
        else:
            total += 4
    return total
