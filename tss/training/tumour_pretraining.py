"""Medical weights: trained on the type of a brain tumour on each slice (2D), on its outline in the volume (3D).

    python -m tss.training.tumour_pretraining tumours.csv --model 2d
    python run_train.py --phase 2 --init runs/2d/tumours/best.pt

In:  tumours.csv and its scans (tss.training.tumour_scans).
Out: OUT/tumours with the files of a phase; best.pt is what phases 2 and 3 are compared with (Table 2).
Paper: 3, Figs 6 and 7 ("models trained for brain tumor classification and segmentation"; Cheng 2015, Buda 2019). Our
    choice, since it does not say how: cross-entropy for the types; Dice and cross-entropy for the outline.
See: tests/training/test_tumour_pretraining.py
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tss.data.files import alone_in
from tss.data.prepared import GRID
from tss.data.splits import split_hash
from tss.data.tasks import TUMOURS
from tss.errors import exit_code
from tss.training.command_line import Parser, count
from tss.training.dataset import Split
from tss.training.device import choose_device
from tss.training.epoch import predict
from tss.training.phases import LEARN_TUMOURS, WIDTH
from tss.training.run_setup import MODEL, Options, Run, TrainState, check_folder, default_out, options_from, settings_of
from tss.training.train import Objective, batches_in_random_order, train_run
from tss.training.tumour_scans import channels_in_words, load_tumours, read_tumours, types_of

PROG = "python -m tss.training.tumour_pretraining"
MEDICAL_WEIGHTS = "medical images (tumours)"  # what a table calls these weights
TYPE, OUTLINE = TUMOURS["2d"], TUMOURS["3d"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, return the exit code: 0 done, 2 wrong use or unusable input."""
    given = vars(build_parser().parse_args(argv))

    def work() -> int:
        table, grid = given.pop("tumours"), given.pop("grid")
        train_on_tumours(options_from(given), table, grid)
        return 0

    return exit_code(PROG, work, rerun="the same command with --resume")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(PROG, __doc__)
    parser.add_argument("tumours", type=Path, metavar="TUMOURS.csv", help="table of patients and their scans")
    parser.add_network_flags(out="runs/<model>")
    parser.add_argument(
        "--grid", type=count, nargs=3, metavar=("X", "Y", "Z"), default=GRID, help="voxels of a head, as DATA has them"
    )
    parser.add_rerun_flags()
    parser.add_training_flags()
    return parser


def train_on_tumours(options: Options, table: Path, grid: Sequence[int]) -> Path:
    """Train the medical weights that phases 2 and 3 are compared with (paper 3), into OUT/tumours.

    Returns the path of the best checkpoint.
    Raises InputError: as for a phase, and all that is wrong with the table.
    """
    run = set_up_tumour_run(options, table, grid)
    with alone_in(run.folder):
        check_folder(options, run.folder)  # again: another run may have ended since
        train, val = (load_tumours(run.patients, run.about["model"], grid, name) for name in ("train", "val"))
        announce_tumours(run, train, val)
        objective = Objective(batches_in_random_order, TUMOUR_LOSSES[run.phase.task], tumour_scores)
        return train_run(run, objective, train, val)


def set_up_tumour_run(options: Options, table: Path, grid: Sequence[int]) -> Run:
    """Settle what is learned from which patients, and refuse what cannot work before anything heavy is read.

    grid: voxels [X, Y, Z] of a whole head, as in run_preprocess.py, so that the network sees voxels of one size.
    """
    model = options.model or MODEL
    phase = replace(LEARN_TUMOURS[model], **options.values)
    patients = read_tumours(table, model, options.seed)
    about = {
        "model": model, "width": options.width or WIDTH[model], "grid": list(grid), "attention": False, "phase": None,
        "task": phase.task, "name": MEDICAL_WEIGHTS, "types": types_of(patients) if phase.task == TYPE else [],
        "parent": "random", "recipe": "paper", "cohort": split_hash(patients), "patients_seen": {},
        "settings": settings_of(options, phase, weights="random", tumours=str(table)),
    }  # fmt: skip
    folder = default_out(options, model) / phase.name
    check_folder(options, folder)
    return Run(options, phase, folder, choose_device(options.device), about, patients)


def announce_tumours(run: Run, train: Split, val: Split) -> None:
    """Say once what is learned from what."""
    is_type = run.phase.task == TYPE
    counts = [
        f"{name} {len(split.samples)} {'slices' if is_type else 'volumes'} of "
        f"{len({sample.patient for sample in split.samples})} patients"
        for name, split in (("train", train), ("val", val))
    ]
    run.say_model()
    run.say(f"{', '.join(counts)}; channels {channels_in_words(run.patients)}")
    if is_type:
        types, common = run.about["types"], int(torch.bincount(train.labels).argmax())
        run.say(
            f"types {', '.join(types)}; always answering {types[common]} would be right in "
            f"{(val.labels == common).float().mean():.0%} of validation's slices"
        )


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


TUMOUR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {TYPE: F.cross_entropy, OUTLINE: outline_loss}


def tumour_scores(run: Run, state: TrainState, val: Split) -> tuple[dict[str, float], None]:
    """Return val_loss, and val_accuracy (share of slices classified correctly) or val_dice (mean, at 0.5)."""
    answers = predict(state.learner, val.hemispheres, run.phase.batch_size, run.device, run.options.precision)
    outputs = torch.from_numpy(answers)
    loss = TUMOUR_LOSSES[run.phase.task](outputs, val.labels).item()
    if run.phase.task == TYPE:
        return {"val_loss": loss, "val_accuracy": (outputs.argmax(1) == val.labels).double().mean().item()}, None
    dice = soft_dice((outputs[:, 0] > 0.5).double(), val.labels.double()).mean().item()
    return {"val_loss": loss, "val_dice": dice}, None


if __name__ == "__main__":
    sys.exit(main())
