"""The same scores for groups of patients: large and small lesions, time bands, sides, field strengths.

In:  patients of a split, the model's predictions and its threshold. Volume: the mask in cohort.csv's column `lesion`;
     field strength: the column `field_strength` (tesla), where there is one.
Out: Subgroups and their table. Scores with too few patients behind them are withheld, and say so.
Paper: none (what the literature says matters; 15 ml: Payabvash, J Neuroimaging jon.12407).
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
from tss.evaluation.results import Shares, Subgroup, with_interval
from tss.evaluation.scores import auc_of, counted_lines, labels_and_probabilities, shares_of
from tss.metrics import confusion

FEWEST = 5  # patients behind a score (of each class, for the AUC); our choice
WITHHELD = "withheld"
WHY_WITHHELD = (
    f"Withheld: fewer than {FEWEST} patients (for AUC and accuracy, of either class) are behind the number, or behind "
    "one that could be worked out from it."
)
UNREADABLE = "mask unreadable"
LARGE_ML = 15.0  # above it mismatch was 100 % specific (Payabvash, J Neuroimaging jon.12407)
BANDS_H = (3.0, 6.0)  # the band in which the scans leave most doubt


def lesion_volume(patient: Patient) -> str:
    """Return "up to 15 ml" or "over 15 ml"; "" where the table names no mask; or that its mask cannot be read."""
    path = patient.path("lesion")
    if not path:
        return ""
    try:
        mask = load(path, mask=True)
    except InputError:
        return UNREADABLE
    ml = float((mask.data > 0.5).sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000)
    return f"over {LARGE_ML:.0f} ml" if ml > LARGE_ML else f"up to {LARGE_ML:.0f} ml"


def time_band(patient: Patient) -> str:
    """Return in which band of BANDS_H a patient was scanned; "" where the onset is unknown."""
    if patient.minutes is None:
        return ""
    early, late = BANDS_H
    hours = patient.minutes / 60
    return f"0-{early:.0f} h" if hours < early else f"{early:.0f}-{late:.0f} h" if hours < late else f"{late:.0f} h on"


GROUPS: dict[str, Callable[[Patient], str]] = {
    "lesion": lesion_volume,
    "onset to MRI": time_band,
    "side": lambda patient: patient.side,
    "field strength": lambda patient: patient.row.get("field_strength", ""),
}


def score_subgroups(patients: Sequence[Patient], predictions: Sequence[Prediction], threshold: float) -> list[Subgroup]:
    """Return the scores of each group's cells.

    A group of which nothing is known has no cell; patients of whom a group's value is unknown are in its cell
    "unknown".
    """
    cells = []
    for group, value in GROUPS.items():
        values = {patient.id: value(patient) for patient in patients}
        if not any(values.values()):
            continue
        names = sorted(set(values.values()), key=lambda cell: (cell == "", cell))
        inside = [counted_lines([p for p in predictions if values[p.patient] == cell]) for cell in names]
        positives, negatives = ([sum(p.label == label for p in lines) for lines in inside] for label in (1, 0))
        hidden = [withheld(positives), withheld(negatives)]
        for number, (cell, lines) in enumerate(zip(names, inside, strict=True)):
            shown = [number not in which for which in hidden]
            cells.append(_score_cell(group, cell or "unknown", lines, shown, threshold))
    return cells


def withheld(behind: Sequence[int]) -> set[int]:
    """Return which cells of a group are withheld, by the number of patients behind each.

    Too few are behind one of fewer than FEWEST. From the score of all patients and of the other cells its own could be
    worked out, so cells are withheld, the smallest first, until two are and FEWEST patients are behind them together.
    """
    few = {number for number, n in enumerate(behind) if 0 < n < FEWEST}
    enough = sorted((number for number, n in enumerate(behind) if n >= FEWEST), key=behind.__getitem__)
    while few and enough and (len(few) < 2 or sum(behind[number] for number in few) < FEWEST):
        few.add(enough.pop(0))
    return few | {number for number, n in enumerate(behind) if n == 0}


def _score_cell(
    group: str, cell: str, lines: Sequence[Prediction], shown: Sequence[bool], threshold: float
) -> Subgroup:
    """Score a cell. shown: may the score of its positives, and of its negatives, be seen?

    AUC and accuracy are of both classes: with one of them, the other's would follow from accuracy.
    """
    y, p = labels_and_probabilities(lines)
    sensitivity, specificity, accuracy = shares_of(confusion(y, p, threshold)).values()
    seen = Shares(
        sensitivity if shown[0] else None, specificity if shown[1] else None, accuracy if all(shown) else None
    )
    auc = auc_of(lines) if all(shown) else None
    found = {"auc": auc} | dict(zip(("sensitivity", "specificity", "accuracy"), seen.values(), strict=True))
    missing = [name for name, estimate in found.items() if estimate is None]
    return Subgroup(
        group=group,
        cell=cell,
        n=len(y),
        n_positive=int(y.sum()),
        shares=seen,
        auc=auc,
        withheld=missing or None,
        reason=WITHHELD if missing else None,
    )


def subgroups_table(cells: Sequence[Subgroup]) -> str:
    """Return the subgroups as a table for the screen."""
    return aligned(subgroups_rows(cells)) + f"\n{WHY_WITHHELD}" * any(cell.withheld for cell in cells)


def subgroups_rows(cells: Sequence[Subgroup]) -> list[list[str]]:
    """Return the subgroups as rows of cells, the header first."""
    rows = [["group", "which", "n", "positive", "AUC [95% CI]", "sensitivity", "specificity", "accuracy"]]
    for cell in cells:
        estimates = [(cell.auc, 3), *((share, 2) for share in cell.shares.values())]
        shown = [with_interval(estimate, digits) if estimate else WITHHELD for estimate, digits in estimates]
        rows.append([cell.group, cell.cell, str(cell.n), str(cell.n_positive), *shown])
    return rows
