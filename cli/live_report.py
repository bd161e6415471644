"""`tollgate models report`: how a model's versions perform, from the metrics of live processes."""

import json
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.models_app import AsJson, Model, describe_pin, models, open_store
from cli.output import counted
from cli.serving import scrape
from cli.train import failures_as_one_line

if TYPE_CHECKING:
    from registry.pins import Pin
    from registry.records import Manifest

MODERATE, LARGE = 0.1, 0.25
"""Population stability indices above which a change is moderate or large."""

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 56em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em 1em .2em 0 }
th { text-align: left } td.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #4878a8; height: .8em } .trained { background: #bbb }
.large { color: #a00 } .moderate { color: #850 }
"""


@models.command()
def report(
    model: Model,
    urls: Annotated[
        list[str], typer.Option("--url", help="An inference process; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("live-report.html"),
    as_json: AsJson = False,
) -> None:
    """Write a page on drift, predictions and live accuracy of each recently used version."""
    with failures_as_one_line():
        from registry.pins import find_pin
        from registry.records import StoreError

        texts = {url: scrape(url) for url in urls}
        failed = [url for url, text in texts.items() if text is None]
        if failed:
            raise StoreError(f"Cannot fetch metrics from {', '.join(failed)}.")
        found = summarise(model, [text for text in texts.values() if text is not None])
        if not found:
            raise StoreError(f"No process has metrics of model '{model}'.")
        store, trusted = open_store(read_only=True)
        manifests = {each: store.open_version(model, each, trusted) for each in found}
        pin = find_pin(store, model, trusted)
    if as_json:
        document = {"model": model, "pin": pin.describe() if pin else None, "versions": found}
        typer.echo(json.dumps(document))
        return
    out.write_text(_page(model, found, manifests, pin))
    processes = counted(len(urls), "process", "processes")
    typer.echo(f"{out}: {counted(len(found), 'version')}, {processes}")


def summarise(model: str, texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Combine the metrics of all processes by version.

    Returns:
        `rows` that drift was measured on; `psi` and `missing` by column; `prediction_psi`;
        `answers`, shares by bin; `feedback`, rows by outcome; `error`, the mean absolute error or
        None; `canary` and `shadow`, counts by outcome. Shares and indices are means weighted by
        rows; the index of the pooled rows would not be larger.
    """
    from prometheus_client.parser import text_string_to_metric_families

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


def _page(
    model: str,
    found: dict[str, dict[str, Any]],
    manifests: dict[str, "Manifest"],
    pin: "Pin | None",
) -> str:
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(model)}, live</title>",
        f"<style>{_STYLE}</style><h1>{escape(model)}, live</h1>",
        *([f"<p>{escape(describe_pin(model, pin))}."] if pin else []),
        *(_version(metrics, manifests[version]) for version, metrics in found.items()),
    ]
    return "\n".join(parts) + "\n"


def _version(metrics: dict[str, Any], manifest: "Manifest") -> str:
    lines = [f"<h2>{manifest.version}</h2>", *_accuracy(metrics)]
    for what in ("canary", "shadow"):
        if metrics[what]:
            counts = ", ".join(f"{name} {count:,.0f}" for name, count in metrics[what].items())
            lines.append(f"<p>As {what}: {escape(counts)}.</p>")
    if not metrics["psi"]:
        lines.append(f"<p>Too few rows to measure drift: {metrics['rows']:,.0f}.</p>")
        return "\n".join(lines)
    statistics = manifest.statistics
    trained = {each.name: each.missing for each in statistics.columns} if statistics else {}
    lines.append(f"<p>Drift, on {counted(int(metrics['rows']), 'row')}:</p>")
    lines.append(
        "<table><tr><th>column<th>stability index<th>change<th>missing<th>in training</tr>"
    )
    for name, psi in sorted(metrics["psi"].items(), key=lambda pair: -pair[1]):
        lines.append(
            f"<tr><td>{escape(name)}<td class=n>{psi:.3f}{_change(psi)}"
            f"<td class=n>{metrics['missing'].get(name, 0.0):.1%}"
            f"<td class=n>{trained.get(name, 0.0):.1%}</tr>"
        )
    lines.append("</table>")
    return "\n".join([*lines, *_predictions(metrics, manifest)])


def _accuracy(metrics: dict[str, Any]) -> Iterable[str]:
    right, wrong = (metrics["feedback"].get(each, 0.0) for each in ("correct", "wrong"))
    if right + wrong:
        share = right / (right + wrong)
        yield f"<p>Live accuracy: {share:.1%} of {right + wrong:,.0f} rows with feedback.</p>"
    if metrics["error"] is not None:
        yield f"<p>Live mean absolute error: {metrics['error']:.4g}.</p>"


def _predictions(metrics: dict[str, Any], manifest: "Manifest") -> Iterable[str]:
    """Render the distribution of predictions next to that on the held-out training rows."""
    from registry.drift import Bins

    if manifest.statistics is None:
        return
    bins = Bins(manifest.statistics.predictions)
    psi = metrics["prediction_psi"] or 0.0
    yield f"<p>Predictions, stability index {psi:.3f}; grey: in training.</p><table>"
    trained = manifest.statistics.predictions.shares
    for name, before in zip(bins.names(), trained, strict=False):
        now = metrics["answers"].get(name, 0.0)
        yield (
            f"<tr><td>{escape(name)}<td class=n>{now:.1%}<td style='width: 24em'>"
            f"<div class=bar style='width: {now:.1%}'></div>"
            f"<div class='bar trained' style='width: {before:.1%}'></div></tr>"
        )
    yield "</table>"


def _change(psi: float) -> str:
    name = "large" if psi > LARGE else "moderate" if psi > MODERATE else "small"
    return f"<td class={name}>{name}"
