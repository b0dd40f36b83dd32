"""Make TSS-Phantom, a public benchmark of made-up patients, as raw scans with their cohort.csv, atlas and truth.

    python -m tss.phantom middle --out phantom --jobs 2

The same line continues an interrupted run: finished patients are skipped.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tss
from tss.errors import exit_code
from tss.phantom import benchmark

NAME = "python -m tss.phantom"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        NAME,
        description=(__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="exit codes: 0 done, 2 wrong use or unusable input",
    )
    parser.add_argument(
        "level", choices=list(benchmark.SPREADS), help="how much the FLAIR clock differs between patients"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--patients",
        type=int,
        default=benchmark.PATIENTS,
        metavar="N",
        help="make only the first N; the folder can grow later",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="patients at a time, one core each")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, make the patients, return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    make = partial(benchmark.make_benchmark, args.out, args.level, args.patients, args.jobs)
    return exit_code(NAME, make, rerun="the same command")


if __name__ == "__main__":
    sys.exit(main())
