"""Interrupted trainings continue to the same bits."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import FAST, FIRST, KINDS, RECIPES

import run_train
from tss.data import files
from tss.errors import InputError
from tss.training import resume, train
from tss.training.checkpoint import load_model
from tss.training.run_setup import set_up_run

RUN_TRAIN = Path(run_train.__file__)


@pytest.mark.slow
@KINDS
def test_a_crash_at_any_write_changes_nothing(options, kind, no_drawing, monkeypatch):
    """Every file that a phase writes, one after the other: the run stops before it and is continued."""
    number, options = FIRST[kind], replace(options, width=2)
    train.train_phase(replace(options, out=Path("whole")), number)
    writes = []
    replace_file = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (writes.append(paths), replace_file(*paths)))
    train.train_phase(replace(options, out=Path("count")), number)

    class Crash(BaseException):
        pass

    for survivors in range(0, len(writes), 1 if kind == "2d" else 2):
        seen = []

        def stop(*paths, survivors=survivors, seen=seen):
            seen.append(paths)
            if len(seen) > survivors:
                raise Crash
            replace_file(*paths)

        shutil.rmtree("crash", ignore_errors=True)
        monkeypatch.setattr(files.os, "replace", stop)
        with pytest.raises(Crash):
            train.train_phase(replace(options, out=Path("crash")), number)
        monkeypatch.setattr(files.os, "replace", replace_file)
        train.train_phase(replace(options, out=Path("crash"), resume=True), number)
        for name in ("last.pt", "best.pt", "log.csv"):  # the file's bytes: phase 2 names its parent by their hash
            crashed, whole = (Path(f"{out}/phase{number}/{name}").read_bytes() for out in ("crash", "whole"))
            assert crashed == whole, survivors
    assert len(writes) >= 1 + 2 * 2 + 1 + 2  # settings; last.pt and log.csv an epoch; a best.pt; log.csv and curves


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(options):
    """SIGKILL to the real program, twice; then the same words to their end. (3D: the crash test, which starts none.)"""
    phase = "phase1"
    flags = ["--data", str(options.data), "--phase", "1", "--width", "2", "--device", "cpu", "--epochs", "6",
             "--lr", "0.003", "--final-lr", "0.05"]  # fmt: skip
    assert run_train.main([*flags, "--out", "whole"]) == 0
    flags += ["--out", "killed", "--resume"]
    command = [sys.executable, str(RUN_TRAIN), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    chance = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if "  epoch 0" in line:
                break
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert run_train.main(flags) == 0
    for name in ("last.pt", "best.pt", "log.csv"):
        assert Path(f"killed/{phase}/{name}").read_bytes() == Path(f"whole/{phase}/{name}").read_bytes()
    assert {p.name for p in Path(f"killed/{phase}").iterdir()} == {p.name for p in Path(f"whole/{phase}").iterdir()}


@KINDS
@RECIPES
def test_a_phase_on_frozen_layers_is_continued_to_the_same_bits(options, kind, recipe, no_drawing, monkeypatch):
    options = replace(options, model=kind, recipe=recipe)
    cut_and_continued(options, 1, "random", monkeypatch)
    cut_and_continued(options, 2, "whole/phase1/best.pt", monkeypatch)


def cut_and_continued(options, number, init, monkeypatch):
    """A phase in one go, and interrupted after its first epoch: the same bits."""
    train.train_phase(replace(options, out=Path("whole")), number, init)
    one_epoch = train.train_and_validate

    def only_the_first(run, state, *rest):
        if state.history:
            raise KeyboardInterrupt
        one_epoch(run, state, *rest)

    monkeypatch.setattr(train, "train_and_validate", only_the_first)
    with pytest.raises(KeyboardInterrupt):
        train.train_phase(replace(options, out=Path("cut")), number, init)
    monkeypatch.setattr(train, "train_and_validate", one_epoch)
    train.train_phase(replace(options, out=Path("cut"), resume=True), number, init)
    for name in ("last.pt", "best.pt"):
        assert Path(f"cut/phase{number}/{name}").read_bytes() == Path(f"whole/phase{number}/{name}").read_bytes()
    cut, whole = (json.loads(Path(f"{out}/phase{number}/settings.json").read_text()) for out in ("cut", "whole"))
    assert cut["what_moved"] == whole["what_moved"]  # from where the phase started, not the process


def test_what_an_interrupted_extended_phase_left_is_neither_scored_nor_started_from(options, no_drawing, monkeypatch):
    options = replace(options, recipe="extended", out=Path("runs"))
    with monkeypatch.context() as killed:
        killed.setattr(train, "is_finished", lambda history, phase: len(history) > 0)
        best = train.train_phase(options, 1)
    for opens in (lambda: load_model(best), lambda: set_up_run(options, 2, str(best))):
        with pytest.raises(InputError, match="best.pt is of epoch 1 of 2, .* interrupted.*with --resume"):
            opens()
    train.train_phase(replace(options, resume=True), 1)
    assert load_model(best)[1]["epoch"] == 2 and set_up_run(options, 2, str(best)).parent


@pytest.mark.slow
@KINDS
def test_resume_starts_where_there_is_nothing_and_leaves_what_is_finished(options, kind, no_drawing, capsys):
    resuming = replace(options, model=kind, resume=True)
    train.train_all(resuming)
    first = {path: path.read_bytes() for path in Path("runs").rglob("*.pt")}
    assert "has no last.pt yet: starting at epoch 1" in capsys.readouterr().out
    train.train_all(resuming)
    said = capsys.readouterr().out
    assert said.count("was finished after epoch 2") == 5 - FIRST[kind]
    assert "  epoch 0" not in said and "computed once" not in said
    assert {path: path.read_bytes() for path in Path("runs").rglob("*.pt")} == first


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": 5}, "seed 0 then, 5 now"),
    ({"precision": "bf16"}, "precision fp32 then, bf16 now"),
    ({"width": 8}, "width 4 then, 8 now"),
    ({"values": FAST | {"batch_size": 16, "lr": 0.5}}, "lr 0.003 then, 0.5 now"),
    ({"values": FAST | {"batch_size": 2, "epochs": 9}}, "batch_size 16 then, 2 now; epochs 2 then, 9 now"),
])  # fmt: skip
@pytest.mark.slow
@KINDS
def test_resume_with_other_settings_is_refused(options, kind, no_drawing, changes, message):
    number = FIRST[kind]
    options = replace(options, out=Path("out"), values=FAST | {"batch_size": 16})
    train.train_phase(options, number)
    before = Path(f"out/phase{number}/last.pt").read_bytes()
    with pytest.raises(InputError, match=f"last.pt was trained with other settings: {message}. Repeat the command"):
        train.train_phase(replace(options, resume=True, **changes), number)
    assert Path(f"out/phase{number}/last.pt").read_bytes() == before


def test_resume_with_other_data_or_another_parent_is_refused(options, no_drawing):
    train.train_phase(options, 1)
    shutil.copytree(options.data, "changed")
    shutil.copy("changed/hemispheres/p01.npy", "changed/hemispheres/p00.npy")
    with pytest.raises(InputError, match="other settings: data [0-9a-f]{24} then, [0-9a-f]{24} now"):
        train.train_phase(replace(options, data=Path("changed"), resume=True), 1)
    train.train_phase(options, 2, "runs/2d/phase1/best.pt")
    with pytest.raises(InputError, match="other settings: parent [0-9a-f]{24} then, random now"):
        train.train_phase(replace(options, resume=True), 2, "random")


def test_resume_without_best_or_from_a_best_is_refused(options, no_drawing, monkeypatch):
    train.train_phase(options, 1)
    shutil.copy("runs/2d/phase1/best.pt", "runs/2d/phase1/last.pt")
    with pytest.raises(InputError, match="last.pt cannot be continued"):
        train.train_phase(replace(options, resume=True), 1)
    monkeypatch.setattr(resume, "best_epoch", lambda history, keeps: len(history))
    train.train_phase(replace(options, overwrite=True), 1)
    best = Path("runs/2d/phase1/best.pt")
    content = best.read_bytes()
    best.unlink()
    train.train_phase(replace(options, resume=True), 1)
    assert best.read_bytes() == content  # the best was the last, so that it can be had back
    monkeypatch.setattr(resume, "best_epoch", lambda history, keeps: 1)
    with pytest.raises(InputError, match="best.pt is missing, damaged, or not of epoch 1, the best so far"):
        train.train_phase(replace(options, resume=True), 1)
    best.unlink()
    with pytest.raises(InputError, match="best.pt is missing, damaged, or not of epoch 1, the best so far"):
        train.train_phase(replace(options, resume=True), 1)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_it(options, no_drawing, monkeypatch, capsys):
    """Another process, as a Slurm array leaves it whose jobs forgot an --out of their own."""
    command = [sys.executable, str(RUN_TRAIN), "--data", str(options.data), "--phase", "1", "--width", "2", "--resume"]
    one_epoch, others = train.train_and_validate, []

    def with_another(run, *splits):
        if not others:
            others.append(subprocess.run(command, capture_output=True, text=True))
        one_epoch(run, *splits)

    monkeypatch.setattr(train, "train_and_validate", with_another)
    train.train_phase(replace(options, width=2), 1)
    assert others[0].returncode == 2
    assert f"runs/2d/phase1 is being written by another run: process {os.getpid()} on " in others[0].stderr
    assert "epoch" not in others[0].stdout and not Path("runs/2d/phase1/.lock").exists()
