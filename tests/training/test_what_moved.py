"""The report notices a part that is dead: gates that nothing reaches, slice weights that stand still."""

import math

import numpy as np
import pytest
import torch

from tss.models.attention import AttentionGate
from tss.training.phases import build_model
from tss.training.what_moved import PARTS, equal_slice_weights, how_far, in_words, open_gates, what_moved, without_gates

GRID = [32, 32, 4]


def network_of(model="2d", attention=True):
    torch.manual_seed(0)
    network = build_model(model, 4, GRID, attention).eval()
    if attention:
        torch.nn.init.normal_(network.gate_classifier.weight, std=0.5)
    return network


def copied(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_relative_distance_by_hand():
    network = network_of()
    before = copied(network)
    with torch.no_grad():
        network.classifier.weight *= 1.5
        network.classifier.bias *= 1.5
        network.backbone.layer3[0].bn1.running_mean += 7  # no parameter
        network.slice_logits += 1
    moved = how_far(network, before)
    assert moved["classifier"] == pytest.approx(0.5, rel=1e-6)
    assert moved["slice weights"] == pytest.approx(1 / math.log(3), rel=1e-6)  # from -log(3) each
    assert {part for part, way in moved.items() if way} == {"classifier", "slice weights"}
    assert {"layer2", "layer3", "layer4", "gates", "gates' columns"} < set(moved) and "down3" not in moved


def test_from_zero_no_way_has_a_relative_length():
    network = network_of()
    before = copied(network) | {"gate_classifier.weight": torch.zeros_like(network.gate_classifier.weight)}
    assert how_far(network, before)["gates' columns"] is None and how_far(network, before)["gates"] == 0
    assert "gates' columns from zero" in in_words({"moved": how_far(network, before), "auc": {}})[0]


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_every_parameter_belongs_to_one_part(model):
    for name, _ in network_of(model).named_parameters():
        assert sum(name.startswith(beginnings) for beginnings in PARTS.values()) == 1, name


def test_equal_slice_weights_have_the_mean_and_are_put_back():
    network = network_of()
    with torch.no_grad():
        network.slice_logits.copy_(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    own, mean = network.slice_logits.clone(), network.slice_weights().mean().item()
    with equal_slice_weights(network):
        assert network.slice_weights().tolist() == pytest.approx([mean] * 4, rel=1e-6)
    assert torch.equal(network.slice_logits, own)


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_without_gates_is_the_network_that_has_none(model):
    network, plain = network_of(model), network_of(model, attention=False)
    plain.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if "gate" not in name})
    x, own = torch.rand(3, 3, 4, 32, 16), copied(network)
    with torch.no_grad(), without_gates(network):
        assert torch.allclose(network(x), plain(x), atol=1e-6)
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        assert (network(x) - plain(x)).abs().min() > 1e-3


def test_open_gates_let_through_the_same_share_everywhere():
    torch.manual_seed(0)
    gate = AttentionGate(channels=2, gating_channels=3, ndim=2)
    x, g = torch.randn(2, 2, 6, 4), torch.randn(2, 3, 3, 2)
    gated, opening = gate(x, g)
    with open_gates(gate):
        evenly, flat = gate(x, g)
    assert torch.allclose(flat, opening.mean((2, 3), keepdim=True).expand_as(flat))
    assert torch.allclose(evenly, x * flat) and (evenly - gated).abs().max() > 1e-3
    assert torch.equal(gate(x, g)[0], gated)


def test_the_report_by_hand():
    """Logit = features + gates, both known: their shares, and the AUC of each alone."""
    network = network_of()
    x = torch.rand(8, 3, 4, 32, 16)
    labels = np.array([0, 1] * 4)

    @torch.no_grad()
    def predict():
        return network(x).double().numpy()

    with torch.no_grad(), without_gates(network):
        rest = predict()
    found = what_moved(network, copied(network), predict, labels)
    assert found["gates_share"] == pytest.approx((predict() - rest).std() / predict().std(), rel=1e-6)
    assert found["slice_weights"] == pytest.approx([0.25, 0.25])
    assert found["auc"]["equal slice weights"] == found["auc"]["as it is"]
    assert set(found["auc"]) == {"as it is", "equal slice weights", "without gates", "gates open evenly"}
    assert "the gates carry" in in_words(found)[2] and in_words(found)[1] == "slice weights 0.2500 to 0.2500"
    with torch.no_grad():
        network.gate_classifier.weight.zero_()
    assert what_moved(network, copied(network), predict, labels)["gates_share"] == 0
