"""The bar chart: well-formed, in proportion, and readable on light and dark pages."""

import xml.etree.ElementTree as ElementTree

from bench.chart import LABELS, OWN, TEXT, VALUES, WIDTH, Bar, bar_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_the_longest_bar_fills_the_width_and_the_others_are_in_proportion() -> None:
    chart = ElementTree.fromstring(bar_chart("Title", "", [Bar("a", 200.0), Bar("b", 50.0)]))

    widths = [float(bar.attrib["width"]) for bar in chart.iter(f"{SVG}rect")]
    assert widths == [WIDTH - LABELS - VALUES, (WIDTH - LABELS - VALUES) / 4]


def test_labels_are_escaped_and_values_are_readable() -> None:
    chart = ElementTree.fromstring(bar_chart("<T&T>", "why", [Bar("A & B", 12345.6, is_own=True)]))

    texts = [text.text for text in chart.iter(f"{SVG}text")]
    assert texts == ["<T&T>", "why", "A & B", "12,346"]
    assert [bar.attrib["fill"] for bar in chart.iter(f"{SVG}rect")] == [OWN]


def test_text_has_enough_contrast_on_white_and_on_near_black() -> None:
    for background in ("#ffffff", "#0d1117"):
        lighter, darker = sorted(map(_luminance, (TEXT, background)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 3.5


def test_a_chart_without_bars_is_well_formed() -> None:
    assert ElementTree.fromstring(bar_chart("Title", "", [])).tag == f"{SVG}svg"


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
