"""The tables of the report, as plain rows: what the template shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from registry.datetimes import SECONDS_PER_DAY, format_time
from registry.records import ColumnStatistics, Manifest
from trainer.evaluation.diagnostics import Diagnostics
from trainer.report import charts
from trainer.wording import listed

MAX_CLASSES = 15
MAX_COLUMNS = 200
COLUMN_HEAD = ("column", "kind", "missing", "mean", "std", "min", "max", "most frequent")
# Changes of a column between two versions that are worth a row.
MIN_MOVED_STDS = 0.1
MIN_MOVED_MISSING = 0.02

Rows = list[list[Any]]


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the confusion matrix; `share` is relative to its row."""

    count: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of the most frequent classes, true classes in rows.

    Args:
        is_cut: whether there are more classes.
    """

    labels: list[str]
    rows: list[list[ConfusionCell]]
    is_cut: bool


def compare_metrics(manifest: Manifest) -> Rows:
    """Return the metrics of this version, the live version and the baseline."""
    metrics = manifest.metrics
    compared = {"this version": metrics["candidate"]}
    if metrics["live"]:
        compared["live version"] = metrics["live"]
    compared["baseline"] = metrics["dummy"]
    return [
        [name, *(values.get(metric) for metric in metrics["dummy"])]
        for name, values in compared.items()
    ]


def list_classes(manifest: Manifest) -> str:
    """Return the names of the first classes; nothing for a regression."""
    return listed(list(map(str, manifest.signature.classes or [])), most=MAX_CLASSES)


def compare_versions(manifest: Manifest, before: Manifest) -> Rows:
    """Return what differs between the live version and this one."""
    return [
        [what, _show(old), _show(new)]
        for what, old, new in (
            ("version", before.version, manifest.version),
            ("model", before.metrics.get("chosen"), manifest.metrics["chosen"]),
            ("parameters", before.metrics.get("parameters"), manifest.metrics["parameters"]),
            ("data files", len(before.data), len(manifest.data)),
            ("bytes of data", _bytes(before), _bytes(manifest)),
            ("rows", _rows(before), _rows(manifest)),
            *(
                (package, before.environment.get(package), version)
                for package, version in manifest.environment.items()
                if before.environment.get(package) != version
            ),
        )
    ]


def list_shifts(manifest: Manifest, before: Manifest) -> Rows:
    """Return columns whose mean moved by 0.1 standard deviations or missing share by 2 %."""
    if manifest.statistics is None or before.statistics is None:
        return []
    earlier = {column.name: column for column in before.statistics.columns}
    rows: Rows = []
    for now in manifest.statistics.columns:
        old = earlier.get(now.name)
        if old is None or old.kind != now.kind:
            continue
        distance = abs((now.mean or 0.0) - (old.mean or 0.0))
        moved = now.mean != old.mean and distance > MIN_MOVED_STDS * (old.std or 0.0)
        if moved or abs(now.missing - old.missing) > MIN_MOVED_MISSING:
            before_mean, mean = _describe_values(old)[0], _describe_values(now)[0]
            rows.append([now.name, before_mean, f"{old.missing:.1%}", mean, f"{now.missing:.1%}"])
    return rows[:MAX_COLUMNS]


def draw_charts(manifest: Manifest, diagnostics: Diagnostics) -> dict[str, str]:
    """Return the charts as SVG, by caption."""
    truth, outputs = diagnostics.truth, diagnostics.outputs
    if manifest.signature.classes is None:
        drawn = {
            "Predicted and true values": charts.predicted_against_true(truth, outputs),
            "Residuals": charts.residuals(truth, outputs),
            "Calibration by deciles of the predictions": charts.calibration_of_values(
                truth, outputs
            ),
        }
    else:
        drawn = {"Calibration": charts.calibration(truth, outputs)}
    drawn["Column importances"] = charts.importances(diagnostics.importances)
    if len(diagnostics.curve) > 1:
        drawn["Learning curve: would more rows help?"] = charts.learning_curve(
            diagnostics.curve, manifest.metrics["metric"]
        )
    return drawn


def count_confusions(manifest: Manifest, diagnostics: Diagnostics) -> Confusion | None:
    """Return the confusion matrix; None for a regression."""
    classes = manifest.signature.classes
    if classes is None:
        return None
    count = len(classes)
    given = diagnostics.outputs.argmax(axis=1)
    counts = np.bincount(diagnostics.truth * count + given, minlength=count**2)
    matrix = counts.reshape(count, count)
    # The most frequent classes, in class order.
    shown = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:MAX_CLASSES])
    totals = np.maximum(matrix.sum(axis=1), 1)
    return Confusion(
        labels=[str(classes[i]) for i in shown],
        rows=[
            [ConfusionCell(int(matrix[i, j]), float(matrix[i, j] / totals[i])) for j in shown]
            for i in shown
        ],
        is_cut=count > MAX_CLASSES,
    )


def describe_columns(manifest: Manifest) -> Rows:
    """Return the statistics of the target and the columns, or only the kinds of the columns."""
    if manifest.statistics is None:
        return [[column.name, column.kind] for column in manifest.signature.columns[:MAX_COLUMNS]]
    return [
        [c.name, c.kind, f"{c.missing:.1%}", *_describe_values(c), _most_frequent(c)]
        for c in (manifest.statistics.target, *manifest.statistics.columns[:MAX_COLUMNS])
    ]


def list_candidates(manifest: Manifest) -> Rows:
    """Return each candidate's metric in cross-validation, and why it was dropped."""
    return [
        [name, result["score"], result["dropped"] or ""]
        for name, result in manifest.metrics["candidates"].items()
    ]


def list_files(manifest: Manifest) -> Rows:
    """Return the data files with generations, sizes in bytes and digests."""
    return [[d.name, d.generation, f"{d.size:,}", d.sha256] for d in manifest.data]


def _describe_values(column: ColumnStatistics) -> list[Any]:
    """Return mean, standard deviation, minimum and maximum; of times, as dates and days."""
    if column.kind != "datetime" or column.std is None:
        return [column.mean, column.std, column.min, column.max]
    mean, least, most = (
        None if each is None else format_time(each).partition("T")[0]
        for each in (column.mean, column.min, column.max)
    )
    return [mean, f"{column.std / SECONDS_PER_DAY:.3g} days", least, most]


def _most_frequent(column: ColumnStatistics) -> str:
    shown = zip((column.categories or [])[:3], column.shares, strict=False)
    return ", ".join(f"{name} {share:.0%}" for name, share in shown)


def _bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.data)


def _rows(manifest: Manifest) -> int:
    rows = manifest.metrics.get("rows", {})
    return int(rows.get("training", 0)) + int(rows.get("held_out", 0))


def _short(parameter: Any) -> str:
    return f"{parameter:.4g}" if isinstance(parameter, int | float) else str(parameter)


def _show(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items()) or "defaults"
    return f"{value:,}" if isinstance(value, int) else value
