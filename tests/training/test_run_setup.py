import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tss.data.files import sha256
from tss.data.prepared import read_prepared
from tss.data.splits import split_hash
from tss.data.tasks import samples
from tss.errors import InputError
from tss.training.checkpoint import write_checkpoint
from tss.training.dataset import load_split
from tss.training.phases import EXTENDED, PAPER, long_enough
from tss.training.run_setup import Options, announce, set_up_run


@pytest.fixture
def options(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Options(data=tiny_data, device="cpu")


@pytest.fixture
def phase_2(options, made_up):
    write_checkpoint("ckpt.pt", made_up(phase=2, cohort=split_hash(read_prepared(options.data))))
    return "ckpt.pt"


def test_model_width_and_grid_come_from_the_checkpoint(options, phase_2):
    run = set_up_run(options, 3, phase_2)
    assert (run.about["model"], run.about["width"], run.about["grid"]) == ("2d", 4, [32, 32, 4])
    assert run.folder == Path("runs/2d/phase3") and run.about["parent"] == sha256("ckpt.pt")
    assert not run.about["attention"] and run.about["task"] == "tss<4.5h"


def test_without_a_checkpoint_they_are_the_papers(options):
    run = set_up_run(options, 1, None)
    assert (run.about["model"], run.about["width"], run.about["parent"]) == ("2d", 64, "random")
    assert (run.phase.batch_size, run.phase.lr, run.phase.final_lr) == (16, 5e-4, 1e-2)


@pytest.mark.parametrize(("name", "value"), [
    ("batch_size", 3), ("lr", 0.1), ("final_lr", 0.2), ("epochs", 7), ("patience", 2),
])  # fmt: skip
def test_a_phases_values_can_be_changed(options, name, value):
    run = set_up_run(replace(options, values={name: value}), 1, None)
    assert getattr(run.phase, name) == value == run.about["settings"][name]


def test_extended_phase_1_takes_as_many_steps_with_few_patients(options):
    few = replace(options, recipe="extended")
    hemispheres = len(samples(read_prepared(options.data), "stroke", "train"))
    run = set_up_run(few, 1, None)
    assert hemispheres <= 4 * 16 and run.phase.epochs == math.ceil(272 / math.ceil(hemispheres / 16))
    assert run.about["settings"]["epochs"] == run.phase.epochs
    assert set_up_run(replace(few, values={"epochs": 3}), 1, None).phase.epochs == 3
    assert set_up_run(few, 2, "random").phase.epochs == 5
    assert long_enough(EXTENDED[1], 2 * 272) == EXTENDED[1] and long_enough(PAPER[1], 2) == PAPER[1]


def test_patience_is_refused_where_the_last_epoch_is_kept(options):
    with pytest.raises(InputError, match="extended recipe keeps each phase's last epoch.*omit --patience"):
        set_up_run(replace(options, recipe="extended", values={"patience": 3}), 1, None)


def test_phase_0_implies_3d_and_phase_1_in_3d_starts_from_it(options, made_up):
    run = set_up_run(options, 0, None)
    assert (run.about["model"], run.about["width"], run.folder) == ("3d", 32, Path("runs/3d/phase0"))
    with pytest.raises(
        InputError,
        match="phase 1 needs --init: .* phase 0 left, or the word random. Type: python "
        "run_train.py --phase 1 --init runs/3d/phase0/best.pt",
    ):
        set_up_run(replace(options, model="3d"), 1, None)
    assert set_up_run(replace(options, model="3d"), 1, "random").parent is None
    write_checkpoint("ckpt.pt", made_up(phase=0, model="3d", cohort=split_hash(read_prepared(options.data))))
    run = set_up_run(options, 1, "ckpt.pt")
    assert (run.about["model"], run.about["width"], run.folder) == ("3d", 4, Path("runs/3d/phase1"))


def test_who_is_left_out_of_training_is_said(options, capsys):
    patients = read_prepared(options.data)
    patients[0].row |= {"status": "failed"}
    for patient in patients[1:3]:
        patient.row |= {"verdict": "reject"}
    patients[-1].row |= {"verdict": "reject"}  # of the test split: not this table's
    patients[3].row |= {"stroke_side": ""}
    for patient in patients[4:7]:
        patient.row |= {"onset_to_mri_min": ""}
    run = set_up_run(options, 1, None)
    for task, lost in (("stroke", ""), ("tss<3h", ", 3 onset unknown")):
        train, val = (load_split(options.data, patients, task, split, [32, 32, 4]) for split in ("train", "val"))
        announce(replace(run, patients=patients), train, val)
        said = capsys.readouterr().out
        assert f"excluded from train and val: 1 failed, 2 rejected, 1 stroke side unknown{lost}; the reasons" in said
        assert task != "stroke" or "train 28 hemispheres" in said


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ("builtin", ""),
        (
            "FSL 6.0.4",
            "ckpt.pt was trained on hemispheres that were preprocessed with different settings from those in ",
        ),
    ],
)
def test_a_parent_of_differently_prepared_hemispheres_is_said(options, made_up, capsys, tools, said):
    settings = {"preprocessing": json.loads((options.data / "settings.json").read_text()) | {"tools": tools}}
    write_checkpoint("ckpt.pt", made_up(phase=2, cohort=split_hash(read_prepared(options.data)), settings=settings))
    run = set_up_run(options, 3, "ckpt.pt")
    train, val = (load_split(options.data, run.patients, "tss<4.5h", split, [32, 32, 4]) for split in ("train", "val"))
    announce(run, train, val)
    out = capsys.readouterr().out
    assert ("warning: " in out) == bool(said) and said in out
    assert not said or f"{options.data}: tools FSL 6.0.4, there builtin" in out


def test_phase_0_is_not_for_2d(options):
    with pytest.raises(InputError, match=r"phase 0 \(restore\) is for --model 3d, not 2d: the 2d model starts in"):
        set_up_run(replace(options, model="2d"), 0, None)


def test_a_phase_3_of_a_3d_checkpoint_is_3d(options, made_up):
    write_checkpoint("ckpt.pt", made_up(phase=2, model="3d", cohort=split_hash(read_prepared(options.data))))
    run = set_up_run(options, 3, "ckpt.pt")
    assert (run.about["model"], run.folder) == ("3d", Path("runs/3d/phase3"))
    with pytest.raises(InputError, match="ckpt.pt has model 3d, this run has 2d"):
        set_up_run(replace(options, model="2d"), 3, "ckpt.pt")


def test_random_is_a_word_that_must_be_said(options):
    with pytest.raises(
        InputError, match="phase 2 needs --init: .* Type: python run_train.py --phase 2 --init runs/2d/phase1/best.pt"
    ):
        set_up_run(options, 2, None)
    with pytest.raises(InputError, match="--phase 4 --init mine/phase3/best.pt"):
        set_up_run(replace(options, out=Path("mine")), 4, None)
    run = set_up_run(options, 4, "random")
    assert run.parent is None and run.about["attention"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 8}, "ckpt.pt has width 4, this run has 8"),
    ({"device": "gpu9"}, "--device gpu9 cannot be used here"),
])  # fmt: skip
def test_flags_that_contradict_the_checkpoint(options, phase_2, changes, message):
    with pytest.raises(InputError, match=message):
        set_up_run(replace(options, **changes), 3, phase_2)


def test_data_that_does_not_belong_to_the_checkpoint(options, phase_2, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(options.data, data)
    (data / "settings.json").write_text(json.dumps({"grid": [64, 32, 4]}))
    with pytest.raises(InputError, match=r"ckpt.pt has grid \[32, 32, 4\], this run has \[64, 32, 4\]"):
        set_up_run(replace(options, data=data), 3, phase_2)
    (data / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="settings.json: grid is missing"):
        set_up_run(replace(options, data=data), 3, phase_2)
    shutil.copy(options.data / "settings.json", data)
    swap_splits(data, "p00", "p35")  # a test patient becomes a training patient
    with pytest.raises(InputError, match="another split of patients .* they are in this test set"):
        set_up_run(replace(options, data=data), 3, phase_2)


def swap_splits(data, one, other):
    with open(data / "cohort.csv", newline="") as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    rows[one]["split"], rows[other]["split"] = rows[other]["split"], rows[one]["split"]
    write_rows(data, rows.values())


def write_rows(data, rows):
    rows = list(rows)
    with open(data / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(("phase", "split", "onset", "message"), [
    (2, "val", "900", r"cohort.csv: phase 2 \(tss<3h\) has 0 positive of 10 hemispheres in split 'val'; both classes"),
    (3, "train", "10", r"phase 3 \(tss<4.5h\) has 18 positive of 18 hemispheres in split 'train'"),
    (3, "val", "", "has 0 positive of 0 hemispheres in split 'val'"),
])  # fmt: skip
def test_one_class_only(options, tmp_path, phase, split, onset, message):
    shutil.copytree(options.data, tmp_path / "data")
    with open(options.data / "cohort.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    write_rows(tmp_path / "data", [row | {"onset_to_mri_min": onset} if row["split"] == split else row for row in rows])
    with pytest.raises(InputError, match=message):
        set_up_run(replace(options, data=tmp_path / "data"), phase, "random")


def test_phase_0_needs_patients_but_no_labels(options, tmp_path):
    shutil.copytree(options.data, tmp_path / "data")
    with open(options.data / "cohort.csv", newline="") as file:
        rows = [row | {"onset_to_mri_min": "", "stroke_side": ""} for row in csv.DictReader(file)]
    write_rows(tmp_path / "data", rows)
    set_up_run(replace(options, data=tmp_path / "data"), 0, None)
    write_rows(tmp_path / "data", [row for row in rows if row["split"] != "val"])
    with pytest.raises(InputError, match=r"phase 0 \(restore\) has no patient in split 'val'"):
        set_up_run(replace(options, data=tmp_path / "data"), 0, None)


def test_a_folder_in_use_is_left_alone(options):
    Path("runs/2d/phase1").mkdir(parents=True)
    set_up_run(options, 1, None)  # empty: fine
    Path("runs/2d/phase1/log.csv").write_text("epoch\n")
    with pytest.raises(InputError, match="runs/2d/phase1 holds a training already. Add --resume .*--overwrite.*--out"):
        set_up_run(options, 1, None)
    set_up_run(replace(options, resume=True), 1, None)
    set_up_run(replace(options, overwrite=True), 1, None)
    assert Path("runs/2d/phase1/log.csv").exists()  # planning destroys nothing


def test_a_folder_that_cannot_be_written(options, monkeypatch):
    Path("taken").write_text("a file")
    with pytest.raises(InputError, match="taken/2d/phase1 cannot be written: taken is not a folder. .* --out"):
        set_up_run(replace(options, out=Path("taken/2d")), 1, None)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(InputError, match="new/phase1 cannot be written: no permission in ."):
        set_up_run(replace(options, out=Path("new")), 1, None)


def test_no_data(options):
    with pytest.raises(InputError, match="nowhere/cohort.csv does not exist. Make it first: python run_preprocess.py"):
        set_up_run(replace(options, data=Path("nowhere")), 1, None)
