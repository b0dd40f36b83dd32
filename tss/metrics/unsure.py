"""When to say "unsure": two cuts that keep a promised PPV and NPV, with a guarantee for finite samples.

In:  y (n,) true classes 0 or 1 and z (n,) scores of patients whom the model has not learned from; a promise in 0..1.
Out: a Band: positive above its upper cut, negative below its lower one, unsure in between; and where there is none,
     how many patients it takes.
Paper: none (our choice; the paper calls everybody).
See: tests/metrics/test_unsure.py, which simulates 1,000 studies

Of m patients above a cut, k of whom are positive, the exact binomial test (Clopper and Pearson 1934) says whether the
PPV above that cut can still be lower than promised. The cuts are the scores themselves, tested from the strictest on,
in an order that was fixed beforehand, and no further than the first that fails: so no correction for the number of cuts
is needed (fixed-sequence testing; Maurer 1995, and Angelopoulos 2021 for several places to start from). With STARTS
places, each has its part of the risk. The m patients strictly above a score are a sample of all above it, whatever
their number. That PPV does not fall as the cut rises is assumed; and patients like those given, with as many positives.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from tss.errors import InputError
from tss.metrics.roc import checked

CONFIDENCE = 0.9  # our choice: in so many studies both promises are kept; half of the risk for each
STARTS = 2  # our choice: the fewest patients that can show the promise, then twice as many
POWER = 0.8  # our choice: the chance of finding a cut for which patients_needed() plans
MOST_PATIENTS = 20_000  # our choice: no study of stroke onset will have more
CUTS = 60  # our choice: cuts that patients_needed() looks at


class Band(NamedTuple):
    """Positive above `upper`, negative below `lower`, in the scores' units; None: no cut keeps the promise."""

    promise: float
    lower: float | None
    upper: float | None
    n: int  # patients that it was chosen on
    n_positive: int

    def verdicts(self, z: ArrayLike) -> np.ndarray:
        """Return 1 positive, 0 negative, -1 unsure for scores (n,)."""
        scores = np.asarray(z, dtype=np.float64)
        above = scores > (math.inf if self.upper is None else self.upper)
        below = scores < (-math.inf if self.lower is None else self.lower)
        return np.where(above, 1, np.where(below, 0, -1))


def unsure_band(y: ArrayLike, z: ArrayLike, promise: float, between: float, confidence: float = CONFIDENCE) -> Band:
    """Choose the widest calls whose PPV and NPV are `promise` or more, both in `confidence` of all studies.

    between: where both promises hold for the same scores, they are called by this one; the threshold.
    """
    classes, scores = checked(y, z, both_classes=False)
    check_promise(promise, confidence)
    risk = (1 - confidence) / 2
    upper, lower = _strictest_first(classes, scores, promise, risk), _strictest_first(~classes, -scores, promise, risk)
    lower = None if lower is None else -lower
    if upper is not None and lower is not None and upper < lower:  # a higher cut keeps what a lower one does
        upper = lower = min(max(between, upper), lower)
    return Band(promise, lower, upper, len(classes), int(classes.sum()))


def check_promise(promise: float, confidence: float = CONFIDENCE) -> None:
    """Refuse what nobody can promise."""
    if not 0.5 <= promise < 1 or not 0 < confidence < 1:
        raise InputError(f"a promise must lie in 0.5..1, below 1, got {promise}: no study shows that nobody is wrong.")


def fewest_calls(promise: float, risk: float) -> int:
    """Return how many calls, all of them right, it takes to show the promise: promise ** m <= risk."""
    return math.ceil(math.log(risk) / math.log(promise) - 1e-12)


def fewest_to_promise(promise: float, confidence: float = CONFIDENCE) -> int:
    """Return how many patients must be called positive, and negative, all rightly, for unsure_band() to call any."""
    return fewest_calls(promise, (1 - confidence) / 2 / STARTS)


def _strictest_first(right: np.ndarray, scores: np.ndarray, promise: float, risk: float) -> float | None:
    """Return the lowest cut above which the share of `right` (n,) is shown to be `promise`; None where none is."""
    cuts, which = np.unique(-scores, return_inverse=True)
    size = np.bincount(which, minlength=len(cuts))
    calls = np.append(0, size.cumsum()[:-1])  # strictly above each cut
    hits = np.append(0, np.bincount(which, weights=right, minlength=len(cuts)).cumsum()[:-1])
    shown = special.bdtrc(hits - 1, calls, promise) <= risk / STARTS  # P(as many right or more) where it is kept barely
    shown &= calls > 0
    found, fewest = None, fewest_calls(promise, risk / STARTS)
    for start in range(STARTS):
        first = int(np.searchsorted(calls, fewest * 2**start))
        failed = np.flatnonzero(~shown[first:])
        last = (first + failed[0] if len(failed) else len(shown)) - 1
        if last >= first:
            found = last if found is None else max(found, last)
    return None if found is None else float(-cuts[found])


def patients_needed(y: ArrayLike, z: ArrayLike, promise: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Estimate how many patients it takes to find a cut for the PPV, and one for the NPV; 0: no number does.

    By two normals with the means and spreads that the scores have in each class, and POWER. 0: the scores keep the
    promise nowhere, or for so few patients that more than MOST_PATIENTS would be needed.
    """
    classes, scores = checked(y, z)
    check_promise(promise, confidence)
    sizes = _sizes_of_tests(promise, (1 - confidence) / 2 / STARTS)
    found = [_needed(right, values, promise, sizes) for right, values in ((classes, scores), (~classes, -scores))]
    return found[0], found[1]


def _needed(right: np.ndarray, values: np.ndarray, promise: float, sizes: list[tuple[int, int]]) -> int:
    means = [values[group].mean() for group in (right, ~right)]
    spreads = [max(float(values[group].std()), 1e-9) for group in (right, ~right)]
    best = math.inf
    for cut in np.linspace(min(means) - 2 * max(spreads), max(means) + 3 * max(spreads), CUTS):
        hits, misses = (
            float(special.ndtr((mean - cut) / spread)) * share
            for mean, spread, share in zip(means, spreads, (right.mean(), (~right).mean()), strict=True)
        )
        if hits > promise * (hits + misses):
            power = ((calls, special.bdtrc(fewest - 1, calls, hits / (hits + misses))) for calls, fewest in sizes)
            best = min(best, next((calls / (hits + misses) for calls, shown in power if shown >= POWER), math.inf))
    return math.ceil(best) if best <= MOST_PATIENTS else 0


def _sizes_of_tests(promise: float, risk: float) -> list[tuple[int, int]]:
    """Numbers of calls, rising, with the fewest right ones among them that show the promise."""
    sizes = np.unique(np.geomspace(fewest_calls(promise, risk), MOST_PATIENTS, 200).astype(int)).tolist()
    return [
        (calls, int(np.argmax(special.bdtrc(np.arange(calls + 1) - 1.0, calls, promise) <= risk))) for calls in sizes
    ]
