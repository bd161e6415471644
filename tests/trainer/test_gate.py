"""The gate's rule, on row losses made by hand."""

import numpy as np
import pytest

from trainer.gate import judge

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
        (1.5 * ONES, 2.0 * ONES, "failed"),  # better than a live version that is useless too
    ],
)
def test_a_candidate_beats_the_dummy_and_keeps_up_with_the_live_version(
    candidate: np.ndarray, live: np.ndarray | None, gate: str
) -> None:
    verdict = judge(metric="mae", candidate=candidate, dummy=ONES, live=live, seed=0)

    assert bool(verdict.reasons) == (gate == "failed")


def test_what_chance_would_do_is_no_reason() -> None:
    noise = np.random.default_rng(0).normal(scale=0.5, size=100)
    candidate, live = 0.5 + noise, np.full(100, 0.5 + noise.mean() - 0.03)

    verdict = judge(metric="mae", candidate=candidate, dummy=2 * ONES, live=live, seed=0)

    assert verdict.reasons == []
