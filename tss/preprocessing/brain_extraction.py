"""The suite's own brain extraction, with nothing but numpy and scipy.

In:  DWI and b0 on one grid, Volumes (X, Y, Z) float32 in canonical RAS, affines voxel -> world mm.
Out: a brain mask (X, Y, Z) bool.
Paper: 2.1 and Fig. 2 (BET there).
See: tests/preprocessing/test_brain_extraction.py
"""

import numpy as np
from scipy import ndimage

from tss.data.nifti import Volume, resample, shrink, voxel_sizes
from tss.errors import InputError

BRAIN_LEVEL = 0.6  # our choice: of the median of bright voxels on DWI; midway from brain (1.0) to CSF (0.2)
NEARBY_MM = 12.0  # our choice: SD of the Gaussian over which brain's own level is taken
HIGHEST = 1.2  # our choice: of the whole brain's level; what is brighter, an infarct, counts as this
DIMMEST = 0.4  # our choice: of the whole brain's level; dimmer is noise
ROUNDS = 1  # our choice: each takes in some 10 mm more of a dim base; a second adds 2 ml at most
ISLAND_CM2, ISLAND_SHARE = 2.5, 0.1  # our choice: an island's area, and its share of the slice's largest
NECK_MM = 7.0  # our choice: bridges from brain to eyes, scalp or muscle are thinner than twice this
SULCUS_MM = 6.0  # our choice: half the width of fissures and cisterns that the mask is closed over
TWIG_MM = 3.0  # our choice: nerves and vessels that leave the brain are thinner than twice this
CORD_SHARE = 0.03  # our choice: of the largest slice's area; cord and medulla have 1 to 2 cm^2, a brain 150
BRAIN_ML = (500.0, 2200.0)  # our choice: anything else is not a human brain, nor most of one
STRIPPED = 1.35  # our choice: a stripped scan holds at most so many times the brain found in it
STRIPPED_ZEROS = 0.5  # our choice: share of voxels that are zero where the skull has been removed
# Our choice: of a stripped scan nothing lies so far from the brain found in it (11 phantoms, 8 of them hard; 4 real
# heads). Where what is dark was set to zero, eyes, scalp and muscle do, unless the rest is nearly the brain.
AWAY_MM, MOST_AWAY_ML = 15.0, 2.0
SAME_ZEROS = 0.97  # our choice: Dice of what DWI and b0 show: 0.97 or more where both are stripped, at most 0.92 else


def find_brain(dwi: Volume, b0: Volume) -> np.ndarray:
    """Return the brain mask (X, Y, Z) bool with ventricles and sulci, on the grid of DWI and b0.

    The brain is what is bright on DWI, relative to its place in the coil, and stays connected when thin bridges are
    cut; b0 adds the CSF around it (decision 12). Where the skull has been removed already, what is left is kept.

    Raises InputError: nothing like a brain is found.
    """
    if not (dwi.data > 0).any():
        raise InputError(f"{dwi.path or 'the DWI'} has no positive voxels. Export the scan again.")
    if not np.ptp(dwi.data):
        raise InputError(f"{dwi.path or 'the DWI'} has the same value everywhere. Export the scan again.")
    small, small_b0 = shrink(dwi), shrink(b0)
    sizes = voxel_sizes(small.affine)
    brain = _brain(small.data, small_b0.data, sizes)
    fine = resample(Volume(brain.astype(np.float32), small.affine), dwi.data.shape, dwi.affine) > 0.5
    if (stripped := left_over(dwi, fine)) is not None:
        return stripped
    millilitres = brain.sum() * np.prod(sizes) / 1000
    if not BRAIN_ML[0] <= millilitres <= BRAIN_ML[1]:
        raise InputError(
            f"{dwi.path or 'the DWI'}: what looks like brain in it measures {millilitres:.0f} ml. "
            "Is it a DWI (b1000) of a head? Look at it, and at the b0."
        )
    return fine


def _brain(dwi: np.ndarray, b0: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    bright = dwi > _otsu(dwi)
    levels = [np.median(scan[bright]) for scan in (dwi, b0)]
    tissue = _tissue(dwi, b0, sizes, *levels)
    for _ in range(ROUNDS):  # over the orbits and in the temporal lobes' tips the coil sees half of what it sees above
        nearby = [_nearby(scan, tissue, level, sizes) for scan, level in zip((dwi, b0), levels, strict=True)]
        tissue = _tissue(dwi, b0, sizes, *nearby)
    closed = _fill(depth(depth(~tissue, sizes, SULCUS_MM) <= SULCUS_MM, sizes, SULCUS_MM) > SULCUS_MM)
    opened = depth(~(depth(closed, sizes, TWIG_MM) > TWIG_MM), sizes, TWIG_MM) <= TWIG_MM
    return _without_islands(_without_cord(_fill(_largest(opened))), sizes)


def _tissue(dwi: np.ndarray, b0: np.ndarray, sizes: np.ndarray, level, level_b0) -> np.ndarray:
    """Return what is bright on DWI and connected. Levels: of brain, one number or (X, Y, Z)."""
    # By either scan the brain is solid: no sulci, no ventricles. So bridges can be cut without cutting it.
    solid = (dwi > BRAIN_LEVEL * level) | (b0 > BRAIN_LEVEL * level_b0)
    inner = _largest(depth(solid, sizes, NECK_MM) > NECK_MM)
    reach = depth(~inner, sizes, NECK_MM + 1.5) <= NECK_MM + 1.5
    return _largest(reach & (dwi > BRAIN_LEVEL * level))


def _nearby(scan: np.ndarray, tissue: np.ndarray, level: float, sizes: np.ndarray) -> np.ndarray:
    """Return how bright brain is around each voxel (X, Y, Z): at most `level`, so that no large infarct raises it."""
    share, total = (
        ndimage.gaussian_filter(np.where(tissue, values, 0).astype(np.float32), NEARBY_MM / sizes)
        for values in (1, np.minimum(scan, HIGHEST * level))
    )
    return np.clip(np.where(share > 1e-4, total / np.maximum(share, 1e-4), level), DIMMEST * level, level)


def _without_islands(brain: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Drop small isolated parts of a slice: mucosa and displaced signal, joined to the brain from above."""
    kept = brain.copy()
    for k in range(brain.shape[2]):
        label, _ = ndimage.label(brain[:, :, k])
        area = np.bincount(label.ravel())[1:] * sizes[0] * sizes[1] / 100
        small = 1 + np.flatnonzero((area < ISLAND_CM2) & (area < ISLAND_SHARE * area.max(initial=0)))
        kept[:, :, k] &= ~np.isin(label, small)
    return kept


def _without_cord(brain: np.ndarray) -> np.ndarray:
    """Cut off the lowest slices, where there is nothing but spinal cord."""
    areas = brain.sum((0, 1))
    lowest = np.argmax(areas > CORD_SHARE * areas.max())
    return brain & (np.arange(len(areas)) >= lowest)


def depth(mask: np.ndarray, sizes: np.ndarray, reach_mm: float = np.inf) -> np.ndarray:
    """Return mm from each voxel of the mask to the nearest outside it; beyond the volume counts as inside.

    What is further than reach_mm may be given as infinity, so that only the neighbourhood is computed.
    """
    if mask.all():
        return np.full(mask.shape, np.inf)
    if not mask.any():
        return np.zeros(mask.shape)
    box = _box(mask, np.ones(3, int))
    if np.isfinite(reach_mm):
        outside = _box(~mask, np.ceil(reach_mm / sizes).astype(int) + 1)
        box = tuple(
            slice(max(one.start, other.start), min(one.stop, other.stop))
            for one, other in zip(box, outside, strict=True)
        )
    found = np.where(mask, np.inf, 0.0)
    if all(part.start < part.stop for part in box) and not mask[box].all():
        found[box] = ndimage.distance_transform_edt(mask[box], sizes)
    return found


def _box(mask: np.ndarray, margin: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of a mask (X, Y, Z) that is not empty, with so many voxels more on each side."""
    box = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))
        box.append(slice(max(0, seen[0] - margin[axis]), seen[-1] + 1 + margin[axis]))
    return tuple(box)


def _largest(mask: np.ndarray) -> np.ndarray:
    label, count = ndimage.label(mask)
    if not count:
        return mask
    return label == 1 + np.argmax(np.bincount(label.ravel())[1:])


def _fill(mask: np.ndarray) -> np.ndarray:
    """Fill holes slice by slice: ventricles open downwards into cisterns, but not within a slice."""
    return np.stack([ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], 2)


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that splits the histogram into the two tightest classes (Otsu 1979)."""
    top = np.percentile(values[values > 0], 99.5)
    counts, edges = np.histogram(values, 256, (0, top))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[np.nanargmax(between)])


def left_over(dwi: Volume, brain: np.ndarray, b0: Volume | None = None) -> np.ndarray | None:
    """Return the mask of what another tool has left of the head, or None where the skull is still there.

    A scan is stripped where most of it is zero and the rest is little more than the brain found in it, and about it:
    `brain` (X, Y, Z) would only be an eroded copy. Zeros alone do not say so: scanners suppress the background too.

    b0: given where `brain` may lack a large part of a stripped one, as BET's may; then the same zeros on both suffice.
    """
    if not is_stripped(dwi.data):
        return None
    sizes = voxel_sizes(dwi.affine)
    left, voxel_ml = _fill(_largest(ndimage.binary_opening(dwi.data > 0, iterations=1))), np.prod(sizes) / 1000
    if left.sum() >= STRIPPED * brain.sum():
        return None
    away = left & (depth(~brain, sizes, AWAY_MM) > AWAY_MM)
    if away.sum() * voxel_ml <= MOST_AWAY_ML:
        return left
    seen = [scan.data > 0 for scan in (dwi, b0) if scan]
    return left if b0 and 2 * (seen[0] & seen[1]).sum() >= SAME_ZEROS * (seen[0].sum() + seen[1].sum()) else None


def is_stripped(signal: np.ndarray) -> bool:
    """Tell whether so much of a scan is zero that its skull may have been removed, or all that is dark."""
    return bool(np.mean(np.abs(signal) < 1e-3 * np.percentile(signal, 99)) > STRIPPED_ZEROS)
