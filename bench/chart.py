"""A bar chart as SVG, readable on a light and on a dark page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LABELS = 290
VALUES = 90
ROW, BAR = 26, 16
TOP, BOTTOM = 58, 16
TEXT, OWN, OTHER = "#7d8590", "#2f81f7", "#9aa4af"
"""Colours with enough contrast on white and on near-black."""
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar; `is_own` sets it apart from the others."""

    label: str
    value: float
    is_own: bool = False


def bar_chart(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Return the chart as a document; the longest bar fills the width."""
    height = TOP + ROW * len(bars) + BOTTOM
    longest = max((bar.value for bar in bars), default=1.0) or 1.0
    scale = (WIDTH - LABELS - VALUES) / longest
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}" '
        f'font-family="{FONT}" font-size="13">',
        _text(0, 20, title, size=16, weight=600),
        _text(0, 40, subtitle, size=12),
    ]
    for number, bar in enumerate(bars):
        lines += _row(bar, top=TOP + ROW * number, width=max(1.0, bar.value * scale))
    return "\n".join([*lines, "</svg>", ""])


def _row(bar: Bar, *, top: int, width: float) -> list[str]:
    baseline, weight = top + BAR - 4, 600 if bar.is_own else 400
    colour = OWN if bar.is_own else OTHER
    return [
        _text(LABELS - 10, baseline, bar.label, anchor="end", weight=weight),
        f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" rx="3" fill="{colour}"/>',
        _text(LABELS + width + 8, baseline, f"{bar.value:,.0f}", weight=weight),
    ]


def _text(
    x: float, y: float, content: str, *, size: int = 13, weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{TEXT}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )
