"""Both networks against the same functions written down again, layer by layer, without this suite's modules."""

import pytest
import torch
from torch.nn import functional as F

from tss.models.attention import AttentionGate
from tss.models.resnet2d import ResNet18, SliceClassifier
from tss.models.unet3d import UNet3D, VolumeClassifier


def shuffled(network, seed=0):
    """Random weights everywhere, statistics and biases too, in evaluation mode; the network and its tensors."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
    return network.eval(), network.state_dict()


def norm(x, w, name):
    x = x.movedim(1, -1)
    x = (x - w[f"{name}.running_mean"]) / torch.sqrt(w[f"{name}.running_var"] + 1e-5)
    return (x * w[f"{name}.weight"] + w[f"{name}.bias"]).movedim(-1, 1)


def block(x, w, name, stride):
    inner = norm(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), w, f"{name}.bn1").clamp(min=0)
    inner = norm(F.conv2d(inner, w[f"{name}.conv2.weight"], padding=1), w, f"{name}.bn2")
    if f"{name}.downsample.0.weight" in w:
        x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), w, f"{name}.downsample.1")
    return (inner + x).clamp(min=0)


def resnet(x, w, prefix=""):
    """He et al. 2016, table 1: 7 x 7 by 2, 3 x 3 maximum by 2, four stages of two blocks."""
    x = norm(F.conv2d(x, w[f"{prefix}conv1.weight"], stride=2, padding=3), w, f"{prefix}bn1").clamp(min=0)
    padded = F.pad(x, (1, 1, 1, 1), value=float("-inf"))
    x = padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
    maps = []
    for number in (1, 2, 3, 4):
        x = block(x, w, f"{prefix}layer{number}.0", 1 if number == 1 else 2)
        x = block(x, w, f"{prefix}layer{number}.1", 1)
        maps.append(x)
    return maps


def double(x, w, name):
    for convolution, normalisation in ((0, 1), (3, 4)):
        x = F.conv3d(x, w[f"{name}.{convolution}.weight"], w[f"{name}.{convolution}.bias"], padding=1)
        x = norm(x, w, f"{name}.{normalisation}").clamp(min=0)
    return x


def halved(x):
    """Maximum of 2 x 2 x 2; a last odd one is pooled alone."""
    x = F.pad(x, [n for size in x.shape[:1:-1] for n in (0, size % 2)], value=float("-inf"))
    n, c, d, h, w = x.shape
    return x.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).amax((3, 5, 7))


def gate(x, g, w, name):
    conv, way = (F.conv2d, "bilinear") if x.ndim == 4 else (F.conv3d, "trilinear")
    up = F.interpolate(conv(g, w[f"{name}.phi.weight"], w[f"{name}.phi.bias"]), x.shape[2:], mode=way)
    inner = (conv(x, w[f"{name}.theta.weight"]) + up).clamp(min=0)
    return 1 / (1 + torch.exp(-conv(inner, w[f"{name}.psi.weight"], w[f"{name}.psi.bias"])))


def close(one, other):
    assert one.shape == other.shape
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_resnet_18_is_he_2016():
    network, w = shuffled(ResNet18(4))
    x = torch.randn(2, 3, 70, 33, generator=torch.Generator().manual_seed(1))
    maps = resnet(x, w)
    close(network(x)[0], maps[2])
    close(network(x)[1], maps[3])
    close(network.early(x), maps[0])
    for own, expected in zip(network.maps(x)[1:], maps, strict=True):
        close(own, expected)


@torch.no_grad()
@pytest.mark.parametrize("attention", [False, True])
def test_the_slices_logit_by_hand(attention):
    network, w = shuffled(SliceClassifier(4, 3, attention))
    x = torch.randn(2, 3, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(2)
    for s in range(3):
        maps = resnet(x[:, :, s], w, "backbone.")
        z = maps[3].mean((2, 3)) @ w["classifier.weight"][0] + w["classifier.bias"]
        if attention:
            gated = gate(maps[2], maps[3], w, "gate") * maps[2]
            z = z + gated.mean((2, 3)) @ w["gate_classifier.weight"][0]
        logits += z / (1 + torch.exp(-w["slice_logits"][s]))
    close(network(x), logits)


@torch.no_grad()
def test_the_u_net_by_hand():
    network, w = shuffled(UNet3D(3, 3, 2))
    x = torch.randn(1, 3, 6, 16, 8, generator=torch.Generator().manual_seed(1))
    padded = F.pad(x, (0, 0, 0, 0, 0, 2))
    stages = [double(padded, w, "encoder.down1")]
    for number in (2, 3, 4):
        stages.append(double(halved(stages[-1]), w, f"encoder.down{number}"))
    y = stages[3]
    for number in (3, 2, 1):
        up = F.conv_transpose3d(y, w[f"up{number}.up.weight"], w[f"up{number}.up.bias"], stride=2)
        y = double(torch.cat([up, stages[number - 1]], 1), w, f"up{number}.convolutions")
    y = F.conv3d(y, w["out.weight"], w["out.bias"])[:, :, :6]
    close(network(x), 1 / (1 + torch.exp(-y)))


@torch.no_grad()
@pytest.mark.parametrize("attention", [False, True])
def test_the_volumes_logit_by_hand(attention):
    network, w = shuffled(VolumeClassifier(2, attention))
    x = torch.randn(2, 3, 5, 16, 8, generator=torch.Generator().manual_seed(1))
    features = halved(double(halved(double(x, w, "encoder.down1")), w, "encoder.down2"))
    deeper = halved(double(features, w, "encoder.down3"))
    bottom = double(deeper, w, "encoder.down4")
    logits = bottom.mean((2, 3, 4)) @ w["classifier.weight"][0] + w["classifier.bias"]
    if attention:
        gated = [gate(features, bottom, w, "gate2") * features, gate(deeper, bottom, w, "gate3") * deeper]
        logits = logits + torch.cat([g.mean((2, 3, 4)) for g in gated], 1) @ w["gate_classifier.weight"][0]
    close(network(x), logits)


@torch.no_grad()
def test_the_gate_interpolates_between_voxels_centres():
    """One channel, theta 0, phi 1, psi 1: sigmoid(relu(g)), with g at 1/4, 3/4, ... between its neighbours."""
    gate = AttentionGate(1, 1, ndim=2)
    for name, tensor in gate.state_dict().items():
        tensor.fill_(float(name in ("phi.weight", "psi.weight")))
    x, g = torch.ones(1, 1, 4, 1), torch.tensor([[[[0.0], [4.0]]]])
    _, weights = gate(x, g)
    close(weights[0, 0, :, 0], torch.sigmoid(torch.tensor([0.0, 1.0, 3.0, 4.0])))
