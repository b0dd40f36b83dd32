"""All rows of the paper's Table 2 from one command, trained and evaluated.

    python -m tss.study table2 --data data --dry-run                    the plan, and what it would cost
    python -m tss.study table2 --data data --imagenet resnet18.pth      train and write the table; again: continue
    python -m tss.study table2 --data data --shard $SLURM_ARRAY_TASK_ID/7
    python -m tss.study table2 --demo                                   on made-up patients

In:  DATA as run_preprocess.py leaves it; weights, or scans of tumours, to compare the phases with.
Out: OUT/<model>/<first weights>/phase<N>, and the table in OUT/eval. Exit code 0: done; 2: wrong use or unusable input.
Paper: Table 2.
See: tests/study/test_table2_study.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tss.data.shards import read_shard
from tss.errors import exit_code
from tss.study import demo
from tss.study.table2_study import Study, run_study
from tss.training.command_line import Parser, count
from tss.training.phases import FROZEN, PAPER, RECIPES
from tss.training.run_setup import PHASE_SETTINGS

PROG = "python -m tss.study"
AS_TYPED = ("data", "imagenet", "genesis", "tumours", "folds", "seed", "device", "precision")  # fields of a Study
OF_ONE_MODEL = {"imagenet": "2d", "medical_2d": "2d", "medical_3d": "3d", "genesis": "3d"}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, evaluate, return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    on_phantoms = "--demo" in argv
    parser = build_parser(on_phantoms)
    given = vars(parser.parse_args(argv))
    refuse_combinations(parser, given)
    work = study_of_phantoms if on_phantoms else study_of_patients
    return exit_code(PROG, lambda: work(given), rerun="the same command")


def study_of_phantoms(given: dict[str, Any]) -> int:
    return demo.run_table2(given.get("out", Path("demo-study")), models_of(given), given["seed"], given["patients"])


def study_of_patients(given: dict[str, Any]) -> int:
    values = {name: given[name] for name in ("width", *PHASE_SETTINGS) if name in given}
    without_stopping = {name: value for name, value in values.items() if name != "patience"}
    study = Study(
        out=given.get("out", Path("study")),
        models=models_of(given),
        medical={model: given[f"medical_{model}"] for model in FROZEN if f"medical_{model}" in given},
        values={
            (recipe, model, number): values if recipe == "paper" else without_stopping
            for recipe in RECIPES
            for model in FROZEN
            for number in (None, *PAPER)
        },
        **{name: given[name] for name in AS_TYPED if name in given},
    )
    return run_study(study, given.get("shard"), "dry_run" in given)


def models_of(given: dict[str, Any]) -> tuple[str, ...]:
    """The kinds of network that a study is about."""
    return (given["model"],) if "model" in given else tuple(FROZEN)


def refuse_combinations(parser: argparse.ArgumentParser, given: dict[str, Any]) -> None:
    """End the program for weights that no row of the study can start from."""
    for name, model in OF_ONE_MODEL.items():
        if name in given and model not in models_of(given):
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag} is for {model} networks, and this study is of --model {given['model']}")
    if given.get("folds", 2) < 2:
        parser.error(f"--folds {given['folds']}: an ensemble has two members or more")
    if "tumours" in given and all(f"medical_{model}" in given for model in models_of(given)):
        parser.error("--tumours trains the weights that --medical-2d and --medical-3d give: omit one of them")


def build_parser(on_phantoms: bool = False) -> argparse.ArgumentParser:
    """All flags; with --demo those that it takes."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("table", choices=["table2"], help="the table of the paper")
    parser.add_argument(
        "--demo",
        action="store_true",
        help="make phantom patients and train on them; takes --model, --out, --seed and --patients only",
    )
    parser.add_network_flags(out="study, with --demo: demo-study")
    if on_phantoms:
        default = demo.STUDY_PATIENTS
        parser.add_argument("--patients", type=count, metavar="N", default=default, help="number of phantom patients")
        return parser
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that run_preprocess.py made")
    parser.add_argument("--imagenet", type=Path, metavar="FILE", help="torchvision's ResNet-18, for the ImageNet rows")
    parser.add_argument(
        "--tumours", type=Path, metavar="TUMOURS.csv", help="scans of brain tumours, for the medical rows"
    )
    for model in FROZEN:
        parser.add_argument(
            f"--medical-{model}",
            type=Path,
            metavar="FILE",
            help=f"weights for the medical rows ({model.upper()}), in place of --tumours",
        )
    parser.add_argument(
        "--genesis", type=Path, metavar="FILE", help="published weights of Models Genesis, in place of phase 0 (3D)"
    )
    parser.add_argument(
        "--shard",
        type=read_shard,
        metavar="I/N",
        help="train the I-th of N parts only, for Slurm arrays; the same line without it then evaluates",
    )
    parser.add_argument(
        "--folds",
        type=count,
        metavar="N",
        help="train the paper's recipe on each of N folds too, for the row of their ensemble; takes N times as long as "
        "its four phases",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_training_flags()
    return parser


if __name__ == "__main__":
    sys.exit(main())
