"""One patient's scans, in one place: read, checked to lie in one space, the b0 made from the ADC where there is none.

In:  a row of the cohort: paths of dwi, flair, b0 or adc, lesion.
Out: Scans(dwi, b0, flair, lesion), Volumes (X, Y, Z) float32 in RAS, with one grid for dwi, b0 and lesion.
Paper: 2.1 (the inputs are DWI b1000, DWI b0 and FLAIR).
See: tests/preprocessing/test_scans.py
"""

import hashlib
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tss.data.cohort import SCANS, Patient
from tss.data.diffusion import B0_MOST, B_WANTED, check_weighting, load_dwi
from tss.data.nifti import Volume, apply_affine, load
from tss.errors import InputError
from tss.preprocessing.roles import doubts

SAME_SPACE_MM = 0.5  # our choice: how far corners of DWI and b0 may lie apart; converters round
ADC_UNITS = {  # unit -> range of the brain's median (0.6 to 1.2 10^-3 mm^2/s), factor to units of b = 1000 s/mm^2
    "mm^2/s": (2e-4, 5e-3, 1e3),
    "10^-3 mm^2/s": (0.2, 5.0, 1.0),
    "10^-6 mm^2/s": (200, 5000, 1e-3),
}
HIGHEST_ADC = 3.5  # 10^-3 mm^2/s: brain and CSF end near 3.2; above is noise over noise, whose exponential dwarfs all


class Scans(NamedTuple):
    """A patient's scans, each in its own space; the lesion is a mask in that of the DWI."""

    dwi: Volume
    b0: Volume
    flair: Volume
    lesion: Volume | None = None


def load_scans(patient: Patient) -> Scans:
    """Load a patient's scans. The b0 is the one that is named, else the one within a 4-D DWI, else made from the ADC.

    Raises InputError: a file is missing or unusable, or two that share a space differ in shape or place.
    """
    paths = {name: path for name in SCANS if (path := patient.path(name))}
    for name in ("dwi", "flair"):
        if name not in paths:
            raise InputError(patient.row.get("not_found") or f"no {name} is given. Name the file in column {name}.")
    if "dwi_bval" in paths and not paths["dwi_bval"].is_file():
        raise InputError(f"{paths['dwi_bval']}, named in column dwi_bval, does not exist. Correct or empty the cell.")
    diffusion = load_dwi(paths["dwi"], patient.bval, patient.b)
    dwi, b, b0 = diffusion.dwi, diffusion.b, diffusion.b0
    flair = load(paths["flair"])
    lesion = as_mask(load(paths["lesion"], mask=True)) if "lesion" in paths else None
    given = {"dwi": dwi, "flair": flair}
    if "b0" in paths:
        b0 = given["b0"] = load(paths["b0"])
        check_same_space(dwi, b0)
        check_weighting(diffusion, b0)
    elif b0 is None and "adc" in paths:
        adc = given["adc"] = load(paths["adc"])
        check_different(given)
        check_same_space(dwi, adc)
        b0 = b0_from_adc(dwi, adc, b)
    check_different(given)
    if b0 is None:
        raise InputError(
            patient.row.get("not_found")
            or f"{dwi.path} holds no b0 (b <= {B0_MOST:.0f}), and neither b0 nor adc is given. Name one of the two."
        )
    said = doubts(dwi, given.get("b0"), given.get("adc"))
    return Scans(dwi._replace(notes=(*dwi.notes, *said)), b0, flair, lesion)


def check_different(scans: Mapping[str, Volume]) -> None:
    """Refuse one scan in two roles (decision 19). Raises InputError: two hold the same voxels."""
    for (one, scan), (other, again) in itertools.combinations(scans.items(), 2):
        if np.array_equal(scan.data, again.data):
            raise InputError(
                f"{scan.path} and {again.path} hold the same voxels: one scan cannot be {one} and {other}. Name the "
                f"{other.upper()}'s own file."
            )


def as_mask(scan: Volume) -> Volume:
    """Return 1 in the lesion, 0 elsewhere: whatever label it has; of a mask that was interpolated, or of probabilities,
    what is above half of the highest: all that is above 0 would be wider than what was drawn by a voxel on each side.
    """
    whole = np.array_equal(scan.data, np.round(scan.data))
    return scan._replace(data=(scan.data > (0 if whole else scan.data.max() / 2)).astype(np.float32))


def hash_voxels(scan: Volume) -> str:
    """Return the SHA-256 of a scan's voxels, (X, Y, Z) in RAS: the same however the file is named, stored or zipped."""
    digest = hashlib.sha256(repr(scan.data.shape).encode())
    digest.update(np.ascontiguousarray(scan.data + np.float32(0)).data)  # a zero that is negative becomes a plain one
    return digest.hexdigest()


def check_same_space(dwi: Volume, other: Volume) -> None:
    """Refuse a b0, ADC or lesion that does not lie voxel on voxel with the DWI (decision 12).

    Raises InputError: shapes differ, or corners lie more than SAME_SPACE_MM apart.
    """
    names = f"{dwi.path or 'DWI'} and {other.path or 'b0'}"
    if dwi.data.shape != other.data.shape:
        raise InputError(
            f"{names} differ in shape, {dwi.data.shape} and {other.data.shape}. DWI, b0, ADC and "
            "lesion come from one acquisition: export them on the same grid."
        )
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(dwi.data.shape) - 1)
    apart = np.linalg.norm(apply_affine(dwi.affine - other.affine, corners.T), axis=0).max()
    if apart > SAME_SPACE_MM:
        raise InputError(
            f"{names} have the same shape but lie {apart:.1f} mm apart by their headers. "
            "DWI, b0, ADC and lesion come from one acquisition: export them on the same grid."
        )


def b0_from_adc(dwi: Volume, adc: Volume, b: float = B_WANTED) -> Volume:
    """Return b0 = DWI * exp(b * ADC), b in s/mm^2. The ADC's unit is recognised by its size.

    Raises InputError: the ADC's median fits no unit that ADC maps have.
    """
    median = float(np.median(adc.data[(adc.data > 0) & (dwi.data > 0)]))
    for low, high, factor in ADC_UNITS.values():
        if low <= median <= high:
            exponent = np.clip(adc.data * factor, 0, HIGHEST_ADC) * (b / 1000)
            return Volume(dwi.data * np.exp(exponent), dwi.affine, adc.path)
    raise InputError(
        f"{adc.path}: the median of positive voxels is {median:.3g}, which fits a brain in none of "
        f"{', '.join(ADC_UNITS)}. Give b0 instead, or convert the ADC to one of these units."
    )
