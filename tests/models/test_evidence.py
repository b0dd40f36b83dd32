"""Evidence by hand, the strongest share, what is read under the weights, and gates that start even."""

import math

import pytest
import torch
from torch.nn import functional as F

from tss.models.evidence import OUTSIDE, EvidenceSliceClassifier, EvidenceVolumeClassifier, contrast, weighted_mean

SHAPE, HEALTHY = (4, 32, 16), (1 / 4, 1 / 8, 1 / 3)
KINDS = pytest.mark.parametrize("kind", [EvidenceSliceClassifier, EvidenceVolumeClassifier])


def made(kind, stroke=False, attention=False):
    torch.manual_seed(0)
    return kind(4, SHAPE, HEALTHY, stroke, attention).eval()


def hemispheres(n=3):
    torch.manual_seed(1)
    x = torch.rand(n, 3, *SHAPE) * 0.5 + 0.05
    x[:, :, :, :4] = 0  # no brain there
    return x


@KINDS
def test_evidence_is_the_voxels_own_part_and_the_context(kind):
    network, x = made(kind), hemispheres()
    medians = x / torch.tensor(HEALTHY).view(3, 1, 1, 1)
    first, _, second = network.evidence.voxel
    hidden = F.silu(
        torch.einsum("hc,ncdyx->nhdyx", first.weight.flatten(1), contrast(medians)) + first.bias.view(-1, 1, 1, 1)
    )
    voxel = torch.einsum("h,nhdyx->ndyx", second.weight.flatten(), hidden) + second.bias
    inside = x[:, 0] > 0
    with torch.no_grad():
        found = network.evidence_map(x)
        assert torch.allclose(found[inside], voxel[inside], atol=1e-5)  # the context starts at zero
        assert (found[~inside] == OUTSIDE).all()
        for convolution in network.evidence.context:
            torch.nn.init.constant_(convolution.weight, 0.1)
        _, changed, own, _ = network.unpacked(network.frozen(x))
    assert torch.allclose(own[inside], voxel[inside], atol=1e-5)
    assert (changed - found)[inside].abs().min() > 0


@KINDS
def test_a_hemispheres_logit_is_the_mean_of_its_strongest_voxels(kind):
    network, x = made(kind, stroke=True), hemispheres()
    network.look_at(10 / math.prod(SHAPE))
    with torch.no_grad():
        expected = network.evidence_map(x).flatten(1).sort(descending=True).values[:, :10].mean(dim=1)
        assert torch.allclose(network(x), expected, atol=1e-6)
        network.train()  # the voxel part has a logit of its own while it is trained
        assert network(x).shape == (3, 2)


@KINDS
def test_what_is_read_is_the_intensities_under_the_weights_by_hand(kind):
    network, x = made(kind), hemispheres()
    with torch.no_grad():
        network.slice_logits.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
        network.least.fill_(0.3)
        medians, evidence, voxel, _ = network.unpacked(network.frozen(x))
        slices = torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0])).view(4, 1, 1)
        weight = slices * torch.sigmoid(4 * (evidence - 0.3)) * torch.exp(2 * voxel)
        expected = (medians * weight[:, None]).sum((2, 3, 4)) / weight.sum((1, 2, 3))[:, None]
        assert torch.allclose(network.read(network.frozen(x)), expected, rtol=1e-4)
        network.classifier.weight.copy_(torch.tensor([[0.0, 0.0, 2.0]]))
        network.classifier.bias.fill_(-1.0)
        network.feature_mean.fill_(0.5)
        network.feature_sd.fill_(0.25)
        assert torch.allclose(network(x), 2 * (expected[:, 2] - 0.5) / 0.25 - 1, rtol=1e-4)


@KINDS
def test_constant_evidence_reads_the_mean_of_the_brain(kind):
    """Evidence replaced by a constant: nothing is located any more."""
    network, x = made(kind), hemispheres()
    medians, evidence, voxel, _ = network.unpacked(network.frozen(x))
    flat = torch.where(x[:, 0] > 0, 0.0, OUTSIDE)
    inside = (x[:, 0] > 0).float()
    assert torch.allclose(
        weighted_mean(medians, network.voxel_weights(flat, flat)), weighted_mean(medians, inside), rtol=1e-4
    )
    assert not torch.allclose(network.read(network.frozen(x)), weighted_mean(medians, inside), rtol=1e-2)


@KINDS
def test_an_even_gate_reads_what_is_read_without_it(kind):
    network, x = made(kind, attention=True), hemispheres()
    plain = made(kind)
    with torch.no_grad():
        network.gate.psi.weight.zero_()
        network.classifier.weight.copy_(plain.classifier.weight / 2)
        network.gate_classifier.weight.copy_(plain.classifier.weight / 2)
        network.classifier.bias.copy_(plain.classifier.bias)
        network.evidence.load_state_dict(plain.evidence.state_dict())
        assert torch.allclose(network(x), plain(x), atol=1e-5)
        gate = network.gate_map(*(network.unpacked(network.frozen(x))[i] for i in (0, 1, 3)))
    assert gate.shape == (3, *SHAPE)


@KINDS
def test_gradients_reach_every_part(kind):
    network, x = made(kind, attention=True).train(), hemispheres()
    torch.nn.init.normal_(network.gate_classifier.weight)
    network(x).square().sum().backward()
    for name in ("slice_logits", "log_sharpness", "least", "clearness", "classifier.weight", "gate_classifier.weight"):
        assert network.get_parameter(name).grad.abs().sum() > 0, name
    assert network.gate.theta.weight.grad.abs().sum() > 0 and network.evidence.voxel[0].weight.grad.abs().sum() > 0


def test_contrast_is_in_fifths_of_the_median_and_at_most_five():
    x = torch.tensor([0.0, -3.0, 0.5, 1.0, 1.2, 2.0, 9.0])
    assert torch.allclose(contrast(x), torch.tensor([-5.0, -5.0, -2.5, 0.0, 1.0, 5.0, 5.0]), atol=1e-6)


@KINDS
def test_the_logit_is_of_the_evidence_and_the_voxels_part_is_trained_beside_it(kind):
    network, x = made(kind, stroke=True), hemispheres()
    network.look_at(1 / math.prod(SHAPE))
    with torch.no_grad():
        for convolution in network.evidence.context:
            torch.nn.init.constant_(convolution.weight, 0.1)
        _, evidence, voxel, _ = network.unpacked(network.frozen(x))
        network.training = True  # its BatchNorms stay as they are
        both = network(x)
        network.training = False
        assert torch.equal(both, torch.stack([evidence.amax((1, 2, 3)), voxel.amax((1, 2, 3))], dim=1))
        assert torch.equal(network(x), both[:, 0]) and not torch.allclose(both[:, 0], both[:, 1])


@KINDS
@pytest.mark.parametrize("stroke", [True, False])
def test_where_it_looks_by_hand(kind, stroke):
    network, x = made(kind, stroke=stroke), hemispheres()
    with torch.no_grad():
        _, evidence, voxel, _ = network.unpacked(network.frozen(x))
        where, slices = network.looks_at(x)
        likelier = (2 * torch.sigmoid(evidence) - 1).clamp(min=0)
        assert torch.allclose(where, likelier, atol=1e-5) and 0 < likelier.max() < 1
        counted = likelier if stroke else network.voxel_weights(evidence, voxel)
        expected = counted.sum((2, 3)) / counted.sum((1, 2, 3))[:, None]
    assert torch.allclose(slices, expected, atol=1e-5)
    assert torch.allclose(slices.sum(1), torch.ones(3), atol=1e-5)
