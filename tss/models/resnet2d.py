"""The 2D model: ResNet-18 on every slice, one output a slice, and a trainable weight for each slice.

In:  hemispheres (N, C, D, H, W) float32 in [0, 1]; C = DWI, T2w, FLAIR; W ends at the midline.
Out: logits (N,); probability = sigmoid(logit).
Paper: section 2.2 and Fig. 4 (top); ResNet-18 is He et al. 2016, table 1.
See: tests/models/test_resnet2d.py
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tss.models.attention import AttentionGate
from tss.models.classifier import Classifier


class SliceClassifier(Classifier):
    """logit = sum over slices s of sigmoid(a_s) * z_s, where z_s is the output of slice s."""

    def __init__(self, width: int, slices: int, attention: bool):
        """width: channels of the first stage (64 in the paper); slices: D, at least 2; attention: with the gate?"""
        super().__init__()
        self.backbone = ResNet18(width)
        self.classifier = nn.Linear(8 * width, 1)
        # A linear output on features and gated features, "concatenated" (2.2), is the sum of two outputs. Two modules:
        # phase 4 adds the second to a first that is trained already, and gives it rates of its own (decision 17).
        self.gate = AttentionGate(4 * width, 8 * width, ndim=2) if attention else None
        self.gate_classifier = nn.Linear(4 * width, 1, bias=False) if attention else None
        # sigmoid(a) = 1 / slices: the weights start with sum 1, so the model starts as a mean over slices.
        self.slice_logits = nn.Parameter(torch.full((slices,), -math.log(slices - 1)))

    def frozen(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> (N, D, width, H/4, W/4): conv1 and conv2_x, the layers that phases 2-4 freeze."""
        slices = x.movedim(2, 1)  # (N, D, C, H, W)
        return self.backbone.early(slices.flatten(0, 1)).unflatten(0, slices.shape[:2])

    def after_frozen(self, features: Tensor) -> Tensor:
        """features: what frozen() gives -> logits (N,)."""
        return (self.outputs_after_frozen(features).float() * self.slice_weights()).sum(dim=1)

    def slice_weights(self) -> Tensor:
        """(D,): how much each slice counts, each in (0, 1)."""
        return torch.sigmoid(self.slice_logits)

    def slice_outputs(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> z (N, D), the output of each slice before weighting."""
        return self.outputs_after_frozen(self.frozen(x))

    def outputs_after_frozen(self, early: Tensor) -> Tensor:
        """early: what frozen() gives, (N, D, width, H/4, W/4) -> z (N, D), the output of each slice."""
        # (N * D, 4 width, H/16, W/16) and (N * D, 8 width, H/32, W/32)
        fine, last = self.backbone.late(early.flatten(0, 1))
        outputs = self.classifier(last.mean(dim=(2, 3)))  # (N * D, 1)
        if self.gate is not None and self.gate_classifier is not None:
            gated, _ = self.gate(fine, last)  # (N * D, 4 width, H/16, W/16)
            outputs = outputs + self.gate_classifier(gated.mean(dim=(2, 3)))
        return outputs.view(early.shape[:2])  # (N, D)


class SliceTypes(nn.Module):
    """The same backbone, one slice at a time, with several classes: learns the medical weights (paper 3)."""

    def __init__(self, width: int, types: int):
        super().__init__()
        self.backbone = ResNet18(width)
        self.types = nn.Linear(8 * width, types)

    def forward(self, x: Tensor) -> Tensor:
        """x: slices (N, C, H, W) -> logits (N, types)."""
        return self.types(self.backbone(x)[1].mean(dim=(2, 3)))


class ResNet18(nn.Module):
    """ResNet-18 without its classifier; layers are named as in torchvision, so that its weights load by name."""

    def __init__(self, width: int = 64, in_channels: int = 3):
        """width: channels of the first stage; the four stages have 1, 2, 4 and 8 times as many."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, stride=1)
        self.layer2 = stage(width, 2 * width, stride=2)
        self.layer3 = stage(2 * width, 4 * width, stride=2)
        self.layer4 = stage(4 * width, 8 * width, stride=2)
        for module in self.modules():
            # As torchvision; BatchNorm starts at 1 and 0 by default. On the meta device there is nothing to draw, and
            # drawing would load torch's compiler: 4 s.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W) -> layer3's map (N, 4 width, H/16, W/16) and layer4's (N, 8 width, H/32, W/32).

        For a 224 x 112 slice these are 14 x 7 and 7 x 4. Fig. 4 prints 28 x 14 for the 256-channel stage,
        where ResNet-18 has 128 channels; we gate the 256-channel stage (decision 2).
        """
        return self.late(self.early(x))

    def early(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> layer1's map (N, width, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, width, H/2, W/2)
        return self.layer1(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))

    def late(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: layer1's map -> layer3's and layer4's."""
        fine = self.layer3(self.layer2(x))
        return fine, self.layer4(fine)

    def maps(self, x: Tensor) -> list[Tensor]:
        """x: (N, C, H, W) -> the maps of conv1 and the four stages, at 1/2, 1/4, ..., 1/32 of the size."""
        maps = [F.relu(self.bn1(self.conv1(x)))]
        maps.append(self.layer1(F.max_pool2d(maps[0], kernel_size=3, stride=2, padding=1)))
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps


def stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two residual blocks; the first one may change the number of channels and the size."""
    return nn.Sequential(Block(in_channels, channels, stride), Block(channels, channels, stride=1))


class Block(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1 x 1 convolution on x where its shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in_channels, H, W) -> (N, channels, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # in place: BatchNorm's backward needs its input alone
        return F.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)
