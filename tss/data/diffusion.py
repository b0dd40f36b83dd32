"""b1000 and b0 out of a diffusion series: which volumes they are, and how several become one.

In:  a DWI file, 3-D (b1000 or trace image) or 4-D with its b-values in a .bval file, as dcm2niix leaves them.
Out: the DWI and, where the series holds one, the b0, as Volumes (X, Y, Z); the b-value of the DWI in s/mm^2.
Paper: 2.1 (the inputs are DWI b1000 and DWI b0).
See: tests/data/test_diffusion.py
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tss.data.nifti import Volume, count_volumes, load, load_series
from tss.errors import InputError

B_WANTED = 1000.0  # s/mm^2, paper 2.1
B_RANGE = (800.0, 1200.0)  # our choice: what stroke protocols use; beyond, lesions look different
B_SHELL = 50.0  # our choice: volumes this close to the b nearest 1000 have the same b; scanners report 995 or 1005
B0_MOST = 50.0  # our choice: b0 images are labelled with 0 to 50


class Diffusion(NamedTuple):
    """A patient's DWI, its b-value in s/mm^2, and the b0 of the same file if it holds one."""

    dwi: Volume
    b: float
    b0: Volume | None


def load_dwi(path: Path, bval: Path) -> Diffusion:
    """Read a DWI. A 3-D file is taken as it is; of a 4-D one, directions of b1000 and repeated b0s become one each.

    The b1000 is the geometric mean of its directions. In direction g the signal is S0 exp(-b g'Dg), so the logarithm
    is what directions average to the trace of D: three orthogonal ones give S0 exp(-b trace(D)/3) exactly, which is
    the trace image of a scanner. The b0 is the plain mean: repetitions of one image.

    Args:
        bval: the b-values of a 4-D file, one for each volume. A 3-D file needs none.

    Raises:
        InputError: a file is missing or unusable, b-values do not fit, or none is near 1000.
    """
    volumes = count_volumes(path)
    if volumes == 1 and not bval.is_file():
        return Diffusion(load(path), B_WANTED, None)
    if not bval.is_file():
        raise InputError(
            f"{path} is 4-D with {volumes} volumes, but {bval} with their b-values does not exist. Put "
            "the .bval of dcm2niix there, or name one 3-D volume (b1000 or trace)."
        )
    bvals = read_bvals(bval)
    if volumes == 1 and bvals.size > 1:  # one volume was extracted from the series that the .bval describes
        return Diffusion(load(path), B_WANTED, None)
    if bvals.size != volumes:
        raise InputError(
            f"{bval} has {bvals.size} b-values and {path} has {volumes} volumes. Convert both again from "
            "DICOM, or name one 3-D volume (b1000 or trace)."
        )
    weighted, unweighted = shells(bvals)
    if not weighted.any():
        raise InputError(
            f"{path} holds no b1000: {bval} says b = {listed(bvals)}. One between "
            f"{B_RANGE[0]:.0f} and {B_RANGE[1]:.0f} is needed."
        )
    series = load_series(path)
    if dark := [number + 1 for number in np.flatnonzero(weighted | unweighted) if not series.data[..., number].any()]:
        raise InputError(
            f"{path}: volume {', '.join(map(str, dark))} of {volumes} is zero everywhere. Export the series again."
        )
    dwi = series._replace(data=_geometric_mean(series.data, np.flatnonzero(weighted)))
    b0 = series._replace(data=np.ascontiguousarray(series.data[..., unweighted].mean(-1))) if unweighted.any() else None
    return Diffusion(dwi, float(bvals[weighted].mean()), b0)


def shells(bvals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which volumes (N,) are the b1000 and which are the b0. Either may be none."""
    nearest = bvals[np.argmin(np.abs(bvals - B_WANTED))]
    return (np.abs(bvals - nearest) <= B_SHELL) & (B_RANGE[0] <= nearest <= B_RANGE[1]), bvals <= B0_MOST


def read_bvals(path: Path) -> np.ndarray:
    """Read the b-values (N,) in s/mm^2 of a .bval file: numbers separated by blanks, on one line or several.

    Raises:
        InputError: unreadable, empty, or not numbers of 0 or more.
    """
    try:
        bvals = np.array(path.read_text(encoding="utf-8-sig").split(), dtype=np.float64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} does not hold b-values ({error}). Numbers separated by blanks are needed.") from error
    if not bvals.size or not (bvals >= 0).all():
        raise InputError(f"{path} does not hold b-values of 0 or more, one for each volume.")
    return bvals


def listed(bvals: np.ndarray) -> str:
    """Return b-values as text, each once: "0 (2 volumes), 700 (6 volumes)"."""
    values, counts = np.unique(bvals, return_counts=True)
    return ", ".join(
        f"{b:g} ({count} volume{'s' if count > 1 else ''})" for b, count in zip(values, counts, strict=True)
    )


def _geometric_mean(series: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the geometric mean (X, Y, Z) of some volumes of (X, Y, Z, N); 0 where one of them has no signal."""
    with np.errstate(divide="ignore"):
        return np.exp(sum(np.log(np.clip(series[..., number], 0, None)) for number in numbers) / len(numbers))
