"""The price of a training: counted in hemispheres, timed by a clock that the test holds."""

import itertools

import pytest
import torch

from tss.data.prepared import read_prepared
from tss.study import timing
from tss.training.phases import PAPER

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("number", "model", "frozen"), [(1, "2d", False), (4, "2d", True), (0, "3d", False), (4, "3d", True)]
)
def test_a_kind_of_training_is_timed_on_a_small_grid_and_scaled_to_the_whole(monkeypatch, number, model, frozen):
    ticks = itertools.accumulate(itertools.cycle([100, 3]))  # 3 s between the two looks at the clock
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(timing, "AT_MOST", (32, 32, 8))
    before = torch.random.get_rng_state()
    seconds = timing.seconds_a_hemisphere(PAPER[number], model, 2, (64, 32, 24), frozen, CPU, "fp32")
    assert seconds == 3 / 2 * 2 * 3  # of two hemispheres; twice as wide, thrice the slices
    assert torch.equal(torch.random.get_rng_state(), before)
    assert timing.seconds_a_hemisphere(PAPER[number], model, 2, (32, 32, 8), frozen, CPU, "fp32") == 3 / 2


def test_what_is_frozen_is_not_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(
        timing, "cache_features", lambda network, splits, *_, say: (asked.append(1), (network, splits))[1]
    )
    for frozen in (False, True):
        timing.seconds_a_hemisphere(PAPER[2], "2d", 2, (32, 32, 4), frozen, CPU, "fp32")
    assert asked == [1]


def test_validation_counts_for_a_third(tiny_data):
    patients = read_prepared(tiny_data)
    assert timing.steps_of(patients, "stroke") == 36 + 20 / 3
    assert timing.steps_of(patients, "tss<3h") == 18 + 10 / 3
