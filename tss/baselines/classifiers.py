"""The classical classifiers: linear ones (logistic regression, support vector machine), and the random forest.

In:  x (N, F) features, z-scored for the linear ones; y (N,) classes 0 or 1; strength C: how much the data count
     relative to small weights; or the number of trees, the fewest patients in a leaf, and an rng.
Out: a Linear, a Curve or a Forest, each with probability(x) -> (N,) in 0..1.
Paper: 3, Table 2 (Lee et al. 2020 compare logistic regression, SVM and random forest). Platt 1999, Breiman 2001.
See: tests/baselines/test_classifiers.py

The linear ones minimise |w|^2 / 2 + C * sum of losses, the bias free: loss log(1 + exp(-m)) or max(0, 1 - m)^2 of the
margin m = +-(w x + b). Different from Lee's tools: their logistic regression has no |w|^2 (with more features than
patients its weights grow without end), and LIBSVM's loss is max(0, 1 - m), which is not smooth.
The forest grows each tree on a resample of the patients, each branch on a few features.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

MOST_STEPS = 2000


class Linear(NamedTuple):
    """margin = x @ weights + bias; above 0 = class 1 is more likely."""

    weights: np.ndarray  # (F,)
    bias: float

    def margin(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.bias

    def probability(self, x: np.ndarray) -> np.ndarray:
        """Return (N,) in 0..1. After the hinge loss it orders patients but is not calibrated: see `fit_curve`."""
        return special.expit(self.margin(x))


def fit_linear(x: np.ndarray, y: np.ndarray, loss: str, strength: float, least: float = -np.inf) -> Linear:
    """Fit weights and bias to x (N, F) and y (N,). least: no weight is smaller than this."""
    sign = np.where(np.asarray(y) == 1, 1.0, -1.0)

    def value_and_slope(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (x @ weights + bias)
        if loss == "logistic":
            losses, slopes = np.logaddexp(0, -margin), -special.expit(-margin)
        else:
            short = np.maximum(0, 1 - margin)
            losses, slopes = short**2, -2 * short
        pull = strength * slopes * sign
        return weights @ weights / 2 + strength * losses.sum(), np.append(weights + x.T @ pull, pull.sum())

    start = np.append(np.full(x.shape[1], max(0.0, least)), 0.0)
    bounds = [(least, np.inf)] * x.shape[1] + [(-np.inf, np.inf)]
    options = {"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-12, "gtol": 1e-8}
    found = optimize.minimize(value_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return Linear(found.x[:-1], float(found.x[-1]))


class Curve(NamedTuple):
    """A logistic curve from a score to a probability, never falling: it keeps the order, and so the AUC."""

    mean: float
    spread: float
    line: Linear

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return self.line.probability(((np.asarray(scores, float) - self.mean) / self.spread)[:, None])


LEAST_SLOPE = 0.01  # of a curve, in SDs of the score; our choice: the order is kept even where the data fall


def fit_curve(scores: np.ndarray, y: np.ndarray) -> Curve:
    """Fit a Curve to scores (N,) and classes (N,) (Platt 1999)."""
    scores = np.asarray(scores, float)
    mean, spread = float(scores.mean()), float(scores.std()) or 1.0
    return Curve(mean, spread, fit_linear(((scores - mean) / spread)[:, None], y, "logistic", 1.0, LEAST_SLOPE))


TREES = 500  # Lee 2020


class Branch(NamedTuple):
    """x[feature] < threshold goes to `low`, the rest to `high`; a leaf has no feature but a share of class 1."""

    feature: int | None
    threshold: float
    low: "Branch | None"
    high: "Branch | None"
    share: float


class Forest(NamedTuple):
    """Trees that vote: the mean share of class 1 in the leaves that a patient falls into."""

    trees: list[Branch]

    def probability(self, x: np.ndarray) -> np.ndarray:
        total = np.zeros(len(x))
        for tree in self.trees:
            _follow(tree, x, np.arange(len(x)), total)
        return total / len(self.trees)


def fit_forest(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, trees: int, leaf: int) -> Forest:
    """Grow trees on resamples of the patients (N of N, with replacement), splits among sqrt(F) features.

    leaf: fewest patients in a leaf.
    """
    y = np.asarray(y, float)
    forest = []
    for _ in range(trees):
        drawn = rng.integers(len(y), size=len(y))
        forest.append(_grow(x[drawn], y[drawn], rng, leaf))
    return Forest(forest)


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
    left = np.arange(1, n)[:, None]  # how many patients each split puts on its left
    right = n - left
    left_positives = np.cumsum(y[order], 0)[:-1]  # (N - 1, F)
    right_positives = y.sum() - left_positives
    impurity = left_positives * (left - left_positives) / left + right_positives * (right - right_positives) / right
    impurity[(values[1:] <= values[:-1]) | (left < leaf) | (right < leaf)] = np.inf
    feature, place = divmod(int(impurity.T.argmin()), n - 1)
    if not np.isfinite(impurity[place, feature]):
        return None
    low, high = values[place, feature], values[place + 1, feature]
    middle = low + (high - low) / 2
    return feature, float(middle if middle > low else high)


def _follow(branch: Branch, x: np.ndarray, who: np.ndarray, total: np.ndarray) -> None:
    if branch.feature is None or branch.low is None or branch.high is None:
        total[who] += branch.share
        return
    low = x[who, branch.feature] < branch.threshold
    for part, below in ((who[low], branch.low), (who[~low], branch.high)):
        if len(part):
            _follow(below, x, part, total)
