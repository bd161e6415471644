"""Search for the model to serve: the best in cross-validation that can be exported."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.features import feature_names
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import PipelineRuntime
from trainer.data.problem import Problem
from trainer.errors import ExportError, TrainerError
from trainer.modelling.candidates import Candidate, build, variants
from trainer.modelling.encoding import TEXTS, encode, encode_in_batches
from trainer.modelling.experiment import Experiment
from trainer.modelling.export import prove_equal, to_onnx
from trainer.modelling.fitting import cross_validate, fit
from trainer.modelling.metrics import score
from trainer.modelling.serving import load_onnx
from trainer.types import Family, Features, Floats

TUNED_FAMILIES = 2
TOO_EXTREME = "The values are too extreme to fit it."
UNSEEN = "a category that is not in training"

# Called with the step that starts and the share of the work that is done, 0 to 1.
ProgressCallback = Callable[[str, float], None]


@dataclass
class CandidateResult:
    """A candidate's metric in cross-validation, or why it was dropped."""

    score: float | None = None
    dropped: str | None = None


@dataclass(frozen=True)
class ChosenModel:
    """The candidate to serve, fitted on the training rows and proved equal to its ONNX form.

    Without an ONNX form (`onnx`), `runtime` runs the pipeline itself.
    """

    candidate: Candidate
    pipeline: Pipeline
    onnx: bytes | None
    runtime: Runtime
    results: dict[str, CandidateResult] = field(default_factory=dict)


def search_models(
    experiment: Experiment, families: list[Family], *, report_progress: ProgressCallback
) -> ChosenModel:
    """Compare the families, tunes the best ones, and fit the best candidate that can be exported.

    Raises:
        TrainerError: no candidate can be fitted.
    """
    features = encode(experiment.problem.table, experiment.problem.signature, experiment.tuning)
    results: dict[str, CandidateResult] = {}
    ranking: list[tuple[float, int, Candidate]] = []

    def evaluate(candidate: Candidate) -> None:
        result = results[candidate.name] = CandidateResult()
        try:
            losses = _cross_validate(experiment, candidate, features)
        except ValueError:
            result.dropped = TOO_EXTREME
            return
        result.score = score(experiment.metric, losses)
        ranking.append((float(losses.mean()), len(results), candidate))

    is_classifier = experiment.context.signature.classes is not None
    options = {name: variants(name, is_classifier=is_classifier) for name in families}
    for position, name in enumerate(options):
        report_progress(f"cross-validating {name}", 0.1 + 0.3 * position / len(options))
        evaluate(options[name][0])
    best = [candidate.family for *_, candidate in sorted(ranking)[:TUNED_FAMILIES]]
    wanted = [candidate for name in best for candidate in options[name][1:]]
    for position, candidate in enumerate(wanted):
        report_progress(f"tuning {candidate.name}", 0.4 + 0.3 * position / len(wanted))
        evaluate(candidate)
    return _fit_best(
        experiment, [candidate for *_, candidate in sorted(ranking)], results, report_progress
    )


def _fit_best(
    experiment: Experiment,
    ranking: list[Candidate],
    results: dict[str, CandidateResult],
    report_progress: ProgressCallback,
) -> ChosenModel:
    """Return the best candidate that exports to ONNX; without one, the best to serve by joblib."""
    signature = experiment.context.signature
    failed: set[Family] = set()
    spare: ChosenModel | None = None
    for candidate in ranking:
        if candidate.family in failed and spare is not None:
            continue  # other parameters of the family would not export either
        report_progress(f"fitting {candidate.name}", 0.7)
        try:
            pipeline = _fit(experiment, candidate)
            onnx = to_onnx(pipeline, signature)
            runtime = load_onnx(onnx, signature)
            for probe in _probes(experiment):
                prove_equal(runtime, pipeline, probe, signature)
        except ValueError:  # scikit-learn rejects infinities, which its own steps can produce
            results[candidate.name].dropped = TOO_EXTREME
            continue
        except ExportError as error:
            results[candidate.name].dropped = str(error)
            failed.add(candidate.family)
            if spare is None:
                unexported = PipelineRuntime(pipeline, signature)
                spare = ChosenModel(candidate, pipeline, None, unexported, results)
            continue
        return ChosenModel(candidate, pipeline, onnx, runtime, results)
    if spare is not None:
        return spare
    reasons = " ".join(f"{name}: {result.dropped}" for name, result in results.items())
    raise TrainerError(
        f"No candidate can be fitted. {_describe_largest(experiment.problem)} {reasons}"
    )


def _describe_largest(problem: Problem) -> str:
    """Name the largest number in the data, the usual reason why nothing can be fitted."""
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


def _cross_validate(experiment: Experiment, candidate: Candidate, features: Features) -> Floats:
    return cross_validate(
        build(candidate, experiment.context, features),
        features,
        experiment.problem.labels[experiment.tuning],
        experiment.problem.truth[experiment.tuning],
        folds=experiment.folds,
        metric=experiment.metric,
        weights=experiment.weights,
    )


def _fit(experiment: Experiment, candidate: Candidate) -> Pipeline:
    features = encode(experiment.problem.table, experiment.problem.signature, experiment.rows)
    pipeline = build(candidate, experiment.context, features)
    with threadpool_limits(experiment.context.jobs):
        fit(pipeline, features, experiment.problem.labels[experiment.rows])
    model = pipeline[-1]
    threads = [name for name, n in model.get_params().items() if name.endswith("n_jobs") and n]
    model.set_params(**dict.fromkeys(threads, 1))  # when served, many predictions share the CPUs
    return pipeline


def _probes(experiment: Experiment) -> Iterator[Features]:
    """Yield the held-out rows, and rows with missing values and unseen categories."""
    table, signature = experiment.problem.table, experiment.problem.signature
    columns = signature.columns
    rows = np.flatnonzero(experiment.held_out)
    yield from encode_in_batches(table, signature, rows)

    texts = [i for i, column in enumerate(columns) if column.kind in TEXTS]
    odd = encode(table, signature, np.repeat(rows[:1], len(columns) + 1 + len(texts)))
    if isinstance(odd, np.ndarray):
        everything = list(range(len(columns)))
        odd[everything, everything] = odd[len(columns)] = np.nan
        yield odd
        return
    for i, column in enumerate(columns):
        for name in feature_names(i, column):
            values = odd[name].to_numpy(copy=True)
            values[[i, len(columns)]] = "" if i in texts else np.nan
            if i in texts:
                values[len(columns) + 1 + texts.index(i)] = UNSEEN
            odd[name] = values
    yield odd
