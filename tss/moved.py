"""Training hemispheres moved a little within the slice, so that a few hundred of them are not learned by heart.

In:  a batch (N, ..., H, W): hemispheres, or what the frozen layers made of them; an rng.
Out: the batch, each hemisphere moved by up to `cells` cells along H and W, at random; edges are repeated.
Paper: - (2.4 mentions no augmentation; ours, and --shift 0 trains without it)
See: tests/test_moved.py

A cell is what the frozen layers of both models make one value of: 4 x 4 pixels (tss.resnet2d, tss.unet3d). By whole
cells, since a hemisphere moved by 4 pixels gives the same features moved by one: what the frozen layers gave can be
moved in the place of the hemisphere, and is still computed once (tss.frozen).
"""

import numpy as np
import torch
from torch import Tensor

PIXELS = 4  # along H and W, of a cell


def moved(batch: Tensor, rng: np.random.Generator, cells: int, size: int) -> Tensor:
    """batch: (N, ..., H, W); size: a cell's edge in it, PIXELS of hemispheres and 1 of frozen layers' features."""
    h, w = batch.shape[-2:]
    result = torch.empty_like(batch)  # in the same order in memory: convolutions round otherwise in another
    for one, (down, right) in zip(range(len(batch)), rng.integers(-cells, cells + 1, (len(batch), 2)) * size,
                                  strict=True):
        rows = (torch.arange(h, device=batch.device) - int(down)).clamp(0, h - 1)
        columns = (torch.arange(w, device=batch.device) - int(right)).clamp(0, w - 1)
        result[one] = batch[one].index_select(-2, rows).index_select(-1, columns)
    return result
