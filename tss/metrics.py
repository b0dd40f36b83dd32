"""How well do probabilities tell two classes apart? AUC, its interval, a threshold, and counts at that threshold.

In:  y (n,) true classes 0 or 1; p (n,) scores, higher = more likely 1; both as arrays or lists.
Out: plain floats, tuples and arrays.
Paper: 2.4 and 3 (ROC-AUC; sensitivity, specificity and accuracy at Youden's J); the intervals are ours.
See: tests/test_metrics.py

Every function refuses what has no answer (one class only, NaN) with an InputError; none returns NaN.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tss.files import InputError


def roc_auc(y: ArrayLike, p: ArrayLike) -> float:
    """Probability that a random positive scores higher than a random negative; a tie counts one half."""
    y, p = _checked(y, p)
    positives = int(y.sum())
    rank_sum = _ranks(p)[y].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def roc_curve(y: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return false positive rates, true positive rates and thresholds, from (0, 0) to (1, 1).

    One point for each distinct score t, falling: a case counts as positive when p >= t. The first threshold is
    infinite: nothing counts as positive.
    """
    y, p = _checked(y, p)
    thresholds, true_positives, false_positives = _counts(y, p)
    return (np.append(0.0, false_positives / (~y).sum()), np.append(0.0, true_positives / y.sum()),
            np.append(np.inf, thresholds))


def delong_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the AUC (DeLong 1988, by midranks as Sun and Xu 2014), clipped to [0, 1].

    A perfect AUC has no variance by this estimate: (1, 1) says nothing about how large the sample was.
    With a single positive or negative the variance is unknown: (0, 1), nothing is ruled out.
    """
    y, p = _checked(y, p)
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < 2:
        return 0.0, 1.0
    auc = roc_auc(y, p)
    ranks = _ranks(p)
    above = (ranks[y] - _ranks(p[y])) / negatives  # each positive: share of negatives it beats
    below = 1 - (ranks[~y] - _ranks(p[~y])) / positives  # each negative: share of positives that beat it
    deviation = np.sqrt(above.var(ddof=1) / positives + below.var(ddof=1) / negatives)
    reach = NormalDist().inv_cdf((1 + level) / 2) * deviation
    return float(max(0.0, auc - reach)), float(min(1.0, auc + reach))


def youden_threshold(y: ArrayLike, p: ArrayLike) -> float:
    """Return the score t that maximises Youden's J = sensitivity + specificity - 1, positive being p >= t.

    Of several best ones the highest is taken (fewest false positives). J is compared in whole numbers, so that
    rounding cannot decide.
    """
    y, p = _checked(y, p)
    thresholds, true_positives, false_positives = _counts(y, p)
    j = true_positives * (~y).sum() - false_positives * y.sum()  # J times positives times negatives
    return float(thresholds[np.argmax(j)])


class Confusion(NamedTuple):
    """Counts of true and false, positive and negative calls."""

    tp: int
    fp: int
    tn: int
    fn: int


def confusion(y: ArrayLike, p: ArrayLike, threshold: float) -> Confusion:
    """Count the calls when p >= threshold means positive. One class only is allowed here: counts need no second."""
    y, p = _checked(y, p, both_classes=False)
    called = p >= threshold
    return Confusion(tp=int((called & y).sum()), fp=int((called & ~y).sum()),
                     tn=int((~called & ~y).sum()), fn=int((~called & y).sum()))


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the proportion k / n (Wilson 1927, without continuity correction)."""
    if not 0 <= k <= n or n == 0:
        raise InputError(f"{k} of {n} is no proportion: the class has no cases, so its interval cannot be given.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (k + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    # At the ends the formula gives 0 and 1 but for rounding.
    return float(centre - reach) if k > 0 else 0.0, float(centre + reach) if k < n else 1.0


def _checked(y: ArrayLike, p: ArrayLike, both_classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return y as booleans and p as float64, or refuse them."""
    y, p = np.asarray(y), np.asarray(p, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise InputError(f"classes {y.shape} and scores {p.shape} must be two lists of the same length.")
    if not np.isin(y, (0, 1)).all():
        raise InputError(f"classes must be 0 or 1, got {sorted(set(y.tolist()) - {0, 1})[:5]}.")
    if not np.isfinite(p).all():
        raise InputError(f"{(~np.isfinite(p)).sum()} of {len(p)} scores are not finite numbers.")
    y = y.astype(bool)
    if both_classes and (y.all() or not y.any()):
        raise InputError(f"AUC and threshold need both classes: {y.sum()} of {len(y)} cases are positive.")
    return y, p


def _ranks(p: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal scores share the mean of their ranks."""
    _, which, counts = np.unique(p, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _counts(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, falling, with the true and the false positives at or above each, as whole numbers."""
    thresholds, which = np.unique(-p, return_inverse=True)
    positives = np.bincount(which, weights=y).cumsum().astype(np.int64)
    negatives = np.bincount(which, weights=~y).cumsum().astype(np.int64)
    return -thresholds, positives, negatives
