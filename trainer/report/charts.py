"""Charts for the report, as inline SVG whose text stays text."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.evaluation.diagnostics import Step
from trainer.types import Floats, Outputs

INK, ACCENT, SECOND, GRID = "#1f2933", "#2563eb", "#ea580c", "#e4e7eb"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tollgate",  # ids are random by default; the same model gives the same page
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a `$` in a column's name is a `$`
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
}
NOTHING: dict[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
BINS = 10
MIN_BIN_ROWS = 5
"""The line of a calibration chart joins only bins with this many rows."""
POINTS = 72
"""Points per inch: SVG's unit, in which matplotlib also measures text."""
WIDTH = 4.6
"""Inches, like the heights."""
PAD, RIGHT, BOTTOM = 4, 14, 34
"""Points between a chart's edge and its labels, right of the axes, and below them."""
X_TICKS = 6
"""At most so many steps between x's labels, so that long numbers do not touch."""
MAX_DOTS = 1_000
MAX_BARS = 20
MAX_NAME_LENGTH = 28


def calibration(truth: npt.NDArray[Any], outputs: Outputs) -> str:
    """Draw how often a prediction was right against its probability.

    With two classes, the probability is that of the second. Bins with few rows are hollow and not
    joined: their share is mostly chance.

    Args:
        truth: [N] positions of the classes.
        outputs: [N, classes] probabilities.
    """
    if outputs.shape[1] == 2:
        given, right = outputs[:, 1], truth == 1
    else:
        given, right = outputs.max(axis=1), outputs.argmax(axis=1) == truth
    x, y, counts = _binned(given.astype(np.float64), right.astype(np.float64))
    enough = counts >= MIN_BIN_ROWS

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1, linestyle="--")
        axes.plot(x[enough], y[enough], color=ACCENT, linewidth=1)
        sizes = 12 + 120 * counts / counts.max()
        axes.scatter(x[enough], y[enough], s=sizes[enough], color=ACCENT)
        axes.scatter(x[~enough], y[~enough], s=sizes[~enough], edgecolors=ACCENT, facecolors="none")
        few = "" if enough.all() else f" (hollow: fewer than {MIN_BIN_ROWS} rows)"
        axes.set(
            xlabel=f"predicted probability{few}",
            ylabel="observed share",
            xlim=(0, 1),
            ylim=(0, 1),
        )

    return _svg(draw)


def predicted_against_true(truth: Floats, outputs: Outputs) -> str:
    """Draw true against predicted values, at most 1,000 dots; perfect ones are on the line."""
    shown = _some(len(truth))
    low, high = float(min(truth.min(), outputs.min())), float(max(truth.max(), outputs.max()))

    def draw(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=SECOND, linewidth=1, linestyle="--")
        axes.scatter(outputs[shown], truth[shown], s=6, alpha=0.5, color=ACCENT, linewidths=0)
        axes.set(xlabel="predicted", ylabel="true")

    return _svg(draw)


def residuals(truth: Floats, outputs: Outputs) -> str:
    """Draw a histogram of the residuals, true minus predicted."""
    off = truth - outputs.astype(np.float64)

    def draw(axes: Axes) -> None:
        axes.hist(off, bins=30, color=ACCENT)
        axes.axvline(0, color=SECOND, linewidth=1, linestyle="--")
        axes.set(xlabel="true − predicted", ylabel="rows")

    return _svg(draw)


def calibration_of_values(truth: Floats, outputs: Outputs) -> str:
    """Draw the mean true value against the mean prediction of each tenth of the predictions."""
    places = np.array_split(np.argsort(outputs, kind="stable"), min(BINS, len(outputs)))
    x = [float(outputs[rows].mean()) for rows in places]
    y = [float(truth[rows].mean()) for rows in places]

    def draw(axes: Axes) -> None:
        ends = [min(x), max(x)]
        axes.plot(ends, ends, color=SECOND, linewidth=1, linestyle="--")
        axes.plot(x, y, color=ACCENT, marker="o", markersize=4, linewidth=1)
        axes.set(xlabel="mean prediction", ylabel="mean true value")

    return _svg(draw)


def importances(found: dict[str, float]) -> str:
    """Draw a bar for each of the 20 most important columns."""
    ranked = sorted(found.items(), key=lambda item: item[1])[-MAX_BARS:]
    names = [_cut(name) for name, _ in ranked]

    def draw(axes: Axes) -> None:
        places = np.arange(len(ranked))
        axes.barh(places, [value for _, value in ranked], color=ACCENT, height=0.7)
        axes.set_yticks(places, names)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="increase in loss when shuffled")

    return _svg(draw, height=max(3.0, 0.22 * len(ranked) + 0.8))


def learning_curve(steps: list[Step], metric: str) -> str:
    """Draw the metric on unseen rows and on training rows against the number of training rows."""

    def draw(axes: Axes) -> None:
        rows = [step.rows for step in steps]
        for label, color, values in (
            ("unseen rows", ACCENT, [step.unseen for step in steps]),
            ("training rows", SECOND, [step.fitted for step in steps]),
        ):
            axes.plot(rows, values, color=color, marker="o", markersize=4, linewidth=1, label=label)
        axes.set(xlabel="number of training rows", ylabel=metric)
        axes.legend(frameon=False)

    return _svg(draw)


def _svg(draw: Callable[[Axes], None], *, height: float = 3.0) -> str:
    content = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The browser's fonts draw the text, so a glyph missing from ours does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), dpi=POINTS)
        axes = figure.add_subplot()
        draw(axes)
        axes.locator_params(axis="x", nbins=X_TICKS)
        _make_room(figure, axes)
        figure.savefig(content, format="svg", transparent=True, metadata=NOTHING)
    svg = content.getvalue()
    # HTML implies the namespaces, and the page must not refer to another host.
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :])


def _make_room(figure: Figure, axes: Axes) -> None:
    """Set the margins so that nothing is cut off.

    Only the labels of the y axis differ much in size. Matplotlib's own layouts measure everything
    twice and draw the chart twice.
    """
    FigureCanvasAgg(figure)  # measures text
    labels = axes.yaxis.get_tightbbox() or axes.bbox
    left = axes.bbox.x0 - labels.x0 + PAD
    top = max(labels.y1 - axes.bbox.y1, 0) + PAD
    width, height = figure.bbox.size
    figure.subplots_adjust(
        left=left / width, right=1 - RIGHT / width, top=1 - top / height, bottom=BOTTOM / height
    )


def _binned(given: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the means of both and the counts, for each tenth of [0, 1] that is not empty."""
    places = np.minimum((given * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    full = counts > 0
    means = [
        np.bincount(places, weights=values, minlength=BINS)[full] / counts[full]
        for values in (given, right)
    ]
    return means[0], means[1], counts[full].astype(np.float64)


def _some(count: int) -> npt.NDArray[np.int64]:
    return np.arange(0, count, max(1, -(-count // MAX_DOTS)))


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
