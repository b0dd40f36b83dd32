"""Bring raw scans into one space: brain mask, registration, intensities, hemispheres (paper 2.1).

    python run_preprocess.py cohort.csv --out data
    python run_preprocess.py cohort.csv --out data --atlas mni_icbm152_t2_tal_nlin_sym_09a.nii --jobs 8
    python run_preprocess.py cohort.csv --out data --shard $SLURM_ARRAY_TASK_ID/20
    python run_preprocess.py bids_folder --out data

The same command continues an interrupted run: finished patients are skipped, failed ones are tried again.
Exit codes: 0 done, 1 some patients failed (the rest is complete), 2 wrong use or unusable input.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import tss
from tss.data.shards import read_shard
from tss.errors import InputError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and the flags' defaults."""


def build_parser() -> argparse.ArgumentParser:
    from tss.data.prepared import GRID
    from tss.preprocessing.tools import NAMES

    parser = argparse.ArgumentParser(
        "run_preprocess.py", description=__doc__, allow_abbrev=False, formatter_class=HelpFormatter
    )
    parser.add_argument(
        "cohort",
        type=Path,
        metavar="COHORT_CSV",
        help="table with patient, dwi, flair, b0 or adc, onset_to_mri_min, stroke_side; "
        "paths relative to the table. Or a BIDS folder",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DATA", help="folder to write to")
    parser.add_argument(
        "--atlas", type=Path, metavar="FILE", help="T2w atlas in MNI152 space; unset = FSL's, where FSLDIR has one"
    )
    parser.add_argument(
        "--tools",
        choices=NAMES,
        default="auto",
        help="who finds brain and affines; auto = FSL where it is installed, else the suite's own (builtin); "
        "literal = FSL in the paper's literal order, to compare with: BET on b0 and, after registration, once more",
    )
    parser.add_argument(
        "--grid", type=int, nargs=3, default=GRID, metavar=("X", "Y", "Z"), help="voxels of the atlas grid; X even"
    )
    parser.add_argument(
        "--reference",
        metavar="PATIENT",
        help="training patient whose histogram the others are matched to; "
        "unset = the first training patient that can be preprocessed",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="patients at a time, one core each")
    parser.add_argument(
        "--shard",
        type=read_shard,
        default="1/1",
        metavar="I/N",
        help="do the I-th of N parts, for Slurm arrays; all parts write to one --out",
    )
    parser.add_argument("--overwrite", action="store_true", help="do every patient again, with new settings if any")
    parser.add_argument("--seed", type=int, default=0, help="of the split into train, val and test")
    parser.add_argument("--dry-run", action="store_true", help="check the table and say what would be done")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, preprocess, return the exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: --jobs shares the cores out, by patient
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    if min(args.grid) < 8:
        parser.error(f"--grid {' '.join(map(str, args.grid))}: at least 8 each")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: 0 or more")

    from tss.preprocessing.atlas import find_atlas
    from tss.preprocessing.cohort_run import Options, preprocess_cohort
    from tss.preprocessing.tools import find_tools

    try:
        given = vars(args) | {"tools": find_tools(args.tools).name, "grid": tuple(args.grid)}
        dry_run = given.pop("dry_run")
        return preprocess_cohort(Options(**given | {"atlas": find_atlas(args.atlas)}), dry_run)
    except InputError as error:
        print(f"run_preprocess.py: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_preprocess.py: {error}. Check who may read the scans and write to --out.", file=sys.stderr)
    except KeyboardInterrupt:
        how = ", without --overwrite," if args.overwrite else ""
        print(f"\nrun_preprocess.py: interrupted. The same command{how} continues.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
