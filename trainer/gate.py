"""Whether a candidate may be released: better than the baseline, no worse than what is live."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.kinds import Floats, Indices, Metric
from trainer.scoring import score

# Of the baseline's loss: differences up to this share are too small to care about.
CARE_SHARE = 0.01
ROUNDS = 1000
MOST_UNITS = 5_000
QUANTILES = (0.1, 0.9)
# What the mean row loss of a metric is.
UNITS: dict[Metric, str] = {
    "log_loss": "log loss",
    "accuracy": "error rate",
    "rmse": "mean squared error",
    "mae": "mean absolute error",
}


@dataclass(frozen=True)
class Difference:
    """The mean row loss of one model less that of another, and what chance could make of it.

    Args:
        low, high: the middle 80 % of the differences in the bootstrap.
        margin: what is too small to care about. All in the unit of the mean row loss: squared for
            `rmse`, a share for `accuracy`.
    """

    mean: float
    low: float
    high: float
    margin: float

    @property
    def is_positive(self) -> bool:
        """Whether it is more than the margin, and more than chance would do."""
        return self.mean > self.margin and self.low > 0.0


@dataclass(frozen=True)
class Verdict:
    """`reasons` says in sentences why the gate failed; it is empty if it passed.

    Args:
        gain: the baseline's loss, less the candidate's.
        lag: the candidate's loss less the live version's; None if there is nothing to compare.
    """

    reasons: list[str]
    gain: Difference
    lag: Difference | None


def judge(
    *,
    metric: Metric,
    candidate: Floats,
    dummy: Floats,
    live: Floats | None,
    seed: int,
    groups: Indices | None = None,
) -> Verdict:
    """Compare the row losses [N] of the three on the same rows that none of them was fitted on.

    The candidate must beat the baseline, `dummy`, and must not be beaten by the live version: by
    more than 1 % of the baseline's loss, and in nine of ten paired bootstrap samples. So a
    candidate as good as the live version passes.

    Args:
        groups: [N] of rows that belong together and are drawn together; None for each by itself.
    """
    margin = CARE_SHARE * float(dummy.mean())
    gain = _compare(dummy - candidate, margin=margin, seed=seed, groups=groups)
    ours, baseline = score(metric, candidate), score(metric, dummy)

    reasons, lag = [], None
    if not gain.is_positive:
        reasons.append(_explain_gain(gain, metric=metric, ours=ours, baseline=baseline))
    if live is not None:
        lag = _compare(candidate - live, margin=margin, seed=seed, groups=groups)
        if lag.is_positive:
            reasons.append(
                f"It is worse than the live version: {metric} {ours:.4g}, against "
                f"{score(metric, live):.4g}. {_show_interval('loss', lag, metric)}"
            )
    return Verdict(reasons=reasons, gain=gain, lag=lag)


def _explain_gain(gain: Difference, *, metric: Metric, ours: float, baseline: float) -> str:
    """Say why a candidate does not beat the baseline, by the check that failed."""
    compared = f"{metric} {ours:.4g}, against {baseline:.4g}"
    if gain.mean <= 0.0:
        return f"It does not beat the baseline: {compared}."
    if gain.mean <= gain.margin:
        return (
            f"It does not beat the baseline by enough: {compared}. The gain in {UNITS[metric]} is "
            f"{gain.mean:.3g}; more than {gain.margin:.3g} is needed."
        )
    interval = _show_interval("gain", gain, metric)
    return f"It may beat the baseline by chance only: {compared}. {interval}"


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
    """Sums and counts of what is drawn together: groups, or rows, many rows in random bundles."""
    if groups is not None:
        _, unit = np.unique(groups, return_inverse=True)
    elif len(differences) > MOST_UNITS:
        unit = np.random.default_rng(seed).permutation(len(differences)) % MOST_UNITS
    else:
        return differences, np.ones(len(differences))
    return np.bincount(unit, weights=differences).astype(np.float64), np.bincount(unit)
