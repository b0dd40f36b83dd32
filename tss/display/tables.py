"""Rows of cells as text in columns, for the screen; the paper's Table 1.

In:  rows of strings, the header first; patients of a cohort.
Out: one string, a line a row.
Paper: Table 1.
See: tests/display/test_tables.py
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tss.data.acquisition import COLUMNS
from tss.data.cohort import EXTERNAL, SPLITS, Patient, is_number
from tss.data.tasks import label_of


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as lines, each column as wide as its widest cell and two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def table1(patients: list[Patient]) -> str:
    """Return the paper's Table 1 of this cohort as text."""
    return aligned(table1_rows(patients))


def table1_rows(patients: list[Patient]) -> list[list[str]]:
    """Return the rows of the paper's Table 1, the header first: n (%) or median (interquartile range), by split."""
    groups = {"All": patients} | {name: [p for p in patients if p.split == name] for name in (*SPLITS, EXTERNAL)}
    groups = {name: group for name, group in groups.items() if group}

    def numbers(group: list[Patient], column: str) -> str:
        values = [float(p.row[column]) for p in group if is_number(p.row.get(column, ""))]
        if not values:
            return "-"
        quarter, half, three = np.percentile(values, [25, 50, 75])
        unknown = f", {len(group) - len(values)} unknown" if len(values) < len(group) else ""
        return f"{half:.0f} ({quarter:.0f}-{three:.0f}){unknown}"

    def values(group: list[Patient], column: str) -> str:
        cells = [p.row.get(column, "") for p in group]
        if sum(map(is_number, cells)) and column.endswith("_ms"):
            return numbers(group, column)
        return ", ".join(f"{value or 'unknown'} ({count})" for value, count in Counter(cells).most_common())

    def share(group: list[Patient], true: list[bool]) -> str:
        return f"{sum(true)} ({100 * sum(true) / len(group):.0f}%)"

    def shorter(group: list[Patient], task: str) -> str:
        if all(p.minutes is None for p in patients):
            return "-"
        return share(group, [label_of(p, task) == 1 for p in group])

    rows = {
        "Patients": lambda g: str(len(g)),
        "Age (years)": lambda g: numbers(g, "age"),
        "Female": lambda g: (
            share(g, [p.row.get("sex", "").lower() in ("f", "female") for p in g])
            if any(p.row.get("sex") for p in g)
            else "-"
        ),
        "NIHSS": lambda g: numbers(g, "nihss"),
        "Onset to MRI (min)": lambda g: numbers(g, "onset_to_mri_min"),
        "TSS < 3 h": lambda g: shorter(g, "tss<3h"),
        "TSS < 4.5 h": lambda g: shorter(g, "tss<4.5h"),
        "Side left/right/both/unknown": lambda g: "/".join(
            str(sum(p.side == s for p in g)) for s in ("left", "right", "both", "")
        ),
    }
    scanned = {column: words for column, words in COLUMNS.items() if any(p.row.get(column) for p in patients)}
    return (
        [["Table 1", *groups]]
        + [[name, *(cell(g) for g in groups.values())] for name, cell in rows.items()]
        + [[words, *(values(g, column) for g in groups.values())] for column, words in scanned.items()]
    )
