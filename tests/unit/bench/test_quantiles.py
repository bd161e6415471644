"""Quantiles of histograms."""

from bench.quantiles import quantile


def test_the_quantile_is_the_bound_of_its_bucket_over_all_series() -> None:
    buckets = [
        *[({"le": bound, "path": "fast"}, count) for bound, count in (("0.001", 90), ("+Inf", 90))],
        ({"le": "0.001", "path": "slow"}, 0),
        ({"le": "0.01", "path": "slow"}, 9),
        ({"le": "0.01", "path": "fast"}, 90),
        ({"le": "+Inf", "path": "slow"}, 10),
    ]

    assert quantile(buckets, 0.5) == 0.001
    assert quantile(buckets, 0.99) == 0.01
    assert quantile(buckets, 0.999) == float("inf")


def test_a_histogram_without_observations_has_no_quantile() -> None:
    assert quantile([], 0.999) is None
    assert quantile([({"le": "+Inf"}, 0.0)], 0.999) is None
