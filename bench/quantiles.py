"""Quantiles of Prometheus histograms."""

from collections.abc import Iterable, Mapping


def quantile(buckets: Iterable[tuple[Mapping[str, str], float]], q: float) -> float | None:
    """Return the upper bound of the bucket that contains a quantile; None without observations.

    Args:
        buckets: the labels and values of a histogram's `_bucket` samples; series are added up.
    """
    counts: dict[float, float] = {}
    for labels, count in buckets:
        bound = float(labels["le"])
        counts[bound] = counts.get(bound, 0.0) + count
    total = counts.get(float("inf"), 0.0)
    if not total:
        return None
    return next(bound for bound, count in sorted(counts.items()) if count >= q * total)
