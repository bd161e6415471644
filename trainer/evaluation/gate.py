"""The gate: a candidate must beat the baseline and must not be worse than the live version."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.modelling.metrics import score
from trainer.types import Floats, Indices, Metric

# Differences up to this share of the baseline's loss do not matter.
MARGIN_SHARE = 0.01
ROUNDS = 1000
MAX_UNITS = 5_000
QUANTILES = (0.1, 0.9)
# The name of each metric's mean row loss.
UNITS: dict[Metric, str] = {
    "log_loss": "log loss",
    "accuracy": "error rate",
    "rmse": "mean squared error",
    "mae": "mean absolute error",
}


@dataclass(frozen=True)
class Difference:
    """The difference between two models' mean row losses, with its bootstrap interval.

    All are in the unit of the mean row loss: squared for `rmse`, a share for `accuracy`.

    Args:
        low, high: the middle 80 % of the differences in the bootstrap.
        margin: differences up to this do not matter.
    """

    mean: float
    low: float
    high: float
    margin: float

    @property
    def is_positive(self) -> bool:
        """Return whether the difference exceeds the margin and is unlikely to be chance."""
        return self.mean > self.margin and self.low > 0.0


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    Args:
        reasons: sentences that explain why the gate failed; empty if it passed.
        gain: the baseline's loss minus the candidate's.
        lag: the candidate's loss minus the live version's; None if there is nothing to compare.
    """

    reasons: list[str]
    gain: Difference
    lag: Difference | None


def judge(
    *,
    metric: Metric,
    candidate: Floats,
    baseline: Floats,
    live: Floats | None,
    seed: int,
    groups: Indices | None = None,
) -> Verdict:
    """Compare the row losses [N] of the three models on rows that none of them was fitted on.

    The candidate must beat the baseline, and the live version must not beat the candidate. To
    beat is to be better by more than 1 % of the baseline's loss, and in nine of ten paired
    bootstrap samples. So a candidate as good as the live version passes.

    Args:
        groups: [N] group ids, to draw whole groups; None to draw single rows.
    """
    margin = MARGIN_SHARE * float(baseline.mean())
    gain = _compare(baseline - candidate, margin=margin, seed=seed, groups=groups)
    ours, theirs = score(metric, candidate), score(metric, baseline)

    reasons, lag = [], None
    if not gain.is_positive:
        reasons.append(_explain_gain(gain, metric=metric, ours=ours, baseline=theirs))
    if live is not None:
        lag = _compare(candidate - live, margin=margin, seed=seed, groups=groups)
        if lag.is_positive:
            reasons.append(
                f"It is worse than the live version: {metric} {ours:.4g}, against "
                f"{score(metric, live):.4g}. {_show_interval('loss', lag, metric)}"
            )
    return Verdict(reasons=reasons, gain=gain, lag=lag)


def _explain_gain(gain: Difference, *, metric: Metric, ours: float, baseline: float) -> str:
    """Explain why a candidate does not beat the baseline."""
    compared = f"{metric} {ours:.4g}, against {baseline:.4g}"
    if gain.mean <= 0.0:
        return f"It does not beat the baseline: {compared}."
    if gain.mean <= gain.margin:
        return (
            f"It does not beat the baseline by enough: {compared}. The gain in {UNITS[metric]} is "
            f"{gain.mean:.3g}; more than {gain.margin:.3g} is needed."
        )
    interval = _show_interval("gain", gain, metric)
    return f"It may beat the baseline only by chance: {compared}. {interval}"


def _show_interval(name: str, difference: Difference, metric: Metric) -> str:
    return (
        f"The {name} in {UNITS[metric]} is {difference.mean:.3g}; in 8 of 10 bootstrap samples it "
        f"is between {difference.low:.3g} and {difference.high:.3g}."
    )


def _compare(differences: Floats, *, margin: float, seed: int, groups: Any) -> Difference:
    sums, counts = _units(differences, seed=seed, groups=groups)
    chance = np.random.default_rng(seed)
    means = np.empty(ROUNDS)
    for i in range(ROUNDS):
        drawn = chance.integers(len(sums), size=len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, QUANTILES)
    return Difference(float(differences.mean()), float(low), float(high), margin)


def _units(
    differences: Floats, *, seed: int, groups: Indices | None
) -> tuple[Floats, npt.NDArray[Any]]:
    """Return the sum and row count of each unit the bootstrap draws.

    A unit is a group or a row; many rows are bundled at random.
    """
    if groups is not None:
        _, unit = np.unique(groups, return_inverse=True)
    elif len(differences) > MAX_UNITS:
        unit = np.random.default_rng(seed).permutation(len(differences)) % MAX_UNITS
    else:
        return differences, np.ones(len(differences))
    return np.bincount(unit, weights=differences).astype(np.float64), np.bincount(unit)
