"""What the images themselves say of who they are: b1000, b0, ADC or FLAIR (decision 19).

In:  a patient's scans, Volumes (X, Y, Z) or arrays on one grid; the brain.
Out: numbers that do not depend on the scans' scale, for quality control; sentences where a role is impossible.
Paper: none (our choice: files are mixed up, and a network learns from whatever it is given).
See: tests/preprocessing/test_roles.py

CSF is the brightest on b0 and nearly the darkest on b1000 and FLAIR. An ADC map is the logarithm of a quotient, so
the noise of the DWI is in it upside down. Another head's FLAIR fits about as well where it is moved by some mm.

fit_when_moved was measured on phantoms, real scans, and heads of other anatomy (tests/benchmarks/other_anatomy.py with
four templates), without bias field. The limit, 0.42, was chosen for no false alarm on the first half: of 38 heads with
their own FLAIR none is above it; of 108 with another head's FLAIR, all 22 real ones, 23 of 32 phantoms, and 26 of 54
warps of templates, which hardly differ, are. On the other half none of 34 is, and 9 of 12 phantoms and 13 of 22 warps
are. With the bias field left in, 13 of the first 38 and 7 of the other 34 were above the former 0.37.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tss.data.nifti import Volume, apply_affine, resample
from tss.errors import InputError

BRIGHTEST = 95  # percentile of the brain: CSF on b0, infarct and cortex on DWI
CSF = 4  # percentile of log(DWI / b0) below which a voxel is CSF
NEIGHBOURS = (5, 5, 1)  # voxels that grain is compared with, in the slice
FEWEST = 500  # our choice: voxels of tissue below which grain says nothing
MOVED_MM = 6.0  # our choice: more than registration errs, less than a sulcus' neighbour is away
# Our choice, from nine real and eight phantom heads. Within the brain csf_on_dwi was -1.9 to -0.5, exchanged +0.6 to
# +1.8, two T2w images 0. Grain of b0 was -0.03 to 0.45, of ADC -0.74 to -0.29.
EXCHANGED = 0.25
GRAIN_OF_B0, GRAIN_OF_ADC = -0.2, -0.1


def csf_on_dwi(dwi: np.ndarray, b0: np.ndarray, brain: np.ndarray) -> float:
    """Return how DWI / b0 changes (in logarithms) where b0 is brightest and where DWI is, together.

    Below 0 where CSF is bright on b0 and dark on DWI, 0 where both have one weighting, above 0 where they are
    exchanged. (X, Y, Z) each; the brain may be a rough one.
    """
    inside = brain & (dwi > 0) & (b0 > 0)
    if not inside.any():
        return 0.0
    ratio = np.log(dwi[inside] / b0[inside])
    brightest = [ratio[scan[inside] >= np.percentile(scan[inside], BRIGHTEST)] for scan in (dwi, b0)]
    return float(sum(map(np.median, brightest)) - 2 * np.median(ratio))


def grain(dwi: np.ndarray, other: np.ndarray) -> float | None:
    """Return the correlation of the two images' fine grain within tissue, -1..1; None where there is too little."""
    both = (dwi > 0) & (other > 0)
    if np.count_nonzero(both) < FEWEST:
        return None
    bright = both & (dwi > 0.5 * dwi[both].mean())
    levels = [float(np.median(scan[bright])) for scan in (dwi, other)]
    tissue = both & (dwi > 0.6 * levels[0]) & (dwi < 1.8 * levels[0])
    tissue &= (other > 0.4 * levels[1]) & (other < 1.6 * levels[1])
    share = ndimage.uniform_filter(tissue.astype(np.float32), NEIGHBOURS)
    inside = tissue & (share > 0.7)
    if np.count_nonzero(inside) < FEWEST:
        return None
    grains = []
    for scan in (dwi, other):
        log = np.log(np.where(tissue, scan, 1)).astype(np.float32)
        grains.append((log - ndimage.uniform_filter(log, NEIGHBOURS) / np.maximum(share, 1e-6))[inside])
    spreads = [float(values.std()) for values in grains]
    return float(np.corrcoef(*grains)[0, 1]) if min(spreads) > 1e-4 else None


def doubts(dwi: Volume, b0: Volume | None, adc: Volume | None) -> tuple[str, ...]:
    """Return what is to be said where the file given as b0 looks like an ADC map, or the other way round."""
    if b0 is not None and (found := grain(dwi.data, b0.data)) is not None and found < GRAIN_OF_B0:
        return (f"{_name(b0)}, given as b0, looks like an ADC map: its grain is the DWI's inverted ({found:+.2f})",)
    if adc is not None and (found := grain(dwi.data, adc.data)) is not None and found > GRAIN_OF_ADC:
        return (
            f"{_name(adc)}, given as ADC, does not look like one: its grain is not the DWI's inverted ({found:+.2f})",
        )
    return ()


def check_not_exchanged(dwi: Volume, b0: Volume, brain: np.ndarray) -> None:
    """Refuse a DWI and a b0 that are each other's. Raises InputError: CSF is bright on the DWI and dark on b0."""
    if csf_on_dwi(dwi.data, b0.data, brain) > EXCHANGED:
        raise InputError(
            f"{dwi.path or 'the DWI'} and {b0.path or 'the b0'} are exchanged: CSF is bright on the one given as DWI "
            "and dark on the one given as b0. Exchange the two columns."
        )


def csf_on_flair(dwi: np.ndarray, b0: np.ndarray, flair: np.ndarray, brain: np.ndarray) -> float:
    """Return FLAIR's level in CSF over that in tissue; CSF is what DWI / b0 says it is. (X, Y, Z) each, on one grid."""
    inside = brain & (dwi > 0) & (b0 > 0) & (flair > 0)
    if not inside.any():
        return 0.0
    ratio, bright, level = np.log(dwi[inside] / b0[inside]), b0[inside], flair[inside]
    csf = (ratio <= np.percentile(ratio, CSF)) & (bright > np.median(bright))
    tissue = ratio > np.percentile(ratio, 5 * CSF)
    return float(np.median(level[csf]) / np.median(level[tissue])) if csf.any() and tissue.any() else 0.0


def fit_when_moved(
    flair: Volume, b0: Volume, brain: np.ndarray, world: np.ndarray, alike: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    """Return how well FLAIR fits b0 when it is moved by MOVED_MM along each axis, over how well it fits in place.

    A head fits itself in one place only. Both scans without bias field: two coils' fields resemble each other wherever
    FLAIR lies. world: (4, 4), mm of the FLAIR -> mm of the b0; alike: two arrays of values -> likeness from 0 up.
    """
    if not brain.any():
        return 0.0
    seen = [np.flatnonzero(brain.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(where[0], where[-1] + 1) for where in seen)
    brain, fixed = brain[box], b0.data[box]
    corner = b0.affine.copy()
    corner[:3, 3] = apply_affine(b0.affine, np.array([part.start for part in box]))

    def fit(shift: np.ndarray) -> float:
        moved = resample(flair, brain.shape, corner, shift @ world)
        inside = brain & (moved > 0)
        return alike(fixed[inside], moved[inside]) if inside.any() else 0.0

    shifts = []
    for axis in range(3):
        for way in (-MOVED_MM, MOVED_MM):
            shift = np.eye(4)
            shift[axis, 3] = way
            shifts.append(fit(shift))
    return float(np.mean(shifts) / max(fit(np.eye(4)), 1e-6))


def _name(scan: Volume) -> str:
    return scan.path.name if scan.path else "the scan"
