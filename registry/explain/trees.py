"""Shapley values of tree ensembles, vectorised over all trees at once.

The game is path-dependent TreeSHAP (Lundberg et al. 2020, "From local explanations to global
understanding with explainable AI for trees"): at a node that tests a feature outside the coalition,
a row follows both branches, weighted by their shares of the training rows.

Let every feature join the coalition with probability t, independently. Then a node's expected
value is a blend of its children's, and the Shapley value of a feature is the integral over t from
0 to 1 of the derivative with respect to that feature's own probability. Both are polynomials in t,
so a few Gauss-Legendre points integrate them exactly, and one pass down and one pass up the trees
compute them for all features. A row costs time in proportion to the number of nodes.

Where a path tests a feature again, the tests above are evidence about it. If the row passed them
all, the feature is in the coalition with probability t / (z + t (1 - z)), where z is the share of
training rows that took the same branches at these tests. If it failed one, the feature is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_POINTS = 6
"""Exact for paths with up to 12 features; beyond, the error is below about 1e-8 of the output."""
MAX_CELLS = 2_000_000
"""Values of a temporary array, to bound memory."""
_NO_COVER = 1e-12
"""Stands for the share of a branch that no training row took."""


@dataclass(frozen=True)
class Tree:
    """One tree, as its library stores it: [nodes] arrays, the root first.

    Args:
        left, right: positions of the children; -1 for leaves.
        feature: the feature that an inner node tests.
        threshold: a row goes left if its value is not larger (as float32).
        missing_left: whether a row without a value goes left.
        cover: the (weighted) number of training rows.
        values: [nodes, outputs] what each leaf adds to each output.
        categories: for inner nodes that test for membership, the values that go left. Values that
            are not in `Trees.known` count as missing.
    """

    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    feature: npt.NDArray[Any]
    threshold: npt.NDArray[Any]
    missing_left: npt.NDArray[Any]
    cover: npt.NDArray[Any]
    values: Floats
    categories: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Trees:
    """All trees of an ensemble as flat arrays.

    Inner nodes come first, level by level and from 0 on; leaves follow them.

    Args:
        levels: the number of inner nodes of each level; the first are the roots.
        feature: [inner] the feature that a node tests.
        threshold: [inner] a row goes left if its value is not larger.
        missing_left: [inner] whether a row without a value goes left.
        left, right: [inner] the children's positions.
        share: [inner] the left child's share of the node's training rows.
        values: [leaves, outputs] what a leaf adds to each output.
        base: [outputs] what is added whatever the row.
        tests: [n] inner nodes that test for membership…
        members: [n, categories + 1] …and which categories go left; the last is for missing values.
        known: [features, categories] the known categories of each feature, ascending, then NaN.
    """

    levels: Indices
    feature: Indices
    threshold: Singles
    missing_left: Mask
    left: Indices
    right: Indices
    share: Floats
    values: Floats
    base: Floats
    tests: Indices
    members: Mask
    known: Singles

    def shap(self, rows: Singles, outputs: Indices) -> tuple[Floats, Floats]:
        """Return the expected output [rows], and the contributions [rows, features] to it.

        Args:
            outputs: [rows] which output to explain for each row.
        """
        plan = self._plan
        found = np.empty(rows.shape, dtype=np.float64)
        at_once = max(1, MAX_CELLS // max(1, plan.rate.size))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            found[part] = self._shap(rows[part], outputs[part], plan)
        return (self.base + plan.expected)[outputs], found

    def raw(self, rows: Singles) -> Floats:
        """Return the outputs [rows, outputs]."""
        total = np.tile(self.base, (len(rows), 1))
        inner = len(self.feature)
        if not inner:
            return total
        row = np.arange(len(rows))[:, None]
        node = np.tile(np.arange(self.levels[0]), (len(rows), 1))
        for _ in self.levels:
            at = np.minimum(node, inner - 1)
            left = self._goes_left(rows[row, self.feature[at]], at)
            node = np.where(node < inner, np.where(left, self.left[at], self.right[at]), node)
        return np.asarray(total + self.values[node - inner].sum(axis=1))

    def _shap(self, rows: Singles, outputs: Indices, plan: "_Plan") -> Floats:
        """Return the contributions of one chunk; most arrays are [rows, points, nodes]."""
        inner, features = len(self.feature), rows.shape[1]
        if not inner:
            return np.zeros(rows.shape)
        left = self._goes_left(rows.take(self.feature, axis=1), np.arange(inner))
        passed = np.ones(left.shape, dtype=np.bool_)
        for nodes, earlier, side in plan.repeats:
            passed[:, nodes] = passed[:, earlier] & (left[:, earlier] == side)
        # How much knowing the feature moves weight to the left branch.
        pull = ((left - self.share) * passed)[:, None]

        to_left = plan.chance * pull
        to_left += self.share
        weight = to_left.take(plan.parent, axis=2)  # of each node, seen from its parent
        np.subtract(1.0, weight, out=weight, where=~plan.is_left)
        weight[..., : plan.levels[0].stop] = 1.0
        for level in plan.levels[1:]:
            weight[..., level] *= weight.take(plan.parent[level], axis=2)

        value = np.empty((len(rows), plan.points, inner + len(self.values)))
        value[..., inner:] = self.values[:, outputs].T[:, None]
        for level in reversed(plan.levels):
            right = value.take(self.right[level], axis=2)
            change = value.take(self.left[level], axis=2)
            change -= right
            weight[..., level] *= change
            change *= to_left[..., level]
            change += right
            value[..., level] = change
        moved = np.einsum("rqn,qn->rn", weight, plan.rate) * pull[:, 0]
        return np.stack([np.bincount(self.feature, each, minlength=features) for each in moved])

    def _goes_left(self, given: Singles, nodes: Indices) -> Mask:
        """Return [rows, …] whether values would go left at nodes […] or [rows, …]."""
        left: Mask = given <= self.threshold[nodes]
        missing = np.isnan(given)
        if missing.any():
            left = np.where(missing, self.missing_left[nodes], left)
        for feature, position in self._membership:
            is_here = np.broadcast_to(position[nodes] >= 0, given.shape)
            values, known = given[is_here], self.known[feature]
            none = len(known)
            at = np.searchsorted(known, values)
            category = np.where((at < none) & (known[np.minimum(at, none - 1)] == values), at, none)
            test = np.broadcast_to(position[nodes], given.shape)[is_here]
            left[is_here] = self.members[test, category]
        return left

    @cached_property
    def _membership(self) -> list[tuple[int, Indices]]:
        """Return each categorical feature, and [inner] the positions of its tests, or -1."""
        found = []
        for feature in np.unique(self.feature[self.tests]):
            position = np.full(len(self.feature), -1)
            own = np.flatnonzero(self.feature[self.tests] == feature)
            position[self.tests[own]] = own
            found.append((int(feature), position))
        return found

    @cached_property
    def _plan(self) -> "_Plan":
        return _plan(self)


class _Plan(NamedTuple):
    """What is the same for every row.

    Args:
        levels: the inner nodes of each level.
        parent: [inner] a node's parent; 0 for roots.
        is_left: [inner] whether a node is a left child.
        repeats: nodes whose feature was tested above, the nearest such test, and the branch taken
            there; those with more tests above come later.
        chance: [points, inner] how likely the feature is in the coalition if the row passed the
            tests of it above.
        rate: [points, inner] how that changes with t, times the point's weight.
        expected: [outputs] the ensemble's mean over the training rows, without its base.
    """

    levels: list[slice]
    parent: Indices
    is_left: Mask
    repeats: list[tuple[Indices, Indices, Mask]]
    chance: Floats
    rate: Floats
    expected: Floats

    @property
    def points(self) -> int:
        return len(self.chance)


def _plan(trees: Trees) -> _Plan:
    inner = len(trees.feature)
    ends = np.cumsum(trees.levels)
    levels = [slice(end - size, end) for end, size in zip(ends, trees.levels, strict=True)]
    parent, is_left = np.zeros(inner, dtype=np.int64), np.zeros(inner, dtype=np.bool_)
    for children, side in ((trees.left, True), (trees.right, False)):
        nodes = np.flatnonzero(children < inner)
        parent[children[nodes]] = nodes
        is_left[children[nodes]] = side
    earlier, side_there = _earlier_tests(trees, parent, is_left)

    passing, tests = np.ones(inner), np.zeros(inner, dtype=np.int64)
    distinct = np.zeros(inner, dtype=np.int64)
    reach = np.ones(inner)
    for depth, level in enumerate(levels):
        nodes = np.arange(level.start, level.stop)
        above = parent[nodes]
        if depth:
            distinct[nodes] = distinct[above]
            reach[nodes] = reach[above] * _branch(trees.share[above], is_left[nodes])
        again = nodes[earlier[nodes] >= 0]
        tested = earlier[again]
        passing[again] = passing[tested] * _branch(trees.share[tested], side_there[again])
        tests[again] = tests[tested] + 1
        distinct[nodes] += earlier[nodes] < 0
    points = min(MAX_POINTS, (int(distinct.max(initial=1)) + 1) // 2)
    nodes_at, weights = np.polynomial.legendre.leggauss(points)
    t = ((nodes_at + 1) / 2)[:, None]
    blend = passing + t * (1 - passing)
    expected = np.zeros(trees.values.shape[1])
    for children, share in ((trees.left, trees.share), (trees.right, 1 - trees.share)):
        is_leaf = children >= inner
        expected += (reach * share)[is_leaf] @ trees.values[children[is_leaf] - inner]
    return _Plan(
        levels,
        parent,
        is_left,
        [
            (nodes, earlier[nodes], side_there[nodes])
            for nodes in (
                np.flatnonzero(tests == count) for count in range(1, tests.max(initial=0) + 1)
            )
        ],
        chance=t / blend,
        rate=(weights / 2)[:, None] * passing / blend**2,
        expected=expected,
    )


def _earlier_tests(trees: Trees, parent: Indices, is_left: Mask) -> tuple[Indices, Mask]:
    """Return [inner] the nearest test of the same feature above each node (-1), and its branch."""
    inner = len(trees.feature)
    earlier, side = np.full(inner, -1), np.zeros(inner, dtype=np.bool_)
    roots = int(trees.levels[0]) if len(trees.levels) else 0
    nodes = np.arange(roots, inner)
    below = nodes
    while len(nodes):
        above = parent[below]
        is_same = trees.feature[above] == trees.feature[nodes]
        earlier[nodes[is_same]] = above[is_same]
        side[nodes[is_same]] = is_left[below[is_same]]
        goes_on = ~is_same & (above >= roots)
        nodes, below = nodes[goes_on], above[goes_on]
    return earlier, side


def _branch(share: Floats, is_left: Mask) -> Floats:
    return np.where(is_left, share, 1 - share)


def flatten(trees: Sequence[Tree], base: Floats, known: Mapping[int, Sequence[float]]) -> Trees:
    """Return trees as flat arrays.

    Args:
        base: [outputs] what is added to the sum of the trees.
        known: the categories of each categorical feature.
    """
    sizes = np.array([len(tree.left) for tree in trees], dtype=np.int64)
    start = np.cumsum(sizes) - sizes

    def joined(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype=dtype)

    offset = np.repeat(start, sizes)
    left, right = (
        joined([np.asarray(getattr(tree, name)) for tree in trees], np.int64)
        for name in ("left", "right")
    )
    is_leaf = left < 0
    left, right = left + offset, right + offset
    cover = joined([tree.cover for tree in trees], np.float64)
    values = np.concatenate([tree.values for tree in trees]) if trees else np.zeros((0, len(base)))

    base = base + values[start[is_leaf[start]]].sum(axis=0)
    order, levels = [], []
    level = start[~is_leaf[start]]
    while len(level):
        order.append(level)
        levels.append(len(level))
        below = np.stack([left[level], right[level]], axis=1).ravel()
        level = below[~is_leaf[below]]
    nodes = joined(order, np.int64)
    leaves = np.stack([left[nodes], right[nodes]], axis=1).ravel()
    leaves = leaves[is_leaf[leaves]]
    place = np.full(len(is_leaf), -1)
    place[nodes] = np.arange(len(nodes))
    place[leaves] = len(nodes) + np.arange(len(leaves))

    both = cover[left[nodes]] + cover[right[nodes]]
    share = cover[left[nodes]] / np.where(both > 0, both, 1.0)
    tests, members, categories = _membership(trees, start, place, known)
    return Trees(
        levels=np.array(levels, dtype=np.int64),
        feature=joined([tree.feature for tree in trees], np.int64)[nodes],
        threshold=_round_down(joined([tree.threshold for tree in trees], np.float64)[nodes]),
        missing_left=joined([tree.missing_left for tree in trees], np.bool_)[nodes],
        left=place[left[nodes]],
        right=place[right[nodes]],
        share=np.clip(np.where(both > 0, share, 0.5), _NO_COVER, 1 - _NO_COVER),
        values=values[leaves],
        base=base,
        tests=tests,
        members=members,
        known=categories,
    )


def _membership(
    trees: Sequence[Tree], start: Indices, place: Indices, known: Mapping[int, Sequence[float]]
) -> tuple[Indices, Mask, Singles]:
    """Return the tests for membership as in `Trees`."""
    most = max((len(values) for values in known.values()), default=0)
    categories = np.full((max(known, default=-1) + 1, most), np.nan, dtype=np.float32)
    for feature, values in known.items():
        categories[feature, : len(values)] = np.sort(np.asarray(values, dtype=np.float32))
    tests, members = [], []
    for tree, first in zip(trees, start, strict=True):
        for node, going_left in tree.categories.items():
            tests.append(place[first + node])
            row = np.isin(categories[tree.feature[node]], np.asarray(going_left, dtype=np.float32))
            members.append(np.append(row, tree.missing_left[node]))
    return (
        np.array(tests, dtype=np.int64),
        np.array(members, dtype=np.bool_).reshape(len(tests), most + 1),
        categories,
    )


def _round_down(thresholds: Floats) -> Singles:
    """Return the largest float32 that is not larger: for float32 values it decides alike."""
    nearest = thresholds.astype(np.float32)
    lower = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > thresholds, lower, nearest)
