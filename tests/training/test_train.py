import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import run_train
from tss.data import files
from tss.data.cohort import write_cohort
from tss.data.files import read_json, sha256
from tss.data.prepared import read_prepared
from tss.data.splits import split_hash
from tss.display import training_plots
from tss.errors import InputError
from tss.training import early_stopping, feature_cache, train
from tss.training.checkpoint import KEYS, load_checkpoint, load_model
from tss.training.dataset import load_split
from tss.training.epoch import predict, probability
from tss.training.phases import PHASES
from tss.training.run_setup import Options

FIRST = {"2d": 1, "3d": 0}  # a model's first phase
KINDS = pytest.mark.parametrize("kind", ["2d", "3d"])
FAST = {"epochs": 2, "lr": 3e-3, "final_lr": 5e-2}  # the paper's rates are for 100 epochs of 272 patients
RUN_TRAIN = Path(run_train.__file__)


@pytest.fixture
def options(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Options(data=tiny_data, width=4, device="cpu", values=FAST)


@pytest.fixture
def no_drawing(monkeypatch):
    """Drawing the curves takes longer than all the rest of a tiny phase."""
    monkeypatch.setattr(training_plots, "draw_curves", lambda path, history, best, title: files.write_text(path, title))
    monkeypatch.setattr(training_plots, "draw_restoration", lambda path, rows, title: files.write_text(path, title))


def weights_equal(one, other):
    one, other = load_checkpoint(one)["state_dict"], load_checkpoint(other)["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same_state(one, other):
    """Weights, optimizer and history, bit for bit (the files differ in how pickle shares names)."""
    assert weights_equal(one, other)
    one, other = load_checkpoint(one)["resume"], load_checkpoint(other)["resume"]
    assert one["history"] == other["history"]
    for number, state in other["optimizer"]["state"].items():
        assert state["step"] == one["optimizer"]["state"][number]["step"]
        assert torch.equal(state["exp_avg"], one["optimizer"]["state"][number]["exp_avg"])
        assert torch.equal(state["exp_avg_sq"], one["optimizer"]["state"][number]["exp_avg_sq"])


FROZEN_TENSORS = {"2d": 30, "3d": 28}  # conv1, bn1 (5), layer1: 4 convolutions and 4 norms; 4 of 7 each


@KINDS
def test_the_threshold_and_the_auc_are_those_of_the_best_network_on_validation(options, kind, no_drawing):
    train.train_phase(replace(options, model=kind), 1, "random")
    path = f"runs/{kind}/phase1/best.pt"
    network, checkpoint = load_model(path)
    val = load_split(options.data, read_prepared(options.data), "stroke", "val", checkpoint["grid"])
    scores = probability(predict(network, val.hemispheres, 16, torch.device("cpu"), "fp32"))
    positive = val.labels.numpy() == 1
    j = {cut: (scores[positive] >= cut).mean() - (scores[~positive] >= cut).mean() for cut in scores}
    wins = np.sign(scores[positive][:, None] - scores[~positive])
    assert checkpoint["threshold"] in [pytest.approx(cut, abs=1e-6) for cut in scores if j[cut] == max(j.values())]
    assert checkpoint["val_auc"] == pytest.approx((wins + 1).mean() / 2)


@KINDS
def test_four_phases_and_before_them_phase_0_in_3d(options, kind, capsys):
    best = train.train_all(replace(options, model=kind))
    first, names = FIRST[kind], {"best.pt", "last.pt", "log.csv", "curves.png", "settings.json"}
    assert best == [Path(f"runs/{kind}/phase{n}/best.pt") for n in range(first, 5)]
    said = capsys.readouterr().out
    if kind == "3d":
        assert_phase_0(best[0].parent, names, said)
    for number, path in enumerate(best, start=first):
        if number == 0:
            continue
        folder = path.parent
        assert {p.name for p in folder.iterdir()} == names
        checkpoint = load_checkpoint(path)
        assert set(checkpoint) == set(KEYS)
        assert (checkpoint["phase"], checkpoint["task"]) == (number, PHASES[number].task)
        assert checkpoint["attention"] == (number == 4) and 0 < checkpoint["threshold"] < 1
        assert checkpoint["cohort"] == split_hash(read_prepared(options.data))
        started = "random" if number == first else f"phase {number - 1}"
        assert checkpoint["settings"]["weights"] == started  # what Table 2 calls its first weights
        assert checkpoint["settings"]["preprocessing"] == read_json(options.data / "settings.json")
        assert read_json(folder / "settings.json")["settings"]["lr"] == FAST["lr"]
        rows = (folder / "log.csv").read_text().splitlines()
        assert rows[0] == "epoch,train_loss,val_loss,val_auc" and len(rows) == 3
        assert max(float(row.split(",")[3]) for row in rows[1:]) == checkpoint["val_auc"]
        assert f"phase {number}  epoch 002/002  train" in said and "left <=" in said
        if number == 1:
            assert checkpoint["parent"] == ("random" if kind == "2d" else sha256(best[0]))
            assert checkpoint["frozen"] == []
            continue
        parent, still = load_checkpoint(best[number - 1 - first]), FROZEN_TENSORS[kind]
        assert checkpoint["parent"] == sha256(best[number - 1 - first])
        assert len(checkpoint["frozen"]) == still
        assert f"phase {number}  the frozen layers are computed once: " in said
        for name in checkpoint["frozen"]:
            assert torch.equal(checkpoint["state_dict"][name], parent["state_dict"][name])
            assert torch.equal(load_checkpoint(folder / "last.pt")["state_dict"][name], parent["state_dict"][name])
        moved = [
            name
            for name, tensor in checkpoint["state_dict"].items()
            if name in parent["state_dict"]
            and name not in checkpoint["frozen"]
            and tensor.shape == parent["state_dict"][name].shape
            and not torch.equal(tensor, parent["state_dict"][name])
        ]
        biases = 4 * (kind == "3d")  # before BatchNorm, which makes them idle
        assert len(moved) == len(parent["state_dict"]) - still - biases - (number == 4)  # the widened classifier: apart
        assert f"phase {number}  proof: {still} frozen parameters and buffers in best.pt and last.pt are bit-eq" in said
    assert load_checkpoint(best[1 - first])["val_auc"] >= 0.8  # the tiny patients can be learned


def assert_phase_0(folder, names, said):
    assert {p.name for p in folder.iterdir()} == names | {"restored.png"}
    checkpoint = load_checkpoint(folder / "best.pt")
    assert set(checkpoint) == set(KEYS) and checkpoint["val_auc"] is checkpoint["threshold"] is None
    assert (checkpoint["task"], checkpoint["parent"], checkpoint["frozen"]) == ("restore", "random", [])
    assert "out.weight" in checkpoint["state_dict"]
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    assert rows[0] == ["epoch", "train_loss", "val_loss", "nothing_loss", "mean_loss"] and len(rows) == 3
    assert rows[1][3] == rows[2][3]  # validation is distorted alike in every epoch
    assert f"doing nothing {float(rows[1][3]):.4f}, mean hemisphere {float(rows[1][4]):.4f}" in said
    assert "phase 0  train 36 hemispheres (no labels), val 20 hemispheres (no labels)" in said
    assert "50 (the decoder is not needed to classify) left over" in said


@KINDS
def test_what_is_learned_from_is_the_same_whether_the_frozen_part_is_computed_once_or_not(
    options, kind, no_drawing, monkeypatch
):
    options = replace(options, model=kind, values={"epochs": 2, "lr": 1e-4, "final_lr": 1e-2})
    train.train_phase(replace(options, out=Path("once")), 1, "random")
    for name in ("once", "direct"):
        if name == "direct":
            monkeypatch.setattr(feature_cache, "free_memory", lambda device: 0)
        train.train_phase(replace(options, out=Path(name)), 2, "once/phase1/best.pt")
    once, direct = (load_checkpoint(f"{name}/phase2/last.pt") for name in ("once", "direct"))
    assert once["settings"]["data"] == direct["settings"]["data"]  # of the hemispheres, not of what was made of them
    for name, tensor in once["state_dict"].items():
        difference = (tensor.double() - direct["state_dict"][name].double()).norm()
        assert difference <= 1e-5 * tensor.double().norm(), name


def test_phase_0_reads_no_label(options, no_drawing):
    shutil.copytree(options.data, "data")
    table = Path("data/cohort.csv")
    patients = read_prepared("data")
    train.train_phase(replace(options, data=Path("data"), out=Path("with")), 0)
    for patient in patients:
        patient.row |= {"onset_to_mri_min": "", "stroke_side": ""}
    write_cohort(table, patients)
    train.train_phase(replace(options, data=Path("data"), out=Path("without")), 0)
    assert weights_equal("with/phase0/best.pt", "without/phase0/best.pt")


def test_published_weights_start_a_phase_and_freeze_what_the_papers_do(options, no_drawing, capsys):
    train.train_phase(options, 1)
    trained = load_checkpoint("runs/2d/phase1/best.pt")["state_dict"]
    resnet = {name.removeprefix("backbone."): tensor for name, tensor in trained.items() if "backbone." in name}
    torch.save(resnet | {"fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}, "resnet18.pth")
    train.train_phase(replace(options, width=None), 2, "resnet18.pth")
    checkpoint = load_checkpoint("runs/2d/phase2/best.pt")
    assert checkpoint["parent"] == sha256("resnet18.pth") and len(checkpoint["frozen"]) == 30
    assert torch.equal(checkpoint["state_dict"]["backbone.conv1.weight"], resnet["conv1.weight"])
    said = capsys.readouterr().out
    assert "starts from resnet18.pth (published weights of ResNet-18): 120 tensors loaded, 3 (" in said
    assert "2 (its own 1000 classes) left over" in said
    with pytest.raises(InputError, match="resnet18.pth .ResNet-18. is for --model 2d, this run has 3d"):
        train.train_phase(replace(options, model="3d"), 1, "resnet18.pth")


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


@KINDS
def test_phase_4_has_phase_3s_outputs_before_its_first_step(options, kind, no_drawing, monkeypatch):
    options = replace(options, model=kind)
    train.train_phase(options, 3, "random")
    monkeypatch.setattr(train, "is_finished", lambda history, phase: True)
    monkeypatch.setattr(train, "finish_run", lambda run, val: run)
    run = train.train_phase(options, 4, f"runs/{kind}/phase3/best.pt")
    before, _ = load_model(f"runs/{kind}/phase3/best.pt")
    hemispheres = torch.rand(6, 3, 4, 32, 16)
    with torch.no_grad():
        assert (before(hemispheres) - run.network.eval()(hemispheres)).abs().max() <= 1e-6


@KINDS
def test_same_seed_same_bytes_other_seed_other_weights(options, kind, no_drawing):
    number = FIRST[kind]
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        before = torch.random.get_rng_state()
        train.train_phase(replace(options, out=Path(out), seed=seed), number)
        assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are left alone
    assert Path(f"a/phase{number}/best.pt").read_bytes() == Path(f"b/phase{number}/best.pt").read_bytes()
    assert Path(f"a/phase{number}/log.csv").read_text() == Path(f"b/phase{number}/log.csv").read_text()
    assert not weights_equal(f"a/phase{number}/best.pt", f"c/phase{number}/best.pt")


def test_random_start_of_a_late_phase_freezes_nothing(options, no_drawing, capsys):
    train.train_phase(options, 2, "random")
    assert load_checkpoint("runs/2d/phase2/best.pt")["frozen"] == []
    assert "random weights, seed 0; nothing is frozen" in capsys.readouterr().out


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
        for name in ("best.pt", "log.csv"):  # the file's bytes: phase 2 names its parent by their hash
            crashed, whole = (Path(f"{out}/phase{number}/{name}").read_bytes() for out in ("crash", "whole"))
            assert crashed == whole, survivors
        assert_same_state(f"crash/phase{number}/last.pt", f"whole/phase{number}/last.pt")
    assert len(writes) >= 1 + 2 * 2 + 1 + 2  # settings; last.pt and log.csv an epoch; a best.pt; log.csv and curves


def test_killed_at_random_moments_and_resumed(options):
    """SIGKILL to the real program, twice; then the same command to its end. (3D: the crash test, which starts none.)"""
    phase = "phase1"
    flags = ["--data", str(options.data), "--phase", "1", "--width", "2", "--device", "cpu", "--epochs", "6",
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
        assert Path(f"killed/{phase}/{name}").read_bytes() == Path(f"whole/{phase}/{name}").read_bytes()
    assert_same_state(f"killed/{phase}/last.pt", f"whole/{phase}/last.pt")
    assert {p.name for p in Path(f"killed/{phase}").iterdir()} == {p.name for p in Path(f"whole/{phase}").iterdir()}


@KINDS
def test_a_phase_on_frozen_layers_is_continued_to_the_same_bits(options, kind, no_drawing, monkeypatch):
    options = replace(options, model=kind)
    train.train_phase(options, 1, "random")
    parent = f"runs/{kind}/phase1/best.pt"
    train.train_phase(replace(options, out=Path("whole")), 2, parent)
    one_epoch = train.train_and_validate

    def only_the_first(run, *splits):
        if run.history:
            raise KeyboardInterrupt
        one_epoch(run, *splits)

    monkeypatch.setattr(train, "train_and_validate", only_the_first)
    with pytest.raises(KeyboardInterrupt):
        train.train_phase(replace(options, out=Path("cut")), 2, parent)
    monkeypatch.setattr(train, "train_and_validate", one_epoch)
    train.train_phase(replace(options, out=Path("cut"), resume=True), 2, parent)
    assert_same_state("cut/phase2/last.pt", "whole/phase2/last.pt")


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
    train.train_phase(replace(options, overwrite=True), 1)
    best = Path("runs/2d/phase1/best.pt")
    content = best.read_bytes()
    best.unlink()
    train.train_phase(replace(options, resume=True), 1)
    assert best.read_bytes() == content  # the best was the last, so that it can be had back
    monkeypatch.setattr(train, "best_epoch", lambda history: 1)
    with pytest.raises(InputError, match="best.pt is missing, or not of epoch 1, the best so far"):
        train.train_phase(replace(options, resume=True), 1)
    best.unlink()
    with pytest.raises(InputError, match="best.pt is missing, or not of epoch 1, the best so far"):
        train.train_phase(replace(options, resume=True), 1)


def test_the_curves_of_phantoms_say_so(options, no_drawing, capsys):
    train.train_phase(options, 1)
    assert Path("runs/2d/phase1/curves.png").read_text() == "Phase 1: stroke"
    shutil.copytree(options.data, "phantoms")
    patients = read_prepared("phantoms")
    for patient in patients:
        patient.row["phantom"] = "0.115"
    write_cohort("phantoms/cohort.csv", patients)
    capsys.readouterr()
    train.train_phase(replace(options, data=Path("phantoms"), out=Path("phantom-runs")), 1)
    words = "phantoms, not clinical; best possible AUC 1.000"
    assert Path("phantom-runs/phase1/curves.png").read_text() == f"Phase 1: stroke\n{words}"
    assert f"phase 1  these are {words}\n" in capsys.readouterr().out


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
    assert "phase2/best.pt is of other training patients: 12 (seed 0) there, all (seed 0) here" in said
    (one, val), (two, _), _, (three, _) = zip(seen[::2], seen[1::2], strict=True)
    assert one == two < three and (len(one), len(three), len(val)) == (12, 18, 10)
    best = load_checkpoint("runs/2d/phase2/best.pt")
    assert best["settings"]["train_patients"] == 12
    assert (
        best["cohort"] == load_checkpoint("runs/2d/phase3/best.pt")["cohort"] == split_hash(read_prepared(options.data))
    )

    assert run_train.main([*line, "--train-patients", "19", "--phase", "all", "--width", "4", "--out", "new"]) == 2
    assert "of the patients in split 'train' 18 are prepared" in capsys.readouterr().err and not Path("new").exists()


@KINDS
def test_test_patients_are_never_read(options, kind, no_drawing):
    shutil.copytree(options.data, "data")
    for patient in read_prepared("data"):
        if patient.split == "test":
            Path(f"data/hemispheres/{patient.id}.npy").unlink()
    train.train_phase(replace(options, data=Path("data")), FIRST[kind])


def row(epoch, auc, loss=0.5):
    return {"epoch": epoch, "train_loss": 0.5, "val_loss": loss, "val_auc": auc}


def test_best_is_the_highest_auc_then_the_lowest_loss_then_the_first():
    assert early_stopping.best_epoch([row(1, 0.7), row(2, 0.9), row(3, 0.8)]) == 2
    assert early_stopping.best_epoch([row(1, 0.9, 0.5), row(2, 0.9, 0.4), row(3, 0.9, 0.4)]) == 2


def test_stops_when_the_auc_has_not_risen_for_patience_epochs():
    phase = replace(PHASES[1], patience=3, epochs=100)
    aucs = [0.5, 0.7, 0.7, 0.6, 0.7]  # rose in epoch 2; a lower loss at equal AUC does not count as rising
    ends = [
        early_stopping.is_finished([row(i + 1, auc, 0.5 - i / 10) for i, auc in enumerate(aucs[:n])], phase)
        for n in range(len(aucs) + 1)
    ]
    assert ends == [False, False, False, False, False, True]
    assert early_stopping.is_finished([row(1, 0.5)], replace(phase, epochs=1))


def test_in_phase_0_the_lowest_error_is_best_and_ends_patience():
    phase = replace(PHASES[0], patience=2, epochs=100)
    rows = [
        {"epoch": n, "train_loss": 0.1, "val_loss": loss, "nothing_loss": 0.3}
        for n, loss in enumerate((0.2, 0.1, 0.1, 0.15), 1)
    ]
    assert early_stopping.best_epoch(rows) == 2
    assert [early_stopping.is_finished(rows[:n], phase) for n in range(5)] == [False] * 4 + [True]


def test_a_loss_that_explodes_stops_with_a_message(options, no_drawing, capsys):
    code = run_train.main(
        ["--data", str(options.data), "--phase", "1", "--width", "4", "--lr", "1e30", "--final-lr", "1e30"]
    )
    assert code == 2
    said = capsys.readouterr().err
    assert "phase 1, epoch 1: the training loss is nan. Give a smaller --lr" in said


def test_too_little_memory_stops_with_a_message(options, no_drawing, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "train_one_epoch", full)
    with pytest.raises(InputError, match="cpu has too little memory for batches of 16. Give a smaller --batch-size"):
        train.train_phase(options, 1)


@pytest.mark.parametrize(("kind", "name"), [("2d", "backbone.conv1.weight"), ("3d", "encoder.down2.0.weight")])
def test_a_frozen_tensor_that_moves_is_an_error(options, kind, name, no_drawing, monkeypatch):
    options = replace(options, model=kind)
    train.train_phase(options, 1, "random")
    monkeypatch.setattr(train, "freeze", lambda network, modules: [name])  # says so, does nothing
    monkeypatch.setattr(train, "cache_features", lambda network, splits, *_: (network, splits))  # nothing could move
    with pytest.raises(AssertionError, match=f"frozen tensors moved: {name}"):
        train.train_phase(options, 2, f"runs/{kind}/phase1/best.pt")


@pytest.mark.parametrize(("flags", "message"), [
    ("", "give --phase 0, 1, 2, 3, 4 or all, --tumours TUMOURS.csv, --study table2, or --demo"),
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
    ("--study table2 --phase 1", "--study decides by itself about --phase"),
    ("--study table2 --train-patients 9", "--train-patients goes with --phase only"),
    ("--study table2 --overwrite", "--study decides by itself about --overwrite"),
    ("--study table3", "invalid choice: 'table3'"),
    ("--study table2 --model 3d --imagenet a.pt", "--imagenet is for the 2d model, and this study is of --model 3d"),
    ("--study table2 --model 2d --genesis a.pt", "--genesis is for the 3d model"),
    ("--study table2 --tumours a.csv --medical-2d a.pt --medical-3d b.pt", "leave one away"),
    ("--study table2 --shard 3/2", "3/2: I counts from 1 to N"),
    ("--phase 1 --imagenet a.pt", "--imagenet goes with --study table2 only"),
    ("--phase 1 --dry-run", "--dry-run goes with --study table2 only"),
    ("--demo --patients 9", "--patients goes with --demo --study table2 only"),
    ("--demo --study table2 --imagenet a.pt", "--demo decides by itself about --imagenet"),
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
    for flag in (
        "data model phase init out resume overwrite seed device precision epochs batch-size lr final-lr "
        "patience width demo study imagenet tumours medical-2d medical-3d genesis shard dry-run "
        "patients train-patients"
    ).split():
        assert f"--{flag}" in said
    assert all(action.help for action in run_train.build_parser()._actions)


@KINDS
def test_bf16_trains_and_differs(options, kind, no_drawing):
    options = replace(options, model=kind, values={"epochs": 1})
    train.train_phase(options, 1, "random")
    train.train_phase(replace(options, out=Path("half"), precision="bf16"), 1, "random")
    half = load_checkpoint("half/phase1/best.pt")
    assert {tensor.dtype for tensor in half["state_dict"].values() if tensor.is_floating_point()} == {torch.float32}
    assert not weights_equal(f"runs/{kind}/phase1/best.pt", "half/phase1/best.pt")
    losses = [
        float(Path(f"{folder}/phase1/log.csv").read_text().splitlines()[1].split(",")[2])
        for folder in (f"runs/{kind}", "half")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@KINDS
def test_shift_moves_what_is_learned_from(options, kind, no_drawing):
    options = replace(options, model=kind)
    for shift in (0, 1, 2):
        train.train_phase(replace(options, out=Path(f"by{shift}"), values={"epochs": 1, "shift": shift}), 1, "random")
    train.train_phase(replace(options, out=Path("default"), values={"epochs": 1}), 1, "random")
    assert not weights_equal("by0/phase1/best.pt", "by1/phase1/best.pt")
    assert not weights_equal("by1/phase1/best.pt", "by2/phase1/best.pt")
    assert weights_equal("by1/phase1/best.pt", "default/phase1/best.pt")
    assert load_checkpoint("by2/phase1/best.pt")["settings"]["shift"] == 2


def test_phase_0_is_not_moved_and_its_flag_refused(options, capsys, no_drawing):
    options = replace(options, model="3d", values={"epochs": 1, "shift": 2})
    train.train_phase(options, 0)
    assert load_checkpoint("runs/3d/phase0/best.pt")["settings"]["shift"] == 0
    with pytest.raises(SystemExit):
        run_train.main(["--phase", "0", "--shift", "1"])
    assert "--shift goes with phases 1 to 4" in capsys.readouterr().err


def test_a_shift_out_of_the_picture_is_refused(options):
    with pytest.raises(InputError, match="--shift 4 moves hemispheres by up to 16 pixels, and those in .* are 32 x 16"):
        train.train_phase(replace(options, values={"shift": 4}), 1, "random")
