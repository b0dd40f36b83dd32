import copy
import math
import warnings

import numpy as np
import pytest
import torch

from tss.errors import InputError
from tss.training.epoch import LOSS, build_optimizer, predict, probability, train_one_epoch
from tss.training.phases import build_model

GRID = (32, 32, 4)
CPU = torch.device("cpu")


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


def adabound_steps(weight, gradients, lr, final_lr, betas=(0.9, 0.999), gamma=1e-3, eps=1e-8):
    """Luo 2019, algorithm 2, as published: Adam whose step sizes are clipped to bounds that close in on final_lr."""
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        mean = (mean * betas[0]).add(gradient, alpha=1 - betas[0])
        square = (square * betas[1]).addcmul(gradient, gradient, value=1 - betas[1])
        lower, upper = final_lr * (1 - 1 / (gamma * step + 1)), final_lr * (1 + 1 / (gamma * step))
        rate = torch.full_like(weight, lr * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step))
        weight = weight - (rate / (square.sqrt() + eps)).clamp(lower, upper) * mean
        yield weight


def test_adabound_is_bit_equal_to_its_equations_over_200_steps():
    rng = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(7, 5, bias=False)
    gradients = [torch.randn(5, 7, generator=rng) * 10 ** (-4 * torch.rand(5, 7, generator=rng)) for _ in range(200)]
    optimizer = build_optimizer(layer, lr=1e-3, final_lr=0.1)
    expected = adabound_steps(layer.weight.detach().clone(), gradients, lr=1e-3, final_lr=0.1)
    for gradient, weight in zip(gradients, expected, strict=True):
        layer.weight.grad = gradient.clone()
        optimizer.step()
        assert torch.equal(layer.weight, weight)


def test_an_adabound_that_this_torch_does_not_run_is_said_in_one_sentence(monkeypatch):
    def removed(self, *args):
        raise TypeError("addcmul_() takes 2 positional arguments but 3 were given\nmore")

    monkeypatch.setattr(torch.Tensor, "addcmul_", removed)
    with pytest.raises(InputError, match=r"adabound does not run with torch .* \(addcmul_\(\) takes 2 .*given\)\. Ins"):
        build_optimizer(torch.nn.Linear(2, 1), lr=0.01, final_lr=0.1)


def test_only_what_is_trained_is_in_the_optimizer():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    layers[0].requires_grad_(False)
    (group,) = build_optimizer(layers, lr=0.1, final_lr=0.1).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in layers[1].parameters()]


def test_own_rates_are_of_all_parameters_whose_names_begin_so():
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1) for name in ("body", "gate2", "gate3")})
    groups = build_optimizer(layers, 1e-5, 1e-4, [("gate", 5e-4, 1e-2), ("gate3", 1.0, 1.0)]).param_groups
    rates = {id(p): (group["lr"], group["final_lr"]) for group in groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in layers.named_parameters()} == {
        "body.weight": (1e-5, 1e-4), "body.bias": (1e-5, 1e-4), "gate2.weight": (5e-4, 1e-2),
        "gate2.bias": (5e-4, 1e-2), "gate3.weight": (5e-4, 1e-2), "gate3.bias": (5e-4, 1e-2),
    }  # fmt: skip


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


def test_each_step_is_of_its_own_batchs_gradient():
    """Loss 2 w, then -1 w: w = 10 - 0.1 * 2 + 0.1 * 1. Not 9.7, with the first gradient still there."""
    network = Scale(10.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    batches = [(torch.full((1, 1, 1, 1, 1), value), torch.zeros(1)) for value in (2.0, -1.0)]
    train_one_epoch(network, optimizer, lambda outputs, _: outputs.sum(), batches, "fp32")
    assert network.weight.item() == pytest.approx(9.9, abs=1e-6)


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


@pytest.mark.slow
@pytest.mark.parametrize("model", ["2d", "3d"])
def test_bf16_is_right_on_every_cpu(model):
    # A map of 1 pixel: with AMX oneDNN's bf16 gives 2D outputs that are 0.2 off (device.without_onednn_bf16).
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


def test_an_epoch_trains_whatever_was_done_before():
    """BatchNorm takes each batch's own statistics, and remembers them: mean 2 after a tenth of a step of 20."""
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Flatten(0)).eval()
    batches = [(torch.tensor([[10.0], [30.0]]), torch.tensor([0.0, 1.0]))]
    train_one_epoch(network, build_optimizer(network, 1e-4, 1e-3), LOSS, batches, "fp32")
    assert network[0].training and network[0].running_mean.item() == pytest.approx(2.0)
