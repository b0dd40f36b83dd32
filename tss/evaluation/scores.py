"""What predictions are worth: figures with their intervals, who is behind them, and a table for the screen.

In:  Predictions, and the threshold that validation chose.
Out: plain dicts, ready for JSON; what has no answer is None, with the reason beside it.
Paper: 3, Table 2; the intervals, the counts and the coverage are ours (FIELD 4.1, 4.4).
See: tests/evaluation/test_scores.py
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from tss.data.tasks import POSITIVE
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation.inference import Prediction
from tss.metrics import (
    bootstrap_ci,
    brier,
    brier_ci,
    calibration_curve,
    confusion,
    decision_curve,
    delong_ci,
    roc_auc,
    roc_curve,
    wilson,
    youden_threshold,
)


def score(predictions: list[Prediction], threshold: float) -> dict:
    """Return AUC, sensitivity, specificity and accuracy with 95 % intervals, the ROC curve, and what tss.metrics.calibration
    judges; what has no answer is None, with why."""
    y, p = labels_and_probabilities(predictions)
    positives = int(y.sum())
    tp, fp, tn, fn = confusion(y, p, threshold)
    metrics = {
        "n": len(y),
        "n_positive": positives,
        "cases_sha256": cases_hash(predictions),
        "auc": None,
        "auc_ci": None,
    }
    if 0 < positives < len(y):
        metrics |= {"auc": roc_auc(y, p), "auc_ci": list(auc_interval(y, p, predictions))}
        if metrics["auc"] in (0.0, 1.0):
            metrics["auc_reason"] = "a perfect AUC is given no width: its interval ignores the sample's size"
    else:
        metrics["auc_reason"] = f"no AUC: it needs both classes, and {positives} of {len(y)} are positive"
    metrics |= proportions(tp, fp, tn, fn) | {
        "threshold": threshold,
        "threshold_from": "validation",
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }
    if len(y):
        metrics |= {
            "brier": brier(y, p),
            "brier_ci": list(brier_ci(y, p)),
            "calibration": [point._asdict() for point in calibration_curve(y, p)],
            "decision_curve": [point._asdict() for point in decision_curve(y, p)],
        }
    if metrics["auc"] is not None:
        best, curve = youden_threshold(y, p), roc_curve(y, p)
        metrics["roc"] = {"false_positive_rate": curve[0].tolist(), "true_positive_rate": curve[1].tolist()}
        metrics["youden_on_this_split_optimistic"] = {"threshold": best} | proportions(*confusion(y, p, best))
    return metrics


def auc_interval(y: np.ndarray, p: np.ndarray, predictions: list[Prediction]) -> tuple[float, float]:
    """Return the AUC's 95 % interval: DeLong's, or where patients have two lines each the bootstrap's by patient.

    DeLong's is of independent cases. A patient's two hemispheres share the scanner and the brain, and mostly one of
    them is positive and the other is not: what moves both moves the AUC less than DeLong supposes.

    y, p: labels and probabilities (n,) of the predictions that have both.
    """
    patients = [line.patient for line in counted_lines(predictions)]
    if len(set(patients)) == len(patients) or min(y.sum(), len(y) - y.sum()) < 2:
        return delong_ci(y, p)
    try:
        return bootstrap_ci(lambda lines: roc_auc(y[lines], p[lines]), patients, np.random.default_rng(0))
    except InputError:  # too few patients: nothing is ruled out
        return 0.0, 1.0


def counted_lines(predictions: list[Prediction]) -> list[Prediction]:
    """Return the lines that figures are of: their label is known and they have a probability."""
    return [line for line in predictions if line.label >= 0 and line.probability is not None]


def labels_and_probabilities(predictions: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Return y (n,) and p (n,) of the lines that have both."""
    counted = counted_lines(predictions)
    return np.array([line.label for line in counted]), np.array([line.probability for line in counted])


def cases_hash(predictions: list[Prediction]) -> str:
    """Return the SHA-256 of the cases that the figures are of and their labels: equal hashes, same test set.

    A TSS line is its patient; the side, which phase 1 may have chosen, is part of the case in task "stroke" alone.
    """
    counted = counted_lines(predictions)
    twice = len({line.patient for line in counted}) < len(counted)
    cases = sorted(f"{line.patient},{line.side if twice else ''},{line.label}\n" for line in counted)
    return hashlib.sha256("".join(cases).encode()).hexdigest()


def proportions(tp: int, fp: int, tn: int, fn: int) -> dict:
    """Return sensitivity, specificity and accuracy, each with its Wilson interval; None where nobody is counted."""
    parts = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "accuracy": (tp + tn, tp + fp + tn + fn)}
    return {
        key: value
        for name, (k, n) in parts.items()
        for key, value in ((name, k / n if n else None), (f"{name}_ci", list(wilson(k, n)) if n else None))
    }


def coverage(predictions: list[Prediction]) -> dict:
    """Return who is and who is not behind the figures, and why."""

    def who(lines: list[Prediction]) -> list[str]:
        return list(dict.fromkeys(line.patient for line in lines))

    without = [line for line in predictions if line.probability is None]
    return {
        "coverage": {
            "patients": len(who(predictions)),
            "scored": len(who([p for p in predictions if p.label >= 0 and p.probability is not None])),
            "no_probability": {line.patient: line.remark for line in without},
            "label_unknown": who([p for p in predictions if p.label < 0 and p.probability is not None]),
            "side_chosen_by_phase_1": who([p for p in predictions if p.remark and p.probability is not None]),
        }
    }


def coverage_line(metrics: dict) -> str:
    covered = metrics["coverage"]
    parts = [f"{covered['scored']} of {covered['patients']} patients scored"]
    parts += [f"{len(covered['label_unknown'])} predicted without a known label"] * bool(covered["label_unknown"])
    parts += [f"{patient} has no probability ({why})" for patient, why in covered["no_probability"].items()]
    return "; ".join(parts)


def summary_table(results: Sequence[dict]) -> str:
    """Return a line a checkpoint, for the screen.

    results: as `evaluate` returns them; those of phantoms have the best reachable AUC beside theirs.
    """
    phantoms = any("ceiling" in metrics for metrics in results)
    head = [
        "",
        "positive class",
        "n",
        "positive",
        "AUC [95% CI]",
        *["ceiling"] * phantoms,
        "sensitivity",
        "specificity",
        "accuracy",
        "threshold",
    ]
    rows = [head]
    for metrics in results:
        ceiling = [f"{metrics['ceiling']:.3f}" if "ceiling" in metrics else "-"] * phantoms
        rows.append(
            [
                metrics["name"],
                POSITIVE[metrics["task"]],
                str(metrics["n"]),
                str(metrics["n_positive"]),
                with_interval(metrics, "auc", 3),
                *ceiling,
                *(with_interval(metrics, name, 2) for name in ("sensitivity", "specificity", "accuracy")),
                f"{metrics['threshold']:.3f}",
            ]
        )
    lines = [aligned(rows)]
    lines += [f"{metrics['name']}: {metrics['auc_reason']}." for metrics in results if "auc_reason" in metrics]
    for metrics in results:
        if best := metrics.get("youden_on_this_split_optimistic"):
            lines.append(
                f"{metrics['name']}: with the best threshold for this very split, {best['threshold']:.3f}, it "
                f"would be {best['sensitivity']:.2f}, {best['specificity']:.2f}, {best['accuracy']:.2f} "
                "(optimistic: chosen on the answers)."
            )
    notes = [note for metrics in results for note in metrics["notes"]]
    return "\n".join(lines + list(dict.fromkeys(notes)))


def p_text(pvalue: float) -> str:
    """A p-value with three digits; a very small one is not written as zero."""
    return f"{pvalue:.3f}" if pvalue >= 0.001 else "<0.001"


def with_interval(metrics: dict, name: str, digits: int) -> str:
    if metrics[name] is None:
        return "-"
    low, high = metrics[f"{name}_ci"]
    return f"{metrics[name]:.{digits}f} [{low:.2f}-{high:.2f}]"
