"""How well do scores tell two classes apart, and which of two scores does it better?

In:  y (n,) true classes 0 or 1; p (n,) scores, higher = more likely 1; all as arrays or lists.
Out: plain floats, tuples and arrays.
Paper: 2.4 and 3 (ROC-AUC; sensitivity, specificity and accuracy at Youden's J); the intervals and the tests are ours.
See: tests/metrics/test_roc.py, and tests/benchmarks/metrics.py against scikit-learn, statsmodels and others

Every function refuses what has no answer (one class only, NaN) with an InputError; none returns NaN.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from tss.errors import InputError


def roc_auc(y: ArrayLike, p: ArrayLike) -> float:
    """Probability that a random positive scores higher than a random negative; a tie counts one half."""
    y, p = checked(y, p)
    positives = int(y.sum())
    rank_sum = _ranks(p)[y].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def roc_curve(y: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return false positive rates, true positive rates and thresholds, from (0, 0) to (1, 1).

    One point for each distinct score t, falling: a case counts as positive when p >= t. The first threshold is
    infinite: nothing counts as positive.
    """
    y, p = checked(y, p)
    thresholds, true_positives, false_positives = _counts(y, p)
    return (
        np.append(0.0, false_positives / (~y).sum()),
        np.append(0.0, true_positives / y.sum()),
        np.append(np.inf, thresholds),
    )


def auc_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95, patients: ArrayLike | None = None) -> tuple[float, float]:
    """Confidence interval of the AUC: DeLong's, computed for the AUC's logit (Pepe 2003). The suite prints no other.

    At 40 positives and 42 negatives delong_ci() covers an AUC of 0.95 in 88 to 90 of 100 studies, this one in 95
    (tests/benchmarks/coverage.py). An AUC of 0 or 1, or scores that are all equal, have no variance by DeLong's
    estimate: they get Newcombe's interval, which knows how large the sample was. With a single positive or negative
    nothing is ruled out: (0, 1).

    patients: (n,) whose case each is, where some have two, such as hemispheres: what moves both moves the AUC less than
        if they were of two patients (Obuchowski 1997). None: all are different.
    """
    y, p = checked(y, p)
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < 2:
        return 0.0, 1.0
    auc, variance = roc_auc(y, p), _delong_variance(y, *_placements(y, p), patients)
    if variance == 0:
        return newcombe_ci(auc, positives, negatives, level)
    return logit_interval(auc, variance, level)


def logit_interval(auc: float, variance: float, level: float = 0.95) -> tuple[float, float]:
    """The normal interval of the logit of an AUC between 0 and 1, brought back to the AUC."""
    centre, slope = math.log(auc / (1 - auc)), auc * (1 - auc)
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / slope
    return 1 / (1 + math.exp(reach - centre)), 1 / (1 + math.exp(-reach - centre))


def newcombe_ci(auc: float, positives: int, negatives: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of an AUC from the sizes of the classes alone (Newcombe 2006, method 5).

    It contains each AUC within z standard errors of `auc`, using the standard error which that AUC itself has
    (Hanley and McNeil 1982, both classes counted as half of the cases), as Wilson's does for proportions.
    """
    z, half = NormalDist().inv_cdf((1 + level) / 2), (positives + negatives) / 2 - 1

    def variance(theta: float) -> float:
        more = half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return theta * (1 - theta) * (1 + more) / (positives * negatives)

    def furthest(end: float) -> float:
        """The last AUC on the way to an end (0 or 1) that is near enough, by bisection."""
        near, far = auc, end
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (middle, far) if abs(auc - middle) <= z * math.sqrt(variance(middle)) else (near, middle)
        return near

    return furthest(0.0) if auc > 0 else 0.0, furthest(1.0) if auc < 1 else 1.0


def delong_ci(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the AUC as DeLong 1988 has it (by midranks as Sun and Xu 2014), clipped to [0, 1].

    For comparison with published code: it is too narrow where the AUC is high, see auc_ci(). A perfect AUC has no
    variance by this estimate: (1, 1) says nothing about how large the sample was. With a single positive or negative
    the variance is unknown: (0, 1), nothing is ruled out.
    """
    y, p = checked(y, p)
    if min(y.sum(), (~y).sum()) < 2:
        return 0.0, 1.0
    return normal_interval(roc_auc(y, p), _delong_variance(y, *_placements(y, p)), level, 0.0, 1.0)


class PairedTest(NamedTuple):
    """AUC of the first minus AUC of the second, its 95 % interval, z, and the two-sided p-value."""

    difference: float
    ci: tuple[float, float]
    z: float
    pvalue: float


def delong_test(y: ArrayLike, p1: ArrayLike, p2: ArrayLike, patients: ArrayLike | None = None) -> PairedTest:
    """Test whether two scores of the same cases have the same AUC (DeLong 1988, by midranks as Sun and Xu 2014).

    Two scores that rank alike have p = 1. patients: (n,) as in auc_ci().

    Raises InputError: fewer than two cases of a class; or a difference without any variance, such as perfect scores
        against perfectly wrong ones: z would be infinite, which says nothing about so few cases.
    """
    y, p1 = checked(y, p1)
    y, p2 = checked(y, p2)
    if min(y.sum(), (~y).sum()) < 2:
        raise InputError(f"DeLong's test needs two cases of each class: {y.sum()} of {len(y)} are positive.")
    # Halves of whole numbers, so that scores that rank alike have a difference and a variance of exactly zero.
    above, below = (first - second for first, second in zip(_placements(y, p1), _placements(y, p2), strict=True))
    difference, variance = float(above.sum() / (y.sum() * (~y).sum())), _delong_variance(y, above, below, patients)
    if variance == 0 and difference != 0:
        raise InputError(
            f"the AUCs differ by {difference:.3f} and neither varies from case to case: DeLong's test has no answer."
        )
    z = difference / math.sqrt(variance) if difference else 0.0
    return PairedTest(
        difference, normal_interval(difference, variance, 0.95, -1.0, 1.0), z, math.erfc(abs(z) / math.sqrt(2))
    )


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return the p-values of one table's comparisons, corrected for their number (Holm 1979), in the order given."""
    p = np.asarray(pvalues, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"p-values must lie in 0..1, got {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)  # the smallest counts for all, the next for one fewer, ...
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def youden_threshold(y: ArrayLike, p: ArrayLike) -> float:
    """Return the score t that maximises Youden's J = sensitivity + specificity - 1, positive being p >= t.

    Of equally good ones the highest is taken (fewest false positives). J is compared in whole numbers, so that
    rounding cannot decide.
    """
    y, p = checked(y, p)
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
    y, p = checked(y, p, both_classes=False)
    called = p >= threshold
    return Confusion(
        tp=int((called & y).sum()),
        fp=int((called & ~y).sum()),
        tn=int((~called & ~y).sum()),
        fn=int((~called & y).sum()),
    )


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the proportion k / n (Wilson 1927, without continuity correction)."""
    if not 0 <= k <= n or n == 0:
        raise InputError(f"{k} of {n} is not a proportion: the class has no cases, so its interval cannot be given.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (k + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    # At the ends the formula gives 0 and 1 but for rounding.
    return float(centre - reach) if k > 0 else 0.0, float(centre + reach) if k < n else 1.0


def mean_ci(values: ArrayLike, lowest: float, highest: float, level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean of values (n,) of independent cases, clipped to what is possible.

    One case says nothing: (lowest, highest).

    On 20 values it holds the mean in 94 to 96 of 100 studies, the bootstrap in 92 (tests/benchmarks/coverage.py).
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return lowest, highest
    reach = special.stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return float(max(lowest, values.mean() - reach)), float(min(highest, values.mean() + reach))


def normal_interval(value: float, variance: float, level: float, lowest: float, highest: float) -> tuple[float, float]:
    """The normal interval, clipped to what is possible."""
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    return float(max(lowest, value - reach)), float(min(highest, value + reach))


def _placements(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many negatives each positive beats, and how many positives beat each negative; a tie is a half."""
    ranks = _ranks(p)
    return ranks[y] - _ranks(p[y]), y.sum() - (ranks[~y] - _ranks(p[~y]))


def _delong_variance(y: np.ndarray, above: np.ndarray, below: np.ndarray, patients: ArrayLike | None = None) -> float:
    """Variance of the AUC from the placements of positives and negatives; of a difference, from their differences.

    Where a patient has several cases, what all of them add to the AUC counts as one (Obuchowski 1997).
    """
    pairs = len(above) * len(below)
    which = np.arange(len(y)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    if which.max() + 1 < len(y):
        parts = np.empty(len(y))
        parts[y], parts[~y] = above - above.mean(), below - below.mean()
        added = np.bincount(which, parts)
        return float((added**2).sum() * len(added) / (len(added) - 1)) / pairs**2
    return float(above.var(ddof=1) * len(above) + below.var(ddof=1) * len(below)) / pairs**2


def checked(y: ArrayLike, p: ArrayLike, both_classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
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
