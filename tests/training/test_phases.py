import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tss.data.tasks import RESTORE, TASKS
from tss.errors import InputError
from tss.training.phases import (
    FROZEN,
    PAPER,
    RECIPES,
    WIDTH,
    build_model,
    freeze,
    frozen_modules,
    long_enough,
    schedule_in_words,
    share_of,
)


def test_the_table_is_the_papers():
    rows = {
        n: (p.task, p.parent_of("2d"), p.parent_of("3d"), p.freezes, p.attention, p.batch_size, p.lr, p.final_lr)
        for n, p in PAPER.items()
    }
    assert rows == {
        0: ("restore", None, None, False, False, 8, 0.0005, 0.01),
        1: ("stroke", None, 0, False, False, 16, 0.0005, 0.01),
        2: ("tss<3h", 1, 1, True, False, 8, 0.00001, 0.001),
        3: ("tss<4.5h", 2, 2, True, False, 8, 0.00001, 0.001),
        4: ("tss<4.5h", 3, 3, True, True, 8, 0.00001, 0.001),
    }
    assert [n for n, p in PAPER.items() if "2d" not in p.models] == [0]
    assert all(p.number == n and p.task in (*TASKS, RESTORE) for n, p in PAPER.items())
    assert all((p.epochs, p.patience) == (100, 10) for p in PAPER.values())


def test_the_table_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        PAPER[1].lr = 1.0


def test_described_with_every_rate():
    text = schedule_in_words()
    assert "phase 3" in text and "1e-05" in text and len(text.splitlines()) == 9
    assert "\n0      restore   -        random" in text and "\n1      stroke    random   phase 0" in text


def test_reading_the_table_does_not_load_torch():
    code = "import sys, tss.training.phases, run_train; run_train.build_parser(); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_frozen_part_stands_still_through_training_while_the_rest_moves(model):
    torch.manual_seed(0)
    network = build_model(model, width=4, grid=[32, 32, 4], attention=False)
    names = freeze(network, FROZEN[model])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.rand(2, 3, 4, 32, 16)).sum().backward()
        optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    alone = {name for name in before if model == "3d" and name.endswith((".0.bias", ".3.bias"))}  # BatchNorm's doing
    assert moved == set(before) - set(names) - alone
    assert not any(network.get_submodule(name).training for name in FROZEN[model])
    assert network.get_submodule("backbone.layer2" if model == "2d" else "encoder.down3").training


def test_frozen_are_conv1_its_norm_and_the_first_two_blocks():
    network = build_model("2d", width=4, grid=[32, 32, 4], attention=True)
    names = freeze(network, FROZEN["2d"])
    assert len(names) == 1 + 5 + 2 * (2 + 2 * 5)  # a BatchNorm has 2 parameters and 3 buffers
    assert "backbone.bn1.num_batches_tracked" in names and "backbone.layer1.1.bn2.running_var" in names
    assert not any(name.startswith("backbone.layer2") for name in names)


def test_frozen_in_3d_are_the_first_two_layers_on_the_way_down():
    network = build_model("3d", width=4, grid=[32, 32, 4], attention=True)
    names = freeze(network, FROZEN["3d"])
    assert len(names) == 4 * (2 + 5) and {name.split(".")[1] for name in names} == {"down1", "down2"}


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_the_frozen_part_and_the_rest_are_the_whole(model):
    torch.manual_seed(0)
    network = build_model(model, width=4, grid=[32, 32, 13], attention=True).eval()
    x = torch.rand(2, 3, 13, 32, 16)
    assert torch.equal(network(x), network.after_frozen(network.frozen(x))) and network(x).shape == (2,)
    trained = [(name, tensor) for name, tensor in network.named_parameters() if tensor.requires_grad]
    changed = {name for name, _ in trained if name.startswith(FROZEN[model])}
    given = torch.autograd.grad(network.frozen(x).sum(), [tensor for _, tensor in trained], allow_unused=True)
    used = {name for (name, _), grad in zip(trained, given, strict=True) if grad is not None}
    assert used == changed  # frozen() is those layers, all of them and no other


def test_unknown_model_and_a_single_slice_are_refused():
    with pytest.raises(InputError, match="no model '4d': choose one of 2d, 3d"):
        build_model("4d", width=4, grid=[32, 32, 4], attention=False)
    with pytest.raises(InputError, match="at least 2, and the grid .* has 1"):
        build_model("2d", width=4, grid=[32, 32, 1], attention=False)


@pytest.mark.parametrize("recipe", ["paper", "extended"])
@pytest.mark.parametrize("model", ["2d", "3d"])
def test_every_phases_network_is_built_and_classifies(model, recipe):
    for number in (1, 3, 4):
        phase = RECIPES[recipe][number]
        network = build_model(model, 4, [32, 32, 4], phase.attention, phase.task, recipe=recipe).eval()
        with torch.no_grad():
            logits = network(torch.rand(2, 3, 4, 32, 16))
        assert logits.shape == (2,) and torch.isfinite(logits).all()


def test_what_the_paper_has_no_rates_for():
    slices, gates = ("slice_logits", 0.01, 0.1), ("gate", 0.0005, 0.01)
    assert {n: p.own_rates for n, p in PAPER.items()} == {
        0: (), 1: (slices,), 2: (slices,), 3: (slices,), 4: (slices, gates)
    }  # fmt: skip
    assert WIDTH == {"2d": 64, "3d": 32}


def test_the_extended_recipes_table():
    rows = {
        n: (p.epochs, p.keeps, p.lr, p.final_lr, p.fits_classifier, p.least_steps, len(p.strongest), p.own_rates)
        for n, p in RECIPES["extended"].items()
        if n
    }
    assert rows == {
        1: (8, "last", 0.01, 0.1, False, 272, 5, ()),
        2: (5, "last", 0.01, 0.1, True, 0, 0, ()),
        3: (5, "last", 0.01, 0.1, True, 0, 0, ()),
        4: (5, "last", 0.01, 0.1, True, 0, 0, ()),
    }
    assert [p.freezes for p in RECIPES["extended"].values()] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("hemispheres", "epochs"), [(544, 8), (545, 8), (24, 136), (272, 16), (16, 272), (1, 272), (2000, 8)]
)
def test_few_patients_have_more_epochs(hemispheres, epochs):
    """272 steps at least: of 544 hemispheres in batches of 16 there are 34 an epoch."""
    assert long_enough(RECIPES["extended"][1], hemispheres).epochs == epochs
    assert long_enough(PAPER[1], hemispheres).epochs == 100


@pytest.mark.parametrize(("model", "backbone"), [("2d", "backbone"), ("3d", "encoder")])
def test_all_that_finds_the_stroke_is_frozen_in_the_extended_recipe(model, backbone):
    phase = RECIPES["extended"][2]
    network = build_model(model, 4, [32, 32, 4], False, phase.task, recipe="extended")
    assert frozen_modules(phase, model) == (backbone, "evidence") and frozen_modules(PAPER[2], model) == FROZEN[model]
    frozen = freeze(network, frozen_modules(phase, model))
    left = {name for name in network.state_dict() if name not in frozen}
    assert left == {
        "slice_logits", "log_sharpness", "least", "clearness", "classifier.weight", "classifier.bias", "healthy",
        "feature_mean", "feature_sd",
    }  # fmt: skip


def test_phase_1_looks_wide_first_and_narrow_at_the_end():
    phase = RECIPES["extended"][1]
    assert [share_of(phase, epoch) for epoch in range(1, 9)] == [0.2, 0.05, 0.0125, 0.003, *[0.0008] * 4]
    for epochs in range(1, 8):  # what is kept is what build_model() makes again
        assert share_of(replace(phase, epochs=epochs), epochs) == 0.0008
    longer = long_enough(phase, 272)
    assert [share_of(longer, epoch) for epoch in (1, 2, 3, 8, 9, 16)] == [0.2, 0.2, 0.05, 0.003, 0.0008, 0.0008]
