"""The HTML page of `tollgate models report`."""

from collections.abc import Iterable
from html import escape
from typing import Any

from cli.models.decisions import describe_pin
from cli.output import counted
from registry.drift import Bins
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


def render(
    model: str,
    found: dict[str, dict[str, Any]],
    manifests: dict[str, Manifest],
    pin: Pin | None,
) -> str:
    """Render the summaries of a model's versions, and its pin, as an HTML page."""
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(model)}, live</title>",
        f"<style>{_STYLE}</style><h1>{escape(model)}, live</h1>",
        *([f"<p>{escape(describe_pin(model, pin))}."] if pin else []),
        *(_version(metrics, manifests[version]) for version, metrics in found.items()),
    ]
    return "\n".join(parts) + "\n"


def _version(metrics: dict[str, Any], manifest: Manifest) -> str:
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


def _predictions(metrics: dict[str, Any], manifest: Manifest) -> Iterable[str]:
    """Render the distribution of predictions next to that on the held-out training rows."""
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
