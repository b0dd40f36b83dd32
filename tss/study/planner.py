"""How wide will the intervals be, and how many patients does a wanted width take?

    python -m tss.study.planner --positives 40 --negatives 42
    python -m tss.study.planner --positives 40 --negatives 42 --width 0.1 --promise 0.9

In:  how many patients are positive and negative; a wanted width.
Out: for expected AUCs the expected width of the 95 % interval, and the patients that the wanted width takes; the widths
     of sensitivity and specificity; the fewest calls that can show a promised PPV or NPV.
Paper: none (its test set has 82 patients).
See: tests/study/test_planner.py

The AUC's interval is DeLong's on the logit scale, expected where both classes' scores are normal and equally spread
(Bamber 1975), which networks' logits nearly are. Sensitivity and specificity have Wilson's.
"""

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
from scipy import special

import tss
from tss.display.tables import aligned
from tss.errors import InputError, exit_code
from tss.metrics.roc import logit_interval, wilson
from tss.metrics.unsure import fewest_to_promise

NAME = "python -m tss.study.planner"
AUCS = (0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
SHARES = (0.6, 0.7, 0.8, 0.9)  # sensitivities and specificities that are shown
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)  # for means over a standard normal
WEIGHTS = WEIGHTS / WEIGHTS.sum()
MOST = 1_000_000  # patients; a width that takes more is refused


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; returns the exit code."""
    args = build_parser().parse_args(argv)
    return exit_code(NAME, lambda: print(plan(args)), rerun="the same command")


def build_parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(NAME, description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("--positives", type=int, required=True, metavar="N", help="patients that are positive")
    parser.add_argument("--negatives", type=int, required=True, metavar="N", help="patients that are negative")
    parser.add_argument("--width", type=float, default=0.1, help="wanted width of the AUC's interval (default: 0.1)")
    parser.add_argument("--promise", type=float, default=0.9, help="PPV or NPV to be shown (default: 0.9)")
    parser.add_argument("--version", action="version", version=f"tss {tss.__version__}")
    return parser


def plan(args: argparse.Namespace) -> str:
    """Return the plan as text."""
    m, n = args.positives, args.negatives
    if m < 2 or n < 2:
        raise InputError(f"an interval needs two patients of each class, got {m} and {n}.")
    if not 0 < args.width < 1:
        raise InputError(f"--width {args.width} must lie between 0 and 1.")
    if not 0.5 <= args.promise < 1:
        raise InputError(f"--promise {args.promise} must lie in 0.5..1, below 1.")
    share = m / (m + n)
    table = [["expected AUC", "expected 95% interval", "width", f"patients for a width of {args.width:g}"]]
    for auc in AUCS:
        low, high = expected_interval(auc, m, n)
        needed = patients_for(auc, share, args.width)
        table.append(
            [
                f"{auc:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{high - low:.2f}",
                f"{needed} ({round(needed * share)} positive)",
            ]
        )
    shares = [["expected", f"sensitivity, n = {m}", f"specificity, n = {n}"]]
    for value in SHARES:
        intervals = (wilson(round(value * size), size) for size in (m, n))
        shares.append([f"{value:.1f}", *(f"{low:.2f} to {high:.2f}" for low, high in intervals)])
    fewest = fewest_to_promise(args.promise)
    return (
        f"{m + n} patients, {m} positive\n\n{aligned(table)}\n\n{aligned(shares)}\n\nTo promise PPV and NPV "
        f"{args.promise:g} (run_eval.py --promise {args.promise:g}) takes {fewest} patients called positive and "
        f"{fewest} called negative, all rightly, at the very least, among those whom the threshold is chosen on."
    )


def expected_interval(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the AUC's 95 % interval (tss.metrics.auc_ci) at DeLong's expected variance.

    Both classes are supposed to be normal and equally spread.
    """
    distance = math.sqrt(2) * special.ndtri(auc)
    # The chance that two positives beat one negative: the mean over negatives of (chance of one)^2; and conversely.
    both = float(WEIGHTS @ special.ndtr(distance - NODES) ** 2)
    above = both - auc**2
    variance = (auc * (1 - auc) + (positives - 1 + negatives - 1) * above) / (positives * negatives)
    return logit_interval(auc, variance)


def patients_for(auc: float, share: float, width: float) -> int:
    """Return the fewest patients, `share` of whom are positive, whose interval is as narrow as wanted."""

    def narrow(patients: int) -> bool:
        positives = max(2, round(share * patients))
        low, high = expected_interval(auc, positives, max(2, patients - positives))
        return high - low <= width

    if not narrow(MOST):
        raise InputError(f"a width of {width:g} takes more than {MOST} patients. Give a larger --width.")
    few, many = 4, MOST
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if narrow(middle) else (middle + 1, many)
    return few


if __name__ == "__main__":
    sys.exit(main())
