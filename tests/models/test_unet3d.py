"""The 3D U-Net and the classifier on its encoder: shapes by the paper, sizes that do not halve, what is shared."""

import pytest
import torch

from tss.models.unet3d import UNet3D, VolumeClassifier
from tss.training.device import without_onednn_bf16

CPU = torch.device("cpu")


def test_stages_have_the_papers_channels_and_sizes():
    encoder = UNet3D(3, 3, width=4).encoder
    stages = encoder(torch.rand(1, 3, 16, 24, 8))
    sizes = [tuple(stage.shape[1:]) for stage in stages]
    assert sizes == [(8, 16, 24, 8), (16, 8, 12, 4), (32, 4, 6, 2), (64, 2, 3, 1)]
    convolutions = [m for m in UNet3D(3, 3, width=32).encoder.modules() if isinstance(m, torch.nn.Conv3d)]
    assert [c.out_channels for c in convolutions] == [32, 64, 64, 128, 128, 256, 256, 512]  # Fig. 4


def test_26_slices_come_back_as_26_and_the_filling_is_zeros():
    network = UNet3D(1, 1, width=2).eval()
    x = torch.rand(1, 1, 26, 12, 10)
    filled = torch.zeros(1, 1, 32, 16, 16)
    filled[:, :, :26, :12, :10] = x
    with torch.no_grad():
        restored, by_hand = network(x), network(filled)[:, :, :26, :12, :10]
    assert restored.shape == x.shape
    assert torch.allclose(restored, by_hand, atol=1e-6)
    assert 0 < restored.min() and restored.max() < 1


def test_an_output_that_is_surely_wrong_still_learns_in_bf16():
    network = UNet3D(1, 1, width=2)
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.constant_(network.out.bias, 8.0)  # sigmoid(8) = 0.99966, which bfloat16 rounds to 1
    with without_onednn_bf16("bf16", CPU), torch.autocast("cpu", torch.bfloat16):
        outputs = network(torch.rand(1, 1, 8, 16, 16))
    torch.nn.functional.binary_cross_entropy(outputs, torch.zeros_like(outputs)).backward()
    assert outputs.dtype == torch.float32 and outputs.max().item() == pytest.approx(0.99966, abs=1e-5)
    assert network.out.bias.grad.item() == pytest.approx(0.99966, abs=1e-2)


def test_the_classifier_sees_the_last_of_13_slices():
    """Pooling that rounds down would leave out slices 8 to 12."""
    torch.manual_seed(0)
    network = VolumeClassifier(2, attention=False).eval()
    x = torch.rand(1, 3, 13, 16, 8, requires_grad=True)
    stages = network.encoder(x)
    assert [stage.shape[2] for stage in stages] == [13, 7, 4, 2]
    (seen,) = torch.autograd.grad(stages[3][0, :, 1].sum(), x)
    assert seen[0, :, 12].abs().sum() > 0


def test_biases_before_batchnorm_are_left_alone_and_would_change_nothing():
    network = UNet3D(1, 1, width=2)
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert still == {name for name in network.state_dict() if name.endswith((".0.bias", ".3.bias"))}
    assert len(still) == 14
    x = torch.rand(2, 1, 8, 8, 8)
    before = network(x)
    network.encoder.down2[3].bias.data += 5
    assert torch.allclose(network(x), before, atol=1e-5)


def test_the_classifier_has_the_unets_encoder_by_name():
    unet, classifier = UNet3D(3, 3, width=4), VolumeClassifier(4, attention=True)
    of_encoder = {k: v.shape for k, v in unet.state_dict().items() if k.startswith("encoder.")}
    assert of_encoder == {k: v.shape for k, v in classifier.state_dict().items() if k.startswith("encoder.")}
    assert len(of_encoder) == 8 * 7  # 8 convolutions of weight, bias and BatchNorm's five


@pytest.mark.parametrize("attention", [False, True])
def test_the_logit_is_a_linear_function_of_pooled_stages_and_gates(attention):
    torch.manual_seed(0)
    network = VolumeClassifier(2, attention).eval()
    x = torch.rand(3, 3, 26, 16, 8)
    with torch.no_grad():
        pool, encoder = network.encoder.pool, network.encoder
        _, stage2, stage3, bottom = encoder(x)
        features = [bottom]
        if attention:
            features += [
                pool(stage2) * network.gate2(pool(stage2), bottom)[1],
                pool(stage3) * network.gate3(pool(stage3), bottom)[1],
            ]
        pooled = torch.cat([f.flatten(2).mean(2) for f in features], dim=1)
        columns = network.classifier.weight[0]
        if attention:
            columns = torch.cat([columns, network.gate_classifier.weight[0]])
        by_hand = pooled @ columns + network.classifier.bias
        assert torch.allclose(network(x), by_hand, atol=1e-6)
        assert torch.equal(network(x), network.after_frozen(network.frozen(x)))
