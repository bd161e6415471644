"""`report.html`: what to read before releasing a version. One file without links."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from services.common.model_records import ColumnStatistics, Manifest
from trainer.evaluation.diagnostics import Diagnostics
from trainer.report import charts

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933}
body{max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{margin:2.2rem 0 .4rem;font-size:1.15rem}p{margin:.3rem 0;max-width:46rem}
.verdict{border-left:.4rem solid;padding:.6rem 1rem;margin:1rem 0;background:#f5f7fa}
.passed{border-color:#15803d}.failed{border-color:#b91c1c}.forced{border-color:#b45309}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem 2rem}
figure{margin:0}figcaption{font-weight:600;margin:.4rem 0}svg{width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.4rem 0}
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #e4e7eb}
td{font-variant-numeric:tabular-nums}th{font-weight:600}small,.note{color:#52606d}
.confusion td{text-align:right;padding:.25rem .7rem}code{font-size:.85em}
"""
MAX_CLASSES = 15
MAX_COLUMNS = 200
MAX_TEXT_LENGTH = 80
MAX_NOTE_LENGTH = 2_000


def render_report(
    manifest: Manifest,
    diagnostics: Diagnostics,
    *,
    before: Manifest | None,
    changes: list[str],
    notes: list[str],
) -> str:
    """Render the report as HTML.

    Args:
        before: the live version's manifest, or None if no version is live.
        changes: changes since the previous version that callers would notice.
        notes: sentences about what was read, dropped, ignored and truncated.
    """
    sections = [
        _summary(manifest),
        _metrics(manifest),
        _changes(manifest, before, changes),
        _charts(manifest, diagnostics),
        _confusion(manifest, diagnostics),
        _data(manifest, notes),
        _provenance(manifest),
    ]
    title = f"{escape(manifest.model)} {manifest.version}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{STYLE}</style><body>{''.join(sections)}</body></html>\n"
    )


def _summary(manifest: Manifest) -> str:
    metrics, signature = manifest.metrics, manifest.signature
    rows = metrics["rows"]
    verdict = {
        "passed": "Passed the gate: better than the baseline, and not worse than the live version.",
        "failed": "Failed the gate: it cannot be released.",
        "forced": f"Failed the gate, but was forced: {manifest.forced_reason}",
    }[manifest.gate]
    classes = ""
    if signature.classes is not None:
        shown = ", ".join(map(str, signature.classes[:MAX_CLASSES]))
        more = len(signature.classes) - MAX_CLASSES
        classes = f" Classes: {_text(shown)}{f', and {more} more' if more > 0 else ''}."
    served = ""
    if manifest.serving == "joblib":
        served = (
            "<p>It has no ONNX form: inference serves it only with "
            "<code>INFERENCE_ALLOW_JOBLIB=true</code>.</p>"
        )
    return (
        f"<h1>{escape(manifest.model)}</h1><p class='note'>Version {manifest.version}</p>"
        f"<div class='verdict {manifest.gate}'><strong>{escape(verdict)}</strong>"
        f"{''.join(f'<p>{_text(reason)}</p>' for reason in metrics['reasons'])}</div>"
        f"<p>{signature.task.capitalize()} of “{_text(signature.target)}” from "
        f"{len(signature.columns)} columns with {_text(metrics['chosen'])}, fitted on "
        f"{metrics['fitted_rows']:,} rows and evaluated on {rows['held_out']:,} others."
        f"{classes}</p>"
        f"{served}"
    )


def _metrics(manifest: Manifest) -> str:
    metrics = manifest.metrics
    shown = list(metrics["dummy"])
    compared = {"this version": metrics["candidate"]}
    if metrics["live"]:
        compared["live version"] = metrics["live"]
    compared["baseline"] = metrics["dummy"]
    parts = [
        "<h2>Metrics on the held-out rows</h2>",
        _table(
            ["", *shown],
            ([name, *(each.get(metric) for metric in shown)] for name, each in compared.items()),
        ),
        f"<p class='note'>The gate compares mean row losses by {_text(metrics['metric'])}"
        f"{', with equal weight for each class' if metrics['balanced'] else ''}. A difference "
        "counts if nine of ten bootstrap samples agree.</p>",
    ]
    for key, name in (("gain", "Baseline minus this version"), ("lag", "This version minus live")):
        if found := metrics[key]:
            parts.append(
                f"<p>{name}: <strong>{_show(found['mean'])}</strong> "
                f"({_show(found['low'])} to {_show(found['high'])} in 8 of 10 bootstrap samples); "
                f"differences up to {_show(found['margin'])} are ignored.</p>"
            )
    if metrics["live"] and metrics["live"]["note"]:
        parts.append(f"<p>Not compared with the live version: {_text(metrics['live']['note'])}</p>")
    return "".join(parts)


def _changes(manifest: Manifest, before: Manifest | None, changes: list[str]) -> str:
    head = "<h2>Changes since the live version</h2>"
    items = "".join(f"<li>{_text(change)}</li>" for change in changes)
    if before is None:
        return f"{head}<p>No version is live.</p><ul>{items}</ul>"
    rows = [
        [what, _show_any(old), _show_any(new)]
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
    shifts = _shifts(manifest, before)
    return (
        f"{head}{f'<ul>{items}</ul>' if items else '<p>Columns and classes are unchanged.</p>'}"
        f"{_table(['', 'live', 'this version'], rows)}"
        f"{_table(['column', 'live: mean', 'missing', 'this version: mean', 'missing'], shifts)}"
    )


def _shifts(manifest: Manifest, before: Manifest) -> list[list[Any]]:
    """Return columns whose mean moved by 0.1 standard deviations or missing share by 2 %."""
    if manifest.statistics is None or before.statistics is None:
        return []
    earlier = {column.name: column for column in before.statistics.columns}
    rows = []
    for now in manifest.statistics.columns:
        old = earlier.get(now.name)
        if old is None or old.kind != now.kind:
            continue
        moved = abs((now.mean or 0.0) - (old.mean or 0.0)) > 0.1 * (old.std or 0.0)
        if (now.mean != old.mean and moved) or abs(now.missing - old.missing) > 0.02:
            rows.append([now.name, old.mean, f"{old.missing:.1%}", now.mean, f"{now.missing:.1%}"])
    return rows[:MAX_COLUMNS]


def _charts(manifest: Manifest, diagnostics: Diagnostics) -> str:
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
        metric = manifest.metrics["metric"]
        drawn["Learning curve: would more rows help?"] = charts.learning_curve(
            diagnostics.curve, metric
        )
    figures = "".join(
        f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"
        for caption, svg in drawn.items()
    )
    return f"<h2>Predictions</h2><div class='charts'>{figures}</div>"


def _confusion(manifest: Manifest, diagnostics: Diagnostics) -> str:
    classes = manifest.signature.classes
    if classes is None:
        return ""
    count = len(classes)
    given = diagnostics.outputs.argmax(axis=1)
    counts = np.bincount(diagnostics.truth * count + given, minlength=count**2)
    matrix = counts.reshape(count, count)
    # The most frequent classes, in class order.
    shown = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:MAX_CLASSES])
    rows = []
    for i in shown:
        total = max(int(matrix[i].sum()), 1)
        cells = "".join(
            f"<td style='background:rgba({'37,99,235' if i == j else '234,88,12'},"
            f"{0.7 * matrix[i, j] / total:.2f})'>{matrix[i, j]}</td>"
            for j in shown
        )
        rows.append(f"<tr><th>{_text(str(classes[i]))}</th>{cells}</tr>")
    head = "".join(f"<th>{_text(str(classes[j]))}</th>" for j in shown)
    limit = f", the {MAX_CLASSES} most frequent classes" if count > MAX_CLASSES else ""
    return (
        f"<h2>Confusion matrix{limit}</h2>"
        "<p class='note'>Rows are true classes, columns predicted ones.</p>"
        f"<div class='wide'><table class='confusion'><tr><th></th>{head}</tr>"
        f"{''.join(rows)}</table></div>"
    )


def _data(manifest: Manifest, notes: list[str]) -> str:
    items = "".join(f"<li>{escape(note[:MAX_NOTE_LENGTH])}</li>" for note in notes)
    parts = [f"<h2>Data</h2><ul>{items}</ul><h2>Columns</h2>"]
    if manifest.statistics is None:
        names = ([column.name, column.kind] for column in manifest.signature.columns[:MAX_COLUMNS])
        return parts[0] + _table(["column", "kind"], names)
    found = [manifest.statistics.target, *manifest.statistics.columns[:MAX_COLUMNS]]
    rows = (
        [c.name, c.kind, f"{c.missing:.1%}", c.mean, c.std, c.min, c.max, _top(c)] for c in found
    )
    head = ["column", "kind", "missing", "mean", "std", "min", "max", "most frequent"]
    parts.append(f"<div class='wide'>{_table(head, rows)}</div>")
    more = len(manifest.statistics.columns) - MAX_COLUMNS
    return "".join(parts) + (f"<p>And {more} more columns.</p>" if more > 0 else "")


def _top(column: ColumnStatistics) -> str:
    shown = zip((column.categories or [])[:3], column.shares, strict=False)
    return ", ".join(f"{name} {share:.0%}" for name, share in shown)


def _provenance(manifest: Manifest) -> str:
    results = (
        [name, result["score"], result["dropped"] or ""]
        for name, result in manifest.metrics["candidates"].items()
    )
    files = ([d.name, d.generation, f"{d.size:,}", d.sha256] for d in manifest.data)
    return (
        "<h2>Candidates, cross-validated on training rows</h2>"
        f"{_table(['', str(manifest.metrics['metric']), ''], results)}"
        "<h2>Data files</h2><div class='wide'>"
        f"{_table(['file', 'generation', 'bytes', 'SHA-256'], files)}</div>"
        f"<h2>Environment</h2>{_table(['', ''], manifest.environment.items())}"
    )


def _bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.data)


def _rows(manifest: Manifest) -> int:
    rows = manifest.metrics.get("rows", {})
    return int(rows.get("training", 0)) + int(rows.get("held_out", 0))


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """Render a table, or nothing if there are no rows."""
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(_show(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    header = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    return f"<table><tr>{header}</tr>{body}</table>" if body else ""


def _show_any(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(each)}" for name, each in value.items()) or "defaults"
    return f"{value:,}" if isinstance(value, int) else _show(value)


def _show(cell: Any) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _text(text: str) -> str:
    """Escape text for the page, truncated if it is very long."""
    return escape(text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…")
