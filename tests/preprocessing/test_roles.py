"""Roles mixed up: what the images say, on a phantom head with noise, bias and an infarct; what comes of it."""

import numpy as np
import pytest

from tss.data.cohort import Patient
from tss.data.nifti import Volume, save
from tss.errors import InputError
from tss.phantom import cohort_phantom
from tss.preprocessing import roles, scans
from tss.preprocessing.atlas import load_atlas
from tss.preprocessing.pipeline import prepare
from tss.preprocessing.tools import BUILTIN

GRID = (56, 56, 13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two phantom patients, the first one's ADC map and T2w image, and the atlas."""
    folder = tmp_path_factory.mktemp("roles")
    for seed, name in ((8, "p1"), (9, "p2")):
        cohort_phantom.make_stroke_patient(folder, name, np.random.default_rng(seed))
    cohort_phantom.write_atlas(folder / "atlas.nii.gz")
    dwi, b0 = (scans.load(folder / "scans" / f"p1_{name}.nii.gz") for name in ("dwi", "b0"))
    both = (dwi.data > 0) & (b0.data > 0)
    adc = np.where(both, np.log(np.where(both, b0.data, 1) / np.where(both, dwi.data, 1)), 0)
    save(folder / "scans" / "p1_adc.nii.gz", adc.clip(0, 3.5) * 1000, dwi.affine)
    for name in ("p1", "p2"):
        b0 = scans.load(folder / "scans" / f"{name}_b0.nii.gz")
        noise = np.random.default_rng(0).normal(1, 0.05, b0.data.shape)
        save(folder / "scans" / f"{name}_t2w.nii.gz", b0.data * noise, b0.affine)
    return folder


def prepared(folder, **names):
    row = {"patient": "p"} | {column: f"scans/{name}.nii.gz" for column, name in names.items()}
    return prepare(scans.load_scans(Patient(row, folder)), load_atlas(folder / "atlas.nii.gz", GRID), BUILTIN)


@pytest.fixture(scope="module")
def clean(folder):
    return prepared(folder, dwi="p1_dwi", b0="p1_b0", flair="p1_flair")


def said(found):
    return "; ".join(found.flags)


def test_a_head_in_its_roles_has_no_flag_and_the_adc_gives_the_same_hemispheres(folder, clean):
    assert clean.flags == []
    of_adc = prepared(folder, dwi="p1_dwi", adc="p1_adc", flair="p1_flair")
    assert of_adc.flags == []
    assert np.abs(of_adc.hemispheres[:, [0, 2]] - clean.hemispheres[:, [0, 2]]).mean() < 0.01


def test_dwi_and_b0_exchanged_are_refused(folder):
    with pytest.raises(InputError, match="p1_b0.nii.gz and .*p1_dwi.nii.gz are exchanged: CSF is bright"):
        prepared(folder, dwi="p1_b0", b0="p1_dwi", flair="p1_flair")


def test_an_adc_given_as_b0_and_a_b0_given_as_adc_are_flagged(folder):
    assert "p1_adc.nii.gz, given as b0, looks like an ADC map" in said(
        prepared(folder, dwi="p1_dwi", b0="p1_adc", flair="p1_flair")
    )
    found = roles.doubts(
        scans.load(folder / "scans" / "p1_dwi.nii.gz"), None, scans.load(folder / "scans" / "p1_b0.nii.gz")
    )
    assert found[0].startswith("p1_b0.nii.gz, given as ADC, does not look like one")


def test_a_t2w_image_given_as_dwi_is_flagged_or_refused(folder):
    """p1's bright CSF and scalp leave no brain on it, p2's do."""
    with pytest.raises(InputError, match="p1_t2w.nii.gz: what looks like brain .* Is it a DWI"):
        prepared(folder, dwi="p1_t2w", b0="p1_b0", flair="p1_flair")
    assert "CSF is as bright on the DWI as on b0" in said(prepared(folder, dwi="p2_t2w", b0="p2_b0", flair="p2_flair"))


def test_a_t2w_image_given_as_flair_is_flagged(folder):
    assert "CSF is as bright as brain on FLAIR" in said(prepared(folder, dwi="p1_dwi", b0="p1_b0", flair="p1_t2w"))


def test_the_flair_of_another_patient_is_flagged(folder):
    assert "is it of another patient, or misplaced?" in said(
        prepared(folder, dwi="p1_dwi", b0="p1_b0", flair="p2_flair")
    )


@pytest.mark.parametrize(("one", "other"), [("b0", "flair"), ("dwi", "flair"), ("dwi", "adc")])
def test_one_scan_in_two_columns_is_refused(folder, one, other):
    names = {"dwi": "p1_dwi", "b0": "p1_b0", "flair": "p1_flair"}
    names[other] = names[one]
    if other == "adc":
        del names["b0"]
    with pytest.raises(InputError, match=f"hold the same voxels: one scan cannot be .*{other}|cannot be {other} and"):
        prepared(folder, **names)


def test_csf_on_dwi_by_hand():
    """Tissue 100 on both, CSF 20 and 400: log 20 / 400 is 3.0 below log 100 / 100."""
    b0, dwi = np.full((10, 10, 10), 100.0), np.full((10, 10, 10), 100.0)
    b0[:1], dwi[:1] = 400, 20
    brain = np.ones(b0.shape, bool)
    assert roles.csf_on_dwi(dwi, b0, brain) == pytest.approx(np.log(20 / 400), abs=1e-6)
    assert roles.csf_on_dwi(b0, dwi, brain) == pytest.approx(-np.log(20 / 400), abs=1e-6)
    assert roles.csf_on_dwi(b0, b0 * 3, brain) == pytest.approx(0)


def test_grain_says_nothing_of_a_constant_or_of_too_little():
    rng = np.random.default_rng(0)
    dwi = rng.normal(100, 3, (20, 20, 10))
    assert roles.grain(dwi, np.full(dwi.shape, 0.8)) is None and roles.grain(dwi[:3, :3], dwi[:3, :3]) is None
    assert roles.grain(dwi, np.log(300 / dwi)) < -0.9 and roles.grain(dwi, dwi * 2) > 0.99
    volume = Volume(dwi, np.eye(4))
    assert roles.doubts(volume, volume._replace(data=dwi * 2), None) == ()
