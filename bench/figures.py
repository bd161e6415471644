"""Measured figures and their targets."""

import statistics
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of two sides, per second, in each round."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios, first to second.

        Other work on the machine slows both sides of a round alike, because they run back to back.
        """
        return statistics.median(
            first / second for first, second in zip(self.first, self.second, strict=True)
        )

    def __str__(self) -> str:
        first, second = statistics.median(self.first), statistics.median(self.second)
        return f"{first:,.0f} and {second:,.0f}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: Literal["×", "× at most", "ms"]
    target: float | None
    detail: str

    @property
    def verdict(self) -> str:
        """`pass` or `miss`: a ratio must reach its target, other figures must stay below it."""
        if self.target is None:
            return ""
        reached = self.value >= self.target if self.unit == "×" else self.value < self.target
        return "pass" if reached else "miss"


def table(figures: list[Figure]) -> list[str]:
    """Return a heading and one line per figure."""
    lines = [f"{'figure':<52}{'measured':>12}{'target':>12}  {'':<6}detail"]
    for figure in figures:
        sign = "≥" if figure.unit == "×" else "<"
        unit = figure.unit.split()[0]
        target = "" if figure.target is None else f"{sign} {figure.target:.3g} {unit}"
        measured = f"{figure.value:.2f} {unit}"
        lines.append(
            f"{figure.name:<52}{measured:>12}{target:>12}  {figure.verdict:<6}{figure.detail}"
        )
    return lines
