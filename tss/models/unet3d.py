"""The 3D model: a 3D U-Net that restores distorted volumes (phase 0), and its encoder as a classifier.

In:  hemispheres (N, C, D, H, W) float32 in [0, 1]; C = DWI, T2w, FLAIR; W ends at the midline.
Out: UNet3D: restored volumes (N, C, D, H, W) in (0, 1). VolumeClassifier: logits (N,).
Paper: section 2.2 and Fig. 4 (bottom); 3D U-Net is Cicek et al. 2016, with the widths of Models Genesis
    (Zhou et al. 2019): 32-64, 64-128, 128-256, 256-512.
See: tests/models/test_unet3d.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tss.models.attention import AttentionGate
from tss.models.classifier import Classifier

POOLS = 3  # poolings on the way down: each side of the volume is halved that many times


class UNet3D(nn.Module):
    """Encoder, decoder and skip connections; phase 0 trains it to restore what tss.training.genesis distorted."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 32):
        """width: channels of the first convolution; the stages give 2, 4, 8 and 16 times as many."""
        super().__init__()
        self.encoder = Encoder3d(in_channels, width)
        self.up3 = Up(16 * width, 8 * width)
        self.up2 = Up(8 * width, 4 * width)
        self.up1 = Up(4 * width, 2 * width)
        self.out = nn.Conv3d(2 * width, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> (N, out_channels, D, H, W), each value in (0, 1).

        Three poolings and three doublings give back the same size only where 8 divides it. 26 slices are padded with
        zeros to 32 here, and the padding is cropped at the end (decision 15).
        """
        d, h, w = x.shape[2:]
        x = F.pad(x, (0, -w % 2**POOLS, 0, -h % 2**POOLS, 0, -d % 2**POOLS))
        stage1, stage2, stage3, bottom = self.encoder(x)
        x = self.up3(bottom, stage3)
        x = self.up2(x, stage2)
        x = self.up1(x, stage1)
        # In float32 in every precision: in bfloat16 a logit above 6.3 would round to exactly 1, and learn nothing.
        return torch.sigmoid(self.out(x)[:, :, :d, :h, :w].float())


class VolumeClassifier(Classifier):
    """The encoder, global pooling, and one linear output; phase 4 adds gates after the second and third stage."""

    def __init__(self, width: int, attention: bool, in_channels: int = 3):
        """width: as in UNet3D; attention: with the gates at the 4 width (128) and 8 width (256) channel outputs?"""
        super().__init__()
        self.encoder = Encoder3d(in_channels, width)
        self.classifier = nn.Linear(16 * width, 1)
        # A linear output of its own for what is gated: see SliceClassifier.
        self.gate2 = AttentionGate(4 * width, 16 * width, ndim=3) if attention else None
        self.gate3 = AttentionGate(8 * width, 16 * width, ndim=3) if attention else None
        self.gate_classifier = nn.Linear((4 + 8) * width, 1, bias=False) if attention else None

    def frozen(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> (N, 4 width, D/4, H/4, W/4): the two down layers that phases 2-4 freeze."""
        return self.encoder.pool(self.encoder.down2(self.encoder.pool(self.encoder.down1(x))))

    def after_frozen(self, features: Tensor) -> Tensor:
        """features: what frozen() gives -> logits (N,).

        The gates look at what a layer hands on, after its pooling (2.3: a layer is two convolutions and a
        pooling), so that phase 4 too needs nothing of the frozen layers but this one output.
        """
        deeper = self.encoder.pool(self.encoder.down3(features))  # (N, 8 width, D/8, H/8, W/8)
        bottom = self.encoder.down4(deeper)  # (N, 16 width, D/8, H/8, W/8)
        outputs = self.classifier(bottom.mean(dim=(2, 3, 4)))  # (N, 1)
        if self.gate2 is not None and self.gate3 is not None and self.gate_classifier is not None:
            gated = [self.gate2(features, bottom)[0], self.gate3(deeper, bottom)[0]]
            outputs = outputs + self.gate_classifier(torch.cat([g.mean(dim=(2, 3, 4)) for g in gated], dim=1))
        return outputs.squeeze(1).float()


class Encoder3d(nn.Module):
    """The way down. The same class in UNet3D and VolumeClassifier, so phase 0's weights fit phase 1 by name."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.down1 = two_convolutions(in_channels, width, 2 * width)
        self.down2 = two_convolutions(2 * width, 2 * width, 4 * width)
        self.down3 = two_convolutions(4 * width, 4 * width, 8 * width)
        self.down4 = two_convolutions(8 * width, 8 * width, 16 * width)
        # Rounded up: of 13 slices the last one is pooled alone. Rounded down, the top of the head would be lost.
        self.pool = nn.MaxPool3d(kernel_size=2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: (N, C, D, H, W) -> the four stages before pooling, with 2, 4, 8 and 16 width channels at 1, 1/2, ..."""
        stage1 = self.down1(x)
        stage2 = self.down2(self.pool(stage1))
        stage3 = self.down3(self.pool(stage2))
        return stage1, stage2, stage3, self.down4(self.pool(stage3))


class Up(nn.Module):
    """Double the size by a transposed convolution, concatenate the skip connection, convolve twice."""

    def __init__(self, channels: int, skip_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose3d(channels, channels, kernel_size=2, stride=2)
        self.convolutions = two_convolutions(channels + skip_channels, skip_channels, skip_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (N, channels, D, H, W), skip: (N, skip_channels, 2D, 2H, 2W) -> (N, skip_channels, 2D, 2H, 2W)."""
        return self.convolutions(torch.cat([self.up(x), skip], dim=1))


def two_convolutions(in_channels: int, inner: int, channels: int) -> nn.Sequential:
    """Twice 3 x 3 x 3 convolution, BatchNorm, ReLU (2.3: "each layer represents two 3 x 3 x 3 convolutions")."""
    layers = nn.Sequential(
        nn.Conv3d(in_channels, inner, kernel_size=3, padding=1), nn.BatchNorm3d(inner), nn.ReLU(inplace=True),
        nn.Conv3d(inner, channels, kernel_size=3, padding=1), nn.BatchNorm3d(channels), nn.ReLU(inplace=True),
    )  # fmt: skip
    for convolution in (layers[0], layers[3]):
        # BatchNorm subtracts the bias again, so its gradient is rounding noise, which AdaBound would blow up to full
        # steps. It is there because Models Genesis's weights have it, and stays as it is.
        convolution.get_parameter("bias").requires_grad_(False)
    return layers
