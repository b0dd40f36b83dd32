"""Training hemispheres moved a little within the slice, so that a few hundred of them are not learned by heart.

In:  a batch (N, ..., H, W): hemispheres, or what the frozen layers made of them; an rng.
Out: the batch, each hemisphere moved by up to `cells` cells along H and W, at random; edges are repeated.
Paper: - (2.4 mentions no augmentation; ours, and --shift 0 trains without it)
See: tests/training/test_augmentation.py

A cell is what the frozen layers of both models make one value of: 4 x 4 pixels (tss.models.resnet2d, tss.models.unet3d). By whole
cells, since a hemisphere moved by 4 pixels gives the same features moved by one, but at the edges, where a convolution
sees what was repeated: what the frozen layers gave can be moved in the place of the hemisphere, and is still computed
once (tss.training.feature_cache).
"""

import numpy as np
import torch
from torch import Tensor

STRIDE = 4  # along H and W, of a cell


def random_shift(batch: Tensor, rng: np.random.Generator, cells: int, size: int) -> Tensor:
    """batch: (N, ..., H, W); size: a cell's edge in it, PIXELS of hemispheres and 1 of frozen layers' features."""
    steps = rng.integers(-cells, cells + 1, (len(batch), 2)) * size
    result = torch.empty_like(batch)  # in the same order in memory: convolutions round otherwise in another
    for old, new, (down, right) in zip(batch, result, steps.tolist(), strict=True):
        rows, columns = (slice(max(0, step), min(0, step) or None) for step in (down, right))
        old_rows, old_columns = (slice(max(0, -step), min(0, -step) or None) for step in (down, right))
        new[..., rows, columns] = old[..., old_rows, old_columns]
        repeat_edge(new, -2, down)
        repeat_edge(new, -1, right)
    return result


def repeat_edge(image: Tensor, axis: int, step: int) -> None:
    """Fill, in place, what a move by `step` along an axis has left empty with the line beside it."""
    start, edge = (0, step) if step > 0 else (image.shape[axis] + step, image.shape[axis] + step - 1)
    if step:
        image.narrow(axis, start, abs(step))[...] = image.narrow(axis, edge, 1)
