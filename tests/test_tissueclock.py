"""Ratios of a region and its mirror region, by hand."""

import numpy as np
import pytest

from tss.files import InputError
from tss.roi import Maps
from tss.tissueclock import CUTOFFS, ratios


def maps_of(flair, brain=None, candidate=None):
    """Maps of a row of voxels; DWI is twice FLAIR, ADC the same for all."""
    flair = np.array(flair, float)[:, None, None]
    inside = np.ones(flair.shape, bool) if brain is None else np.array(brain, bool)[:, None, None]
    ill = np.zeros(flair.shape, bool) if candidate is None else np.array(candidate, bool)[:, None, None]
    images = {"adc": np.full(flair.shape, 0.7), "dwi": 2 * flair**2, "flair": flair}
    return Maps(images, {}, inside, ill, inside, np.ones(3))


def region(*numbers):
    mask = np.zeros((8, 1, 1), bool)
    mask[list(numbers)] = True
    return mask


FLAIR = [1.2, 1.3, 1.5, 1.0, 1.0, 1.0, 1.1, 9.0]  # mirrors: 0-7, 1-6, 2-5


def test_ratio_of_medians_by_hand():
    found = ratios(maps_of(FLAIR), region(0, 1, 2))
    assert found == pytest.approx({"flair": 1.3 / 1.1, "dwi": (1.3 / 1.1) ** 2, "adc": 1})


def test_what_is_ill_or_outside_is_no_mirror():
    assert ratios(maps_of(FLAIR, brain=[1] * 7 + [0]), region(0, 1, 2))["flair"] == pytest.approx(1.3 / 1.05)
    assert ratios(maps_of(FLAIR, candidate=[0] * 6 + [1, 0]), region(0, 1, 2))["flair"] == pytest.approx(1.3 / 5)
    assert ratios(maps_of(FLAIR), region(0, 1, 2, 7))["flair"] == pytest.approx(1.4 / 1.05)  # both sides ill


def test_no_ratio_where_the_other_side_is_ill_as_well():
    with pytest.raises(InputError, match="the mirror region has too little healthy brain"):
        ratios(maps_of(FLAIR), region(0, 1, 6, 7))


def test_no_ratio_where_the_flair_does_not_reach():
    with pytest.raises(InputError, match="FLAIR has no signal in the mirror region"):
        ratios(maps_of([1.2, 1.3, 1.5, 1, 1, 0, 0, 0])._replace(
            images={"adc": np.ones((8, 1, 1)), "dwi": np.ones((8, 1, 1)),
                    "flair": np.array([1.2, 1.3, 1.5, 1, 1, 0, 0, 0])[:, None, None]}), region(0, 1, 2))


def test_published_cutoffs():
    assert sorted(CUTOFFS) == [1.07, 1.15, 1.18, 1.20]
