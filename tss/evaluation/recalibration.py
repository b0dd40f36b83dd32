"""Recalibrate a model at a site: new probabilities from the site's own labelled patients, in a file beside the model.

    python -m tss.evaluation.recalibration EVAL CKPT --site NAME
    python -m tss.evaluation.recalibration eval_other runs/2d/phase4/best.pt --site b --patients 50 --slope

In:  EVAL, the folder in which run_eval.py CKPT --data SITE_DATA left predictions.csv and metrics.json; the same CKPT,
     or several with --ensemble. What other patients of the site gain is printed, with an interval.
Out: best.NAME.json beside the checkpoint: intercept, slope, threshold, whom they are from, the gain. The checkpoint is
     never changed. To use it: run_eval.py CKPT --data SITE_DATA --recalibration FILE, which scores the others.
Paper: none (our choice; decision 20).
See: tests/evaluation/test_recalibration.py

A patient is called positive from the same calibrated probability on as at home: the threshold of validation is first
said in calibrated probabilities there (of an ensemble of folds it is, approximately: its own calibration is fitted to
out-of-fold scores of single members, and its answers are their mean). Exit code 0: done; 2: wrong use or
unusable input.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit as logit_of

import tss
from tss.data.cohort import Patient
from tss.data.files import read_json, write_json
from tss.data.shapes import Row, Within, why_not
from tss.data.tasks import TASKS
from tss.errors import InputError, exit_code
from tss.evaluation.ensemble import as_ensemble
from tss.evaluation.inference import Model, open_models
from tss.evaluation.predictions_table import PREDICTIONS
from tss.metrics.platt import Line, fit_line, gain_of_line
from tss.training.epoch import probability

NAME = "python -m tss.evaluation.recalibration"
FORMAT = "tss recalibration 1"
LEFT = {  # the shape of the file, as far as it is read
    "site": str, "checkpoint_sha256": str, "intercept": float, "slope": Within(1e-9, 1e9, float),
    "threshold": Within(0, 1, float), "patients": [str], "gain": float, "gain_ci": Row(float, float),
}  # fmt: skip
TINY = 1e-12  # a probability of exactly 0 or 1 has no logit


def main(argv: Sequence[str] | None = None) -> int:
    """Recalibrate; returns the exit code."""
    args = build_parser().parse_args(argv)
    return exit_code(NAME, lambda: recalibrate(args), rerun="the same command")


def build_parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(NAME, description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument(
        "eval", type=Path, metavar="EVAL", help="the folder that run_eval.py left of the site's patients"
    )
    parser.add_argument("checkpoints", nargs="+", metavar="CKPT", help="the checkpoint that EVAL is of")
    parser.add_argument("--site", required=True, help="a name for the file: letters, digits, - and _")
    parser.add_argument("--ensemble", action="store_true", help="the checkpoints are one model, as in EVAL")
    parser.add_argument(
        "--patients", type=int, metavar="N", help="take N of the labelled patients, at random; unset = all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of that choice (default: 0)")
    parser.add_argument("--slope", action="store_true", help="fit a slope too; from 100 patients on, say")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


def recalibrate(args: argparse.Namespace) -> int:
    """Fit, print what it gains, and write the file."""
    if not args.site.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--site {args.site!r} must be of letters, digits, - and _: it becomes part of a file's name.")
    opened = open_models(args.checkpoints)
    if len(opened) > 1 and not args.ensemble:
        raise InputError(
            f"{len(opened)} checkpoints are given: one model is recalibrated. Give one CKPT, or --ensemble."
        )
    model = as_ensemble(opened) if args.ensemble else opened[0]
    if TASKS[model.task] is None:
        raise InputError(
            f"{model.named_files} is of phase 1: a patient's two hemispheres are not independent, as the gain's "
            "interval supposes, and which one is likelier would stay the same. Recalibrate a network of a later phase."
        )
    metrics = read_json(args.eval / "metrics.json")
    if metrics.get("checkpoint_sha256") != model.sha256:
        raise InputError(
            f"{args.eval} is of another model than {model.named_files}. Give the checkpoint that it is of."
        )
    if metrics.get("recalibration"):
        raise InputError(f"{args.eval} was recalibrated already. Evaluate without --recalibration, then do this again.")
    lines = labelled(args.eval / PREDICTIONS)
    rng = np.random.default_rng(args.seed)
    if args.patients is not None:
        names = sorted({line["patient"] for line in lines})
        if not 1 <= args.patients <= len(names):
            raise InputError(
                f"--patients {args.patients}: {len(names)} have a label and a probability. Give 1 to so many."
            )
        chosen = {names[i] for i in rng.permutation(len(names))[: args.patients]}
        lines = [line for line in lines if line["patient"] in chosen]
    y = np.array([int(line["label"]) for line in lines])
    z = logit_of(np.array([float(line["probability"]) for line in lines]).clip(TINY, 1 - TINY))
    gain, line = gain_of_line(y, z, args.slope), fit_line(y, z, args.slope)
    if line.slope <= 0:
        raise InputError(
            f"of these {len(y)} patients the likelier are positive no more often (slope {line.slope:.2f}): there is "
            "nothing to recalibrate. Look at the scans, or take more patients."
        )
    asked = fit_line(y, z, slope=True)
    found = {
        "format": FORMAT,
        "site": args.site,
        "checkpoint_sha256": model.sha256,
        "intercept": line.intercept,
        "slope": line.slope,
        "threshold": calibrated_threshold(model),
        "n": len(y),
        "n_positive": int(y.sum()),
        "patients": sorted({each["patient"] for each in lines}),
        "calibration_before": {"intercept": fit_line(y, z, slope=False).intercept, "slope": asked.slope},
        "brier_before": gain.before,
        "brier_after": gain.after,
        "gain": gain.gain,
        "gain_ci": list(gain.ci),
    }
    print(gain_in_words(found), flush=True)
    path = model.path.with_name(f"{model.path.stem}.{args.site}.json")
    write_json(path, found)
    print(f"written to {path}; to use it: run_eval.py CKPT --data SITE_DATA --recalibration {path}", flush=True)
    return 0


def labelled(path: Path) -> list[dict[str, str]]:
    """Return the lines of predictions.csv that have a label and a probability."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [line for line in csv.DictReader(file) if line["label"] and line["probability"]]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Run run_eval.py on the site's patients first.") from error


def calibrated_threshold(model: Model) -> float:
    """Return the model's threshold as a probability that means what it says, by its own validation patients."""
    given = model.checkpoint["validation"]
    if model.files or not given.get("logits"):  # an ensemble is calibrated by its out-of-fold predictions
        return model.threshold
    line = fit_line(given["labels"], given["logits"], slope=True)
    return probability(line.of(logit_of(model.threshold))).item() if line.slope > 0 else model.threshold


def gain_in_words(found: dict[str, Any]) -> str:
    """Say what recalibration gains, and whether that is shown."""
    low, high = found["gain_ci"]
    before = found["calibration_before"]
    words = (
        f"site {found['site']}, {found['n']} labelled lines, {found['n_positive']} positive: the probabilities are off "
        f"by {before['intercept']:+.2f} (intercept, in logits; 0 = right), slope {before['slope']:.2f} (1 = right)\n"
        f"recalibrated, logit -> {found['intercept']:+.3f} + {found['slope']:.3f} * logit: Brier score of patients "
        f"left out {found['brier_before']:.4f} -> {found['brier_after']:.4f}, gain {found['gain']:+.4f} [{low:+.4f} to "
        f"{high:+.4f}] (95 %; in simulations it holds the gain at 93 to 96 of 100 sites, with little to gain or 20 "
        "patients at 97 to 99)"
    )
    if low <= 0:
        words += "\nNO GAIN IS SHOWN: the interval holds 0. Use the model as it is, or take more patients."
    return words


def recalibrated(model: Model, path: str) -> tuple[Model, list[str], str]:
    """Return the model with a site's probabilities and threshold, the patients that they are from, and what to say.

    Raises InputError: the file is of another model, or of another program, or damaged.
    """
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise InputError(f"{path} was not written by {NAME}, of this version. Make it again with it.")
    if why := why_not(found, LEFT):
        raise InputError(f"{path}: {why}. The file was changed or damaged. Make it again: {NAME}")
    if found["checkpoint_sha256"] != model.sha256:
        raise InputError(f"{path} recalibrates another model than {model.named_files}. Make one for this model: {NAME}")
    line = Line(found["intercept"], found["slope"]).after(model.line)
    low, high = found["gain_ci"]
    note = (
        f"Probabilities and threshold are recalibrated for the site {found['site']} on {len(found['patients'])} of its "
        f"patients, who are not scored; gain in the Brier score there {found['gain']:+.4f} [{low:+.4f} to {high:+.4f}]."
    )
    model = model._replace(line=line, checkpoint=model.checkpoint | {"threshold": found["threshold"]})
    return model, found["patients"], note


def without_those(patients: Sequence[Patient], used: Sequence[str]) -> list[Patient]:
    """Return the patients that recalibration has not seen. Raises InputError: there are none."""
    rest = [patient for patient in patients if patient.id not in used]
    if not rest:
        raise InputError(
            "all of these patients were recalibrated on: nothing is left to score. Omit --recalibration, or "
            "give others."
        )
    return rest


if __name__ == "__main__":
    sys.exit(main())
