"""The card of a model as a page: one file, without scripts and without links to other hosts."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from services.common.http.pages import page_headers
from services.inference.catalogue.card import CardRead

MAX_COLUMNS = 200
MAX_CLASSES = 50


def render_card(card: CardRead) -> str:
    """Render the card as HTML."""
    limitations = card.limitations
    return (
        _environment()
        .get_template("card.html.j2")
        .render(
            card=card,
            style=_style(),
            limitations=[limitations] if isinstance(limitations, str) else limitations,
            columns=card.columns[:MAX_COLUMNS],
            more_columns=max(len(card.columns) - MAX_COLUMNS, 0),
            classes=(card.classes or [])[:MAX_CLASSES],
            more_classes=max(len(card.classes or []) - MAX_CLASSES, 0),
        )
    )


@cache
def card_headers() -> dict[str, str]:
    """Return headers that allow the page its own style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return page_headers(
        {
            "default-src": "'none'",
            "style-src": f"'sha256-{digest}'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
    )


@cache
def _style() -> str:
    return _environment().get_template("card.css").render()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("services.inference.catalogue"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {"show": _show, "share": _share, "day": _day}
    environment.filters |= filters
    return environment


def _show(value: Any) -> str:
    """Return a value of a table: four significant digits, and a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"
