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

import run_train
from tss import figures, files, train
from tss.checkpoint import KEYS, load, load_model
from tss.cohort import read_prepared, split_hash
from tss.files import InputError, read_json, sha256
from tss.phases import PHASES
from tss.plan import Job

FAST = {"epochs": 2, "lr": 3e-3, "final_lr": 5e-2}  # the paper's rates are for 100 epochs of 272 patients
RUN_TRAIN = Path(run_train.__file__)


@pytest.fixture
def job(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Job(data=tiny_data, width=4, device="cpu", values=FAST)


@pytest.fixture
def no_drawing(monkeypatch):
    """Drawing the curves takes longer than all the rest of a tiny phase."""
    monkeypatch.setattr(figures, "draw_curves", lambda path, history, best, title: files.write_text(path, title))


def weights_equal(one, other):
    one, other = load(one)["state_dict"], load(other)["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same_state(one, other):
    """Weights, optimizer and history, bit for bit (the files differ in how pickle shares names)."""
    assert weights_equal(one, other)
    one, other = load(one)["resume"], load(other)["resume"]
    assert one["history"] == other["history"]
    for number, state in other["optimizer"]["state"].items():
        assert state["step"] == one["optimizer"]["state"][number]["step"]
        assert torch.equal(state["exp_avg"], one["optimizer"]["state"][number]["exp_avg"])
        assert torch.equal(state["exp_avg_sq"], one["optimizer"]["state"][number]["exp_avg_sq"])


def test_four_phases(job, capsys):
    best = train.train_all(job)
    assert best == [Path(f"runs/2d/phase{n}/best.pt") for n in (1, 2, 3, 4)]
    said = capsys.readouterr().out
    for number, path in enumerate(best, start=1):
        folder = path.parent
        assert {p.name for p in folder.iterdir()} == {"best.pt", "last.pt", "log.csv", "curves.png", "settings.json"}
        checkpoint = load(path)
        assert set(checkpoint) == set(KEYS)
        assert (checkpoint["phase"], checkpoint["task"]) == (number, PHASES[number].task)
        assert checkpoint["attention"] == (number == 4) and 0 < checkpoint["threshold"] < 1
        assert checkpoint["cohort"] == split_hash(read_prepared(job.data))
        assert checkpoint["settings"]["preprocessing"] == read_json(job.data / "settings.json")
        assert read_json(folder / "settings.json")["settings"]["lr"] == FAST["lr"]
        rows = (folder / "log.csv").read_text().splitlines()
        assert rows[0] == "epoch,train_loss,val_loss,val_auc" and len(rows) == 3
        assert max(float(row.split(",")[3]) for row in rows[1:]) == checkpoint["val_auc"]
        assert f"phase {number}  epoch 002/002  train" in said and "left <=" in said
        if number == 1:
            assert (checkpoint["parent"], checkpoint["frozen"]) == ("random", [])
            continue
        parent = load(best[number - 2])
        assert checkpoint["parent"] == sha256(best[number - 2])
        assert len(checkpoint["frozen"]) == 30  # conv1, bn1 (5), layer1: 4 convolutions and 4 norms
        for name in checkpoint["frozen"]:
            assert torch.equal(checkpoint["state_dict"][name], parent["state_dict"][name])
            assert torch.equal(load(folder / "last.pt")["state_dict"][name], parent["state_dict"][name])
        moved = [name for name, tensor in checkpoint["state_dict"].items()
                 if name in parent["state_dict"] and name not in checkpoint["frozen"]
                 and tensor.shape == parent["state_dict"][name].shape
                 and not torch.equal(tensor, parent["state_dict"][name])]
        assert len(moved) == len(parent["state_dict"]) - 30 - (number == 4)  # the widened classifier is counted apart
        assert f"phase {number}  proof: 30 frozen parameters and buffers in best.pt and last.pt are bit-equal" in said
    assert load(best[0])["val_auc"] >= 0.8  # the tiny patients can be learned


def test_the_issues_line_works_as_typed(job, no_drawing, tmp_path):
    """python run_train.py --phase 3 --init ckpt.pt, with ./data there: kind and width come from the checkpoint."""
    shutil.copytree(job.data, "data")
    quick = {"epochs": 1}
    train.train_phase(replace(job, values=quick), 1)
    train.train_phase(replace(job, values=quick), 2, "runs/2d/phase1/best.pt")
    shutil.copy("runs/2d/phase2/best.pt", "ckpt.pt")
    assert run_train.main(["--phase", "3", "--init", "ckpt.pt", "--epochs", "1"]) == 0
    assert load("runs/2d/phase3/best.pt")["width"] == 4


def test_phase_4_has_phase_3s_outputs_before_its_first_step(job, no_drawing, monkeypatch):
    train.train_phase(job, 3, "random")
    monkeypatch.setattr(train, "is_finished", lambda history, phase: True)
    monkeypatch.setattr(train, "finish", lambda run: run)
    run = train.train_phase(job, 4, "runs/2d/phase3/best.pt")
    before, _ = load_model("runs/2d/phase3/best.pt")
    hemispheres = torch.rand(6, 3, 4, 32, 16)
    with torch.no_grad():
        assert (before(hemispheres) - run.network.eval()(hemispheres)).abs().max() <= 1e-6


def test_same_seed_same_bytes_other_seed_other_weights(job, no_drawing):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        before = torch.random.get_rng_state()
        train.train_phase(replace(job, out=Path(out), seed=seed), 1)
        assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are left alone
    assert Path("a/phase1/best.pt").read_bytes() == Path("b/phase1/best.pt").read_bytes()
    assert Path("a/phase1/log.csv").read_text() == Path("b/phase1/log.csv").read_text()
    assert not weights_equal("a/phase1/best.pt", "c/phase1/best.pt")


def test_random_start_of_a_late_phase_freezes_nothing(job, no_drawing, capsys):
    train.train_phase(job, 2, "random")
    assert load("runs/2d/phase2/best.pt")["frozen"] == []
    assert "random weights, seed 0; nothing is frozen" in capsys.readouterr().out


def test_a_crash_at_any_write_changes_nothing(job, no_drawing, monkeypatch):
    """Every file that a phase writes, one after the other: the run stops before it and is continued."""
    train.train_phase(replace(job, out=Path("whole")), 1)
    writes = []
    replace_file = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (writes.append(paths), replace_file(*paths)))
    train.train_phase(replace(job, out=Path("count")), 1)

    class Crash(BaseException):
        pass

    for survivors in range(len(writes)):
        seen = []

        def stop(*paths, survivors=survivors, seen=seen):
            seen.append(paths)
            if len(seen) > survivors:
                raise Crash
            replace_file(*paths)

        shutil.rmtree("crash", ignore_errors=True)
        monkeypatch.setattr(files.os, "replace", stop)
        with pytest.raises(Crash):
            train.train_phase(replace(job, out=Path("crash")), 1)
        monkeypatch.setattr(files.os, "replace", replace_file)
        train.train_phase(replace(job, out=Path("crash"), resume=True), 1)
        for name in ("best.pt", "log.csv"):  # the file's bytes: phase 2 names its parent by their hash
            assert Path(f"crash/phase1/{name}").read_bytes() == Path(f"whole/phase1/{name}").read_bytes(), survivors
        assert_same_state("crash/phase1/last.pt", "whole/phase1/last.pt")
    assert len(writes) >= 1 + 2 * 2 + 1 + 2  # settings; last.pt and log.csv an epoch; a best.pt; log.csv and curves


def test_killed_at_random_moments_and_resumed(job):
    """SIGKILL to the real program, several times; then the same command to its end."""
    flags = ["--data", str(job.data), "--phase", "1", "--width", "4", "--device", "cpu", "--epochs", "6",
             "--lr", "0.003", "--final-lr", "0.05"]  # fmt: skip
    assert run_train.main([*flags, "--out", "whole"]) == 0
    command = [sys.executable, str(RUN_TRAIN), *flags, "--out", "killed", "--resume"]
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
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("best.pt", "log.csv"):
        assert Path(f"killed/phase1/{name}").read_bytes() == Path(f"whole/phase1/{name}").read_bytes()
    assert_same_state("killed/phase1/last.pt", "whole/phase1/last.pt")
    assert {p.name for p in Path("killed/phase1").iterdir()} == {p.name for p in Path("whole/phase1").iterdir()}


def test_resume_starts_where_there_is_nothing_and_leaves_what_is_finished(job, no_drawing, capsys):
    resuming = replace(job, resume=True)
    train.train_all(resuming)
    first = {path: path.read_bytes() for path in Path("runs").rglob("*.pt")}
    assert "has no last.pt yet: starting at epoch 1" in capsys.readouterr().out
    train.train_all(resuming)
    said = capsys.readouterr().out
    assert said.count("was finished after epoch 2") == 4 and "  epoch 0" not in said
    assert {path: path.read_bytes() for path in Path("runs").rglob("*.pt")} == first


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": 5}, "seed 0 then, 5 now"),
    ({"precision": "bf16"}, "precision fp32 then, bf16 now"),
    ({"width": 8}, "width 4 then, 8 now"),
    ({"values": FAST | {"lr": 0.5}}, "lr 0.003 then, 0.5 now"),
    ({"values": FAST | {"batch_size": 2, "epochs": 9}}, "batch_size 16 then, 2 now; epochs 2 then, 9 now"),
])  # fmt: skip
def test_resume_with_other_settings_is_refused(job, no_drawing, changes, message):
    train.train_phase(job, 1)
    before = Path("runs/2d/phase1/last.pt").read_bytes()
    with pytest.raises(InputError, match=f"last.pt was trained with other settings: {message}. Repeat the command"):
        train.train_phase(replace(job, resume=True, **changes), 1)
    assert Path("runs/2d/phase1/last.pt").read_bytes() == before


def test_resume_with_other_data_or_another_parent_is_refused(job, no_drawing):
    train.train_phase(job, 1)
    shutil.copytree(job.data, "changed")
    shutil.copy("changed/hemispheres/p01.npy", "changed/hemispheres/p00.npy")
    with pytest.raises(InputError, match="other settings: data [0-9a-f]{24} then, [0-9a-f]{24} now"):
        train.train_phase(replace(job, data=Path("changed"), resume=True), 1)
    train.train_phase(job, 2, "runs/2d/phase1/best.pt")
    with pytest.raises(InputError, match="other settings: parent [0-9a-f]{24} then, random now"):
        train.train_phase(replace(job, resume=True), 2, "random")


def test_resume_without_best_or_from_a_best_is_refused(job, no_drawing):
    train.train_phase(job, 1)
    shutil.copy("runs/2d/phase1/best.pt", "runs/2d/phase1/last.pt")
    with pytest.raises(InputError, match="last.pt cannot be continued"):
        train.train_phase(replace(job, resume=True), 1)
    train.train_phase(replace(job, overwrite=True), 1)
    Path("runs/2d/phase1/best.pt").unlink()
    with pytest.raises(InputError, match="or best.pt beside it"):
        train.train_phase(replace(job, resume=True), 1)


def test_test_patients_are_never_read(job, no_drawing):
    shutil.copytree(job.data, "data")
    for patient in read_prepared("data"):
        if patient.split == "test":
            Path(f"data/hemispheres/{patient.id}.npy").unlink()
    train.train_phase(replace(job, data=Path("data")), 1)


def row(epoch, auc, loss=0.5):
    return {"epoch": epoch, "train_loss": 0.5, "val_loss": loss, "val_auc": auc}


def test_best_is_the_highest_auc_then_the_lowest_loss_then_the_first():
    assert train.best_epoch([row(1, 0.7), row(2, 0.9), row(3, 0.8)]) == 2
    assert train.best_epoch([row(1, 0.9, 0.5), row(2, 0.9, 0.4), row(3, 0.9, 0.4)]) == 2


def test_stops_when_the_auc_has_not_risen_for_patience_epochs():
    phase = replace(PHASES[1], patience=3, epochs=100)
    aucs = [0.5, 0.7, 0.7, 0.6, 0.7]  # rose in epoch 2; a lower loss at equal AUC does not count as rising
    ends = [train.is_finished([row(i + 1, auc, 0.5 - i / 10) for i, auc in enumerate(aucs[:n])], phase)
            for n in range(len(aucs) + 1)]
    assert ends == [False, False, False, False, False, True]
    assert train.is_finished([row(1, 0.5)], replace(phase, epochs=1))


def test_a_loss_that_explodes_stops_with_a_message(job, no_drawing, capsys):
    code = run_train.main(["--data", str(job.data), "--phase", "1", "--width", "4", "--lr", "1e30",
                           "--final-lr", "1e30"])
    assert code == 2
    said = capsys.readouterr().err
    assert "phase 1, epoch 1: the training loss is nan. Give a smaller --lr" in said


def test_too_little_memory_stops_with_a_message(job, no_drawing, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "train_one_epoch", full)
    with pytest.raises(InputError, match="cpu has too little memory for batches of 16. Give a smaller --batch-size"):
        train.train_phase(job, 1)


def test_a_frozen_tensor_that_moves_is_an_error(job, no_drawing, monkeypatch):
    train.train_phase(job, 1)
    monkeypatch.setattr(train, "freeze", lambda network, modules: ["backbone.conv1.weight"])  # says so, does nothing
    with pytest.raises(AssertionError, match="frozen tensors moved: backbone.conv1.weight"):
        train.train_phase(job, 2, "runs/2d/phase1/best.pt")


@pytest.mark.parametrize(("flags", "message"), [
    ("", "give --phase 1, 2, 3, 4 or all, or --demo"),
    ("--phase 5", "invalid choice: '5'"),
    ("--phase 1 --epochs 0", "--epochs: 0 is not a whole number from 1"),
    ("--phase 1 --batch-size -2", "--batch-size: -2 is not a whole number from 1"),
    ("--phase 1 --lr nan", "--lr: nan is not a number above 0"),
    ("--phase 1 --seed -1", "--seed: -1 is not a whole number from 0"),
    ("--phase 1 --width x", "--width: invalid count value: 'x'"),
    ("--pha 1", "unrecognized arguments: --pha 1"),
    ("--phase 1 --resume --overwrite", "give one of them"),
    ("--demo --lr 1", "--demo decides by itself about --lr"),
    ("--demo --phase 1", "--demo decides by itself about --phase"),
])  # fmt: skip
def test_wrong_use_is_refused_by_the_parser(capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        run_train.main(flags.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_refusals_have_no_traceback(job, no_drawing, capsys):
    assert run_train.main(["--phase", "2"]) == 2
    assert capsys.readouterr().err.startswith("run_train.py: phase 2 needs --init")
    Path("taken").write_text("a file")
    assert run_train.main(["--data", str(job.data), "--phase", "1", "--width", "4", "--out", "taken"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_help_names_every_flag_and_the_table(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_train.main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "4      tss<4.5h  phase 3      yes" in said
    for flag in ("data model phase init out resume overwrite seed device precision epochs batch-size lr final-lr "
                 "patience width demo").split():
        assert f"--{flag}" in said
    assert all(action.help for action in run_train.build_parser()._actions)


def test_bf16_trains_and_differs(job, no_drawing):
    train.train_phase(job, 1)
    train.train_phase(replace(job, out=Path("half"), precision="bf16"), 1)
    assert load("half/phase1/best.pt")["state_dict"]["backbone.conv1.weight"].dtype == torch.float32
    assert not weights_equal("runs/2d/phase1/best.pt", "half/phase1/best.pt")
