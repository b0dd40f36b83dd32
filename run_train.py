#!/usr/bin/env python3
"""Train the time-since-stroke classifier, phase by phase.

    python run_train.py --demo                                    the whole study on made-up patients
    python run_train.py --phase 1                                 stroke in this hemisphere? from random weights
    python run_train.py --phase 2 --init runs/2d/phase1/best.pt   TSS < 3 h, from phase 1
    python run_train.py --phase all --resume                      phases 1 to 4, or what is left of them
    python run_train.py --phase all --model 3d                    the 3D model: Models Genesis (phase 0), phases 1 to 4

Reads the folder that run_preprocess.py makes, training and validation patients only. Leaves best.pt, last.pt,
log.csv, curves.png and settings.json in OUT/phase<N>, restored.png too in phase 0. Exit code 0: done;
2: wrong use or unusable input.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tss.files import InputError
from tss.phases import FROZEN, PHASES, describe

GIVEN = argparse.SUPPRESS  # as default: the flag is in args only if the user gave it
DEMO_FLAGS = ("demo", "model", "out", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_what_does_not_fit(parser, args)
    try:
        return run_demo(args) if args.demo else train(args)
    except InputError as error:
        print(f"run_train.py: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_train.py: {error}. Check the folder given with --out.", file=sys.stderr)
    except KeyboardInterrupt:
        print("run_train.py: stopped. The same command with --resume continues.", file=sys.stderr)
    return 2


def train(args: argparse.Namespace) -> int:
    """Train one phase, or all."""
    from tss.plan import VALUES, Job  # torch is loaded here, so that --help does not wait for it
    from tss.train import train_all, train_phase

    given = vars(args)
    job = Job(
        data=args.data, out=given.get("out"), model=given.get("model"), width=given.get("width"), seed=args.seed,
        device=args.device, precision=args.precision, resume=args.resume, overwrite=args.overwrite,
        train_patients=given.get("train_patients"), values={name: given[name] for name in VALUES if name in given},
    )  # fmt: skip
    if args.phase == "all":
        train_all(job, init=given.get("init"))
    else:
        train_phase(job, int(args.phase), init=given.get("init"))
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Hand over to the demo, which calls the three scripts as a user would."""
    import run_eval
    import run_preprocess
    from tss import demo

    given = vars(args)
    return demo.run(given.get("out", Path("demo")), given.get("model", "2d"), args.seed,
                    preprocess=run_preprocess.main, train=main, evaluate=run_eval.main)


def build_parser() -> argparse.ArgumentParser:
    """All flags; a phase's values have the paper's as defaults, see the table at the end of --help."""
    parser = argparse.ArgumentParser(
        prog="run_train.py",
        description=__doc__,
        epilog=describe(),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to train")
    what.add_argument("--phase", choices=[*map(str, PHASES), "all"], default=GIVEN,
                      help="which phase of the table below; all = each of them, from the best of the one before")
    what.add_argument("--init", metavar="random|FILE", default=GIVEN,
                      help="what to start from: the word random, a checkpoint of the phase before, or published "
                           "weights of Models Genesis (3D) or ResNet-18 (2D); the first phase starts from random "
                           "weights, the others must be told")
    what.add_argument("--demo", action="store_true",
                      help="make phantom patients, prepare them, train all phases at small scale and evaluate them; "
                           "goes with --model, --out and --seed only")
    what.add_argument("--model", choices=list(FROZEN), default=GIVEN,
                      help="kind of network; without it that of the checkpoint, else 3d for phase 0, 2d for the others")
    what.add_argument("--width", type=count, metavar="CHANNELS", default=GIVEN,
                      help="channels of the first stage; without it that of the checkpoint, else the paper's: 64 (2D), "
                           "32 (3D)")

    where = parser.add_argument_group("where")
    where.add_argument("--data", type=Path, default=Path("data"), help="the folder that run_preprocess.py made")
    where.add_argument("--out", type=Path, default=GIVEN,
                       help="folder for phase0 to phase4; without it runs/<model>, with --demo: demo")
    where.add_argument("--resume", action="store_true",
                       help="continue from OUT/phase<N>/last.pt, to the same bits as if never stopped; starts where "
                            "there is none, leaves finished phases alone, so a job script may always say it")
    where.add_argument("--overwrite", action="store_true", help="train anew what OUT/phase<N> holds already")

    how = parser.add_argument_group("how")
    how.add_argument("--seed", type=seed, default=0, help="of the first weights and of the order of hemispheres")
    how.add_argument("--train-patients", type=count, metavar="N", default=GIVEN,
                     help="learn from N of the training patients only, for learning curves: even in time band and "
                          "side; of one --seed, fewer are always among more; say it in each phase")
    how.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto = a GPU where there is one")
    how.add_argument("--precision", choices=["fp32", "bf16"], default="fp32",
                     help="bf16 halves memory on GPUs; weights and loss stay in float32")
    how.add_argument("--epochs", type=count, default=GIVEN, help="at most so many, instead of the phase's")
    how.add_argument("--batch-size", type=count, default=GIVEN, help="hemispheres a step, instead of the phase's")
    how.add_argument("--lr", type=rate, default=GIVEN, help="AdaBound's first rate, instead of the phase's")
    how.add_argument("--final-lr", type=rate, default=GIVEN, help="AdaBound's last rate, instead of the phase's")
    how.add_argument("--patience", type=count, default=GIVEN,
                     help="stop after so many epochs without a higher validation AUC (phase 0: a lower error), instead "
                          "of the phase's")
    return parser


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults printed by argparse, line breaks as written."""


def refuse_what_does_not_fit(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program for flags that contradict each other."""
    if args.demo:
        defaults = vars(parser.parse_args([]))
        alien = [name for name, value in vars(args).items()
                 if name not in DEMO_FLAGS and (name not in defaults or value != defaults[name])]
        if alien:
            parser.error(f"--demo decides by itself about --{alien[0].replace('_', '-')}: leave it away")
    elif "phase" not in args:
        parser.error("give --phase 0, 1, 2, 3, 4 or all, or --demo")
    if args.resume and args.overwrite:
        parser.error("--resume continues and --overwrite starts anew: give one of them")


def count(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return number


def seed(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return number


def rate(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
