"""How a patient was scanned, as the JSON files say that converters leave beside scans: columns of the cohort.

In:  sidecars of DWI and FLAIR (BIDS' names of fields: seconds, tesla); the DWI's b-values.
Out: column -> value for cohort.csv (milliseconds, tesla, s/mm^2); what no sidecar says is absent.
Paper: 2.1 (it names scanners and none of these figures; CLAIM 2024 and TRIPOD+AI ask for them).
See: tests/data/test_acquisition.py
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

B_STEP = 50.0  # s/mm^2; our choice: what gradients leave of a b-value differs by less from direction to direction
NOMINAL_T = 0.15  # our choice: a magnet of 2.89 T is sold, and reported, as one of 3 T
MILLISECONDS = {  # column -> which scan's sidecar, its field in seconds
    "dwi_te_ms": ("dwi", "EchoTime"),
    "dwi_tr_ms": ("dwi", "RepetitionTime"),
    "flair_te_ms": ("flair", "EchoTime"),
    "flair_tr_ms": ("flair", "RepetitionTime"),
    "flair_ti_ms": ("flair", "InversionTime"),
}
WORDS = {"vendor": "Manufacturer", "model": "ManufacturersModelName"}
COLUMNS = {  # in the order of a table -> what to call them
    "vendor": "Vendor",
    "model": "Scanner model",
    "field_strength": "Field strength (T)",
    "b_values": "b (s/mm^2)",
    "dwi_te_ms": "DWI, TE (ms)",
    "dwi_tr_ms": "DWI, TR (ms)",
    "flair_te_ms": "FLAIR, TE (ms)",
    "flair_tr_ms": "FLAIR, TR (ms)",
    "flair_ti_ms": "FLAIR, TI (ms)",
}


def acquisition_of(sidecars: Mapping[str, Mapping[str, Any]], bvals: Sequence[float] | None = None) -> dict[str, str]:
    """Return columns of the cohort from the sidecars of one patient's scans.

    sidecars: "dwi" and "flair" -> the JSON object. bvals: of each volume of the DWI, where a .bval has them.
    """
    found: dict[str, str] = {}
    for column, field in WORDS.items():
        said = [side.get(field) for side in sidecars.values()]
        if words := next((" ".join(word.split()) for word in said if isinstance(word, str) and word.strip()), ""):
            found[column] = words
    tesla = [number for side in sidecars.values() if (number := _number(side.get("MagneticFieldStrength")))]
    if tesla:
        found["field_strength"] = f"{_nominal(tesla[0]):g}"
    if bvals is None and (b := _number(sidecars.get("dwi", {}).get("DiffusionBValue"))) is not None:
        bvals = [b]
    if bvals is not None and len(bvals):
        found["b_values"] = " ".join(f"{b:g}" for b in sorted({round(b / B_STEP) * B_STEP for b in bvals}))
    for column, (scan, field) in MILLISECONDS.items():
        if (seconds := _number(sidecars.get(scan, {}).get(field))) is not None:
            found[column] = f"{1000 * seconds:.4g}"
    return {column: found[column] for column in COLUMNS if column in found}


def _number(value: object) -> float | None:
    """Return a number that is finite and not below zero; None of anything else that a JSON file may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _nominal(tesla: float) -> float:
    half = round(2 * tesla) / 2
    return half if half and abs(half - tesla) <= NOMINAL_T else round(tesla, 2)
