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


class Gain(NamedTuple):
    """Brier scores of patients by lines that were fitted to the others, and of the logits as they are."""

    before: float
    after: float
    gain: float
    ci: tuple[float, float]  # 95 %, of the gain, Student's over patients


def fit_line(y: ArrayLike, z: ArrayLike, slope: bool) -> Line:
    """Fit intercept and slope to both classes of patients; without `slope` the intercept alone, the slope being 1."""
    classes, logits = checked(y, z)
    design = np.stack([np.ones_like(logits), logits], axis=1)[:, : 1 + slope]
    offset = np.zeros_like(logits) if slope else logits
    fitted = np.zeros(design.shape[1])
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

    Raises InputError: fewer than three patients of a class.
    """
    classes, logits = checked(y, z)
    if min(classes.sum(), (~classes).sum()) < 3:
        raise InputError(
            f"recalibration needs three patients of each class: {classes.sum()} of {len(classes)} are positive."
        )
    others = ~np.eye(len(classes), dtype=bool)
    new = np.array([fit_line(classes[rest], logits[rest], slope).of(logits[~rest])[0] for rest in others])
    before, after = ((special.expit(values) - classes) ** 2 for values in (logits, new))
    saved = before - after
    reach = special.stdtrit(len(saved) - 2, 0.975) * saved.std(ddof=1) / np.sqrt(len(saved))
    gain = float(saved.mean())
    return Gain(float(before.mean()), float(after.mean()), gain, (float(gain - reach), float(gain + reach)))
