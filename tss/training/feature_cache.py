"""The features of the frozen layers, cached: within a phase their output for a hemisphere never changes.

In:  a Classifier, logits = after_frozen(frozen(x)); the hemispheres of a phase (N, C, D, H, W).
Out: what the frozen layers make of each hemisphere, and the rest of the network, which takes it.
Paper: 2.3 (which layers are frozen); caching is ours, and changes the outcome of no step.
See: tests/training/test_feature_cache.py
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tss.errors import InputError, advice
from tss.models.classifier import Classifier
from tss.training.dataset import Rows, Split, at_least_float
from tss.training.device import at_precision, free_memory

# Small, since the frozen layers' maps are the largest of all; but not 1, for which torch on the CPU takes another
# convolution than for a batch, slower and rounded differently.
AT_ONCE = 2
SHARE = 0.5  # our choice: of what is free; the rest is for training and for other users of the machine
MOST = 3584 * 2**20  # our choice, bytes in the machine's memory: 350 hemispheres of the paper's size. More go to a file


class AfterFrozen(nn.Module):
    """The network behind its frozen layers: takes their features in place of hemispheres."""

    def __init__(self, network: Classifier):
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return self.network.after_frozen(features)


def cache_features(
    network: Classifier,
    splits: Sequence[Split],
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
    folder: Path = Path(),
) -> tuple[nn.Module, list[Split]]:
    """Replace hemispheres by their features; returns what is left to train, and the splits.

    Kept on the device, in memory, or in a file in `folder`. Where nothing has room, features are computed on demand.
    Which it is is said, and changes no bit.

    Raises InputError: the file cannot be written.
    """
    hemispheres = sum(len(split.hemispheres) for split in splits)
    one = frozen_features(network, splits[0].hemispheres[:AT_ONCE], device, precision)[0]
    size = hemispheres * one.nbytes
    place = place_for(size, device, folder)
    text = f"{size / 2**30:.2f} GiB of {str(one.dtype).removeprefix('torch.')}, {tuple(one.shape)} per hemisphere"
    if place is None:
        say(
            f"the features of the frozen layers ({text}) fit neither into memory nor into half of the free disk of "
            f"{folder}: computed again in each step, same outcome"
        )
        return AfterFrozen(network), [
            split._replace(hemispheres=LazyFeatures(network, split.hemispheres, one, device, precision))
            for split in splits
        ]
    where = f"in a file without a name in {folder}, gone when this ends" if isinstance(place, Path) else f"on {place}"
    say(f"the features of the frozen layers are computed once: {text}, kept {where}")
    kept = []
    for split in splits:
        features = room_for(len(split.hemispheres), one, place)
        for end in range(AT_ONCE, len(features) + AT_ONCE, AT_ONCE):
            end = min(end, len(features))
            rows = slice(max(0, end - AT_ONCE), end)  # of an odd number the last but one is computed twice
            features[rows] = frozen_features(network, split.hemispheres[rows], device, precision)
        kept.append(split._replace(hemispheres=features))
    return AfterFrozen(network), kept


def place_for(size: int, device: torch.device, folder: Path) -> torch.device | Path | None:
    """Where so many bytes of features are kept: on the GPU, in memory, in a file in `folder`, or nowhere (None)."""
    cpu = torch.device("cpu")
    if device != cpu and size <= SHARE * free_memory(device):
        return device
    if size <= min(MOST, SHARE * free_memory(cpu)):
        return cpu
    return folder if size <= SHARE * shutil.disk_usage(folder).free else None


def room_for(count: int, one: Tensor, place: torch.device | Path) -> "Tensor | StoredFeatures":
    """Return room for the features of `count` hemispheres, each like `one`."""
    if isinstance(place, Path):
        return StoredFeatures(count, one, place)
    # In the memory format in which the layers give them: convolutions round differently in another.
    return torch.empty_strided((count, *one.shape), (one.numel(), *one.stride()), dtype=one.dtype, device=place)


class StoredFeatures(Rows):
    """Features in a file that never has a name: the system removes it when the program ends, however it ends."""

    def __init__(self, count: int, one: Tensor, folder: Path):
        self.shape, self.nbytes, self.folder = (count, *one.shape), count * one.nbytes, folder
        self.one = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype)  # strides matter: see room_for()
        with self._needs_disk():
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __setitem__(self, rows: slice, features: Tensor) -> None:
        start, end, _ = rows.indices(len(self))
        content = torch.empty((end - start, self.one.nbytes), dtype=torch.uint8)
        self._as_features(content).copy_(features)
        with self._needs_disk():
            self.file.seek(start * self.one.nbytes)
            self.file.write(content.numpy().data)

    def __getitem__(self, rows: Any) -> Tensor:
        places = torch.arange(len(self))[rows].tolist()
        content = torch.empty((len(places), self.one.nbytes), dtype=torch.uint8)
        with self._needs_disk():
            for place, row in zip(places, content.numpy(), strict=True):
                self.file.seek(place * self.one.nbytes)
                self.file.readinto(row.data)
        return self._as_features(content)

    def _as_features(self, content: Tensor) -> Tensor:
        """bytes (N, nbytes of one) -> features (N, ...), the same memory."""
        shape, stride = (len(content), *self.one.shape), (self.one.numel(), *self.one.stride())
        return content.view(self.one.dtype).as_strided(shape, stride)

    @contextmanager
    def _needs_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"the features of the frozen layers, {self.nbytes / 2**30:.2f} GiB, cannot be kept in {self.folder}: "
                f"{error.strerror or error}. {advice(error)}"
            ) from error


class LazyFeatures(Rows):
    """In place of cached features: computes those of the hemispheres that are asked for."""

    def __init__(
        self, network: Classifier, hemispheres: Tensor | Rows, one: Tensor, device: torch.device, precision: str
    ):
        self.network, self.hemispheres, self.device, self.precision = network, hemispheres, device, precision
        self.shape = (len(hemispheres), *one.shape)

    def __getitem__(self, rows: Any) -> Tensor:
        chosen = self.hemispheres[rows]
        batch = chosen.expand(AT_ONCE, *chosen.shape[1:]) if len(chosen) == 1 else chosen  # see AT_ONCE
        return frozen_features(self.network, batch, self.device, self.precision)[: len(chosen)]


@torch.no_grad()
def frozen_features(network: Classifier, hemispheres: Tensor, device: torch.device, precision: str) -> Tensor:
    """hemispheres: (N, C, D, H, W) -> features (N, ...)."""
    with at_precision(precision, device):
        return network.frozen(at_least_float(hemispheres.to(device)))
