"""The paper's schedule as one frozen table: what each phase learns, from what it starts, and what stands still.

In:  the number of a phase; the kind, width and grid of a model.
Out: its settings; the model it trains; the names of the tensors that are frozen.
Paper: sections 2.3 and 2.4, Fig. 5, Table 2 (phase 4).
See: tests/test_phases.py

torch is imported where a model is built, not at the top: `run_train.py --help` prints this table at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tss.files import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Phase:
    """One row of the schedule. Rates are AdaBound's: lr at first, drifting towards final_lr (SGD's)."""

    number: int
    task: str  # a key of tss.cohort.TASKS
    starts_from: int | None  # the phase whose best checkpoint it takes; None: random weights
    attention: bool
    batch_size: int
    lr: float
    final_lr: float
    quote: str  # the paper's words for it
    epochs: int = 100  # 2.4 "for 100 epochs with early stopping"
    patience: int = 10  # 2.4 "based on the validation AUC during training with a patience of 10"


# Batch sizes and rates, 2.4: "The batch size was 16 for the stroke detection task and 8 for the TSS classification
# tasks"; "in stroke side detection task, the initial learning rate was 0.0005 and the final learning rate was 0.01;
# in TSS classification task, the initial learning rate was 0.00001 and the final learning rate was 0.001".
PHASES = {
    1: Phase(
        number=1, task="stroke", starts_from=None, attention=False, batch_size=16, lr=5e-4, final_lr=1e-2,
        quote="2.3: The first phase consisted of stroke detection; the 2D model was trained from random initialization",
    ),
    2: Phase(
        number=2, task="tss<3h", starts_from=1, attention=False, batch_size=8, lr=1e-5, final_lr=1e-3,
        quote="2.3: In the second phase, we froze early convolutional weights and trained our model on TSS < 3 h",
    ),
    3: Phase(
        number=3, task="tss<4.5h", starts_from=2, attention=False, batch_size=8, lr=1e-5, final_lr=1e-3,
        quote="2.3: we used the pretrained weights of the TSS < 3 h model to train on the TSS < 4.5 h task",
    ),
    4: Phase(
        number=4, task="tss<4.5h", starts_from=3, attention=True, batch_size=8, lr=1e-5, final_lr=1e-3,
        quote="2.3: The last phase involved fine-tuning the soft attention modules",
    ),
}  # fmt: skip

# 2.3: "we froze the first 7x7 convolutional layer as well as the following two Resblocks [...] conv2_x".
# Their BatchNorms stand still with them. Everything else is trained, in phase 4 too (Table 2 "Attention+fine-tune").
FROZEN = {"2d": ("backbone.conv1", "backbone.bn1", "backbone.layer1")}

WIDTH = {"2d": 64}  # channels of the first stage in the paper


def build_model(model: str, width: int, grid: Sequence[int], attention: bool) -> nn.Module:
    """A network with fresh random weights (torch's global generator): (N, C, D, H, W) -> logits (N,).

    model: "2d"; grid: voxels [X, Y, Z] of the whole brain, so that a hemisphere is D, H, W = Z, Y, X / 2.
    """
    if model not in FROZEN:
        raise InputError(f"there is no model '{model}': choose one of {', '.join(FROZEN)}")
    if grid[2] < 2:
        raise InputError(f"the 2D model weighs slices: it needs at least 2, and the grid {list(grid)} has {grid[2]}")
    from tss.resnet2d import SliceClassifier

    return SliceClassifier(width, slices=grid[2], attention=attention)


def freeze(network: nn.Module, modules: Sequence[str]) -> list[str]:
    """Make modules stand still, statistics of BatchNorm included; returns the names of their parameters and buffers."""
    for name in modules:
        module = network.get_submodule(name)
        module.requires_grad_(False).eval()
        # network.train() reaches every module in it: for a frozen one it must do nothing.
        module.train = lambda mode=True, module=module: module
    prefixes = tuple(f"{name}." for name in modules)
    return [name for name in network.state_dict() if name.startswith(prefixes)]


def describe() -> str:
    """The table as text, for --help."""
    head = f"{'phase':<6} {'task':<9} {'starts from':<12} {'gates':<6} {'batch':>5} {'lr':>7} {'final lr':>9}"
    rows = [
        f"{phase.number:<6} {phase.task:<9} "
        f"{'random' if phase.starts_from is None else f'phase {phase.starts_from}':<12} "
        f"{'yes' if phase.attention else 'no':<6} {phase.batch_size:>5} {phase.lr:>7g} {phase.final_lr:>9g}"
        for phase in PHASES.values()
    ]
    return "\n".join([head, *rows, "all: at most 100 epochs, patience 10 (validation AUC), BCE, AdaBound"])
