import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import FAST, FIRST, KINDS, RECIPES, weights_equal

from tss.data.cohort import write_cohort
from tss.data.files import read_json, sha256
from tss.data.prepared import read_prepared
from tss.data.splits import split_hash
from tss.errors import InputError
from tss.training import feature_cache, run_setup, train
from tss.training.checkpoint import KEYS, load_checkpoint, load_model
from tss.training.dataset import load_split
from tss.training.epoch import predict, probability
from tss.training.phases import FROZEN, FROZEN_WITH_EVIDENCE, PAPER
from tss.training.run_setup import Options
from tss.training.what_moved import PARTS

FROZEN_BY = {"paper": FROZEN, "extended": FROZEN_WITH_EVIDENCE}
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


@pytest.mark.slow
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
        assert (checkpoint["phase"], checkpoint["task"]) == (number, PAPER[number].task)
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
        assert f"phase {number}  the features of the frozen layers are computed once: " in said
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
        assert len(moved) == len(parent["state_dict"]) - still - biases
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
@RECIPES
def test_what_is_learned_from_is_the_same_whether_the_frozen_part_is_computed_once_or_not(
    options, kind, recipe, no_drawing, monkeypatch
):
    options = replace(options, model=kind, recipe=recipe, values={"epochs": 2, "lr": 1e-4, "final_lr": 1e-2})
    train.train_phase(replace(options, out=Path("once")), 1, "random")
    for name in ("once", "file", "direct"):
        if name == "file":
            monkeypatch.setattr(feature_cache, "MOST", 0)
        if name == "direct":
            monkeypatch.setattr(feature_cache, "place_for", lambda *_: None)
        train.train_phase(replace(options, out=Path(name)), 2, "once/phase1/best.pt")
    assert weights_equal("once/phase2/last.pt", "file/phase2/last.pt")
    assert Path("once/phase2/log.csv").read_bytes() == Path("file/phase2/log.csv").read_bytes()
    assert {file.name for file in Path("file/phase2").iterdir()} == {
        file.name for file in Path("once/phase2").iterdir()
    }
    once, direct = (load_checkpoint(f"{name}/phase2/last.pt") for name in ("once", "direct"))
    assert once["settings"]["data"] == direct["settings"]["data"]  # of the hemispheres, not of what was made of them
    for name, tensor in once["state_dict"].items():
        difference = (tensor.double() - direct["state_dict"][name].double()).norm()
        assert difference <= 1e-5 * tensor.double().norm(), name


@KINDS
def test_hemispheres_on_disk_are_learned_from_as_if_they_lay_in_memory(options, kind, no_drawing, monkeypatch):
    train.train_phase(replace(options, out=Path("disk")), FIRST[kind])

    def in_memory(*args):
        split = load_split(*args)
        return split._replace(hemispheres=split.hemispheres[:])

    monkeypatch.setattr(train, "load_split", in_memory)
    train.train_phase(replace(options, out=Path("memory")), FIRST[kind])
    assert weights_equal(*(f"{name}/phase{FIRST[kind]}/last.pt" for name in ("disk", "memory")))
    logs = [Path(name, f"phase{FIRST[kind]}", "log.csv").read_bytes() for name in ("disk", "memory")]
    assert logs[0] == logs[1]


@pytest.mark.slow
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
    with pytest.raises(InputError, match="resnet18.pth .ResNet-18. has model 2d, this run has 3d"):
        train.train_phase(replace(options, model="3d"), 1, "resnet18.pth")


@KINDS
def test_phase_4_has_phase_3s_outputs_before_its_first_step(options, kind, no_drawing, monkeypatch):
    options = replace(options, model=kind)
    train.train_phase(options, 3, "random")
    monkeypatch.setattr(train, "is_finished", lambda history, phase: True)
    monkeypatch.setattr(train, "finish_run", lambda run, state, val, features: state)
    state = train.train_phase(options, 4, f"runs/{kind}/phase3/best.pt")
    before, _ = load_model(f"runs/{kind}/phase3/best.pt")
    hemispheres = torch.rand(6, 3, 4, 32, 16)
    with torch.no_grad():
        assert (before(hemispheres) - state.network.eval()(hemispheres)).abs().max() <= 1e-6


@pytest.mark.slow
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
    words = "phantoms, not clinical"
    assert Path("phantom-runs/phase1/curves.png").read_text() == f"Phase 1: stroke\n{words}"
    assert f"phase 1  these are {words}\n" in capsys.readouterr().out


@pytest.mark.slow
@KINDS
def test_test_patients_are_never_read(options, kind, no_drawing):
    shutil.copytree(options.data, "data")
    for patient in read_prepared("data"):
        if patient.split == "test":
            Path(f"data/hemispheres/{patient.id}.npy").unlink()
    train.train_phase(replace(options, data=Path("data")), FIRST[kind])


def test_too_little_memory_stops_with_a_message(options, no_drawing, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "train_one_epoch", full)
    with pytest.raises(InputError, match="cpu has too little memory for batches of 16. Give a smaller --batch-size"):
        train.train_phase(options, 1)


@pytest.mark.parametrize(("kind", "recipe", "name"), [
    ("2d", "paper", "backbone.conv1.weight"), ("3d", "paper", "encoder.down2.0.weight"),
    ("2d", "extended", "evidence.voxel.0.weight"), ("3d", "extended", "evidence.voxel.0.weight"),
])  # fmt: skip
def test_a_frozen_tensor_that_moves_is_an_error(options, kind, recipe, name, no_drawing, monkeypatch):
    options = replace(options, model=kind, recipe=recipe, out=Path("out"))
    train.train_phase(options, 1, "random")
    monkeypatch.setattr(train, "freeze", lambda network, modules: [name])  # says so, does nothing
    monkeypatch.setattr(train, "cache_features", lambda network, splits, *_: (network, splits))  # nothing could move
    with pytest.raises(AssertionError, match=f"frozen tensors changed: {name}"):
        train.train_phase(options, 2, "out/phase1/best.pt")


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


@pytest.fixture(scope="module", params=[(kind, recipe) for kind in ("2d", "3d") for recipe in ("paper", "extended")])
def schedule(request, tiny_data, tmp_path_factory):
    """Phases 1 to 4 of a model and a recipe: options, the best checkpoints by phase, what was printed."""
    kind, recipe = request.param
    said, out = [], tmp_path_factory.mktemp("schedule")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.training_plots, "draw_curves", lambda path, *_: path.touch())
        patch.setattr(run_setup.Run, "say", lambda self, text: said.append(f"phase {self.phase.number}  {text}"))
        values = {"epochs": 6, "batch_size": 4, "lr": 1e-2, "final_lr": 1e-1}
        options = Options(data=tiny_data, out=out, model=kind, width=4, recipe=recipe, device="cpu", values=values)
        best, init = {}, "random"
        for number in (1, 2, 3, 4):
            best[number] = init = train.train_phase(options, number, str(init))
    return options, best, said


def test_what_is_frozen_is_bit_equal_and_every_other_part_moves(schedule):
    options, best, said = schedule
    modules = FROZEN_BY[options.recipe][options.model]
    for number in (2, 3, 4):
        checkpoint, parent = load_checkpoint(best[number]), load_checkpoint(best[number - 1])
        names = [name for name in checkpoint["state_dict"] if name.startswith(tuple(f"{one}." for one in modules))]
        assert checkpoint["frozen"] == names and checkpoint["recipe"] == options.recipe
        for file in ("best.pt", "last.pt"):
            state = load_checkpoint(best[number].with_name(file))["state_dict"]
            assert all(torch.equal(state[name], parent["state_dict"][name]) for name in names)
        assert f"phase {number}  the features of the frozen layers are computed once" in "\n".join(said)
        moved = read_json(best[number].with_name("settings.json"))["what_moved"]["last"]["moved"]
        still = {part for part, way in moved.items() if way == 0}
        assert still == {part for part in moved if all(name.startswith(modules) for name in PARTS[part])}
        assert ("gates" in moved) == (number == 4)
        assert all(way is None or way >= 1e-3 for part, way in moved.items() if part not in still), moved


def test_phase_1_finds_the_stroke_and_the_extended_recipe_where_it_is(schedule):
    options, best, _ = schedule
    network, checkpoint = load_model(best[1])
    assert checkpoint["val_auc"] >= 0.8  # the tiny patients can be learned
    if options.recipe == "extended":
        val = load_split(options.data, read_prepared(options.data), "stroke", "val", checkpoint["grid"])
        ill = val.hemispheres[val.labels == 1].float()
        with torch.no_grad():
            evidence = network.evidence_map(ill)
        bright = ill[:, 0] > 0.65  # the square
        assert (evidence[bright].mean() - evidence[~bright].mean()).item() > 1
        for number in (2, 3, 4):
            later, _ = load_model(best[number])
            with torch.no_grad():
                assert torch.equal(later.evidence_map(ill), evidence)


def test_a_parent_of_the_other_recipe_is_refused(schedule, tmp_path):
    options, best, _ = schedule
    other = {"paper": "extended", "extended": "paper"}[options.recipe]
    message = f"was trained by --recipe {options.recipe}, this run has --recipe {other}. Omit --recipe"
    for number in (2, 3, 4):
        with pytest.raises(InputError, match=message):
            train.train_phase(replace(options, out=tmp_path, recipe=other), number, str(best[number - 1]))
    assert not list(tmp_path.iterdir())
