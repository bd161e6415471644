"""Charts of a report, as SVG to stand in the page itself; text in them stays text."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evidence import Step
from trainer.kinds import Floats, Outputs

INK, ACCENT, SECOND, GRID = "#1f2933", "#2563eb", "#ea580c", "#e4e7eb"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tollgate",  # by default ids are random: the same model, the same page
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
MOST_DOTS = 1_000
MOST_BARS = 20
LONGEST_NAME = 28


def calibration(truth: npt.NDArray[Any], outputs: Outputs) -> str:
    """How often a class was right, by the probability it was given; of two classes, the second.

    Args:
        truth: [N] positions of the classes.
        outputs: [N, classes] probabilities.
    """
    if outputs.shape[1] == 2:
        given, right = outputs[:, 1], truth == 1
    else:
        given, right = outputs.max(axis=1), outputs.argmax(axis=1) == truth
    x, y, counts = _binned(given.astype(np.float64), right.astype(np.float64))

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1, linestyle="--")
        axes.plot(x, y, color=ACCENT, linewidth=1)
        axes.scatter(x, y, s=12 + 120 * counts / counts.max(), color=ACCENT)
        axes.set(xlabel="probability given", ylabel="share that was so", xlim=(0, 1), ylim=(0, 1))

    return _svg(draw)


def predicted_against_true(truth: Floats, outputs: Outputs) -> str:
    """A dot per row, at most 1,000 of them; on the line, prediction and truth are one."""
    shown = _some(len(truth))
    low, high = float(min(truth.min(), outputs.min())), float(max(truth.max(), outputs.max()))

    def draw(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=SECOND, linewidth=1, linestyle="--")
        axes.scatter(outputs[shown], truth[shown], s=6, alpha=0.5, color=ACCENT, linewidths=0)
        axes.set(xlabel="predicted", ylabel="true")

    return _svg(draw)


def residuals(truth: Floats, outputs: Outputs) -> str:
    """How far off the predictions are: a histogram of true less predicted."""
    off = truth - outputs.astype(np.float64)

    def draw(axes: Axes) -> None:
        axes.hist(off, bins=30, color=ACCENT)
        axes.axvline(0, color=SECOND, linewidth=1, linestyle="--")
        axes.set(xlabel="true − predicted", ylabel="rows")

    return _svg(draw)


def calibration_of_values(truth: Floats, outputs: Outputs) -> str:
    """Mean prediction and mean truth in each tenth of the predictions."""
    places = np.array_split(np.argsort(outputs, kind="stable"), min(BINS, len(outputs)))
    x = [float(outputs[rows].mean()) for rows in places]
    y = [float(truth[rows].mean()) for rows in places]

    def draw(axes: Axes) -> None:
        ends = [min(x), max(x)]
        axes.plot(ends, ends, color=SECOND, linewidth=1, linestyle="--")
        axes.plot(x, y, color=ACCENT, marker="o", markersize=4, linewidth=1)
        axes.set(xlabel="mean prediction", ylabel="mean truth")

    return _svg(draw)


def importances(found: dict[str, float]) -> str:
    """A bar for each of the 20 columns that matter most."""
    ranked = sorted(found.items(), key=lambda item: item[1])[-MOST_BARS:]
    names = [_cut(name) for name, _ in ranked]

    def draw(axes: Axes) -> None:
        places = np.arange(len(ranked))
        axes.barh(places, [value for _, value in ranked], color=ACCENT, height=0.7)
        axes.set_yticks(places, names)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="growth of the loss when shuffled")

    return _svg(draw, height=max(3.0, 0.22 * len(ranked) + 0.8))


def learning_curve(steps: list[Step], metric: str) -> str:
    """The metric on unseen and on fitted rows, by how many were fitted on."""

    def draw(axes: Axes) -> None:
        rows = [step.rows for step in steps]
        for label, color, values in (
            ("unseen rows", ACCENT, [step.unseen for step in steps]),
            ("fitted rows", SECOND, [step.fitted for step in steps]),
        ):
            axes.plot(rows, values, color=color, marker="o", markersize=4, linewidth=1, label=label)
        axes.set(xlabel="rows fitted on", ylabel=metric)
        axes.legend(frameon=False)

    return _svg(draw)


def _svg(draw: Callable[[Axes], None], *, height: float = 3.0) -> str:
    content = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The reader's fonts draw the names, whatever script they are in; those here are not asked.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(4.6, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(content, format="svg", transparent=True, metadata=NOTHING)
    svg = content.getvalue()
    # In a page the name spaces go without saying, and the page names no other host.
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :])


def _binned(given: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Means of both, and counts, in tenths of [0, 1] that are not empty."""
    places = np.minimum((given * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    full = counts > 0
    means = [
        np.bincount(places, weights=values, minlength=BINS)[full] / counts[full]
        for values in (given, right)
    ]
    return means[0], means[1], counts[full].astype(np.float64)


def _some(count: int) -> npt.NDArray[np.int64]:
    return np.arange(0, count, max(1, -(-count // MOST_DOTS)))


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
