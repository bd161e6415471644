"""Figures of the benchmarks: ratios, targets and the printed table."""

import pytest

from bench.figures import Figure, Rates, table


def test_the_ratio_is_the_median_of_the_rounds_and_not_of_the_sums() -> None:
    rates = Rates((100.0, 10.0, 90.0), (100.0, 20.0, 100.0))

    assert rates.ratio == 0.9
    assert str(rates) == "90.0 and 100"


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "verdict"),
    [
        (1.0, 1.0, None, "pass"),
        (0.99, 1.0, None, "miss"),
        (0.0, None, 0.0, "pass"),
        (1.0, None, 0.0, "miss"),
        (1.0, None, None, ""),
        (None, 1.0, None, ""),
    ],
)
def test_a_figure_on_its_target_passes_and_one_that_was_not_measured_has_no_verdict(
    value: float | None, at_least: float | None, at_most: float | None, verdict: str
) -> None:
    figure = Figure("name", value, "×", "", at_least=at_least, at_most=at_most)

    assert figure.verdict == verdict


def test_values_are_printed_with_their_units_and_targets() -> None:
    ratio = Figure("a ÷ b", 0.954, "×", "detail", at_least=0.95)
    memory = Figure("memory", 12345.6, "MB", "", at_most=120)
    missing = Figure("lag", None, "ms", "no metric")

    assert (ratio.measured, ratio.target) == ("0.95 ×", "≥ 0.95 ×")
    assert (memory.measured, memory.target) == ("12,346 MB", "≤ 120 MB")
    assert (missing.measured, missing.target) == ("n/a", "")


def test_the_table_has_a_heading_and_a_line_per_figure() -> None:
    lines = table([Figure("one", 1.0, "×", "why", at_least=1.0), Figure("two", None, "", "")])

    assert len(lines) == 3
    assert lines[1].split() == ["one", "1.00", "×", "≥", "1", "×", "pass", "why"]
