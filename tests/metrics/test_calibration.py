"""Brier score, calibration and decision curve by hand."""

import numpy as np
import pytest

from tss.errors import InputError
from tss.metrics.calibration import brier, brier_ci, calibration_curve, decision_curve
from tss.metrics.roc import wilson

Y, P = [1, 0, 1, 0], [0.9, 0.6, 0.4, 0.1]


def test_brier_by_hand():
    assert brier(Y, P) == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert brier([1, 0], [1, 0]) == 0 and brier([1, 0], [0.5, 0.5]) == 0.25
    deviation = np.sqrt(4 * 0.175**2 / 3)  # the four squares lie 0.175 from their mean
    assert brier_ci(Y, P) == pytest.approx((0, 0.185 + 3.182446 * deviation / 2))  # Student's t, 3 degrees of freedom
    assert brier_ci([1], [0.3]) == (0.0, 1.0)


def test_calibration_groups_by_quantiles_and_keeps_equal_probabilities_together():
    curve = calibration_curve([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], groups=2)
    assert [(point.n, point.observed) for point in curve] == [(3, 1 / 3), (3, 2 / 3)]
    assert [point.predicted for point in curve] == pytest.approx([0.2, 0.8])
    assert curve[0].observed_ci == wilson(1, 3)
    assert [point.n for point in calibration_curve([0, 1, 1, 0], [0.5] * 4)] == [4]


def test_probabilities_that_are_true_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    for point in calibration_curve(rng.uniform(size=20_000) < p, p):
        assert point.observed == pytest.approx(point.predicted, abs=0.03)


def test_net_benefit_by_hand():
    half, fifth = decision_curve(Y, P, [0.5, 0.2])
    assert half == (0.5, (1 - 1) / 4, 0.0)  # 0.9 is right and 0.6 wrong; at one half they weigh the same
    assert fifth.net_benefit == pytest.approx((2 - 1 / 4) / 4)  # two right, one wrong, which costs 0.2 / 0.8
    assert fifth.treat_all == pytest.approx(0.5 - 0.5 / 4)
    assert decision_curve(Y, P, [0.0])[0].net_benefit == 0.5  # threshold 0: everybody is treated, at no cost


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [([], [], "no cases"), ([0, 1], [0.5, 1.2], "reach from 0.5 to 1.2"), ([0, 1], [0.5, np.nan], "not finite")],
)
def test_what_are_no_probabilities_is_refused(y, p, message):
    for function in (brier, brier_ci, calibration_curve, decision_curve):
        with pytest.raises(InputError, match=message):
            function(y, p)
    with pytest.raises(InputError, match="below 1, got 1"):
        decision_curve(Y, P, [1.0])
