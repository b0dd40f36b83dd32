"""Kappas and McNemar's test by hand, as published, and by their definitions."""

import math

import numpy as np
import pytest

from tss.errors import InputError
from tss.metrics.agreement import cohen_kappa, cohen_kappa_ci, fleiss_kappa, fleiss_kappa_ci, mcnemar

# Fleiss' own kind of table, from the article on his kappa in Wikipedia: 10 subjects, 14 raters, 5 labels, kappa 0.210.
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
FOUR = [[1, 1], [1, 0], [0, 0], [0, 0]]


def test_fleiss_kappa_by_hand_and_as_published():
    # Three of four pairs agree; labels are shared 3 : 5, so by chance (9 + 25) / 64 would.
    assert fleiss_kappa(FOUR) == pytest.approx((3 / 4 - 34 / 64) / (1 - 34 / 64), abs=1e-12)
    assert fleiss_kappa([["yes", "yes"], ["yes", "no"], ["no", "no"], ["no", "no"]]) == fleiss_kappa(FOUR)
    assert fleiss_kappa([np.repeat(range(5), counts) for counts in FOURTEEN]) == pytest.approx(0.20993070442195522)
    assert fleiss_kappa([[1, 0], [0, 1]]) == -1.0 and fleiss_kappa([[1, 1, 1], [0, 0, 0]]) == 1.0


def test_cohen_kappa_by_hand():
    # 35 of 50 agree; a says yes 25 times and b 30, so by chance 1/2 * 3/5 + 1/2 * 2/5 = 1/2 would: (0.7 - 0.5) / 0.5.
    a, b = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [20, 5, 10, 15], axis=0).T
    assert cohen_kappa(a, b) == pytest.approx(0.4, abs=1e-12)
    assert cohen_kappa([1, 0], [1, 0]) == 1.0 and cohen_kappa_ci([1, 0], [1, 0]) == (1.0, 1.0)


def weighted_kappa(ratings, weights, of_one_rater):
    """Kappa of two raters when each subject counts `weights` times; Fleiss' if the raters' shares are pooled."""
    ratings, weights = np.asarray(ratings), np.asarray(weights) / np.sum(weights)
    shares = np.array([[weights[rater == label].sum() for label in (0, 1)] for rater in ratings.T])
    shares = shares if of_one_rater else np.stack([shares.mean(0)] * 2)
    chance = (shares[0] * shares[1]).sum()
    return (weights[ratings[:, 0] == ratings[:, 1]].sum() - chance) / (1 - chance)


@pytest.mark.parametrize(
    ("of_one_rater", "interval", "freedom"),
    [(True, lambda r: cohen_kappa_ci(r[:, 0], r[:, 1]), 0), (False, fleiss_kappa_ci, 1)],
)
def test_kappas_interval_is_that_of_its_slopes(of_one_rater, interval, freedom):
    """The infinitesimal jackknife: how kappa moves when one subject counts a little more, by finite differences."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    ratings = np.where(rng.uniform(size=(60, 2)) < 0.3, 1 - truth[:, None], truth[:, None])
    step, middle = 1e-5, weighted_kappa(ratings, np.ones(60), of_one_rater)
    slopes = [
        (weighted_kappa(ratings, np.ones(60) + step * (np.arange(60) == i), of_one_rater) - middle) / step
        for i in range(60)
    ]
    reach = 1.959963984540054 * 60 * np.std(slopes, ddof=freedom) / math.sqrt(60)
    assert interval(ratings) == (pytest.approx(middle - reach, abs=1e-4), pytest.approx(middle + reach, abs=1e-4))


@pytest.mark.parametrize(
    ("kappa", "message"),
    [
        (lambda: fleiss_kappa([[1, 1], [1, 1]]), "every rating is 1: agreement beyond chance has no meaning"),
        (lambda: fleiss_kappa([[1.0, math.nan], [0.0, 1.0]]), "a rating is missing"),
        (lambda: fleiss_kappa([[1, None], [0, 1]]), "a rating is missing"),
        (lambda: fleiss_kappa([1, 0, 1]), r"must be \(subjects, raters\)"),
        (lambda: fleiss_kappa([[1], [0]]), "two raters at least"),
        (lambda: cohen_kappa([0, 0], [0, 0]), "every rating is 0"),
        (lambda: cohen_kappa([0, 1], [0]), "same length"),
        (lambda: cohen_kappa([], []), "same length"),
    ],
)
def test_kappa_refuses_what_has_no_answer(kappa, message):
    with pytest.raises(InputError, match=message):
        kappa()


def test_mcnemar_by_hand():
    # Of ten cases both are right on three, only a on six, only b on one: p = 2 * (1 + 7) / 2^7.
    y, a, b = [1] * 10, [1] * 9 + [0], [1] * 3 + [0] * 6 + [1]
    assert mcnemar(y, a, b) == (6, 1, 0.125)
    assert mcnemar(y, b, a) == (1, 6, 0.125)
    assert mcnemar([0] * 10, [1 - call for call in a], [1 - call for call in b]) == (6, 1, 0.125)
    assert mcnemar([1, 0], [1, 0], [1, 0]) == (0, 0, 1.0)
    assert mcnemar([1, 0], [1, 1], [0, 0]) == (1, 1, 1.0)
    assert mcnemar([1] * 500, [1] * 500, [0] * 500).pvalue == pytest.approx(2.0**-499, rel=1e-9)


def test_mcnemar_refuses_what_are_no_calls():
    with pytest.raises(InputError, match=r"calls must be 0 or 1, got \[0.4\]"):
        mcnemar([1, 0], [1, 0], [1, 0.4])
    with pytest.raises(InputError, match="no cases"):
        mcnemar([], [], [])
