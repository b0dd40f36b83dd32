"""b1000 and b0 out of a diffusion series: which volumes they are, and how several become one.

In:  a DWI file, 3-D (b1000 or trace image) or 4-D with its b-values in a .bval file, as dcm2niix leaves them.
Out: the DWI and, where the series holds one, the b0, as Volumes (X, Y, Z); the b-value of the DWI in s/mm^2.
Paper: 2.1 (the inputs are DWI b1000 and DWI b0).
See: tests/data/test_diffusion.py
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tss.data.files import read_bytes
from tss.data.nifti import Volume, count_volumes, load, load_series
from tss.errors import InputError

B_WANTED = 1000.0  # s/mm^2, paper 2.1
B_RANGE = (800.0, 1200.0)  # our choice: what stroke protocols use; beyond, lesions look different
B_SHELL = 50.0  # our choice: volumes this close to the b nearest 1000 have the same b; scanners report 995 or 1005
B0_MOST = 50.0  # our choice: b0 images are labelled with 0 to 50
DROPPED = 0.6  # our choice: a slice with less than this of the other volumes' signal is lost; on real series directions
# differ by 0.79 at least, in the slices at the base
TISSUE = 0.5  # our choice: of the mean of positive voxels; what is brighter says how bright a slice is
MUCH = 0.2  # our choice: of the largest slice's bright voxels; a slice with fewer is not judged, eyes and mucosa move
AXES = ("from the left", "from the back", "from below")  # how slices are counted in RAS
SAME_IMAGE = 0.15  # our choice: of the log of one repeated b0 over the usual one, median over bright voxels. A map that
# the scanner has computed and appended, labelled b = 0, differs by more
ALIKE = 0.5  # our choice: of the log of DWI / b0, 5th to 95th percentile. From tissue to CSF it is 1.5 or more


class Diffusion(NamedTuple):
    """A patient's DWI, its b-value in s/mm^2, and the b0 of the same file if it holds one."""

    dwi: Volume
    b: float
    b0: Volume | None
    doubtful: bool = False  # a 3-D file beside a .bval of several b-values: it may be any of these volumes


def load_dwi(path: Path, bval: Path | None, b: float | None = None) -> Diffusion:
    """Read a DWI. A 3-D file is taken as it is; of a 4-D one, directions of b1000 and repeated b0s become one each.

    The b1000 is the geometric mean of its directions. In direction g the signal is S0 exp(-b g'Dg), so the logarithm
    is what directions average to the trace of D: three orthogonal ones give S0 exp(-b trace(D)/3) exactly, which is
    the trace image of a scanner. The b0 is the plain mean: repetitions of one image. A direction without signal
    in a voxel has no say there, unless most have none; nor has a volume in a slice that it has lost: notes say which.

    bval: the b-values of a 4-D file, one for each volume. A 3-D file needs none.
    b: what the table says of the DWI, in s/mm^2. Of a 3-D file it is believed.

    Raises InputError: a file is missing or unusable, b-values do not fit, or none is near 1000.
    """
    volumes = count_volumes(path)
    there = bval if bval is not None and bval.is_file() else None
    if volumes == 1 and (b is not None or there is None):
        return Diffusion(load(path), B_WANTED if b is None else b, None)
    if there is None:
        raise InputError(
            f"{path} is 4-D with {volumes} volumes, but {bval} with their b-values does not exist. Put "
            "the .bval of dcm2niix there, or name one 3-D volume (b1000 or trace)."
        )
    bvals = read_bvals(there)
    weighted, unweighted = shells(bvals)
    if bvals.size != volumes != 1:
        raise InputError(
            f"{bval} has {bvals.size} b-values and {path} has {volumes} volumes. Convert both again from "
            "DICOM, or name one 3-D volume (b1000 or trace)."
        )
    if not weighted.any():
        raise InputError(
            f"{path} holds no b1000: {bval} says b = {listed(bvals)}. One between {B_RANGE[0]:.0f} "
            f"and {B_RANGE[1]:.0f} is needed. If the .bval is another scan's, write the DWI's b into the column dwi_b."
        )
    found = float(bvals[weighted].mean())
    if volumes == 1:  # one volume was extracted from the series that the .bval describes
        return Diffusion(load(path), found, None, doubtful=not weighted.all())
    if b is not None and abs(b - found) > B_SHELL:
        raise InputError(f"{path}: the table says dwi_b = {b:g}, {bval} says b = {listed(bvals)}. Correct one of them.")
    series = load_series(path)
    if dark := [number + 1 for number in np.flatnonzero(weighted | unweighted) if not series.data[..., number].any()]:
        raise InputError(
            f"{path}: volume {', '.join(map(str, dark))} of {volumes} is zero everywhere. Export the series again."
        )
    dwi = _mean(series, np.flatnonzero(weighted), geometric=True)
    b0 = _mean(series, np.flatnonzero(unweighted), geometric=False) if unweighted.any() else None
    if b0 is not None and (unlike := _unlike(series, np.flatnonzero(unweighted))):
        b0 = b0._replace(notes=(*b0.notes, unlike))
    return Diffusion(dwi, found, b0)


def _unlike(series: Volume, numbers: np.ndarray) -> str:
    """Say which of the repeated b0s (at least one of them is) do not show the same image; "" where all do."""
    volumes = [series.data[..., number] for number in numbers]
    usual = np.median(volumes, axis=0)
    bright = usual > TISSUE * usual[usual > 0].mean()
    for number, volume in zip(numbers, volumes, strict=True):
        ratio = np.log(np.maximum(volume[bright], 1e-6) / usual[bright])
        level, spread = np.median(ratio), np.median(np.abs(ratio - np.median(ratio)))
        if spread > SAME_IMAGE or abs(level) > np.log(2):
            listed_as = ", ".join(str(k + 1) for k in numbers)
            return (
                f"DWI volumes {listed_as} are given as b0, but volume {number + 1} is unlike the rest: is it "
                "an ADC map or a trace image that the scanner has appended?"
            )
    return ""


def check_weighting(diffusion: Diffusion, b0: Volume) -> None:
    """Refuse a DWI that may be the b0 of its series by its .bval, and by the images is.

    Raises InputError: DWI and b0 hardly differ but by a factor: CSF is as bright on the one as on the other.
    """
    dwi = diffusion.dwi
    head = (b0.data > TISSUE * b0.data[b0.data > 0].mean()) & (dwi.data > 0)
    if diffusion.doubtful and head.any():
        low, high = np.percentile(np.log(dwi.data[head] / b0.data[head]), [5, 95])
        if high - low < ALIKE:
            raise InputError(
                f"{dwi.path} is no b1000: its .bval lists b0 too, and CSF is as bright in it as on "
                f"{b0.path or 'the b0'}. Name the b1000 or trace volume of the series."
            )


def shells(bvals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which volumes (N,) are the b1000 and which are the b0. Either may be none."""
    nearest = bvals[np.argmin(np.abs(bvals - B_WANTED))]
    return (np.abs(bvals - nearest) <= B_SHELL) & (B_RANGE[0] <= nearest <= B_RANGE[1]), bvals <= B0_MOST


def read_bvals(path: Path) -> np.ndarray:
    """Read the b-values (N,) in s/mm^2 of a .bval file: numbers separated by blanks, on one line or several.

    Raises InputError: unreadable, empty, or not numbers of 0 or more.
    """
    try:
        text = read_bytes(path, "Put the .bval of dcm2niix there.").decode("utf-8-sig")
        bvals = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path} does not hold b-values ({error}). Convert the series again from DICOM.") from error
    if not bvals.size or not ((bvals >= 0) & np.isfinite(bvals)).all():
        raise InputError(
            f"{path} does not hold b-values of 0 or more, one for each volume. Convert the series again from DICOM."
        )
    return bvals


def listed(bvals: np.ndarray) -> str:
    """Return b-values as text, each once: "0 (2 volumes), 700 (6 volumes)"."""
    values, counts = np.unique(bvals, return_counts=True)
    return ", ".join(
        f"{b:g} ({count} volume{'s' if count > 1 else ''})" for b, count in zip(values, counts, strict=True)
    )


def _mean(series: Volume, numbers: np.ndarray, geometric: bool) -> Volume:
    """Return the mean (X, Y, Z) of some volumes of a series (X, Y, Z, N), with notes on slices that one has lost."""
    volumes = [series.data[..., number] for number in numbers]
    lost = _lost_slices(volumes)
    total, count, able = (np.zeros(series.data.shape[:3], np.float32) for _ in range(3))
    notes = []
    for number, volume, by_axis in zip(numbers, volumes, lost, strict=True):
        whole = ~(by_axis[0][:, None, None] | by_axis[1][:, None] | by_axis[2])
        there = whole & (volume > 0) if geometric else whole  # zero has no logarithm
        total += np.where(there, np.log(np.where(there, volume, 1)) if geometric else volume, 0)
        count += there
        able += whole
        notes += [
            f"DWI volume {number + 1} has lost its signal in slice {', '.join(map(str, np.flatnonzero(where) + 1))} "
            f"of {len(where)} {direction}: left out there"
            for where, direction in zip(by_axis, AXES, strict=True)
            if where.any()
        ]
    mean = total / np.maximum(count, 1)
    mean = np.where((2 * count >= able) & (count > 0), np.exp(mean) if geometric else mean, 0)
    return series._replace(data=mean, notes=(*series.notes, *notes))


def _lost_slices(volumes: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Return for each volume and each axis in which slices it has lost signal that the others have, bool."""
    mean = np.asarray(sum(volumes) / len(volumes))
    bright = mean > TISSUE * mean[mean > 0].mean()
    lost = []
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        count = bright.sum(others)
        levels = np.array([(volume * bright).sum(others) for volume in volumes]) / np.maximum(count, 1)  # (N, slices)
        usual = np.median(levels, 0) if len(volumes) > 2 else levels.max(0)  # of two, the brighter one is whole
        ratio = levels / np.maximum(usual, 1e-6)
        seen = count > MUCH * count.max()
        own = np.median(ratio[:, seen], 1, keepdims=True)  # how bright a direction is throughout
        lost.append((ratio < DROPPED * own) & seen)
    return [[where[k] for where in lost] for k in range(len(volumes))]
