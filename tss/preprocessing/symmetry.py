"""What is left of the bias field, told by symmetry: healthy brain is as bright on the left as on the right.

In:  volumes (X, Y, Z) on the atlas grid, midline in the middle of X, each without the bias field found in it alone.
Out: the same volumes, without what smoothly differs between the sides; a lesion keeps its ratio to its mirror image.
Paper: 2.1 (bias field correction); 2.3 compares the hemispheres, so what differs between them must be the stroke.
See: tests/preprocessing/test_symmetry.py
"""

import numpy as np
from scipy import ndimage

from tss.data.hemispheres import CHANNELS
from tss.data.nifti import block_means
from tss.preprocessing import smooth_field

# Our choice: weight of the stiffness against a pair of blocks. Three times as much leaves a quarter more of the error
# in 84 heads of another anatomy; a third of it a sixth less there, but a sixth more on DWI in 12 hard phantoms.
TRUST = 1e-3
ALIKE = (0.08, 0.05, 0.03, 0.03)  # our choice: difference of log intensities within a tissue, in each round
BLOCK_MM = 3.5  # our choice: blocks are about so wide; blurring further mixes the lesion with its surroundings
FEWEST = 100  # our choice: pairs of blocks; from fewer nothing is told
LOPSIDED = 0.1  # our choice: where log DWI differs more between the sides, there is a lesion
AROUND = 3  # our choice: blocks along each axis that this is averaged over, since every cortex is folded in its own way


def balance(volumes: dict[str, np.ndarray], mask: np.ndarray, voxel_mm: np.ndarray) -> dict[str, np.ndarray]:
    """Divide each volume by the smooth field that makes one side brighter than the other (decision 10).

    Blocks of the brain are compared with their mirror images. Those that differ by more than a field explains do not
    count, and in no sequence does what differs on DWI: a large lesion that is faint would be taken for a field.

    volumes: channel -> (X, Y, Z) float32, values >= 0, midline between X/2 - 1 and X/2.
    mask: (X, Y, Z) bool, the brain. voxel_mm: (3,), sizes along X, Y, Z.

    Returns channel -> (X, Y, Z) float32. A volume of which too little has a mirror image is returned as it came.
    """
    half = mask.shape[0] // 2
    factor = np.maximum(1, np.round(BLOCK_MM / voxel_mm)).astype(int)
    paired = mask[:half] & mask[::-1][:half]
    inside = block_means(paired, factor) > 0.5
    # Odd along X: by how much the field raises the left side's logarithm it lowers the right side's.
    orders = [order for order in smooth_field.all_orders() if order[0] % 2]
    healthy, balanced = inside, dict(volumes)
    for name in CHANNELS:
        volume = volumes[name]
        left, right = (block_means(np.where(paired, side, 0), factor) for side in (volume[:half], volume[::-1][:half]))
        signal = inside & (left > 0) & (right > 0)
        if (healthy & signal).sum() < FEWEST:
            continue
        blocks, voxels = _positions(inside, factor, half, mask.shape)
        differences = np.log(np.where(signal, left, 1) / np.where(signal, right, 1))
        slopes = 2 * smooth_field.at_blocks(orders, blocks, np.argwhere(signal).T)
        stiff, coefficients = TRUST * smooth_field.stiffness_of(orders) * len(slopes), np.zeros(len(orders))
        for alike in ALIKE:
            if name == "dwi":
                left_over = differences - 2 * smooth_field.on_lattice(orders, coefficients, blocks)
                healthy = ~_lopsided(left_over, signal)
            seen = healthy[signal]
            coefficients = smooth_field.refit(coefficients, slopes[seen], differences[signal][seen], alike, stiff)
        field = smooth_field.on_lattice(orders, coefficients, voxels)
        balanced[name] = volume / np.exp(np.concatenate([field, -field[::-1]]))
    return balanced


def _lopsided(differences: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Tell where log DWI differs between the sides, (X/2, Y, Z) bool: in the mean of the blocks around, not in one."""
    share, total = (ndimage.uniform_filter(np.where(signal, values, 0.0), AROUND) for values in (1.0, differences))
    return np.abs(total) > LOPSIDED * share


def _positions(
    inside: np.ndarray, factor: np.ndarray, half: int, shape: tuple
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return positions along X, Y, Z of the blocks, and of the left side's voxels, in the box of what is `inside`:

    -1 to 0, the midline, along X, and -1 to 1 along Y and Z; beyond the box as on its face.
    """
    blocks: list[np.ndarray] = []
    voxels: list[np.ndarray] = []
    for axis, (step, length) in enumerate(zip(factor, (half, *shape[1:]), strict=True)):
        seen = np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))
        low, high = seen[0] * step, (seen[-1] + 1) * step
        middle = half if axis == 0 else (low + high) / 2
        for found, at in ((blocks, (np.arange(inside.shape[axis]) + 0.5) * step), (voxels, np.arange(length) + 0.5)):
            found.append(np.clip((at - middle) / (middle - low), -1, 1))
    return blocks, voxels
