"""run_train.py, as users type it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import run_train
from tss.data.prepared import read_prepared
from tss.data.splits import split_hash
from tss.study import demo
from tss.training import train
from tss.training.checkpoint import load_checkpoint
from tss.training.dataset import load_split
from tss.training.run_setup import Options


@pytest.fixture
def options(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Options(data=tiny_data, width=4, device="cpu", values={"lr": 3e-3})


def test_the_issues_line_works_as_typed(options, no_drawing, capsys):
    """python run_train.py --phase 3 --init ckpt.pt, with ./data there: kind and width come from the checkpoint."""
    shutil.copytree(options.data, "data")
    quick = {"epochs": 1}
    train.train_phase(replace(options, values=quick), 1)
    train.train_phase(replace(options, values=quick), 2, "runs/2d/phase1/best.pt")
    shutil.copy("runs/2d/phase2/best.pt", "ckpt.pt")
    assert run_train.main(["--phase", "3", "--init", "ckpt.pt", "--epochs", "1"]) == 0
    assert load_checkpoint("runs/2d/phase3/best.pt")["width"] == 4
    train.train_phase(replace(options, model="3d", values=quick), 2, "random")
    assert run_train.main(["--phase", "3", "--init", "runs/3d/phase2/best.pt", "--epochs", "1"]) == 0
    assert load_checkpoint("runs/3d/phase3/best.pt")["model"] == "3d"
    assert run_train.main(["--phase", "0", "--model", "2d"]) == 2
    assert "is for --model 3d, not 2d" in capsys.readouterr().err


def test_fewer_training_patients_are_seen_and_the_cohort_stays_the_same(options, no_drawing, monkeypatch, capsys):
    """Through main: 12 of 18 in both phases, the same ones; then a third phase that forgot to say so."""
    seen = []
    monkeypatch.setattr(
        train,
        "load_split",
        lambda data, patients, task, split, grid: (
            seen.append({p.id for p in patients if p.split == split}) or load_split(data, patients, task, split, grid)
        ),
    )
    line = ["--data", str(options.data), "--epochs", "1", "--lr", "3e-3", "--device", "cpu"]
    few = [*line, "--train-patients", "12"]
    assert run_train.main([*few, "--phase", "1", "--width", "4"]) == 0
    assert run_train.main([*few, "--phase", "2", "--init", "runs/2d/phase1/best.pt"]) == 0
    said = capsys.readouterr().out
    assert "12 training patients: train 24 hemispheres (1" in said and "other training patients" not in said
    assert run_train.main([*line, "--train-patients", "11", "--phase", "1", "--width", "4", "--resume"]) == 2
    assert "trained with other settings: train_patients 12 then, 11 now; data" in capsys.readouterr().err
    assert run_train.main([*line, "--phase", "3", "--init", "runs/2d/phase2/best.pt"]) == 0
    said = capsys.readouterr().out
    assert "phase2/best.pt was trained on other training patients: 12 (seed 0) there, all here" in said
    (one, val), (two, _), _, (three, _) = zip(seen[::2], seen[1::2], strict=True)
    assert one == two < three and (len(one), len(three), len(val)) == (12, 18, 10)
    best = load_checkpoint("runs/2d/phase2/best.pt")
    assert best["settings"]["train_patients"] == 12
    assert (
        best["cohort"] == load_checkpoint("runs/2d/phase3/best.pt")["cohort"] == split_hash(read_prepared(options.data))
    )

    assert run_train.main([*line, "--train-patients", "19", "--phase", "all", "--width", "4", "--out", "new"]) == 2
    assert "18 patients in split 'train' are preprocessed" in capsys.readouterr().err and not Path("new").exists()


def test_a_loss_that_explodes_stops_with_a_message(options, no_drawing, capsys):
    code = run_train.main(
        ["--data", str(options.data), "--phase", "1", "--width", "4", "--lr", "1e30", "--final-lr", "1e30"]
    )
    assert code == 2
    said = capsys.readouterr().err
    assert "phase 1, epoch 1: the training loss is nan. Give a smaller --lr" in said


@pytest.mark.parametrize(("flags", "message"), [
    ("", "one of the arguments --phase --demo is required"),
    ("--phase 5", "invalid choice: '5'"),
    ("--phase 1 --epochs 0", "--epochs: 0 is not a whole number from 1"),
    ("--phase 1 --batch-size -2", "--batch-size: -2 is not a whole number from 1"),
    ("--phase 1 --lr nan", "--lr: nan is not a number above 0"),
    ("--phase 1 --seed -1", "--seed: -1 is not a whole number from 0"),
    ("--phase 1 --width x", "--width: invalid count value: 'x'"),
    ("--pha 1", "one of the arguments --phase --demo is required"),
    ("--phase 1 --shift 1", "unrecognized arguments: --shift 1"),
    ("--phase 1 --resume --overwrite", "argument --overwrite: not allowed with argument --resume"),
    ("--demo --lr 1", "unrecognized arguments: --lr 1"),
    ("--demo --phase 1", "argument --phase: not allowed with argument --demo"),
])  # fmt: skip
def test_wrong_use_is_refused_by_the_parser(capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        run_train.main(flags.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_refusals_have_no_traceback(options, no_drawing, capsys):
    assert run_train.main(["--phase", "2"]) == 2
    assert capsys.readouterr().err.startswith("run_train.py: phase 2 needs --init")
    Path("taken").write_text("a file")
    assert run_train.main(["--data", str(options.data), "--phase", "1", "--width", "4", "--out", "taken"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_help_names_every_flag_and_the_table(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_train.main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "4      tss<4.5h  phase 3  phase 3  yes" in said
    flags = (
        "data model phase init fold recipe out resume overwrite seed device precision epochs batch-size lr final-lr "
        "patience width train-patients demo"
    ).split()
    assert all(f"--{flag}" in said for flag in flags)
    actions = run_train.build_parser()._actions
    assert all(action.help for action in actions)
    assert {flag for action in actions for flag in action.option_strings} == {
        "-h", "--help", "--version", *(f"--{flag}" for flag in flags)
    }  # fmt: skip


def test_the_demo_takes_model_out_and_seed(monkeypatch):
    given = []
    monkeypatch.setattr(demo, "run", lambda *words: given.append(words) or 0)
    assert run_train.main(["--demo"]) == run_train.main("--demo --model 3d --out there --seed 5".split()) == 0
    assert given == [(Path("demo"), "2d", 0), (Path("there"), "3d", 5)]
