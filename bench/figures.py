"""Measured figures and their targets."""

import statistics
from dataclasses import dataclass


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
        return f"{_short(first)} and {_short(second)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Args:
        value: None if it could not be measured; `detail` says why.
        at_least, at_most: the target, if there is one.
    """

    name: str
    value: float | None
    unit: str
    detail: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def measured(self) -> str:
        """The value with its unit."""
        return "n/a" if self.value is None else f"{_readable(self.value)} {self.unit}"

    @property
    def target(self) -> str:
        """The target with its unit; empty without one."""
        if self.at_least is not None:
            return f"≥ {self.at_least:,.4g} {self.unit}"
        return "" if self.at_most is None else f"≤ {self.at_most:,.4g} {self.unit}"

    @property
    def verdict(self) -> str:
        """`pass` or `miss`; empty without a target or a value."""
        if self.value is None or (self.at_least is None and self.at_most is None):
            return ""
        reached = (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )
        return "pass" if reached else "miss"


def table(figures: list[Figure]) -> list[str]:
    """Return a heading and one line per figure."""
    lines = [f"{'figure':<62}{'measured':>14}{'target':>14}  {'':<6}detail"]
    lines += [
        f"{figure.name:<62}{figure.measured:>14}{figure.target:>14}  "
        f"{figure.verdict:<6}{figure.detail}"
        for figure in figures
    ]
    return lines


def _readable(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
