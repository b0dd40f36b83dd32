"""The promise is kept: 1,000 simulated studies, scores drawn from two normals, sizes as in the paper."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from tss.errors import InputError
from tss.metrics.unsure import CONFIDENCE, Band, fewest_calls, patients_needed, unsure_band

STUDIES = 1000
POSITIVE = 0.46  # share of patients below 4.5 h, as in the paper's 82 test patients


def a_study(rng, n, auc):
    y = rng.random(n) < POSITIVE
    return y, rng.normal(size=n) + math.sqrt(2) * ndtri(auc) * y


def kept(band, auc):
    """Are the PPV above and the NPV below the cuts as promised, in all patients there could be?"""
    apart = math.sqrt(2) * ndtri(auc)
    right = {
        "upper": lambda cut: (POSITIVE * ndtr(apart - cut), (1 - POSITIVE) * ndtr(-cut)),
        "lower": lambda cut: ((1 - POSITIVE) * ndtr(cut), POSITIVE * ndtr(cut - apart)),
    }
    found = {name: getattr(band, name) for name in right}
    return all(
        cut is None or right[name](cut)[0] >= band.promise * sum(right[name](cut)) for name, cut in found.items()
    )


@pytest.mark.parametrize(("auc", "n", "promise"), [
    (0.74, 340, 0.8), (0.74, 68, 0.8), (0.85, 340, 0.8), (0.85, 68, 0.8), (0.95, 340, 0.9),
])  # fmt: skip
def test_the_promise_is_kept_in_the_promised_share_of_studies(auc, n, promise):
    rng = np.random.default_rng(0)
    apart = math.sqrt(2) * ndtri(auc)
    studies = [unsure_band(*a_study(rng, n, auc), promise, apart / 2) for _ in range(STUDIES)]
    assert sum(kept(band, auc) for band in studies) >= CONFIDENCE * STUDIES


def test_it_is_not_kept_by_saying_nothing():
    rng = np.random.default_rng(1)
    bands = [unsure_band(*a_study(rng, 340, 0.95), 0.9, 1.16) for _ in range(50)]
    called = [(band.verdicts(a_study(rng, 1000, 0.95)[1]) >= 0).mean() for band in bands]
    assert np.mean(called) > 0.5


def test_verdicts_are_positive_negative_and_unsure():
    assert Band(0.9, -1.0, 1.0, 9, 4).verdicts([-2, -1, 0, 1, 2]).tolist() == [0, -1, -1, -1, 1]
    assert Band(0.9, None, 1.0, 9, 4).verdicts([-2, 2]).tolist() == [-1, 1]
    assert Band(0.9, None, None, 9, 4).verdicts([-9, 9]).tolist() == [-1, -1]


def test_where_both_promises_hold_for_the_same_scores_the_threshold_decides():
    y = np.repeat([0, 1], 200)
    z = np.concatenate([np.linspace(-3, -1, 200), np.linspace(1, 3, 200)])
    band = unsure_band(y, z, 0.8, 0.0)
    assert band.lower == band.upper == 0.0 and band.verdicts([-0.1, 0.1]).tolist() == [0, 1]
    assert unsure_band(1 - y, z, 0.8, 0.0)[1:3] == (None, None)  # the wrong way round nothing is promised


def test_too_few_patients_for_the_promise_is_said_with_how_many_it_takes():
    assert fewest_calls(0.9, 0.05) == 29 and fewest_calls(0.5, 0.5) == 1
    y, z = a_study(np.random.default_rng(0), 68, 0.85)
    assert unsure_band(y, z, 0.9, 0.7)[1:3] == (None, None)
    for_ppv, for_npv = patients_needed(*a_study(np.random.default_rng(0), 20_000, 0.85), 0.8)
    assert 300 < for_ppv < 1000 and 100 < for_npv < for_ppv  # the negatives are more
    assert patients_needed(*a_study(np.random.default_rng(0), 20_000, 0.5), 0.9) == (0, 0)
    found = [unsure_band(*a_study(np.random.default_rng(seed), for_ppv, 0.85), 0.8, 0.7).upper for seed in range(100)]
    assert sum(cut is not None for cut in found) >= 70  # POWER is 0.8; the search may end earlier or later


def test_ties_are_called_together():
    y = np.array([1] * 60 + [0] * 60)
    z = np.array([1.0] * 60 + [0.0] * 60)
    assert unsure_band(y, z, 0.8, 0.5).verdicts([0.0, 1.0]).tolist() == [0, 1]


@pytest.mark.parametrize("promise", [1.0, 0.3, float("nan")])
def test_what_nobody_can_promise_is_refused(promise):
    with pytest.raises(InputError, match="a promise must lie in 0.5..1, below 1"):
        unsure_band([0, 1], [0, 1], promise, 0)
