"""Whether a candidate may be released: better than knowing nothing, no worse than what is live."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.kinds import Floats, Metric
from trainer.scoring import score

# Of the loss of knowing nothing: differences below this share are too small to care about.
CARE_SHARE = 0.01


@dataclass(frozen=True)
class Verdict:
    """`reasons` says in sentences why the gate failed; it is empty if it passed.

    The margins are in the unit of the mean row loss: squared for `rmse`, a share for `accuracy`.
    """

    reasons: list[str]
    dummy_margin: float
    live_margin: float | None

    @property
    def gate(self) -> Literal["passed", "failed"]:
        """As the manifest says it."""
        return "failed" if self.reasons else "passed"


def judge(*, metric: Metric, candidate: Floats, dummy: Floats, live: Floats | None) -> Verdict:
    """Compare the row losses [N] of the three on the same rows that none of them was fitted on.

    The candidate must beat the dummy by more than a margin, and may be behind the live version
    by no more than one. The margin is the standard error of the paired differences (what chance
    would do), or 1 % of the dummy's loss where that is more. So a candidate as good as the live
    version passes.
    """
    care = CARE_SHARE * float(dummy.mean())
    dummy_margin = max(_standard_error(dummy - candidate), care)
    live_margin = None if live is None else max(_standard_error(candidate - live), care)
    told = f"{metric} {score(metric, candidate):.4g}"

    reasons = []
    if float((dummy - candidate).mean()) <= dummy_margin:
        reasons.append(
            f"It does not beat knowing nothing: {told}, against {score(metric, dummy):.4g}."
        )
    if live is not None and float((candidate - live).mean()) > (live_margin or 0.0):
        reasons.append(
            f"It is worse than the live version: {told}, against {score(metric, live):.4g}."
        )
    return Verdict(reasons=reasons, dummy_margin=dummy_margin, live_margin=live_margin)


def _standard_error(differences: Floats) -> float:
    count = len(differences)
    return float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
