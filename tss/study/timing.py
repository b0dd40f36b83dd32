"""How long a training takes on this machine, from a few steps of it on made-up hemispheres.

In:  a phase; kind and width of a model; a grid; whether its early layers are frozen; a device.
Out: seconds per hemisphere and step; how many such steps an epoch costs.
Paper: none.
See: tests/study/test_timing.py
"""

import math
import time

import numpy as np
import torch

from tss.data.cohort import Patient
from tss.data.tasks import RESTORE, samples
from tss.models.classifier import Classifier
from tss.training.dataset import Split, batches
from tss.training.epoch import build_optimizer, classification_loss, train_one_epoch
from tss.training.feature_cache import cache_features
from tss.training.phases import Phase, build_model, freeze, frozen_modules
from tss.training.restoration import RESTORATION_LOSS, distorted_batches

# Voxels X, Y, Z that are timed, our choice: seconds at any grid; a step's time is about proportional to the voxels.
AT_MOST = (112, 112, 8)
HEMISPHERES = 2  # on the CPU, where time is proportional to their number; a GPU is busy only with whole batches
VALIDATION = 1 / 3  # of a training step: the forward pass alone; the backward pass takes about twice as long


def seconds_a_hemisphere(
    phase: Phase, model: str, width: int, grid: tuple[int, int, int], frozen: bool, device: torch.device, precision: str
) -> float:
    """Return about how many seconds a training step takes per hemisphere.

    grid: voxels X, Y, Z of the whole brain. frozen: are the layers in FROZEN frozen, and computed once?
    """
    x, y, z = map(min, grid, AT_MOST)
    size = phase.batch_size if device.type == "cuda" else HEMISPHERES
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        network = build_model(model, width, (x, y, z), phase.attention, phase.task, recipe=phase.recipe)
    network.to(device)
    hemispheres = np.random.default_rng(0).random((size, 3, z, y, x // 2), dtype=np.float32)
    split = Split([], torch.from_numpy(hemispheres).half(), torch.arange(size) % 2.0)
    learner, kept = network, split
    if frozen:
        assert isinstance(network, Classifier)  # no other network has layers to freeze
        freeze(network, frozen_modules(phase, model))
        learner, (kept,) = cache_features(network, [split], device, precision, say=lambda text: None)
    optimizer = build_optimizer(network, phase.lr, phase.final_lr, phase.own_rates)
    taken = []
    for _ in range(3):  # the first is slow, since torch chooses its algorithms in it; others may be using the machine
        started = time.monotonic()
        if phase.task == RESTORE:
            given = distorted_batches(kept, range(size), size, device, seed=0, epoch=1)
        else:
            given = batches(kept, range(size), size, device)
        train_one_epoch(
            learner, optimizer, RESTORATION_LOSS if phase.task == RESTORE else classification_loss, given, precision
        )
        taken.append(time.monotonic() - started)
    return min(taken) / size * math.prod(grid) / (x * y * z)


def steps_of(patients: list[Patient], task: str) -> float:
    """Return how many hemispheres' training steps an epoch costs; those of validation count for less."""
    train, val = (len(samples(patients, task, split)) for split in ("train", "val"))
    return train + VALIDATION * val
