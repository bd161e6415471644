"""Measure the chosen model on the held-out rows, and let the gate judge it."""

from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.diagnostics import Diagnostics, diagnose
from trainer.evaluation.gate import Verdict, judge
from trainer.evaluation.live import LivePredictions
from trainer.modelling.experiment import Experiment
from trainer.modelling.metrics import predict_baseline, row_losses, scores
from trainer.modelling.search import ChosenModel
from trainer.types import Outputs


@dataclass(frozen=True)
class Evaluation:
    """What the held-out rows show.

    Args:
        outputs: the model's outputs for the held-out rows.
        live: the live version's predictions; None if no version is live.
        metrics: as in the manifest.
    """

    outputs: Outputs
    live: LivePredictions | None
    verdict: Verdict
    metrics: dict[str, Any]
    diagnostics: Diagnostics


def evaluate_model(
    experiment: Experiment, chosen: ChosenModel, outputs: Outputs, live: LivePredictions | None
) -> Evaluation:
    """Compare the model with the baseline and the live version on the same rows.

    Args:
        outputs: the model's outputs for the held-out rows.
        live: the live version's outputs for the same rows; None if no version is live.
    """
    problem, metric, weights = experiment.problem, experiment.metric, experiment.weights
    signature, truth = problem.signature, problem.truth[experiment.held_out]
    known = problem.truth[~experiment.held_out]
    baseline = predict_baseline(signature, metric, known, rows=len(truth), weights=weights)
    live_outputs = live.outputs if live else None
    verdict = judge(
        metric=metric,
        candidate=row_losses(metric, truth, outputs, weights),
        baseline=row_losses(metric, truth, baseline, weights),
        live=None if live_outputs is None else row_losses(metric, truth, live_outputs, weights),
        seed=experiment.context.seed,
        groups=None if problem.groups is None else problem.groups[experiment.held_out],
    )
    metrics: dict[str, Any] = {
        "metric": metric,
        "balanced": weights is not None,
        "chosen": chosen.candidate.family,
        "parameters": {
            # An estimator may be a parameter of the owner's.
            name: value if isinstance(value, bool | int | float | str | None) else repr(value)
            for name, value in chosen.candidate.parameters.items()
        },
        "candidate": scores(signature, truth, outputs),
        # The stored name of the baseline, as in earlier manifests.
        "dummy": scores(signature, truth, baseline),
        "live": None,
        "candidates": {name: asdict(result) for name, result in chosen.results.items()},
        "rows": {"training": len(known), "held_out": len(truth)},
        "rows_read": problem.rows_read,
        "rows_without_target": problem.rows_read - len(problem.truth),
        "fitted_rows": len(experiment.rows),
        "gain": asdict(verdict.gain),
        "lag": None if verdict.lag is None else asdict(verdict.lag),
        "reasons": verdict.reasons,
    }
    if live is not None:
        measured = {} if live_outputs is None else scores(signature, truth, live_outputs)
        metrics["live"] = {"version": live.manifest.version, "note": live.note, **measured}
    return Evaluation(outputs, live, verdict, metrics, diagnose(experiment, chosen, outputs))
