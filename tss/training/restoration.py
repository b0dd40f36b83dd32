"""Phase 0: a batch is distorted hemispheres and their originals; its error is compared with two trivial ones.

In:  a Split of hemispheres (N, C, D, H, W); labels are not read.
Out: batches (distorted, original); mean squared errors; rows of slices for restored.png.
Paper: 2.2 (Models Genesis: distort, then learn to restore).
See: tests/training/test_restoration.py

The distortion of a hemisphere follows from (seed, epoch, its place in the split): a resumed run sees the same ones.
Validation is always distorted as in an epoch 0, so that its error can be compared between epochs.

Doing nothing leaves an error that is easily beaten: any dark picture has less. The other reference is hard to beat:
the mean training hemisphere, whatever the input. A convolution does not know where in the head it is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tss.data.hemispheres import CHANNELS
from tss.training.dataset import Split
from tss.training.device import at_precision
from tss.training.genesis import distort

RESTORATION_LOSS = F.mse_loss  # Zhou 2019
SHOWN = 4  # hemispheres in restored.png


def mean_hemisphere(split: Split) -> Tensor:
    """Return the mean (C, D, H, W) float32 of a split's hemispheres, a slice at a time: all may not fit into memory."""
    hemispheres = split.hemispheres
    channels, depth = hemispheres.shape[1:3]
    means = [hemispheres[:, c, z].mean(dim=0, dtype=torch.float32) for c in range(channels) for z in range(depth)]
    return torch.stack(means).unflatten(0, (channels, depth))


@torch.no_grad()
def start_at_mean(network: nn.Module, mean: Tensor) -> None:
    """Make the untrained UNet3D's output start at each channel's mean intensity instead of at sigmoid(0) = 0.5.

    Our choice: hemispheres are dark, with means below 0.1, and the first epochs would go into darkening everything.
    """
    network.get_parameter("out.bias").copy_(torch.logit(mean.mean(dim=(1, 2, 3)), eps=1e-3))


def distorted_batches(
    split: Split, order: Sequence[int], size: int, device: torch.device, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield distorted and original hemispheres (<= size, C, D, H, W) float32 in the given order, on the device."""
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        originals = split.hemispheres[torch.as_tensor(rows)].float()
        distorted = [
            distort(original.numpy(), np.random.default_rng([seed, 0, epoch, int(row)]))
            for row, original in zip(rows, originals, strict=True)
        ]
        yield torch.from_numpy(np.stack(distorted)).to(device), originals.to(device)


@torch.no_grad()
def validate_restoration(
    network: nn.Module, split: Split, mean: Tensor, size: int, device: torch.device, precision: str, seed: int
) -> dict[str, float]:
    """Return the mean squared errors of restoring (val), of doing nothing, and of the mean hemisphere.

    mean: (C, D, H, W), of the training split.

    Raises FloatingPointError: the network's error is not a finite number.
    """
    network.eval()
    mean = mean.to(device)
    sums = {"val_loss": 0.0, "nothing_loss": 0.0, "mean_loss": 0.0}
    for distorted, originals in distorted_batches(split, range(len(split.hemispheres)), size, device, seed, epoch=0):
        with at_precision(precision, device):
            restored = network(distorted)
        for name, answers in zip(sums, (restored.float(), distorted, mean.expand_as(originals)), strict=True):
            sums[name] += RESTORATION_LOSS(answers, originals).item() * len(originals)
    if not np.isfinite(sums["val_loss"]):
        raise FloatingPointError("the network's outputs are not finite numbers")
    return {name: total / len(split.hemispheres) for name, total in sums.items()}


@torch.no_grad()
def restored_slices(
    network: nn.Module, split: Split, device: torch.device, seed: int
) -> dict[str, Sequence[np.ndarray]]:
    """Return caption -> original, distorted and restored middle slice (H, W) of a few hemispheres, all channels."""
    network.eval()
    shown: dict[str, Sequence[np.ndarray]] = {}
    places = np.unique(np.linspace(0, len(split.samples) - 1, SHOWN).astype(int))
    for place in places.tolist():
        ((distorted, original),) = distorted_batches(split, [place], 1, device, seed, epoch=0)
        middle = original.shape[2] // 2
        volumes = [volume[0, :, middle].float().cpu().numpy() for volume in (original, distorted, network(distorted))]
        for channel, slices in zip(CHANNELS, zip(*volumes, strict=True), strict=True):
            sample = split.samples[place]
            shown[f"{sample.patient} {sample.side}, {channel}"] = slices
    return shown
