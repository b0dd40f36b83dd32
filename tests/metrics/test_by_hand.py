"""Numbers worked out by hand, where a formula can be wrong and still look right."""

import numpy as np
import pytest
from scipy import special, stats

from tss.errors import InputError
from tss.metrics.agreement import fleiss_kappa, fleiss_kappa_ci
from tss.metrics.calibration import brier_ci, calibration_curve, decision_curve
from tss.metrics.failures import failures_at_neutral
from tss.metrics.platt import fit_line, gain_of_line
from tss.metrics.roc import normal_interval, youden_threshold
from tss.metrics.unsure import unsure_band


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


def test_a_brier_scores_interval_ends_at_1():
    assert brier_ci([0, 1], [1, 1]) == (0.0, 1.0)  # 0.5 and 0.98 on either side
    low, high = brier_ci([0] + [1] * 7, [1] * 8)  # a 1 and seven 0: variance 1/8, standard error 1/8
    assert (low, high) == (0.0, pytest.approx(0.125 + 2.364624251592785 / 8))  # Student's t, 7 degrees of freedom


def test_calibration_and_decision_curve_by_hand():
    (group,) = calibration_curve([0, 0, 1], [0.1, 0.2, 0.9], groups=1)
    assert (group.n, group.predicted, group.observed) == (3, pytest.approx(0.4), pytest.approx(1 / 3))
    points = decision_curve([0, 0, 1], [0.1, 0.2, 0.9])
    assert [point.threshold for point in points] == pytest.approx([0.05 * k for k in range(1, 20)])


def test_failures_get_the_median_of_the_answers():
    assert failures_at_neutral(np.array([0.1, np.nan, 0.2, 0.9])).tolist() == [0.1, 0.2, 0.2, 0.9]
    assert failures_at_neutral(np.array([np.nan, np.nan])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("slope", [False, True])
def test_what_recalibration_gains_is_judged_on_patients_left_out(slope):
    y, z = np.array([0, 0, 1, 0, 1, 1, 1]), np.array([-2.0, -1, -0.5, 0.4, 0.8, 2, 3])
    before, saved = [], []
    for k in range(7):
        rest = np.arange(7) != k
        line = fit_line(y[rest], z[rest], slope)
        p, new = special.expit(z[k]), special.expit(line.intercept + line.slope * z[k])
        before.append((p - y[k]) ** 2)
        saved.append((p - y[k]) ** 2 - (new - y[k]) ** 2)
    # What each patient adds to the line, and how the errors change with it, by finite differences.
    line, names = np.array(fit_line(y, z, slope)), [0, 1] if slope else [0]

    def loss(k, step, name):
        moved = line + step * np.eye(2)[name]
        p = special.expit(moved[0] + moved[1] * z[k])
        return np.array([np.log(p) if y[k] else np.log(1 - p), (p - y[k]) ** 2])

    score, error = (
        np.array([[(loss(k, 1e-5, a) - loss(k, -1e-5, a))[which] / 2e-5 for a in names] for k in range(7)])
        for which in (0, 1)
    )
    p = special.expit(line[0] + line[1] * z)
    curvature = sum(p[k] * (1 - p[k]) * np.outer([1, z[k]], [1, z[k]]) for k in range(7))[: len(names), : len(names)]
    moves = score @ np.linalg.inv(curvature)
    both = sum(np.outer(error[k] - error.mean(0), moves[k]) for k in range(7))
    variance = np.var(saved, ddof=1) / 7 + np.trace(both @ both) / 49
    reach = stats.t.ppf(0.975, 5) * np.sqrt(variance)
    found = gain_of_line(y, z, slope)
    assert (found.before, found.gain) == (pytest.approx(np.mean(before)), pytest.approx(np.mean(saved)))
    assert found.ci == pytest.approx((np.mean(saved) - reach, np.mean(saved) + reach), rel=1e-5)


def test_youden_weighs_by_shares_and_not_by_counts():
    """At 0.5 both positives and three of eight negatives: 1 - 3/8; at 0.9 one positive alone: 1/2."""
    y, p = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.5, 0.8, 0.7, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert youden_threshold(y, p) == 0.5


def falling(*groups):
    """Classes of patients from the highest score down, and their scores; groups: (class, how many)."""
    y = [label for label, count in groups for _ in range(count)]
    return np.array(y), np.arange(len(y), 0, -1.0)


def test_a_promise_of_nine_in_ten_takes_36_right_calls_in_a_row():
    """0.9^36 = 0.0225 and 0.9^35 = 0.0250+: a tenth of risk, for two sides and two places to start from, is 0.025."""
    assert unsure_band(*falling((1, 36), (0, 4)), 0.9, 0.0).upper == 4
    assert unsure_band(*falling((1, 35), (0, 5)), 0.9, 0.0).upper is None


def test_each_place_to_start_from_has_half_of_the_risk():
    """Of 26 calls at 3/4, two wrong ones or fewer come by chance in 0.0258 of studies: more than 0.025, under 0.05."""
    assert stats.binom.cdf(2, 26, 0.25) == pytest.approx(0.0258, abs=1e-4)
    assert unsure_band(*falling((0, 2), (1, 24), (0, 40)), 0.75, 0.0).upper is None
    assert unsure_band(*falling((0, 1), (1, 25), (0, 40)), 0.75, 0.0).upper is not None


@pytest.mark.parametrize("promise", [0.49, 1.0])
def test_a_promise_below_a_half_or_of_certainty_is_none(promise):
    with pytest.raises(InputError, match="a promise must lie in 0.5..1"):
        unsure_band(*falling((1, 5), (0, 5)), promise, 0.0)


def test_one_subject_says_nothing_of_agreement():
    assert fleiss_kappa_ci([[0, 1]]) == (-1.0, 1.0)
