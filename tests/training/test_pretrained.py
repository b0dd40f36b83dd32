"""Weights of other programs: each name where it belongs, the channel rule, and a stop at whatever is unexpected."""

import pytest
import torch
from torch import nn

from tss.errors import InputError
from tss.training.checkpoint import check_parent, read_torch_file, start_from
from tss.training.phases import RECIPES, build_model
from tss.training.pretrained import GENESIS, recognise_weights

GRID = [32, 32, 4]


def genesis(width=4, channels=1):
    """A state_dict with the names and shapes of the published Models Genesis network, numbered in its order."""

    def conv(name, channels_in, channels_out, side=3):
        return {f"{name}.weight": (channels_out, channels_in, side, side, side), f"{name}.bias": (channels_out,)}

    def pair(name, channels_in, inner, out):
        shapes = {}
        for number, (a, b) in enumerate(((channels_in, inner), (inner, out))):
            shapes |= conv(f"{name}.ops.{number}.conv1", a, b)
            norm = f"{name}.ops.{number}.bn1"
            shapes |= {f"{norm}.{part}": (b,) for part in ("weight", "bias", "running_mean", "running_var")}
            shapes[f"{norm}.num_batches_tracked"] = ()
        return shapes

    w, shapes = width, {}
    for name, a, b, c in (
        ("down_tr64", channels, w, 2 * w),
        ("down_tr128", 2 * w, 2 * w, 4 * w),
        ("down_tr256", 4 * w, 4 * w, 8 * w),
        ("down_tr512", 8 * w, 8 * w, 16 * w),
    ):
        shapes |= pair(name, a, b, c)
    for name, a, b in (("up_tr256", 16 * w, 8 * w), ("up_tr128", 8 * w, 4 * w), ("up_tr64", 4 * w, 2 * w)):
        shapes |= {f"{name}.up_conv.weight": (a, a, 2, 2, 2), f"{name}.up_conv.bias": (a,)}
        shapes |= pair(name, a + b, b, b)
    shapes |= conv("out_tr.final_conv", 2 * w, channels, side=1)
    return {
        name: torch.full(shape, float(number)) if shape else torch.tensor(number)
        for number, (name, shape) in enumerate(shapes.items(), 1)
    }


def published(state):
    return {
        "epoch": 7,
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1.0}]},
    }


@pytest.mark.parametrize("in_zip", [True, False])  # torch 1.3.1, which wrote the published file, knew no zip
def test_models_genesis_into_the_classifier(tmp_path, in_zip):
    torch.save(published(genesis()), tmp_path / "g.pt", _use_new_zipfile_serialization=in_zip)
    parent = recognise_weights(read_torch_file(tmp_path / "g.pt"), tmp_path / "g.pt")
    assert (parent.checkpoint["model"], parent.checkpoint["width"], parent.checkpoint["phase"]) == ("3d", 4, None)
    network = build_model("3d", 4, GRID, attention=False)
    assert start_from(network, parent) == (
        "56 tensors loaded, 2 (Models Genesis classifies nothing) new, 50 (the decoder is not needed to classify) left "
        "over"
    )
    theirs, ours = genesis(), network.state_dict()
    for their_name, our_name in {
        "down_tr64.ops.1.conv1.weight": "encoder.down1.3.weight",
        "down_tr128.ops.0.bn1.running_var": "encoder.down2.1.running_var",
        "down_tr256.ops.1.bn1.bias": "encoder.down3.4.bias",
        "down_tr512.ops.0.conv1.bias": "encoder.down4.0.bias",
        "down_tr512.ops.1.bn1.num_batches_tracked": "encoder.down4.4.num_batches_tracked",
    }.items():
        assert torch.equal(ours[our_name], theirs[their_name])


def test_models_genesis_as_a_whole_into_phase_0(tmp_path):
    network = build_model("3d", 4, GRID, attention=False, task="restore")
    parent = recognise_weights(published(genesis()), tmp_path)
    assert start_from(network, parent) == "106 tensors loaded, 0 new, 0 left over"
    theirs, ours = genesis(), network.state_dict()
    assert torch.equal(ours["up3.up.weight"], theirs["up_tr256.up_conv.weight"])
    assert torch.equal(ours["up1.convolutions.3.bias"], theirs["up_tr64.ops.1.conv1.bias"])
    assert ours["out.bias"].tolist() == theirs["out_tr.final_conv.bias"].tolist() * 3


def test_the_name_map_covers_every_tensor_once():
    assert len(GENESIS) == len(set(GENESIS.values())) == 7 * 4 + 3 + 1
    parts = {name.rpartition(".")[0] for name in build_model("3d", 4, GRID, False, "restore").state_dict()}
    assert set(GENESIS.values()) == parts


def test_our_tensors_under_the_names_of_models_genesis_and_back():
    state = build_model("3d", 4, GRID, False, "restore").state_dict()
    names = {ours: name for name, ours in GENESIS.items()}
    parts = {name: name.rpartition(".") for name in state}
    theirs = {f"{names[part]}.{kind}": state[name] for name, (part, _, kind) in parts.items()}
    assert theirs.keys() == genesis(channels=3).keys()
    assert torch.equal(theirs["up_tr256.up_conv.weight"], state["up3.up.weight"])
    back = recognise_weights(theirs, "g.pt").checkpoint["state_dict"]
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_three_equal_channels_give_what_one_gave():
    weight = torch.rand(4, 1, 3, 3, 3)
    parent = recognise_weights(genesis() | {"down_tr64.ops.0.conv1.weight": weight}, "g.pt")
    three = parent.checkpoint["state_dict"]["encoder.down1.0.weight"]
    x = torch.rand(1, 1, 6, 8, 8)
    assert torch.allclose(
        nn.functional.conv3d(x.repeat(1, 3, 1, 1, 1), three), nn.functional.conv3d(x, weight), atol=1e-5
    )
    as_it_is = recognise_weights(genesis(channels=3), "g.pt").checkpoint["state_dict"]
    assert as_it_is["encoder.down1.0.weight"].shape == (4, 3, 3, 3, 3) and as_it_is["encoder.down1.0.weight"].max() == 1


def resnet(width=4, classes=10):
    state = {
        name.removeprefix("backbone."): value
        for name, value in build_model("2d", width, GRID, attention=False).state_dict().items()
        if name.startswith("backbone.")
    }
    return state | {"fc.weight": torch.zeros(classes, 8 * width), "fc.bias": torch.zeros(classes)}


@pytest.mark.parametrize("attention", [False, True])
def test_resnet18_into_the_2d_model(tmp_path, attention):
    torch.save(resnet(), tmp_path / "resnet18.pth")
    parent = recognise_weights(read_torch_file(tmp_path / "resnet18.pth"), tmp_path / "resnet18.pth")
    network = build_model("2d", 4, GRID, attention)
    said = start_from(network, parent)
    assert said.startswith("120 tensors loaded, ") and said.endswith(", 2 (its own 10 classes) left over")
    reasons = "ResNet-18 does not weight slices; ResNet-18 has no gates; ours has one output"
    assert (f"9 ({reasons}) new" if attention else f"3 ({reasons.replace('ResNet-18 has no gates; ', '')}) new") in said
    assert torch.equal(
        network.backbone.layer4[1].conv2.weight, parent.checkpoint["state_dict"]["backbone.layer4.1.conv2.weight"]
    )


@pytest.mark.parametrize(("model", "weights", "loaded"), [("3d", genesis, 56), ("2d", resnet, 120)])
def test_published_weights_start_phase_1_of_the_extended_recipe_and_no_later_one(model, weights, loaded):
    """In the extended chain of a study with --genesis, phase 1 comes after all of the paper's phases."""
    parent = recognise_weights(weights(), "w.pt")
    network = build_model(model, 4, GRID, False, recipe="extended")
    said = start_from(network, parent)
    assert said.startswith(f"{loaded} tensors loaded, ") and "looks for no evidence" in said
    name = {"3d": "encoder.down4.3.weight", "2d": "backbone.layer4.1.conv2.weight"}[model]
    assert torch.equal(network.state_dict()[name], parent.checkpoint["state_dict"][name])
    wanted = {"model": model, "width": 4, "grid": GRID}
    check_parent(parent, RECIPES["extended"][1], wanted, {})
    with pytest.raises(InputError, match="w.pt .* finds no stroke.*--phase 1 --recipe extended --init w.pt"):
        check_parent(parent, RECIPES["extended"][2], wanted, {})


def test_files_from_before_batchnorm_had_counters():
    old = {name: value for name, value in resnet().items() if not name.endswith("num_batches_tracked")}
    network = build_model("2d", 4, GRID, attention=False)
    assert start_from(network, recognise_weights(old, "r.pth")).startswith("120 tensors loaded, 3 (")


def test_double_precision_is_rounded_once_so_that_frozen_layers_can_be_proven():
    double = {
        name: torch.rand(value.shape, dtype=torch.float64) if value.is_floating_point() else value
        for name, value in resnet().items()
    }
    network, parent = build_model("2d", 4, GRID, attention=False), recognise_weights(double, "r.pth")
    start_from(network, parent)
    name = "backbone.layer1.0.conv1.weight"
    assert torch.equal(network.state_dict()[name], parent.checkpoint["state_dict"][name])
    assert torch.equal(parent.checkpoint["state_dict"][name], double["layer1.0.conv1.weight"].float())


@pytest.mark.parametrize(("content", "message"), [
    (published(genesis() | {"down_tr64.ops.2.conv1.weight": torch.zeros(1)}), "2.conv1.weight is not one of its"),
    ({"layer1.weight": torch.zeros(1)}, r"it has no 'format', and its 1 tensors \(first layer1.weight\) are not those"),
    ({"model": {"weight": 3}}, "neither a checkpoint of this suite nor a state_dict"),
    ([1, 2], "neither a checkpoint of this suite nor a state_dict"),
    ({}, r"its 0 tensors \(first none\)"),
])  # fmt: skip
def test_other_files_are_refused(content, message):
    with pytest.raises(InputError, match=message):
        recognise_weights(content, "other.pt")


def test_what_does_not_fit_stops_the_start():
    network = build_model("2d", 4, GRID, attention=False)
    bottleneck = recognise_weights(resnet() | {"layer1.0.conv3.weight": torch.zeros(1)}, "r50.pth")  # as ResNet-50 has
    with pytest.raises(InputError, match="r50.pth: 1 tensors left over, first backbone.layer1.0.conv3.weight"):
        start_from(network, bottleneck)
    cut = resnet()
    del cut["layer4.1.bn2.bias"]
    with pytest.raises(InputError, match="1 tensors missing, first backbone.layer4.1.bn2.bias"):
        start_from(network, recognise_weights(cut, "r.pth"))
    with pytest.raises(InputError, match="tensors of another shape, first backbone"):
        start_from(network, recognise_weights(resnet(width=8), "r.pth"))
    two = genesis()
    two["down_tr64.ops.0.conv1.weight"] = torch.zeros(4, 2, 3, 3, 3)
    with pytest.raises(InputError, match="1 tensors of another shape, first encoder.down1.0.weight"):
        start_from(build_model("3d", 4, GRID, attention=False), recognise_weights(two, "g.pt"))
