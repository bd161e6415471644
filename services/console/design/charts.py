"""The geometry of charts, which templates draw as SVG.

A drawing is 100 × 100 units, and is stretched to the space that the page has; the labels are HTML
beside it, so that they are neither stretched nor too small on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

_GAP = 0.25
"""The share of a column's width that is left empty."""
_MIN_HEIGHT = 0.8
"""So that a small value still shows."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of a chart, and what it stands for."""

    label: str
    text: str
    x: float
    y: float
    width: float
    height: float
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and the labels of its axis, from top to bottom."""

    bars: tuple[Bar, ...]
    ticks: tuple[str, ...] = ()


def bar_chart(points: Sequence[tuple[str, Decimal, str]], *, ticks: Sequence[str] = ()) -> Chart:
    """Return a column for each point.

    Args:
        points: label, value of at least 0, and the value as text.
        ticks: labels of the axis; by default the highest value's text and `0`.
    """
    highest = max((value for _, value, _ in points), default=Decimal(0))
    width = 100 / max(len(points), 1)
    bars = []
    for number, (label, value, text) in enumerate(points):
        share = float(value / highest * 100) if highest else 0.0
        height = max(share, _MIN_HEIGHT) if value else 0.0
        bars.append(
            Bar(
                label,
                text,
                x=round(number * width + width * _GAP / 2, 3),
                y=round(100 - height, 3),
                width=round(width * (1 - _GAP), 3),
                height=round(height, 3),
            )
        )
    top = next((text for _, value, text in points if value == highest), "0")
    return Chart(tuple(bars), tuple(ticks) or ((top, "0") if highest else ("0",)))


def sparkline_path(values: Sequence[Decimal]) -> str:
    """Return the columns of a chart without labels as one SVG path, which takes little room.

    Args:
        values: of at least 0.
    """
    bars = bar_chart([("", value, "") for value in values]).bars
    return "".join(
        f"M{bar.x:.4g} 100v{-bar.height:.3g}h{bar.width:.4g}V100z" for bar in bars if bar.height
    )


def diverging_bars(points: Sequence[tuple[str, float, str]]) -> Chart:
    """Return a horizontal bar for each point, to the right of the middle if it is positive.

    Args:
        points: label, value, and the value as text.
    """
    longest = max((abs(value) for _, value, _ in points), default=0.0)
    bars = []
    for label, value, text in points:
        width = abs(value) / longest * 50 if longest else 0.0
        bars.append(
            Bar(
                label,
                text,
                x=round(50 - width if value < 0 else 50, 3),
                y=0,
                width=round(max(width, 0.4), 3),
                height=100,
                negative=value < 0,
            )
        )
    return Chart(tuple(bars))
