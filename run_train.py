#!/usr/bin/env python3
"""Train the time-since-stroke classifier, phase by phase.

    python run_train.py --demo                                    the whole study on made-up patients
    python run_train.py --phase 1                                 stroke in this hemisphere? from random weights
    python run_train.py --phase 2 --init runs/2d/phase1/best.pt   TSS < 3 h, from phase 1
    python run_train.py --phase all --resume                      phases 1 to 4, or what is left of them
    python run_train.py --tumours tumours.csv                     medical weights, to compare phases 2 and 3 with
    python run_train.py --phase all --model 3d                    the 3D model: Models Genesis (phase 0), phases 1 to 4
    python run_train.py --study table2 --dry-run                  all rows of the paper's Table 2: what it would cost
    python run_train.py --study table2 --imagenet resnet18.pth    train them and write the table; again: continue

Reads the folder that run_preprocess.py makes, training and validation patients only. Leaves best.pt, last.pt,
log.csv, curves.png and settings.json in OUT/phase<N>, restored.png too in phase 0; --study in
OUT/<model>/<first weights>/phase<N>, and the table in OUT/eval. Exit code 0: done; 2: wrong use or unusable input.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tss.data.shards import read_shard
from tss.errors import InputError
from tss.training.phases import FROZEN, PHASES, schedule_in_words

GIVEN = argparse.SUPPRESS  # as default: the flag is in args only if the user gave it
DEMO_FLAGS = ("demo", "model", "out", "seed", "study", "patients")
STUDY_FLAGS = ("imagenet", "medical_2d", "medical_3d", "genesis", "shard", "dry_run")
OF_ONE_MODEL = {"imagenet": "2d", "medical_2d": "2d", "medical_3d": "3d", "genesis": "3d"}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_what_does_not_fit(parser, args)
    try:
        return (run_demo if args.demo else run_study if "study" in args else train)(args)
    except InputError as error:
        print(f"run_train.py: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_train.py: {error}. Check the folder given with --out.", file=sys.stderr)
    except KeyboardInterrupt:
        how = "" if args.demo or "study" in args else f" with --resume{' in place of --overwrite' * args.overwrite}"
        print(f"run_train.py: stopped. The same command{how} continues.", file=sys.stderr)
    return 2


def train(args: argparse.Namespace) -> int:
    """Train one phase, or all."""
    from tss.training.run_setup import options_from  # torch is loaded here, so that --help does not wait for it
    from tss.training.train import train_all, train_phase

    given = vars(args)
    phase, init = given.pop("phase"), given.pop("init", None)
    given.pop("demo")
    options = options_from(given)
    if phase == "all":
        train_all(options, init)
    else:
        train_phase(options, int(phase), init)
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Hand over to the demo, which calls the three scripts as a user would."""
    import run_eval
    import run_preprocess
    from tss.study import demo

    given = vars(args)
    scripts = {"preprocess": run_preprocess.main, "train": main, "evaluate": run_eval.main}
    if "study" in args:
        return demo.run_study(
            given.get("out", Path("demo-study")),
            models_of(args),
            args.seed,
            **scripts,
            patients=given.get("patients", demo.STUDY_PATIENTS),
        )
    return demo.run(given.get("out", Path("demo")), given.get("model", "2d"), args.seed, **scripts)


def run_study(args: argparse.Namespace) -> int:
    """Hand over to the study, which calls this script and run_eval.py as a user would."""
    import run_eval
    from tss.study.table2_study import TUMOURS, Study, run
    from tss.training.run_setup import PHASE_SETTINGS

    given = vars(args)
    values = {name: given[name] for name in ("width", *PHASE_SETTINGS) if name in given}
    asked = Study(
        args.data, given.get("out", Path("study")), models_of(args), given.get("imagenet"), given.get("genesis"),
        given.get("tumours"), {model: given[f"medical_{model}"] for model in FROZEN if f"medical_{model}" in given},
        args.seed, args.device, args.precision,
        {(model, number): {name: value for name, value in values.items() if name != "shift" or PHASES.get(number, PHASES[0]).shift}
         for model in FROZEN for number in (TUMOURS, *PHASES)},
    )  # fmt: skip
    return run(asked, train=main, evaluate=run_eval.main, shard=given.get("shard"), dry_run="dry_run" in args)


def models_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of network that a study is of."""
    return (args.model,) if "model" in args else tuple(FROZEN)


def build_parser() -> argparse.ArgumentParser:
    """All flags; a phase's values have the paper's as defaults, see the table at the end of --help."""
    parser = argparse.ArgumentParser(
        prog="run_train.py",
        description=__doc__,
        epilog=schedule_in_words(),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--phase",
        choices=[*map(str, PHASES), "all"],
        default=GIVEN,
        help="which phase of the table below; all = each of them, from the best of the one before",
    )
    what.add_argument(
        "--init",
        metavar="random|FILE",
        default=GIVEN,
        help="what to start from: the word random, a checkpoint of the phase before, or published "
        "weights of Models Genesis (3D) or ResNet-18 (2D); the first phase starts from random "
        "weights, the others must be told",
    )
    what.add_argument(
        "--tumours",
        type=Path,
        metavar="TUMOURS.csv",
        default=GIVEN,
        help="learn medical weights from scans of brain tumours, into OUT/tumours: their type (2D) or "
        "outline (3D); with --study for its medical rows",
    )
    what.add_argument(
        "--demo",
        action="store_true",
        help="make phantom patients, prepare them, train all phases at small scale and evaluate them; "
        "goes with --model, --out and --seed only",
    )
    what.add_argument(
        "--model",
        choices=list(FROZEN),
        default=GIVEN,
        help="kind of network; without it that of the checkpoint, else 3d for phase 0, 2d for the others",
    )
    what.add_argument(
        "--width",
        type=count,
        metavar="CHANNELS",
        default=GIVEN,
        help="channels of the first stage; without it that of the checkpoint, else the paper's: 64 (2D), 32 (3D)",
    )

    where = parser.add_argument_group("where")
    where.add_argument("--data", type=Path, default=Path("data"), help="the folder that run_preprocess.py made")
    where.add_argument(
        "--grid",
        type=count,
        nargs=3,
        metavar=("X", "Y", "Z"),
        default=GIVEN,
        help="with --tumours: voxels, as DATA has them; without it the paper's, 224 224 26",
    )
    where.add_argument(
        "--out",
        type=Path,
        default=GIVEN,
        help="folder for phase0 to phase4; without it runs/<model>, with --demo: demo, with --study: "
        "study, with both: demo-study",
    )
    where.add_argument(
        "--resume",
        action="store_true",
        help="continue from OUT/phase<N>/last.pt, to the same bits as if never stopped; starts where "
        "there is none, leaves finished phases alone, so a job script may always say it",
    )
    where.add_argument("--overwrite", action="store_true", help="train anew what OUT/phase<N> holds already")

    study = parser.add_argument_group("the whole Table 2")
    study.add_argument(
        "--study",
        choices=["table2"],
        default=GIVEN,
        help="train every row that can be had, 2D and 3D or that of --model, then evaluate and write "
        "the table; prints its plan and what each row costs first; with --demo on phantoms",
    )
    study.add_argument(
        "--imagenet",
        type=Path,
        metavar="FILE",
        default=GIVEN,
        help="torchvision's ResNet-18, for the ImageNet rows (2D)",
    )
    for model in FROZEN:
        study.add_argument(
            f"--medical-{model}",
            type=Path,
            metavar="FILE",
            default=GIVEN,
            help=f"weights for the medical rows ({model.upper()}), in the place of --tumours",
        )
    study.add_argument(
        "--genesis",
        type=Path,
        metavar="FILE",
        default=GIVEN,
        help="published weights of Models Genesis (3D), in the place of phase 0",
    )
    study.add_argument(
        "--shard",
        type=read_shard,
        metavar="I/N",
        default=GIVEN,
        help="train the I-th of N parts only, for Slurm arrays; the same line without it then evaluates",
    )
    study.add_argument("--dry-run", action="store_true", default=GIVEN, help="print the plan and stop")
    study.add_argument(
        "--patients",
        type=count,
        metavar="N",
        default=GIVEN,
        help="with --demo --study: so many phantom patients; without it 160",
    )

    how = parser.add_argument_group("how")
    how.add_argument("--seed", type=seed, default=0, help="of the first weights and of the order of hemispheres")
    how.add_argument(
        "--train-patients",
        type=count,
        metavar="N",
        default=GIVEN,
        help="learn from N of the training patients only, for learning curves: even in time band and "
        "side; of one --seed, fewer are always among more; say it in each phase",
    )
    how.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto = a GPU where there is one")
    how.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16 halves memory on GPUs; weights and loss stay in float32, and run_eval.py computes in "
        "it: logits then differ by some hundredths of their spread from those of validation",
    )
    how.add_argument("--epochs", type=count, default=GIVEN, help="at most so many, instead of the phase's")
    how.add_argument("--batch-size", type=count, default=GIVEN, help="hemispheres a step, instead of the phase's")
    how.add_argument("--lr", type=rate, default=GIVEN, help="AdaBound's first rate, instead of the phase's")
    how.add_argument("--final-lr", type=rate, default=GIVEN, help="AdaBound's last rate, instead of the phase's")
    how.add_argument(
        "--patience",
        type=count,
        default=GIVEN,
        help="stop after so many epochs without a higher validation AUC (phase 0: a lower error), instead "
        "of the phase's",
    )
    how.add_argument(
        "--shift",
        type=seed,
        metavar="CELLS",
        default=GIVEN,
        help="move training hemispheres by up to so many cells of 4 pixels, instead of by 1; 0 = not at "
        "all (phases 1 to 4)",
    )
    return parser


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults printed by argparse, line breaks as written."""


def refuse_what_does_not_fit(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program for flags that contradict each other."""
    refuse_studies_flags(parser, args)
    if args.demo:
        defaults = vars(parser.parse_args([]))
        alien = [
            name
            for name, value in vars(args).items()
            if name not in DEMO_FLAGS and (name not in defaults or value != defaults[name])
        ]
        if alien:
            parser.error(f"--demo decides by itself about --{alien[0].replace('_', '-')}: leave it away")
    elif not {"phase", "study", "tumours"} & set(vars(args)):
        parser.error("give --phase 0, 1, 2, 3, 4 or all, --tumours TUMOURS.csv, --study table2, or --demo")
    if "grid" in args and ("tumours" not in args or "study" in args):
        parser.error("--grid goes with --tumours alone: everything else has that of --data")
    if "tumours" in args and {"phase", "init"} & set(vars(args)):
        parser.error("--tumours learns from random weights, in no phase: leave --phase and --init away")
    if "train_patients" in args and "phase" not in args:
        parser.error("--train-patients goes with --phase only")
    if "shift" in args and (getattr(args, "phase", "") == "0" or "tumours" in args and "study" not in args):
        parser.error("--shift goes with phases 1 to 4: nothing else moves its hemispheres")
    if args.resume and args.overwrite:
        parser.error("--resume continues and --overwrite starts anew: give one of them")


def refuse_studies_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program for flags that a study does not have, and for a study's flags without one."""
    given = {name: f"--{name.replace('_', '-')}" for name in vars(args)}
    if "patients" in args and not (args.demo and "study" in args):
        parser.error("--patients goes with --demo --study table2 only")
    if "study" not in args:
        if alien := [given[name] for name in STUDY_FLAGS if name in given]:
            parser.error(f"{alien[0]} goes with --study table2 only")
        return
    if alien := [given[name] for name in ("phase", "init") if name in given] + ["--overwrite"] * args.overwrite:
        parser.error(f"--study decides by itself about {alien[0]}: leave it away")
    for name, model in OF_ONE_MODEL.items():
        if name in given and model not in models_of(args):
            parser.error(f"{given[name]} is for the {model} model, and this study is of --model {args.model}")
    if "tumours" in args and all(f"medical_{model}" in args for model in models_of(args)):
        parser.error("--tumours trains the weights that --medical-2d and --medical-3d give: leave one away")


def count(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return number


def seed(text: str) -> int:
    """A whole number from 0 that torch takes."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 2^63 - 1")
    return number


def rate(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
