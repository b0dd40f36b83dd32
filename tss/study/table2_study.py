"""All rows of the paper's Table 2 from one command: a plan of trainings, each as one would type it, and the evaluation.

In:  DATA as run_preprocess.py leaves it; files of weights from elsewhere, or scans with tumours to learn them from.
Out: OUT/<2d or 3d>/<previous, random, imagenet or medical>/phase<N>; OUT/study.json; OUT/eval with the table.
Paper: Table 2, 2.3 ("we compared this multi-phase training regimen to training on TSS labels from scratch,
     pretraining on natural images, and pretraining on external datasets of brain MRIs").
See: tests/study/test_table2_study.py

A chain is what must be trained in a row: four phases, each from the one before; or the two TSS tasks, each directly
from the same first weights. Chains need nothing of each other, so shards share them out. Every training is typed with
--resume: what is finished is left alone, so the same line continues after an interruption.
"""

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import tss
from tss.data.cohort import Patient
from tss.data.files import write_json
from tss.data.prepared import read_prepared, read_settings
from tss.data.shards import Shard
from tss.data.tasks import POSITIVE, RESTORE
from tss.display.tables import aligned
from tss.errors import InputError
from tss.study.timing import seconds_a_hemisphere, steps_of
from tss.training.device import choose_device
from tss.training.phases import PHASES, WIDTH
from tss.training.run_setup import FIRST_PHASE, Options, check_classes, open_parent, set_up_run
from tss.training.tumour_scans import read_tumours

CHAINS = {"2d": ("previous", "random", "imagenet", "medical"), "3d": ("previous", "random", "medical")}
ALONE = (2, 3)  # the phases that Table 2 has from other first weights too
STARTS = {"random": "random", "imagenet": "ImageNet", "medical": "medical images"}
TUMOURS = "tumours"  # stands where the others have the number of a phase
PICTURES = 4  # patients whose Grad-CAM is drawn, as run_eval.py's default
NEEDS = {
    "imagenet": "needs --imagenet FILE, torchvision's ResNet-18: "
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "medical": "needs --tumours TUMOURS.csv, scans of brain tumours to learn from, or --medical-{model} FILE, weights "
               "that were learned elsewhere",
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What the user asked for."""

    data: Path
    out: Path
    models: tuple[str, ...] = ("2d", "3d")
    imagenet: Path | None = None  # ResNet-18
    genesis: Path | None = None  # Models Genesis, in the place of phase 0
    tumours: Path | None = None  # CSV, to learn medical weights from where `medical` has none
    medical: Mapping[str, Path] = field(default_factory=dict)  # model -> weights
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    values: Mapping[tuple, dict] = field(default_factory=dict)  # (model, phase or TUMOURS) -> width, epochs, lr, ...


class Training(NamedTuple):
    """One command: a row of Table 2, or what a row starts from."""

    model: str
    chain: str  # one of CHAINS
    phase: int | str  # or TUMOURS
    init: Path | str  # a file, or "random"
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / (TUMOURS if self.phase == TUMOURS else f"phase{self.phase}")

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def row(self) -> str:
        if self.phase == TUMOURS:
            return f"{self.model.upper()}, brain tumours"
        task = PHASES[self.phase].task
        words = "Models Genesis" if task == RESTORE else POSITIVE[task]
        return f"{self.model.upper()}, {words}{', attention' * PHASES[self.phase].attention}"

    @property
    def weights(self) -> str:
        if self.chain == "previous" and self.init != "random":
            return f"phase {self.phase - 1}" if self.init.parent.parent == self.out else "Models Genesis"
        return "random" if self.phase == TUMOURS else STARTS.get(self.chain, "random")


def run(study: Study, shard: Shard | None = None, dry_run: bool = False) -> int:
    """Print the plan; train what is not finished; evaluate all and write the table.

    shard: train its chains and no more.
    Returns:
        0; where a command does not end well it has said why, and its exit code is returned.
    Raises:
        InputError: data, files and flags do not fit together; nothing was trained.
    """
    chains, not_run = plan_of(study)
    patients, grid, widths = check(study, chains)
    if shard:
        chains = shard.of(chains)
    show(study, chains, not_run, patients, grid, widths)
    if dry_run:
        return 0
    todo = [training for chain in chains for training in chain]
    for number, training in enumerate(todo, 1):
        print(f"\n{number} of {len(todo)}: {training.row}, from {training.weights}", flush=True)
        if code := type_in(program_of(training), words_of(study, training)):
            print(
                f"The study stopped at {number} of {len(todo)} ({training.folder}). The same line continues it.",
                file=sys.stderr,
            )
            return code
    if shard:
        print(
            f"\nShard {shard} is trained. When all are, the same line without --shard writes the table.",
            flush=True,
        )
        return 0
    print("\nEvaluation on the test patients", flush=True)
    write_json(study.out / "study.json", {"weights": words_for(study, chains), "not_run": not_run})
    outlined = any(patient.path("lesion") for patient in patients if patient.split == "test" and patient.status == "ok")
    if code := type_in("run_eval.py", evaluation_of(study, chains, outlined)):
        return code
    print(
        f"\nThe paper's Table 2 for {study.data}: {study.out / 'eval' / 'table2.md'}\n"
        f"The whole report, to open in a browser: {study.out / 'eval' / 'report.html'}",
        flush=True,
    )
    return 0


def type_in(program: str, words: Sequence) -> int:
    """Print a command as one types it after `python`, run it, and return its exit code."""
    line = [str(word) for word in words]
    print(f"$ python {program} {shlex.join(line)}", flush=True)
    return main_of(program)(line)


def main_of(program: str) -> Callable[[Sequence[str]], int]:
    """Return the function main of a script beside the package, "run_eval.py", or of a module, "-m tss.phantom"."""
    if program.startswith("-m "):
        return importlib.import_module(program.removeprefix("-m ")).main
    spec = importlib.util.spec_from_file_location(Path(program).stem, Path(tss.__file__).parents[1] / program)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main


def plan_of(study: Study) -> tuple[list[list[Training]], list[dict]]:
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
                    "task": PHASES[number].task,
                    "phase": number,
                    "model": model,
                    "weights": STARTS[name],
                    "reason": NEEDS[name].format(model=model),
                }
                for number in ALONE
            ]
    return chains, not_run


def chain_of(study: Study, model: str, name: str) -> list[Training]:
    """Return a chain's trainings, or none where its first weights were not given."""
    out = study.out / model / name
    if name == "previous":
        chain, init = [], "random"
        numbers = [number for number in PHASES if number >= FIRST_PHASE[model]]
        if model == "3d" and study.genesis:
            numbers, init = [number for number in numbers if number > 0], study.genesis
        for number in numbers:
            chain.append(Training(model, name, number, init, out))
            init = chain[-1].best
        return chain
    learned = Training(model, name, TUMOURS, "random", out)
    first = [learned] if name == "medical" and study.tumours and model not in study.medical else []
    init = {
        "random": "random",
        "imagenet": study.imagenet,
        "medical": learned.best if first else study.medical.get(model),
    }[name]
    return first + [Training(model, name, number, init, out) for number in ALONE] if init else []


def program_of(training: Training) -> str:
    return "-m tss.training.tumour_pretraining" if training.phase == TUMOURS else "run_train.py"


def words_of(study: Study, training: Training) -> list:
    """Return what one types after program_of()."""
    if training.phase == TUMOURS:
        grid = read_settings(study.data)["grid"]  # voxels of one size, here and there
        words = [study.tumours, "--model", training.model, "--grid", *grid]
    else:
        words = ["--phase", training.phase, "--init", training.init, "--model", training.model, "--data", study.data]
    words += ["--out", training.out]
    for name, value in study.values.get((training.model, training.phase), {}).items():
        words += [f"--{name.replace('_', '-')}", value]
    return [*words, "--seed", study.seed, *_unless_default(study, "device", "precision"), "--resume"]


def evaluation_of(study: Study, chains: Sequence[Sequence[Training]], outlined: bool) -> list:
    """Return what one types after run_eval.py. outlined: have test patients masks of their lesions?"""
    best = [training.best for chain in chains for training in chain if training.phase not in (0, TUMOURS)]
    return [
        *best,
        "--data",
        study.data,
        "--out",
        study.out / "eval",
        "--report",
        "--study",
        study.out / "study.json",
        "--gradcam",
        PICTURES,
        *["--gradcam-scores"] * outlined,
        *_unless_default(study, "device"),
        "--overwrite",
    ]


def _unless_default(study: Study, *names: str) -> list[str]:
    return [
        word
        for name in names
        if getattr(study, name) != getattr(Options, name)
        for word in (f"--{name}", getattr(study, name))
    ]


def words_for(study: Study, chains: Sequence[Sequence[Training]]) -> dict[str, str]:
    """Return checkpoint, relative to OUT -> first weights, where the checkpoint does not know on what they learned."""
    learned = {model: f" ({file.name})" for model, file in study.medical.items()}
    return {
        os.path.relpath(training.best, study.out): STARTS[training.chain]
        + (learned.get(training.model, " (tumours)") if training.chain == "medical" else "")
        for chain in chains
        for training in chain
        if training.chain in ("imagenet", "medical") and training.phase != TUMOURS
    }


def check(study: Study, chains: Sequence[Sequence[Training]]) -> tuple[list[Patient], tuple, dict[str, int]]:
    """Refuse what cannot work before anything is trained.

    Returns:
        the patients; the grid; OUT/<model>/<chain> -> width.
    """
    patients, widths = read_prepared(study.data), {}
    for model in (model for model in study.models if study.tumours and model not in study.medical):
        read_tumours(study.tumours, model, study.seed)
    for flag, file, wanted in (("imagenet", study.imagenet, "ResNet-18"), ("genesis", study.genesis, "Models Genesis")):
        parent = open_parent(Options(), PHASES[1], str(file)) if file else None
        found = parent.checkpoint if parent else None
        if found and found.get("name") != wanted:
            what = found["name"] if found["phase"] is None else f"a checkpoint of phase {found['phase']}"
            raise InputError(f"--{flag} {file} is {what}, and must be published weights of {wanted}.")
    for chain in chains:
        for training in chain:
            key = (training.model, training.phase)
            values = dict(study.values.get(key, {}))
            width = values.pop("width", None)
            widths.setdefault(training.out, width or WIDTH[training.model])
            if training.phase == TUMOURS:
                continue
            check_classes(study.data, patients, PHASES[training.phase])
            if training.init in [other.best for other in chain]:
                continue
            options = Options(
                data=study.data,
                out=training.out,
                model=training.model,
                width=width,
                seed=study.seed,
                device=study.device,
                precision=study.precision,
                resume=True,
                values=values,
            )
            about = set_up_run(options, training.phase, str(training.init)).about
            widths[training.out] = about["width"]
    return patients, about["grid"], widths


def show(
    study: Study,
    chains: Sequence[Sequence[Training]],
    not_run: Sequence[dict],
    patients: list[Patient],
    grid: tuple[int, int, int],
    widths: Mapping[Path, int],
) -> None:
    """Print a line for each training, with what it costs at most, and one for each row that cannot be had."""
    device = choose_device(study.device)
    print(f"Table 2 of {study.data}, in {study.out}. Timing the kinds of training on {device} ...", flush=True)
    total, timed = 0.0, {}
    lines = [["", "row", "from", "state", "at most", "python ..."]]
    for training in (training for chain in chains for training in chain):
        state, epochs = state_of(study, training)
        cost = "not timed" if training.phase == TUMOURS and state != "done" else "-"
        if epochs:
            phase = PHASES[training.phase]
            frozen = phase.freezes and training.init != "random"
            kind = (training.model, widths[training.out], phase.task == RESTORE, frozen, phase.attention)
            if kind not in timed:
                timed[kind] = seconds_a_hemisphere(phase, *kind[:2], grid, frozen, device, study.precision)
            seconds = timed[kind] * steps_of(patients, phase.task) * epochs
            cost, total = f"{_time(seconds)}, {epochs} epochs", total + seconds
        lines.append(
            [
                str(len(lines)),
                training.row,
                training.weights,
                state,
                cost,
                f"{program_of(training)} {shlex.join(map(str, words_of(study, training)))}",
            ]
        )
    lines += [
        ["-", f"{row['model'].upper()}, {POSITIVE[row['task']]}", row["weights"], "not run", "-", row["reason"]]
        for row in not_run
    ]
    print(aligned(lines), flush=True)
    if total:
        print(
            f"At most {_time(total)} of training on {device}, by a few steps timed just now; early stopping usually "
            "ends it sooner. Loading, drawing and the evaluation are not in it.",
            flush=True,
        )
    print(
        "The evaluation puts beside them the tissue clock and Lee 2020, fitted to the same training patients, and "
        "the readers of cohort.csv.",
        flush=True,
    )


def state_of(study: Study, training: Training) -> tuple[str, int]:
    """Return how far a training is, in words, and how many epochs it has left at most; of tumours that is not known."""
    if (training.folder / "curves.png").is_file() and training.best.is_file():  # what a training writes last
        return "done", 0
    log = training.folder / "log.csv"
    done = len(log.read_text(encoding="utf-8").splitlines()) - 1 if log.is_file() else 0
    state = f"epoch {done} done" if done else "to do"
    if training.phase == TUMOURS:
        return state, 0
    values = study.values.get((training.model, training.phase), {})
    return state, max(0, values.get("epochs", PHASES[training.phase].epochs) - done)


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
