"""A method that has no answer for some patients, scored on all of them: two ways of counting its failures.

In:  y (n,) true classes 0 or 1; p (n,) scores in 0..1, NaN where the method has no answer.
Out: p (n,) without gaps.
Paper: none; the paper scores Lee 2020 on 221 of its 422 patients (STARD 2015 asks for all).
See: tests/metrics/test_failures.py

As wrong is adversarial: with a fifth of the patients failed, an AUC of 0.8 falls to chance. At one neutral score a
failure says nothing: it ranks in the middle of the answers (decision 8).
"""

import numpy as np

WRONG, NEUTRAL = "failures as wrong", "failures at one neutral score"  # what a table calls the two


def failures_as_wrong(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Give each failure the score 0 where the class is 1, and 1 where it is 0."""
    return np.where(np.isnan(p), 1.0 - y, p)


def failures_at_neutral(p: np.ndarray) -> np.ndarray:
    """Give each failure the median of the method's answers, which needs no class; 0.5 where it has none."""
    failed = np.isnan(p)
    return np.where(failed, 0.5 if failed.all() else np.median(p[~failed]), p)
