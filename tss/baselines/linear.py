"""Logistic regression and the linear support vector machine: one sum of weighted features, two ways to fit it.

In:  x (N, F) features, z-scored; y (N,) classes 0 or 1; strength C: how much the data count beside small weights.
Out: Linear: weights and bias; margins and probabilities of other patients.
Paper: 3, Table 2 (Lee et al. 2020 compare logistic regression, SVM and random forest).
See: tests/baselines/test_linear.py

Both minimise |w|^2 / 2 + C * sum of losses, the bias free: loss log(1 + exp(-m)) or max(0, 1 - m)^2 of the margin
m = +-(w x + b). Differs from Lee's tools: their logistic regression has no |w|^2 (with more features than patients its
weights have no end), and LIBSVM's loss is max(0, 1 - m), which is not smooth.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

LOSSES = ("logistic", "hinge")
MOST_STEPS = 2000


class Linear(NamedTuple):
    """margin = x @ weights + bias; above 0 = class 1 is the likelier."""

    weights: np.ndarray  # (F,)
    bias: float

    def margin(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.bias

    def probability(self, x: np.ndarray) -> np.ndarray:
        """Return (N,) in 0..1. After the hinge loss it orders patients but is not calibrated: see `curve`."""
        return special.expit(self.margin(x))


def fit(x: np.ndarray, y: np.ndarray, loss: str, strength: float, least: float = -np.inf) -> Linear:
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
    found = optimize.minimize(
        value_and_slope,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-12, "gtol": 1e-8},
    )
    return Linear(found.x[:-1], float(found.x[-1]))


class Curve(NamedTuple):
    """A logistic curve from a score to a probability, never falling: it keeps the order, so the AUC too."""

    mean: float
    spread: float
    line: Linear

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return self.line.probability(((np.asarray(scores, float) - self.mean) / self.spread)[:, None])


LEAST_SLOPE = 0.01  # of a curve, in SDs of the score; our choice: where data say "falling", the order is kept anyhow


def curve(scores: np.ndarray, y: np.ndarray) -> Curve:
    """Fit a Curve to scores (N,) and classes (N,) (Platt 1999)."""
    scores = np.asarray(scores, float)
    mean, spread = float(scores.mean()), float(scores.std()) or 1.0
    return Curve(mean, spread, fit(((scores - mean) / spread)[:, None], y, "logistic", 1.0, LEAST_SLOPE))
