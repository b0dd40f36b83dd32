"""A phase from start to finish: weights from its parent, epochs, early stopping, exact continuation, proof.

In:  Options and the number of a phase; DATA as run_preprocess.py leaves it; a parent checkpoint, or random weights. Or
     scans of tumours, to learn medical weights from.
Out: OUT/phase<N>/ with best.pt, last.pt, log.csv, curves.png and settings.json; restored.png too in phase 0.
Paper: 2.2 (phase 0), 2.3 (freezing), 2.4 (early stopping on validation AUC).
See: tests/training/test_train.py

Training and validation patients only: nothing here asks for the test split. No random generator has a state to
restore: weights come from the seed, the order and the shifts of an epoch from (seed, phase, epoch). So a run that was
killed continues bit for bit from last.pt, on the CPU with the same number of threads and the same torch.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tss.data.files import alone_in, sweep, write_json, write_text
from tss.data.prepared import read_prepared
from tss.data.tasks import RESTORE
from tss.errors import InputError
from tss.metrics.roc import roc_auc, youden_threshold
from tss.training import restoration, tumour_pretraining
from tss.training.augmentation import STRIDE, random_shift
from tss.training.checkpoint import FORMAT, load_checkpoint, prove_frozen, start_from, write_checkpoint
from tss.training.dataset import Split, batches, load_split
from tss.training.early_stopping import best_epoch, is_finished, score_text
from tss.training.epoch import LOSS, build_optimizer, predict, probability, train_one_epoch
from tss.training.feature_cache import cache_features
from tss.training.phases import FROZEN, build_model, freeze
from tss.training.run_setup import (
    LEFT_BY_A_PHASE,
    Options,
    Run,
    announce,
    check_classes,
    check_out_folder,
    default_out,
    fingerprint,
    phases_of,
    set_up_run,
    training_cohort,
)

SHIFTS = 1  # tells the random numbers of shifts from those of the order
SHOWN = 24  # characters: enough to tell two hashes apart


def train_all(options: Options, init: str | None = None) -> list[Path]:
    """Train a model's phases, each from the best checkpoint of the one before; returns the best checkpoints."""
    model, phases = phases_of(options, init)
    patients = training_cohort(options, read_prepared(options.data))
    for phase in phases:  # what would stop phase 4 hours later is refused now
        check_classes(options.data, patients, phase)
        check_out_folder(options, default_out(options, model) / f"phase{phase.number}")
    best = []
    for phase in phases:
        init = str(best[-1]) if best else init
        best.append(train_phase(replace(options, model=model), phase.number, init))
    return best


def train_phase(options: Options, number: int, init: str | None = None) -> Path:
    """Train one phase from `init`: "random", the path of a checkpoint, or None (random, where the phase allows it).

    Returns:
        the path of the phase's best checkpoint.
    Raises:
        InputError: options, data and checkpoint do not fit together, or the loss is no longer a finite number.
    """
    run, patients = set_up_run(options, number, init)
    task, grid = run.phase.task, run.about["grid"]
    with alone_in(run.folder):
        check_out_folder(options, run.folder)  # again: another run may have ended since
        train, val = (load_split(options.data, patients, task, split, grid) for split in ("train", "val"))
        run.about["settings"]["data"] = fingerprint(train, val)
        announce(run, patients, train, val)
        return train_run(run, train, val)


def train_on_tumours(options: Options, table: Path, grid: Sequence[int]) -> Path:
    """Learn the medical weights that phases 2 and 3 are compared with (paper 3), into OUT/tumours.

    Returns:
        the path of the best checkpoint.
    Raises:
        InputError: as for a phase, and all that is wrong with the table.
    """
    run, patients = tumour_pretraining.set_up_tumour_run(options, table, grid)
    with alone_in(run.folder):
        check_out_folder(options, run.folder)
        train, val = tumour_pretraining.load_tumour_splits(run, patients)
        return train_run(run, train, val)


def train_run(run: Run, train: Split, val: Split) -> Path:
    """Train what a run is about, from its parent or from where it stopped; returns the path of its best checkpoint."""
    options = run.options
    try:
        prepare(run, train)
        if run.frozen and not is_finished(run.history, run.phase):
            run.learner, (train, val) = cache_features(
                run.network, (train, val), run.device, options.precision, run.say
            )
        while not is_finished(run.history, run.phase):
            train_and_validate(run, train, val)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{run.phase.name}: {run.device} has too little memory for batches of {run.phase.batch_size}. "
            "Give a smaller --batch-size, or --precision bf16."
        ) from error
    except FloatingPointError as error:
        raise InputError(
            f"{run.phase.name}, epoch {len(run.history) + 1}: {error}. Give a smaller --lr and "
            "--final-lr, or --precision fp32."
        ) from error
    return finish_run(run, val)


def prepare(run: Run, train: Split) -> None:
    """Build network and optimizer, fill them from the parent, or from last.pt where the run continues."""
    about = run.about
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(run.options.seed)
        run.network = build_model(
            about["model"],
            about["width"],
            about["grid"],
            about["attention"],
            about["task"],
            len(about.get("types", ())),
        )
    if run.parent:
        loaded = start_from(run.network, run.parent, run.parent_path)
        run.say(f"starts from {run.parent_path} ({known_of(run.parent)}): {loaded}")
        if run.phase.freezes:
            run.frozen = freeze(run.network, FROZEN[about["model"]])
    else:
        run.say(f"starts from random weights, seed {run.options.seed}; nothing is frozen")
    if run.phase.task == RESTORE:
        run.mean = restoration.mean_hemisphere(train)
        if not run.parent:
            restoration.start_at_mean(run.network, run.mean)
    run.network.to(run.device)
    run.learner = run.network
    run.optimizer = build_optimizer(run.network, run.phase.lr, run.phase.final_lr)
    trained = sum(p.numel() for p in run.network.parameters() if p.requires_grad)
    still = sum(p.numel() for name, p in run.network.named_parameters() if name in run.frozen)
    run.say(f"{trained:,} parameters trained, {still:,} frozen ({len(run.frozen)} tensors with BatchNorm's statistics)")

    sweep(run.folder, *LEFT_BY_A_PHASE)
    if run.options.resume and (run.folder / "last.pt").exists():
        resume(run)
    else:
        start_anew(run)


def known_of(parent: dict) -> str:
    """Say in a few words what a parent is."""
    if parent["phase"] is None:
        return parent["name"] if "task" in parent else f"published weights of {parent['name']}"
    auc = "" if parent["val_auc"] is None else f", val auc {parent['val_auc']:.4f}"
    return f"phase {parent['phase']}, epoch {parent['epoch']}{auc}"


def start_anew(run: Run) -> None:
    """Take away what an earlier training left, and write down what this one is."""
    if run.options.resume:
        run.say(f"{run.folder} has no last.pt yet: starting at epoch 1")
    for name in LEFT_BY_A_PHASE:  # last.pt first: after a kill in between, nothing is left that could be continued
        (run.folder / name).unlink(missing_ok=True)
    more = {
        "init": str(run.parent_path or "random"),
        "device": str(run.device),
        "command": sys.argv,
        "paper": run.phase.quote,
    }
    write_json(run.folder / "settings.json", run.about | more)


def resume(run: Run) -> None:
    """Continue from last.pt, as if it had never stopped; refuse if it belongs to another run."""
    path = run.folder / "last.pt"
    last = load_checkpoint(path)
    if "resume" not in last:
        raise InputError(f"{path} cannot be continued: it is not what run_train.py left. Start anew with --overwrite.")
    different = differences(last, run.about)
    if different:
        raise InputError(
            f"{path} was trained with other settings: {'; '.join(different)}. Repeat the command it was "
            "started with (settings.json beside it), or start anew with --overwrite."
        )
    run.network.load_state_dict(last["state_dict"])
    run.optimizer.load_state_dict(last["resume"]["optimizer"])  # its base rates are those of the phase: checked above
    run.history = last["resume"]["history"]
    best, wanted = run.folder / "best.pt", best_epoch(run.history)
    if not best.exists() or load_checkpoint(best)["epoch"] != wanted:
        if last["epoch"] != wanted:
            raise InputError(
                f"{path} cannot be continued: {best} is missing, or not of epoch {wanted}, the best so "
                "far. Start anew with --overwrite."
            )
        save_checkpoint(
            run, "best.pt", last["threshold"]
        )  # a kill came between last.pt and best.pt: they hold the same network
    run.say(f"{'was finished' if is_finished(run.history, run.phase) else 'continues'} after epoch {last['epoch']}")


def differences(then: dict, now: dict) -> list[str]:
    """Name what two runs do not share, with both values.

    Versions may differ; what data was made with shows in it, and where weights are from in the parent's hash.
    """
    then, now = ({**run, **run["settings"]} for run in (then, now))
    names = [name for name in now if name not in ("settings", "preprocessing", "versions", "weights")]
    return [
        f"{name} {str(then.get(name))[:SHOWN]} then, {str(now[name])[:SHOWN]} now"
        for name in names
        if then.get(name) != now[name]
    ]


def train_and_validate(run: Run, train: Split, val: Split) -> None:
    """One epoch: train, validate, keep, write, say."""
    started = time.monotonic()
    epoch, phase = len(run.history) + 1, run.phase
    order = np.random.default_rng([run.options.seed, phase.number, epoch]).permutation(len(train.labels))
    if phase.task == RESTORE:
        loss, in_order = (
            restoration.RESTORATION_LOSS,
            restoration.distorted_batches(train, order, phase.batch_size, run.device, run.options.seed, epoch),
        )
    else:
        loss = tumour_pretraining.TUMOUR_LOSSES.get(phase.task, LOSS)
        in_order = batches(train, order, phase.batch_size, run.device)
        if phase.shift:
            rng = np.random.default_rng([run.options.seed, phase.number, epoch, SHIFTS])
            cell = STRIDE if run.learner is run.network else 1  # behind the frozen layers there are cells
            in_order = ((random_shift(x, rng, phase.shift, cell), y) for x, y in in_order)
    train_loss = train_one_epoch(run.learner, run.optimizer, loss, in_order, run.options.precision)
    scores, threshold = SCORING.get(phase.task, scores_of_classifying)(run, val)
    run.history.append({"epoch": epoch, "train_loss": train_loss, **scores})

    # last.pt, best.pt, log.csv: after a kill in between, the others are made from last.pt (resume, finish). Not best.pt
    # first: this epoch would be repeated, which on a GPU gives other bits, and best.pt would be of an epoch lost.
    is_best = best_epoch(run.history) == epoch
    save_checkpoint(run, "last.pt", threshold, resume={"optimizer": run.optimizer.state_dict(), "history": run.history})
    if is_best:
        save_checkpoint(run, "best.pt", threshold)
    write_log(run)
    say_epoch(run, time.monotonic() - started, is_best)


def scores_of_classifying(run: Run, val: Split) -> tuple[dict, float]:
    """Return validation loss and AUC, and the threshold that is best there (decision 8)."""
    logits = predict(run.learner, val.hemispheres, run.phase.batch_size, run.device, run.options.precision)
    loss = LOSS(torch.from_numpy(logits), val.labels.double()).item()
    scores, labels = probability(logits), val.labels.numpy()
    return {"val_loss": loss, "val_auc": roc_auc(labels, scores)}, youden_threshold(labels, scores)


def errors_of_restoring(run: Run, val: Split) -> tuple[dict, None]:
    """Return the validation error of what was restored, and those of the two easy answers (tss.training.restoration)."""
    return restoration.validate_restoration(
        run.learner, val, run.mean, run.phase.batch_size, run.device, run.options.precision, run.options.seed
    ), None


def scores_on_tumours(run: Run, val: Split) -> tuple[dict, None]:
    """Return validation loss, and accuracy or Dice (tss.training.tumour_pretraining)."""
    return tumour_pretraining.validate_tumours(
        run.learner, val, run.phase.batch_size, run.device, run.options.precision, run.phase.task
    ), None


SCORING = {RESTORE: errors_of_restoring} | dict.fromkeys(tumour_pretraining.TUMOUR_LOSSES, scores_on_tumours)


def save_checkpoint(run: Run, name: str, threshold: float | None, **more: dict) -> None:
    """Write a checkpoint of this moment."""
    row = run.history[-1]
    tensors = {tensor_name: tensor.cpu() for tensor_name, tensor in run.network.state_dict().items()}
    write_checkpoint(run.folder / name, {
        "format": FORMAT, **run.about, "epoch": row["epoch"], "val_auc": row.get("val_auc"),
        "threshold": threshold, "frozen": run.frozen, "state_dict": tensors, **more,
    })  # fmt: skip


def write_log(run: Run) -> None:
    """log.csv: a line an epoch, every digit; no times, so that a continued log equals an uninterrupted one."""
    lines = [",".join(run.history[0])] + [",".join(map(repr, row.values())) for row in run.history]
    write_text(run.folder / "log.csv", "\n".join(lines) + "\n")


def say_epoch(run: Run, seconds: float, is_best: bool) -> None:
    """One line of fixed columns, for people, grep and cut."""
    row, phase = run.history[-1], run.phase
    left = (phase.epochs - row["epoch"]) * seconds  # at most: early stopping may come first
    left_text = f"{left / 60:3.0f} min" if left >= 120 else f"{left:3.0f} s  "
    run.say(
        f"epoch {row['epoch']:03d}/{phase.epochs:03d}  train {row['train_loss']:.4f}  val {row['val_loss']:.4f}  "
        f"{score_text(row)}  lr {phase.lr:.1e}  {seconds:5.1f} s  left <= {left_text}"
        f"{'  best' if is_best else ''}".rstrip()
    )


def finish_run(run: Run, val: Split) -> Path:
    """Draw the curves, prove on the written files that the frozen part stood still, and say where the best is."""
    from tss.display import training_plots

    best = run.folder / "best.pt"
    if run.frozen:
        for path in (best, run.folder / "last.pt"):
            prove_frozen(path, run.frozen, run.parent)
        run.say(
            f"proof: {len(run.frozen)} frozen parameters and buffers in best.pt and last.pt are bit-equal to "
            f"{run.parent_path}"
        )
    write_log(run)  # a kill may have come between last.pt and its line
    row = run.history[best_epoch(run.history) - 1]
    title, note = f"{run.phase.name.capitalize()}: {run.phase.task}", f"\n{run.phantoms}" if run.phantoms else ""
    training_plots.draw_curves(run.folder / "curves.png", run.history, row["epoch"], title + note)
    result = f"val loss {row['val_loss']:.4f}, {score_text(row)}"
    if run.phase.task == RESTORE:
        run.network.load_state_dict(load_checkpoint(best)["state_dict"])
        shown = restoration.restored_slices(run.network, val, run.device, run.options.seed)
        training_plots.draw_restoration(
            run.folder / "restored.png", shown, f"{title}, epoch {row['epoch']}: {result}{note}"
        )
    run.say(f"done after {len(run.history)} epochs: {best} is epoch {row['epoch']}, {result}")
    return best
