import math

import pytest
import torch

from tss.models.attention import AttentionGate


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_equation_on_one_pixel(ndim):
    gate = AttentionGate(channels=1, gating_channels=1, ndim=ndim)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.fill_(1.0)  # theta 1; phi 1 + bias 1; psi 1 + bias 1
    x, g = torch.full((1, 1, *(1,) * ndim), 2.0), torch.full((1, 1, *(1,) * ndim), -0.5)
    gated, weight = gate(x, g)
    expected = 1 / (1 + math.exp(-(2.0 + (-0.5 + 1.0) + 1.0)))  # relu(theta x + phi g) = 2.5, psi gives 3.5
    assert weight.item() == pytest.approx(expected, rel=1e-6)
    assert gated.item() == pytest.approx(2 * expected, rel=1e-6)


def test_the_relu_cuts_what_is_negative():
    gate = AttentionGate(channels=1, gating_channels=1, ndim=2)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.fill_(1.0)
    _, weight = gate(torch.full((1, 1, 1, 1), -9.0), torch.zeros(1, 1, 1, 1))
    assert weight.item() == pytest.approx(1 / (1 + math.exp(-1.0)), rel=1e-6)  # only psi's bias is left


@pytest.mark.parametrize(("ndim", "fine", "coarse"), [(2, (14, 7), (7, 4)), (3, (8, 14, 7), (4, 7, 3))])
def test_gate_of_the_fine_maps_size_between_0_and_1(ndim, fine, coarse):
    torch.manual_seed(0)
    gate = AttentionGate(channels=6, gating_channels=10, ndim=ndim)
    x, g = torch.randn(2, 6, *fine), torch.randn(2, 10, *coarse)
    gated, weight = gate(x, g)
    assert weight.shape == (2, 1, *fine)
    assert 0 < weight.min() and weight.max() < 1 and weight.std() > 0.01
    assert torch.equal(gated, weight * x)


def test_coarse_gating_lands_where_it_belongs():
    gate = AttentionGate(channels=1, gating_channels=1, ndim=2)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.fill_(1.0)
    g = torch.tensor([[[[8.0, 0.0], [0.0, 0.0]]]])  # top left
    _, weight = gate(torch.zeros(1, 1, 4, 4), g)
    assert weight[0, 0, 0, 0] == weight.max() and weight[0, 0, 3, 3] == weight.min()


def test_the_gate_works_on_half_of_the_channels():
    shapes = {name: tuple(tensor.shape) for name, tensor in AttentionGate(8, 6, ndim=2).state_dict().items()}
    assert shapes == {
        "theta.weight": (4, 8, 1, 1), "phi.weight": (4, 6, 1, 1), "phi.bias": (4,), "psi.weight": (1, 4, 1, 1),
        "psi.bias": (1,),
    }  # fmt: skip
