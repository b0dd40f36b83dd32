"""TODO"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tss.errors import InputError


@contextmanager
def at_precision(precision: str, device: torch.device) -> Iterator[None]:
    """fp32: everything in float32, but that torch lets recent GPUs round what convolutions multiply (TF32).

    bf16: convolutions and products in bfloat16, weights and loss in float32.
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
        raise InputError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}. "
            "Give --device cpu, or ask for another GPU."
        ) from error
    return device


def free_memory(device: torch.device) -> int:
    """Free memory in bytes: the GPU's, or the machine's, within what a cluster gives this job (its cgroup)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of an earlier phase for later counts as taken
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min([machine, *job_limits()])


def job_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What is left in each cgroup (version 2) that this process is in, from its own up to the root."""
    try:
        inside = root / own.read_text().split("0::/", 1)[1].splitlines()[0]
    except (OSError, IndexError):
        return []
    left = []
    for folder in (inside, *inside.parents):
        try:
            most = int((folder / "memory.max").read_text())  # "max" = no limit: ValueError
            used = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(most - int(used["anon"]))  # files in the cache can be given back
        except (OSError, ValueError, KeyError):
            continue
        if folder == root:
            break
    return left
