"""Measures of quality against values worked out by hand, flags at their limits."""

import os
from pathlib import Path

import numpy as np
import pytest

from tss.data.nifti import Volume, load
from tss.preprocessing import quality_control
from tss.preprocessing.atlas import Atlas
from tss.preprocessing.brain_extraction import find_brain
from tss.preprocessing.padding import find_padding

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real scans in ../shared/real")


def test_dice_by_hand():
    one, other = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert quality_control.dice(one, other) == pytest.approx(2 * 2 / 6)
    assert quality_control.dice(one & False, other & False) == 0


def test_similarity_is_one_where_one_scan_determines_the_other_and_nought_where_they_are_unrelated():
    rng = np.random.default_rng(0)
    fixed = rng.integers(0, 20, 20_000).astype(float)
    assert quality_control.similarity(fixed, (fixed - 10) ** 2) == pytest.approx(1, abs=1e-6)
    assert quality_control.similarity(fixed, rng.normal(size=20_000)) < 0.01
    assert quality_control.similarity(np.array([0.0, 0, 1, 1]), np.array([0.0, 2, 2, 4])) == pytest.approx(
        0.5, abs=0.02
    )


def test_turn_and_size():
    angle = np.radians(30)
    affine = np.eye(4)
    affine[:2, :2] = 1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine[2, 2] = 1.2
    assert quality_control.turn_deg(affine) == pytest.approx(30)
    assert quality_control.size(affine) == pytest.approx(1.2)
    assert quality_control.turn_deg(np.diag([-1.0, 1, 1, 1])) == 180


def test_coverage_by_hand():
    mask = np.zeros((40, 20, 20), bool)
    mask[10:30] = True  # x from 10 to 29; the scan, 2 mm a voxel and moved by 4 mm, shows x from 3 to 22.99
    scan = Volume(np.ones((10, 40, 40), np.float32), np.diag([2.0, 1, 1, 1]))
    world = np.eye(4)
    world[:3, 3] = (4, -5, -5)
    padding = np.zeros(scan.data.shape, bool)
    assert quality_control.coverage(scan, world, mask, np.eye(4), padding) == pytest.approx(13 / 20, abs=0.01)
    padding[8:] = True  # x from 19 on
    assert quality_control.coverage(scan, world, mask, np.eye(4), padding) == pytest.approx(9 / 20, abs=0.01)


def test_a_sound_patient_has_no_flags_and_each_limit_has_its_sentence():
    sound = {name: (low + high) / 2 for name, (low, high, _) in quality_control.LIMITS.items()}
    assert quality_control.flags(sound) == []
    assert quality_control.flags(sound | {"brain_ml": 300}) == [
        "brain mask of 300 ml: part of the brain is missing, or more than brain is in it"
    ]
    assert quality_control.flags(sound | {"flair_coverage": 0.5})[0].startswith("the FLAIR shows 50% of the brain")
    sides = {f"{name}_void_{side}_ml": 0 for name in ("dwi", "t2w", "flair") for side in ("left", "right")}
    beyond = {name: low - 1 for name, (low, _, _) in quality_control.LIMITS.items()}
    assert len(quality_control.flags(beyond | sides)) == len(quality_control.LIMITS)


def test_contrast_by_hand_at_mirrored_places_of_scans_that_lie_differently():
    """A head at 10 + x on the patient's left, lesion of 30 on 4 voxels, seen by two scans and on the atlas grid."""
    atlas = np.eye(4)
    atlas[:3, 3] = (-9.5, 0, 0)  # 20 columns, the midline between the 10th and the 11th
    world = np.eye(4)
    world[:3, 3] = (5, 1, 0)  # mm of the DWI -> mm of the atlas
    dwi = Volume(np.full((20, 8, 4), 10, np.float32), np.linalg.inv(world) @ atlas)
    lesion = np.zeros((20, 8, 4), bool)
    lesion[13:17, 2:5, 1] = True
    dwi.data[lesion] = 30
    dwi.data[3:7, 2:5, 1] = 12  # the lesion's mirror image
    mask = np.ones((20, 8, 4), bool)
    mask[16] = False  # eats a quarter of the lesion
    here, mirror, in_mask = quality_control.mirrored_pairs(
        dwi._replace(data=lesion.astype(np.float32)), mask, atlas, world
    )
    assert in_mask == pytest.approx(0.75) and here.shape == mirror.shape == (3, 9)
    assert sorted(set(here[0])) == [3.5, 4.5, 5.5] and sorted(set(mirror[0])) == [-5.5, -4.5, -3.5]
    assert quality_control.contrast(dwi, world, here, mirror) == pytest.approx(30 / 12)
    finer = Volume(np.repeat(dwi.data, 2, axis=1), atlas @ np.diag([1, 0.5, 1, 1]))
    finer.affine[1, 3] = -0.25
    assert quality_control.contrast(finer, np.eye(4), here, mirror) == pytest.approx(30 / 12)

    both = lesion | lesion[::-1]
    here, _, _ = quality_control.mirrored_pairs(dwi._replace(data=both.astype(np.float32)), mask, atlas, world)
    assert here.shape == (3, 0)  # lesion opposite lesion says nothing


def test_a_contrast_that_has_changed_by_more_than_bias_and_blur_explain_is_flagged():
    assert quality_control.flags({"dwi_contrast_kept": 0.83, "flair_contrast_kept": 1.2, "dwi_contrast": 5.0}) == []
    assert quality_control.flags({"dwi_contrast_kept": 0.794, "flair_contrast_kept": 1.26, "lesion_in_mask": 0.4}) == [
        "the lesion's contrast on DWI is 0.79 of the raw scan's",
        "the lesion's contrast on FLAIR is 1.26 of the raw scan's",
        "40% of the lesion lies in the brain mask: the mask has cut off the rest",
    ]


def test_histogram_counts_shares_in_medians():
    shares = quality_control.histogram(np.array([0.01, 1.01, 1.02, 2.99, 7.0]))
    assert shares[[0, 20, 59]] == pytest.approx([0.2, 0.4, 0.2]) and shares.sum() == pytest.approx(0.8)


def evidence(scan: Volume, brain: np.ndarray, **matched: np.ndarray) -> quality_control.Evidence:
    """A brain that lies on the atlas grid as it is, and fills the atlas' brain but for what it lacks."""
    full = np.zeros(scan.data.shape, np.float32)
    full[4:-4, 4:-4, 4:-4] = 1
    atlas = Atlas(scan, scan.data.shape, scan.affine, full, "none", full > 0)
    volumes = {name: matched.get(name, full) for name in ("dwi", "t2w", "flair")}
    same = dict.fromkeys(volumes, np.eye(4))
    scans, padding = dict.fromkeys(volumes, scan), dict.fromkeys(volumes, scan.data == 0)
    return quality_control.Evidence(scans, scans, {}, same, np.eye(4), volumes, brain, atlas, padding)


GRID_AFFINE = np.diag([2.0, 2, 4, 1])


def test_a_hole_in_the_mask_is_measured_where_the_other_side_has_brain():
    brain = np.zeros((60, 70, 30), bool)
    brain[4:-4, 4:-4, 4:-4] = True
    dwi = Volume(np.ones(brain.shape, np.float32), GRID_AFFINE)
    assert quality_control.hole_ml(evidence(dwi, brain)) == 0
    brain[4:12, 50:66, 4:10] = False  # 16 x 32 x 24 mm at the edge of the base
    assert quality_control.hole_ml(evidence(dwi, brain)) == pytest.approx(12.3, abs=1.5)
    seen = dwi.data.copy()
    seen[:12, 50:, :10] = 0  # what the mask lacks was never measured: no hole
    assert quality_control.hole_ml(evidence(dwi._replace(data=seen), brain)) == 0
    thin = brain | True
    thin[4:6] = False  # a rim of 4 mm: the two sides are never quite alike
    assert quality_control.hole_ml(evidence(dwi, thin & (brain | brain[::-1]))) == 0
    assert quality_control.flags({"hole_ml": 12.3}) == [
        "the brain mask lacks 12 ml in one place where the other side has brain: a hole"
    ]


def test_voids_are_measured_by_hemisphere_and_csf_is_none():
    brain = np.ones((60, 70, 30), bool)
    dwi = Volume(np.ones(brain.shape, np.float32), GRID_AFFINE)
    flair, dark, b0 = (np.ones(brain.shape, np.float32) for _ in range(3))
    flair[:10, 20:40] = 0  # 20 x 40 x 120 mm on the left: a wedge out of the field of view
    flair[50, 50, 15] = 0  # a speck
    dark[25:35, 30:40] = 0
    b0[25:35, 30:40] = 4  # ventricles, black on DWI
    measures = quality_control.voids_ml(evidence(dwi, brain, dwi=dark, t2w=b0, flair=flair))
    assert measures["flair_void_left_ml"] == pytest.approx(96, abs=3) and measures["flair_void_right_ml"] == 0
    assert measures["dwi_void_ml"] == measures["t2w_void_ml"] == 0
    assert quality_control.flags(measures) == [
        "FLAIR has no signal in 96 ml of the brain (96 left, 0 right): lost slices or a cut field of view"
    ]


def test_a_brain_at_the_edge_of_the_field_of_view():
    brain = np.zeros((60, 70, 30), bool)
    brain[10:50, 10:60, :] = True
    scan = np.ones(brain.shape, np.float32)
    scan[:, :, 25:] = brain[:, :, 25:] = 0  # padding that a converter has added
    nothing = np.zeros(brain.shape, bool)
    measures = quality_control.cut_cm2(brain, Volume(scan, GRID_AFFINE), nothing)
    assert measures == {"cut_above_cm2": 80, "cut_below_cm2": 80, "cut_aside_cm2": 0}  # 80 x 100 mm
    assert quality_control.flags(measures) == [
        "the brain touches the upper edge of the DWI's field of view over 80 cm2: brain above is missing",
        "the brain touches the lower edge of the DWI's field of view over 80 cm2: brain below is missing",
    ]
    stripped = np.where(brain, 1, 0).astype(np.float32)  # cropped to the brain by its zeros, not by the scanner
    stripped[:, :, :4] = 0
    assert quality_control.cut_cm2(stripped > 0, Volume(stripped, GRID_AFFINE), nothing)["cut_below_cm2"] == 0


def test_a_brain_at_the_edge_of_a_field_of_view_that_was_turned_upright():
    """The edge slants through the grid; its area is taken as seen from above, and from the front."""
    brain = np.zeros((60, 70, 30), bool)
    brain[10:50, 10:60, 5:] = True
    _, y, z = np.indices(brain.shape)
    padding = 4 * z > 60 + 0.5 * 2 * y  # rises by 1 mm in 2 mm
    measures = quality_control.cut_cm2(brain & ~padding, Volume(np.ones(brain.shape, np.float32), GRID_AFFINE), padding)
    assert measures["cut_above_cm2"] == pytest.approx(80, abs=1) and measures["cut_below_cm2"] == 0
    assert measures["cut_aside_cm2"] == pytest.approx(40, abs=4)
    short = brain & (4 * z + 4 <= 60 + 0.5 * 2 * y)  # as masks end a voxel before
    measures = quality_control.cut_cm2(short, Volume(np.ones(brain.shape, np.float32), GRID_AFFINE), padding)
    assert measures["cut_above_cm2"] > 70


@needs_real
def test_a_real_field_of_view_that_cuts_off_brain_is_flagged():
    """100 ml lie beyond the sagittal slab; the share of the brain that is seen, 0.95, had said nothing."""
    dwi, b0 = (load(REAL / "cases" / "canon11000_cut" / f"canon11000_{name}.nii.gz") for name in ("dwi", "b0"))
    measures = quality_control.cut_cm2(find_brain(dwi, b0), dwi, find_padding(dwi, b0))
    assert measures["cut_aside_cm2"] > 50
    assert "touches the side of the DWI's field of view over 70 cm2" in quality_control.flags(measures)[0]
