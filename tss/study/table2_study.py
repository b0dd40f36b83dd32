"""All rows of the paper's Table 2 from one command: a plan of trainings, each as one would type it, and the evaluation.

In:  DATA as run_preprocess.py leaves it; files of weights from elsewhere, or scans with tumours to learn them from.
Out: OUT/<2d or 3d>/<previous, random, imagenet, medical, extended, extended-random>/phase<N>; OUT/study.json;
     OUT/eval with the table.
Paper: Table 2, 2.3 ("we compared this multi-phase training regimen to training on TSS labels from scratch,
     pretraining on natural images, and pretraining on external datasets of brain MRIs").
See: tests/study/test_table2_study.py

A chain is what must be trained in sequence: four phases, each from the one before; or the two TSS tasks, each directly
from the same first weights. Chains are independent, so shards divide them among jobs. Every training is run with
--resume: finished ones are left alone, so the same line continues after an interruption.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tss.data.cohort import Patient
from tss.data.files import write_json
from tss.data.prepared import read_prepared, read_settings
from tss.data.shards import Shard
from tss.data.tasks import POSITIVE, RESTORE, samples
from tss.display.tables import aligned
from tss.errors import InputError
from tss.study.programs import EVALUATE, PRETRAIN, TRAIN, type_in
from tss.study.timing import seconds_a_hemisphere, steps_of
from tss.training.device import choose_device
from tss.training.phases import PAPER, RECIPES, WIDTH, Phase, long_enough
from tss.training.run_setup import FIRST_PHASE, Options, check_classes, open_parent, set_up_run, training_cohort
from tss.training.tumour_scans import read_tumours

# Each with both recipes: the extended one follows in the same chain, since in 3D it starts from the same phase 0.
CHAINS = {"2d": ("previous", "random", "imagenet", "medical"), "3d": ("previous", "random", "medical")}
EXTENDED = {"previous": "extended", "random": "extended-random"}  # the extended recipe from the same first weights
FOLD = "fold"  # chains that validate on a fold
ALONE = (2, 3)  # the phases that Table 2 has from other first weights too
STARTS = {"random": "random", "imagenet": "ImageNet", "medical": "medical images"}
PICTURES = 4  # patients whose Grad-CAM is drawn, as run_eval.py's default
NEEDS = {
    "imagenet": "needs --imagenet FILE, torchvision's ResNet-18: "
    "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "medical": "needs --tumours TUMOURS.csv, scans of brain tumours to learn from, or --medical-{model} FILE, weights "
    "learned elsewhere",
}


@dataclass(frozen=True)
class Study:
    """What the user asked for."""

    data: Path
    out: Path
    models: tuple[str, ...] = ("2d", "3d")
    imagenet: Path | None = None  # ResNet-18
    genesis: Path | None = None  # Models Genesis, instead of phase 0
    tumours: Path | None = None  # CSV, to learn medical weights from where `medical` has none
    medical: Mapping[str, Path] = field(default_factory=dict)  # model -> weights
    folds: int = 0  # train so many folds of the paper's recipe too, for the row of their ensemble; 0: none
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    values: Mapping[tuple[str, str, int | None], dict[str, Any]] = field(default_factory=dict)
    # of `values`: (recipe, model, phase; None = tumours) -> width, epochs, lr, ...


class Training(NamedTuple):
    """One command: a row of Table 2, or what a row starts from."""

    model: str
    chain: str  # one of CHAINS, or EXTENDED with what it is the extended recipe's of; fold<K>
    phase: int | None  # None: brain tumours
    init: Path | None  # None: random weights
    out: Path

    @property
    def recipe(self) -> str:
        return "extended" if self.chain in EXTENDED.values() else "paper"

    @property
    def fold(self) -> str:
        """The K of a chain that is validated on the K-th fold; "" of the others."""
        return self.chain.removeprefix(FOLD) if self.chain.startswith(FOLD) else ""

    @property
    def settings(self) -> Phase:
        """The row of the recipe's table."""
        assert self.phase is not None  # tumours have a table of their own
        return RECIPES[self.recipe][self.phase]

    @property
    def key(self) -> tuple[str, str, int | None]:
        """Of Study.values."""
        return self.recipe, self.model, self.phase

    @property
    def folder(self) -> Path:
        return self.out / ("tumours" if self.phase is None else f"phase{self.phase}")

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def row(self) -> str:
        if self.phase is None:
            return f"{self.model.upper()}, brain tumours"
        task, extended = self.settings.task, ", extended recipe" * (self.recipe == "extended")
        words = "Models Genesis" if task == RESTORE else POSITIVE[task]
        of_fold = f", fold {self.fold}" * bool(self.fold)
        return f"{self.model.upper()}, {words}{', attention' * self.settings.attention}{extended}{of_fold}"

    @property
    def weights(self) -> str:
        if self.init is None or self.phase is None:
            return "random"
        if self.chain in ("previous", EXTENDED["previous"]) or self.fold:
            before = f"phase{self.phase - 1}"
            return f"phase {self.phase - 1}" if self.init.parent.name == before else "Models Genesis"
        return STARTS[self.chain]


class Plan(NamedTuple):
    """What is trained, what cannot be, and on what."""

    chains: list[list[Training]]
    not_run: list[dict[str, Any]]  # rows as tss.evaluation.table2 takes them
    patients: list[Patient]
    grid: tuple[int, int, int]
    widths: dict[Path, int]  # OUT/<model>/<chain> -> width

    @property
    def trainings(self) -> list[Training]:
        return [training for chain in self.chains for training in chain]


def run_study(study: Study, shard: Shard | None = None, dry_run: bool = False) -> int:
    """Print the plan; train what is not finished; evaluate all and write the table.

    shard: train this part of the chains, and do not evaluate.
    Returns 0; where a command fails it has said why, and its exit code is returned.
    Raises InputError: data, files and flags do not fit together; nothing was trained.
    """
    plan = make_plan(study)
    if shard:
        plan = plan._replace(chains=shard.of(plan.chains))
    show_plan(study, plan)
    if dry_run:
        return 0
    todo = plan.trainings
    for number, training in enumerate(todo, 1):
        print(f"\n{number} of {len(todo)}: {training.row}, from {training.weights}", flush=True)
        if code := type_in(TRAIN if training.phase is not None else PRETRAIN, words_of(study, training)):
            stopped = f"The study stopped at {number} of {len(todo)} ({training.folder})."
            print(f"{stopped} Rerun the same command to continue.", file=sys.stderr)
            return code
    if shard:
        print(
            f"\nShard {shard} is trained. When all are, the same command without --shard writes the table.", flush=True
        )
        return 0
    print("\nEvaluation on the test patients", flush=True)
    write_json(study.out / "study.json", about_rows(study, plan))
    if code := type_in(EVALUATE, evaluation_words(study, plan)):
        return code
    print(
        f"\nThe paper's Table 2 for {study.data}: {study.out / 'eval' / 'table2.md'}\n"
        f"The whole report, to open in a browser: {study.out / 'eval' / 'report.html'}",
        flush=True,
    )
    return 0


def make_plan(study: Study) -> Plan:
    """Settle what is trained, and refuse what cannot work before anything is."""
    chains, not_run = plan_chains(study)
    patients = read_prepared(study.data)
    widths: dict[Path, int] = {}
    if study.tumours:
        for model in study.models:
            if model not in study.medical:
                read_tumours(study.tumours, model, study.seed)
    check_weights("imagenet", study.imagenet, "ResNet-18")
    check_weights("genesis", study.genesis, "Models Genesis")
    for chain in chains:
        learned = [training.best for training in chain]
        for training in chain:
            values = dict(study.values.get(training.key, {}))
            width = values.pop("width", None)
            widths.setdefault(training.out, width or WIDTH[training.model])
            if training.phase is None:
                continue
            same = {name: getattr(study, name) for name in ("data", "seed", "device", "precision")}
            same |= {"out": training.out, "model": training.model, "width": width, "recipe": training.recipe}
            fold = Shard(int(training.fold), study.folds) if training.fold else None
            options = Options(resume=True, values=values, fold=fold, **same)
            check_classes(study.data, training_cohort(options, patients), training.settings, fold)
            if training.init in learned:
                continue
            widths[training.out] = set_up_run(options, training.phase, _word(training.init)).about["width"]
    x, y, z = read_settings(study.data)["grid"]
    return Plan(chains, not_run, patients, (x, y, z), widths)


def plan_chains(study: Study) -> tuple[list[list[Training]], list[dict[str, Any]]]:
    """Return the chains that can be trained, and the rows that cannot, as tss.evaluation.table2 takes them."""
    chains, not_run = [], []
    for model in study.models:
        for name in CHAINS[model]:
            if chain := chain_of(study, model, name):
                chains.append(chain)
                continue
            prefix = f"{model}-" * (len(study.models) > 1)  # as tss.evaluation.inference.open_models names the others
            not_run += [
                {
                    "kind": "network",
                    "name": f"{prefix}{name}-phase{number}",
                    "task": PAPER[number].task,
                    "phase": number,
                    "model": model,
                    "weights": STARTS[name],
                    "reason": NEEDS[name].format(model=model),
                }
                for number in ALONE
            ]
        chains += [chain_of(study, model, f"{FOLD}{number}") for number in range(1, study.folds + 1)]
    return chains, not_run


def chain_of(study: Study, model: str, name: str) -> list[Training]:
    """Return a chain's trainings, or none where its first weights were not given."""
    out, chain = study.out / model / name, []
    if name == "previous" or name.startswith(FOLD):
        first, init = FIRST_PHASE[model], None
        if model == "3d" and study.genesis:
            first, init = 1, study.genesis
        for number in range(first, max(PAPER) + 1):
            chain.append(Training(model, name, number, init, out))
            init = chain[-1].best
        if name not in EXTENDED:
            return chain
        init, name = chain[1 - first].init, EXTENDED[name]  # what phase 1 starts from
        for number in range(1, max(PAPER) + 1):
            chain.append(Training(model, name, number, init, out.with_name(name)))
            init = chain[-1].best
        return chain
    if name == "medical" and study.tumours and model not in study.medical:
        chain = [Training(model, name, None, None, out)]
    given = {"random": None, "imagenet": study.imagenet, "medical": study.medical.get(model)}
    init = chain[-1].best if chain else given[name]
    if init is None and name != "random":
        return []
    chain += [Training(model, name, number, init, out) for number in ALONE]
    if name in EXTENDED:
        chain += [Training(model, EXTENDED[name], number, init, out.with_name(EXTENDED[name])) for number in ALONE]
    return chain


def check_weights(flag: str, file: Path | None, wanted: str) -> None:
    """Refuse a file that holds other weights than its flag says."""
    parent = open_parent(Options(), PAPER[1], str(file)) if file else None
    if parent and parent.checkpoint.get("name") != wanted:
        found, phase = parent.checkpoint, parent.checkpoint["phase"]
        what = found["name"] if phase is None else f"a checkpoint of phase {phase}"
        raise InputError(f"--{flag} {file} is {what}, and must be published weights of {wanted}.")


def words_of(study: Study, training: Training) -> list[object]:
    """Return the arguments of run_train.py, or of the module that learns from tumours."""
    if training.phase is None:
        grid = read_settings(study.data)["grid"]  # so that voxels have one size, here and there
        words = [study.tumours, "--model", training.model, "--grid", *grid]
    else:
        words = ["--phase", training.phase, "--init", _word(training.init), "--model", training.model]
        words += ["--data", study.data, *["--recipe", training.recipe] * (training.recipe != "paper")]
    words += ["--out", training.out]
    words += ["--fold", f"{training.fold}/{study.folds}"] if training.fold else []
    for name, value in study.values.get(training.key, {}).items():
        words += [f"--{name.replace('_', '-')}", value]
    return [*words, "--seed", study.seed, *_unless_default(study, "device", "precision"), "--resume"]


def _word(init: Path | None) -> str:
    """The value of --init."""
    return "random" if init is None else str(init)


def evaluation_words(study: Study, plan: Plan) -> list[object]:
    """Return the arguments of run_eval.py."""
    tested = [patient for patient in plan.patients if patient.split == "test" and patient.status == "ok"]
    outlined = any(patient.path("lesion") for patient in tested)
    # Not tumours, not phase 0; and single folds are no rows.
    words: list[object] = [training.best for training in plan.trainings if training.phase and not training.fold]
    words += ["--data", study.data, "--out", study.out / "eval", "--report", "--study", study.out / "study.json"]
    words += ["--gradcam", PICTURES, *["--gradcam-scores"] * outlined]
    return [*words, *_unless_default(study, "device"), "--overwrite"]


def _unless_default(study: Study, *names: str) -> list[str]:
    changed = [name for name in names if getattr(study, name) != getattr(Options, name)]
    return [word for name in changed for word in (f"--{name}", getattr(study, name))]


def about_rows(study: Study, plan: Plan) -> dict[str, Any]:
    """Return study.json: what the table cannot know from the checkpoints."""
    last = [training for training in plan.trainings if training.fold and training.phase == max(PAPER)]
    prefix = {model: f"{model}-" * (len(study.models) > 1) for model in study.models}
    members = {
        f"{prefix[model]}ensemble-of-{study.folds}-folds": [
            os.path.relpath(training.best, study.out) for training in last if training.model == model
        ]
        for model in study.models
        if last
    }
    about = {"weights": weights_in_words(study, plan.chains), "not_run": plan.not_run}
    return about | ({"ensembles": members} if members else {})


def weights_in_words(study: Study, chains: Sequence[Sequence[Training]]) -> dict[str, str]:
    """Return checkpoint, relative to OUT -> first weights, where the checkpoint does not know on what they learned."""
    learned = {model: f" ({file.name})" for model, file in study.medical.items()}
    return {
        os.path.relpath(training.best, study.out): STARTS[training.chain]
        + (learned.get(training.model, " (tumours)") if training.chain == "medical" else "")
        for chain in chains
        for training in chain
        if training.chain in ("imagenet", "medical") and training.phase is not None
    }


def show_plan(study: Study, plan: Plan) -> None:
    """Print a line for each training, with what it costs at most, and one for each row that cannot be trained."""
    device = choose_device(study.device)
    print(f"Table 2 of {study.data}, in {study.out}. Timing the kinds of training on {device} ...", flush=True)
    total, timed = 0.0, {}
    lines = [["", "row", "from", "state", "at most", "python ..."]]
    for number, training in enumerate(plan.trainings, 1):
        state, epochs = state_of(study, training, plan.patients)
        cost = "not timed" if training.phase is None and state != "done" else "-"
        program = PRETRAIN
        if training.phase is not None:
            program, phase = TRAIN, training.settings
            frozen = bool(phase.freezes and training.init)
            width = plan.widths[training.out]
            kind = (training.model, width, phase.task == RESTORE, frozen, phase.attention, training.recipe)
            if epochs and kind not in timed:
                timed[kind] = seconds_a_hemisphere(
                    phase, training.model, width, plan.grid, frozen, device, study.precision
                )
            if epochs:
                seconds = timed[kind] * steps_of(plan.patients, phase.task) * epochs
                cost, total = f"{_time(seconds)}, {epochs} epochs", total + seconds
        typed = f"{program} {shlex.join(map(str, words_of(study, training)))}"
        lines.append([str(number), training.row, training.weights, state, cost, typed])
    for row in plan.not_run:
        named = f"{row['model'].upper()}, {POSITIVE[row['task']]}"
        lines.append(["-", named, row["weights"], "not run", "-", row["reason"]])
    print(aligned(lines), flush=True)
    if total:
        print(
            f"At most {_time(total)} of training on {device}, estimated from a few steps; early stopping usually ends "
            "it sooner. Loading, drawing and the evaluation are extra.",
            flush=True,
        )
    print(
        "The evaluation compares them with the tissue clock and Lee 2020, fitted to the same training patients, and "
        "with the readers of cohort.csv.",
        flush=True,
    )


def state_of(study: Study, training: Training, patients: list[Patient]) -> tuple[str, int]:
    """Return how far a training is, in words, and how many epochs it has left at most; not known for tumours: 0."""
    if (training.folder / "curves.png").is_file() and training.best.is_file():  # what a training writes last
        return "done", 0
    log = training.folder / "log.csv"
    done = len(log.read_text(encoding="utf-8").splitlines()) - 1 if log.is_file() else 0
    state = f"epoch {done} done" if done else "to do"
    if training.phase is None:
        return state, 0
    phase = long_enough(training.settings, len(samples(patients, training.settings.task, "train")))
    epochs = study.values.get(training.key, {}).get("epochs", phase.epochs)
    return state, max(0, epochs - done)


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
