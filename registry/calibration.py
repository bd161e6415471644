"""How far a version's predictions may be off: its errors on rows that it was not fitted on.

Split conformal prediction (Vovk et al. 2005; Sadinle et al. 2019 for sets of labels): of n rows
that the model has not seen, sort the scores and take the one with rank ⌈(n + 1) · level⌉. A fresh
row from the same source scores no more than that with at least the probability `level`.
"""

import math
from bisect import bisect_left
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_RANKS = 1_000


class LevelTooHigh(ValueError):
    """There are too few rows to vouch for this level."""


class Calibration(BaseModel):
    """The scores of held-out rows, thinned out to a bounded number of ranks.

    The score of a regression is the absolute error. That of a classification is 0 if the class is
    the predicted one, else 1 minus its probability.

    Args:
        rows: how many rows were scored.
        ranks: ascending, from 1 to `rows`.
        scores: the score with each rank.
    """

    model_config = ConfigDict(frozen=True)

    rows: int = Field(ge=1)
    ranks: list[int]
    scores: list[float]

    @model_validator(mode="after")
    def _has_one_score_per_rank(self) -> Self:
        if len(self.ranks) != len(self.scores) or self.ranks[-1:] != [self.rows]:
            raise ValueError("each rank must have a score, up to the last row's")
        return self

    @property
    def max_level(self) -> float:
        """The highest level that the rows can vouch for."""
        return self.rows / (self.rows + 1)

    def threshold(self, level: float) -> float:
        """Return the score that a fresh row exceeds with a probability of at most 1 - `level`.

        Raises:
            LevelTooHigh: the level exceeds `max_level`.
        """
        rank = math.ceil((self.rows + 1) * level - 1e-9)
        if rank > self.rows:
            raise LevelTooHigh
        return self.scores[bisect_left(self.ranks, rank)]


def ranks_to_keep(rows: int) -> list[int]:
    """Return at most 1,100 ranks: evenly spread ones, and the highest hundred.

    The next rank that was kept stands for one that was not, which only widens an interval.
    """
    if rows <= MAX_RANKS:
        return list(range(1, rows + 1))
    spread = {math.ceil((rows + 1) * share / MAX_RANKS) for share in range(1, MAX_RANKS)}
    highest = range(rows - MAX_RANKS // 10 + 1, rows + 1)
    return sorted(rank for rank in spread | set(highest) if rank <= rows)
