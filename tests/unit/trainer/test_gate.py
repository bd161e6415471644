"""The gate's rule, on handmade row losses."""

import numpy as np
import pytest

from trainer.evaluation.gate import judge

ONES = np.ones(100)


@pytest.mark.parametrize(
    ("candidate", "live", "gate"),
    [
        (0.5 * ONES, None, "passed"),
        (ONES, None, "failed"),
        (0.995 * ONES, None, "failed"),  # within 1 % of the baseline
        (0.5 * ONES, 0.5 * ONES, "passed"),  # as good as the live version
        (0.5 * ONES, 0.495 * ONES, "passed"),  # worse, by less than matters
        (0.5 * ONES, 0.4 * ONES, "failed"),
        (1.5 * ONES, 2.0 * ONES, "failed"),  # better than the live version, but both are useless
    ],
)
def test_a_candidate_beats_the_baseline_and_keeps_up_with_the_live_version(
    candidate: np.ndarray, live: np.ndarray | None, gate: str
) -> None:
    verdict = judge(metric="mae", candidate=candidate, baseline=ONES, live=live, seed=0)

    assert bool(verdict.reasons) == (gate == "failed")


def test_a_difference_by_chance_is_not_a_reason() -> None:
    noise = np.random.default_rng(0).normal(scale=0.5, size=100)
    candidate, live = 0.5 + noise, np.full(100, 0.5 + noise.mean() - 0.03)

    verdict = judge(metric="mae", candidate=candidate, baseline=2 * ONES, live=live, seed=0)

    assert verdict.reasons == []


class TestReason:
    """The reason of a failed gate agrees with its numbers."""

    def reason(self, candidate: np.ndarray, live: np.ndarray | None = None) -> str:
        verdict = judge(metric="mae", candidate=candidate, baseline=ONES, live=live, seed=0)
        [reason] = verdict.reasons
        return reason

    def test_says_that_it_is_no_better(self) -> None:
        assert self.reason(1.5 * ONES) == "It does not beat the baseline: mae 1.5, against 1."

    def test_says_that_the_gain_is_too_small(self) -> None:
        assert self.reason(0.995 * ONES) == (
            "It does not beat the baseline by enough: mae 0.995, against 1. The gain in mean "
            "absolute error is 0.005; more than 0.01 is needed."
        )

    def test_says_by_chance_with_the_interval_if_that_is_the_reason(self) -> None:
        candidate = ONES.copy()
        candidate[:2] = -4.0  # two rows in a hundred make all of the gain

        reason = self.reason(candidate)

        interval = judge(metric="mae", candidate=candidate, baseline=ONES, live=None, seed=0).gain
        assert interval.low <= 0 < interval.margin < interval.mean
        assert reason.startswith("It may beat the baseline only by chance: mae 0.9, against 1. ")
        assert (
            f"is 0.1; in 8 of 10 bootstrap samples it is between {interval.low:.3g} and" in reason
        )

    def test_says_by_how_much_it_is_worse_than_the_live_version(self) -> None:
        assert self.reason(0.5 * ONES, 0.4 * ONES) == (
            "It is worse than the live version: mae 0.5, against 0.4. The loss in mean absolute "
            "error is 0.1; in 8 of 10 bootstrap samples it is between 0.1 and 0.1."
        )
