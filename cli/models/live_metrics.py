"""Combine the metrics of several inference processes into one summary per version."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def summarise(model: str, texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Combine the metrics of all processes by version.

    Returns:
        `rows` that drift was measured on; `psi` and `missing` by column; `prediction_psi`;
        `answers`, shares by bin; `feedback`, rows by outcome; `error`, the mean absolute error or
        None; `canary` and `shadow`, counts by outcome. Shares and indices are means weighted by
        rows; the index of the pooled rows would not be larger.
    """
    versions: dict[str, list[dict[str, dict[str, float]]]] = defaultdict(list)
    for text in texts:
        process: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                if labels.get("model") == model and "version" in labels:
                    detail = labels.get("column") or labels.get("bin") or labels.get("outcome", "")
                    process[labels["version"]][sample.name][detail] = sample.value
        for version, metrics in process.items():
            versions[version].append(metrics)
    return {version: _combine(processes) for version, processes in sorted(versions.items())}


def _combine(processes: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    def total(name: str) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for metrics in processes:
            for detail, value in metrics.get(name, {}).items():
                sums[detail] += value
        return dict(sums)

    def mean(name: str) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        weights: dict[str, float] = defaultdict(float)
        for metrics in processes:
            weight = metrics.get("tollgate_drift_rows", {}).get("", 0.0)
            for detail, value in metrics.get(name, {}).items():
                sums[detail] += weight * value
                weights[detail] += weight
        return {detail: sums[detail] / weights[detail] for detail in sums if weights[detail]}

    errors = total("tollgate_feedback_absolute_error_count").get("", 0.0)
    error_sum = total("tollgate_feedback_absolute_error_sum").get("", 0.0)
    return {
        "rows": total("tollgate_drift_rows").get("", 0.0),
        "psi": mean("tollgate_drift_column_psi"),
        "missing": mean("tollgate_drift_column_missing_ratio"),
        "prediction_psi": mean("tollgate_drift_prediction_psi").get(""),
        "answers": mean("tollgate_drift_prediction_ratio"),
        "feedback": total("tollgate_feedback_rows_total"),
        "error": error_sum / errors if errors else None,
        "canary": total("tollgate_canary_requests_total"),
        "shadow": total("tollgate_shadow_rows_total"),
    }
