"""Intervals by drawing patients: against theory, and that a patient's lines stay together."""

import numpy as np
import pytest

from tss.errors import InputError
from tss.metrics.bootstrap import bootstrap_ci


def interval_of_mean(values, patients, seed=0, **more):
    return bootstrap_ci(lambda lines: float(values[lines].mean()), patients, np.random.default_rng(seed), **more)


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean, reach = values.mean(), 1.96 * values.std() / 20
    assert interval_of_mean(values, range(400)) == pytest.approx((mean - reach, mean + reach), abs=0.02)
    low, high = interval_of_mean(values, range(400), level=0.5)
    assert high - low == pytest.approx(2 * 0.674 * values.std() / 20, abs=0.02)


def test_same_rng_same_interval():
    values = np.arange(10.0)
    assert interval_of_mean(values, range(10), 3) == interval_of_mean(values, range(10), 3)
    assert interval_of_mean(values, range(10), 3) != interval_of_mean(values, range(10), 4)


def test_a_patients_lines_are_drawn_together():
    """Two equal lines a patient are no more than one: drawn apart they would narrow the interval by sqrt(2)."""
    once = np.random.default_rng(2).normal(size=100)
    names = [f"p{number}" for number in range(100)]
    one = interval_of_mean(once, names)
    assert interval_of_mean(np.append(once, once), names + names) == pytest.approx(one, abs=1e-12)
    seen = []
    bootstrap_ci(lambda lines: seen.append(lines) or 0.0, ["a", "b", "a", "c"], np.random.default_rng(0), draws=50)
    assert all((lines == 0).sum() == (lines == 2).sum() for lines in seen) and {len(lines) for lines in seen} > {3, 4}


def test_draws_without_an_answer_are_discarded_until_they_are_too_many():
    def refuse_unless(least):
        def statistic(lines):
            if len(set(lines.tolist())) < least:
                raise InputError("one class only")
            return float(len(lines))

        return statistic

    assert bootstrap_ci(refuse_unless(2), range(4), np.random.default_rng(0)) == (4.0, 4.0)
    with pytest.raises(InputError, match=r"of 2000 draws of the patients have no answer \(one class only\)"):
        bootstrap_ci(refuse_unless(4), range(4), np.random.default_rng(0))
    with pytest.raises(InputError, match="needs patients"):
        bootstrap_ci(refuse_unless(1), [], np.random.default_rng(0))
