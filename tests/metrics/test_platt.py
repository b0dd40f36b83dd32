"""Recalibration at simulated sites, whose scanner shifts and stretches the logits."""

import numpy as np
import pytest
from scipy.special import expit

from tss.errors import InputError
from tss.metrics.calibration import brier
from tss.metrics.platt import Line, fit_line, gain_of_line


def a_site(rng, n, shift=0.0, stretch=1.0):
    """Logits that mean what they say, then as another scanner gives them."""
    true = rng.normal(0, 1.5, n)
    return (rng.random(n) < expit(true)).astype(int), shift + stretch * true


def test_many_patients_give_the_line_back():
    y, z = a_site(np.random.default_rng(0), 40_000, shift=1.2, stretch=2.0)
    assert fit_line(y, z, slope=True) == pytest.approx((-0.6, 0.5), abs=0.03)
    y, z = a_site(np.random.default_rng(0), 40_000, shift=1.2)
    assert fit_line(y, z, slope=False) == pytest.approx((-1.2, 1.0), abs=0.03)


def test_fifty_patients_are_enough_for_a_shift_and_others_gain():
    """At 200 sites: the Brier score of 500 other patients, before and after."""
    rng, gained = np.random.default_rng(1), []
    for _ in range(200):
        line = fit_line(*a_site(rng, 50, shift=1.5), slope=False)
        y, z = a_site(rng, 500, shift=1.5)
        gained.append(brier(y, expit(z)) - brier(y, expit(line.of(z))))
    assert np.mean(gained) > 0.03 and np.mean(np.array(gained) > 0) > 0.97


def test_the_gain_is_shown_where_there_is_one_and_seldom_where_there_is_none():
    rng = np.random.default_rng(2)
    shown = {
        shift: np.mean([gain_of_line(*a_site(rng, 100, shift), False).ci[0] > 0 for _ in range(20)])
        for shift in (0.0, 1.5)
    }
    assert shown[0.0] <= 0.1 and shown[1.5] >= 0.7


@pytest.mark.parametrize("slope", [False, True])
def test_the_interval_holds_what_this_line_brings_to_others(slope):
    """Student's interval of the left-out gains alone holds it at two thirds of such sites, which have no shift."""
    rng, held = np.random.default_rng(4), []
    others, logits = a_site(rng, 20_000)
    for _ in range(100):
        y, z = a_site(rng, 40)
        low, high = gain_of_line(y, z, slope).ci
        gain = brier(others, expit(logits)) - brier(others, expit(fit_line(y, z, slope).of(logits)))
        held.append(low <= gain <= high)
    assert np.mean(held) >= 0.92


def test_the_search_ends_at_the_same_line_wherever_it_begins():
    y, z = a_site(np.random.default_rng(5), 60, shift=1.0)
    for slope in (False, True):
        near = fit_line(y, z, slope, Line(-1.0, 0.9))
        assert near == pytest.approx(fit_line(y, z, slope), abs=1e-8)


def test_patients_told_apart_perfectly_have_a_finite_line():
    line = fit_line([0] * 10 + [1] * 10, np.linspace(-2, 2, 20), slope=True)
    assert np.isfinite(line).all() and line.slope > 1


def test_the_penalty_is_firths():
    """Half a case is added to either class: of logits 0 the intercept is log((k + 1/2) / (n - k + 1/2))."""
    assert fit_line([1, 1, 1, 0], [0, 0, 0, 0], slope=False).intercept == pytest.approx(np.log(3.5 / 1.5))


def test_two_lines_after_each_other_are_one():
    z = np.array([-1.0, 0.0, 2.0])
    first, second = Line(0.5, 2.0), Line(-1.0, 0.3)
    assert second.after(first).of(z) == pytest.approx(second.of(first.of(z)))


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="three patients of each class: 2 of 9 are positive"):
        gain_of_line([1, 1, 0, 0, 0, 0, 0, 0, 0], np.arange(9), True)
    with pytest.raises(InputError, match="both classes"):
        fit_line([1, 1], [0, 1], True)
