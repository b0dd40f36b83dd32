"""What medical weights learn: the kind of a brain tumour on each slice (2D), its outline in the volume (3D).

In:  Options; tumours.csv and its scans (tss.training.tumour_scans).
Out: a Run and its splits, which tss.training.train trains as it trains a phase; the losses; the validation figures.
Paper: 3, Figs 6 and 7 ("models trained for brain tumor classification and segmentation"; Cheng 2015, Buda 2019). How
    they were trained is not said: cross-entropy for the types; Dice and cross-entropy for the outline, our choice.
See: tests/training/test_tumour_pretraining.py
"""

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tss
from tss.data.cohort import Patient
from tss.data.splits import split_hash
from tss.data.tasks import TUMOURS
from tss.training.dataset import Split
from tss.training.device import choose_device
from tss.training.epoch import predict
from tss.training.phases import LEARN_TUMOURS, WIDTH
from tss.training.run_setup import MODEL, PHASE_SETTINGS, Options, Run, check_out_folder, default_out, fingerprint
from tss.training.tumour_scans import channels_in_words, load_tumours, read_tumours, types_of

MEDICAL_WEIGHTS = "medical images (tumours)"  # what a table calls these weights
TYPE, OUTLINE = TUMOURS["2d"], TUMOURS["3d"]


def set_up_tumour_run(options: Options, table: Path, grid: Sequence[int]) -> tuple[Run, list[Patient]]:
    """Settle what is learned from which patients, and refuse what cannot work before anything heavy is read.

    grid: voxels [X, Y, Z] of a whole head, as in run_preprocess.py, so that the network sees voxels of one size.
    """
    model = options.model or MODEL
    phase = replace(LEARN_TUMOURS[model], **options.values)
    patients = read_tumours(table, model, options.seed)
    about = {
        "model": model, "width": options.width or WIDTH[model], "grid": list(grid), "attention": False, "phase": None,
        "task": phase.task, "name": MEDICAL_WEIGHTS, "types": types_of(patients) if phase.task == TYPE else [],
        "parent": "random", "cohort": split_hash(patients),
        "settings": {
            **{name: getattr(phase, name) for name in PHASE_SETTINGS}, "weights": "random", "seed": options.seed,
            "precision": options.precision, "tumours": str(table),
            "versions": {"tss": tss.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        },
    }  # fmt: skip
    folder = default_out(options, model) / phase.name
    check_out_folder(options, folder)
    return Run(options, phase, folder, choose_device(options.device), about, None, None), patients


def load_tumour_splits(run: Run, patients: list[Patient]) -> tuple[Split, Split]:
    """Read the scans into memory, and say once what is learned from what."""
    about, phase = run.about, run.phase
    splits = train, val = [load_tumours(patients, about["model"], about["grid"], name) for name in ("train", "val")]
    about["settings"]["data"] = fingerprint(train, val)
    what = "slices" if phase.task == TYPE else "volumes"
    counts = [
        f"{name} {len(split.samples)} {what} of {len({sample.patient for sample in split.samples})} patients"
        for name, split in zip(("train", "val"), splits, strict=True)
    ]
    run.say(
        f"{phase.task}  {about['model']} width {about['width']}  grid {' x '.join(map(str, about['grid']))}  "
        f"on {run.device}, {run.options.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    run.say(f"{', '.join(counts)}; channels {channels_in_words(patients)}")
    if phase.task == TYPE:
        common = torch.bincount(train.labels).argmax()
        run.say(
            f"types {', '.join(about['types'])}; saying {about['types'][common]} always would be right in "
            f"{(val.labels == common).float().mean():.0%} of validation's slices"
        )
    return train, val


def outline_loss(outlines: Tensor, masks: Tensor) -> Tensor:
    """Return the mean over volumes of 1 - soft Dice, plus the cross-entropy.

    outlines: probabilities (N, 1, D, H, W); masks: (N, D, H, W), 0 or 1.
    """
    given = outlines[:, 0]
    true = masks.to(given.dtype)
    return (1 - soft_dice(given, true)).mean() + F.binary_cross_entropy(given, true)


def soft_dice(given: Tensor, true: Tensor) -> Tensor:
    """(N, D, H, W) each -> (N,): 2 sum(given true) / (sum(given) + sum(true)), of probabilities or of masks."""
    sizes = given.sum((1, 2, 3)) + true.sum((1, 2, 3))
    return 2 * (given * true).sum((1, 2, 3)) / sizes.clamp(min=1e-6)


TUMOUR_LOSSES = {TYPE: F.cross_entropy, OUTLINE: outline_loss}


def validate_tumours(
    network: nn.Module, val: Split, size: int, device: torch.device, precision: str, task: str
) -> dict:
    """Return val_loss, and val_accuracy (share of slices called rightly) or val_dice (mean over volumes, at 0.5)."""
    outputs = torch.from_numpy(predict(network, val.hemispheres, size, device, precision))
    loss = TUMOUR_LOSSES[task](outputs, val.labels).item()
    if task == TYPE:
        return {"val_loss": loss, "val_accuracy": (outputs.argmax(1) == val.labels).double().mean().item()}
    return {"val_loss": loss, "val_dice": soft_dice((outputs[:, 0] > 0.5).double(), val.labels.double()).mean().item()}
