"""Shapley values by their definition: over all coalitions, for a handful of features."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.explain.trees import Trees


def by_enumeration(
    trees: Trees, row: npt.NDArray[np.float32], output: int
) -> npt.NDArray[np.float64]:
    """Return the contributions [features] to an output of path-dependent trees."""
    goes_left, features = (
        trees._goes_left(row[trees.feature][None], np.arange(len(trees.feature)))[0],
        len(row),
    )

    def expect(node: Any, known: frozenset[int]) -> float:
        if node >= len(trees.feature):
            return float(trees.values[node - len(trees.feature), output])
        left, right = (int(children[node]) for children in (trees.left, trees.right))
        if trees.feature[node] in known:
            return expect(left if goes_left[node] else right, known)
        share = float(trees.share[node])
        return share * expect(left, known) + (1 - share) * expect(right, known)

    worth = {
        known: sum(expect(root, known) for root in range(trees.levels[0]))
        for size in range(features + 1)
        for known in map(frozenset, combinations(range(features), size))
    }
    weight = [1 / (features * math.comb(features - 1, size)) for size in range(features)]
    return np.array(
        [
            sum(
                weight[len(known)] * (worth[known | {feature}] - each)
                for known, each in worth.items()
                if feature not in known
            )
            for feature in range(features)
        ]
    )
