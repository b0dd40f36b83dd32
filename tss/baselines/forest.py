"""The random forest: many trees, each on a resample of the patients, each branch on a few features.

In:  x (N, F) features; y (N,) classes 0 or 1; an rng.
Out: trees; the mean share of class 1 in the leaves that a patient falls into.
Paper: 3, Table 2 (Lee et al. 2020). Breiman 2001.
See: tests/baselines/test_forest.py
"""

from typing import NamedTuple

import numpy as np

TREES = 500  # Lee 2020


class Branch(NamedTuple):
    """x[feature] < threshold goes to `low`, the rest to `high`; a leaf has no feature but a share of class 1."""

    feature: int | None
    threshold: float
    low: "Branch | None"
    high: "Branch | None"
    share: float


def fit(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, trees: int, leaf: int) -> list[Branch]:
    """Grow trees on resamples of the patients (N of N, with replacement), splits among sqrt(F) features.

    leaf: fewest patients in a leaf.
    """
    y = np.asarray(y, float)
    forest = []
    for _ in range(trees):
        drawn = rng.integers(len(y), size=len(y))
        forest.append(_grow(x[drawn], y[drawn], rng, leaf))
    return forest


def probability(forest: list[Branch], x: np.ndarray) -> np.ndarray:
    """Return (N,) in 0..1."""
    total = np.zeros(len(x))
    for tree in forest:
        _follow(tree, x, np.arange(len(x)), total)
    return total / len(forest)


def _grow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, leaf: int) -> Branch:
    share = float(y.mean())
    if share in (0.0, 1.0) or len(y) < 2 * leaf:
        return Branch(None, 0.0, None, None, share)
    drawn = rng.permutation(x.shape[1])[: max(1, int(np.sqrt(x.shape[1])))]
    split = best_split(x[:, drawn], y, leaf)
    if split is None:
        return Branch(None, 0.0, None, None, share)
    feature, threshold = int(drawn[split[0]]), split[1]
    low = x[:, feature] < threshold
    return Branch(feature, threshold, _grow(x[low], y[low], rng, leaf), _grow(x[~low], y[~low], rng, leaf), share)


def best_split(x: np.ndarray, y: np.ndarray, leaf: int) -> tuple[int, float] | None:
    """Return feature and threshold that leave the least Gini impurity; None where no split separates anything.

    The threshold lies halfway between two neighbouring values. Of equal splits the first feature's lowest is taken.
    """
    n = len(y)
    order = np.argsort(x, axis=0, kind="stable")
    values = np.take_along_axis(x, order, 0)
    ones = np.cumsum(y[order], 0)[:-1]  # (N - 1, F): positives among the first 1, 2, ... patients
    left = np.arange(1, n)[:, None]
    right, others = n - left, y.sum() - ones
    impurity = ones * (left - ones) / left + others * (right - others) / right
    impurity[(values[1:] <= values[:-1]) | (left < leaf) | (right < leaf)] = np.inf
    feature, place = divmod(int(impurity.T.argmin()), n - 1)
    if not np.isfinite(impurity[place, feature]):
        return None
    low, high = values[place, feature], values[place + 1, feature]
    middle = low + (high - low) / 2
    return feature, float(middle if middle > low else high)


def _follow(branch: Branch, x: np.ndarray, who: np.ndarray, total: np.ndarray) -> None:
    if branch.feature is None:
        total[who] += branch.share
        return
    low = x[who, branch.feature] < branch.threshold
    for part, below in ((who[low], branch.low), (who[~low], branch.high)):
        if len(part):
            _follow(below, x, part, total)
