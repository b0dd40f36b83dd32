import pytest
import torch

from tss.models.resnet2d import Block, ResNet18, SliceClassifier, SliceTypes

TORCHVISION_PARAMETERS = 11_689_512 - (512 * 1000 + 1000)  # its documented count, without the classifier


def names_in_torchvision():
    def norm(name):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["conv1.weight", *norm("bn1")]
    for layer in range(1, 5):
        for block in range(2):
            at = f"layer{layer}.{block}"
            names += [f"{at}.conv1.weight", *norm(f"{at}.bn1"), f"{at}.conv2.weight", *norm(f"{at}.bn2")]
            if layer > 1 and block == 0:
                names += [f"{at}.downsample.0.weight", *norm(f"{at}.downsample.1")]
    return names


def test_names_and_size_are_torchvisions():
    network = ResNet18()
    assert list(network.state_dict()) == names_in_torchvision()
    assert sum(p.numel() for p in network.parameters()) == TORCHVISION_PARAMETERS


def test_first_weights_are_torchvisions():
    torch.manual_seed(0)
    network = ResNet18()
    fan_out = 256 * 3 * 3
    assert network.layer3[0].conv1.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert network.bn1.weight.min() == 1 and network.bn1.bias.abs().max() == 0


def test_maps_of_the_papers_slice():
    fine, last = ResNet18(width=8).eval()(torch.zeros(1, 3, 224, 112))
    assert fine.shape == (1, 32, 14, 7) and last.shape == (1, 64, 7, 4)


def test_a_block_adds_its_input():
    block = Block(4, 4, stride=1).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # the convolutions' way gives nothing
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.relu())


def test_output_is_the_weighted_sum_over_slices():
    torch.manual_seed(0)
    network = SliceClassifier(width=4, slices=5, attention=True).eval()
    x = torch.rand(2, 3, 5, 32, 16)
    outputs = network.slice_outputs(x)
    assert outputs.shape == (2, 5)
    alone = network.slice_outputs(x[:, :, 3:4])  # slice 3 by itself: no slice sees another one
    assert torch.allclose(outputs[:, 3:4], alone, atol=1e-6)
    with torch.no_grad():
        network.slice_logits.copy_(torch.tensor([-50.0, -50.0, 0.0, 50.0, -50.0]))  # weights 0, 0, 1/2, 1, 0
    expected = outputs[:, 2] / 2 + outputs[:, 3]
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_slice_weights_start_with_sum_1():
    weights = SliceClassifier(width=4, slices=26, attention=False).slice_weights()
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights.min() == weights.max()


def test_all_parameters_are_trained_gate_included():
    torch.manual_seed(0)
    network = SliceClassifier(width=4, slices=4, attention=True)
    network(torch.rand(2, 3, 4, 32, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_types_of_tumours_are_read_from_the_mean_of_the_last_map():
    torch.manual_seed(0)
    network, x = SliceTypes(width=4, types=3).eval(), torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        last = network.backbone(x)[1]
        expected = last.flatten(2).mean(2) @ network.types.weight.T + network.types.bias
        assert last.shape[2:] == (2, 2) and torch.allclose(network(x), expected, atol=1e-5)
