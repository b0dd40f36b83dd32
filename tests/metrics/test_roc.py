"""AUC, DeLong, thresholds and intervals by hand, by their definitions and by published values."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from tss.errors import InputError
from tss.metrics.roc import (
    auc_ci,
    confusion,
    delong_ci,
    delong_test,
    holm,
    roc_auc,
    roc_curve,
    wilson,
    youden_threshold,
)

Y, P = [1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1]  # worked by hand below


def pairs(y, p):
    """AUC by its definition: every positive against every negative, a tie is half a win."""
    y, p = np.asarray(y), np.asarray(p)
    wins = [(a > b) + 0.5 * (a == b) for a in p[y == 1] for b in p[y == 0]]
    return sum(wins) / len(wins)


def test_auc_by_hand():
    assert roc_auc(Y, P) == 0.75  # 0.9 beats both, 0.4 beats 0.1
    assert roc_auc([1, 0], [0.5, 0.5]) == 0.5
    assert roc_auc([0, 0, 1], [1, 2, 3]) == 1.0 and roc_auc([0, 0, 1], [3, 2, 1]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_auc_with_many_ties_equals_all_pairs(seed):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 2, 60), rng.integers(0, 6, 60) / 5
    assert roc_auc(y, p) == pytest.approx(pairs(y, p), abs=1e-12)
    fpr, tpr, _ = roc_curve(y, p)
    assert np.trapezoid(tpr, fpr) == pytest.approx(pairs(y, p), abs=1e-12)


def test_curve_by_hand():
    fpr, tpr, thresholds = roc_curve([1, 0, 1, 0], [0.8, 0.8, 0.5, 0.2])
    assert thresholds.tolist() == [math.inf, 0.8, 0.5, 0.2]
    assert fpr.tolist() == [0, 0.5, 0.5, 1] and tpr.tolist() == [0, 0.5, 1, 1]


def test_delong_by_hand():
    # Positives beat 2 and 1 of 2 negatives: 1, 1/2, variance 1/8. Negatives are beaten by 1 and 2 of 2: the same.
    reach = 1.959963984540054 * math.sqrt(0.125 / 2 + 0.125 / 2)
    low, high = delong_ci(Y, P)
    assert low == pytest.approx(0.75 - reach, abs=1e-12)
    assert high == 1.0  # 0.75 + 0.69 clipped


def test_delong_narrows_with_cases_and_says_nothing_for_one():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 500)
    p = rng.normal(y, 1.0)
    low, high = delong_ci(y, p)
    assert low < roc_auc(y, p) < high and high - low < 0.08
    assert delong_ci(y, p, level=0.5)[0] > low
    assert delong_ci([1, 0, 0], [0.3, 0.2, 0.1]) == (0.0, 1.0)
    assert delong_ci([1, 1, 0, 0], [4, 3, 2, 1]) == (1.0, 1.0)


def test_the_auc_s_interval_by_hand():
    # As above, variance 1/8 and logit log(3): the reach is 1.96 * sqrt(1/8) / (3/4 * 1/4).
    reach = 1.959963984540054 * math.sqrt(0.125) / (0.75 * 0.25)
    low, high = auc_ci(Y, P)
    assert low == pytest.approx(expit(math.log(3) - reach), abs=1e-12)
    assert high == pytest.approx(expit(math.log(3) + reach), abs=1e-12)
    assert auc_ci(Y, P, level=0.5)[0] > low


def test_the_auc_s_interval_holds_a_high_auc_and_stays_within_0_and_1():
    rng, inside = np.random.default_rng(0), []
    y = np.array([1] * 40 + [0] * 42)
    for _ in range(500):
        low, high = auc_ci(y, rng.normal(size=82) + 2.326 * y)  # AUC 0.95
        inside.append(low <= 0.95 <= high)
        assert 0 <= low <= high <= 1
    assert 0.925 <= np.mean(inside) <= 0.975


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (12, 9), (40, 42)])
def test_a_perfect_auc_has_an_interval_that_narrows_with_cases(positives, negatives):
    """Newcombe's method 5, its equation written out: the lowest AUC that lies 1.96 of its standard errors below 1."""

    def miss(auc):
        half = (positives + negatives) / 2 - 1
        variance = auc * (1 - auc) / positives / negatives * (1 + half * (1 - auc) / (2 - auc) + half * auc / (1 + auc))
        return 1 - auc - 1.959963984540054 * math.sqrt(variance)

    y = [1] * positives + [0] * negatives
    low, high = auc_ci(y, y)
    assert (low, high) == (pytest.approx(brentq(miss, 1e-9, 1 - 1e-9), abs=1e-9), 1.0)
    assert auc_ci(y, [-score for score in y]) == (0.0, pytest.approx(1 - low, abs=1e-9))
    assert 0.5 < auc_ci([1] * 40 + [0] * 42, [1] * 40 + [0] * 42)[0] < 1.0


def test_scores_that_are_all_equal_leave_the_auc_open():
    low, high = auc_ci([1, 1, 1, 0, 0, 0], [0.4] * 6)
    assert low < 0.2 and high == pytest.approx(1 - low, abs=1e-9)
    assert auc_ci([1, 0, 0], [0.3, 0.2, 0.1]) == (0.0, 1.0)  # a single case of a class


def test_delong_test_by_hand():
    # P: positives beat 2 and 1 negatives, negatives are beaten by 1 and 2. The perfect scores: 2 and 2, 2 and 2.
    # Differences 0, -1 and -1, 0: the AUC differs by -1/4, variance (1/2 * 2 + 1/2 * 2) / 4^2 = 1/8.
    test = delong_test(Y, P, [4, 3, 2, 1])
    assert test.difference == -0.25
    assert test.z == pytest.approx(-math.sqrt(1 / 2), abs=1e-12)
    assert test.pvalue == pytest.approx(0.4795001221869535, abs=1e-12)  # erfc(1/2)
    reach = 1.959963984540054 * math.sqrt(1 / 8)
    assert test.ci == (pytest.approx(-0.25 - reach, abs=1e-12), pytest.approx(-0.25 + reach, abs=1e-12))
    back = delong_test(Y, [4, 3, 2, 1], P)
    assert (back.z, back.pvalue) == (-test.z, test.pvalue)


@pytest.mark.parametrize("seed", range(3))
def test_delong_test_with_ties_equals_all_pairs(seed):
    """DeLong 1988, eqs. 4 to 6, written out: the covariance of both AUCs from every pair of cases."""
    rng = np.random.default_rng(seed)
    y = np.append([0, 0, 1, 1], rng.integers(0, 2, 60))
    scores = [(rng.integers(0, 6, 64) + y) / 7 for _ in range(2)]
    wins = np.array([(p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0]) for p in scores])
    covariance = np.cov(wins.mean(2)) / (y == 1).sum() + np.cov(wins.mean(1)) / (y == 0).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    test, difference = delong_test(y, *scores), wins[0].mean() - wins[1].mean()
    assert test.difference == pytest.approx(difference, abs=1e-12)
    assert test.z == pytest.approx(difference / math.sqrt(variance), abs=1e-9)
    low, high = delong_ci(y, scores[0])
    assert high - low == pytest.approx(2 * 1.959963984540054 * math.sqrt(covariance[0, 0]), abs=1e-9)


def test_scores_that_rank_alike_do_not_differ():
    p = np.random.default_rng(0).uniform(size=41)
    y = np.arange(41) % 3 == 0
    assert delong_test(y, p, p**3) == (0.0, (0.0, 0.0), 0.0, 1.0)


def test_delong_test_refuses_what_cannot_be_tested():
    with pytest.raises(InputError, match="two cases of each class: 1 of 3"):
        delong_test([1, 0, 0], [3, 2, 1], [1, 2, 3])
    with pytest.raises(InputError, match=r"differ by 1.000 and neither varies"):
        delong_test(Y, [4, 3, 2, 1], [1, 2, 3, 4])
    with pytest.raises(InputError, match="2 of 2 cases are positive"):
        delong_test([1, 1], [1, 2], [2, 1])


def test_holm_by_hand():
    # 0.01 counts thrice, 0.03 twice = 0.06, 0.04 once = 0.04 but no less than the one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06], abs=1e-15)
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
    with pytest.raises(InputError, match=r"0\.\.1"):
        holm([0.1, math.nan])


def test_youden_by_hand():
    assert youden_threshold([0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 0.5  # sens 2/3, spec 1
    assert youden_threshold(Y, P) == 0.9  # J = 0.5 at 0.9 and at 0.4: fewest false positives
    assert youden_threshold([1, 0], [0.1, 0.9]) == 0.1  # worse than chance: still a finite threshold


def test_confusion_counts_the_threshold_itself_as_positive():
    assert confusion(Y, P, 0.6) == (1, 1, 1, 1)
    assert confusion(Y, P, 0.61)._asdict() == {"tp": 1, "fp": 0, "tn": 2, "fn": 1}
    assert confusion([1, 1], [0.2, 0.8], 0.5) == (1, 0, 0, 1)


def test_wilson_by_published_values():
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4901625, abs=1e-6), pytest.approx(0.9433178, abs=1e-6))
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775328, abs=1e-6))
    assert wilson(10, 10) == (pytest.approx(0.7224672, abs=1e-6), 1.0)


@pytest.mark.parametrize(("y", "p", "message"), [
    ([1, 1], [0.1, 0.2], "2 of 2 cases are positive"),
    ([0, 0, 0], [1, 2, 3], "0 of 3 cases are positive"),
    ([], [], "0 of 0 cases are positive"),
    ([0, 1], [0.5, math.nan], "1 of 2 scores are not finite"),
    ([0, 2], [0.5, 0.6], r"must be 0 or 1, got \[2\]"),
    ([0, 1], [0.5], "same length"),
])  # fmt: skip
@pytest.mark.parametrize("metric", [roc_auc, roc_curve, auc_ci, delong_ci, youden_threshold])
def test_what_has_no_answer_is_refused(metric, y, p, message):
    with pytest.raises(InputError, match=message):
        metric(y, p)


def test_a_proportion_of_nothing_is_refused():
    with pytest.raises(InputError, match="0 of 0"):
        wilson(0, 0)


def test_two_cases_of_one_patient_count_together():
    """Obuchowski 1997, by loops: what each patient's cases add to the AUC, and the spread of these sums."""
    rng = np.random.default_rng(8)
    y, patients = np.tile([1, 0], 20), np.repeat(np.arange(20), 2)
    scores = [np.repeat(rng.normal(size=20), 2) + 0.7 * rng.normal(size=40) + y for _ in range(2)]
    added = np.zeros((2, 20))
    for which, z in enumerate(scores):
        auc = roc_auc(y, z)
        for i in range(40):
            others = z[y != y[i]]
            share = np.mean(z[i] > others) if y[i] else np.mean(z[i] < others)
            added[which, patients[i]] += (share - auc) / 20
    variances = [20 / 19 * (part**2).sum() for part in (added[0], added[0] - added[1])]
    aucs = [roc_auc(y, z) for z in scores]
    low, high = auc_ci(y, scores[0], patients=patients)
    reach = 1.959964 * np.sqrt(variances[0]) / (aucs[0] * (1 - aucs[0]))
    assert [np.log(end / (1 - end)) - np.log(aucs[0] / (1 - aucs[0])) for end in (low, high)] == pytest.approx(
        [-reach, reach], rel=1e-5
    )
    assert high - low < np.diff(auc_ci(y, scores[0])).item()  # a patient's level moves both of its cases
    test = delong_test(y, *scores, patients)
    assert test.z == pytest.approx((aucs[0] - aucs[1]) / np.sqrt(variances[1]))
    assert auc_ci(y, scores[0], patients=range(40)) == auc_ci(y, scores[0])


def test_a_case_given_twice_is_no_second_patient():
    rng = np.random.default_rng(9)
    y, z = np.repeat([1, 0], 25), rng.normal(size=50)
    z[:25] += 1
    once, twice = auc_ci(y, z), [np.repeat(values, 2) for values in (y, z, np.arange(50))]
    assert auc_ci(*twice[:2], patients=twice[2]) == pytest.approx(once, abs=0.005)
    assert np.diff(auc_ci(*twice[:2])).item() < 0.75 * np.diff(once).item()
