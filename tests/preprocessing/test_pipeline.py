"""One patient through all steps: sides, contrast, spaces; what is refused and with which words."""

import re

import heads
import numpy as np
import pytest

from tss.data import hemispheres, nifti
from tss.data.cohort import Patient
from tss.data.files import sha256
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.preprocessing import brain_extraction, fsl, pipeline, quality_control, registration

GRID = (56, 56, 13)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    return pipeline.load_atlas(heads.write_atlas(tmp_path_factory.mktemp("atlas") / "atlas.nii.gz"), GRID)


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
    lesion = heads.in_lesion(world[:3, :3] @ index + world[:3, 3:]).reshape(heads.DWI_GRID[0])
    return volumes | {"lesion": Volume(lesion.astype(np.float32), affine)}


@pytest.fixture(scope="module")
def prepared(scans, atlas):
    return pipeline.prepare(scans["dwi"], scans["b0"], scans["flair"], atlas, brain_extraction, lesion=scans["lesion"])


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


def test_figures_of_the_lesion_and_histograms_are_the_scans_own(prepared):
    figures = prepared.figures
    assert figures["lesion_in_mask"] == 1
    assert figures["dwi_contrast_raw"] == pytest.approx(220 / 90, rel=0.05)  # heads.VALUES: lesion over white matter
    assert figures["flair_contrast_raw"] == pytest.approx(320 / 220, rel=0.06)
    assert figures["dwi_contrast_kept"] == figures["dwi_contrast"] / figures["dwi_contrast_raw"]
    assert figures["flair_contrast_kept"] == pytest.approx(1, abs=0.1)
    for raw, matched in prepared.histograms.values():
        assert raw.sum() <= 1 and matched.sum() <= 1
        for shares in (raw, matched):  # white matter, at 1, is in the bins on both sides of it; grey matter near 1.25
            assert shares[19:21].sum() > 0.3 and shares[22:28].sum() > 0.2


def test_a_flair_with_left_and_right_exchanged_is_told(prepared, scans):
    assert prepared.figures["flair_side"] == pytest.approx(0, abs=0.05)  # made-up heads are nearly symmetric
    cavity = {}
    for name, degrees, value in (("b0", 6, 900), ("flair", 10, 40)):
        scan = scans[name]
        head = np.linalg.inv(heads.turned(degrees, (3, -4, 2))) @ scan.affine
        index = np.indices(scan.data.shape).reshape(3, -1)
        world = head[:3, :3] @ index + head[:3, 3:]
        inside = np.linalg.norm(world.T - (-36, 20, 20), axis=1).reshape(scan.data.shape) < 20
        cavity[name] = scan._replace(data=np.where(inside, np.float32(value), scan.data))
    brain = brain_extraction.find_brain(scans["dwi"], scans["b0"])
    exchanged = cavity["flair"]._replace(data=np.ascontiguousarray(cavity["flair"].data[::-1]))
    found = [
        pipeline._sameness_of_sides(flair, cavity["b0"], brain, registration.find_affine(flair, cavity["b0"], 6, brain))
        for flair in (cavity["flair"], exchanged)
    ]
    assert found[0] > 0.05 and found[1] < -0.05
    assert quality_control.flags({"flair_side": found[0]}) == []
    assert quality_control.flags({"flair_side": found[1]})[0].startswith(
        "FLAIR fits b0 better with left and right exchanged"
    )


def test_contrast_of_the_lesion_is_kept(prepared, scans, atlas):
    mirror = prepared.lesion[::-1] & prepared.mask
    for name, scan, world in (
        ("dwi", scans["dwi"], prepared.b0_to_atlas),
        ("flair", scans["flair"], prepared.b0_to_atlas @ prepared.flair_to_b0),
    ):
        raw = nifti.resample(scan, atlas.shape, atlas.affine, world)
        before = raw[prepared.lesion].mean() / raw[mirror].mean()
        after = prepared.volumes[name][prepared.lesion].mean() / prepared.volumes[name][mirror].mean()
        assert after / before == pytest.approx(1, abs=0.1)  # DESIGN 7


def test_a_patient_is_brought_to_the_references_level_whatever_the_scanners_gain(scans, atlas, prepared):
    louder = {name: scan._replace(data=scan.data * 9) for name, scan in scans.items()}
    again = pipeline.prepare(louder["dwi"], louder["b0"], louder["flair"], atlas, brain_extraction, prepared.landmarks)
    assert np.abs(again.hemispheres - prepared.hemispheres).mean() < 2e-3
    assert again.lesion is None and again.figures["brain_ml"] == pytest.approx(prepared.figures["brain_ml"], rel=0.01)


def test_dwi_and_b0_of_different_grids_are_refused(scans, atlas):
    short = scans["b0"]._replace(data=scans["b0"].data[:, :, 1:])
    with pytest.raises(InputError, match=r"differ in shape, \(56, 68, 24\) and \(56, 68, 23\)"):
        pipeline.prepare(scans["dwi"], short, scans["flair"], atlas, brain_extraction)
    moved = scans["b0"].affine.copy()
    moved[2, 3] += 3
    with pytest.raises(InputError, match="lie 3.0 mm apart"):
        pipeline.prepare(scans["dwi"], scans["b0"]._replace(affine=moved), scans["flair"], atlas, brain_extraction)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_b0_from_adc_in_either_unit(unit):
    b0 = np.full((6, 6, 6), 200, np.float32)
    adc = np.full((6, 6, 6), 0.8, np.float32)
    adc[0] = -1  # noise: no attenuation
    dwi = Volume(b0 * np.exp(-np.clip(adc, 0, None)), np.eye(4))
    made = pipeline.b0_from_adc(dwi, Volume(adc * unit, np.eye(4)))
    assert np.allclose(made.data, b0, rtol=1e-4)


def test_an_adc_of_unknown_unit_is_refused():
    volume = Volume(np.full((6, 6, 6), 20, np.float32), np.eye(4))
    with pytest.raises(InputError, match="median of positive voxels is 20, which is neither"):
        pipeline.b0_from_adc(volume, volume)


def test_a_missing_brain_is_never_a_silent_zero_volume(scans, atlas):
    class Blind:
        find_affine = staticmethod(registration.find_affine)

        @staticmethod
        def find_brain(dwi, b0):
            return np.zeros(dwi.data.shape, bool)

    with pytest.raises(InputError, match="no brain was found"):
        pipeline.prepare(scans["dwi"], scans["b0"], scans["flair"], atlas, Blind)


def test_a_flair_without_the_brain_is_refused(scans, atlas):
    class Astray:
        find_brain = staticmethod(brain_extraction.find_brain)

        @staticmethod
        def find_affine(moving, fixed, dof, fixed_mask=None):
            far = np.eye(4)
            far[0, 3] = 500
            return far if dof == 6 else np.eye(4)

    with pytest.raises(InputError, match="FLAIR of the same head"):
        pipeline.prepare(scans["dwi"], scans["b0"], scans["flair"], atlas, Astray)


def test_a_flair_that_shows_a_part_of_the_brain_is_flagged(scans, atlas, prepared):
    class Known:  # the affines of `prepared`: the cut is what this is about
        find_brain = staticmethod(brain_extraction.find_brain)

        @staticmethod
        def find_affine(moving, fixed, dof, fixed_mask=None):
            return prepared.flair_to_b0 if dof == 6 else prepared.b0_to_atlas

    whole, flair = prepared.figures["flair_coverage"], scans["flair"]
    top = flair._replace(data=flair.data[:, :, : flair.data.shape[2] // 2])
    cut = pipeline.prepare(scans["dwi"], scans["b0"], top, atlas, Known)
    assert whole > 0.99 and cut.figures["flair_coverage"] < 0.6
    assert re.search(r"the FLAIR shows \d\d% of the brain: its field of view is cut", "; ".join(cut.flags))
    assert "FLAIR shows" not in "; ".join(prepared.flags)


def test_a_mask_without_lesion_and_a_patient_without_scans(tmp_path, scans):
    for name in ("dwi", "b0", "flair"):
        heads.save(tmp_path / f"{name}.nii.gz", scans[name].data, scans[name].affine)
    heads.save(tmp_path / "lesion.nii.gz", np.zeros(scans["dwi"].data.shape, np.uint8), scans["dwi"].affine)
    row = {"patient": "p"} | {name: f"{name}.nii.gz" for name in ("dwi", "b0", "flair", "lesion")}
    assert not pipeline.load_scans(Patient(row, tmp_path))["lesion"].data.any()
    with pytest.raises(InputError, match="no flair is given"):
        pipeline.load_scans(Patient(row | {"flair": ""}, tmp_path))
    with pytest.raises(InputError, match="^no FLAIR in sub-1/anat$"):
        pipeline.load_scans(Patient(row | {"flair": "", "not_found": "no FLAIR in sub-1/anat"}, tmp_path))


def test_an_atlas_with_skull_is_stripped(atlas):
    shape, sizes = (64, 76, 60), (3.0, 3.0, 3.0)
    affine = heads.grid(shape, sizes)
    affine[0, 3] = -sizes[0] * (shape[0] - 1) / 2
    whole = heads.sample("b0", shape, affine)
    whole[heads.sample("flair", shape, affine) < 1] = 1
    head = pipeline._laid_out(Volume(whole, affine), GRID)
    stripped, known = head.on_grid > 0, atlas.on_grid > 0
    assert 2 * (stripped & known).sum() / (stripped.sum() + known.sum()) > 0.9


def whole_head(folder, name):
    """A T2w head with skull, in a file, and the mask of its brain."""
    shape, sizes = (64, 76, 60), (3.0, 3.0, 3.0)
    affine = heads.grid(shape, sizes)
    affine[0, 3] = -sizes[0] * (shape[0] - 1) / 2
    brain = heads.sample("atlas", shape, affine)
    nifti.save(folder / name, np.where(brain > 0, brain, 500), affine)  # what surrounds it is as bright on T2w
    return brain > 0, affine


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("t2w.nii.gz", "t2w_mask.nii.gz"),
        ("mni_icbm152_t2_tal_nlin_sym_09a.nii", "mni_icbm152_t1_tal_nlin_sym_09a_mask.nii"),
        ("MNI152_T2_1mm.nii.gz", "MNI152_T1_1mm_brain_mask.nii.gz"),
    ],
)
def test_the_mask_beside_an_atlas_with_skull_says_what_its_brain_is(tmp_path, name, mask):
    brain, affine = whole_head(tmp_path, name)
    with pytest.raises(InputError, match="is a whole head, and its brain is not found.*_mask.nii"):
        pipeline.load_atlas(tmp_path / name, GRID)
    nifti.save(tmp_path / mask, brain.astype(np.uint8), affine)
    atlas = pipeline.load_atlas(tmp_path / name, GRID)
    np.testing.assert_array_equal(atlas.brain.data > 0, brain)
    assert atlas.skull == f"by mask {sha256(tmp_path / mask)}"
    nifti.save(tmp_path / "stripped.nii.gz", atlas.brain.data, affine)
    assert pipeline.load_atlas(tmp_path / "stripped.nii.gz", GRID).skull == "none"


def test_no_atlas_says_where_to_get_one(monkeypatch, tmp_path):
    monkeypatch.delenv("FSLDIR", raising=False)
    with pytest.raises(InputError, match="mni_icbm152_t2_tal_nlin_sym_09a"):
        pipeline.find_atlas(None)
    standard = tmp_path / "data" / "standard"
    standard.mkdir(parents=True)
    (standard / "MNI152_T2_1mm.nii.gz").write_text("")
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    assert pipeline.find_atlas(None) == standard / "MNI152_T2_1mm.nii.gz"


def test_tools(monkeypatch):
    monkeypatch.setattr(fsl, "available", lambda: False)
    assert pipeline.find_tools("auto") is brain_extraction and pipeline.find_tools("builtin") is brain_extraction
    monkeypatch.setattr(fsl, "available", lambda: True)
    monkeypatch.setattr(fsl, "describe", lambda: "FSL")
    assert pipeline.find_tools("auto") is fsl
