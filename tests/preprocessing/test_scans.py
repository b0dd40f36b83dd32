"""A patient's scans: which are read, the b0 made from the ADC, and what is refused."""

import heads
import numpy as np
import pytest

from tss.data.cohort import Patient
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.preprocessing import scans


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_b0_from_adc_in_either_unit(unit):
    b0 = np.full((6, 6, 6), 200, np.float32)
    adc = np.full((6, 6, 6), 0.8, np.float32)
    adc[0] = -1  # noise: no attenuation
    dwi = Volume(b0 * np.exp(-np.clip(adc, 0, None)), np.eye(4))
    made = scans.b0_from_adc(dwi, Volume(adc * unit, np.eye(4)))
    assert np.allclose(made.data, b0, rtol=1e-4)


def test_an_adc_of_unknown_unit_is_refused():
    volume = Volume(np.full((6, 6, 6), 20, np.float32), np.eye(4))
    with pytest.raises(InputError, match="median of positive voxels is 20, which fits a brain in none of mm.2/s, 10"):
        scans.b0_from_adc(volume, volume)


def test_a_mask_without_lesion_and_a_patient_without_scans(tmp_path):
    for value, name in enumerate(("dwi", "b0", "flair"), 1):
        heads.save(tmp_path / f"{name}.nii.gz", np.full((6, 6, 6), value, np.float32), np.eye(4))
    heads.save(tmp_path / "lesion.nii.gz", np.zeros((6, 6, 6), np.uint8), np.eye(4))
    row = {"patient": "p"} | {name: f"{name}.nii.gz" for name in ("dwi", "b0", "flair", "lesion")}
    assert not scans.load_scans(Patient(row, tmp_path)).lesion.data.any()
    with pytest.raises(InputError, match="no flair is given"):
        scans.load_scans(Patient(row | {"flair": ""}, tmp_path))
    with pytest.raises(InputError, match="^no FLAIR in sub-1/anat$"):
        scans.load_scans(Patient(row | {"flair": "", "not_found": "no FLAIR in sub-1/anat"}, tmp_path))


@pytest.mark.parametrize(
    ("values", "lesion"),
    [
        ([0, 1, 2, 7, -1], [0, 1, 1, 1, 0]),
        ([0, 255, 255, 0, 0], [0, 1, 1, 0, 0]),
        ([0, 0.2, 1, 0.7, 1e-4], [0, 0, 1, 1, 0]),
        ([0, 1 / 255, 1 / 255, 0, 0], [0, 1, 1, 0, 0]),
    ],
    ids=["labels", "bytes", "interpolated", "scaled"],
)
def test_what_of_a_mask_is_lesion(values, lesion):
    mask = np.zeros((6, 6, 6), np.float32)
    mask[:5, 0, 0] = values
    assert scans.as_mask(Volume(mask, np.eye(4))).data[:5, 0, 0].tolist() == lesion


def test_one_scan_has_one_hash_whatever_the_sign_of_its_zeros():
    """As a negative slope, or a product with a mask, leaves them."""
    data = np.zeros((6, 6, 6), np.float32)
    data[2:] = 3
    negative = np.where(data == 0, np.float32(-0.0), data)
    assert scans.hash_voxels(Volume(data, np.eye(4))) == scans.hash_voxels(Volume(negative, np.eye(4)))
    data[0, 0, 0] = 1
    assert scans.hash_voxels(Volume(data, np.eye(4))) != scans.hash_voxels(Volume(negative, np.eye(4)))
