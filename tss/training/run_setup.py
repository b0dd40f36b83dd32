"""What a run is, settled before anything heavy is read: model, data, parent, folder; impossible ones are refused.

In:  Options, as the user typed them; the number of a phase; what it starts from.
Out: a Run, which never changes; the TrainState that changes with every step is made in tss.training.train; or an
     InputError that names both values, the file, and what to type.
Paper: 2.3 (what starts from what).
See: tests/training/test_run_setup.py
"""

import hashlib
import os
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tss
from tss.data.cohort import Patient
from tss.data.cohort_profile import profile
from tss.data.files import sha256
from tss.data.folds import folds_hash, in_fold, read_folds
from tss.data.patients_seen import hashes_of, together
from tss.data.prepared import cohort_file, differing_settings, read_prepared, read_settings
from tss.data.shards import Shard
from tss.data.splits import fewer_to_train, split_hash
from tss.data.tasks import RESTORE, samples
from tss.errors import InputError
from tss.training.checkpoint import Parent, check_checkpoint, check_parent, read_torch_file
from tss.training.dataset import Rows, Split
from tss.training.device import choose_device
from tss.training.phases import FROZEN, PAPER, RECIPES, WIDTH, Phase, long_enough
from tss.training.pretrained import recognise_weights

MODEL = "2d"  # where neither --model nor a checkpoint says otherwise, and the phase has it
FIRST_PHASE = {model: min(number for number, phase in PAPER.items() if model in phase.models) for model in FROZEN}
PHASE_SETTINGS = ("batch_size", "lr", "final_lr", "epochs", "patience")  # of a phase, that may be overridden
LEFT_BY_A_PHASE = ("last.pt", "best.pt", "log.csv", "curves.png", "restored.png", "settings.json")
PHANTOMS = "phantoms, not clinical"  # said with every score of made-up patients


@dataclass(frozen=True)
class Options:
    """What the user asked for. None: what the checkpoint says, or else the paper."""

    data: Path = Path("data")
    out: Path | None = None  # None: runs/<model>, of a fold runs/<model>/fold<K>
    model: str | None = None
    width: int | None = None
    recipe: str | None = None  # a key of RECIPES; None: the checkpoint's, else the paper's
    seed: int = 0
    fold: Shard | None = None  # validate on this fold; None: on split 'val'
    train_patients: int | None = None  # None: all that are preprocessed
    device: str = "auto"
    precision: str = "fp32"
    resume: bool = False
    overwrite: bool = False
    values: dict[str, Any] = field(default_factory=dict)  # some of PHASE_SETTINGS, in place of the phase's


@dataclass(frozen=True)
class Run:
    """What one training is."""

    options: Options
    phase: Phase
    folder: Path
    device: torch.device
    about: dict[str, Any]  # model, width, grid, attention, phase, task, parent, cohort, settings: as in the checkpoint
    patients: list[Patient]
    parent: Parent | None = None  # None: random weights
    note: str = ""  # PHANTOMS where the patients are

    def say(self, text: str) -> None:
        print(f"{self.phase.name}  {text}", flush=True)

    def on_data(self, train: Split, val: Split) -> "Run":
        """The same run, with a fingerprint of what it learns from among its settings."""
        settings = self.about["settings"] | {"data": fingerprint(train, val)}
        return replace(self, about=self.about | {"settings": settings})

    def say_model(self) -> None:
        """Say what is trained on which device."""
        about = self.about
        self.say(
            f"{about['task']}  {about['model']} width {about['width']}  grid {' x '.join(map(str, about['grid']))}  "
            f"on {self.device}, {self.options.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads"
        )


@dataclass
class TrainState:
    """What training changes."""

    network: nn.Module
    learner: nn.Module  # the network, or what lies behind its frozen layers (tss.training.feature_cache)
    optimizer: torch.optim.Optimizer
    frozen: list[str]  # names of parameters and buffers
    before: dict[str, Tensor] = field(default_factory=dict)  # the tensors that the phase started from
    validation: dict[str, Any] | None = None  # logits, labels and patients after the last epoch
    mean: Tensor | None = None  # (C, D, H, W), the mean training hemisphere; phase 0 alone
    history: list[dict[str, Any]] = field(default_factory=list)  # a dict an epoch, as log.csv has it


def options_from(given: dict[str, Any]) -> Options:
    """Options out of what was typed: names of Options and of PHASE_SETTINGS, those that were given."""
    values = {name: value for name, value in given.items() if name in PHASE_SETTINGS}
    return Options(values=values, **{name: value for name, value in given.items() if name not in values})


def set_up_run(options: Options, number: int, init: str | None) -> Run:
    """Settle what a phase's run is, and refuse what cannot work before anything heavy is read."""
    parent = open_parent(options, PAPER[number], init)
    given = parent.checkpoint if parent else {}
    recipe = options.recipe or given.get("recipe") or "paper"
    phase = replace(RECIPES[recipe][number], **options.values)
    model = options.model or given.get("model") or default_model(phase)
    if model not in phase.models:
        raise InputError(
            f"phase {number} ({phase.task}) is for --model {' or '.join(phase.models)}, not {model}: the "
            f"{model} model starts in phase {FIRST_PHASE[model]}. Type: python run_train.py --phase "
            f"{FIRST_PHASE[model]} --model {model}"
        )
    cohort = read_prepared(options.data)
    patients = training_cohort(options, cohort)
    preprocessing = read_settings(options.data)
    check_classes(options.data, patients, phase, options.fold)
    if phase.keeps == "last" and "patience" in options.values:
        raise InputError(f"the {recipe} recipe keeps each phase's last epoch, without early stopping: omit --patience.")
    if "epochs" not in options.values:
        phase = long_enough(phase, len(samples(patients, phase.task, "train")))
    learned = [patient for patient in patients if patient.split in ("train", "val") and patient.status == "ok"]
    weights = parent.origin if parent else "random"
    fold = options.fold
    drawn = {"folds": folds_hash(read_folds(options.data, cohort, fold.parts))} if fold else {}
    settings = settings_of(
        options,
        phase,
        weights=weights,
        train_patients=options.train_patients,
        fold=fold_in_words(fold),
        **drawn,
        preprocessing=preprocessing,
        profile=profile(options.data, [patient for patient in learned if patient.split == "train"]),
    )
    about = {
        "model": model,
        "width": options.width or given.get("width") or WIDTH[model],
        "grid": list(preprocessing["grid"]),
        "attention": phase.attention,
        "phase": number,
        "task": phase.task,
        "recipe": recipe,
        "parent": sha256(parent.path) if parent else "random",
        "cohort": split_hash(cohort),
        "patients_seen": together(hashes_of(options.data, learned), given.get("patients_seen", {})),
        "settings": settings,
    }
    if parent:
        tested = [patient for patient in cohort if patient.split == "test" and patient.status == "ok"]
        check_parent(parent, phase, about, hashes_of(options.data, tested))
    folder = default_out(options, model, recipe) / f"phase{number}"
    check_folder(options, folder)
    note = PHANTOMS if cohort[0].row.get("phantom") else ""
    return Run(options, phase, folder, choose_device(options.device), about, patients, parent, note)


def settings_of(options: Options, phase: Phase, **more: object) -> dict[str, Any]:
    """Return a run's settings, as its checkpoints have them."""
    return {
        **{name: getattr(phase, name) for name in PHASE_SETTINGS},
        "seed": options.seed,
        "precision": options.precision,
        **more,
        "versions": {"tss": tss.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }


def training_cohort(options: Options, patients: list[Patient]) -> list[Patient]:
    """Return the cohort, with the fold that is validated on and as many training patients as the user asked for."""
    n = options.train_patients
    if options.fold:
        patients = in_fold(options.data, patients, options.fold)
    return patients if n is None else fewer_to_train(patients, n, options.seed)


def open_parent(options: Options, phase: Phase, init: str | None) -> Parent | None:
    """Read the checkpoint, or published weights, to start from; None means random weights."""
    model = options.model or default_model(phase)
    number = phase.parent_of(model)
    if init == "random" or (init is None and number is None):
        return None
    if init is None:
        expected = default_out(options, model, options.recipe or "paper") / f"phase{number}" / "best.pt"
        raise InputError(
            f"phase {phase.number} needs --init: the checkpoint that phase {number} left, or the word "
            f"random. Type: python run_train.py --phase {phase.number} --init {expected}"
        )
    path, content = Path(init), read_torch_file(init)
    if isinstance(content, dict) and "format" in content:
        return Parent(path, check_checkpoint(path, content))
    return recognise_weights(content, path)


def default_model(phase: Phase) -> str:
    """The kind of network where neither --model nor a checkpoint names one: 2D, except for phase 0."""
    return MODEL if MODEL in phase.models else phase.models[0]


def phases_of(options: Options, init: str | None) -> tuple[str, list[Phase]]:
    """Return the kind of model, and the phases of the recipe, that `--phase all` trains."""
    parent = None if options.model else open_parent(options, PAPER[1], init)
    model = options.model or (parent.checkpoint["model"] if parent else MODEL)
    return model, [phase for phase in RECIPES[options.recipe or "paper"].values() if model in phase.models]


def default_out(options: Options, model: str, recipe: str = "paper") -> Path:
    """The folder that holds phase0 or phase1 to phase4: runs/<model>, for another recipe runs/<model>-<recipe>; in it
    fold<K> of a fold."""
    name = options.model or model
    folder = Path("runs") / (name if recipe == "paper" else f"{name}-{recipe}")
    return options.out or (folder / f"fold{options.fold.part}" if options.fold else folder)


def fold_in_words(fold: Shard | None) -> str | None:
    """K/N, as typed and as checkpoints have it."""
    return f"{fold.part}/{fold.parts}" if fold else None


def check_classes(data: Path, patients: list[Patient], phase: Phase, fold: Shard | None = None) -> None:
    """Refuse a task that cannot be learned or validated: a split with one class only, or empty for phase 0.

    patients: as the fold has them, where one is validated on.
    """
    for split in ("train", "val"):
        labels = [sample.label for sample in samples(patients, phase.task, split)]
        if phase.task == RESTORE and not labels:
            raise InputError(
                f"{cohort_file(data)}: phase {phase.number} ({phase.task}) has no patient in split "
                f"'{split}'. Add patients, and run run_preprocess.py again."
            )
        if phase.task != RESTORE and len(set(labels)) < 2:
            remedy = (
                f"Give fewer folds than {fold.parts}, or add patients."
                if fold
                else "Add patients, or change the column 'split' of your own cohort.csv, and run run_preprocess.py "
                "again."
            )
            raise InputError(
                f"{cohort_file(data)}: phase {phase.number} ({phase.task}) has {sum(labels)} positive of {len(labels)} "
                f"hemispheres in split '{split}'; both classes are needed there. {remedy}"
            )


def check_folder(options: Options, folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds this phase already, without --resume or --overwrite."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        why = f"no permission in {above}" if above.is_dir() else f"{above} is not a folder"
        raise InputError(f"{folder} cannot be written: {why}. Choose another folder with --out.")
    if not (options.resume or options.overwrite) and any((folder / name).exists() for name in LEFT_BY_A_PHASE):
        raise InputError(
            f"{folder} holds a training already. Add --resume to continue it (a finished one is left "
            "unchanged), --overwrite to train again, or choose another folder with --out."
        )


def fingerprint(train: Split, val: Split) -> str:
    """SHA-256 over what is learned from: samples, labels and voxels; of hemispheres on disk the middle slices.

    What preprocessing does otherwise shows in each slice, and to read all of a large cohort takes minutes.
    """
    digest = hashlib.sha256()
    for split in (train, val):
        digest.update(repr([tuple(sample) for sample in split.samples]).encode())
        digest.update(split.labels.numpy().data)  # for tumours an outline, which a sample does not hold
        stored = split.hemispheres
        for part in [stored] if isinstance(stored, Tensor) else middle_slices(stored):
            digest.update(part.numpy().data)
    return digest.hexdigest()


def middle_slices(hemispheres: Rows) -> Iterator[Tensor]:
    """Yield the middle slice (C, H, W) of each hemisphere (C, D, H, W)."""
    middle = hemispheres.shape[2] // 2
    return (hemispheres[row, :, middle] for row in range(len(hemispheres)))


def why_left_out(patient: Patient) -> str:
    """Why nothing is learned from a patient; where it is "ok", a label of the task is missing."""
    if patient.status != "ok":
        return patient.status or "not preprocessed"
    return "onset unknown" if patient.side else "stroke side unknown"


def announce(run: Run, train: Split, val: Split) -> None:
    """Print once what is trained on which data, and which patients are excluded."""
    about, phase, options = run.about, run.phase, run.options
    counts = [
        f"{name} {len(split.labels)} hemispheres "
        f"({'no labels' if phase.task == RESTORE else f'{int(split.labels.sum())} positive'})"
        for name, split in (("train", train), ("val", val))
    ]
    size = (train.hemispheres.nbytes + val.hemispheres.nbytes) / 2**30
    run.say_model()
    chosen = f"fold {options.fold}: " if options.fold else ""
    chosen += f"{options.train_patients} training patients: " if options.train_patients else ""
    run.say(f"{chosen}{', '.join(counts)}; {size:.2f} GiB on disk")
    learned = {sample.patient for split in (train, val) for sample in split.samples}
    excluded = Counter(
        why_left_out(patient)
        for patient in run.patients
        if patient.split in ("train", "val") and patient.id not in learned
    )
    if excluded:
        run.say(
            f"excluded from train and val: {', '.join(f'{count} {why}' for why, count in excluded.items())}; the "
            f"reasons are in {cohort_file(options.data)}"
        )
    if run.parent and "settings" in run.parent.checkpoint:
        path, then, now = run.parent.path, run.parent.checkpoint["settings"], about["settings"]
        if differs := differing_settings(then.get("preprocessing", {}), now["preprocessing"]):
            run.say(
                f"warning: {path} was trained on hemispheres that were preprocessed with different settings from "
                f"those in {options.data}: {differs}"
            )
        before, after = (
            f"{settings['train_patients']} (seed {settings.get('seed')})" if settings.get("train_patients") else "all"
            for settings in (then, now)
        )
        if before != after:
            run.say(f"{path} was trained on other training patients: {before} there, {after} here")
    if run.note:
        run.say(f"these are {run.note}")
    own = "".join(f", {name} {lr:g} -> {last:g}" for name, lr, last in phase.own_rates)
    length = f"at most {phase.epochs} epochs, patience {phase.patience}"
    length = length if phase.keeps == "best" else f"{phase.epochs} epochs, the last one kept"
    run.say(
        f"recipe {phase.recipe}: batch {phase.batch_size}, AdaBound {phase.lr:g} -> {phase.final_lr:g}{own}; {length}"
    )
