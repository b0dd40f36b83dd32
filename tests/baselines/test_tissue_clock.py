"""Ratios of a region and its mirror region, by hand."""

import numpy as np
import pytest

from tss.baselines.infarct_roi import Maps
from tss.baselines.tissue_clock import CUTOFFS, clock_ratios, soft_clock
from tss.errors import InputError


def maps_of(flair, brain=None, candidate=None):
    """Maps of a row of voxels; DWI is twice FLAIR squared, ADC the same for all."""
    flair = np.array(flair, float)[:, None, None]
    inside = np.ones(flair.shape, bool) if brain is None else np.array(brain, bool)[:, None, None]
    ill = np.zeros(flair.shape, bool) if candidate is None else np.array(candidate, bool)[:, None, None]
    images = {"adc": np.full(flair.shape, 0.7), "dwi": 2 * flair**2, "flair": flair}
    return Maps(images, {}, inside, ill, inside, np.full(3, 4.0))


def region(*numbers):
    mask = np.zeros((8, 1, 1), bool)
    mask[list(numbers)] = True
    return mask


FLAIR = [1.2, 1.3, 1.5, 1.0, 1.0, 1.2, 1.1, 9.0]  # mirrors: 0-7, 1-6, 2-5, 3-4


def test_ratio_of_medians_by_hand():
    # 5 mm are one step of 4 mm: the mirror region of 0 to 2 is 4 to 7.
    found = clock_ratios(maps_of(FLAIR), region(0, 1, 2))
    assert found == pytest.approx({"flair": 1.3 / 1.15, "dwi": 1.3**2 / ((1.1**2 + 1.2**2) / 2), "adc": 1})


def test_what_is_ill_or_outside_is_no_mirror():
    assert clock_ratios(maps_of(FLAIR, brain=[1] * 7 + [0]), region(0, 1, 2))["flair"] == pytest.approx(1.3 / 1.1)
    assert clock_ratios(maps_of(FLAIR, candidate=[0] * 6 + [1, 0]), region(0, 1, 2))["flair"] == pytest.approx(
        1.3 / 1.2
    )
    assert clock_ratios(maps_of(FLAIR), region(0, 1, 2, 7))["flair"] == pytest.approx(1.4 / 1.1)  # both sides ill


def test_csf_counts_on_neither_side():
    adc = [0.5, 0.5, 2.0, 0.7, 0.7, 0.8, 0.9, 0.8]  # of 2 and 6: with CSF in it
    maps = maps_of(FLAIR)
    maps.images["adc"] = np.array(adc)[:, None, None]
    found = clock_ratios(maps, region(0, 1, 2))
    assert found == pytest.approx({"flair": 1.25 / 1.2, "dwi": (1.2**2 + 1.3**2) / 2 / 1.2**2, "adc": 0.5 / 0.8})
    with pytest.raises(InputError, match="the region has no tissue without CSF to measure"):
        clock_ratios(maps, region(2))


def test_no_ratio_where_the_other_side_is_ill_as_well():
    with pytest.raises(InputError, match="the mirror region has too little healthy tissue"):
        clock_ratios(maps_of(FLAIR, candidate=[0, 0, 1, 0, 0, 1, 0, 0]), region(0, 1, 6, 7))


def test_no_ratio_where_the_flair_does_not_reach():
    with pytest.raises(InputError, match="FLAIR has no signal in the mirror region"):
        clock_ratios(maps_of([1.2, 1.3, 1.5, 1, 1, 0, 0, 0]), region(0, 1, 2))


def test_published_cutoffs():
    assert sorted(CUTOFFS) == [1.07, 1.15, 1.18, 1.20]


def test_the_soft_clock_by_hand():
    """Weights 0.5^2 and 1^2; healthy tissue and bright CSF have none, however bright or dark their FLAIR."""
    dwi, t2w = np.array([1.65, 2.15, 1.15, 0.9, 2.15, 0]), np.array([1.2, 2.1, 1, 1, 2.2, 0])
    flair = np.array([1.1, 1.3, 9, 9, 0.1, 0])
    assert soft_clock(dwi, t2w, flair) == pytest.approx((0.25 * 1.1 + 1.3) / 1.25)
    shape = (3, 1, 2)
    assert soft_clock(*(one.reshape(shape).astype(np.float16) for one in (dwi, t2w, flair))) == pytest.approx(
        (0.25 * 1.1 + 1.3) / 1.25, rel=2e-3
    )


def test_the_soft_clock_has_an_answer_without_a_lesion():
    assert soft_clock(np.ones(4), np.ones(4), np.full(4, 0.7)) == 1.0


def test_the_mirror_region_is_wider_by_5_mm():
    maps = maps_of(FLAIR)._replace(voxel_mm=np.full(3, 2.5))  # two steps: of 1 the mirror is 6, and 4 to 7 (8 is none)
    assert clock_ratios(maps, region(1))["flair"] == pytest.approx(1.3 / np.median([1.0, 1.2, 1.1, 9.0]))


def test_a_fifth_of_the_region_must_be_healthy_on_the_other_side():
    flair = np.ones((20, 1, 1))
    maps = maps_of(flair.ravel())
    ill = np.zeros(flair.shape, bool)
    ill[:10] = True
    for healthy, enough in ((1, False), (2, True)):
        candidate = np.zeros(flair.shape, bool)
        candidate[10 : 20 - healthy] = True
        if enough:
            assert clock_ratios(maps._replace(candidate=candidate), ill)["flair"] == 1
        else:
            with pytest.raises(InputError, match="too little healthy tissue"):
                clock_ratios(maps._replace(candidate=candidate), ill)
