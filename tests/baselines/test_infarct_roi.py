"""The infarct found in a small made-up brain, and the rule's parts by hand."""

import numpy as np
import pytest
from stroke import SHAPE, VOXEL_MM, brain, made_up_stroke

from tss.baselines import infarct_roi
from tss.baselines.infarct_roi import find_infarct, healthy_level, large, make_maps, ratio_map
from tss.errors import InputError


def infarct_of(volumes):
    return find_infarct(make_maps(*volumes, VOXEL_MM))


def changed(volumes, where, dwi=1.0, t2w=1.0):
    """Return the volumes with DWI and b0 multiplied in a part of the brain."""
    volumes = [volume.copy() for volume in volumes]
    volumes[0][where] *= dwi
    volumes[1][where] *= t2w
    return volumes


def block(x, y, z):
    part = np.zeros(SHAPE, bool)
    part[x, y, z] = True
    return part


HERE = block(slice(5, 9), slice(10, 14), slice(2, 4))  # 32 voxels of 0.128 ml


def test_level_where_healthy_tissue_begins_by_hand():
    # Quantiles (u - 1/2)^3 + u/10: the tangent at 0.05 is -0.1215 + 0.7075 u, the flattest (at 0.5) u/10; they meet at
    # u = 0.2, 0.02 high.
    u = np.linspace(0, 1, 20001)
    assert healthy_level(3 + (u - 0.5) ** 3 + u / 10) == pytest.approx(3.02, abs=1e-6)
    assert healthy_level(3 + u) == pytest.approx(3 + 0.05, abs=0.46)  # straight: somewhere on it, never beyond
    assert healthy_level(np.full(500, 2.0)) == pytest.approx(2)


def test_infarct_is_found_where_it_is():
    volumes, truth = made_up_stroke(HERE)
    assert (infarct_of(volumes) == truth).mean() > 0.999
    maps = make_maps(*volumes, VOXEL_MM)
    assert maps.images["adc"][truth].mean() == pytest.approx(infarct_roi.REFERENCE_ADC - 0.25, abs=0.05)
    assert not (maps.white & truth).any() and maps.white.sum() > 100


def test_adc_is_of_b0_over_dwi_so_common_brightness_does_not_matter():
    volumes, truth = made_up_stroke(HERE)
    dwi, t2w, flair, mask = volumes
    assert (infarct_of((3 * dwi, 3 * t2w, flair, mask)) == infarct_of(volumes)).all()
    assert (infarct_of((dwi, 2 * t2w, flair, mask)) == infarct_of(volumes)).all()  # healthy tissue is the reference


@pytest.mark.parametrize(("dwi", "t2w"), [(1.0, 1.0), (1.6, 1.6), (0.8, 0.6)])
def test_no_infarct_without_both_low_adc_and_bright_dwi(dwi, t2w):
    volumes = changed(made_up_stroke(block(0, 0, 0))[0], HERE, dwi, t2w)  # healthy; shine-through; dark
    with pytest.raises(InputError, match="no region of 0.2 ml has a low ADC and a bright DWI"):
        infarct_of(volumes)


def test_bright_voxels_of_a_dull_component_are_kept():
    dull, bright = block(slice(5, 9), slice(10, 14), slice(2, 4)), block(slice(5, 9), slice(10, 11), slice(2, 4))
    volumes = changed(made_up_stroke(block(0, 0, 0))[0], dull & ~bright, 0.6, 0.45)
    found = infarct_of(changed(volumes, bright, 1.6, 1.2))
    assert (found == bright).all()


def test_components_under_two_tenths_of_a_ml_are_dropped():
    mask = block(slice(2, 4), 3, 2) | block(15, 20, 4)
    assert (large(mask, VOXEL_MM) == block(slice(2, 4), 3, 2)).all()  # 0.256 and 0.128 ml
    assert large(mask, VOXEL_MM / 2).sum() == 0


def test_ratio_to_the_mirrored_voxel_by_hand():
    image = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 8.0])[:, None, None]
    inside = np.array([1, 1, 1, 1, 1, 0], bool)[:, None, None]
    # 1 | 2 | 3 | 4 | 0 | 8: the first has its mirror outside, the second its mirror dark.
    assert ratio_map(image, inside).ravel() == pytest.approx([1, 1, 3 / 4, 4 / 3, 0, 1])


def test_scans_without_signal_are_refused():
    (dwi, t2w, flair, mask), _ = made_up_stroke(HERE)
    with pytest.raises(InputError, match="only 0 brain voxels have signal in both DWI and b0"):
        make_maps(dwi, 0 * t2w, flair, mask, VOXEL_MM)
    assert brain().sum() == mask.sum()


def test_lees_numbers():
    assert (infarct_roi.ADC_SHARE, infarct_roi.DWI_SD, infarct_roi.LEAST_ML) == (0.835, 1.5, 0.2)
    assert infarct_roi.QUANTILES == pytest.approx([0.05 + 0.01 * k for k in range(46)])
    assert (infarct_roi.REFERENCE_ADC, infarct_roi.MOST_ADC_OF_TISSUE) == (0.75, 1.15 * 0.75)


def test_just_two_tenths_of_a_ml_are_enough_and_corners_connect():
    voxel_mm = np.array([1.0, 1.0, 100.0])  # 0.1 ml
    assert large(block(2, slice(3, 5), 2), voxel_mm).sum() == 2
    corners = block(2, 3, 2) | block(3, 4, 3)
    assert (large(corners, voxel_mm) == corners).all()
    apart = block(2, 3, 2) | block(4, 5, 3)
    assert not large(apart, voxel_mm).any()


def test_a_hole_in_the_infarct_is_part_of_it():
    ring = block(slice(3, 8), slice(8, 13), slice(1, 4))
    hole = block(5, 10, 2)
    volumes, truth = made_up_stroke(ring & ~hole, seed=1)
    assert not make_maps(*volumes, VOXEL_MM).candidate[5, 10, 2]
    assert (infarct_of(volumes) == truth | hole).mean() > 0.999 and infarct_of(volumes)[5, 10, 2]


def test_healthy_white_matter_is_the_darker_half_on_b0():
    volumes, _ = made_up_stroke(HERE)
    maps = make_maps(*volumes, VOXEL_MM)
    layers = np.indices(SHAPE)[1] // 3 % 2
    assert (layers[maps.white] == 0).mean() > 0.9 and np.median(volumes[1][maps.white]) == pytest.approx(0.9, abs=0.02)


def test_a_mirrored_voxel_of_noise_gives_no_ratio():
    image = np.array([1.0, 0.04])[:, None, None]
    assert ratio_map(image, np.ones((2, 1, 1), bool)).ravel() == pytest.approx([1, 0.04])


def test_widening_is_in_mm_of_the_slice():
    point = block(12, 14, 3)
    wide = infarct_roi.widened(point, 3.0, np.array([1.0, 1.0, 6.0]))
    assert wide.sum() == 25 and wide[:, :, 3].sum() == 25  # a diamond of three steps: 1 + 4 (1 + 2 + 3)
