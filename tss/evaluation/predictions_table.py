"""Predictions as tables that one can act on: every patient's answer, and those without one, with the reason.

In:  Predictions of a network; the patients of the cohort, for the flags of their preprocessing.
Out: predictions.csv and without_prediction.csv; a line of the first for one new patient's result.json.
Paper: none (STARD 2015 asks what became of everybody; decision 13).
See: tests/evaluation/test_predictions_table.py
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tss.data.cohort import Patient
from tss.data.files import as_csv, write_text
from tss.evaluation.inference import Model, Prediction

PREDICTIONS, WITHOUT = NAMES = ("predictions.csv", "without_prediction.csv")
CUTS = ("negative_below", "positive_above")  # columns that a promise adds


def line_of(prediction: Prediction, model: Model, flags: str) -> dict[str, Any]:
    """Return a line of predictions.csv, column -> value; None where it is not known."""
    answered = prediction.probability is not None
    return {
        "patient": prediction.patient,
        "side": prediction.side,
        "side_from": prediction.side_from,
        "label": prediction.label if prediction.label >= 0 else None,
        "probability": prediction.probability,
        "threshold": model.threshold,
        **(dict(zip(CUTS, (model.cuts.lower, model.cuts.upper), strict=True)) if model.cuts else {}),
        "verdict": model.verdict(prediction.chance) if answered else None,
        "reason": prediction.reason,
        "flags": flags,
    }


def write_predictions(
    folder: Path, model: Model, predictions: Sequence[Prediction], patients: Sequence[Patient]
) -> None:
    """Write both tables; what is not known is an empty cell, and numbers have every digit."""
    of = {patient.id: patient for patient in patients}
    lines = [line_of(line, model, of[line.patient].row.get("flags", "")) for line in predictions]
    write_text(folder / PREDICTIONS, as_csv(lines))
    reasons = {line.patient: line.reason for line in predictions if line.probability is None}
    if reasons:
        whom = [(of[name], why) for name, why in reasons.items()]
        rows = [{"patient": p.id, "split": p.split, "status": p.status, "reason": why} for p, why in whom]
        write_text(folder / WITHOUT, as_csv(rows))
