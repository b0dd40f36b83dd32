"""From volumes to hemispheres and back: the only place where NIfTI axes and tensor axes meet.

In:  volumes (..., X, Y, Z) on the atlas grid, X growing to the patient's right, midline between X/2 - 1 and X/2.
Out: hemispheres (2, ..., D, H, W): left, then right mirrored; slice D = z, row H = y, column W with the midline last.
Paper: 2.3 (split at the midsagittal plane, right hemisphere flipped onto the left one; 112 x 224 x 26).
See: tests/data/test_hemispheres.py
"""

import numpy as np

CHANNELS = ("dwi", "t2w", "flair")  # paper Fig. 4; section 2.3 lists them in another order (decision 1)
CEILING = {"dwi": 4.0, "t2w": 8.0, "flair": 3.0}  # our choice: 1.0 of the unit scale, in medians of healthy brain.
# Acute lesions reach 3 on DWI and 2 on FLAIR, CSF 4-5 on b0: only artefacts are clipped. Not higher for DWI and
# FLAIR, since b0's bright CSF would then drown what they show: with 6 (DWI), 6 (b0) and 5 (FLAIR) phase 1 learned from
# DWI at half the pace.


def split(volumes: np.ndarray) -> np.ndarray:
    """Split (..., X, Y, Z) at the midline into (2, ..., D, H, W) hemispheres, both with the midline at column W - 1.

    Raises ValueError: X is odd.
    """
    if volumes.shape[-3] % 2:
        raise ValueError(f"{volumes.shape[-3]} columns cannot be halved")
    flipped = np.moveaxis(volumes, (-3, -1), (-1, -3))  # (..., D, H, X)
    half = volumes.shape[-3] // 2
    return np.stack([flipped[..., :half], flipped[..., : half - 1 : -1]])


def join(hemispheres: np.ndarray) -> np.ndarray:
    """Join (2, ..., D, H, W) hemispheres to (..., X, Y, Z): the inverse of `split`."""
    left, right = hemispheres
    return np.moveaxis(np.concatenate([left, right[..., ::-1]], -1), (-1, -3), (-3, -1))


def to_unit(volume: np.ndarray, channel: str) -> np.ndarray:
    """Map a matched volume to [0, 1] by the channel's fixed ceiling; healthy brain lies near 1 / CEILING."""
    return np.clip(volume / np.float32(CEILING[channel]), 0, 1)
