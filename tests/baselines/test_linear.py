"""Two patients at -1 and 1: the minimum is known."""

import numpy as np
import pytest

from tss.baselines import linear

X, Y = np.array([[-1.0], [1.0]]), np.array([0, 1])


@pytest.mark.parametrize("strength", [0.1, 1, 50])
def test_squared_hinge_by_hand(strength):
    line = linear.fit(X, Y, "hinge", strength)  # w^2/2 + 2 C (1 - w)^2 is least at w = 4 C / (1 + 4 C)
    assert line.weights == pytest.approx([4 * strength / (1 + 4 * strength)], abs=1e-6)
    assert line.bias == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("strength", [0.1, 1, 50])
def test_logistic_regression_by_hand(strength):
    (weight,), bias = linear.fit(X, Y, "logistic", strength)
    assert weight == pytest.approx(2 * strength / (1 + np.exp(weight)), rel=1e-5)  # the slope is zero there
    assert bias == pytest.approx(0, abs=1e-6)
    assert linear.fit(X, Y, "logistic", strength).probability(X) == pytest.approx(
        [1 / (1 + np.exp(weight)), 1 / (1 + np.exp(-weight))]
    )


def test_bias_alone_gives_the_share_of_positives():
    line = linear.fit(np.zeros((4, 1)), np.array([1, 0, 0, 0]), "logistic", 1.0)
    assert line.probability(np.zeros((1, 1))) == pytest.approx([0.25], abs=1e-5)


def test_a_curve_keeps_the_order_even_where_the_data_say_otherwise():
    scores = np.array([5.0, 7.0, 9.0, 11.0])
    rising = linear.curve(scores, np.array([0, 0, 1, 1])).probability(scores)
    assert (np.diff(rising) > 0).all() and rising[1] < 0.5 < rising[2]
    assert rising + rising[::-1] == pytest.approx(1, abs=1e-5)  # symmetric data, symmetric curve
    falling = linear.curve(scores, np.array([1, 1, 0, 0])).probability(scores)
    assert (np.diff(falling) > 0).all() and falling == pytest.approx(0.5, abs=0.01)
    assert linear.curve(np.full(4, 3.0), np.array([1, 0, 0, 0])).probability([3.0]) == pytest.approx([0.25], abs=1e-5)
