import copy
import inspect
import math
import shutil
import warnings

import numpy as np
import pytest
import torch

from tss.data.prepared import read_prepared
from tss.errors import InputError
from tss.training.dataset import batches, load_split
from tss.training.device import choose_device
from tss.training.epoch import LOSS, build_optimizer, predict, probability, train_one_epoch
from tss.training.phases import build_model

GRID = (32, 32, 4)
CPU = torch.device("cpu")


def test_hemispheres_and_labels_of_a_split(tiny_data):
    patients = read_prepared(tiny_data)
    split = load_split(tiny_data, patients, "stroke", "val", GRID)
    assert split.hemispheres.shape == (20, 3, 4, 32, 16) and split.hemispheres.dtype == torch.float16
    first, second = split.samples[:2]
    assert (first.patient, first.side, second.side) == ("p18", "left", "right")
    both = np.load(tiny_data / "hemispheres" / "p18.npy")
    assert torch.equal(split.hemispheres[0], torch.from_numpy(both[0]))
    assert torch.equal(split.hemispheres[1], torch.from_numpy(both[1]))
    assert split.labels[:2].tolist() == [1.0, 0.0]  # p18: left


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), "p00.npy is missing or damaged.*Run run_preprocess.py again"),
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "p00.npy is missing or damaged"),
    (lambda path: path.write_text("no array"), "p00.npy is missing or damaged"),
    (lambda path: np.save(path, np.zeros((2, 3, 4, 32, 8), np.float16)), r"p00.npy has the shape \(2, 3, 4, 32, 8\)"),
    (lambda path: np.save(path, np.zeros((2, 3, 4, 32, 16), np.float16)), "p00.npy: the left hemisphere is empty"),
    (lambda path: np.save(path, np.full((2, 3, 4, 32, 16), np.nan, np.float16)), "empty or not finite"),
    (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "p00.npy is missing or damaged"),
])  # fmt: skip
def test_damaged_hemispheres_are_refused(tiny_data, tmp_path, damage, message):
    shutil.copytree(tiny_data, tmp_path / "data")
    damage(tmp_path / "data" / "hemispheres" / "p00.npy")
    with pytest.raises(InputError, match=message):
        load_split(tmp_path / "data", read_prepared(tmp_path / "data"), "stroke", "train", GRID)


def test_adabound_steps_on_this_torch_without_a_warning():
    weight = torch.nn.Linear(2, 1, bias=False)
    weight.weight.data = torch.tensor([[1.0, -2.0]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = build_optimizer(weight, lr=0.01, final_lr=0.1)
        weight(torch.tensor([3.0, 5.0])).backward()  # gradient 3, 5
        optimizer.step()
    # First step of Adam: lr * sign(gradient); the bounds at step 1, 1e-4 and 100, do not touch it.
    assert weight.weight.detach().flatten().tolist() == pytest.approx([1 - 0.01, -2 - 0.01], abs=1e-6)
    assert [str(w.message) for w in caught] == []


def test_only_what_is_trained_is_in_the_optimizer():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    layers[0].requires_grad_(False)
    (group,) = build_optimizer(layers, lr=0.1, final_lr=0.1).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in layers[1].parameters()]


def test_batches_follow_the_order_and_keep_the_last_single_one(tiny_data):
    split = load_split(tiny_data, read_prepared(tiny_data), "tss<3h", "val", GRID)
    order = [3, 1, 2, 9, 0]
    got = list(batches(split, order, 2, CPU))
    assert [len(labels) for _, labels in got] == [2, 2, 1]
    assert torch.equal(torch.cat([inputs for inputs, _ in got]), split.hemispheres[order].float())


class Scale(torch.nn.Module):
    """logit = weight * mean of the hemisphere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1)


def test_loss_of_an_epoch_is_the_mean_over_hemispheres_not_batches():
    network = Scale(0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    unequal = [(torch.ones(3, 1, 1, 1, 1), torch.tensor([1.0, 1, 1])), (torch.ones(1, 1, 1, 1, 1), torch.tensor([1.0]))]

    def loss_of(logits, labels):
        return logits.sum() * 0 + len(labels)

    assert train_one_epoch(network, optimizer, loss_of, unequal, "fp32") == (3 * 3 + 1 * 1) / 4
    assert train_one_epoch(network, optimizer, LOSS, unequal, "fp32") == pytest.approx(math.log(2), abs=1e-6)


def test_a_loss_that_is_not_finite_stops():
    network = Scale(float("nan"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match="the training loss is nan"):
        train_one_epoch(network, optimizer, LOSS, [(torch.ones(1, 1, 1, 1, 1), torch.ones(1))], "fp32")
    with pytest.raises(FloatingPointError, match="outputs are not finite"):
        predict(network, torch.ones(3, 1, 1, 1, 1), 2, CPU, "fp32")


def test_prediction_leaves_the_network_alone_whatever_the_batch_size():
    torch.manual_seed(0)
    network = build_model("2d", 4, GRID, attention=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hemispheres = torch.rand(5, 3, 4, 32, 16).half()
    one, all_at_once = (predict(network, hemispheres, size, CPU, "fp32") for size in (1, 5))
    assert one == pytest.approx(all_at_once, abs=1e-6) and one.dtype == np.float64 and one.std() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert predict(network, hemispheres, 5, CPU, "bf16") == pytest.approx(one, abs=0.05)
    assert (predict(network, hemispheres, 5, CPU, "bf16") != one).any()


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_bf16_is_right_on_every_cpu(model):
    # A map of 1 pixel: with AMX oneDNN's bf16 gives 2D outputs that are 0.2 off (tss.training.device.without_onednn_bf16).
    torch.manual_seed(0)
    network = build_model(model, 16, [64, 96, 6], attention=False)
    hemispheres, targets = torch.randn(2, 3, 6, 96, 32), torch.tensor([0.0, 1.0])
    steps = {}
    for precision in ("fp32", "bf16"):
        learner = copy.deepcopy(network)
        optimizer = torch.optim.SGD(learner.parameters(), lr=0)
        loss = train_one_epoch(learner, optimizer, LOSS, [(hemispheres, targets)], precision)
        given = [weight.grad.flatten() for weight in learner.parameters() if weight.grad is not None]
        steps[precision] = loss, torch.cat(given)
    assert steps["bf16"][0] == pytest.approx(steps["fp32"][0], rel=0.02)
    assert steps["bf16"][0] != steps["fp32"][0]
    # 8 bits, and BatchNorm divides by the spread of a few voxels
    assert torch.cosine_similarity(steps["bf16"][1], steps["fp32"][1], dim=0) > 0.9
    assert torch.backends.mkldnn.enabled


def test_probability_by_hand_and_at_the_ends():
    assert probability(np.array([0.0, math.log(3), -math.log(3)])) == pytest.approx([0.5, 0.75, 0.25], abs=1e-15)
    assert probability(np.array([1e4, -1e4])).tolist() == [1.0, 0.0]


def test_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == CPU
    for name in ("gpu9", "cuda:77", "meta"):
        with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
            choose_device(name)


def test_a_gpu_that_cannot_compute_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ones = torch.ones

    def too_old(*sizes, device):
        if device.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
        return ones(*sizes, device=device)

    monkeypatch.setattr(torch, "ones", too_old)
    with pytest.raises(
        InputError,
        match="--device auto cannot be used here: CUDA error: no kernel image is available "
        "for execution on the device. Give --device cpu",
    ):
        choose_device("auto")


def test_the_loop_can_be_read_aloud():
    assert len(inspect.getsource(train_one_epoch).splitlines()) <= 40
