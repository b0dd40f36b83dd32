"""Bring raw scans into one space: brain mask, registration, intensities, hemispheres (paper 2.1).

    python run_preprocess.py cohort.csv --out data
    python run_preprocess.py cohort.csv --out data --atlas mni_icbm152_t2_tal_nlin_sym_09a.nii --jobs 8
    python run_preprocess.py cohort.csv --out data --shard $SLURM_ARRAY_TASK_ID/20
    python run_preprocess.py bids_folder --out data
    python run_preprocess.py other_hospital.csv --out other --like runs/2d/phase4/best.pt --atlas atlas.nii

The same command continues an interrupted run: finished patients are skipped, failed ones are tried again.
Exit codes: 0 done, 1 some patients failed (the rest is complete), 2 wrong use or unusable input.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tss
from tss.data.shards import read_shard
from tss.errors import exit_code, print_in_any_encoding

if TYPE_CHECKING:
    from tss.preprocessing.pattern import Pattern


GIVEN = argparse.SUPPRESS  # as default: the flag is in args only if the user gave it
OF_THE_CHECKPOINT = ("tools", "grid", "reference", "seed")  # with --like


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
        "paths relative to the table; in the place of scans column dicom may name a folder of DICOM files, which "
        "dcm2niix converts where it is installed. Or a BIDS folder, or a folder with one of DICOM files a patient",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DATA", help="folder to write to")
    parser.add_argument(
        "--atlas", type=Path, metavar="FILE", help="T2w atlas in MNI152 space; unset = FSL's, where FSLDIR has one"
    )
    parser.add_argument(
        "--tools",
        choices=NAMES,
        default=GIVEN,
        help="who finds brain and affines (default: auto); auto = FSL where it is installed, else the suite's own "
        "(builtin); literal = FSL in the paper's literal order, to compare with: BET on b0 and, after "
        "registration, once more",
    )
    parser.add_argument(
        "--grid",
        type=int,
        nargs=3,
        default=GIVEN,
        metavar=("X", "Y", "Z"),
        help=f"voxels of the atlas grid; X even (default: {' '.join(map(str, GRID))})",
    )
    parser.add_argument(
        "--reference",
        metavar="PATIENT",
        default=GIVEN,
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
    parser.add_argument(
        "--like",
        type=Path,
        metavar="CKPT",
        help="prepare other patients than a checkpoint's own exactly as these were, another hospital's or new ones: "
        "grid, tools and reference intensities are the checkpoint's, and so must be the atlas. No split is drawn; "
        "onset and side may be unknown. Then: run_eval.py CKPT --data DATA",
    )
    parser.add_argument(
        "--qc-inline",
        action="store_true",
        help="qc/index.html holds its pictures and can be mailed; else they are the files beside it",
    )
    parser.add_argument("--overwrite", action="store_true", help="do every patient again, with new settings if any")
    parser.add_argument("--seed", type=int, default=GIVEN, help="of the split into train, val and test (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="check the table and say what would be done")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, preprocess, return the exit code."""
    print_in_any_encoding()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: --jobs shares the cores out, by patient
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    checkpoint = given.pop("like")
    if checkpoint and (idle := [name for name in OF_THE_CHECKPOINT if name in given]):
        parser.error(f"--{idle[0]} is the checkpoint's with --like: omit one")
    if given["jobs"] < 1:
        parser.error(f"--jobs {given['jobs']}: at least 1")
    if (grid := given.get("grid")) and min(grid) < 8:
        parser.error(f"--grid {' '.join(map(str, grid))}: at least 8 each")
    if given.get("seed", 0) < 0:
        parser.error(f"--seed {given['seed']}: 0 or more")

    from tss.data.prepared import GRID
    from tss.preprocessing.atlas import find_atlas
    from tss.preprocessing.cohort_run import Options, preprocess_cohort
    from tss.preprocessing.tools import find_tools

    dry_run = given.pop("dry_run")

    def work() -> int:
        given.update({"tools": given.get("tools", "auto"), "grid": tuple(given.get("grid", GRID))})
        if checkpoint:
            pattern = read_pattern(checkpoint)
            given.update({"pattern": pattern, "tools": pattern.tools, "grid": pattern.grid})
        given.update({"tools": find_tools(given["tools"]).name, "atlas": find_atlas(given["atlas"])})
        return preprocess_cohort(Options(**given), dry_run)

    rerun = "the same command without --overwrite" if given["overwrite"] else "the same command"
    return exit_code("run_preprocess.py", work, rerun)


def read_pattern(checkpoint: Path) -> "Pattern":
    """Return what a checkpoint says of how its patients were prepared, and of who they are."""
    from tss.data.files import sha256
    from tss.preprocessing.pattern import Pattern
    from tss.training.checkpoint import load_checkpoint  # torch is loaded for this alone

    content = load_checkpoint(checkpoint)
    settings = content["settings"].get("preprocessing", {})
    return Pattern(checkpoint, sha256(checkpoint), settings, content["patients_seen"])


if __name__ == "__main__":
    sys.exit(main())
