"""The extended recipe's networks: phase 1 learns where the stroke is, place by place; the TSS phases read there.

In:  hemispheres (N, C, D, H, W) float32 in [0, 1]; C = DWI, T2w, FLAIR; W ends at the midline; 0 outside the brain.
Out: logits (N,); probability = sigmoid(logit). evidence_map(x): (N, D, H, W), the logit of "stroke here".
Paper: 2.3 (phase 1 finds the stroke, its layers are then frozen), 2.2 (backbones, slice weights, gates); how evidence
    is read is ours (decision 18).
See: tests/models/test_evidence.py

Phase 1, for each voxel i:   evidence_i = voxel_i + context_i
    voxel_i is a small network on the voxel's own three intensities, context_i comes from the backbone's maps. The logit
    is the mean of the strongest evidence: a wide share of the voxels in the first epoch, a narrow one at the end.
TSS phases, evidence frozen: weight_i = sigmoid(a_s) * sigmoid(t * (evidence_i - b)) * exp(c * voxel_i) / sum
    slice weight x where the stroke is x how clearly this voxel shows it. The three intensities, averaged with these
    weights, are what the linear classifier reads; phase 4 adds the same averages under an attention gate.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tss.models.attention import CONVOLUTIONS, INTERPOLATIONS, AttentionGate
from tss.models.classifier import Classifier
from tss.models.resnet2d import ResNet18
from tss.models.unet3d import Encoder3d

INNER = 8  # hidden units of a voxel's own network
CLIP = 5.0  # contrasts and evidence beyond this say no more
OUTSIDE = -20.0  # evidence where there is no brain
SHARPNESS, CLEARNESS = 4.0, 2.0  # t and c at the start


class Evidence(nn.Module):
    """evidence = voxel(intensities) + context, the context summed from the backbone's deepest map up to its finest.

    Each map gives one channel by a 1 x 1 convolution, and each coarser sum is interpolated to the next finer map. The
    convolutions start at zero: the voxel speaks first, and the maps, random at first, cannot drown it.
    """

    def __init__(self, channels: Sequence[int], ndim: int):
        """channels: of the backbone's maps, finest first; ndim: 2 for slices, 3 for volumes."""
        super().__init__()
        conv = CONVOLUTIONS[ndim]
        self.voxel = nn.Sequential(conv(3, INNER, 1), nn.SiLU(), conv(INNER, 1, 1))
        self.context = nn.ModuleList(conv(count, 1, 1, bias=False) for count in channels)
        for convolution in self.context:
            nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
        self.interpolation = INTERPOLATIONS[ndim]

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """x: (N, 3, *spatial) in healthy medians, maps: finest first -> (N, 2, *spatial): evidence, voxel part."""
        context = torch.zeros_like(maps[-1][:, :1])
        for convolution, image in zip(reversed(self.context), reversed(maps), strict=True):
            context = convolution(image) + self.resized(context, image)
        voxel = self.voxel(contrast(x))
        both = torch.cat([voxel + self.resized(context, x), voxel], dim=1)
        return both.masked_fill(x[:, :1] <= 0, OUTSIDE)

    def resized(self, image: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(image, size=like.shape[2:], mode=self.interpolation, align_corners=False)


def contrast(x: Tensor) -> Tensor:
    """Intensities in healthy medians -> how far from healthy, in fifths of the median, at most CLIP of them."""
    return ((x - 1) * 5).clamp(-CLIP, CLIP)


class EvidenceClassifier(Classifier):
    """What the 2D and the 3D network share; they differ in their backbone and in what a gate sees at a time."""

    healthy: Tensor
    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        ndim: int,
        shape: Sequence[int],
        healthy: Sequence[float],
        stroke: bool,
        attention: bool,
    ):
        """channels: of the backbone's maps, finest first; ndim: 2 or 3; shape: D, H, W of a hemisphere; healthy: the
        healthy brain's median of each input channel; stroke: with phase 1's output? attention: with the gate?"""
        super().__init__()
        depth = shape[0]
        self.shape, self.stroke = tuple(shape), stroke
        self.evidence = Evidence(channels, ndim)
        self.strongest = 1  # voxels whose mean evidence is the stroke logit; look_at() sets it
        self.slice_logits = nn.Parameter(torch.full((depth,), -math.log(depth - 1)))  # as in the paper's 2D model
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))  # log t
        self.least = nn.Parameter(torch.tensor(0.0))  # b
        self.clearness = nn.Parameter(torch.tensor(CLEARNESS))  # c
        self.gate = AttentionGate(4, channels[-1], ndim) if attention else None
        self.gate_classifier = nn.Linear(3, 1, bias=False) if attention else None
        self.classifier = nn.Linear(3, 1)
        self.register_buffer("healthy", torch.tensor(healthy))
        self.register_buffer("feature_mean", torch.zeros(3))  # of the training hemispheres
        self.register_buffer("feature_sd", torch.ones(3))

    def seen(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> what the backbone sees at a time: slices (N * D, C, H, W), or the volumes."""
        raise NotImplementedError

    def maps(self, seen: Tensor) -> list[Tensor]:
        """What the backbone makes of it, finest map first."""
        raise NotImplementedError

    def frozen(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> (N, 5 * D * H * W and more): intensities, evidence, voxel part; deepest map."""
        medians, maps = x / self.healthy.view(3, 1, 1, 1), self.maps(self.seen(x))
        both = self.evidence(self.seen(medians), maps)  # (N * D, 2, H, W) or (N, 2, D, H, W)
        if both.ndim == 4:
            both = both.unflatten(0, (len(x), -1)).movedim(2, 1)
        return torch.cat([medians.flatten(1), both.flatten(1), maps[-1].reshape(len(x), -1)], dim=1)

    def after_frozen(self, features: Tensor) -> Tensor:
        """features: what frozen() gives -> logits (N,); while phase 1 is trained (N, 2), with the voxel part alone.

        Without a loss of its own the voxel's part may leave it to the context to find the stroke: in 3 of 10 seeds it
        did, and what was read under the evidence said nothing of the time (AUC 0.63 to 0.68 in place of 0.84).
        """
        if self.stroke:
            _, evidence, voxel, _ = self.unpacked(features)
            both = torch.stack([evidence.flatten(1), voxel.flatten(1)], dim=1)  # (N, 2, D * H * W)
            logits = both.topk(self.strongest, dim=2).values.mean(dim=2).float()
            return logits if self.training else logits[:, 0]
        x, evidence, voxel, rest = self.unpacked(features)
        weights = self.voxel_weights(evidence, voxel)
        outputs = self.classifier(self.standardised(weighted_mean(x, weights)))
        if self.gate_classifier is not None:
            gated = weighted_mean(x, weights * self.gate_map(x, evidence, rest))
            outputs = outputs + self.gate_classifier(self.standardised(gated))
        return outputs.squeeze(1).float()

    def unpacked(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What frozen() packed -> intensities (N, 3, D, H, W), evidence and the voxel's part (N, D, H, W), the rest."""
        size = 5 * math.prod(self.shape)
        voxels = features[:, :size].unflatten(1, (5, *self.shape))
        return voxels[:, :3], voxels[:, 3], voxels[:, 4], features[:, size:]

    def read(self, features: Tensor) -> Tensor:
        """features: what frozen() gives -> (N, 3): mean DWI, T2w and FLAIR under the weights, in healthy medians."""
        x, evidence, voxel, _ = self.unpacked(features)
        return weighted_mean(x, self.voxel_weights(evidence, voxel))

    def standardised(self, means: Tensor) -> Tensor:
        """(N, 3) -> (N, 3) in SDs from the training hemispheres' mean."""
        return (means.float() - self.feature_mean) / self.feature_sd

    def voxel_weights(self, evidence: Tensor, voxel: Tensor) -> Tensor:
        """(N, D, H, W) each -> how much each voxel counts (N, D, H, W); sums to 1 but for rounding."""
        where = F.logsigmoid(self.log_sharpness.exp() * (evidence - self.least))
        slices = F.logsigmoid(self.slice_logits).view(-1, 1, 1)
        return (where + self.clearness * voxel + slices).flatten(1).softmax(dim=1).view_as(evidence)

    def gate_map(self, x: Tensor, evidence: Tensor, rest: Tensor) -> Tensor:
        """-> (N, D, H, W) in (0, 1): the attention gate on contrasts and evidence, gated by the deepest map."""
        assert self.gate is not None  # asked for with gates only
        fine = self.seen(torch.cat([contrast(x), evidence.clamp(-CLIP, CLIP).unsqueeze(1)], dim=1))
        _, gate = self.gate(fine, rest.reshape(len(fine), -1, *self.deepest_size()))
        return gate.view_as(evidence)

    def deepest_size(self) -> tuple[int, ...]:
        """Spatial size of the deepest map."""
        raise NotImplementedError

    def look_at(self, share: float) -> None:
        """Let the stroke logit be the mean evidence of this share of a hemisphere's voxels, the strongest."""
        self.strongest = max(1, round(share * math.prod(self.shape)))

    def slice_weights(self) -> Tensor:
        """(D,): how much each slice counts, each in (0, 1)."""
        return torch.sigmoid(self.slice_logits)

    def evidence_map(self, x: Tensor) -> Tensor:
        """x: (N, C, D, H, W) -> the logit of "stroke here" (N, D, H, W)."""
        return self.unpacked(self.frozen(x))[1]

    def looks_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, D, H, W) -> where the stroke is, in [0, 1], and how much each slice counts: (N, D, H, W), (N, D).

        Where: how much likelier stroke is than not, 2 p - 1 of the place's probability p, 0 from p = 1/2 down. Not over
        the hemisphere's strongest: in the middle of an infarct that is so strong that the rest of it would look cold. A
        slice counts by its share of that in phase 1, by its share of the weights in the TSS phases.
        """
        _, evidence, voxel, _ = self.unpacked(self.frozen(x))
        where = (evidence / 2).tanh().clamp(min=0)  # 2 sigmoid(evidence) - 1
        slices = (where if self.stroke else self.voxel_weights(evidence, voxel)).sum(dim=(2, 3))
        return where, slices / slices.sum(dim=1, keepdim=True).clamp(min=1e-12)


class EvidenceSliceClassifier(EvidenceClassifier):
    """2D: ResNet-18 on every slice; its context comes from conv1 and all four stages."""

    def __init__(self, width: int, shape: Sequence[int], healthy: Sequence[float], stroke: bool, attention: bool):
        super().__init__([width, width, 2 * width, 4 * width, 8 * width], 2, shape, healthy, stroke, attention)
        self.backbone = ResNet18(width)

    def seen(self, x: Tensor) -> Tensor:
        return x.movedim(2, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def maps(self, seen: Tensor) -> list[Tensor]:
        return self.backbone.maps(seen)

    def deepest_size(self) -> tuple[int, ...]:
        return tuple(-(-size // 32) for size in self.shape[1:])


class EvidenceVolumeClassifier(EvidenceClassifier):
    """3D: the U-Net's encoder; its context comes from stages 2 to 4.

    Stage 1, at full size, stays out: it would take the place of the voxel's own part, which has to stay fine.
    """

    def __init__(self, width: int, shape: Sequence[int], healthy: Sequence[float], stroke: bool, attention: bool):
        super().__init__([4 * width, 8 * width, 16 * width], 3, shape, healthy, stroke, attention)
        self.encoder = Encoder3d(3, width)

    def seen(self, x: Tensor) -> Tensor:
        return x

    def maps(self, seen: Tensor) -> list[Tensor]:
        return list(self.encoder(seen)[1:])

    def deepest_size(self) -> tuple[int, ...]:
        return tuple(-(-size // 8) for size in self.shape)


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """x (N, C, D, H, W), weights (N, D, H, W) -> (N, C)."""
    sums = torch.einsum("ncp,np->nc", x.flatten(2), weights.flatten(1))
    return sums / (weights.flatten(1).sum(dim=1, keepdim=True) + 1e-12)
