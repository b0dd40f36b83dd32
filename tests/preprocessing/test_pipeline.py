"""One patient through all steps: sides, contrast, spaces; what is refused and with which words."""

import re
from dataclasses import replace

import heads
import numpy as np
import pytest

from tss.data import hemispheres, nifti
from tss.data.nifti import Volume, apply_affine, voxel_sizes
from tss.errors import InputError
from tss.preprocessing import brain_extraction, intensity, quality_control, registration
from tss.preprocessing.atlas import lay_out
from tss.preprocessing.pipeline import prepare
from tss.preprocessing.scans import Scans
from tss.preprocessing.tools import BUILTIN

GRID = (56, 56, 13)


@pytest.fixture(scope="module")
def scans():
    """A head whose lesion is on the patient's right, turned by 6 degrees in the scanner; FLAIR turned by 10."""
    volumes = {}
    for channel, (shape, sizes), degrees in (
        ("dwi", heads.DWI_GRID, 6),
        ("b0", heads.DWI_GRID, 6),
        ("flair", heads.FLAIR_GRID, 10),
    ):
        affine = heads.grid(shape, sizes)
        volumes[channel] = Volume(heads.sample(channel, shape, affine, heads.turned(degrees, (3, -4, 2))), affine)
    affine = volumes["dwi"].affine
    world = np.linalg.inv(heads.turned(6, (3, -4, 2))) @ affine
    index = np.indices(heads.DWI_GRID[0]).reshape(3, -1)
    lesion = heads.in_lesion(apply_affine(world, index)).reshape(heads.DWI_GRID[0])
    return Scans(**volumes, lesion=Volume(lesion.astype(np.float32), affine))


@pytest.fixture(scope="module")
def prepared(scans, atlas):
    return prepare(scans, atlas, BUILTIN)


def test_shapes_ranges_and_background(prepared):
    assert prepared.hemispheres.shape == (2, 3, 13, 56, 28)
    assert prepared.hemispheres.min() == 0 and prepared.hemispheres.max() <= 1
    assert list(prepared.volumes) == list(hemispheres.CHANNELS)
    for volume in prepared.volumes.values():
        assert volume.shape == GRID and not volume[~prepared.mask].any()
        assert np.median(volume[prepared.mask]) == pytest.approx(1, abs=0.15)


def test_the_lesion_is_on_the_patients_right_and_mirrored_onto_the_left(prepared):
    left, right = prepared.hemispheres[:, 0]  # DWI (D, H, W)
    assert right.max() > 1.5 * left.max()
    where = np.argwhere(prepared.lesion).mean(0)
    world = (prepared.affine @ [*where, 1])[:3]
    assert world == pytest.approx(heads.LESION_MM, abs=4)


def test_affines_bring_the_heads_together(prepared):
    truth = heads.turned(6, (3, -4, 2)) @ np.linalg.inv(heads.turned(10, (3, -4, 2)))
    points = np.array([[30, -40, 20, 1], [-30, 30, 0, 1], [0, 0, 50, 1.0]]).T
    assert np.linalg.norm(((prepared.flair_to_b0 - truth) @ points)[:3], axis=0).max() < 2
    back = prepared.b0_to_atlas @ heads.turned(6, (3, -4, 2))
    assert np.linalg.norm(((back - np.eye(4)) @ points)[:3], axis=0).max() < 3


def test_measures_of_the_lesion_and_histograms_are_the_scans_own(prepared):
    measures = prepared.measures
    assert measures["lesion_in_mask"] == 1 and measures["lesion_right"] == 1
    assert measures["dwi_contrast_raw"] == pytest.approx(220 / 90, rel=0.05)  # heads.VALUES: lesion over white matter
    assert measures["flair_contrast_raw"] == pytest.approx(320 / 220, rel=0.06)
    assert measures["dwi_contrast_kept"] == measures["dwi_contrast"] / measures["dwi_contrast_raw"]
    assert measures["flair_contrast_kept"] == pytest.approx(1, abs=0.1)
    for raw, matched in prepared.histograms.values():
        assert raw.sum() <= 1 and matched.sum() <= 1
        for shares in (raw, matched):  # white matter, at 1, is in the bins on both sides of it; grey matter near 1.25
            assert shares[19:21].sum() > 0.3 and shares[22:28].sum() > 0.2


@pytest.mark.slow
def test_a_flair_with_left_and_right_exchanged_is_told(prepared, scans):
    assert prepared.measures["flair_side"] == pytest.approx(0, abs=0.08)  # made-up heads are nearly symmetric
    cavity = {}
    for name, degrees, value in (("b0", 6, 900), ("flair", 10, 40)):
        scan = getattr(scans, name)
        head = np.linalg.inv(heads.turned(degrees, (3, -4, 2))) @ scan.affine
        index = np.indices(scan.data.shape).reshape(3, -1)
        world = apply_affine(head, index)
        inside = np.linalg.norm(world.T - (-36, 20, 20), axis=1).reshape(scan.data.shape) < 20
        cavity[name] = scan._replace(data=np.where(inside, np.float32(value), scan.data))
    brain = brain_extraction.find_brain(scans.dwi, scans.b0)
    exchanged = cavity["flair"]._replace(data=np.ascontiguousarray(cavity["flair"].data[::-1]))
    found = [
        quality_control.likeness_of_sides(
            flair, cavity["b0"], brain, registration.find_affine(flair, cavity["b0"], 6, brain)
        )
        for flair in (cavity["flair"], exchanged)
    ]
    assert found[0] > 0.05 and found[1] < -0.05
    assert quality_control.flags({"flair_side": found[0]}) == []
    assert quality_control.flags({"flair_side": found[1]})[0].startswith(
        "FLAIR fits b0 better with left and right exchanged"
    )


@pytest.mark.slow
def test_a_head_turned_by_180_degrees_against_its_header_is_flagged(patient):
    """Back to front and left to right at once: the outline hardly tells, the tissue does."""
    turn = np.diag([-1.0, -1, 1, 1])
    head = Scans(*(patient[name]._replace(affine=turn @ patient[name].affine) for name in ("dwi", "b0", "flair")))
    prepared = prepare(head, lay_out(patient["atlas"], GRID), BUILTIN)
    assert any(flag.startswith("b0 and atlas hardly resemble each other") for flag in prepared.flags)


def test_a_field_that_is_left_on_one_side_does_not_change_the_contrast(prepared, scans, atlas, monkeypatch):
    """Each sequence's own correction leaves 8 % from the midline to each side; the comparison of sides does not."""

    def badly(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
        where = np.flatnonzero(mask.any((1, 2)))
        across = (np.arange(len(data)) - where.mean()) / np.ptp(where) * 2
        return (data * np.exp(0.08 * across)[:, None, None]).astype(np.float32)

    monkeypatch.setattr(intensity, "correct_bias", badly)
    again = prepare(scans, atlas, BUILTIN).measures
    for name in ("dwi_contrast", "flair_contrast"):
        assert again[name] == pytest.approx(prepared.measures[name], rel=0.03)


def test_contrast_of_the_lesion_is_kept(prepared, scans, atlas):
    mirror = prepared.lesion[::-1] & prepared.mask
    for name, scan, world in (
        ("dwi", scans.dwi, prepared.b0_to_atlas),
        ("flair", scans.flair, prepared.b0_to_atlas @ prepared.flair_to_b0),
    ):
        raw = nifti.resample(scan, atlas.shape, atlas.affine, world)
        before = raw[prepared.lesion].mean() / raw[mirror].mean()
        after = prepared.volumes[name][prepared.lesion].mean() / prepared.volumes[name][mirror].mean()
        assert after / before == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_patient_is_brought_to_the_references_level_whatever_the_scanners_gain(scans, atlas, prepared):
    louder = Scans(*(scan._replace(data=scan.data * 9) for scan in scans[:3]))
    again = prepare(louder, atlas, BUILTIN, prepared.landmarks)
    assert np.abs(again.hemispheres - prepared.hemispheres).mean() < 3e-3  # rounding moves an affine by 0.1 mm
    assert again.lesion is None and again.measures["brain_ml"] == pytest.approx(prepared.measures["brain_ml"], rel=0.01)


def test_dwi_and_b0_of_different_grids_are_refused(scans, atlas):
    short = scans.b0._replace(data=scans.b0.data[:, :, 1:])
    with pytest.raises(InputError, match=r"differ in shape, \(56, 68, 24\) and \(56, 68, 23\)"):
        prepare(scans._replace(b0=short), atlas, BUILTIN)
    moved = scans.b0.affine.copy()
    moved[2, 3] += 3
    with pytest.raises(InputError, match="lie 3.0 mm apart"):
        prepare(scans._replace(b0=scans.b0._replace(affine=moved)), atlas, BUILTIN)


def test_a_missing_brain_is_never_a_silent_zero_volume(scans, atlas):
    blind = replace(BUILTIN, find_brain=lambda dwi, b0: np.zeros(dwi.data.shape, bool))
    with pytest.raises(InputError, match="no brain was found"):
        prepare(scans, atlas, blind)


def test_a_flair_without_the_brain_is_refused(scans, atlas):
    far = np.eye(4)
    far[0, 3] = 500
    astray = replace(BUILTIN, find_affine=lambda moving, fixed, dof, **_: far if dof == 6 else np.eye(4))
    with pytest.raises(InputError, match="FLAIR of the same head"):
        prepare(scans, atlas, astray)


def test_a_flair_that_shows_a_part_of_the_brain_is_flagged(scans, atlas, prepared):
    def known(moving, fixed, dof, **_):  # the affines of `prepared`: the cut is what this is about
        return prepared.flair_to_b0 if dof == 6 else prepared.b0_to_atlas

    whole, flair = prepared.measures["flair_coverage"], scans.flair
    top = flair._replace(data=flair.data[:, :, : flair.data.shape[2] // 2])
    cut = prepare(scans._replace(flair=top), atlas, replace(BUILTIN, find_affine=known))
    assert whole > 0.99 and cut.measures["flair_coverage"] < 0.6
    empty = np.arange(flair.data.shape[2]) >= flair.data.shape[2] // 2  # the same, on a grid that holds the whole head
    noise = np.random.default_rng(0).uniform(1, 3, flair.data.shape).astype(np.float32)
    padded = flair._replace(data=np.where(empty, 0, flair.data + noise))
    same = prepare(scans._replace(flair=padded), atlas, replace(BUILTIN, find_affine=known))
    assert same.measures["flair_coverage"] == pytest.approx(cut.measures["flair_coverage"], abs=0.01)
    assert re.search(r"the FLAIR shows \d\d% of the brain: its field of view is cut", "; ".join(cut.flags))
    assert "FLAIR shows" not in "; ".join(prepared.flags)


def test_a_dwi_turned_upright_and_padded_says_that_brain_is_missing(scans, atlas, prepared):
    """Without its crown, and turned, it had passed without a word."""
    away, rng = np.eye(4), np.random.default_rng(0)
    away[1:3, 1:3] = heads.turned(15)[:2, :2]
    noisy = {name: getattr(scans, name) for name in ("dwi", "b0")}
    noisy = {name: scan._replace(data=scan.data + rng.uniform(1, 3, scan.data.shape)) for name, scan in noisy.items()}
    brain = brain_extraction.find_brain(**noisy)
    last = np.flatnonzero(brain.any((0, 1)))[-1] - round(25 / voxel_sizes(scans.dwi.affine)[2])
    cut = {name: scan._replace(data=scan.data[:, :, :last].astype(np.float32)) for name, scan in noisy.items()}
    turned = {name: heads.upright(scan, away) for name, scan in cut.items()}
    flair = scans.flair._replace(affine=away @ scans.flair.affine)

    def known(moving, fixed, dof, **_):
        return prepared.flair_to_b0 if dof == 6 else prepared.b0_to_atlas @ np.linalg.inv(away)

    found = prepare(Scans(**turned, flair=flair), atlas, replace(BUILTIN, find_affine=known))
    assert "the brain touches the upper edge of the DWI's field of view" in "; ".join(found.flags)
    assert found.measures["dwi_coverage"] < prepared.measures["dwi_coverage"] - 0.03
