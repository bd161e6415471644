"""When a canary is worse than the live version, and when it is too early to decide."""

import pytest

from services.inference.rollouts.canary import rollout_bucket
from services.inference.rollouts.judge import MIN_SAMPLE, SAMPLE_KEPT, VersionStats, find_fault


def sample(*, answers: int = 0, seconds: float = 0.001, failures: int = 0) -> VersionStats:
    made = VersionStats()
    for _ in range(answers):
        made.add_answer(seconds)
    for _ in range(failures):
        made.add_failure()
    return made


class TestRolloutBucket:
    def test_a_canary_of_30_percent_is_30_percent_of_the_accounts(self) -> None:
        places = [rollout_bucket(f"account-{i}", model="wine", version="v") for i in range(1_000)]

        assert 270 <= sum(place < 30 for place in places) <= 330
        assert all(0 <= place < 100 for place in places)

    def test_an_account_has_a_fixed_bucket_that_differs_between_canaries(self) -> None:
        first, again = (rollout_bucket("account", model="wine", version="v") for _ in range(2))

        assert first == again
        assert first != rollout_bucket("account", model="wine", version="w")
        assert first != rollout_bucket("account", model="beer", version="v")


class TestFaults:
    def test_too_few_requests_give_no_decision(self) -> None:
        canary = sample(failures=MIN_SAMPLE - 1)

        assert find_fault(canary, sample(answers=500)) is None

    def test_failures_beyond_the_margin_are_a_fault_with_figures(self) -> None:
        fault = find_fault(sample(answers=95, failures=5), sample(answers=499, failures=1))

        assert fault == "failed 5 of 100 requests, the live version 1 of 500"

    def test_as_many_failures_as_the_live_version_are_no_fault(self) -> None:
        assert find_fault(sample(answers=95, failures=5), sample(answers=95, failures=5)) is None

    def test_a_canary_of_100_percent_is_judged_by_failures_alone(self) -> None:
        assert find_fault(sample(answers=90, failures=10), VersionStats()) is not None
        assert find_fault(sample(answers=100, seconds=9), VersionStats()) is None

    def test_much_slower_is_a_fault(self) -> None:
        fault = find_fault(sample(answers=100, seconds=0.05), sample(answers=100, seconds=0.01))

        assert fault is not None
        assert fault.startswith("takes ")

    @pytest.mark.parametrize(("canary_s", "live_s"), [(0.004, 0.0001), (0.015, 0.01)])
    def test_slightly_slower_is_no_fault(self, canary_s: float, live_s: float) -> None:
        canary = sample(answers=100, seconds=canary_s)

        assert find_fault(canary, sample(answers=100, seconds=live_s)) is None

    def test_a_good_past_does_not_hide_a_bad_present(self) -> None:
        canary = sample(answers=50 * SAMPLE_KEPT)
        for _ in range(60):
            canary.add_failure()

        assert canary.requests < SAMPLE_KEPT
        assert find_fault(canary, sample(answers=500)) is not None

    def test_the_90th_percentile_is_accurate_to_20_percent(self) -> None:
        for seconds in (0.00002, 0.001, 0.3, 40.0):
            found = sample(answers=100, seconds=seconds).slow_s
            assert seconds <= found <= 1.2 * seconds
