"""How far do readers agree beyond chance, and is one more often right than another?

In:  ratings of the same subjects by two or more readers; calls (n,) of 0 and 1 beside the true classes.
Out: plain floats and tuples.
Paper: 3 (Fleiss' kappa of three radiologists); the intervals, Cohen's kappa and McNemar's test are ours.
See: tests/metrics/test_agreement.py, and tests/benchmarks/metrics.py beside statsmodels
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from tss.errors import InputError
from tss.metrics.roc import checked, normal_interval


def fleiss_kappa(ratings: ArrayLike) -> float:
    """Return the agreement of raters beyond chance (Fleiss 1971): 1 = always, 0 = as often as by chance.

    ratings: (subjects, raters), labels of any kind; every rater has rated every subject.
    Raises InputError: fewer than two raters, a missing rating, or a single label throughout (0 / 0).
    """
    return _fleiss(ratings)[0]


def fleiss_kappa_ci(ratings: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of Fleiss' kappa for other subjects and the same raters (Gwet 2008, by linearisation).

    It does not suppose that kappa is 0, as Fleiss' own variance does. Perfect agreement has no variance: (1, 1).
    One subject only: (-1, 1).
    """
    kappa, parts = _fleiss(ratings)
    if len(parts) < 2:
        return -1.0, 1.0
    return normal_interval(kappa, float(parts.var(ddof=1)) / len(parts), level, -1.0, 1.0)


def _fleiss(ratings: ArrayLike) -> tuple[float, np.ndarray]:
    """Kappa, and what each subject (n,) adds to it to first order (mean 0)."""
    ratings = np.asarray(ratings)
    if ratings.ndim != 2 or ratings.shape[0] < 1 or ratings.shape[1] < 2:
        raise InputError(f"ratings {ratings.shape} must be (subjects, raters), with two raters at least.")
    labels, which = _labels(ratings)
    counts = (which[..., None] == np.arange(len(labels))).sum(1)  # (subjects, labels)
    raters, shares = ratings.shape[1], counts.sum(0) / ratings.size
    agree = (counts * (counts - 1)).sum(1) / (raters * (raters - 1))  # each subject: share of pairs that agree
    chance = counts @ shares / raters
    expected = float(shares @ shares)
    kappa = (float(agree.mean()) - expected) / (1 - expected)
    return kappa, (agree - agree.mean() - 2 * (1 - kappa) * (chance - expected)) / (1 - expected)


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Return the agreement of two raters beyond chance (Cohen 1960). a, b: (n,) labels of the same subjects.

    Raises InputError: a missing rating, or a single label throughout (0 / 0).
    """
    return _cohen(a, b)[0]


def cohen_kappa_ci(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of Cohen's kappa (Fleiss, Cohen and Everitt 1969). Perfect agreement: (1, 1)."""
    kappa, parts = _cohen(a, b)
    return normal_interval(kappa, float((parts**2).mean()) / len(parts), level, -1.0, 1.0)


def _cohen(a: ArrayLike, b: ArrayLike) -> tuple[float, np.ndarray]:
    """Kappa, and what each subject (n,) adds to it to first order (mean 0)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(f"ratings {a.shape} and {b.shape} must be two lists of the same length.")
    labels, which = _labels(np.stack([a, b]))
    first, second = (np.bincount(rater, minlength=len(labels)) / len(a) for rater in which)
    agree, expected = which[0] == which[1], float(first @ second)
    kappa = (float(agree.mean()) - expected) / (1 - expected)
    chance = second[which[0]] + first[which[1]]
    return kappa, (agree - agree.mean() - (1 - kappa) * (chance - 2 * expected)) / (1 - expected)


def _labels(ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels, two at least, and which of them each rating is (the shape of `ratings`)."""
    if ratings.dtype == object or (ratings.dtype.kind == "f" and not np.isfinite(ratings).all()):
        raise InputError("a rating is missing: omit subjects that a rater has not rated, and say how many.")
    labels, which = np.unique(ratings, return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"every rating is {labels[0]!s}: agreement beyond chance has no meaning (kappa is 0 / 0).")
    return labels, which.reshape(ratings.shape)


class McNemar(NamedTuple):
    """How many cases only the first and only the second call got right, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    pvalue: float


def mcnemar(y: ArrayLike, a: ArrayLike, b: ArrayLike) -> McNemar:
    """Test whether two calls (n,) of 0 and 1 are equally often right about y (McNemar 1947).

    Always the exact binomial test on the cases in which just one of the two is right, never the chi-square that
    stands in for it when they are many. No such case: p = 1.
    """
    y, a = checked(y, a, both_classes=False)
    y, b = checked(y, b, both_classes=False)
    if not len(y):
        raise InputError("McNemar's test has no cases.")
    for calls in (a, b):
        if not np.isin(calls, (0, 1)).all():
            raise InputError(f"calls must be 0 or 1, got {sorted(set(calls.tolist()) - {0, 1})[:5]}.")
    right_a, right_b = a == y, b == y
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(only_a, only_b, min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))))
