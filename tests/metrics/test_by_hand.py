"""Numbers worked out by hand, where a formula can be wrong and still look right."""

import numpy as np
import pytest

from tss.metrics.agreement import fleiss_kappa, fleiss_kappa_ci
from tss.metrics.calibration import decision_curve
from tss.metrics.roc import normal_interval, youden_threshold


def test_an_interval_ends_where_values_do():
    assert normal_interval(0.1, 0.04, 0.95, 0.0, 1.0) == (0.0, pytest.approx(0.1 + 1.959964 * 0.2))
    assert normal_interval(0.9, 0.04, 0.95, 0.0, 1.0) == (pytest.approx(0.9 - 1.959964 * 0.2), 1.0)


def test_youden_weighs_a_false_positive_by_the_negatives():
    """Of 3 positives and 2 negatives: 1 - 1/2 at 2 is more than 1/3 at 5."""
    assert youden_threshold([1, 0, 1, 1, 0], [5, 4, 3, 2, 1]) == 2


def test_fleiss_interval_where_one_label_is_rare():
    """Beside the jackknife, which supposes nothing; at 80 : 20 the labels' shares matter."""
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    ratings = np.stack([truth ^ (rng.random(400) < 0.08) for _ in range(3)], 1).astype(int)
    n = len(ratings)
    without = np.array([fleiss_kappa(np.delete(ratings, k, 0)) for k in range(n)])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    low, high = fleiss_kappa_ci(ratings)
    assert (high - low) / (2 * 1.959964) == pytest.approx(error, rel=0.02)


def test_treating_everybody():
    """3 of 10 positive, t = 0.2: 0.3 - 0.25 * 0.7."""
    (point,) = decision_curve([1] * 3 + [0] * 7, np.linspace(0.1, 0.9, 10), [0.2])
    assert point.treat_all == pytest.approx(0.125)
