"""The suite's own brain extraction on a phantom with known truth, and on a real scan where it lies here."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tss.data import nifti
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.preprocessing import brain_extraction, quality_control

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real scans in ../shared/real")


def test_brain_mask_on_a_phantom(patient):
    mask = brain_extraction.find_brain(patient["dwi"], patient["b0"])
    assert mask.dtype == bool and mask.shape == patient["dwi"].data.shape
    assert quality_control.dice(mask, patient["brain"]) >= 0.97


def test_a_stripped_scan_is_kept_and_not_eaten(patient):
    stripped = [
        patient[name]._replace(data=np.where(patient["brain"], patient[name].data, 0)) for name in ("dwi", "b0")
    ]
    assert quality_control.dice(brain_extraction.find_brain(*stripped), patient["brain"]) >= 0.99


def test_a_scan_whose_background_is_zeroed_is_not_taken_for_a_stripped_one(patient):
    """What is left of the head is 1.3 times the brain, and most of the volume is zero."""
    dwi, b0 = patient["dwi"], patient["b0"]
    zeroed = dwi._replace(data=np.where(dwi.data > 0.1 * np.percentile(dwi.data, 99), dwi.data, 0))
    assert brain_extraction.is_stripped(zeroed.data)
    found = brain_extraction.find_brain(zeroed, b0)
    assert quality_control.dice(found, patient["brain"]) >= 0.98
    assert brain_extraction.left_over(zeroed, found, b0) is None  # nor where BET finds it


def test_noise_is_no_brain():
    noise = Volume(np.random.default_rng(0).random((60, 60, 30)).astype(np.float32) + 1, np.diag([3.0, 3, 5, 1]))
    with pytest.raises(InputError, match="looks like brain in it measures"):
        brain_extraction.find_brain(noise, noise)


def test_the_spinal_cord_beneath_the_brain_is_cut_off():
    """An ellipsoid of 1.3 l, and a rod of 18 mm beneath it, 1.5 % of its area, as bright as it."""
    mm = np.moveaxis(np.indices((50, 60, 56)), 0, -1) * 3.0 - (75, 90, 105)
    brain = ((mm / (66, 80, 60)) ** 2).sum(-1) < 1
    cord = (np.hypot(mm[..., 0], mm[..., 1]) < 9) & (mm[..., 2] < 0) & ~brain
    scan = Volume(np.where(brain | cord, 1.0, 0.02).astype(np.float32), np.diag([3.0, 3, 3, 1]))
    mask = brain_extraction.find_brain(scan, scan)
    assert quality_control.dice(mask, brain) > 0.97
    assert cord[:, :, :12].sum() > 200 and not mask[:, :, :12].any()  # 9 mm and more below the brain


@needs_real
def test_isles_brain_is_kept():
    dwi, adc = (nifti.load(REAL / f"isles0001_{name}.nii.gz") for name in ("dwi", "adc"))
    mask = brain_extraction.find_brain(dwi, dwi._replace(data=dwi.data * np.exp(np.clip(adc.data, 0, 3.5))))
    assert quality_control.dice(mask, dwi.data > 20) > 0.95


def test_a_base_that_the_coil_sees_dimly_is_brain(patient):
    """Over the orbits EPI has half the signal or less, on DWI and b0 alike."""
    world = np.moveaxis(np.indices(patient["brain"].shape), 0, -1) @ patient["dwi"].affine[:3, :3].T
    world += patient["dwi"].affine[:3, 3]
    inside = world[patient["brain"]]
    base = np.median(inside[:, 0]), np.percentile(inside[:, 1], 92), np.percentile(inside[:, 2], 35)
    dim = 1 - 0.6 * np.exp(-0.5 * (((world - base) / (25, 20, 14)) ** 2).sum(-1))
    scans = [patient[name]._replace(data=(patient[name].data * dim).astype(np.float32)) for name in ("dwi", "b0")]
    lost = brain_extraction.find_brain(patient["dwi"], patient["b0"]) & ~brain_extraction.find_brain(*scans)
    assert lost.sum() * np.prod(nifti.voxel_sizes(patient["dwi"].affine)) / 1000 < 1  # ml; by one level for all 7


def test_an_infarct_counts_little_more_than_brain_for_the_level_around_it():
    """Half the volume is a dim 0.5, half an infarct of 3, which counts as 1.2: the border's level is their mean."""
    scan = np.full((60, 10, 10), 0.5)
    scan[30:] = 3.0
    nearby = brain_extraction._nearby(scan, np.ones(scan.shape, bool), 1.0, np.array([3.0, 3, 3]))
    assert nearby[29:31, 5, 5].mean() == pytest.approx(0.85, abs=0.01)
    assert nearby[0, 5, 5] == pytest.approx(0.5, abs=0.01) and nearby[-1, 5, 5] == 1


def test_an_eye_is_cut_off_where_its_bridge_is_12_mm_wide_and_kept_where_it_is_20():
    mm = np.moveaxis(np.indices((70, 40, 40)), 0, -1) * 2.0 - (40, 40, 40)
    brain, eye = (np.linalg.norm(mm - (x, 0, 0), axis=-1) < r for x, r in ((0, 36), (70, 14)))
    for half_width, kept in ((6, False), (10, True)):
        bridge = (mm[..., 0] > 0) & (mm[..., 0] < 70) & (np.abs(mm[..., 1:]) < half_width).all(-1)
        scan = (brain | eye | bridge).astype(np.float32)
        tissue = brain_extraction._tissue(scan, scan, np.array([2.0, 2, 2]), 1.0, 1.0)
        assert tissue[20, 20, 20] and tissue[55, 20, 20] == kept


def test_an_island_is_dropped_and_a_temporal_lobe_is_not():
    brain = np.zeros((60, 60, 3), bool)
    brain[10:50, 10:50] = True
    brain[:, 20:25, 0] = False
    brain[2:8, 2:8, :1] = brain[2:8, 50:55, :1] = True
    kept = brain_extraction._without_islands(brain, np.array([2.0, 2, 5]))
    assert not kept[2:8, 2:8].any() and not kept[2:8, 50:55].any()
    assert kept[10:50, 10:20].all() and kept[10:50, 25:50].all()  # the lesser one is no island, it is large


@needs_real
def test_a_real_orbitofrontal_base_is_kept():
    """A large infarct, bright, and a base at 40 % of the brain's level: two slices had lost 17 ml of it."""
    dwi, b0 = (nifti.load(REAL / "cases" / "ads01_hole" / f"ads01_{name}.nii.gz") for name in ("dwi", "b0"))
    mask = brain_extraction.find_brain(dwi, b0)
    area = mask.sum((0, 1)) * np.prod(nifti.voxel_sizes(dwi.affine)[:2]) / 100  # cm^2
    assert area[11] > 155 and area[12] > 165  # 140 and 155 before
    assert ndimage.label(mask[:, :, 10])[1] == 1  # an island of frontal mucosa had been kept
