"""Do probabilities mean what they say? Brier score, calibration curve and decision curve.

In:  y (n,) true classes 0 or 1; p (n,) probabilities of class 1; both as arrays or lists. One class only is allowed.
Out: plain floats and lists of small tuples.
Paper: none (FIELD 1: nobody in the field reports them).
See: tests/metrics/test_calibration.py
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tss.errors import InputError
from tss.metrics.roc import confusion, wilson

GROUPS = 5  # our choice: a test set of 80 has 16 patients in each
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # our choice


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared distance of the probability from what happened (Brier 1950): 0 = perfect, 0.25 = always one half."""
    return float(_squares(y, p).mean())


def brier_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the Brier score, a mean over cases, by its standard error; (0, 1) for a single case."""
    squares = _squares(y, p)
    if len(squares) < 2:
        return 0.0, 1.0
    reach = NormalDist().inv_cdf((1 + level) / 2) * squares.std(ddof=1) / np.sqrt(len(squares))
    return float(max(0.0, squares.mean() - reach)), float(min(1.0, squares.mean() + reach))


class CalibrationPoint(NamedTuple):
    """One group of cases with similar probabilities: how many, the mean probability, the share of positives."""

    n: int
    predicted: float
    observed: float
    observed_ci: tuple[float, float]


def calibration_curve(y: ArrayLike, p: ArrayLike, groups: int = GROUPS) -> list[CalibrationPoint]:
    """Group the cases by quantiles of p and compare; equal probabilities stay together, so groups may be fewer."""
    y, p = _checked(y, p)
    group = np.searchsorted(np.quantile(p, np.linspace(0, 1, groups + 1))[1:-1], p)
    return [
        CalibrationPoint(
            len(inside), float(p[inside].mean()), float(y[inside].mean()), wilson(int(y[inside].sum()), len(inside))
        )
        for inside in (np.flatnonzero(group == number) for number in np.unique(group))
    ]


class DecisionPoint(NamedTuple):
    """Net benefit at one threshold, in true positives a case: of the model's calls, and of treating everybody.

    Treating nobody has 0."""

    threshold: float
    net_benefit: float
    treat_all: float


def decision_curve(y: ArrayLike, p: ArrayLike, thresholds: ArrayLike = THRESHOLDS) -> list[DecisionPoint]:
    """Net benefit (Vickers and Elkin 2006): TP / n - FP / n * t / (1 - t), treating whoever has p >= t.

    t is the probability at which treating and not treating weigh the same; t / (1 - t) is what one false positive
    costs in true positives.
    """
    y, p = _checked(y, p)
    points = []
    for threshold in map(float, thresholds):
        if not 0 <= threshold < 1:
            raise InputError(f"a decision threshold must lie in 0..1, below 1, got {threshold}.")
        cost = threshold / (1 - threshold)
        tp, fp, _, _ = confusion(y, p, threshold)
        points.append(DecisionPoint(threshold, (tp - cost * fp) / len(y), float(y.mean() - cost * (1 - y.mean()))))
    return points


def judge(y: ArrayLike, p: ArrayLike) -> dict:
    """Return all three as plain values for JSON: brier, brier_ci, calibration and decision_curve (lists of dicts)."""
    return {
        "brier": brier(y, p),
        "brier_ci": list(brier_ci(y, p)),
        "calibration": [point._asdict() for point in calibration_curve(y, p)],
        "decision_curve": [point._asdict() for point in decision_curve(y, p)],
    }


def _squares(y: ArrayLike, p: ArrayLike) -> np.ndarray:
    y, p = _checked(y, p)
    return (p - y) ** 2


def _checked(y: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return y and p as float64, or refuse them."""
    confusion(y, p, 0.5)  # refuses what is not 0 or 1, not finite, or not of one length
    y, p = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if not len(y):
        raise InputError("there are no cases: their probabilities cannot be judged.")
    if p.min() < 0 or p.max() > 1:
        raise InputError(f"probabilities must lie in 0..1, these reach from {p.min()} to {p.max()}.")
    return y, p
