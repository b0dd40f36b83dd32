"""Intervals of statistics for which there is no formula: patients are resampled with replacement.

In:  a function that gives the statistic for some of the lines; the patient of each line; an rng.
Out: (low, high).
Paper: none (our choice).
See: tests/metrics/test_bootstrap.py

Patients are drawn, not lines: a patient's two hemispheres come and go together (Field and Welsh 2007).
"""

from collections.abc import Callable, Sequence

import numpy as np

from tss.errors import InputError

DRAWS = 2000  # our choice: the ends of an interval then move by about a twentieth of its width
MOST_WITHOUT_ANSWER = 0.5  # share of draws, such as draws of one class only


def bootstrap_ci(
    statistic: Callable[[np.ndarray], float],
    patients: Sequence | np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of statistic(lines), `lines` being whole numbers into the n lines.

    patients: (n,) the patient of each line, in any form that can be compared.
    Raises InputError: there are no patients, or `statistic` refused half of the draws or more. Fewer such draws are
        discarded.
    """
    if not len(patients):
        raise InputError("an interval needs patients, and there are none.")
    which = np.unique(np.asarray(patients), return_inverse=True)[1]
    lines = np.split(np.argsort(which, kind="stable"), np.bincount(which).cumsum()[:-1])
    values: list[float] = []
    reason = ""
    for _ in range(draws):
        drawn = rng.integers(len(lines), size=len(lines))
        try:
            values.append(statistic(np.concatenate([lines[number] for number in drawn])))
        except InputError as error:
            reason = str(error)
    if len(values) <= (1 - MOST_WITHOUT_ANSWER) * draws:
        raise InputError(
            f"{draws - len(values)} of {draws} draws of the patients have no answer ({reason}): too few "
            "patients for an interval."
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
