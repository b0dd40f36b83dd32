"""The device that trains and predicts, its precision, and how much memory is free on it.

In:  --device and --precision, as typed.
Out: a torch.device that computes; a context for forward passes; bytes.
Paper: 2.4 (one GPU; precision is not mentioned).
See: tests/training/test_device.py
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tss.errors import InputError


@contextmanager
def at_precision(precision: str, device: torch.device) -> Iterator[None]:
    """fp32: everything in float32, except that torch lets recent GPUs round the factors of convolutions (TF32).

    bf16: convolutions and matrix products in bfloat16, weights and loss in float32.
    """
    with (
        without_onednn_bf16(precision, device),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        yield


@contextmanager
def without_onednn_bf16(precision: str, device: torch.device) -> Iterator[None]:
    """Keep oneDNN out of bf16 on CPUs; forward and backward steps both need it.

    With torch 2.13 its bf16 convolutions give wrong numbers: with AMX where a map ends up 1 pixel wide, with AVX512
    on an AMD EPYC occasionally in 3D. torch's own are right, and many times slower in 3D: bf16 is for GPUs.
    """
    onednn: Any = torch.backends.mkldnn  # its stubs call `enabled` something that cannot be assigned
    enabled = onednn.enabled
    onednn.enabled = enabled and (precision == "fp32" or device.type != "cpu")
    try:
        yield
    finally:
        onednn.enabled = enabled


def choose_device(name: str) -> torch.device:
    """Return the device of that name: auto = the first GPU, or cpu; else any that torch knows: cpu, cuda, cuda:1.

    Raises InputError: it cannot compute, which is tried: a GPU may be too old for this torch, full, or reserved.
    """
    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(found if name == "auto" else name)
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}. "
            "Give --device cpu, or ask for another GPU."
        ) from error
    return device


def free_memory(device: torch.device) -> int:
    """Free memory in bytes: the GPU's, or the machine's, within what a cluster gives this job (its cgroup)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch has cached since an earlier phase counts as used
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min([machine, *job_limits()])


def job_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes left in each cgroup (version 2) of this process, from its own up to the root."""
    try:
        inside = root / own.read_text().split("0::/", 1)[1].splitlines()[0]
    except (OSError, IndexError):
        return []
    left = []
    for folder in (inside, *inside.parents):
        try:
            most = int((folder / "memory.max").read_text())  # "max" = no limit: ValueError
            used = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(most - int(used["anon"]))  # cached files can be dropped
        except (OSError, ValueError, KeyError):
            continue
        if folder == root:
            break
    return left
