"""The suite's own brain extraction on a phantom with known truth, and on a real scan where it lies here."""

import os
from pathlib import Path

import numpy as np
import pytest

from tss.data import nifti
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.preprocessing import brain_extraction, quality_control

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))


def test_brain_mask_on_a_phantom(patient):
    mask = brain_extraction.find_brain(patient["dwi"], patient["b0"])
    assert mask.dtype == bool and mask.shape == patient["dwi"].data.shape
    assert quality_control.dice(mask, patient["brain"]) >= 0.97


def test_a_stripped_scan_is_kept_and_not_eaten(patient):
    stripped = [
        patient[name]._replace(data=np.where(patient["brain"], patient[name].data, 0)) for name in ("dwi", "b0")
    ]
    assert quality_control.dice(brain_extraction.find_brain(*stripped), patient["brain"]) >= 0.99


def test_noise_is_no_brain():
    noise = Volume(np.random.default_rng(0).random((60, 60, 30)).astype(np.float32) + 1, np.diag([3.0, 3, 5, 1]))
    with pytest.raises(InputError, match="looks like brain in it measures"):
        brain_extraction.find_brain(noise, noise)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real scans in ../shared/real")
def test_isles_brain_is_kept():
    dwi, adc = (nifti.load(REAL / f"isles0001_{name}.nii.gz") for name in ("dwi", "adc"))
    mask = brain_extraction.find_brain(dwi, dwi._replace(data=dwi.data * np.exp(np.clip(adc.data, 0, 3.5))))
    assert quality_control.dice(mask, dwi.data > 20) > 0.95
