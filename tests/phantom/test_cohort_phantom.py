"""The phantom: repeatable, anatomically plausible, true to its truth files, and written like a lab's scans."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import phantom_bids
import pytest
from heads import HARD
from scipy import ndimage

from tss.data import bids, nifti
from tss.data.cohort import read_cohort, write_cohort
from tss.data.files import read_json
from tss.errors import InputError
from tss.phantom import cohort_phantom, infarct, onset_law
from tss.phantom.individual_head import MATTER, Variation, draw_variation, make_subject, noise_field
from tss.phantom.mr_signal import SUBSTANCES, Contrast, Lesion, render_head, signals
from tss.phantom.scanner import bias_field, make_pose
from tss.preprocessing.scans import load_scans

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))
CLEAN = replace(cohort_phantom.ORDINARY, bias=(0.001, 0.002), snr=(400.0, 500.0), both=0.0, volume_ml=(40.0, 0.2))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    return cohort_phantom.make_cohort(folder, 3, seed=7, difficulty=CLEAN, progress=False)


@pytest.fixture(scope="module")
def mean_subject():
    return make_subject()


def fields_of(cohort: Path, patient: str) -> dict[str, nifti.Volume]:
    files = {name: f"scans/{patient}_{name}.nii.gz" for name in ("dwi", "b0", "flair")}
    files |= {name: f"truth/{patient}_{name}.nii.gz" for name in ("brain", "lesion")}
    return {name: nifti.load(cohort.parent / file) for name, file in files.items()}


def rows_of(cohort: Path) -> list[dict[str, str]]:
    with open(cohort, newline="") as file:
        return list(csv.DictReader(file))


def mirrored(volume: nifti.Volume, mask: np.ndarray, to_atlas: np.ndarray) -> np.ndarray:
    """Values at the mask's voxels reflected about the mean head's midline."""
    to_atlas = to_atlas @ volume.affine
    reflect = np.linalg.inv(to_atlas) @ np.diag([-1, 1, 1, 1]) @ to_atlas
    voxels = np.argwhere(mask) @ reflect[:3, :3].T + reflect[:3, 3]
    return ndimage.map_coordinates(volume.data, voxels.T, order=1)


@pytest.mark.slow
def test_cohort_can_be_read_as_a_lab_s_own(cohort):
    patients = read_cohort(cohort)
    assert [p.id for p in patients] == ["p001", "p002", "p003"]
    for patient in patients:
        assert 20 <= patient.minutes <= 4320
        assert patient.side in ("left", "right")
        assert patient.path("lesion").is_file()


def test_a_patient_written_as_bids_has_the_same_scans(cohort, tmp_path):
    original = read_cohort(cohort)[0]
    write_cohort(tmp_path / "one.csv", [original])
    (patient,) = bids.read(phantom_bids.write_bids(tmp_path / "one.csv", tmp_path / "bids"))
    assert patient.path("dwi").name == "sub-p001_dwi.nii.gz" and not patient.path("b0")
    assert (patient.minutes, patient.side) == (original.minutes, original.side)
    expected, found = load_scans(original)._asdict(), load_scans(patient)._asdict()
    assert found.keys() == expected.keys() == {"dwi", "b0", "flair", "lesion"}
    for name, scan in expected.items():  # integers are scaled anew: half a step is less than 10^-4 of the range
        assert np.abs(found[name].data - scan.data).max() <= 1e-4 * scan.data.max() and scan.data.any()
        assert np.allclose(found[name].affine, scan.affine, atol=1e-4)


@pytest.mark.slow
def test_same_seed_same_files_whatever_the_jobs(cohort, tmp_path):
    again = cohort_phantom.make_cohort(tmp_path, 2, seed=7, difficulty=CLEAN, jobs=2, progress=False)
    assert cohort.read_text().startswith(again.read_text())
    twins = sorted(tmp_path.rglob("p*.*"))
    assert len(twins) == 2 * 6
    for twin in twins:
        file = cohort.parent / twin.relative_to(tmp_path)
        assert twin.read_bytes() == file.read_bytes() or np.array_equal(
            nibabel.load(file).get_fdata(), nibabel.load(twin).get_fdata()
        ), file.name


@pytest.mark.slow
def test_different_seed_different_patients(tmp_path):
    a = cohort_phantom.make_stroke_patient(tmp_path / "a", "p", np.random.default_rng([1, 0]), CLEAN)
    b = cohort_phantom.make_stroke_patient(tmp_path / "b", "p", np.random.default_rng([2, 0]), CLEAN)
    assert a != b


def test_progress_has_a_line_for_each_patient(tmp_path, capsys):
    lines = []
    cohort_phantom.make_cohort(tmp_path, 1, seed=0, progress=lines.append)
    assert len(lines) == 1 and "p001  1/1" in lines[0] and "0 s left" in lines[0]
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="a cohort needs at least one patient, not 0"):
        cohort_phantom.make_cohort(tmp_path, 0, seed=0)


def test_dwi_and_b0_share_a_grid_and_flair_has_its_own(cohort):
    for row in rows_of(cohort):
        scans = fields_of(cohort, row["patient"])
        assert np.array_equal(scans["dwi"].affine, scans["b0"].affine)
        assert scans["dwi"].data.shape == scans["brain"].data.shape == scans["lesion"].data.shape
        assert 0.688 <= nifti.voxel_sizes(scans["flair"].affine)[:2].min() <= 0.9381
        assert nifti.voxel_sizes(scans["dwi"].affine)[:2].max() <= 1.8501
        assert 5.99 <= nifti.voxel_sizes(scans["dwi"].affine)[2] <= 6.51


def test_storage_orientations_vary():
    """Twelve patients' headers are drawn like the cohort's: at least three orders, handedness of both kinds."""
    axes = {
        cohort_phantom.FLAIR_AXES[np.random.default_rng(i).integers(len(cohort_phantom.FLAIR_AXES))] for i in range(40)
    }
    assert {"RAS", "LAS", "LPS", "SAL"} <= axes


def test_lesion_lies_on_the_side_that_the_table_names_and_does_not_cross(cohort):
    for row in rows_of(cohort):
        scans, truth = fields_of(cohort, row["patient"]), read_json(cohort.parent / f"truth/{row['patient']}.json")
        to_atlas = np.array(truth["b0_to_atlas"]) @ scans["lesion"].affine
        x = np.argwhere(scans["lesion"].data > 0) @ to_atlas[:3, :3].T[:, 0] + to_atlas[0, 3]
        sign = 1 if row["stroke_side"] == "right" else -1
        assert (sign * x).min() > -2.0  # half a voxel and the warp's non-linear part
        assert np.median(sign * x) > 5
        volume = (scans["lesion"].data > 0).sum() * abs(np.linalg.det(scans["lesion"].affine[:3, :3])) / 1000
        assert volume == pytest.approx(truth["lesion_ml"], rel=0.15, abs=1.0)


def test_lesion_is_bright_on_dwi_and_flair_follows_the_latent(cohort):
    """Against the mirrored place, in tissue without CSF; FLAIR through its own pose, so the affines are tested too."""
    for row in rows_of(cohort):
        scans, truth = fields_of(cohort, row["patient"]), read_json(cohort.parent / f"truth/{row['patient']}.json")
        to_atlas, flair_to_b0 = np.array(truth["b0_to_atlas"]), np.array(truth["flair_to_b0"])
        acute = ndimage.binary_erosion(scans["lesion"].data > 0, np.ones((3, 3, 1)))
        flair = nifti.Volume(
            nifti.resample(scans["flair"], scans["dwi"].data.shape, scans["dwi"].affine, flair_to_b0),
            scans["dwi"].affine,
        )
        csf = np.median(scans["b0"].data[scans["brain"].data > 0]) * 1.6
        solid = (scans["b0"].data[acute] < csf) & (mirrored(scans["b0"], acute, to_atlas) < csf)
        ratio = {
            name: np.median(volume.data[acute][solid] / mirrored(volume, acute, to_atlas)[solid])
            for name, volume in {"dwi": scans["dwi"], "flair": flair}.items()
        }
        assert ratio["flair"] == pytest.approx(truth["flair_ratio"], abs=0.12)
        b0 = truth["flair_ratio"] ** (
            np.mean(cohort_phantom.TE_EPI_MS) / np.mean(cohort_phantom.TE_FLAIR_MS)
        )  # one T2 behind both
        (adc_ratio,) = truth["adc_ratios"]
        assert ratio["dwi"] == pytest.approx(b0 * np.exp(0.775 * (1 - adc_ratio)), rel=0.10) and ratio["dwi"] > 1.05


def test_one_t2_explains_flair_and_b0_and_the_adc_falls(mean_subject):
    """The law exactly, without scanner: lesion over healthy, voxel by voxel, at severity 1."""
    matter = mean_subject.matter
    pure = np.flatnonzero(matter[MATTER.index("white")] > 0.999)[:50].astype(np.int64)
    contrast = Contrast(te_epi=90, te_flair=120)
    acute = Lesion(pure, np.ones(len(pure), np.float32), adc_ratio=0.75, flair_ratio=1.2)
    pick = mean_subject.head.inside[pure]
    healthy = render_head(mean_subject, [], contrast).reshape(3, -1)[:, pick]
    sick = render_head(mean_subject, [acute], contrast).reshape(3, -1)[:, pick]
    b0, dwi, flair = (sick / healthy).mean(1)
    assert flair == pytest.approx(1.2, rel=1e-4)
    assert b0 == pytest.approx(1.2 ** (90 / 120), rel=1e-4)
    assert np.log(b0 / dwi) == pytest.approx(-0.25 * (SUBSTANCES["grey"].adc + SUBSTANCES["white"].adc) / 2, rel=1e-3)


def test_infarcts_differ_in_adc_as_patients_do():
    """A normal law cut off at 2 SD has 0.880 of its SD left; the ends are 0.575 and 0.935."""
    rng = np.random.default_rng(0)
    ratios = np.array([cohort_phantom.draw_adc_ratio(rng) for _ in range(20000)])
    assert ratios.mean() == pytest.approx(0.755, abs=0.002)
    assert ratios.std() == pytest.approx(0.880 * 0.09, rel=0.02)
    assert 0.575 <= ratios.min() < 0.58 and 0.93 < ratios.max() <= 0.935


def test_contrasts_are_those_of_a_textbook():
    grey, white, csf, fat, vitreous = signals(Contrast(), ["grey", "white", "csf", "fat", "vitreous"]).T
    assert csf[0] > 2.5 * grey[0] and 1.2 < grey[0] / white[0] < 1.6  # b0
    assert csf[1] < 0.5 * white[1] and vitreous[1] < white[1] and fat[1] < 0.6 * white[1]  # DWI
    assert 1.1 < grey[1] / white[1] < 1.5
    assert csf[2] < 0.15 * white[2] and 1.0 < grey[2] / white[2] < 1.3 and fat[2] > 1.3 * grey[2]  # FLAIR


def test_truth_mask_is_where_the_dwi_is(cohort):
    for row in rows_of(cohort):
        scans = fields_of(cohort, row["patient"])
        brain = scans["brain"].data > 0
        millilitres = brain.sum() * abs(np.linalg.det(scans["brain"].affine[:3, :3])) / 1000
        assert 1100 < millilitres < 1900
        level = np.median(scans["dwi"].data[brain])
        outside = ~ndimage.binary_dilation(brain, iterations=2)
        assert np.median(scans["dwi"].data[outside]) < 0.1 * level
        assert (scans["dwi"].data[outside] > 0.6 * level).mean() < 0.003  # cord and a few voxels at the skull base
        assert scans["brain"].data[:, :, [-1]].sum() == 0  # the field of view holds the crown


def test_mean_head_has_its_parts_in_their_places(mean_subject):
    head = mean_subject.head
    litres = {
        name: mean_subject.matter[i][mean_subject.brain > 0.5].sum() * 3.90625e-6 for i, name in enumerate(MATTER)
    }
    assert 0.45 < litres["grey"] < 1.0 and 0.4 < litres["white"] < 0.9 and 0.15 < litres["csf"] < 0.5
    ventricles = (head.ventricle < 0).sum() * 3.90625e-3
    assert 15 < ventricles < 45  # ml, healthy adults
    assert np.allclose(mean_subject.matter.sum(0), 1, atol=1e-5)
    assert mean_subject.matter.min() >= 0
    symmetric = head.label
    assert np.array_equal(symmetric, symmetric[::-1])


def test_age_widens_ventricles_and_sulci():
    rng = np.random.default_rng(0)
    young = [draw_variation(rng, 30) for _ in range(50)]
    old = [draw_variation(rng, 85) for _ in range(50)]
    for name in ("ventricle_mm", "sulcus_mm", "atrophy_mm", "gliosis"):
        assert np.mean([getattr(v, name) for v in old]) > np.mean([getattr(v, name) for v in young])
    wide, narrow = make_subject(Variation(ventricle_mm=2)), make_subject(Variation(ventricle_mm=-0.5))
    assert wide.matter[0].sum() > narrow.matter[0].sum() + 2000


def test_write_atlas_covers_mni_and_matches_the_real_one(tmp_path):
    cohort_phantom.write_atlas(tmp_path / "atlas.nii.gz")
    ours = nibabel.load(tmp_path / "atlas.nii.gz")
    assert ours.shape == (91, 109, 91)
    assert np.allclose(ours.affine, [[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    brain = ours.get_fdata() > 0
    assert brain.sum() * 8e-6 == pytest.approx(1.85, abs=0.15)
    if not (REAL / "atlas_t2w_2mm.nii.gz").is_file():
        pytest.skip("no real scans here")
    theirs = nibabel.load(REAL / "atlas_t2w_2mm.nii.gz").get_fdata() > 30
    assert 2 * (brain & theirs).sum() / (brain.sum() + theirs.sum()) > 0.95


def test_infarcts_have_the_volume_asked_for_and_stay_in_their_territory(mean_subject):
    x, y, z = mean_subject.head.place
    for artery, row in infarct.ARTERIES.items():
        grown = infarct.grow_infarct(mean_subject, np.random.default_rng(3), "left", artery, 8.0)
        assert grown.ml == pytest.approx(8.0, rel=0.01), artery
        assert grown.severity.mean() == pytest.approx(1, abs=1e-3)
        assert (x[grown.voxels] < -infarct.MIDLINE_MM).all(), artery
        huge = infarct.grow_infarct(mean_subject, np.random.default_rng(3), "right", artery, 1000.0)
        assert huge.ml <= row.largest_ml + 0.01, artery
    cerebellar = infarct.grow_infarct(mean_subject, np.random.default_rng(1), "left", "pica", 5.0)
    assert z[cerebellar.voxels].max() < 0 and y[cerebellar.voxels].max() < -30


@pytest.mark.slow
def test_hard_patients_are_hard(tmp_path):
    """Neck in view, skull removed, unknown time and side, strong noise: each by its own switch."""
    hard = replace(HARD, stripped=1.0, unknown_onset=1.0, unknown_side=1.0, old_infarct=1.0)
    row = cohort_phantom.make_stroke_patient(tmp_path, "h", np.random.default_rng(5), hard)
    assert row["onset_to_mri_min"] == "" and row["stroke_side"] == ""
    dwi = nifti.load(tmp_path / row["dwi"])
    brain = nifti.load(tmp_path / "truth/h_brain.nii.gz").data > 0
    assert (dwi.data[~brain] == 0).all() and (dwi.data[brain] > 0).mean() > 0.99
    truth = read_json(tmp_path / "truth/h.json")
    assert truth["stroke_side"] in ("left", "right", "both") and 20 <= truth["onset_to_mri_min"] <= 4320


def test_midline_shift_moves_the_midline():
    moved = make_subject(Variation(shift_mm=8.0), np.random.default_rng(0))
    from tss.phantom.scanner import to_mean_head

    x = to_mean_head(moved, np.array([[8.0], [-5.0], [10.0]]))[0]
    assert abs(float(x[0])) < 1.5  # what lies 8 mm to the right is the mean head's midline


def test_bias_has_the_strength_asked_for_and_noise_field_unit_size():
    field = bias_field(np.random.default_rng(0), (128, 128, 24), 0.3)
    assert np.percentile(field, 98) == pytest.approx(1.3, abs=0.03)
    assert np.percentile(field, 2) == pytest.approx(1 / 1.3, abs=0.03)
    assert np.abs(np.diff(np.log(field), axis=0)).max() < 0.02  # smooth
    assert noise_field(np.random.default_rng(0), (40, 50, 30), 20.0, True).std() == pytest.approx(1, abs=1e-3)


def test_pose_is_rigid_and_within_its_limits():
    for seed in range(20):
        pose = make_pose(np.random.default_rng(seed), 8.0, 10.0)
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3)) and np.linalg.det(pose[:3, :3]) > 0
        assert np.abs(pose[:3, 3]).max() <= 10
        turn = np.degrees(np.arccos((np.trace(pose[:3, :3]) - 1) / 2))
        assert turn <= 8 * np.sqrt(2.5)


def test_global_random_state_is_left_alone(tmp_path):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    cohort_phantom.make_stroke_patient(tmp_path, "p", np.random.default_rng(1))
    assert np.array_equal(before, np.random.get_state()[1])


def test_times_and_volumes_of_many_persons_follow_their_laws():
    persons = [cohort_phantom._person(np.random.default_rng([9, i]), cohort_phantom.ORDINARY) for i in range(4000)]
    assert np.median([p["minutes"] for p in persons]) == pytest.approx(222, rel=0.1)
    assert np.percentile([p["age"] for p in persons], [25, 50, 75]) == pytest.approx([55, 70, 80], abs=2)
    assert np.percentile([p["nihss"] for p in persons], [25, 50, 75]) == pytest.approx([4, 8, 15], abs=1)
    assert np.median([p["ml"] for p in persons]) == pytest.approx(17, rel=0.1)
    assert np.mean([p["side"] == "both" for p in persons]) == pytest.approx(0.03, abs=0.01)
    minutes, latent = np.array([(p["minutes"], p["latent"]) for p in persons]).T
    assert np.std(latent - onset_law.mean_latent(minutes)) == pytest.approx(onset_law.SPREAD, rel=0.05)
