"""A phase from start to finish: weights from its parent, epochs, early stopping, proof that the frozen part is frozen.

In:  Options and the number of a phase; DATA as run_preprocess.py leaves it; a parent checkpoint, or random weights.
Out: OUT/phase<N>/ with best.pt, last.pt, log.csv, curves.png and settings.json; restored.png too in phase 0.
Paper: 2.2 (phase 0), 2.3 (freezing), 2.4 (early stopping on validation AUC).
See: tests/training/test_train.py

Training and validation patients only: nothing here reads the test split.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tss.data.files import alone_in, read_json, write_json
from tss.data.prepared import read_prepared
from tss.data.tasks import RESTORE, TASKS
from tss.display import training_plots
from tss.errors import InputError
from tss.metrics import roc_auc, youden_threshold
from tss.models.classifier import Classifier
from tss.models.evidence import EvidenceClassifier
from tss.training import restoration
from tss.training.checkpoint import load_checkpoint, network_of, prove_frozen, start_from, why_not_numbers
from tss.training.classifier_fit import fit_classifier
from tss.training.dataset import Split, batches, load_split
from tss.training.early_stopping import best_epoch, is_finished, score_text
from tss.training.epoch import LOSS, build_optimizer, classification_loss, predict, probability, train_one_epoch
from tss.training.feature_cache import cache_features
from tss.training.phases import freeze, frozen_modules, share_of
from tss.training.resume import save_epoch, start_or_resume, write_log
from tss.training.run_setup import (
    Options,
    Run,
    TrainState,
    announce,
    check_classes,
    check_folder,
    default_out,
    phases_of,
    set_up_run,
    training_cohort,
)
from tss.training.what_moved import in_words, what_moved


class Objective(NamedTuple):
    """What an epoch's batches are, which loss it minimises, and how validation judges it."""

    batches: Callable[[Run, TrainState, Split, int], Iterable[tuple[Tensor, Tensor]]]  # of an epoch
    loss: Callable[[Tensor, Tensor], Tensor]
    validate: Callable[[Run, TrainState, Split], tuple[dict[str, float], float | None]]  # scores, threshold


def train_all(options: Options, init: str | None = None) -> list[Path]:
    """Train a model's phases, each from the best checkpoint of the one before; returns the best checkpoints."""
    model, phases = phases_of(options, init)
    patients = training_cohort(options, read_prepared(options.data))
    for phase in phases:  # what would stop phase 4 only hours later is refused now
        check_classes(options.data, patients, phase, options.fold)
        check_folder(options, default_out(options, model, phase.recipe) / f"phase{phase.number}")
    best: list[Path] = []
    for phase in phases:
        init = str(best[-1]) if best else init
        best.append(train_phase(replace(options, model=model), phase.number, init))
    return best


def train_phase(options: Options, number: int, init: str | None = None) -> Path:
    """Train one phase from `init`: "random", the path of a checkpoint, or None (random, where the phase allows it).

    Returns the path of the phase's best checkpoint.
    Raises InputError: options, data and checkpoint do not match, or the loss is no longer a finite number.
    """
    run = set_up_run(options, number, init)
    task, grid = run.phase.task, run.about["grid"]
    with alone_in(run.folder):
        check_folder(options, run.folder)  # again: another run may have ended since
        train, val = (load_split(options.data, run.patients, task, split, grid) for split in ("train", "val"))
        announce(run, train, val)
        return train_run(run, RESTORATION if task == RESTORE else CLASSIFICATION, train, val)


def train_run(run: Run, objective: Objective, train: Split, val: Split) -> Path:
    """Train from the parent, or from where the run was interrupted; returns the path of the best checkpoint."""
    run = run.on_data(train, val)
    splits = [train, val]
    try:
        state = prepare(run, train)
        if state.frozen and not is_finished(state.history, run.phase):
            assert isinstance(state.network, Classifier)  # no other network has layers to freeze
            state.learner, splits = cache_features(
                state.network, splits, run.device, run.options.precision, run.say, run.folder
            )
        if run.phase.fits_classifier and "what_moved" not in read_json(run.folder / "settings.json"):
            start_at_fitted_classifier(run, state, splits[0])
        while not is_finished(state.history, run.phase):
            train_and_validate(run, state, objective, *splits)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{run.phase.name}: {run.device} has too little memory for batches of {run.phase.batch_size}. "
            "Give a smaller --batch-size, or --precision bf16."
        ) from error
    return finish_run(run, state, val, splits[1])


def prepare(run: Run, train: Split) -> TrainState:
    """Build network and optimizer, filled from the parent, or from last.pt where the run continues."""
    about = run.about
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(run.options.seed)
        network = network_of(about)
    frozen: list[str] = []
    if run.parent:
        run.say(f"starts from {run.parent}: {start_from(network, run.parent)}")
        if run.phase.freezes:
            frozen = freeze(network, frozen_modules(run.phase, about["model"]))
    else:
        run.say(f"starts from random weights, seed {run.options.seed}; nothing is frozen")
    mean = restoration.mean_hemisphere(train) if run.phase.task == RESTORE else None
    if mean is not None and not run.parent:
        restoration.start_at_mean(network, mean)
    network.to(run.device)
    optimizer = build_optimizer(network, run.phase.lr, run.phase.final_lr, run.phase.own_rates)
    state = TrainState(network, network, optimizer, frozen, snapshot(network), mean=mean)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    still = sum(p.numel() for name, p in network.named_parameters() if name in frozen)
    run.say(f"{trained:,} parameters trained, {still:,} frozen ({len(frozen)} tensors with BatchNorm's statistics)")
    start_or_resume(run, state)
    return state


def start_at_fitted_classifier(run: Run, state: TrainState, train: Split) -> None:
    """Fit the classifier that the phase starts with; of a run that continues, to know again what it started with."""
    assert isinstance(state.network, EvidenceClassifier)
    continued = snapshot(state.network) if state.history else None
    state.network.load_state_dict(state.before)
    fit_classifier(state.network, state.learner, train, run.options.precision)
    state.before = snapshot(state.network)
    if continued:
        state.network.load_state_dict(continued)


def train_and_validate(run: Run, state: TrainState, objective: Objective, train: Split, val: Split) -> None:
    """One epoch: train, validate, save, say."""
    started = time.monotonic()
    epoch = len(state.history) + 1
    if run.phase.strongest:
        assert isinstance(state.network, EvidenceClassifier)
        state.network.look_at(share_of(run.phase, epoch))
    try:
        batches_of_epoch = objective.batches(run, state, train, epoch)
        loss = train_one_epoch(state.learner, state.optimizer, objective.loss, batches_of_epoch, run.options.precision)
        if why := why_not_numbers(state.network.state_dict()):
            raise FloatingPointError(why)
        scores, threshold = objective.validate(run, state, val)
    except FloatingPointError as error:
        raise InputError(
            f"{run.phase.name}, epoch {epoch}: {error}. Give a smaller --lr and --final-lr, --precision fp32, "
            "or start from other weights (--init)."
        ) from error
    state.history.append({"epoch": epoch, "train_loss": loss, **scores})
    save_epoch(run, state, threshold)
    say_epoch(run, state, time.monotonic() - started)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as they are now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def order_of_epoch(run: Run, train: Split, epoch: int) -> list[int]:
    """A random order of the training hemispheres, the same whenever this epoch of this run is trained."""
    rng = np.random.default_rng([run.options.seed, run.phase.number, epoch])
    return rng.permutation(len(train.labels)).tolist()


def batches_in_random_order(run: Run, state: TrainState, train: Split, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Hemispheres, or their features, and labels in random order; no augmentation (decision 31)."""
    return batches(train, order_of_epoch(run, train, epoch), run.phase.batch_size, run.device)


def classification_scores(run: Run, state: TrainState, val: Split) -> tuple[dict[str, float], float]:
    """Return validation loss and AUC, and the threshold that is best there (decision 8)."""
    logits = predict(state.learner, val.hemispheres, run.phase.batch_size, run.device, run.options.precision)
    loss = LOSS(torch.from_numpy(logits), val.labels.double()).item()
    labels = val.labels.numpy()
    state.validation = {
        "logits": logits.tolist(),
        "labels": labels.astype(int).tolist(),
        "patients": [sample.patient for sample in val.samples],
        "sides": [sample.side for sample in val.samples],
    }
    threshold = probability(np.array(youden_threshold(labels, logits))).item()  # on logits: they do not saturate
    return {"val_loss": loss, "val_auc": roc_auc(labels, logits)}, threshold


def restoration_batches(run: Run, state: TrainState, train: Split, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Distorted hemispheres and originals, in random order (tss.training.restoration)."""
    order = order_of_epoch(run, train, epoch)
    return restoration.distorted_batches(train, order, run.phase.batch_size, run.device, run.options.seed, epoch)


def restoration_scores(run: Run, state: TrainState, val: Split) -> tuple[dict[str, float], None]:
    """Return the validation error, and those of the two trivial restorations (tss.training.restoration)."""
    assert state.mean is not None  # prepare() has computed it
    size, options = run.phase.batch_size, run.options
    return restoration.validate_restoration(
        state.learner, val, state.mean, size, run.device, options.precision, options.seed
    ), None


CLASSIFICATION = Objective(batches_in_random_order, classification_loss, classification_scores)
RESTORATION = Objective(restoration_batches, restoration.RESTORATION_LOSS, restoration_scores)


def say_epoch(run: Run, state: TrainState, seconds: float) -> None:
    """One line of fixed columns, for people, grep and cut."""
    row, phase = state.history[-1], run.phase
    left = (phase.epochs - row["epoch"]) * seconds  # at most: early stopping may come first
    left_text = f"{left / 60:3.0f} min" if left >= 120 else f"{left:3.0f} s  "
    run.say(
        f"epoch {row['epoch']:03d}/{phase.epochs:03d}  train {row['train_loss']:.4f}  val {row['val_loss']:.4f}  "
        f"{score_text(row)}  lr {phase.lr:.1e}  {seconds:5.1f} s  left <= {left_text}"
        f"{'  best' if best_epoch(state.history, phase.keeps) == row['epoch'] else ''}".rstrip()
    )


def finish_run(run: Run, state: TrainState, val: Split, features: Split) -> Path:
    """Draw the curves, prove on the written files that the frozen part is the parent's, and say which epoch is best.

    features: val, or what the learner takes in its place.
    """
    best = run.folder / "best.pt"
    if state.frozen and run.parent:
        for path in (best, run.folder / "last.pt"):
            prove_frozen(path, state.frozen, run.parent)
        run.say(
            f"proof: {len(state.frozen)} frozen parameters and buffers in best.pt and last.pt are bit-equal to "
            f"{run.parent.path}"
        )
    write_log(run, state)  # the process may have been killed after last.pt, before its line
    row = state.history[best_epoch(state.history, run.phase.keeps) - 1]
    title, note = f"{run.phase.name.capitalize()}: {run.phase.task}", f"\n{run.note}" if run.note else ""
    training_plots.draw_curves(run.folder / "curves.png", state.history, row["epoch"], title + note)
    result = f"val loss {row['val_loss']:.4f}, {score_text(row)}"
    if run.phase.task == RESTORE:
        state.network.load_state_dict(load_checkpoint(best)["state_dict"])
        shown = restoration.restored_slices(state.network, val, run.device, run.options.seed)
        caption = f"{title}, epoch {row['epoch']}: {result}{note}"
        training_plots.draw_restoration(run.folder / "restored.png", shown, caption)
    elif run.phase.task in TASKS:
        say_what_moved(run, state, features)
    run.say(f"done after {len(state.history)} epochs: {best} is epoch {row['epoch']}, {result}")
    return best


def say_what_moved(run: Run, state: TrainState, features: Split) -> None:
    """Say how far each part of the best and of the last network moved, and what the attention is worth (decision 17).

    The best goes on to the next phase, and may be of an early epoch; the last shows what the phase's rates can do.
    """
    path = run.folder / "settings.json"
    settings = read_json(path)
    if "what_moved" not in settings:  # a finished phase that is resumed has said it already

        def logits() -> np.ndarray:
            size, precision = run.phase.batch_size, run.options.precision
            return predict(state.learner, features.hemispheres, size, run.device, precision)

        settings["what_moved"] = {}
        for name in ("best", "last") if run.phase.keeps == "best" else ("last",):
            state.network.load_state_dict(load_checkpoint(run.folder / f"{name}.pt")["state_dict"])
            found = what_moved(state.network, state.before, logits, features.labels.numpy())
            settings["what_moved"][name] = found
        write_json(path, settings)
    for name, found in settings["what_moved"].items():
        for line in in_words(found):
            run.say(f"{name}: {line}")
