#!/usr/bin/env python3
"""Score checkpoints on the test patients, or read the scans of one new patient.

    python run_eval.py runs/2d/phase4/best.pt                     one checkpoint, the test split of data/
    python run_eval.py runs/2d/phase*/best.pt --out eval          all phases, a folder each and one table
    python run_eval.py runs/2d/phase*/best.pt --table             and the paper's Table 2: table2.md, table2.csv
    python run_eval.py runs/2d/phase*/best.pt --report            all of it on one page: report.html
    python run_eval.py runs/2d/phase*/best.pt --gradcam-scores    and how much of its maps lies in the lesions
    python run_eval.py runs/2d/fold*/phase4/best.pt --ensemble    all folds as one model
    python run_eval.py runs/2d/phase4/best.pt --promise 0.8       positive, negative or unsure, by a promised PPV, NPV
    python run_eval.py runs/2d/phase4/best.pt --data other        another hospital's, from run_preprocess.py --like
    python run_eval.py runs/2d/phase4/best.pt --patient dwi.nii.gz b0.nii.gz flair.nii.gz --atlas atlas_t2w.nii.gz
    python run_eval.py runs/2d/phase4/best.pt --patient dicom_folder --atlas atlas_t2w.nii.gz

Leaves predictions.csv, without_prediction.csv where patients have none, metrics.json, roc.png and
gradcam/<patient>.png in OUT (in OUT/<name> for each of several checkpoints, and OUT/comparisons.json where two have
the same task), or result.json and gradcam/patient.png for a new patient. Exit code 0: done; 2: wrong use or unusable
input.
"""

import argparse
import sys
from collections.abc import Sequence

import tss
from tss.data.cohort import EXTERNAL, SIDES, SPLITS
from tss.errors import exit_code, print_in_any_encoding
from tss.evaluation.options import Options, PatientOptions

GIVEN = argparse.SUPPRESS  # as default: the flag is in args only if the user gave it


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, return the exit code."""
    print_in_any_encoding()
    parser = build_parser()
    options = options_of(parser, parser.parse_args(argv))

    def work() -> None:
        # torch is loaded here, so that --help does not wait for it
        if isinstance(options, PatientOptions):
            from tss.evaluation.new_patient import read_patient

            read_patient(options)
        else:
            score_cohort(options)

    return exit_code("run_eval.py", work, "the same command with --overwrite")


def score_cohort(options: Options) -> None:
    """Score the checkpoints on a split and print the tables."""
    from tss.evaluation.evaluate import evaluate
    from tss.evaluation.gradcam_overlap import overlap_table
    from tss.evaluation.readers import readers_table
    from tss.evaluation.scores import summary_table
    from tss.evaluation.subgroups import subgroups_table

    results = evaluate(options)
    # The subgroups of several networks would bury the table; metrics.json has them.
    groups = subgroups_table(results[0].subgroups) if len(results) == 1 and results[0].subgroups else ""
    for text in (summary_table(results), overlap_table(results), readers_table(results), groups):
        if text:
            print("\n" + text, flush=True)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_eval.py", description=__doc__, formatter_class=Formatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CKPT",
        help="best.pt of a phase; phase 1's also finds the side of patients whose side is unknown, and "
        "is looked for at ../phase1/best.pt beside the others",
    )
    parser.add_argument("--out", default=Options.out, help="folder for the results")
    parser.add_argument(
        "--gradcam",
        type=count,
        default=Options.gradcam,
        metavar="N",
        help="draw the Grad-CAM of the first N patients; 0 = none",
    )
    parser.add_argument(
        "--device", default=Options.device, help="cpu, cuda, cuda:1, ...; auto = a GPU where there is one"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results that OUT holds already")

    parser.add_argument(
        "--ensemble",
        action="store_true",
        default=GIVEN,
        help="the checkpoints are one model, of folds (run_train.py --fold) or of several seeds: the mean of their "
        "logits; threshold and calibration come from what members say of patients that they were validated on: with "
        "folds all but the test patients",
    )
    parser.add_argument(
        "--promise",
        type=float,
        metavar="SHARE",
        default=GIVEN,
        help="PPV and NPV to keep, such as 0.9: whoever cannot be called so surely is unsure; the cuts come from "
        "validation and keep both in 90 %% of such studies; of an ensemble of folds they come from predictions of "
        "single members, and the promise is approximate",
    )
    parser.add_argument(
        "--recalibration",
        metavar="FILE",
        default=GIVEN,
        help="what python -m tss.evaluation.recalibration has left for this site beside the checkpoint",
    )

    cohort = parser.add_argument_group("a cohort")
    cohort.add_argument(
        "--data", default=GIVEN, help=f"the folder that run_preprocess.py made (default: {Options.data})"
    )
    cohort.add_argument(
        "--split",
        choices=[*SPLITS, EXTERNAL],
        default=GIVEN,
        help="which patients; the numbers of train and val are optimistic (default: test; of DATA that was prepared "
        "with --like, all: external)",
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
        "hashes, that needs no network and can be sent to a clinician; checklist.md: CLAIM 2024 and TRIPOD+AI, filled "
        "from the run's files; model-card.md",
    )
    cohort.add_argument(
        "--study",
        metavar="FILE",
        default=GIVEN,
        help="study.json of python -m tss.study table2: tells the table which rows were not run, and has "
        "what the paper makes claims about compared instead of every two checkpoints",
    )
    cohort.add_argument(
        "--gradcam-scores",
        action="store_true",
        default=GIVEN,
        help="measure how much of every patient's Grad-CAM lies in the lesion mask, beside chance and "
        "an untrained network; costs three Grad-CAMs' time a patient",
    )

    patient = parser.add_argument_group("one new patient")
    patient.add_argument(
        "--patient",
        nargs="+",
        metavar="SCAN",
        default=GIVEN,
        help="DWI B0 FLAIR: the scans of a patient who is in no cohort, as NIfTI; --data is not needed. B0 is - "
        "where the DWI is a 4-D series with its .bval beside it. Or the folder with the patient's DICOM files, where "
        "dcm2niix is installed",
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
        help=f"brain mask and registration; auto = FSL where it is found (default: {PatientOptions.tools})",
    )
    return parser


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults printed by argparse, line breaks as written."""


def options_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Options | PatientOptions:
    """Return the options; end the program for flags that the cohort, or the patient, has no use for."""
    given = vars(args)
    kind = PatientOptions if "patient" in given else Options
    if alien := [name.replace("_", "-") for name in given if name not in kind.__dataclass_fields__]:
        parser.error(
            f"--{alien[0]} is about a cohort and --patient about one new patient: omit one"
            if kind is PatientOptions
            else f"--{alien[0]} goes with --patient DWI B0 FLAIR only"
        )
    if kind is PatientOptions and "atlas" not in given:
        parser.error("--patient needs --atlas FILE, the T2w atlas that the training patients were brought to")
    if kind is PatientOptions and len(args.patient) not in (1, 3):
        parser.error(f"--patient takes DWI B0 FLAIR, or one folder of DICOM files: {len(args.patient)} given")
    if "adc" in given and len(args.patient) == 1:
        parser.error("--adc is about DWI ADC FLAIR: of DICOM files the headers say which is which")
    if "adc" in given and args.patient[1] == "-":
        parser.error("--adc says that the second scan is the ADC map, and - that there is none: omit one")
    return kind(**given)


def count(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
