"""The same figures for groups of patients: large and small lesions, time bands, sides, field strengths.

In:  patients of a split, the model's predictions and its threshold. Volume: the mask in cohort.csv's column `lesion`;
     field strength: the column `field_strength` (tesla), where there is one.
Out: plain dicts, ready for JSON, and their table. Figures with too few patients behind them are withheld, and say so.
Paper: none (FIELD 4.10: what the literature says matters; 15 ml: Payabvash).
See: tests/evaluation/test_subgroups.py

Groups are looked at after the fact and are small: their intervals are not corrected for how many there are.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tss.data.cohort import Patient
from tss.data.nifti import load
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation.inference import Prediction
from tss.evaluation.scores import labels_and_probabilities, proportions, with_interval
from tss.metrics import confusion, delong_ci, roc_auc

FEWEST = 5  # patients behind a figure (of each class, for the AUC); our choice
WITHHELD = f"n < {FEWEST}: withheld"
UNREADABLE = "mask unreadable"
LARGE_ML = 15.0  # FIELD 2b: mismatch was 100 % specific above it
BANDS_H = (3.0, 6.0)  # FIELD 4.10: the band in which the scans leave most doubt


def volume(patient: Patient) -> str:
    """ "up to 15 ml", "over 15 ml", "" where the table names no mask, or that the one it names cannot be read."""
    if not patient.path("lesion"):
        return ""
    try:
        mask = load(patient.path("lesion"), mask=True)
    except InputError:
        return UNREADABLE
    ml = float((mask.data > 0.5).sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000)
    return f"over {LARGE_ML:.0f} ml" if ml > LARGE_ML else f"up to {LARGE_ML:.0f} ml"


def band(patient: Patient) -> str:
    if patient.minutes is None:
        return ""
    early, late = BANDS_H
    hours = patient.minutes / 60
    return f"0-{early:.0f} h" if hours < early else f"{early:.0f}-{late:.0f} h" if hours < late else f"{late:.0f} h on"


GROUPS: dict[str, Callable[[Patient], str]] = {
    "lesion": volume,
    "onset to MRI": band,
    "side": lambda patient: patient.side,
    "field strength": lambda patient: patient.row.get("field_strength", ""),
}


def by_group(patients: Sequence[Patient], predictions: Sequence[Prediction], threshold: float) -> list[dict]:
    """Return a dict a cell: group, cell, n, n_positive and the figures with intervals, None where withheld.

    What nothing is known of has no cell; patients of whom a group's value is unknown are in its cell "unknown".
    """
    cells = []
    for group, value in GROUPS.items():
        values = {patient.id: value(patient) for patient in patients}
        if not any(values.values()):
            continue
        for cell in sorted(set(values.values()), key=lambda cell: (cell == "", cell)):
            inside = [line for line in predictions if values[line.patient] == cell]
            cells.append({"group": group, "cell": cell or "unknown"} | _figures(inside, threshold))
    return cells


def _figures(predictions: Sequence[Prediction], threshold: float) -> dict:
    y, p = labels_and_probabilities(predictions)
    positives, negatives = int(y.sum()), int((1 - y).sum())
    found = {"n": len(y), "n_positive": positives}
    tp, fp, tn, fn = confusion(y, p, threshold)
    figures = proportions(tp, fp, tn, fn)
    for name, behind in (("sensitivity", positives), ("specificity", negatives), ("accuracy", len(y))):
        shown = behind >= FEWEST
        found |= {name: figures[name] if shown else None, f"{name}_ci": figures[f"{name}_ci"] if shown else None}
    shown = min(positives, negatives) >= FEWEST
    found |= {"auc": roc_auc(y, p) if shown else None, "auc_ci": list(delong_ci(y, p)) if shown else None}
    withheld = [name for name in ("auc", "sensitivity", "specificity", "accuracy") if found[name] is None]
    return found | ({"withheld": withheld, "reason": WITHHELD} if withheld else {})


def subgroups_table(cells: Sequence[dict]) -> str:
    """Return what `by_group` found as a table for the screen."""
    return aligned(subgroups_rows(cells))


def subgroups_rows(cells: Sequence[dict]) -> list[list[str]]:
    """Return what `by_group` found as rows of cells, the header first."""
    rows = [["group", "", "n", "positive", "AUC [95% CI]", "sensitivity", "specificity", "accuracy"]]
    for cell in cells:
        shown = [
            WITHHELD if cell[name] is None else with_interval(cell, name, digits)
            for name, digits in (("auc", 3), ("sensitivity", 2), ("specificity", 2), ("accuracy", 2))
        ]
        rows.append([cell["group"], cell["cell"], str(cell["n"]), str(cell["n_positive"]), *shown])
    return rows
