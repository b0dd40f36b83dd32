"""Hemispheres of a split, read from disk when they are asked for, and batches of them on the device.

In:  DATA/hemispheres/<patient>.npy, float16 (2, 3, D, H, W) = (left and mirrored right, channel, z, y, x).
Out: Split(samples, hemispheres (N, C, D, H, W), labels (N,)); batches of float32.
Paper: 2.3 (which hemispheres take part in which task), 2.4 (batch size).
See: tests/training/test_dataset.py

Memory does not grow with the cohort, and 3,000 patients start as soon as 30. Nothing is kept here: the system keeps in
memory what it has read and has room for, and gives it back where another program needs the room.
"""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tss.data.cohort import SIDES, Patient
from tss.data.hemispheres import CHANNELS
from tss.data.prepared import check_hemisphere, hemispheres_file, map_hemispheres
from tss.data.tasks import Sample, samples
from tss.errors import InputError


class Rows:
    """In the place of a tensor (N, ...): rows that are read, or computed, when they are asked for."""

    shape: tuple[int, ...]  # (N, ...)
    nbytes: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Tensor:
        raise NotImplementedError

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[start : start + size] for start in range(0, len(self), size))


class Split(NamedTuple):
    """The hemispheres of one task in one split."""

    samples: list[Sample]
    hemispheres: Tensor | Rows  # (N, C, D, H, W) float16 in [0, 1], on the CPU; or features of the frozen layers
    labels: Tensor  # (N,) float32, 0 or 1; -1 where the task has none


class StoredHemispheres(Rows):
    """The hemispheres (N, C, D, H, W) of samples, in their files: indexed like a tensor, and read anew each time.

    Headers are read at once, voxels are checked when a hemisphere is first read: in the first epoch each of them is.
    """

    def __init__(self, data: str | os.PathLike, chosen: Sequence[Sample], grid: Sequence[int]):
        """Raises InputError: a file is missing, damaged or of another grid."""
        self.data, self.samples, self.grid = data, chosen, grid
        self.stamps: dict[str, tuple[int, int]] = {}
        for patient in dict.fromkeys(sample.patient for sample in chosen):
            map_hemispheres(data, patient, grid)
            self.stamps[patient] = self._stamp(patient)
        x, y, z = grid
        self.shape = (len(chosen), len(CHANNELS), z, y, x // 2)
        self.nbytes = math.prod(self.shape) * torch.float16.itemsize
        self.checked = np.zeros(len(chosen), bool)

    def __getitem__(self, rows: Any) -> Tensor:
        """rows: as of a tensor; a tuple takes a part of each hemisphere: [:, 0] is their DWI.

        Raises InputError: a hemisphere is empty, not finite or not in [0, 1], or its file has changed meanwhile.
        """
        rows, *part = rows if isinstance(rows, tuple) else (rows,)
        places = torch.arange(len(self))[rows]
        shape = np.broadcast_to(np.float16(0), self.shape[1:])[tuple(part)].shape
        read = np.empty((places.numel(), *shape), np.float16)
        for number, place in enumerate(places.flatten().tolist()):
            read[number] = self._mapped(place)[tuple(part)]
            if not part and not self.checked[place]:
                check_hemisphere(read[number], self.data, *self.samples[place][:2])
                self.checked[place] = True
        return torch.from_numpy(read).reshape(*places.shape, *shape)

    def _mapped(self, place: int) -> np.ndarray:
        patient, side, _ = self.samples[place]
        mapped = map_hemispheres(self.data, patient, self.grid)[SIDES.index(side)]
        if self._stamp(patient) != self.stamps[patient]:
            raise InputError(
                f"{hemispheres_file(self.data, patient)} has changed since this training began: no other program may "
                "write to these data meanwhile. Start again with --overwrite."
            )
        return mapped

    def _stamp(self, patient: str) -> tuple[int, int]:
        status = hemispheres_file(self.data, patient).stat()
        return status.st_size, status.st_mtime_ns


def load_split(data: str | os.PathLike, patients: list[Patient], task: str, split: str, grid: Sequence[int]) -> Split:
    """Return the hemispheres of a task's split, on disk, and their labels. grid: voxels [X, Y, Z] of the whole brain.

    Raises InputError: a file is missing, damaged or of another grid.
    """
    chosen = samples(patients, task, split)
    labels = torch.tensor([float(sample.label) for sample in chosen])
    return Split(chosen, StoredHemispheres(data, chosen, grid), labels)


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
