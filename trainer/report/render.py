"""`report.html`: what to read before releasing a version. One file without links."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from registry.records import Manifest
from trainer.evaluation.diagnostics import Diagnostics
from trainer.report import content
from trainer.wording import counted

MAX_TEXT_LENGTH = 80


def render_report(
    manifest: Manifest,
    diagnostics: Diagnostics | None,
    *,
    before: Manifest | None,
    changes: list[str],
    notes: list[str],
) -> str:
    """Render the report as HTML.

    Args:
        diagnostics: None if there was no data to measure on.
        before: the live version's manifest, or None if no version is live.
        changes: changes since the previous version that callers would notice.
        notes: sentences about what was read, dropped, ignored and truncated.
    """
    columns = content.describe_columns(manifest)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            before=before,
            changes=changes,
            notes=notes,
            classes=content.list_classes(manifest),
            compared=content.compare_metrics(manifest),
            differences=[] if before is None else content.compare_versions(manifest, before),
            shifts=[] if before is None else content.list_shifts(manifest, before),
            charts={} if diagnostics is None else content.draw_charts(manifest, diagnostics),
            confusion=None
            if diagnostics is None
            else content.count_confusions(manifest, diagnostics),
            column_head=content.COLUMN_HEAD[: len(columns[0])],
            columns=columns,
            more_columns=max(len(manifest.signature.columns) - content.MAX_COLUMNS, 0),
            candidates=content.list_candidates(manifest),
            files=content.list_files(manifest),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"show": show_cell, "shorten": shorten}
    environment.globals |= {"counted": counted}
    return environment


def show_cell(cell: Any) -> str:
    """Return a cell of a table: four significant digits, and a dash for None."""
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else shorten(str(cell))


def shorten(text: str, length: int = MAX_TEXT_LENGTH) -> str:
    """Return a text, truncated to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
