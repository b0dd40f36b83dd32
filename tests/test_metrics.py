import math

import numpy as np
import pytest

from tss.files import InputError
from tss.metrics import confusion, delong_ci, roc_auc, roc_curve, wilson, youden_threshold

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
@pytest.mark.parametrize("metric", [roc_auc, roc_curve, delong_ci, youden_threshold])
def test_what_has_no_answer_is_refused(metric, y, p, message):
    with pytest.raises(InputError, match=message):
        metric(y, p)


def test_a_proportion_of_nothing_is_refused():
    with pytest.raises(InputError, match="0 of 0"):
        wilson(0, 0)
