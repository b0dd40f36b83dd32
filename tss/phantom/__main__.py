"""Make TSS-Phantom, a public benchmark of made-up patients, as raw scans with their cohort.csv, atlas and truth.

python -m tss.phantom middle --out phantom --jobs 2              422 patients; the same line continues
python -m tss.phantom score PREDICTIONS.csv --level middle       the row of anybody's method; needs no scans
python -m tss.phantom classroom --out classroom                  28 coarse patients for teaching
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tss
from tss.data.cohort import SPLITS
from tss.errors import exit_code
from tss.phantom import benchmark, classroom, scoring

NAME = "python -m tss.phantom"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        NAME,
        description=(__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="exit codes: 0 done, 2 wrong use or unusable input",
    )
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, help="what to do")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        return what.add_parser(
            name, help=words, description=words, allow_abbrev=False, formatter_class=parser.formatter_class
        )

    levels = [
        command(name, f"make TSS-Phantom where the FLAIR clock differs by {spread} (SD) between patients")
        for name, spread in benchmark.SPREADS.items()
    ]
    small = command("classroom", f"make {classroom.PATIENTS} coarse patients for teaching")
    for making in (*levels, small):
        making.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
        making.add_argument("--jobs", type=int, default=1, metavar="N", help="patients at a time, one core each")
    for making in levels:
        making.add_argument(
            "--patients",
            type=int,
            default=benchmark.PATIENTS,
            metavar="N",
            help="make only the first N; the folder can grow later",
        )
    score = command("score", "score anybody's predictions; needs no scans")
    score.add_argument(
        "predictions", type=Path, metavar="PREDICTIONS.csv", help="columns patient, probability, verdict"
    )
    score.add_argument("--level", choices=list(benchmark.SPREADS), required=True, help="of the patients predicted")
    score.add_argument("--task", choices=scoring.TIMED, default="tss<4.5h", help="what the probability is of")
    score.add_argument("--split", choices=list(SPLITS), default="test", help="whose row it is")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, make the patients or score predictions, return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.what == "score":
        row = partial(scoring.print_row, args.predictions, args.level, args.task, args.split)
        return exit_code(NAME, row, rerun="the same command")
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    if args.what == "classroom":
        make = partial(classroom.make_classroom, args.out, args.jobs)
        return exit_code(NAME, make, rerun="with an empty folder")
    make = partial(benchmark.make_benchmark, args.out, args.what, args.patients, args.jobs)
    return exit_code(NAME, make, rerun="the same command")


if __name__ == "__main__":
    sys.exit(main())
