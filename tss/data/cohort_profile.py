"""What a cohort looks like in numbers, and in what another one differs: scanners, intensities, lesions, patients.

In:  Patients of DATA with their records.
Out: a Profile of plain values without any patient in it, which checkpoints carry; the differences of two.
Paper: Table 1, 2.1 (scanners); the comparison is ours (TRIPOD 2015 asks for it in external validation).
See: tests/data/test_cohort_profile.py
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from tss.data.acquisition import COLUMNS, MILLISECONDS
from tss.data.cohort import Patient, is_number
from tss.data.prepared import read_stored_record

SCANNER = (
    "site",
    "scanner",
    "vendor",
    "manufacturer",
    "model",
    "field_strength",
    "dwi_b",
    "b_values",
)  # columns, if there
NUMBERS = {  # of the table or of the patient's record
    "onset_to_mri_min": "onset to MRI, min",
    "age": "age, years",
    "nihss": "NIHSS",
    **{column: COLUMNS[column] for column in MILLISECONDS},
    "dwi_pixel_mm": "DWI, pixel, mm",
    "dwi_slice_mm": "DWI, slice to slice, mm",
    "flair_pixel_mm": "FLAIR, pixel, mm",
    "flair_slice_mm": "FLAIR, slice to slice, mm",
    "dwi_median": "DWI, healthy brain, scanner units",
    "t2w_median": "b0, healthy brain, scanner units",
    "flair_median": "FLAIR, healthy brain, scanner units",
    "t2w_over_dwi": "b0 over DWI, healthy brain",
    "dwi_top": "DWI, brightest 1 % of the brain over healthy brain",
    "flair_top": "FLAIR, brightest 1 % of the brain over healthy brain",
    "dwi_contrast": "DWI, lesion over its mirror image",
    "flair_contrast": "FLAIR, lesion over its mirror image",
}
PERCENTILES = (5, 25, 50, 75, 95)
MOST_VALUES = 12  # our choice: of a scanner column; one with more says nothing about scanners


class Numbers(TypedDict):
    n: int  # patients of whom it is known
    percentiles: list[float]  # PERCENTILES


class Profile(TypedDict):
    patients: int
    scanner: dict[str, dict[str, int]]  # column -> value -> patients
    numbers: dict[str, Numbers]  # one of NUMBERS -> its distribution


class Difference(NamedTuple):
    """One line of a comparison: what, in the training patients, here; does it lie outside what was seen in training?"""

    what: str
    training: str
    here: str
    outside: bool


def profile(data: str | os.PathLike, patients: Sequence[Patient]) -> Profile:
    """Describe patients by their rows and records; what is not known of anybody is left out."""
    values: dict[str, list[float]] = {name: [] for name in NUMBERS}
    for patient in patients:
        record = read_stored_record(data, patient.id)
        known = patient.row | record.get("acquired", {}) | record.get("measures", {})
        for name, found in values.items():
            if is_number(str(known.get(name, ""))):
                found.append(float(known[name]))
    counts = {name: Counter(patient.row.get(name) or "unknown" for patient in patients) for name in SCANNER}
    return {
        "patients": len(patients),
        "scanner": {
            name: dict(sorted(count.items()))
            for name, count in counts.items()
            if set(count) - {"unknown"} and len(count) <= MOST_VALUES
        },
        "numbers": {
            name: {"n": len(found), "percentiles": [round(float(p), 4) for p in np.percentile(found, PERCENTILES)]}
            for name, found in values.items()
            if found
        },
    }


def differences(training: Profile, here: Profile) -> list[Difference]:
    """Compare all that both know, or that one knows: scanners first."""
    lines = []
    for column in SCANNER:
        there, now = (one["scanner"].get(column, {}) for one in (training, here))
        if there or now:
            new = set(now) - set(there) - {"unknown"}
            lines.append(Difference(column.replace("_", " "), _counts(there), _counts(now), bool(there and new)))
    for name, words in NUMBERS.items():
        was, now_is = (one["numbers"].get(name) for one in (training, here))
        if was or now_is:
            beyond = bool(
                was and now_is and not was["percentiles"][0] <= now_is["percentiles"][2] <= was["percentiles"][-1]
            )
            lines.append(Difference(words, _spread(was), _spread(now_is), beyond))
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in counts.items()) or "-"


def _spread(numbers: Numbers | None) -> str:
    if numbers is None:
        return "-"
    low, quarter, half, three, high = numbers["percentiles"]
    return f"{half:.4g} ({quarter:.4g} to {three:.4g}; {low:.4g} to {high:.4g}), n = {numbers['n']}"
