"""One new patient through run_eval.py --patient: the side and its doubts, the report, the map's way back."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn
from untrained import save_checkpoint

import run_eval
from tss.data import files, nifti
from tss.data.files import sha256
from tss.data.nifti import Volume
from tss.display import slice_plots
from tss.evaluation import gradcam_page, new_patient
from tss.evaluation.inference import Model, Prediction, in_words
from tss.models.resnet2d import SliceClassifier
from tss.preprocessing.atlas import load_atlas
from tss.preprocessing.pipeline import Prepared, prepare
from tss.preprocessing.scans import Scans
from tss.preprocessing.tools import BUILTIN

GRID = [48, 48, 8]
CPU = torch.device("cpu")


class MeanOfDwi(nn.Module):
    """logit = 8 * (mean of the DWI channel - 0.5)."""

    def forward(self, x):
        return 8 * (x[:, 0].mean(dim=(1, 2, 3)) - 0.5)


def picker(threshold=0.5):
    return Model(Path("phase1/best.pt"), "phase1", MeanOfDwi(), {"task": "stroke", "threshold": threshold})


def halves(left, right):
    return torch.stack([torch.full((3, 2, 4, 4), value) for value in (left, right)])


@pytest.mark.parametrize(
    ("given", "left", "right", "side", "doubt"),
    [
        (None, 0.7, 0.2, "left", None),
        (None, 0.2, 0.7, "right", None),
        (None, 0.2, 0.3, "right", "no stroke in either hemisphere"),
        (None, 0.8, 0.7, "left", "stroke in both hemispheres"),
        ("right", 0.7, 0.2, "right", "finds the left hemisphere likelier"),
        ("left", 0.7, 0.2, "left", None),
    ],
)
def test_the_side_by_phase_1_and_what_makes_it_doubtful(given, left, right, side, doubt):
    chosen, who, doubts = new_patient.choose_side(given, picker(), halves(left, right), CPU)
    assert chosen == side and who.startswith("--side" if given else "phase 1 (left ")
    assert (doubt is None and not doubts) or doubt in doubts[0]


def test_without_phase_1_the_brighter_side_is_taken_and_said_loudly():
    hemispheres = halves(0.5, 0.4)
    hemispheres[1, 0, 0, 0, 0] = 0.9  # a small bright lesion outweighs a slightly brighter hemisphere
    side, who, doubts = new_patient.choose_side(None, None, hemispheres, CPU)
    assert (side, who) == ("right", "DWI asymmetry")
    assert doubts[0].startswith("SIDE FROM DWI ASYMMETRY, not from phase 1: give phase 1's checkpoint too, or --side")


def test_the_map_comes_back_to_the_place_it_is_of(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        slice_plots,
        "draw_gradcam",
        lambda path, scans, maps, slices, captions, *more, **named: seen.update(
            scans=scans, heat=maps["map"], slices=slices, captions=captions
        ),
    )
    heat = np.zeros((20, 20, 10), np.float32)
    heat[12, 6, 4] = 1.0
    found = gradcam_page.Explanation(heat, [4], np.arange(10) / 10, worth=1.0)
    monkeypatch.setattr(gradcam_page, "explain", lambda *_: found)
    # The scan has voxels of half the size in z, and b0 -> atlas moves the head by (10, -5, 6) mm.
    grid, own = np.diag([2.0, 2, 4, 1]), np.diag([2.0, 2, 2, 1])
    b0_to_atlas = np.eye(4)
    b0_to_atlas[:3, 3] = (10, -4, 6)
    flair_to_b0 = np.eye(4)
    flair_to_b0[0, 3] = 4
    dwi = Volume(np.zeros((20, 20, 20), np.float32), own)
    flair = Volume(np.zeros((20, 20, 20), np.float32), own)
    flair.data[5, 8, 5] = 1
    prepared = Prepared(None, {}, heat > 0, None, grid, b0_to_atlas, flair_to_b0, np.eye(4), {}, {}, {}, [], {}, {})
    network = SliceClassifier(4, 10, attention=False)
    model = Model(Path("x"), "phase4", network, {"model": "2d", "task": "tss<4.5h", "threshold": 0.5})
    new_patient.draw_on_scan(
        tmp_path / "x.png", model, Prediction("patient", "right", -1, 0.7), None, prepared, Scans(dwi, dwi, flair)
    )
    # Atlas voxel (12, 6, 4) is (24, 12, 16) mm, so (14, 16, 10) mm in the scan: voxel (7, 8, 5).
    assert np.unravel_index(seen["heat"].argmax(), seen["heat"].shape) == (7, 8, 5)
    assert (seen["slices"], seen["captions"]) == ([5], ["slice 6 (atlas 5): +0.40"])
    assert np.unravel_index(seen["scans"]["FLAIR"].argmax(), (20, 20, 20)) == (7, 8, 5)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A made-up head with a bright spot on the right, an atlas, and checkpoints of phases 1 and 4 that fit them."""
    folder = tmp_path_factory.mktemp("patient")
    rng = np.random.default_rng(0)
    x, y, z = np.indices((48, 56, 40)) * 4.0 - np.array([94, 110, 78])[:, None, None, None]
    brain = (x / 66) ** 2 + (y / 84) ** 2 + (z / 62) ** 2 < 1
    tissue = 100 + 30 * np.sin(x / 13) * np.cos(y / 17) * np.cos(z / 11) + 10 * np.sign(y - x / 3)
    affine = np.array([[4.0, 0, 0, -94], [0, 4, 0, -110], [0, 0, 4, -78], [0, 0, 0, 1]])
    noisy = {name: np.where(brain, tissue + rng.normal(0, 3, brain.shape), 0) for name in ("dwi", "b0", "flair")}
    noisy["dwi"][(x - 35) ** 2 + y**2 + (z - 10) ** 2 < 14**2] *= 2
    for name, data in noisy.items():
        nifti.save(folder / f"{name}.nii.gz", data.astype(np.float32), affine)
    nifti.save(folder / "atlas.nii.gz", np.where(brain, tissue, 0).astype(np.float32), affine)
    atlas = load_atlas(folder / "atlas.nii.gz", tuple(GRID))
    scans = Scans(*(nifti.load(folder / f"{name}.nii.gz") for name in ("dwi", "b0", "flair")))
    prepared = prepare(scans, atlas, BUILTIN)
    settings = {
        "preprocessing": {
            "grid": GRID,
            "atlas_sha256": sha256(folder / "atlas.nii.gz"),
            "tools": BUILTIN.describe(),
            "reference": {"patient": "p1", "landmarks": prepared.landmarks},
        }
    }
    for phase in (1, 4):
        save_checkpoint(folder / f"phase{phase}" / "best.pt", phase, grid=GRID, settings=settings)
    save_checkpoint(folder / "alone" / "phase4" / "best.pt", 4, grid=GRID, settings=settings)
    return folder, prepared


def words(folder, out, checkpoint="phase4/best.pt", *more):
    return [
        str(folder / checkpoint),
        "--patient",
        *(str(folder / f"{name}.nii.gz") for name in ("dwi", "b0", "flair")),
        "--atlas",
        str(folder / "atlas.nii.gz"),
        "--tools",
        "builtin",
        "--device",
        "cpu",
        "--out",
        str(out),
        *more,
    ]


def test_a_new_patient_from_scans_to_report_and_picture(patient, tmp_path, capsys):
    folder, prepared = patient
    assert run_eval.main(words(folder, tmp_path)) == 0
    report = json.loads((tmp_path / "result.json").read_text())
    (line,) = report["results"]
    network = new_patient.open_models([str(folder / "phase4" / "best.pt")])[0].network
    with torch.no_grad():
        chances = torch.sigmoid(network(torch.from_numpy(prepared.hemispheres.astype(np.float16)).float()).double())
    assert line["probability"] == pytest.approx(float(chances[int(report["side"] == "right")]), abs=1e-6)
    assert line["verdict"] == ("positive" if line["probability"] >= 0.5 else "negative")
    assert not any("atlas of the training" in flag or "prepared with" in flag for flag in report["flags"])
    assert (tmp_path / "gradcam" / "patient.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert f"probability {in_words(line['probability'], 0.5)}" in said
    assert "from phase 1 (left " in said and "not a medical device" in said
    assert run_eval.main(words(folder, tmp_path)) == 2
    assert "result.json exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_of_different_settings_are_refused_and_those_whose_atlas_has_another_path_are_not(
    patient, tmp_path, capsys
):
    folder, _ = patient
    settings = new_patient.open_models([str(folder / "phase4" / "best.pt")])[0].checkpoint["settings"]["preprocessing"]
    named_alike = {
        "patient": "p1",
        "landmarks": {
            name: [2 * value for value in values] for name, values in settings["reference"]["landmarks"].items()
        },
    }
    for name, value in (
        ("atlas", "/else/where.nii.gz"),
        ("tools", "FSL 6.0.4"),
        ("grid", [64, 48, 8]),
        ("reference", named_alike),
    ):
        phase1 = save_checkpoint(
            tmp_path / name / "phase1" / "best.pt", 1, grid=GRID, settings={"preprocessing": settings | {name: value}}
        )
        line = [phase1, *words(folder, tmp_path / name, "phase4/best.pt", "--gradcam", "0")]
        assert run_eval.main(line) == (0 if name == "atlas" else 2)
    said = capsys.readouterr().err
    assert f"different settings: tools FSL 6.0.4, there {BUILTIN.describe()}." in said
    assert "different settings: grid 64 x 48 x 8, there 48 x 48 x 8." in said
    assert "different settings: its medians dwi " in said


@pytest.mark.slow
def test_the_brighter_side_another_atlas_and_several_checkpoints(patient, tmp_path, capsys):
    folder, _ = patient
    atlas = nifti.load(folder / "atlas.nii.gz")
    nifti.save(tmp_path / "other.nii.gz", atlas.data * 2, atlas.affine)
    line = words(folder, tmp_path / "out", "alone/phase4/best.pt", "--gradcam", "0")
    line[line.index("--atlas") + 1] = str(tmp_path / "other.nii.gz")
    assert run_eval.main(line) == 0
    report = json.loads((tmp_path / "out" / "result.json").read_text())
    assert report["side"] == "right" and report["side_from"] == "DWI asymmetry"
    assert any("is not the atlas of the training patients" in flag for flag in report["flags"])
    assert "FLAG      SIDE FROM DWI ASYMMETRY" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


def test_an_ensemble_that_promises_may_be_unsure_of_a_new_patient(patient, tmp_path, capsys):
    folder, _ = patient
    line = words(folder, tmp_path, "phase4/best.pt", "--ensemble", "--promise", "0.9", "--side", "left")
    assert run_eval.main([str(folder / "alone" / "phase4" / "best.pt"), *line]) == 0
    (result,) = json.loads((tmp_path / "result.json").read_text())["results"]
    assert result["name"] == "ensemble-of-2" and result["verdict"] == "unsure"
    assert result["positive_above"] is None and (tmp_path / "gradcam" / "patient.png").is_file()
    said = capsys.readouterr().out
    assert "2 patients are too few to promise PPV 0.9" in said
    assert f"probability {result['probability']:.3f}: unsure" in said  # no cut, and the threshold decides nothing


@pytest.mark.slow
def test_no_picture_of_another_patient_stays(patient, tmp_path, known_affines, monkeypatch):
    monkeypatch.setattr(slice_plots, "draw_gradcam", lambda path, *_, **__: files.write_text(path, "picture"))
    folder, _ = patient
    own = tmp_path / "gradcam" / "patient_p01.png"  # of a cohort in the same folder, where a patient has this name
    own.parent.mkdir()
    own.write_text("kept")
    assert run_eval.main([str(folder / "phase1" / "best.pt"), *words(folder, tmp_path)]) == 0
    pictures = {"patient_phase1.png", "patient_phase4.png", own.name}
    assert {path.name for path in own.parent.iterdir()} == pictures
    assert run_eval.main(words(folder, tmp_path, "phase4/best.pt", "--overwrite")) == 0
    assert {path.name for path in own.parent.iterdir()} == {"patient.png", own.name}
    assert run_eval.main(words(folder, tmp_path, "phase4/best.pt", "--overwrite", "--gradcam", "0")) == 0
    assert {path.name for path in own.parent.iterdir()} == {own.name} and own.read_text() == "kept"


def test_a_4d_dwi_brings_its_b0_and_a_dash_stands_for_it(patient, tmp_path, known_affines, capsys):
    folder, _ = patient
    dwi, b0 = (nifti.load(folder / f"{name}.nii.gz") for name in ("dwi", "b0"))
    series = np.stack([b0.data, dwi.data * 1.5, dwi.data / 1.5], -1)
    nibabel.save(nibabel.Nifti1Image(series, dwi.affine), tmp_path / "series.nii.gz")
    (tmp_path / "series.bval").write_text("0 1000 1000")
    line = words(folder, tmp_path / "three", "phase4/best.pt", "--gradcam", "0")
    assert run_eval.main(line) == 0
    line[2:4], line[line.index("--out") + 1] = [str(tmp_path / "series.nii.gz"), "-"], str(tmp_path / "series")
    assert run_eval.main(line) == 0
    three, four = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("three", "series"))
    assert four["results"][0]["probability"] == pytest.approx(three["results"][0]["probability"], abs=1e-4)
    assert four["scans"]["second"] == "-" and four["measures"] == pytest.approx(three["measures"], abs=1e-3)
    with pytest.raises(SystemExit):
        run_eval.main([*line, "--adc"])
    assert "--adc says that the second scan is the ADC map, and - that there is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line, tmp: line.__setitem__(2, str(tmp / "no.nii.gz")), "no.nii.gz does not exist"),
        (lambda line, tmp: line.__setitem__(3, "-"), "dwi.nii.gz holds no b0 (b <= 50)"),
        (lambda line, tmp: line.__setitem__(3, line[line.index("--atlas") + 1]), "lie "),
        (lambda line, tmp: line.append("--adc"), "Give b0 instead"),
    ],
)
def test_scans_that_cannot_be_used_leave_a_message_and_nothing_else(patient, tmp_path, capsys, spoil, message):
    folder, _ = patient
    line = words(folder, tmp_path / "out")
    spoil(line, tmp_path)
    if message == "lie ":
        moved = nifti.load(folder / "b0.nii.gz")
        nifti.save(tmp_path / "moved.nii.gz", moved.data, moved.affine + np.eye(4, k=3) * 20)
        line[3] = str(tmp_path / "moved.nii.gz")
    assert run_eval.main(line) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_checkpoint_without_reference_intensities_is_refused(patient, tmp_path, capsys):
    folder, _ = patient
    line = words(folder, tmp_path / "out")
    line[0] = save_checkpoint(tmp_path / "best.pt", 4, grid=GRID)
    assert run_eval.main(line) == 2
    assert "does not hold the reference intensities" in capsys.readouterr().err
