"""Figures that say whether a patient's preprocessing can be believed, and flags where not.

In:  what preprocessing found for one patient: scans as they came, volumes on the atlas grid (X, Y, Z), affines.
Out: figures (numbers), histograms, flags (short sentences).
Paper: 2.1 ("a visual quality check was manually performed for all cases"; the flags say where to look first).
See: tests/preprocessing/test_quality_control.py
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage
from scipy.linalg import polar

from tss.data.nifti import Volume

EVERY = 10  # our choice: of so many voxels one is looked at for the field of view
LEVELS = 32  # our choice: histogram bins of the correlation ratio
FEWEST_PAIRS = 10  # our choice: of lesion voxels with a mirror, for a contrast to be more than noise
BINS = np.linspace(0, 3, 61)  # our choice: edges of the histograms, in medians; on T2w CSF lies beyond

# figure: lowest and highest that are believed, and what to say beyond. Our choice, from two real patients and ten
# phantoms: aligned, overlap was 0.91 to 0.95, similarity to the atlas 0.10 to 0.42, of FLAIR and b0 0.29 to 0.85;
# moved by 15 mm or turned by 20 degrees, overlap 0.84 to 0.89, similarity below 0.04 and below 0.06. Turned by right
# angles against the header, similarity below 0.06 and below 0.04. FLAIR as it is resembles b0 better by 0.16 to 0.53
# than with its sides exchanged. A whole head that is mirrored cannot be told by any of this: brains are symmetric. Of a
# lesion's contrast 0.83 to 1.11 was kept in 40 phantoms, 0.99 or more of it in the mask: the raw scan has the coil's
# bias, and the grid blurs small lesions. On FLAIR the result was nearer to the true ratio than the raw scan (0.03
# against 0.05).
LIMITS = {
    "brain_ml": (900, 2000, "brain mask of {:.0f} ml: part of the brain is missing, or more than brain is in it"),
    "atlas_overlap": (0.88, 1, "brain and atlas overlap by a Dice of {:.2f} only: mask or registration is wrong"),
    "atlas_similarity": (0.06, 1, "b0 and atlas hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_similarity": (0.15, 1, "FLAIR and b0 hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_side": (-0.05, 1, "FLAIR fits b0 better with left and right exchanged ({:+.2f}): one of them is mirrored"),
    "dwi_coverage": (0.93, 1, "the DWI shows {:.0%} of the brain: its field of view is cut"),
    "flair_coverage": (0.93, 1, "the FLAIR shows {:.0%} of the brain: its field of view is cut"),
    "turn_deg": (0, 35, "the head is turned by {:.0f} degrees against the atlas: check left and right"),
    "flair_turn_deg": (0, 30, "FLAIR and b0 are turned by {:.0f} degrees against each other: check left and right"),
    "dwi_contrast_kept": (0.8, 1.25, "the lesion's contrast on DWI is {:.2f} of the raw scan's"),
    "flair_contrast_kept": (0.8, 1.25, "the lesion's contrast on FLAIR is {:.2f} of the raw scan's"),
    "lesion_in_mask": (0.9, 1, "{:.0%} of the lesion lies in the brain mask: the mask has eaten the rest"),
    "size": (0.75, 1.3, "the brain had to be scaled by {:.2f} to fit the atlas: mask or registration is wrong"),
}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks; 0 where both are empty."""
    return float(2 * np.count_nonzero(one & other) / max(np.count_nonzero(one) + np.count_nonzero(other), 1))


def similarity(fixed: np.ndarray, moving: np.ndarray) -> float:
    """Return the correlation ratio: the share of moving's variance that fixed explains, 0..1 (Roche 1998)."""
    low, high = np.percentile(fixed, [1, 99])
    bins = ((fixed - low) / max(high - low, 1e-6) * (LEVELS - 1)).clip(0, LEVELS - 1).astype(int)
    moving = np.minimum(moving, np.percentile(moving, 99)).astype(np.float64)
    count = np.bincount(bins, minlength=LEVELS)
    mean = np.bincount(bins, moving, LEVELS) / np.maximum(count, 1)
    return float(np.sum(count * (mean - moving.mean()) ** 2) / max(moving.size * moving.var(), 1e-12))


def turn_deg(affine: np.ndarray) -> float:
    """Return by how many degrees a (4, 4) world affine turns the head about any axis; 180 where it mirrors it."""
    rotation, _ = polar(affine[:3, :3])
    if np.linalg.det(rotation) < 0:
        return 180.0
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def size(affine: np.ndarray) -> float:
    """Return the mean scale of a (4, 4) affine."""
    return float(abs(np.linalg.det(affine[:3, :3])) ** (1 / 3))


def coverage(scan: Volume, world: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the share of a mask (X, Y, Z) that lies in a scan's field of view.

    world: (4, 4), mm of the scan -> mm of the mask's space; affine: (4, 4), voxel -> mm of the mask.
    """
    matrix = np.linalg.inv(world @ scan.affine) @ affine
    place = matrix[:3, :3] @ np.argwhere(mask)[::EVERY].T + matrix[:3, 3:]
    return float(((place > -0.5) & (place < np.array(scan.data.shape)[:, None] - 0.5)).all(0).mean())


def mirrored_pairs(lesion: Volume, mask: np.ndarray, affine: np.ndarray, world: np.ndarray) -> tuple:
    """Return the places of lesion voxels and of their mirror images, for those that have both in the brain mask.

    lesion: mask in its own space; mask (X, Y, Z) and affine: the brain on the atlas grid, midline at x = 0 mm (MNI);
    world: (4, 4), mm of the lesion -> mm of the atlas. A mirror image that is lesion itself is none.

    Returns:
        two (3, N) arrays in mm of the atlas, and the share of the lesion that lies in the mask, 0..1.
    """
    index = np.argwhere(lesion.data > 0).T
    here = _moved(world @ lesion.affine, index)
    mirror = here * [[-1], [1], [1]]
    in_mask = _value(mask, np.linalg.inv(affine), here, 0) > 0
    paired = in_mask & (_value(mask, np.linalg.inv(affine), mirror, 0) > 0)
    paired &= _value(lesion.data, np.linalg.inv(world @ lesion.affine), mirror, 0) <= 0
    return here[:, paired], mirror[:, paired], float(in_mask.mean()) if in_mask.size else 0.0


def contrast(scan: Volume, world: np.ndarray, lesion: np.ndarray, mirror: np.ndarray) -> float:
    """Return a scan's mean at the lesion's places over its mean at their mirror images, each (3, N) in mm of the atlas.

    world: (4, 4), mm of the scan -> mm of the atlas.
    """
    to_voxel = np.linalg.inv(world @ scan.affine)
    here, there = (_value(scan.data, to_voxel, places, 1).mean() for places in (lesion, mirror))
    return float(here / max(there, 1e-6))


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return matrix[:3, :3] @ points + matrix[:3, 3:]


def _value(volume: np.ndarray, to_voxel: np.ndarray, places: np.ndarray, order: int) -> np.ndarray:
    return ndimage.map_coordinates(volume.astype(np.float32, copy=False), _moved(to_voxel, places), order=order)


def histogram(values: np.ndarray) -> np.ndarray:
    """Return the shares (60,) of values, in medians, that lie in each of BINS."""
    return np.histogram(values, BINS)[0] / max(values.size, 1)


def flags(figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each figure beyond its limits."""
    return [
        sentence.format(figures[name])
        for name, (low, high, sentence) in LIMITS.items()
        if name in figures and not low <= figures[name] <= high
    ]
