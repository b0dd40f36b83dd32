"""What a run is, settled before anything heavy is read: model, data, parent, folder; and what cannot work, refused.

In:  Options, as the user typed it; the number of a phase; what it starts from.
Out: a Run; or an InputError that names both values, the file, and what to type.
Paper: 2.3 (what starts from what).
See: tests/training/test_run_setup.py
"""

import hashlib
import os
import platform
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import tss
from tss.data.cohort import Patient
from tss.data.files import sha256
from tss.data.prepared import differing_settings, read_prepared, read_settings
from tss.data.splits import fewer_to_train, split_hash
from tss.data.tasks import RESTORE, samples
from tss.errors import InputError
from tss.phantom.ideal_observer import phantom_note
from tss.training.augmentation import STRIDE
from tss.training.checkpoint import check_checkpoint, check_parent, read_torch_file
from tss.training.dataset import Split
from tss.training.device import choose_device
from tss.training.phases import FROZEN, MOVING, PHASES, WIDTH, Phase
from tss.training.pretrained import recognise_weights

MODEL = "2d"  # where neither --model nor a checkpoint says otherwise, and the phase has it
FIRST_PHASE = {model: min(number for number, phase in PHASES.items() if model in phase.models) for model in FROZEN}
PHASE_SETTINGS = ("batch_size", "lr", "final_lr", "epochs", "patience", "shift")  # of a phase, that a user may change
LEFT_BY_A_PHASE = ("last.pt", "best.pt", "log.csv", "curves.png", "restored.png", "settings.json")


@dataclass(frozen=True)
class Options:
    """What the user asked for. None: what the checkpoint says, or else the paper."""

    data: Path = Path("data")
    out: Path | None = None  # None: runs/<model>
    model: str | None = None
    width: int | None = None
    seed: int = 0
    train_patients: int | None = None  # None: all that are prepared
    device: str = "auto"
    precision: str = "fp32"
    resume: bool = False
    overwrite: bool = False
    values: dict = field(default_factory=dict)  # some of VALUES, instead of the phase's


@dataclass
class Run:
    """One phase in progress."""

    options: Options
    phase: Phase
    folder: Path
    device: torch.device
    about: dict  # model, width, grid, attention, phase, task, parent, cohort, settings: as in the checkpoint
    parent: dict | None
    parent_path: Path | None
    history: list[dict] = field(default_factory=list)  # a dict an epoch, as log.csv has it
    frozen: list[str] = field(default_factory=list)
    network: nn.Module | None = None
    learner: nn.Module | None = None  # the network, or what lies behind its frozen layers (tss.training.feature_cache)
    optimizer: torch.optim.Optimizer | None = None
    phantoms: str = ""  # what is said of scores of made-up patients
    mean: Tensor | None = None  # (C, D, H, W), the mean training hemisphere; phase 0 alone

    def say(self, text: str) -> None:
        print(f"{self.phase.name}  {text}", flush=True)


def set_up_run(options: Options, number: int, init: str | None) -> tuple[Run, list[Patient]]:
    """Settle what the run is, and refuse what cannot work before anything heavy is read."""
    phase = replace(PHASES[number], **options.values)
    if number not in MOVING:
        phase = replace(phase, shift=0)  # --phase all --shift 2 means the phases that move at all
    parent_path, parent = open_parent(options, phase, init)
    model = options.model or (parent["model"] if parent else default_model(phase))
    if model not in phase.models:
        raise InputError(
            f"phase {number} ({phase.task}) is for --model {' or '.join(phase.models)}, not {model}: the "
            f"{model} model starts in phase {FIRST_PHASE[model]}. Type: python run_train.py --phase "
            f"{FIRST_PHASE[model]} --model {model}"
        )
    cohort = read_prepared(options.data)
    patients = training_cohort(options, cohort)
    preprocessing = read_settings(options.data)
    x, y, _ = preprocessing["grid"]
    if phase.shift * STRIDE >= min(x // 2, y):
        raise InputError(
            f"--shift {phase.shift} moves hemispheres by up to {phase.shift * STRIDE} pixels, and those "
            f"in {options.data} are {y} x {x // 2}. Give a smaller --shift."
        )
    about = {
        "model": model,
        "width": options.width or (parent["width"] if parent else WIDTH[model]),
        "grid": list(preprocessing["grid"]),
        "attention": phase.attention,
        "phase": number,
        "task": phase.task,
        "parent": sha256(parent_path) if parent else "random",
        "cohort": split_hash(cohort),
        "settings": {
            **{name: getattr(phase, name) for name in PHASE_SETTINGS},
            "weights": origin_of(parent),
            "seed": options.seed,
            "train_patients": options.train_patients,
            "precision": options.precision,
            "preprocessing": preprocessing,
            "versions": {"tss": tss.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        },
    }
    if parent:
        check_parent(parent_path, parent, phase, wanted=about)
    check_classes(options.data, patients, phase)
    folder = default_out(options, model) / f"phase{number}"
    check_out_folder(options, folder)
    phantoms = phantom_note(cohort[0].row.get("phantom"), phase.task)
    return Run(
        options, phase, folder, choose_device(options.device), about, parent, parent_path, phantoms=phantoms
    ), patients


def training_cohort(options: Options, patients: list[Patient]) -> list[Patient]:
    """Return the cohort, with as many training patients as the user asked for."""
    return (
        patients if options.train_patients is None else fewer_to_train(patients, options.train_patients, options.seed)
    )


def open_parent(options: Options, phase: Phase, init: str | None) -> tuple[Path | None, dict | None]:
    """Read the checkpoint, or weights from elsewhere, to start from; (None, None) means random weights."""
    model = options.model or default_model(phase)
    number = phase.parent_of(model)
    if init == "random" or (init is None and number is None):
        return None, None
    if init is None:
        expected = default_out(options, model) / f"phase{number}" / "best.pt"
        raise InputError(
            f"phase {phase.number} needs --init: the checkpoint that phase {number} left, or the word "
            f"random. Type: python run_train.py --phase {phase.number} --init {expected}"
        )
    content = read_torch_file(init)
    is_ours = isinstance(content, dict) and "format" in content
    return Path(init), check_checkpoint(init, content) if is_ours else recognise_weights(content, Path(init))


def origin_of(parent: dict | None) -> str:
    """What the weights are at first, for Table 2: "random", "phase 1", "Models Genesis", "ResNet-18"."""
    if parent is None:
        return "random"
    return parent["name"] if parent["phase"] is None else f"phase {parent['phase']}"


def default_model(phase: Phase) -> str:
    """The kind of network where neither --model nor a checkpoint names one: 2D, except for phase 0."""
    return MODEL if MODEL in phase.models else phase.models[0]


def phases_of(options: Options, init: str | None) -> tuple[str, list[Phase]]:
    """Return the kind of model and the phases that `--phase all` trains."""
    model = options.model or (open_parent(options, PHASES[1], init)[1] or {}).get("model", MODEL)
    return model, [phase for phase in PHASES.values() if model in phase.models]


def default_out(options: Options, model: str) -> Path:
    """The folder that holds phase0 or phase1 to phase4."""
    return options.out or Path("runs") / (options.model or model)


def check_classes(data: Path, patients: list[Patient], phase: Phase) -> None:
    """Refuse a task that cannot be learned or validated: a split with one class only, or empty for phase 0."""
    for split in ("train", "val"):
        labels = [sample.label for sample in samples(patients, phase.task, split)]
        if phase.task == RESTORE and not labels:
            raise InputError(
                f"{data}/cohort.csv: phase {phase.number} ({phase.task}) has no patient in split "
                f"'{split}'. Add patients, and run run_preprocess.py again."
            )
        if phase.task != RESTORE and len(set(labels)) < 2:
            raise InputError(
                f"{data}/cohort.csv: phase {phase.number} ({phase.task}) has {sum(labels)} positive of {len(labels)} "
                f"hemispheres in split '{split}'; both classes are needed there. Add patients, or change the column "
                "'split' of your own cohort.csv, and run run_preprocess.py again."
            )


def check_out_folder(options: Options, folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds this phase already, unless told what to do with it."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        why = f"no permission in {above}" if above.is_dir() else f"{above} is not a folder"
        raise InputError(f"{folder} cannot be written: {why}. Choose another folder with --out.")
    if not (options.resume or options.overwrite) and any((folder / name).exists() for name in LEFT_BY_A_PHASE):
        raise InputError(
            f"{folder} holds a training already. Add --resume to continue it (a finished one is left as "
            "it is), --overwrite to train anew, or choose another folder with --out."
        )


def fingerprint(train: Split, val: Split) -> str:
    """SHA-256 over everything that is learned from: samples, labels and voxels."""
    digest = hashlib.sha256()
    for split in (train, val):
        digest.update(repr([tuple(sample) for sample in split.samples]).encode())
        digest.update(split.labels.numpy().data)  # of tumours an outline, which a sample does not hold
        digest.update(split.hemispheres.numpy().data)
    return digest.hexdigest()


def why_left_out(patient: Patient) -> str:
    """Why nothing is learned from a patient; where it is "ok", a label of the task is missing."""
    if patient.status != "ok":
        return patient.status or "not preprocessed"
    return "onset unknown" if patient.side else "stroke side unknown"


def announce(run: Run, patients: list[Patient], train: Split, val: Split) -> None:
    """Say once what is trained on what, and who is left out."""
    about, phase = run.about, run.phase
    counts = [
        f"{name} {len(split.labels)} hemispheres "
        f"({'no labels' if phase.task == RESTORE else f'{int(split.labels.sum())} positive'})"
        for name, split in (("train", train), ("val", val))
    ]
    memory = (train.hemispheres.nbytes + val.hemispheres.nbytes) / 2**30
    run.say(
        f"{phase.task}  {about['model']} width {about['width']}  grid {' x '.join(map(str, about['grid']))}  "
        f"on {run.device}, {run.options.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    chosen = f"{run.options.train_patients} training patients: " if run.options.train_patients else ""
    run.say(f"{chosen}{', '.join(counts)}; {memory:.2f} GiB in memory")
    learned = {sample.patient for split in (train, val) for sample in split.samples}
    left_out = Counter(
        why_left_out(patient) for patient in patients if patient.split in ("train", "val") and patient.id not in learned
    )
    if left_out:
        run.say(
            f"left out of train and val: {', '.join(f'{count} {why}' for why, count in left_out.items())}; the "
            f"reasons are in {run.options.data / 'cohort.csv'}"
        )
    parent = run.parent if run.parent and "settings" in run.parent else about
    if differs := differing_settings(*(of["settings"].get("preprocessing", {}) for of in (parent, about))):
        run.say(
            f"careful: {run.parent_path} was trained on hemispheres that were preprocessed with different settings from those in "
            f"{run.options.data}: {differs}"
        )
    now, then = ([of["settings"].get(name) for name in ("train_patients", "seed")] for of in (about, parent))
    if now != then and (now[0] or then[0]):
        run.say(
            f"{run.parent_path} is of other training patients: {then[0] or 'all'} (seed {then[1]}) there, "
            f"{now[0] or 'all'} (seed {now[1]}) here"
        )
    if run.phantoms:
        run.say(f"these are {run.phantoms}")
    run.say(
        f"batch {phase.batch_size}, AdaBound {phase.lr:g} -> {phase.final_lr:g}, at most {phase.epochs} epochs, "
        f"patience {phase.patience}"
    )
