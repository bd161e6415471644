"""Count live values in the bins used for training data, and compare the distributions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.features import count_words
from registry.records import ColumnStatistics

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """The bins of a column, or of the predictions, as recorded in training."""

    recorded: ColumnStatistics

    @property
    def size(self) -> int:
        """The number of bins; times, and a column that was empty in training, have one for all."""
        return max(len(self.recorded.shares), 1)

    def names(self) -> list[str]:
        """Return a name for each bin."""
        if self.recorded.categories is not None:
            return [*map(str, self.recorded.categories), "other"]
        if self.recorded.edges is not None:
            return [*(f"up to {edge:g}" for edge in self.recorded.edges), "above"]
        return ["any"]

    def count(self, values: npt.NDArray[Any]) -> Counts:
        """Count the values in each bin; the last count is that of missing values.

        Args:
            values: [n] numbers or times, with NaN for missing; or objects, with "" for missing.
        """
        is_present = ~np.isnan(values) if values.dtype.kind == "f" else values != ""
        present = values[is_present]
        if self.recorded.kind == "sentence":
            present = np.array([count_words(text) for text in present], dtype=np.float64)
        missing = len(values) - len(present)
        if self.recorded.categories is not None:
            counts = [np.count_nonzero(present == each) for each in self.recorded.categories]
            return np.array([*counts, len(present) - sum(counts), missing], dtype=np.int64)
        edges = np.asarray(self.recorded.edges or [])
        places = np.searchsorted(edges, present.astype(np.float64), side="left")
        return np.append(np.bincount(places, minlength=self.size), missing)

    def stability(self, counts: Counts) -> float:
        """Return the population stability index.

        It is Σ (live − training) · ln(live ÷ training) over the bins. A bin without values counts
        as half a value, because the logarithm of zero is undefined.
        """
        live = counts[:-1]
        trained = np.asarray(self.recorded.shares or [1.0])
        live_shares = _shares(live / max(live.sum(), 1), int(live.sum()))
        trained_shares = _shares(trained, self.recorded.count)
        terms = (live_shares - trained_shares) * np.log(live_shares / trained_shares)
        return float(terms.sum())


def _shares(shares: npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.float64]:
    floored = np.maximum(shares, 0.5 / max(rows, 1))
    return np.asarray(floored / floored.sum())
