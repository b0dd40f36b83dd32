"""Bring raw scans into one space: brain mask, registration, intensities, hemispheres (paper 2.1).

    python run_preprocess.py cohort.csv --out data
    python run_preprocess.py cohort.csv --out data --atlas mni_icbm152_t2_tal_nlin_sym_09a.nii --jobs 8
    python run_preprocess.py cohort.csv --out data --shard $SLURM_ARRAY_TASK_ID/20
    python run_preprocess.py bids_folder --out data

The same line continues an interrupted run: finished patients are skipped, failed ones are tried again.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "run_preprocess.py",
        description=__doc__.split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="exit codes: 0 done, 1 some patients failed (the rest is complete), 2 wrong use or unusable input",
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
        choices=("auto", "fsl", "builtin"),
        default="auto",
        help="who finds brain and affines; auto = FSL where it is installed, else the suite's own",
    )
    parser.add_argument(
        "--literal",
        action="store_true",
        help="FSL in the paper's literal order, to compare with: BET on b0 and, after registration, once more",
    )
    parser.add_argument(
        "--grid",
        type=int,
        nargs=3,
        default=(224, 224, 26),
        metavar=("X", "Y", "Z"),
        help="voxels of the atlas grid; X even",
    )
    parser.add_argument(
        "--reference",
        metavar="PATIENT",
        help="training patient whose histogram the others are matched to; "
        "unset = the first training patient that can be preprocessed",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="patients at a time, a core each")
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="do the I-th of N parts, for Slurm arrays; all parts write to one --out",
    )
    parser.add_argument("--overwrite", action="store_true", help="do every patient again, with new settings if any")
    parser.add_argument("--seed", type=int, default=0, help="of the split into train, val and test")
    parser.add_argument("--dry-run", action="store_true", help="check the table and say what would be done")
    return parser


def shard(text: str) -> tuple[int, int]:
    """Read I/N, 1 <= I <= N."""
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, for instance 3/20") from None
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text}: I counts from 1 to N")
    return part, parts


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    if min(args.grid) < 8 or args.grid[0] % 2:
        parser.error(f"--grid {' '.join(map(str, args.grid))}: at least 8 each, and X even (two equal hemispheres)")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: 0 or more")
    if args.literal and args.tools == "builtin":
        parser.error("--literal is the paper's order of FSL's programs: give --tools fsl with it, not builtin")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: --jobs shares the cores out, by patient

    from tss.errors import InputError
    from tss.preprocessing import cohort_run, pipeline

    try:
        tools = pipeline.find_tools("literal" if args.literal else args.tools)
        return cohort_run.run(
            cohort_run.Choices(
                args.cohort,
                args.out,
                pipeline.find_atlas(args.atlas),
                tools.__name__.removeprefix("tss."),
                tuple(args.grid),
                args.reference,
                args.jobs,
                args.shard,
                args.overwrite,
                args.seed,
            ),
            args.dry_run,
        )
    except InputError as error:
        print(f"run_preprocess.py: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_preprocess.py: {error}. Check who may read the scans and write to --out.", file=sys.stderr)
    except KeyboardInterrupt:
        how = ", without --overwrite," if args.overwrite else ""
        print(f"\nrun_preprocess.py: stopped. The same command{how} continues.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
