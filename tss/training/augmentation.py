"""Augmentation: hemispheres are shifted at random within the slice, so that a small training set is not memorised.

In:  a batch (N, ..., H, W): hemispheres, or their features; an rng.
Out: the batch, each hemisphere shifted by up to `most` strides along H and W, at random; edges are repeated.
Paper: - (2.4 mentions no augmentation; ours: column `shift` of the table in tss.training.phases, 0 = none)
See: tests/training/test_augmentation.py

Shifts are whole strides, the 4 x 4 pixels of which the frozen layers of both models make one value: a hemisphere
shifted by 4 pixels has the same features shifted by one, except at the edges, where a convolution sees repeated
pixels. So features can be shifted in place of the hemisphere, and are still computed once (tss.training.feature_cache).
"""

import numpy as np
import torch
from torch import Tensor

STRIDE = 4  # pixels along H and W from one of the frozen layers' values to the next (tss.models)


def random_shift(batch: Tensor, rng: np.random.Generator, most: int, stride: int) -> Tensor:
    """batch: (N, ..., H, W); most: strides; stride: STRIDE for hemispheres, 1 for features of the frozen layers."""
    shifts = rng.integers(-most, most + 1, (len(batch), 2)) * stride
    result = torch.empty_like(batch)  # in the same memory format: convolutions round differently in another
    for old, new, (down, right) in zip(batch, result, shifts.tolist(), strict=True):
        rows, columns = (slice(max(0, step), min(0, step) or None) for step in (down, right))
        old_rows, old_columns = (slice(max(0, -step), min(0, -step) or None) for step in (down, right))
        new[..., rows, columns] = old[..., old_rows, old_columns]
        repeat_edge(new, -2, down)
        repeat_edge(new, -1, right)
    return result


def repeat_edge(image: Tensor, axis: int, step: int) -> None:
    """Fill, in place, what a shift by `step` along an axis has left empty with the line next to it."""
    start, edge = (0, step) if step > 0 else (image.shape[axis] + step, image.shape[axis] + step - 1)
    if step:
        image.narrow(axis, start, abs(step))[...] = image.narrow(axis, edge, 1)
