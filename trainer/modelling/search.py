"""Search for the model to serve: the best in cross-validation that can be exported."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.origins import Origin, PipelineOrigin
from registry.records import Signature
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import PipelineRuntime
from trainer.data.problem import Problem
from trainer.errors import ExportError, TrainerError
from trainer.modelling.candidates import Candidate, build, own_candidates, variants
from trainer.modelling.encoding import encode
from trainer.modelling.experiment import Experiment
from trainer.modelling.export import to_onnx
from trainer.modelling.fitting import cross_validate, fit
from trainer.modelling.metrics import score
from trainer.modelling.own_pipeline import ARTEFACT, MODULE
from trainer.modelling.pickling import dump_by_value, load_recording
from trainer.modelling.proving import find_required_columns, prove_on_rows
from trainer.modelling.serving import load_onnx
from trainer.types import Family, Features, Floats, Indices, Source

TUNED_FAMILIES = 2
TOO_EXTREME = "The values are too extreme to fit it."

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

    Args:
        pickled: the pipeline as a pickle, if joblib's own would not do.
        origin: where a model that is the owner's comes from.
        required: the columns in which such a model takes no missing value.
        artefacts: more files of the version, by name.
    """

    candidate: Candidate
    pipeline: Pipeline
    onnx: bytes | None
    runtime: Runtime
    pickled: bytes | None = None
    origin: Origin | None = None
    required: list[str] = field(default_factory=list)
    artefacts: dict[str, bytes] = field(default_factory=dict)
    results: dict[str, CandidateResult] = field(default_factory=dict)


def search_models(
    experiment: Experiment,
    families: list[Family],
    *,
    serves_pickles: bool,
    report_progress: ProgressCallback,
) -> ChosenModel:
    """Compare the families, tune the best ones, and fit the best candidate that can be exported.

    The owner's training code competes with them, if there is some.

    Args:
        serves_pickles: whether the owner's model is chosen without an ONNX form if it is the best.

    Raises:
        TrainerError: no candidate can be fitted, or the owner's code failed.
    """
    results: dict[str, CandidateResult] = {}
    ranking: list[tuple[float, int, Candidate]] = []

    def evaluate(candidate: Candidate, features: Features) -> None:
        result = results[candidate.name] = CandidateResult()
        try:
            with _running(experiment, candidate):
                losses = _cross_validate(experiment, candidate, features)
        except ValueError:
            result.dropped = TOO_EXTREME
            return
        result.score = score(experiment.metric, losses)
        ranking.append((float(losses.mean()), len(results), candidate))

    is_classifier = experiment.context.signature.classes is not None
    if (own := experiment.context.own) is not None:
        features = _encode(experiment, experiment.tuning, expanded=False)
        for candidate in own_candidates(own):  # first, because the code may be faulty
            report_progress(f"cross-validating {candidate.name}", 0.1)
            evaluate(candidate, features)
        families = [] if own.file.only else families
    features = _encode(experiment, experiment.tuning, expanded=True)
    options = {name: variants(name, is_classifier=is_classifier) for name in families}
    for position, name in enumerate(options):
        report_progress(f"cross-validating {name}", 0.1 + 0.3 * position / len(options))
        evaluate(options[name][0], features)
    best = [each.family for *_, each in sorted(ranking) if each.family in options][:TUNED_FAMILIES]
    wanted = [candidate for name in best for candidate in options[name][1:]]
    for position, candidate in enumerate(wanted):
        report_progress(f"tuning {candidate.name}", 0.4 + 0.3 * position / len(wanted))
        evaluate(candidate, features)
    return _fit_best(
        experiment,
        [candidate for *_, candidate in sorted(ranking)],
        results,
        serves_pickles=serves_pickles,
        report_progress=report_progress,
    )


def _fit_best(
    experiment: Experiment,
    ranking: list[Candidate],
    results: dict[str, CandidateResult],
    *,
    serves_pickles: bool,
    report_progress: ProgressCallback,
) -> ChosenModel:
    """Return the best candidate that exports to ONNX; without one, the best to serve by joblib."""
    signature = experiment.context.signature
    failed: set[Source] = set()
    spare: ChosenModel | None = None
    for candidate in ranking:
        if candidate.family in failed and spare is not None:
            continue  # other parameters of the family would not export either
        report_progress(f"fitting {candidate.name}", 0.7)
        try:
            with _running(experiment, candidate):
                pipeline = _fit(experiment, candidate)
                owned = _describe_own(experiment, candidate, pipeline)
                onnx = to_onnx(pipeline, signature)
                runtime = load_onnx(onnx, signature, expands=candidate.expands)
                prove_on_rows(experiment, runtime, pipeline)
        except ValueError:  # scikit-learn rejects infinities, which its own steps can produce
            results[candidate.name].dropped = TOO_EXTREME
            continue
        except ExportError as error:
            results[candidate.name].dropped = str(error)
            failed.add(candidate.family)
            if spare is None:
                spare = ChosenModel(
                    candidate,
                    pipeline,
                    None,
                    _serve_pickle(pipeline, owned, signature),
                    **owned,
                    results=results,
                )
            if candidate.family == "pipeline" and serves_pickles:
                break
            continue
        return ChosenModel(candidate, pipeline, onnx, runtime, **owned, results=results)
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
    features = _encode(experiment, experiment.rows, expanded=candidate.expands)
    pipeline = build(candidate, experiment.context, features)
    with threadpool_limits(experiment.context.jobs):
        fit(pipeline, features, experiment.problem.labels[experiment.rows])
    model = pipeline[-1]
    threads = [name for name, n in model.get_params().items() if name.endswith("n_jobs") and n]
    model.set_params(**dict.fromkeys(threads, 1))  # when served, many predictions share the CPUs
    return pipeline


def _encode(experiment: Experiment, rows: Indices, *, expanded: bool) -> Features:
    problem = experiment.problem
    return encode(problem.table, problem.signature, rows, expanded=expanded)


def _running(experiment: Experiment, candidate: Candidate) -> AbstractContextManager[None]:
    """Guard the code of a candidate if it is the owner's."""
    own = experiment.context.own
    if own is None or candidate.family != "pipeline":
        return nullcontext()
    return own.running("the estimator cannot be used")


def _describe_own(
    experiment: Experiment, candidate: Candidate, pipeline: Pipeline
) -> dict[str, Any]:
    """Return the fields of `ChosenModel` that only a model of the owner's has.

    Raises:
        TrainerError: it cannot be pickled, or the pickle cannot be loaded.
    """
    own = experiment.context.own
    if own is None or candidate.family != "pipeline":
        return {}
    pickled = dump_by_value(pipeline, MODULE)
    origin = PipelineOrigin(
        file=ARTEFACT,
        function=own.file.function,
        commit=own.commit,
        requires=load_recording(pickled)[1],
    )
    return {
        "pickled": pickled,
        "origin": origin,
        "required": find_required_columns(experiment, pipeline),
        "artefacts": {ARTEFACT: own.source},
    }


def _serve_pickle(
    pipeline: Pipeline, owned: dict[str, Any], signature: Signature
) -> PipelineRuntime:
    """Return the runtime of a pipeline without an ONNX form; the owner's as inference loads it."""
    if "pickled" in owned:
        return PipelineRuntime(load_recording(owned["pickled"])[0], signature, expands=False)
    return PipelineRuntime(pipeline, signature)
