"""The schedule as one frozen table a recipe: what each phase learns, from what it starts, and what is frozen.

In:  the number of a phase; the kind, width and grid of a model; the recipe, the paper's or ours.
Out: its settings; the model it trains; the names of the tensors that are frozen.
Paper: sections 2.3 and 2.4, Fig. 5, Table 2 (phase 4).
See: tests/training/test_phases.py

torch is imported where a model is built, not at the top: `run_train.py --help` prints this table at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tss.data.hemispheres import CEILING, CHANNELS
from tss.data.tasks import RESTORE, TASKS, TUMOURS
from tss.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Phase:
    """One row of the schedule. Rates are AdaBound's: lr at first, drifting towards final_lr (SGD's)."""

    number: int
    task: str  # a key of tss.data.tasks.TASKS, RESTORE, or one of TUMOURS
    starts_from: (
        int | None
    )  # the phase whose best checkpoint it takes; None, or a phase this model lacks: random weights
    freezes: bool  # are the layers of frozen_modules() frozen?
    attention: bool
    batch_size: int
    lr: float
    final_lr: float
    quote: str  # the paper's words for it
    models: tuple[str, ...] = ("2d", "3d")
    epochs: int = 100  # 2.4 "for 100 epochs with early stopping"
    patience: int = 10  # 2.4 "based on the validation AUC during training with a patience of 10"
    # Below, what the paper has no word for.
    own_rates: tuple[tuple[str, float, float], ...] = ()  # how parameters' names begin, their lr and final lr
    recipe: str = "paper"  # a key of RECIPES
    keeps: str = "best"  # the epoch that is kept: "best" by validation AUC, or the "last", without early stopping
    fits_classifier: bool = False  # starts from a logistic regression on what is read (tss.training.classifier_fit)
    strongest: tuple[float, ...] = ()  # share of the voxels that are phase 1's logit, epoch by epoch
    least_steps: int = 0  # of the optimizer: fewer patients make fewer an epoch, so there are more epochs

    @property
    def name(self) -> str:
        """As printed; without the blank, its folder's name."""
        return "tumours" if self.task in TUMOURS.values() else f"phase {self.number}"

    def parent_of(self, model: str) -> int | None:
        """The phase that a model of this kind starts from; None: random weights."""
        return self.starts_from if self.starts_from in PAPER and model in PAPER[self.starts_from].models else None


# Batch sizes and rates, 2.4: "The batch size was 16 for the stroke detection task and 8 for the TSS classification
# tasks"; "in stroke side detection task, the initial learning rate was 0.0005 and the final learning rate was 0.01;
# in TSS classification task, the initial learning rate was 0.00001 and the final learning rate was 0.001".
# Phase 0: the paper gives no rates, so AdaBound with those of phase 1 (our choice; Zhou 2019 trains Models Genesis by
# SGD with lr 1, up to 10,000 epochs), and batches of 8, since the decoder works at full size. Patience counts epochs
# since the restoration error last fell.
# The paper gives one pair of rates for all that a TSS phase trains. At these, slice weights and what phase 4 adds stay
# where they started (tests/benchmarks/TSS-PHANTOM.md), so they have rates of their own (decision 17): gates and their
# classifier columns, being new, take those of phase 1, where everything is new.
SLICES = ("slice_logits", 1e-2, 1e-1)
GATES = ("gate", 5e-4, 1e-2)
PAPER = {
    0: Phase(
        number=0, task=RESTORE, starts_from=None, freezes=False, attention=False, batch_size=8, lr=5e-4, final_lr=1e-2,
        quote="2.2: Using Models Genesis, we first modified the original images [...] and then trained the model to "
              "restore the original image", models=("3d",),
    ),
    1: Phase(
        number=1, task="stroke", starts_from=0, freezes=False, attention=False, batch_size=16, lr=5e-4, final_lr=1e-2,
        own_rates=(SLICES,),
        quote="2.3: The first phase consisted of stroke detection [...] The 2D model was trained from random "
              "initialization on this task. For our 3D model, initial weights were generated in a self-supervised "
              "fashion",
    ),
    2: Phase(
        number=2, task="tss<3h", starts_from=1, freezes=True, attention=False, batch_size=8, lr=1e-5, final_lr=1e-3,
        own_rates=(SLICES,),
        quote="2.3: In the second phase, we froze early convolutional weights to refine later layers and trained our "
              "model on TSS < 3 h",
    ),
    3: Phase(
        number=3, task="tss<4.5h", starts_from=2, freezes=True, attention=False, batch_size=8, lr=1e-5, final_lr=1e-3,
        own_rates=(SLICES,),
        quote="2.3: we used the pretrained weights of the TSS < 3 h model to train on the TSS < 4.5 h task",
    ),
    4: Phase(
        number=4, task="tss<4.5h", starts_from=3, freezes=True, attention=True, batch_size=8, lr=1e-5, final_lr=1e-3,
        own_rates=(SLICES, GATES),
        quote="2.3: The last phase of our training schema (Fig. 5) involved fine-tuning the soft attention modules",
    ),
}  # fmt: skip

# Ours (decision 18): phase 1 learns evidence for stroke voxel by voxel, and the TSS phases read the intensities where
# it lies (tss.models.evidence). Rates, epochs and shares were chosen on phantoms other than TSS-Phantom's. The last
# epoch is kept: with few validation patients the best AUC is luck (TSS-PHANTOM.md).
# Search wide, then narrow: if narrow from the start, some seeds never learn.
STRONGEST = (0.2, 0.05, 0.0125, 0.003, 0.0008)
LEAST_STEPS = 272  # 8 epochs of 34 steps: the paper's 272 patients, 544 hemispheres in batches of 16
EXTENDED = {0: replace(PAPER[0], recipe="extended")} | {
    number: replace(
        PAPER[number], recipe="extended", keeps="last", own_rates=(), epochs=epochs, lr=lr,
        final_lr=10 * lr, strongest=STRONGEST if number == 1 else (), fits_classifier=number > 1,
        least_steps=LEAST_STEPS if number == 1 else 0,  # the others start with a classifier that is fitted already
    )
    for number, epochs, lr in ((1, 8, 1e-2), (2, 5, 1e-2), (3, 5, 1e-2), (4, 5, 1e-2))
}  # fmt: skip

RECIPES = {"paper": PAPER, "extended": EXTENDED}

# Not a phase of the schedule but what it is compared with: "models trained for brain tumor classification and
# segmentation to initialize our 2D and 3D models, respectively" (3). How, it does not say: the rates are phase 1's, the
# batches 16 slices, or 4 volumes, since the decoder works at full size. The number only separates random draws.
LEARN_TUMOURS = {
    model: Phase(
        number=5, task=task, starts_from=None, freezes=False, attention=False, batch_size={"2d": 16, "3d": 4}[model],
        lr=5e-4, final_lr=1e-2, models=(model,),
        quote="2.3: pretraining on external datasets of brain MRIs; 3: We used models trained for brain tumor "
              "classification and segmentation to initialize our 2D and 3D models",
    )
    for model, task in TUMOURS.items()
}  # fmt: skip

# 2.3: "we froze the first 7x7 convolutional layer as well as the following two Resblocks [...] conv2_x"; "for 3D
# models, we froze the two layers in the downward path". Their BatchNorms are frozen too. Everything else is
# trained, in phase 4 too (Table 2 "Attention+fine-tune").
FROZEN = {
    "2d": ("backbone.conv1", "backbone.bn1", "backbone.layer1"),
    "3d": ("encoder.down1", "encoder.down2"),
}
FROZEN_WITH_EVIDENCE = {"2d": ("backbone", "evidence"), "3d": ("encoder", "evidence")}  # all that finds the stroke

WIDTH = {"2d": 64, "3d": 32}  # channels of the first stage in the paper


def build_model(
    model: str,
    width: int,
    grid: Sequence[int],
    attention: bool,
    task: str = "stroke",
    types: int = 0,
    recipe: str = "paper",
) -> nn.Module:
    """A network with fresh random weights (torch's global generator): (N, C, D, H, W) -> logits (N,).

    model: "2d" or "3d"; grid: voxels [X, Y, Z] of the whole brain, so that a hemisphere is D, H, W = Z, Y, X / 2;
    task: that of the phase; for RESTORE the network gives volumes (N, C, D, H, W) instead of logits, for tumours'
    outlines (N, 1, D, H, W), and for their types it takes slices (N, C, H, W) and gives logits (N, types).
    recipe: "extended" classifies by reading evidence (tss.models.evidence).
    """
    if model not in FROZEN:
        raise InputError(f"there is no model '{model}': choose one of {', '.join(FROZEN)}")
    import torch

    from tss.models.evidence import EvidenceSliceClassifier, EvidenceVolumeClassifier
    from tss.models.resnet2d import SliceClassifier, SliceTypes
    from tss.models.unet3d import UNet3D, VolumeClassifier

    network: nn.Module
    if task in TASKS and grid[2] < 2 and (model == "2d" or recipe == "extended"):
        raise InputError(
            f"the model weights slices: it needs at least 2, and the grid {list(grid)} has {grid[2]}. "
            "Preprocess with more."
        )
    if task in TASKS and recipe == "extended":
        x, y, z = grid
        kind = {"2d": EvidenceSliceClassifier, "3d": EvidenceVolumeClassifier}[model]
        healthy = [1 / CEILING[channel] for channel in CHANNELS]
        network = kind(width, (z, y, x // 2), healthy, stroke=task == "stroke", attention=attention)
        network.look_at(STRONGEST[-1])
    elif model == "3d":
        outputs = {RESTORE: 3, TUMOURS["3d"]: 1}.get(task)
        network = UNet3D(3, outputs, width) if outputs else VolumeClassifier(width, attention)
    elif task == TUMOURS["2d"]:
        network = SliceTypes(width, types)
    else:
        network = SliceClassifier(width, slices=grid[2], attention=attention)
    # Channels last in memory: same outcome up to rounding, and on the CPU a step takes 10 to 35 % less time.
    memory_format = {"2d": torch.channels_last, "3d": torch.channels_last_3d}[model]
    return network.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stubs omit it


def share_of(phase: Phase, epoch: int) -> float:
    """The share of a hemisphere's voxels whose mean evidence is phase 1's logit in this epoch (from 1).

    Each share but the last has an eighth of the epochs, so that more epochs, for fewer patients, narrow as slowly. The
    last epoch, which is kept, has the last share, as whoever opens the checkpoint has it.
    """
    if epoch == phase.epochs:
        return phase.strongest[-1]
    return phase.strongest[min((epoch - 1) * 8 // phase.epochs, len(phase.strongest) - 1)]


def long_enough(phase: Phase, hemispheres: int) -> Phase:
    """The same phase, with enough epochs for its least steps on so many hemispheres."""
    steps_an_epoch = math.ceil(hemispheres / phase.batch_size)
    return replace(phase, epochs=max(phase.epochs, math.ceil(phase.least_steps / steps_an_epoch)))


def frozen_modules(phase: Phase, model: str) -> tuple[str, ...]:
    """Names of the modules that a phase of this recipe freezes."""
    return (FROZEN if phase.recipe == "paper" else FROZEN_WITH_EVIDENCE)[model]


def freeze(network: nn.Module, modules: Sequence[str]) -> list[str]:
    """Freeze modules, statistics of BatchNorm included; returns the names of their parameters and buffers."""
    for name in modules:
        module: Any = network.get_submodule(name)
        module.requires_grad_(False).eval()
        # network.train() reaches every module in it: for a frozen one it must do nothing.
        module.train = lambda mode=True, module=module: module
    prefixes = tuple(f"{name}." for name in modules)
    return [name for name in network.state_dict() if name.startswith(prefixes)]


def schedule_in_words() -> str:
    """The table as text, for --help."""
    head = f"{'phase':<6} {'task':<9} {'2d from':<8} {'3d from':<8} {'gates':<6} {'batch':>5} {'lr':>7} {'final lr':>9}"
    rows = [
        f"{phase.number:<6} {phase.task:<9} {start_in_words(phase, '2d'):<8} {start_in_words(phase, '3d'):<8} "
        f"{'yes' if phase.attention else 'no':<6} {phase.batch_size:>5} {phase.lr:>7g} {phase.final_lr:>9g}"
        for phase in PAPER.values()
    ]
    return "\n".join([
        head, *rows, "phases 1-4: at most 100 epochs, patience 10 (validation AUC), BCE, AdaBound",
        f"--recipe extended: at least 8 epochs and {LEAST_STEPS} steps, then 5, 5, 5; lr 0.01 -> 0.1; "
        "phase 1 learns evidence, phases 2-4 read under it",
        "phase 0 is Models Genesis: no labels, mean squared error, patience 10 (validation restoration error)",
    ])  # fmt: skip


def start_in_words(phase: Phase, model: str) -> str:
    """What a phase starts from, in a word."""
    if model not in phase.models:
        return "-"
    parent = phase.parent_of(model)
    return "random" if parent is None else f"phase {parent}"
