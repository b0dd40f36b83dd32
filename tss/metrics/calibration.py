"""Do probabilities mean what they say? Brier score, calibration curve and decision curve.

In:  y (n,) true classes 0 or 1; p (n,) probabilities of class 1; both as arrays or lists. One class only is allowed.
Out: plain floats and lists of small tuples.
Paper: none (the field does not report them).
See: tests/metrics/test_calibration.py
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tss.errors import InputError
from tss.metrics.roc import checked, confusion, mean_ci, wilson

GROUPS = 5  # our choice: a test set of 80 has 16 patients in each
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # our choice


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared distance of the probability from what happened (Brier 1950): 0 = perfect, 0.25 = always one half."""
    return float(_squares(y, p).mean())


def brier_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the Brier score, a mean over cases: Student's; (0, 1) for a single case."""
    return mean_ci(_squares(y, p), 0.0, 1.0, level)


class CalibrationPoint(NamedTuple):
    """One group of cases with similar probabilities: how many, the mean probability, the share of positives."""

    n: int
    predicted: float
    observed: float
    observed_ci: tuple[float, float]


def calibration_curve(y: ArrayLike, p: ArrayLike, groups: int = GROUPS) -> list[CalibrationPoint]:
    """Group the cases by quantiles of p and compare; equal probabilities stay together, so groups may be fewer."""
    classes, probabilities = _checked(y, p)
    group = np.searchsorted(np.quantile(probabilities, np.linspace(0, 1, groups + 1))[1:-1], probabilities)
    return [
        CalibrationPoint(
            len(inside),
            float(probabilities[inside].mean()),
            float(classes[inside].mean()),
            wilson(int(classes[inside].sum()), len(inside)),
        )
        for inside in (np.flatnonzero(group == number) for number in np.unique(group))
    ]


class DecisionPoint(NamedTuple):
    """Net benefit at a threshold, in true positives a case: of the model's calls, of treating everybody; nobody: 0."""

    threshold: float
    net_benefit: float
    treat_all: float


def decision_curve(y: ArrayLike, p: ArrayLike, thresholds: Iterable[float] = THRESHOLDS) -> list[DecisionPoint]:
    """Net benefit (Vickers and Elkin 2006): TP / n - FP / n * t / (1 - t), treating every patient with p >= t.

    t is the probability at which treating and not treating weigh the same; t / (1 - t) is what one false positive
    costs in true positives.
    """
    classes, probabilities = _checked(y, p)
    points = []
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise InputError(f"a decision threshold must lie in 0..1, below 1, got {threshold}.")
        cost = threshold / (1 - threshold)
        tp, fp, _, _ = confusion(classes, probabilities, threshold)
        share = float(classes.mean())
        points.append(DecisionPoint(threshold, (tp - cost * fp) / len(classes), share - cost * (1 - share)))
    return points


def _squares(y: ArrayLike, p: ArrayLike) -> np.ndarray:
    classes, probabilities = _checked(y, p)
    return (probabilities - classes) ** 2


def _checked(y: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return y and p as float64, or refuse them."""
    classes, probabilities = checked(y, p, both_classes=False)
    if not len(classes):
        raise InputError("there are no cases: their probabilities cannot be judged.")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(
            f"probabilities must lie in 0..1, these reach from {probabilities.min()} to {probabilities.max()}."
        )
    return classes.astype(np.float64), probabilities
