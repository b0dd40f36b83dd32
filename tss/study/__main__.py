"""All rows of the paper's Table 2 from one command, trained and evaluated.

    python -m tss.study table2 --data data --dry-run                    the plan, and what it would cost
    python -m tss.study table2 --data data --imagenet resnet18.pth      train them and write the table; again: continue
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

from tss.data.shards import read_shard
from tss.study import demo, table2_study
from tss.training.command_line import add_network_flags, add_training_flags, count, exit_code, new_parser
from tss.training.phases import FROZEN, PHASES
from tss.training.run_setup import options_from

PROG = "python -m tss.study"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, evaluate, return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    on_phantoms = "--demo" in argv
    given = vars(build_parser(on_phantoms).parse_args(argv))
    work = study_of_phantoms if on_phantoms else study_of_patients
    return exit_code(PROG, lambda: work(given), rerun="the same command")


def study_of_phantoms(given: dict) -> int:
    return demo.run_study(given.get("out", Path("demo-study")), models_of(given), given["seed"], given["patients"])


def study_of_patients(given: dict) -> int:
    names = ("width", "device", "precision", "seed", "epochs", "batch_size", "lr", "final_lr", "patience")
    options = options_from({name: given[name] for name in names if name in given})
    values = dict(options.values) | ({"width": options.width} if options.width else {})
    study = table2_study.Study(
        given["data"],
        given.get("out", Path("study")),
        models_of(given),
        given.get("imagenet"),
        given.get("genesis"),
        given.get("tumours"),
        {model: given[f"medical_{model}"] for model in FROZEN if f"medical_{model}" in given},
        options.seed,
        options.device,
        options.precision,
        {(model, number): values for model in FROZEN for number in (table2_study.TUMOURS, *PHASES)},
    )
    return table2_study.run(study, given.get("shard"), dry_run="dry_run" in given)


def models_of(given: dict) -> tuple[str, ...]:
    """The kinds of network that a study is of."""
    return (given["model"],) if "model" in given else tuple(FROZEN)


def build_parser(on_phantoms: bool = False) -> argparse.ArgumentParser:
    """All flags; with --demo those that it takes."""
    parser = new_parser(PROG, __doc__)
    parser.add_argument("table", choices=["table2"], help="the table of the paper")
    parser.add_argument(
        "--demo",
        action="store_true",
        help="make phantom patients and train on them; takes --model, --out, --seed and --patients only",
    )
    add_network_flags(parser, out="study, with --demo: demo-study")
    if on_phantoms:
        default = demo.STUDY_PATIENTS
        parser.add_argument("--patients", type=count, metavar="N", default=default, help="so many phantom patients")
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
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_training_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
