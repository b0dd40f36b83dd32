"""Phase 0: a batch is distorted hemispheres and what they were; the error of doing nothing stands beside ours.

In:  a Split of hemispheres (N, C, D, H, W); labels are not looked at.
Out: batches (distorted, original); mean squared errors; rows of slices for restored.png.
Paper: 2.2 (Models Genesis: distort, then learn to restore).
See: tests/test_restore.py

The distortion of a hemisphere follows from (seed, epoch, its place in the split): a resumed run sees the same ones.
Validation is always distorted as in an epoch 0, so that its error can be compared from epoch to epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tss.genesis import distort
from tss.hemispheres import CHANNELS
from tss.loop import Split, at_precision

LOSS = F.mse_loss  # Zhou 2019
SHOWN = 4  # hemispheres in restored.png


def batches(split: Split, order: Sequence[int], size: int, device: torch.device, seed: int,
            epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield distorted and original hemispheres (<= size, C, D, H, W) float32 in the given order, on the device."""
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        originals = split.hemispheres[torch.as_tensor(rows)].float()
        distorted = [distort(original.numpy(), np.random.default_rng([seed, 0, epoch, int(row)]))
                     for row, original in zip(rows, originals, strict=True)]
        yield torch.from_numpy(np.stack(distorted)).to(device), originals.to(device)


@torch.no_grad()
def validate(network: nn.Module, split: Split, size: int, device: torch.device, precision: str,
             seed: int) -> tuple[float, float]:
    """Return the mean squared error of the restored hemispheres, and of the distorted ones left as they are.

    Raises:
        FloatingPointError: the network's error is not a finite number.
    """
    network.eval()
    ours = nothing = 0.0
    for distorted, originals in batches(split, range(len(split.hemispheres)), size, device, seed, epoch=0):
        with at_precision(precision, device):
            restored = network(distorted)
        ours += LOSS(restored.float(), originals).item() * len(originals)
        nothing += LOSS(distorted, originals).item() * len(originals)
    if not np.isfinite(ours):
        raise FloatingPointError("the network's outputs are not finite numbers")
    return ours / len(split.hemispheres), nothing / len(split.hemispheres)


@torch.no_grad()
def pictures(network: nn.Module, split: Split, device: torch.device,
             seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return caption -> original, distorted and restored middle slice (H, W) of a few hemispheres, all channels."""
    network.eval()
    shown = {}
    places = np.unique(np.linspace(0, len(split.samples) - 1, SHOWN).astype(int))
    for place in places.tolist():
        (distorted, original), = batches(split, [place], 1, device, seed, epoch=0)
        middle = original.shape[2] // 2
        volumes = [volume[0, :, middle].float().cpu().numpy() for volume in (original, distorted, network(distorted))]
        for channel, slices in zip(CHANNELS, zip(*volumes, strict=True), strict=True):
            sample = split.samples[place]
            shown[f"{sample.patient} {sample.side}, {channel}"] = slices
    return shown
