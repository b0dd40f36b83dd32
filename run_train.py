#!/usr/bin/env python3
"""Train the time-since-stroke classifier, phase by phase.

    python run_train.py --demo                                    the whole suite on made-up patients
    python run_train.py --phase 1                                 stroke in this hemisphere? from random weights
    python run_train.py --phase 2 --init runs/2d/phase1/best.pt   TSS < 3 h, from phase 1
    python run_train.py --phase all --resume                      phases 1 to 4, or what is left of them
    python run_train.py --phase all --model 3d                    the 3D model: Models Genesis (phase 0), phases 1 to 4
    python run_train.py --phase all --fold 1/5                    validates on the first of five folds

Reads the folder that run_preprocess.py makes, training and validation patients only. Leaves best.pt, last.pt,
log.csv, curves.png and settings.json in OUT/phase<N>, restored.png too in phase 0. Exit code 0: done; 2: wrong use or
unusable input. All rows of the paper's Table 2: python -m tss.study table2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tss.data.shards import read_shard
from tss.errors import exit_code
from tss.training.command_line import Parser, count
from tss.training.phases import PAPER, RECIPES, schedule_in_words

PROG = "run_train.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    demo = "--demo" in argv
    given = vars(build_parser(demo).parse_args(argv))
    rerun = "the same command" if demo else "the same command with --resume"
    return exit_code(PROG, lambda: run_demo(given) if demo else train(given), rerun)


def train(given: dict) -> int:
    """Train one phase, or all."""
    from tss.training.run_setup import options_from  # torch is loaded here, so that --help does not wait for it
    from tss.training.train import train_all, train_phase

    phase, init = given.pop("phase"), given.pop("init", None)
    options = options_from(given)
    if phase == "all":
        train_all(options, init)
    else:
        train_phase(options, int(phase), init)
    return 0


def run_demo(given: dict) -> int:
    """Hand over to the demo, which types the three scripts as a user would."""
    from tss.study import demo

    return demo.run(given.get("out", Path("demo")), given.get("model", "2d"), given["seed"])


def build_parser(demo: bool = False) -> argparse.ArgumentParser:
    """All flags; with --demo those that it takes. Defaults of a phase: the table in --help."""
    parser = Parser(PROG, __doc__, schedule_in_words())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--phase",
        choices=[*map(str, PAPER), "all"],
        help="which phase of the table below; all = each of them, from the best of the one before",
    )
    what.add_argument(
        "--demo",
        action="store_true",
        help="make phantom patients, preprocess them, train all phases at small scale and evaluate them; takes "
        "--model, --out and --seed only",
    )
    parser.add_network_flags(out="runs/<model>, with --demo: demo")
    if demo:
        return parser
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that run_preprocess.py made")
    parser.add_argument(
        "--init",
        metavar="random|FILE",
        help="what to start from: the word random, a checkpoint of the phase before, or published weights of Models "
        "Genesis (3D) or ResNet-18 (2D); unset = random weights in the first phase, the others must be told",
    )
    parser.add_argument(
        "--recipe",
        choices=list(RECIPES),
        help="paper: as literal as its text allows; extended: ours, phases 2 to 4 read where phase 1 finds the "
        "stroke; unset = that of the checkpoint, else paper",
    )
    parser.add_rerun_flags()
    parser.add_argument(
        "--fold",
        type=read_shard,
        metavar="K/N",
        help="validate on the K-th of N parts of all but the test patients, even in time band and side, and train on "
        "the others; DATA/folds_of_N.csv says who is where; give it in each phase; writes to runs/<model>/fold<K>",
    )
    parser.add_argument(
        "--train-patients",
        type=count,
        metavar="N",
        help="learn from N of the training patients only, for learning curves: even in time band and side; with one "
        "--seed, fewer are always among more; give it in each phase",
    )
    parser.add_training_flags()
    return parser


if __name__ == "__main__":
    sys.exit(main())
