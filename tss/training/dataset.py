"""TODO"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tss.data.cohort import SIDES, Patient
from tss.data.prepared import read_hemispheres
from tss.data.tasks import Sample, samples


class Split(NamedTuple):
    """The hemispheres of one task in one split."""

    samples: list[Sample]
    hemispheres: Tensor  # (N, C, D, H, W) float16 in [0, 1], on the CPU; or what the frozen layers made of them
    labels: Tensor  # (N,) float32, 0 or 1; -1 where the task has none


def load_split(data: str | os.PathLike, patients: list[Patient], task: str, split: str, grid: Sequence[int]) -> Split:
    """Read all hemispheres of a task's split into memory. grid: voxels [X, Y, Z] of the whole brain.

    Raises:
        InputError: a file is missing, damaged, empty or of another grid.
    """
    chosen = samples(patients, task, split)
    x, y, z = grid
    hemispheres = torch.empty((len(chosen), 3, z, y, x // 2), dtype=torch.float16)
    for row, sample in zip(hemispheres, chosen, strict=True):
        row.copy_(torch.from_numpy(read_hemispheres(data, sample.patient, grid)[SIDES.index(sample.side)]))
    return Split(chosen, hemispheres, torch.tensor([float(sample.label) for sample in chosen]))


def batches(split: Split, order: Sequence[int], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield hemispheres (<= size, C, D, H, W) float32 and labels (<= size,) in the given order, on the device.

    The last batch may hold a single hemisphere. BatchNorm can live with that: it counts voxels (and slices).
    """
    for start in range(0, len(order), size):
        rows = torch.as_tensor(order[start : start + size])
        yield at_least_float(split.hemispheres[rows].to(device)), split.labels[rows].to(device)


def at_least_float(stored: Tensor) -> Tensor:
    """Hemispheres lie in float16, which no layer computes with; what a frozen layer gave is taken as it gave it."""
    return stored.float() if stored.dtype == torch.float16 else stored
