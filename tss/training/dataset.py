"""Hemispheres of a split in memory, and batches of them on the device.

In:  DATA/hemispheres/<patient>.npy, float16 (2, 3, D, H, W) = (left and mirrored right, channel, z, y, x).
Out: Split(samples, hemispheres (N, C, D, H, W), labels (N,)); batches of float32.
Paper: 2.3 (which hemispheres take part in which task), 2.4 (batch size).
See: tests/training/test_dataset.py
"""

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
    hemispheres: Tensor  # (N, C, D, H, W) float16 in [0, 1], on the CPU; or features of the frozen layers
    labels: Tensor  # (N,) float32, 0 or 1; -1 where the task has none


def load_split(data: str | os.PathLike, patients: list[Patient], task: str, split: str, grid: Sequence[int]) -> Split:
    """Read all hemispheres of a task's split into memory. grid: voxels [X, Y, Z] of the whole brain.

    Raises InputError: a file is missing, damaged, empty or of another grid.
    """
    chosen = samples(patients, task, split)
    x, y, z = grid
    hemispheres = torch.empty((len(chosen), 3, z, y, x // 2), dtype=torch.float16)
    for row, sample in zip(hemispheres, chosen, strict=True):
        row.copy_(torch.from_numpy(read_hemispheres(data, sample.patient, grid)[SIDES.index(sample.side)]))
    return Split(chosen, hemispheres, torch.tensor([float(sample.label) for sample in chosen]))


def batches(split: Split, order: Sequence[int], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield hemispheres (<= size, C, D, H, W) float32 and labels (<= size,) in the given order, on the device.

    The last batch may be a single hemisphere; BatchNorm averages over its voxels and slices. A single slice of a tumour
    (N, C, Y, X) that is left over joins the batch before it: on small grids its last map is one pixel, and BatchNorm
    would have nothing to average over.
    """
    least = 2 if split.hemispheres.ndim == 4 and size > 1 else 1
    starts = [start for start in range(0, len(order), size) if len(order) - start >= least or start == 0]
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = torch.as_tensor(order[start:end])
        yield at_least_float(split.hemispheres[rows].to(device)), split.labels[rows].to(device)


def at_least_float(stored: Tensor) -> Tensor:
    """Return stored hemispheres, float16, as float32; features of the frozen layers as they are."""
    return stored.float() if stored.dtype == torch.float16 else stored
