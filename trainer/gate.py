"""Whether a candidate may be released: better than knowing nothing, no worse than what is live."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.kinds import Floats, Indices, Metric
from trainer.scoring import score

# Of the loss of knowing nothing: differences below this share are too small to care about.
CARE_SHARE = 0.01
ROUNDS = 1000
MOST_UNITS = 5_000
QUANTILES = (0.1, 0.9)


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
        gain: the loss of knowing nothing, less the candidate's.
        lag: the candidate's loss less the live version's; None if that could not be asked.
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

    The candidate must beat the dummy, and must not be beaten by the live version: by more than 1 %
    of the dummy's loss, and by so much that nine of ten paired bootstrap samples say so too. So a
    candidate as good as the live version passes.

    Args:
        groups: [N] of rows that belong together and are drawn together; None for each by itself.
    """
    margin = CARE_SHARE * float(dummy.mean())
    gain = _compare(dummy - candidate, margin=margin, seed=seed, groups=groups)
    told = f"{metric} {score(metric, candidate):.4g}"

    reasons, lag = [], None
    if not gain.is_positive:
        reasons.append(
            f"It does not beat knowing nothing: {told}, against {score(metric, dummy):.4g}."
        )
    if live is not None:
        lag = _compare(candidate - live, margin=margin, seed=seed, groups=groups)
        if lag.is_positive:
            reasons.append(
                f"It is worse than the live version: {told}, against {score(metric, live):.4g}."
            )
    return Verdict(reasons=reasons, gain=gain, lag=lag)


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
