"""Trainings of one fold: who is validated on, what the checkpoint says, what is refused."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

import run_eval
import run_train
from tss.data.files import read_json
from tss.data.prepared import read_prepared
from tss.data.shards import Shard
from tss.data.splits import split_hash
from tss.errors import InputError
from tss.training.checkpoint import load_checkpoint
from tss.training.run_setup import Options, set_up_run


@pytest.fixture
def line(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for file in tiny_data.iterdir():
        (tmp_path / "data" / file.name).symlink_to(file)
    return ["--data", "data", "--width", "4", "--epochs", "1", "--lr", "3e-3", "--device", "cpu"]


def test_each_patient_is_validated_on_in_one_fold_and_no_test_patient_in_any(line, no_drawing, capsys):
    for part in "12":
        assert run_train.main([*line, "--phase", "1", "--fold", f"{part}/2"]) == 0
    said = capsys.readouterr().out
    assert "fold 1 of 2: train 28 hemispheres" in said and "val 28 hemispheres" in said
    with open("data/folds_of_2.csv", newline="") as file:
        folds = {row["patient"]: row["fold"] for row in csv.DictReader(file)}
    patients = read_prepared("data")
    assert folds.keys() == {patient.id for patient in patients if patient.split != "test"}
    for part in "12":
        checkpoint = load_checkpoint(f"runs/2d/fold{part}/phase1/best.pt")
        assert checkpoint["settings"]["fold"] == f"{part}/2" and checkpoint["cohort"] == split_hash(patients)
        assert set(checkpoint["validation"]["patients"]) == {name for name, fold in folds.items() if fold == part}
        assert checkpoint["patients_seen"].keys() == folds.keys()
    both = [f"runs/2d/fold{part}/phase1/best.pt" for part in "12"]
    words = ["--data", "data", "--device", "cpu", "--gradcam", "0", "--out", "eval"]
    assert run_eval.main([*both, "--ensemble", *words]) == 0
    metrics = read_json("eval/metrics.json")
    assert metrics["threshold_from"] == "out-of-fold predictions" and metrics["n"] == 16


def test_a_parent_of_another_fold_is_refused(line, no_drawing, capsys):
    assert run_train.main([*line, "--phase", "1", "--fold", "1/2"]) == 0
    parent = "runs/2d/fold1/phase1/best.pt"
    for fold, words in ((["--fold", "2/2"], "this run has --fold 2/2"), ([], "this run has no --fold")):
        assert run_train.main([*line, "--phase", "2", "--init", parent, *fold]) == 2
        said = capsys.readouterr().err
        assert "was trained with --fold 1/2" in said and words in said and "Give the same --fold" in said
    assert run_train.main([*line, "--phase", "2", "--init", parent, "--fold", "1/2"]) == 0
    assert load_checkpoint("runs/2d/fold1/phase2/best.pt")["settings"]["fold"] == "1/2"


def test_folds_of_another_drawing_are_refused(line, no_drawing, capsys):
    """The same patients with the same split, preprocessed again: one more of them has failed, so folds are others."""
    for part in "12":
        if part == "2":
            table, folds = Path("data/cohort.csv"), Path("data/folds_of_2.csv")
            changed, drawn = table.read_text().replace(",train,ok,", ",train,failed,", 1), folds.read_text()
            table.unlink()
            table.write_text(changed)
            folds.unlink()
        assert run_train.main([*line, "--phase", "1", "--fold", f"{part}/2"]) == 0
    assert folds.read_text() != drawn
    capsys.readouterr()
    parents = [f"runs/2d/fold{part}/phase1/best.pt" for part in "12"]
    assert run_train.main([*line, "--phase", "2", "--init", parents[0], "--fold", "1/2"]) == 2
    assert f"{parents[0]} was trained on other folds than --data has now" in capsys.readouterr().err
    assert run_eval.main([*parents, "--ensemble", "--data", "data", "--out", "eval", "--device", "cpu"]) == 2
    assert "needs folds of one drawing" in capsys.readouterr().err


def test_a_fold_is_resumed_as_itself_only(line, no_drawing, capsys):
    assert run_train.main([*line, "--phase", "1", "--fold", "1/2"]) == 0
    before = Path("runs/2d/fold1/phase1/best.pt").read_bytes()
    assert run_train.main([*line, "--phase", "1", "--fold", "1/2", "--resume"]) == 0
    assert Path("runs/2d/fold1/phase1/best.pt").read_bytes() == before
    out = ["--out", "runs/2d/fold1"]
    assert run_train.main([*line, "--phase", "1", "--fold", "2/2", "--resume", *out]) == 2
    assert "fold 1/2 then, 2/2 now" in capsys.readouterr().err


def test_folds_that_cannot_be_are_refused_before_training(line, tmp_path, capsys):
    assert run_train.main([*line, "--phase", "all", "--fold", "1/1"]) == 2
    assert "1 folds of 28 training and validation patients: give 2 to 28" in capsys.readouterr().err
    assert run_train.main([*line, "--phase", "all", "--fold", "1/28"]) == 2  # one patient has one class
    assert "both classes are needed there" in capsys.readouterr().err and not Path("runs").exists()
    with pytest.raises(SystemExit):
        run_train.main([*line, "--phase", "1", "--fold", "3/2"])


def test_the_recipe_has_a_folder_of_its_own(line):
    options = Options(data=Path("data"), device="cpu", recipe="extended", fold=Shard(2, 3))
    assert set_up_run(options, 1, None).folder == Path("runs/2d-extended/fold2/phase1")
    with pytest.raises(InputError, match="runs/2d/fold2/phase1/best.pt"):
        set_up_run(replace(options, recipe=None), 2, None)
