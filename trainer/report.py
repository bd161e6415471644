"""`report.html`: what a person looks at before promoting a version. One file, no links."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from services.common.model_records import Manifest

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #ddd}"
)


def render_report(manifest: Manifest) -> str:
    """The page as HTML, from what the manifest says."""
    metrics, signature = manifest.metrics, manifest.signature
    compared = {
        "this version": metrics["candidate"],
        "knowing nothing": metrics["dummy"],
        **({"live version": metrics["live"]} if metrics["live"] else {}),
    }
    shown = list(metrics["dummy"])
    rows = metrics["rows"]
    parts = [
        f"<h1>{escape(manifest.model)}</h1>",
        f"<p>Version {manifest.version}, gate <strong>{manifest.gate}</strong>; "
        f"{signature.task} of “{escape(signature.target)}” by {escape(metrics['chosen'])}.</p>",
        *(f"<p>{escape(reason)}</p>" for reason in metrics["reasons"]),
        f"<h2>On {rows['held_out']} rows held out</h2>",
        _table(
            ["", *shown],
            ([name, *(each.get(metric) for metric in shown)] for name, each in compared.items()),
        ),
        f"<h2>Candidates, cross-validated on {rows['training']} rows</h2>",
        _table(["", str(metrics["metric"]), ""], _candidates(metrics["candidates"])),
        "<h2>Columns</h2>",
        _table(["name", "kind"], ([column.name, column.kind] for column in signature.columns)),
        "<h2>Data</h2>",
        _table(["file", "bytes", "SHA-256"], ([d.name, d.size, d.sha256] for d in manifest.data)),
        "<h2>Environment</h2>",
        _table(["", ""], manifest.environment.items()),
    ]
    if signature.classes is not None:
        parts.insert(2, f"<p>Classes: {escape(', '.join(map(str, signature.classes)))}.</p>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(manifest.model)} '
        f"{manifest.version}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _candidates(candidates: Mapping[str, Any]) -> Iterable[list[Any]]:
    for name, tried in candidates.items():
        yield [name, tried["score"], tried["dropped"] or ""]


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_show(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{header}</tr>{body}</table>"


def _show(cell: Any) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
