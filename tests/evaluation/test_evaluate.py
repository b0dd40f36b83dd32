"""run_eval.py on a prepared cohort: what it leaves, what it counts, what it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from untrained import save_checkpoint

import run_eval
from tss.data import nifti
from tss.data.cohort import write_cohort
from tss.data.prepared import read_prepared
from tss.display import roc_plots
from tss.evaluation import subgroups
from tss.phantom.ideal_observer import ceilings
from tss.training.checkpoint import load_model


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory):
    """DATA with one patient of every kind in its test split, registered scans, and checkpoints of phases 1 and 4."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(tiny_data, folder / "data")
    patients = {patient.id: patient for patient in read_prepared(folder / "data")}
    patients["p29"].row |= {"status": "failed", "reason": "b0.nii.gz is cut off"}
    patients["p30"].row["stroke_side"] = ""
    patients["p31"].row["onset_to_mri_min"] = ""
    write_cohort(folder / "data" / "cohort.csv", list(patients.values()))
    scan = np.zeros((32, 32, 5), np.float32)  # a slice more than the grid: no scan has fewer than 5
    scan[4:28, 4:28] = 1
    for patient in ("p28", "p30"):
        for channel in ("dwi", "flair"):
            nifti.save(folder / "data" / "registered" / f"{patient}_{channel}.nii.gz", scan, np.diag([5, 6, 18, 1.0]))
    for phase in (1, 4):
        save_checkpoint(folder / "runs" / f"phase{phase}" / "best.pt", phase, folder / "data", 0.5, seed=phase)
    return folder


def run(made, out, *more, phases=(4,)):
    checkpoints = [str(made / "runs" / f"phase{phase}" / "best.pt") for phase in phases]
    return run_eval.main([*checkpoints, "--data", str(made / "data"), "--out", str(out), "--device", "cpu", *more])


def table(out):
    with open(out / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_one_checkpoint_leaves_what_the_design_says(made, tmp_path, capsys):
    assert run(made, tmp_path / "eval", "--gradcam", "2") == 0
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "eval/gradcam/p28.png",
        "eval/gradcam/p30.png",
        "eval/metrics.json",
        "eval/predictions.csv",
        "eval/roc.png",
        "eval/without_prediction.csv",
    ]
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["positive_class"] == "TSS < 4.5 h (onset_to_mri_min < 270)"
    assert 0 < metrics["brier"] < 1 and sum(point["n"] for point in metrics["calibration"]) == 6
    assert "readers" not in metrics  # nobody has read these patients
    cells = {(cell["group"], cell["cell"]): cell for cell in metrics["subgroups"]}
    assert [cells["onset to MRI", band]["n"] for band in ("0-3 h", "3-6 h", "6 h on")] == [1, 2, 3]
    assert (cells["side", "right"]["n"], cells["side", "unknown"]["n"]) == (1, 1)
    assert (metrics["n"], metrics["n_positive"]) == (6, 2)  # of p28 to p35, without p29 and p31
    assert metrics["tp"] + metrics["fn"] == 2 and metrics["fp"] + metrics["tn"] == 4
    for name in ("auc", "sensitivity", "specificity", "accuracy"):
        low, high = metrics[f"{name}_ci"]
        assert 0 <= low <= metrics[name] <= high <= 1
    assert metrics["coverage"] == {
        "patients": 8,
        "scored": 6,
        "no_probability": {"p29": "b0.nii.gz is cut off"},
        "label_unknown": ["p31"],
        "side_chosen_by_phase_1": ["p30"],
    }
    said = capsys.readouterr().out
    assert "6 of 8 patients scored; 1 predicted without a known label; p29 has no probability" in said
    assert "onset to MRI  0-3 h" in said and subgroups.WHY_WITHHELD in said
    assert f"side unknown of 1 patients; chosen by {made.resolve()}/runs/phase1/best.pt: p30 " in said


def test_probabilities_are_the_networks(made, tmp_path):
    assert run(made, tmp_path, "--gradcam", "0") == 0
    lines = {line["patient"]: line for line in table(tmp_path)}
    network, _ = load_model(made / "runs" / "phase4" / "best.pt")
    with torch.no_grad():
        right_sided, both_sided = (
            torch.sigmoid(
                network(torch.from_numpy(np.load(made / "data" / "hemispheres" / f"{patient}.npy")).float()).double()
            )
            for patient in ("p28", "p34")
        )
    assert lines["p28"]["side"] == "right"
    assert float(lines["p28"]["probability"]) == pytest.approx(float(right_sided[1]), abs=1e-6)
    assert float(lines["p34"]["probability"]) == pytest.approx(float(both_sided.max()), abs=1e-6)  # both sides
    assert (lines["p29"]["label"], lines["p29"]["probability"]) == ("0", "")
    assert lines["p31"]["label"] == "" and lines["p31"]["probability"]


@pytest.mark.slow
def test_several_checkpoints_have_a_folder_each_and_one_table(made, tmp_path, capsys):
    assert run(made, tmp_path, "--gradcam", "1", phases=(1, 4)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"phase1", "phase4"}
    metrics = json.loads((tmp_path / "phase1" / "metrics.json").read_text())
    assert (metrics["unit"], metrics["n"]) == ("hemisphere", 12)  # without the failed and the one of unknown side
    assert len(table(tmp_path / "phase1")) == 16
    assert [line["label"] for line in table(tmp_path / "phase1") if line["patient"] == "p34"] == ["1", "1"]
    said = capsys.readouterr().out
    assert "positive class" in said and "hemispheres together" in said and "phantom" not in said


@pytest.mark.slow
def test_the_threshold_is_the_checkpoints(made, tmp_path, capsys):
    for threshold, called in ((0.0, 6), (1.0, 0)):
        path = save_checkpoint(tmp_path / f"{threshold}.pt", 4, made / "data", threshold)
        one, four = (str(made / "runs" / f"phase{phase}" / "best.pt") for phase in (1, 4))
        out = tmp_path / str(threshold)
        assert run_eval.main([path, one, four, "--data", str(made / "data"), "--out", str(out), "--gradcam", "0"]) == 0
        metrics = json.loads((next(out.glob(f"*{threshold}*")) / "metrics.json").read_text())
        assert metrics["threshold"] == threshold and metrics["tp"] + metrics["fp"] == called
        assert 0 < metrics["youden_on_this_split_optimistic"]["threshold"] < 1
        (compared,) = json.loads((out / "comparisons.json").read_text())["tss<4.5h"]
        other = json.loads((out / "phase4" / "metrics.json").read_text())
        assert (compared["n"], compared["left_out"]) == (6, 0) and metrics["cases_sha256"] == other["cases_sha256"]
        assert compared["difference"] == pytest.approx(other["auc"] - metrics["auc"], abs=1e-12)
        assert "p (DeLong)" in capsys.readouterr().out


@pytest.mark.slow
def test_results_are_not_overwritten_and_pictures_of_before_do_not_stay(made, tmp_path, capsys):
    assert run(made, tmp_path, "--gradcam", "2") == 0
    assert run(made, tmp_path, "--gradcam", "1") == 2
    assert (
        "already holds predictions.csv, without_prediction.csv, metrics.json, roc.png, gradcam"
        in capsys.readouterr().err
    )
    assert run(made, tmp_path, "--gradcam", "1", "--overwrite", "--device", "cuda:99") == 2
    assert "--device cuda:99 cannot be used here" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").is_file()  # refused before anything is taken away
    assert run(made, tmp_path, "--gradcam", "1", "--overwrite") == 0
    assert [path.name for path in (tmp_path / "gradcam").iterdir()] == ["p28.png"]


def test_a_split_that_was_trained_on_is_called_optimistic(made, tmp_path, capsys):
    assert run(made, tmp_path, "--gradcam", "0", "--split", "val") == 0
    assert "The val split was used to make these models: its scores are optimistic." in capsys.readouterr().out


def test_phantoms_are_called_phantoms(made, tmp_path, capsys, monkeypatch):
    titles = []
    monkeypatch.setattr(roc_plots, "draw_roc", lambda *words: titles.append(words[-1]))
    shutil.copytree(made / "data", tmp_path / "data")
    patients = read_prepared(tmp_path / "data")
    for patient in patients:
        patient.row |= {
            "phantom": "0.115",
            "field_strength": "3",
            "reader_1": "1",
            "reader_2": "0" if patient.id == "p28" else "",
            "reader_3": "" if patient.split == "test" else "1",
        }
    write_cohort(tmp_path / "data" / "cohort.csv", patients)
    path = save_checkpoint(tmp_path / "best.pt", 4, tmp_path / "data", threshold=0.0)
    words = [path, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--gradcam", "0"]
    assert run_eval.main(words) == 0
    said = capsys.readouterr().out
    assert "phantom scores are not clinical results" in said
    ceiling = ceilings(0.115)["tss<4.5h"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["ceiling"] == ceiling
    low, high = metrics["ceiling_ci"]  # of 5 patients: wide
    assert low < ceiling < high == 1.0
    assert titles[0].split("\n")[1] == (
        f"phantoms, not clinical; best possible AUC on average {ceiling:.3f}, with 5 patients {low:.2f}-1.00"
    )
    # The one reader calls all eight patients early but p31, whose onset is unknown; two of the seven are.
    assert [metrics["readers"]["each"]["reader_1"][key] for key in ("tp", "fp", "tn", "fn")] == [2, 5, 0, 0]
    beside = metrics["readers"]["model"]["reader_1"]
    assert beside["n"] == metrics["n"] == 5  # p29 and p30 have no probability here
    # At its threshold of 0 the model calls everybody early, as the reader does.
    assert (beside["mcnemar"]["only_reader_right"], beside["mcnemar"]["only_model_right"]) == (0, 0)
    cell = next(cell for cell in metrics["subgroups"] if cell["group"] == "field strength")
    assert cell["n"] == 5 and cell["withheld"] == ["auc", "sensitivity", "specificity", "accuracy"]  # 1 of 5 positive
    assert metrics["readers"]["each"]["reader_2"]["without_call"] == 6
    assert list(metrics["readers"]["each"]) == ["reader_1", "reader_2", "majority"]  # 3 has read other patients
    assert "simulated" in said and " beside reader_1  " in said and "reader_2: 6 of 7 patients not read." in said
    assert f"{ceiling:.3f}" in said


def test_whom_quality_control_rejects_is_not_scored_and_counted_with_the_reason(made, tmp_path, capsys):
    shutil.copytree(made / "data", tmp_path / "data")
    patients = {patient.id: patient for patient in read_prepared(tmp_path / "data")}
    patients["p28"].row |= {"verdict": "reject", "verdict_remark": "FLAIR of another head"}
    patients["p32"].row |= {"verdict": "unsure"}
    write_cohort(tmp_path / "data" / "cohort.csv", list(patients.values()))
    words = [str(made / "runs" / "phase4" / "best.pt"), "--data", str(tmp_path / "data"), "--gradcam", "0"]
    assert run_eval.main([*words, "--out", str(tmp_path / "eval"), "--device", "cpu"]) == 0  # the same split
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["n"] == 5 and (metrics["coverage"]["patients"], metrics["coverage"]["scored"]) == (8, 5)
    assert metrics["coverage"]["no_probability"] == {
        "p28": "rejected at quality control: FLAIR of another head",
        "p29": "b0.nii.gz is cut off",
    }
    lines = {line["patient"]: line for line in table(tmp_path / "eval")}
    assert (lines["p28"]["label"], lines["p28"]["probability"]) == ("0", "") and lines["p32"]["probability"]
    assert "p28 has no probability (rejected at quality control: FLAIR of another head)" in capsys.readouterr().out


def test_one_class_only_is_told_plainly(made, tmp_path, capsys):
    shutil.copytree(made / "data", tmp_path / "data")
    patients = read_prepared(tmp_path / "data")
    for patient in patients:
        patient.row |= {"onset_to_mri_min": "60", "stroke_side": "left"} if patient.split == "test" else {}
    write_cohort(tmp_path / "data" / "cohort.csv", patients)
    path = save_checkpoint(tmp_path / "best.pt", 4, tmp_path / "data")
    words = [path, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--gradcam", "0"]
    assert run_eval.main(words) == 0
    assert "no roc.png: no AUC: it needs both classes, and 7 of 7 are positive" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["auc"] is None and metrics["specificity"] is None and metrics["sensitivity"] is not None
    assert not (tmp_path / "out" / "roc.png").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": [64, 64, 4]}, "was trained on the grid [64, 64, 4], "),
        ({"cohort": "f" * 64}, "may have learned from these patients: not all their scans' hashes are known"),
    ],
)
def test_data_that_does_not_belong_to_the_checkpoint_is_refused(made, tmp_path, capsys, changed, message):
    path = save_checkpoint(tmp_path / "best.pt", 4, made / "data", **changed)
    assert run_eval.main([path, "--data", str(made / "data"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_hemispheres_of_other_settings_than_those_of_the_training_are_noted(made, tmp_path, capsys):
    here = json.loads((made / "data" / "settings.json").read_text())
    path = save_checkpoint(
        tmp_path / "best.pt",
        4,
        made / "data",
        settings={"preprocessing": here | {"tools": "FSL 6.0.4", "atlas": "typed/otherwise.nii.gz"}},
    )
    assert run_eval.main([path, "--data", str(made / "data"), "--out", str(tmp_path / "out"), "--gradcam", "0"]) == 0
    note = (
        f"preprocessed with different settings from those in {made / 'data'}: tools FSL 6.0.4, there {here['tools']}."
    )
    assert note in capsys.readouterr().out
    assert any(note in line for line in json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"])


def test_what_is_missing_is_named_before_any_work(made, tmp_path, capsys):
    assert run(made, tmp_path / "out", "--gradcam", "3") == 2
    assert "p31_dwi.nii.gz is missing, and the Grad-CAM is drawn on it" in capsys.readouterr().err
    assert run_eval.main([str(tmp_path / "no.pt"), "--data", str(made / "data"), "--out", str(tmp_path / "out")]) == 2
    assert "no.pt cannot be read" in capsys.readouterr().err
    assert run_eval.main([str(made / "runs/phase4/best.pt"), "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "cohort.csv does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(made, tmp_path / "file" / "eval", "--gradcam", "0") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_report_has_both_recipes_apart(scanned, tmp_path):
    paths = [
        save_checkpoint(
            tmp_path / f"runs/{kind}-{recipe}/phase4/best.pt", 4, scanned / "data", model=kind, recipe=recipe
        )
        for kind in ("2d", "3d")
        for recipe in ("paper", "extended")
    ]
    out = tmp_path / "eval"
    words = ["--data", str(scanned / "data"), "--out", str(out), "--device", "cpu", "--gradcam", "0"]
    assert run_eval.main([*paths, *words, "--report"]) == 0
    assert json.loads((out / "3d-extended-phase4" / "metrics.json").read_text())["recipe"] == "extended"
    report = (out / "report.html").read_text()
    assert all(words in report for words in ("2D, extended", "3D, extended", "3d-paper-phase4"))
    with open(out / "table2.csv", newline="") as file:
        rows = [(row["model"], row["recipe"]) for row in csv.DictReader(file) if row["kind"] == "network"]
    assert rows == [("2d", "paper"), ("2d", "extended"), ("3d", "paper"), ("3d", "extended")]
