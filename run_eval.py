#!/usr/bin/env python3
"""Score checkpoints on the test patients, read the scans of one new patient, or check the figures of a publication.

    python run_eval.py runs/2d/phase4/best.pt                     one checkpoint, the test split of data/
    python run_eval.py runs/2d/phase*/best.pt --out eval          all phases, a folder each and one table
    python run_eval.py runs/2d/phase*/best.pt --table             and the paper's Table 2: table2.md, table2.csv
    python run_eval.py runs/2d/phase*/best.pt --report            all of it on one page: report.html
    python run_eval.py runs/2d/phase*/best.pt --gradcam-scores    and how much of its maps lies in the lesions
    python run_eval.py runs/2d/phase4/best.pt --patient dwi.nii.gz b0.nii.gz flair.nii.gz --atlas atlas_t2w.nii.gz
    python run_eval.py --audit table.csv                          which patients can be behind published figures

Leaves predictions.csv, metrics.json, roc.png and gradcam/<patient>.png in OUT (in OUT/<name> for each of several
checkpoints, and OUT/comparisons.json where two have the same task), or patient.json and gradcam/patient.png for a new
patient; --audit only prints. Exit code 0: done; 2: wrong use or unusable input.
"""

import argparse
import sys
from collections.abc import Sequence

from tss.data.cohort import SIDES, SPLITS
from tss.errors import InputError

GIVEN = argparse.SUPPRESS  # as default: the flag is in args only if the user gave it
FOR_A_COHORT = ("data", "split", "table", "study", "report", "gradcam-scores")
FOR_A_PATIENT = ("atlas", "adc", "side", "tools")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    refuse_what_does_not_fit(parser, args)
    try:
        if "audit" in args:
            audit_table(args)
        elif "patient" in args:
            read_patient(args)
        else:
            score_cohort(args)
        return 0
    except InputError as error:
        print(f"run_eval.py: {error}", file=sys.stderr)
    except OSError as error:
        print(f"run_eval.py: {error}. Check the folder given with --out.", file=sys.stderr)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; torch may not be loaded yet
        if "out of memory" not in str(error):
            raise
        print(f"run_eval.py: {str(error).splitlines()[0]} Ask for another GPU, or give --device cpu.", file=sys.stderr)
    except KeyboardInterrupt:
        print("run_eval.py: stopped. The same command with --overwrite starts again.", file=sys.stderr)
    return 2


def score_cohort(args: argparse.Namespace) -> None:
    """Score the checkpoints on a split and print the table."""
    from tss.evaluation.evaluate import evaluate  # torch is loaded here, so that --help does not wait for it
    from tss.evaluation.gradcam_overlap import overlap_table
    from tss.evaluation.readers import readers_table
    from tss.evaluation.scores import summary_table
    from tss.evaluation.subgroups import subgroups_table

    given = vars(args)
    results = evaluate(
        args.checkpoints,
        given.get("data", "data"),
        given.get("split", "test"),
        args.out,
        args.gradcam,
        args.device,
        args.overwrite,
        "table" in args,
        given.get("study"),
        "report" in args,
        "gradcam-scores" in args,
    )
    print("\n" + summary_table(results), flush=True)
    if overlaps := overlap_table(results):
        print("\n" + overlaps, flush=True)
    if readings := readers_table(results):
        print("\n" + readings, flush=True)
    if len(results) == 1 and "subgroups" in results[0]:  # of several they would bury the table; metrics.json has them
        print("\n" + subgroups_table(results[0]["subgroups"]), flush=True)


def read_patient(args: argparse.Namespace) -> None:
    """Prepare one patient's scans, predict and draw."""
    from tss.evaluation.new_patient import ScanFiles, read

    given = vars(args)
    scans = ScanFiles(*args.patient, second_is_adc="adc" in args)
    read(
        args.checkpoints,
        scans,
        args.atlas,
        args.out,
        given.get("side"),
        given.get("tools", "auto"),
        draw=args.gradcam > 0,
        device=args.device,
        overwrite=args.overwrite,
    )


def audit_table(args: argparse.Namespace) -> None:
    """Print which whole numbers give the figures of a table."""
    from tss.study.published_rows import audit

    print(audit(args.audit), flush=True)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_eval.py", description=__doc__, formatter_class=Formatter, allow_abbrev=False
    )
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CKPT",
        default=GIVEN,
        help="best.pt of a phase; phase 1's also finds the side of patients whose side is unknown, and "
        "is looked for at ../phase1/best.pt beside the others",
    )
    parser.add_argument("--out", default="eval", help="folder for the results")
    parser.add_argument(
        "--gradcam", type=count, default=4, metavar="N", help="draw the Grad-CAM of the first N patients; 0 = none"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto = a GPU where there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that OUT holds already")

    cohort = parser.add_argument_group("a cohort")
    cohort.add_argument("--data", default=GIVEN, help="the folder that run_preprocess.py made; without it data")
    cohort.add_argument(
        "--split",
        choices=list(SPLITS),
        default=GIVEN,
        help="which patients; without it test. The figures of train and val are optimistic",
    )
    cohort.add_argument(
        "--table",
        action="store_true",
        default=GIVEN,
        help="write Table 2 as table2.md and table2.csv: a row for each checkpoint, for the tissue "
        "clock and Lee 2020 (fitted to DATA's training patients), for each reader in cohort.csv",
    )
    cohort.add_argument(
        "--report",
        action="store_true",
        default=GIVEN,
        help="--table, and report.html: one page with all of it, patient flow, curves, limits and "
        "hashes, that needs no network and can be sent to a clinician",
    )
    cohort.add_argument(
        "--study",
        metavar="FILE",
        default=GIVEN,
        help="study.json of run_train.py --study: tells the table which rows were not run, and has "
        "what the paper makes claims about compared instead of every two checkpoints",
    )
    cohort.add_argument(
        "--gradcam-scores",
        dest="gradcam-scores",
        action="store_true",
        default=GIVEN,
        help="measure how much of every patient's Grad-CAM lies in the lesion mask, beside chance and "
        "an untrained network; costs three Grad-CAMs' time a patient",
    )

    patient = parser.add_argument_group("one new patient")
    patient.add_argument(
        "--patient",
        nargs=3,
        metavar=("DWI", "B0", "FLAIR"),
        default=GIVEN,
        help="the scans of a patient who is in no cohort, as NIfTI; --data is not needed. B0 is - "
        "where the DWI is a 4-D series with its .bval beside it",
    )
    patient.add_argument(
        "--atlas", metavar="FILE", default=GIVEN, help="the T2w atlas that the training patients were brought to"
    )
    patient.add_argument("--adc", action="store_true", default=GIVEN, help="the second scan is the ADC map, not b0")
    patient.add_argument(
        "--side",
        choices=SIDES,
        default=GIVEN,
        help="hemisphere with the stroke; without it phase 1's checkpoint chooses",
    )
    patient.add_argument(
        "--tools",
        choices=["auto", "fsl", "builtin"],
        default=GIVEN,
        help="brain mask and registration; without it auto: FSL where it is found",
    )

    figures = parser.add_argument_group("published figures")
    figures.add_argument(
        "--audit",
        metavar="TABLE",
        default=GIVEN,
        help="a CSV table: row, sensitivity, specificity as printed, and where known accuracy, n (82 "
        "or 70-90), n_positive, auc, and group (rows said to share a test set). Prints which "
        "numbers of patients give each row, and whether one test set fits a group",
    )
    return parser


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults printed by argparse, line breaks as written."""


def refuse_what_does_not_fit(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program for flags that have no meaning together."""
    if "audit" in args:
        changed = [
            name
            for name in ("out", "gradcam", "device", "overwrite")
            if getattr(args, name) != parser.get_default(name)
        ]
        if alien := [name for name in (*FOR_A_COHORT, "patient", *FOR_A_PATIENT) if name in args] + changed:
            parser.error(f"--{alien[0]} has no meaning with --audit TABLE")
        if "checkpoints" in args:
            parser.error(f"--audit is about one table and no checkpoint: leave {args.checkpoints[0]} away")
    elif "checkpoints" not in args:
        parser.error("the following arguments are required: CKPT")
    elif "patient" in args:
        if "atlas" not in args:
            parser.error("--patient needs --atlas FILE, the T2w atlas that the training patients were brought to")
        if "adc" in args and args.patient[1] == "-":
            parser.error("--adc says that the second scan is the ADC map, and - that there is none: leave one away")
        if alien := [name for name in FOR_A_COHORT if name in args]:
            parser.error(f"--{alien[0]} is about a cohort and --patient about one new patient: leave one away")
    elif alien := [name for name in FOR_A_PATIENT if name in args]:
        parser.error(f"--{alien[0]} goes with --patient DWI B0 FLAIR only")


def count(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
