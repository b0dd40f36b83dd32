"""Which of a patient's converted DICOM series is the DWI, the b0, the ADC and the FLAIR, by what their headers say.

In:  series as dcm2niix leaves them: a NIfTI, its JSON sidecar, and for diffusion mostly a .bval.
Out: column of the cohort -> Series, what is missing, and which series were passed over.
Paper: 2.1 (the inputs are DWI b1000, DWI b0 and FLAIR).
See: tests/preprocessing/test_dicom.py
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tss.data.bids_layout import B_LABEL
from tss.data.diffusion import B0_MOST, B_RANGE, shells

FLAIR_TI_S = (1.2, 3.5)  # our choice: CSF is dark at 1.6 to 2.8 s by field and repetition; T1 scans have under 1.1 s
FLAIR_TE_S = 0.05  # our choice: a T1-weighted FLAIR has an echo time of some 0.02 s, a T2-weighted one over 0.08 s
FEWEST_SLICES = 8  # our choice: fewer are a localizer
MOST_NAMED = 12  # our choice: series in a message
FLAIR_WORDS = re.compile(r"flair|dark.?fl|tirm|fluid", re.IGNORECASE)
DIFFUSION_WORDS = re.compile(r"dwi|dti|diff|trace|adc|(?<![a-z0-9])b\W?\d{3,4}(?!\d)", re.IGNORECASE)
ADC_WORDS = re.compile(r"(?<![a-z])d?adc|apparent", re.IGNORECASE)
B0_WORDS = re.compile(r"(?<![a-z0-9])b\W?0+(?![0-9])", re.IGNORECASE)
COMPUTED = re.compile(r"(?<![a-z])((col|c)?fa|e(xp)?.?adc|exp|tensor(?!_b0)|vr|ra)(?![a-z])", re.IGNORECASE)
CONTRAST = re.compile(r"\+\s?c(?![a-z])|post|gado|(?<![a-z])(gd|km|ce)(?![a-z])", re.IGNORECASE)
T1_WORDS = re.compile(r"(?<![a-z0-9])t1", re.IGNORECASE)


class Series(NamedTuple):
    """One converted series."""

    path: Path
    header: Mapping[str, Any]  # dcm2niix's JSON
    bvals: np.ndarray | None  # (N,), of each volume
    slices: int

    @property
    def words(self) -> set[str]:
        """What the scanner says of the kind of image, in capitals."""
        said = [self.header.get(name) for name in ("ImageType", "ImageTypeText")]
        parts = [part for part in said if isinstance(part, list) for part in part]
        return {word for part in parts for word in re.split(r"[\\_ ]+", str(part).upper())}

    @property
    def description(self) -> str:
        names = [self.header.get(name) for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
        return next((name for name in names if isinstance(name, str) and name.strip()), self.path.name)

    @property
    def number(self) -> float:
        return self.seconds("SeriesNumber") or 0.0

    @property
    def name(self) -> str:
        values: Sequence[float] = [] if self.bvals is None else np.unique(np.rint(self.bvals)).tolist()
        b = ", ".join(f"{value:g}" for value in values)
        return f"{self.number:g} {self.description}{f', b = {b}' if b else ''}"

    def seconds(self, field: str) -> float | None:
        """Return a number of the header; None where it has none."""
        value = self.header.get(field)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class Found(NamedTuple):
    """What there is for a patient."""

    scans: dict[str, Series]  # "dwi", "b0", "adc", "flair"
    missing: list[str]
    unused: list[str]


def find_scans(series: Sequence[Series], wanted: Sequence[str] = ("dwi", "flair")) -> Found:
    """Return the series to read; where several will do, the one with fewest drawbacks, then the last one.

    A scan is repeated because the one before was bad. wanted: the columns that a table leaves to the headers.
    """
    kinds: dict[str, list[Series]] = {"dwi": [], "b0": [], "adc": [], "flair": [], "": []}
    for one in series:
        kinds[kind_of(one, series)].append(one)
    scans: dict[str, Series] = {}
    missing = []
    there = "; ".join(one.name for one in series[:MOST_NAMED]) or "nothing"
    there += f" and {len(series) - MOST_NAMED} more" * (len(series) > MOST_NAMED)
    if "dwi" in wanted:
        if kinds["dwi"]:
            scans["dwi"] = min(kinds["dwi"], key=lambda one: (*_drawbacks_of_dwi(one), -one.number))
            second = next((kind for kind in ("b0", "adc") if _alike(kinds[kind], scans["dwi"])), None)
            if not _holds_b0(scans["dwi"]) and second:
                scans[second] = max(_alike(kinds[second], scans["dwi"]), key=lambda one: one.number)
            elif not _holds_b0(scans["dwi"]):
                missing.append(f"no b0 and no ADC for {scans['dwi'].name}, which holds none (series: {there})")
        else:
            low, high = B_RANGE
            missing.append(f"no DWI with b between {low:.0f} and {high:.0f} s/mm^2 (series: {there})")
    if "flair" in wanted:
        if kinds["flair"]:
            scans["flair"] = min(kinds["flair"], key=lambda one: (*_drawbacks_of_flair(one), -one.number))
        else:
            missing.append(f"no FLAIR (series: {there})")
    read = [*scans.values()]
    unused = [f"{one.name} ({kind})" for kind in kinds if kind for one in kinds[kind] if one not in read]
    return Found(scans, missing, unused)


def kind_of(one: Series, series: Sequence[Series] = ()) -> str:
    """Return the column that a series could fill: "dwi", "b0", "adc", "flair", or "" for none.

    series: all of the patient's; a trace image whose header names no b has that of the series it was made from.
    """
    modality = one.header.get("Modality", "MR")
    if modality != "MR" or one.slices < FEWEST_SLICES or one.words & {"PHASE", "IMAGINARY", "REAL"}:
        return ""
    about = f"{one.description} {one.path.name}"
    if one.bvals is not None or "DIFFUSION" in one.words or DIFFUSION_WORDS.search(about):
        return _kind_of_diffusion(one, series)
    return "flair" if _is_flair(one) else ""


def _kind_of_diffusion(one: Series, series: Sequence[Series]) -> str:
    if one.bvals is not None and len(one.bvals) > 1:  # what was measured, whatever it is called
        return "dwi" if shells(one.bvals)[0].any() else ""
    derived = one.words & {"FA", "EADC", "EXPADC", "EXP", "TENSOR"}
    if (derived and "B0" not in one.words) or COMPUTED.search(one.description):
        return ""
    if one.words & {"ADC"} or ADC_WORDS.search(one.description):
        return "adc"
    if one.bvals is not None and len(one.bvals):
        weighted, unweighted = shells(one.bvals)
        return "dwi" if weighted.any() else "b0" if unweighted.any() else ""
    if B0_WORDS.search(one.description):
        return "b0"
    named = {float(b) for b in B_LABEL.findall(one.description.lower())}
    if named:
        b = max(named) * (1000 if max(named) < 10 else 1)
        return "dwi" if B_RANGE[0] <= b <= B_RANGE[1] else "b0" if b <= B0_MOST else ""
    sources = [other for other in series if other.bvals is not None and _same_acquisition(one, other)]
    if any(not shells(other.bvals)[0].any() for other in sources if other.bvals is not None):
        return ""  # made from directions of another b
    said = one.words & {"TRACE", "TRACEW"} or re.search("trace|dwi|isotropic", one.description, re.IGNORECASE)
    return "dwi" if said else ""


def _same_acquisition(one: Series, other: Series) -> bool:
    time = one.header.get("AcquisitionTime")
    return (time is not None and time == other.header.get("AcquisitionTime")) or one.description.startswith(
        other.description
    )


def _alike(series: Sequence[Series], dwi: Series) -> list[Series]:
    """Return the b0s or ADC maps that may belong to a DWI: of as many slices; of its own acquisition, where one is."""
    fitting = [one for one in series if one.slices == dwi.slices]
    own = [one for one in fitting if _same_acquisition(one, dwi) or _same_acquisition(dwi, one)]
    return own or fitting


def _holds_b0(dwi: Series) -> bool:
    return dwi.bvals is not None and bool(shells(dwi.bvals)[1].any())


def _drawbacks_of_dwi(one: Series) -> tuple[bool, bool]:
    """Return what counts against a DWI: its b is not known; it holds no b0."""
    return one.bvals is None and not B_LABEL.search(one.description.lower()), not _holds_b0(one)


def _is_flair(one: Series) -> bool:
    """Is it a T2-weighted FLAIR? Inversion and echo time decide where the header has them, else its name."""
    inversion, echo = one.seconds("InversionTime"), one.seconds("EchoTime")
    if inversion is not None:
        return FLAIR_TI_S[0] <= inversion <= FLAIR_TI_S[1] and (echo is None or echo >= FLAIR_TE_S)
    named = FLAIR_WORDS.search(one.description) and not T1_WORDS.search(one.description)
    return bool(named) and (echo is None or echo >= FLAIR_TE_S)


def _drawbacks_of_flair(one: Series) -> tuple[bool, bool, bool]:
    """Return what counts against a FLAIR: contrast agent, computed from another series, not called one."""
    agent = bool(one.header.get("ContrastBolusIngredient") or CONTRAST.search(one.description))
    return agent, "DERIVED" in one.words, not FLAIR_WORDS.search(one.description)
