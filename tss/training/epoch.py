"""The loop that all phases share: hemispheres into memory, one epoch of training, and prediction.

In:  DATA/hemispheres/<patient>.npy, float16 (2, 3, D, H, W) = (left and mirrored right, channel, z, y, x).
Out: the mean loss of an epoch; logits (N,) float64, on the CPU.
Paper: 2.4 (loss, optimizer, batch size).
See: tests/training/test_epoch.py
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from adabound import AdaBound
from torch import Tensor, nn
from torch.nn import functional as F

from tss.data.cohort import SIDES, Patient, Sample, samples
from tss.errors import InputError

LOSS = F.binary_cross_entropy_with_logits  # paper 2.4; on logits, since it is stable there (DESIGN 3.3)


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
        path = Path(data) / "hemispheres" / f"{sample.patient}.npy"
        row.copy_(torch.from_numpy(read_hemispheres(path, (2, *row.shape))[SIDES.index(sample.side)]))
    return Split(chosen, hemispheres, torch.tensor([float(sample.label) for sample in chosen]))


def read_hemispheres(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return DATA/hemispheres/<patient>.npy, (2, C, D, H, W) float16.

    Raises:
        InputError: missing, damaged, of another grid, or with an empty hemisphere.
    """
    try:
        hemispheres = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or damaged ({error}). Run run_preprocess.py again on this cohort."
                         ) from error
    if hemispheres.shape != shape:
        raise InputError(f"{path} has the shape {hemispheres.shape}, the grid in settings.json needs {shape}. "
                         "Run run_preprocess.py --overwrite, with one --grid for all patients.")
    for side, hemisphere in zip(SIDES, hemispheres, strict=True):
        if not np.isfinite(hemisphere).all() or not hemisphere.any():
            record = path.parent.parent / "transforms" / f"{path.stem}.json"
            raise InputError(f"{path}: the {side} hemisphere is empty or not finite. Delete {record} and run "
                             "run_preprocess.py again: it does this patient anew.")
    return hemispheres


def build_optimizer(network: nn.Module, lr: float, final_lr: float) -> AdaBound:
    """AdaBound (paper 2.4) over what is trained, with the package's other settings as they are.

    Always a new one for a phase: the package fixes its base rates on construction and never steps a group that is
    added later.
    """
    # adabound 0.0.5 calls add_() and addcmul_() the old way, which torch still understands.
    warnings.filterwarnings("ignore", message=r"This overload of add\w* is deprecated", category=UserWarning)
    return AdaBound([p for p in network.parameters() if p.requires_grad], lr=lr, final_lr=final_lr)


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


def train_one_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str,
) -> float:
    """Take one step a batch (inputs, targets); returns the mean loss over hemispheres.

    Raises:
        FloatingPointError: the loss is no longer a finite number.
    """
    network.train()  # frozen modules stay as they are (tss.training.phases.freeze)
    total, count = 0.0, 0
    for inputs, targets in batches:
        with at_precision(precision, inputs.device):
            outputs = network(inputs)
        loss = loss_of(outputs.float(), targets)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the training loss is {loss.item()}")
        optimizer.zero_grad()
        with right_backend(precision, inputs.device):
            loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
        count += len(targets)
    return total / count


@torch.no_grad()
def predict(network: nn.Module, hemispheres: Tensor, size: int, device: torch.device, precision: str) -> np.ndarray:
    """hemispheres (N, C, D, H, W) of any float type, in batches of `size` -> logits (N,) float64.

    Raises:
        FloatingPointError: a logit is not a finite number.
    """
    network.eval()
    logits = []
    for batch in hemispheres.split(size):
        with at_precision(precision, device):
            logits.append(network(at_least_float(batch.to(device))).cpu().double())
    logits = torch.cat(logits).numpy()
    if not np.isfinite(logits).all():
        raise FloatingPointError("the network's outputs are not finite numbers")
    return logits


def probability(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


@contextmanager
def at_precision(precision: str, device: torch.device) -> Iterator[None]:
    """fp32: everything in float32, but that torch lets recent GPUs round what convolutions multiply (TF32).

    bf16: convolutions and products in bfloat16, weights and loss in float32.
    """
    with right_backend(precision, device), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def right_backend(precision: str, device: torch.device) -> Iterator[None]:
    """Keep oneDNN out of bf16 on CPUs; forward and backward steps both need it.

    With torch 2.13 its bf16 convolutions give wrong numbers: with AMX where a map ends up 1 pixel wide, with AVX512
    on an AMD EPYC now and then in 3D. torch's own are right, and many times slower in 3D: bf16 is for GPUs.
    """
    asked = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = asked and (precision == "fp32" or device.type != "cpu")
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = asked


def choose_device(name: str) -> torch.device:
    """ "auto" takes the first GPU where there is one; otherwise any name that torch knows: cpu, cuda, cuda:1.

    It is made to compute: a GPU that is too old for this torch, full, or somebody else's alone is found out here.

    Raises:
        InputError: it cannot compute.
    """
    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(found if name == "auto" else name)
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}. "
                         "Give --device cpu, or ask for another GPU.") from error
    return device
