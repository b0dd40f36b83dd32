"""Logits that mean what they say elsewhere: a new intercept, or intercept and slope, from labelled patients.

In:  y (n,) true classes 0 or 1; z (n,) logits.
Out: a Line(intercept, slope): the new logit is intercept + slope * z; what it gains, with an interval.
Paper: none (Platt 1999; updating a model at a site: Steyerberg 2004, Vergouwe 2017).
See: tests/metrics/test_platt.py, which simulates sites

The likelihood is penalised by Jeffreys' prior (Firth 1993): 20 patients whom the scores tell apart perfectly would else
have an infinite slope.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from tss.errors import InputError
from tss.metrics.roc import checked

STEPS = 200  # of Newton's method; ten are usual
LARGEST_STEP = 2.0  # our choice: in logits, so that no step overshoots
CLOSE = 1e-10


class Line(NamedTuple):
    """The new logit is intercept + slope * logit."""

    intercept: float
    slope: float

    def of(self, z: ArrayLike) -> np.ndarray:
        """Return the new logits, in the shape of z."""
        return self.intercept + self.slope * np.asarray(z, dtype=np.float64)

    def after(self, other: "Line") -> "Line":
        """Return the line that takes the other's result."""
        return Line(self.intercept + self.slope * other.intercept, self.slope * other.slope)


AS_IT_IS = Line(0.0, 1.0)
NOWHERE = Line(0.0, 0.0)


class Gain(NamedTuple):
    """Brier scores of patients by lines that were fitted to the others, and of the logits as they are."""

    before: float
    after: float
    gain: float
    ci: tuple[float, float]  # 95 %, of the gain that this very line brings to others


def fit_line(y: ArrayLike, z: ArrayLike, slope: bool, start: Line = NOWHERE) -> Line:
    """Fit intercept and slope to both classes of patients; without `slope` the intercept alone, the slope being 1.

    start: where the search begins; the nearer to the answer, the sooner it is found.
    """
    classes, logits = checked(y, z)
    design = _design(logits, slope)
    offset = np.zeros_like(logits) if slope else logits
    fitted = np.array(start[: 1 + slope])
    for _ in range(STEPS):
        p = special.expit(offset + design @ fitted)
        weight = p * (1 - p)
        information = design.T @ (weight[:, None] * design)
        inverse = np.linalg.pinv(information)
        leverage = weight * np.einsum("ni,ij,nj->n", design, inverse, design)
        step = inverse @ (design.T @ (classes - p + leverage * (0.5 - p)))
        fitted += step * min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), CLOSE))
        if np.abs(step).max() < CLOSE:
            break
    return Line(float(fitted[0]), float(fitted[1]) if slope else 1.0)


def gain_of_line(y: ArrayLike, z: ArrayLike, slope: bool) -> Gain:
    """Estimate what recalibration gains for other patients of the site: each is left out once (n lines).

    The interval is Student's, over patients, of a variance that counts the line's own uncertainty too. Without that it
    held the gain at 66 to 86 % of sites with little to gain; with it at 93 to 96 % where there is much to gain, and at
    97 to 99 % where there is little (tests/benchmarks/coverage.py).

    Raises InputError: fewer than three patients of a class.
    """
    classes, logits = checked(y, z)
    if min(classes.sum(), (~classes).sum()) < 3:
        raise InputError(
            f"recalibration needs three patients of each class: {classes.sum()} of {len(classes)} are positive."
        )
    line, others = fit_line(classes, logits, slope), ~np.eye(len(classes), dtype=bool)
    new = np.array([fit_line(classes[rest], logits[rest], slope, line).of(logits[~rest])[0] for rest in others])
    before, after = ((special.expit(values) - classes) ** 2 for values in (logits, new))
    saved = before - after
    variance = saved.var(ddof=1) / len(saved) + _variance_by_the_line(classes, logits, slope, line)
    reach = special.stdtrit(len(saved) - 2, 0.975) * np.sqrt(variance)
    gain = float(saved.mean())
    return Gain(float(before.mean()), float(after.mean()), gain, (float(gain - reach), float(gain + reach)))


def _variance_by_the_line(classes: np.ndarray, logits: np.ndarray, slope: bool, line: Line) -> float:
    """Return what the mean of left-out patients' gains varies more, because they fit each other's lines.

    A patient moves the line, and the line moves the error of every other patient: of second order, but all there is
    where the gain is near 0, and the left-out gains then hardly differ from each other. The expected product over two
    patients, each moving the line for the other.
    """
    design, n = _design(logits, slope), len(logits)
    p = special.expit(line.of(logits))
    weight = p * (1 - p)
    information = design.T @ (weight[:, None] * design) / n
    moves = ((classes - p)[:, None] * design) @ np.linalg.pinv(information)  # (n, 1 or 2): of the line, times n
    errors = (2 * (p - classes) * weight)[:, None] * design  # of the squared error, as the line moves
    both = (errors - errors.mean(axis=0)).T @ moves / n
    return max(0.0, float(np.trace(both @ both))) / n**2


def _design(logits: np.ndarray, slope: bool) -> np.ndarray:
    """What is fitted: (n, 2) ones and logits, or ones alone."""
    return np.stack([np.ones_like(logits), logits], axis=1)[:, : 1 + slope]
