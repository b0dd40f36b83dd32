"""Intensities made comparable: no bias field, healthy brain at the reference's level, lesions as bright as before.

In:  a scan (X, Y, Z) in the scanner's units and its brain mask.
Out: the same scan without bias field; then healthy brain matched to the reference patient's, in healthy medians.
Paper: 2.1 (N4 bias correction, normalisation, histogram matching to a reference study).
See: tests/preprocessing/test_intensity.py
"""

import numpy as np

from tss.preprocessing import smooth_field

BLOCKS = (50, 60, 26)  # our choice: blocks of the brain's bounding box, about this many, 3 mm wide and 5 to 6 high
CALM = 0.25  # our choice: share of the blocks that are kept, nearly all of it white matter
REACH = 1 / 6  # our choice: two blocks are compared if no further apart than this part of the box, some 25 mm
PAIRS = 5000  # our choice: compared; another draw moves the field by 0.3 %
ALIKE = (0.05, 0.03, 0.02, 0.02)  # our choice: difference of log intensities within a tissue, in each round; grey and
# white matter, or a lesion and its surroundings, differ by 0.1 and more. In the first round the field is still in it.
STRONG = 0.15  # SD of the log of a strong field, the first round's guess
WEAK = 0.005  # our choice: SD below which a field is negligible
TRUST = 3e-7  # our choice: weight of the stiffness against a pair of blocks. Measured by tests/benchmarks/bias.py
FEWEST = 100  # our choice: blocks; with fewer a field cannot be distinguished from anatomy, and none is removed
DARKEST = 0.05  # our choice: fraction of the median below which a voxel is noise or a hole, not signal

ENOUGH = 50_000  # our choice: voxels to take percentiles of; ten times as many move them by less than 0.2 %
PERCENTILES = (5, 10, 25, 50, 75, 90, 95)  # our choice: landmarks within the healthy bulk
BULK = 2.5  # our choice: healthy bulk = median +- so many robust standard deviations; lesions and CSF lie outside
MOST_STRETCH = 0.02  # our choice: matching changes a gain by 2 % at most, so any contrast by 4 %


def correct_bias(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Divide out the smooth multiplicative field that `bias_field` finds. The mean inside the mask is kept.

    volume: (X, Y, Z), values >= 0.
    mask: (X, Y, Z), the brain: bool, or numbers that are above 0 in it.

    Returns (X, Y, Z) float32; outside the mask the field continues smoothly.

    Raises ValueError: the mask is empty, or the volume has no positive value in it.
    """
    return (volume / bias_field(volume, mask)).astype(np.float32)


def bias_field(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Estimate the coil's field in the log domain inside the brain (decision 10).

    N3 and N4 remove whatever blurs the histogram of the whole brain, and with it gradients of the anatomy: cortex is
    brighter than white matter, a lesion brighter than both. Here only neighbours are compared. Where the image is
    homogeneous, two blocks that look alike are of one tissue, and what they still differ by is the field; two that
    do not (across the edge of a lesion) do not count. The field is a polynomial, the stiffer the weaker it turns out
    to be, since what anatomy mimics does not grow with the field.

    Args and errors as for `correct_bias`.

    Returns:
        (X, Y, Z) float32, > 0, such that volume and volume / field have the same mean in the mask; 1 where the mask
        is too small or too scattered for an estimate.
    """
    mask = np.asarray(mask) > 0  # as NIfTI has masks: numbers
    if not (volume[mask] > 0).any():
        raise ValueError("no brain to estimate a bias field in")
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(mask))
    logs, inside, positions = _blocks(volume[box], mask[box])
    if inside.sum() < FEWEST:
        return np.ones(volume.shape, np.float32)
    orders = smooth_field.all_orders()
    rng = np.random.default_rng(0)
    coefficients, strength = np.zeros(len(orders)), STRONG
    for alike in ALIKE:
        field = smooth_field.on_lattice(orders, coefficients, positions)
        calm, smoothed = _calm(logs - field, inside, 2 * alike)
        first, second = _pairs(calm, rng)
        slopes = smooth_field.at_blocks(orders, positions, first) - smooth_field.at_blocks(orders, positions, second)
        steps = (smoothed + field)[tuple(first)] - (smoothed + field)[tuple(second)]
        stiff = TRUST / strength**2 * smooth_field.stiffness_of(orders) * max(1, len(steps))
        coefficients = smooth_field.refit(coefficients, slopes, steps, alike, stiff)
        strength = max(WEAK, smooth_field.on_lattice(orders, coefficients, positions)[inside].std())

    voxels = [
        np.clip(2 * (np.arange(length) - part.start) / max(part.stop - part.start - 1, 1) - 1, -1, 1)
        for length, part in zip(volume.shape, box, strict=True)
    ]  # beyond the box the field stays as on its face
    field = np.exp(smooth_field.on_lattice(orders, coefficients, voxels))
    return field * ((volume[mask] / field[mask]).mean(dtype=np.float64) / volume[mask].mean(dtype=np.float64))


def _blocks(volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Average blocks of brain voxels: log means, which are brain, and their positions in -1..1 along each axis."""
    factor = np.maximum(1, np.round(np.array(volume.shape) / BLOCKS)).astype(int)
    padding = [(0, -length % step) for length, step in zip(volume.shape, factor, strict=True)]
    signal = mask & (volume > DARKEST * np.median(volume[mask]))
    shape = [
        part
        for length, (_, more), step in zip(volume.shape, padding, factor, strict=True)
        for part in ((length + more) // step, step)
    ]
    total, count = (
        np.pad(data, padding).reshape(shape).sum((1, 3, 5), dtype=np.float64)
        for data in (np.where(signal, volume, 0), signal)
    )
    inside = count > 0.5 * np.prod(factor)
    logs = np.log(np.where(inside, total, 1) / np.maximum(count, 1)).astype(np.float32)
    centres = [
        np.minimum(np.arange(n) * step + (step - 1) / 2, length - 1)
        for n, step, length in zip(inside.shape, factor, volume.shape, strict=True)
    ]
    return logs, inside, [2 * at / max(length - 1, 1) - 1 for at, length in zip(centres, volume.shape, strict=True)]


def _calm(flat: np.ndarray, inside: np.ndarray, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the CALM share of blocks that resemble most of their 26 neighbours, and each block's mean with those."""
    flat = np.where(inside, flat, np.nan)  # like nothing
    total, count = flat.copy(), np.ones(flat.shape, np.float32)
    for offset in np.ndindex(3, 3, 3):
        if offset > (1, 1, 1):  # each pair once
            here = tuple(slice(max(0, 1 - k), n - max(0, k - 1)) for k, n in zip(offset, flat.shape, strict=True))
            there = tuple(slice(max(0, k - 1), n - max(0, 1 - k)) for k, n in zip(offset, flat.shape, strict=True))
            close = np.abs(flat[here] - flat[there]) < alike
            total[here] += np.where(close, flat[there], 0)
            total[there] += np.where(close, flat[here], 0)
            count[here] += close
            count[there] += close
    return inside & (count >= np.quantile(count[inside], 1 - CALM)), np.where(inside, total / count, 0)


def _pairs(calm: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to PAIRS pairs of calm blocks within REACH: indices (3, N) of the first and of the second."""
    blocks = np.argwhere(calm)
    first = blocks[rng.integers(len(blocks), size=3 * PAIRS)]
    apart = rng.uniform(-1, 1, first.shape)
    second = first + np.round(apart * np.maximum(1, REACH * np.array(calm.shape))).astype(int)
    valid = (np.sum(apart**2, 1) < 1) & (second >= 0).all(1) & (second < calm.shape).all(1)
    first, second = first[valid], second[valid]
    valid = calm[tuple(second.T)] & (first != second).any(1)
    return first[valid][:PAIRS].T, second[valid][:PAIRS].T


def find_landmarks(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return percentiles (7,) of the healthy bulk of the brain, in the volume's units, increasing.

    The bulk is found by cutting off both tails around the median until nothing more is cut (at most 10 times), so
    that a lesion of a fifth of the brain hardly moves the landmarks.

    Raises ValueError: fewer than 100 positive values in the mask, or they do not vary.
    """
    values = volume[mask]
    values = values[values > 0]
    values = values[:: max(1, values.size // ENOUGH)]
    for _ in range(10):
        if values.size < 100:
            raise ValueError("fewer than 100 brain voxels with signal")
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        kept = values[np.abs(values - middle) <= BULK * spread]
        if kept.size == values.size:
            break
        values = kept
    landmarks = np.percentile(values, PERCENTILES).astype(np.float64)
    if not (np.diff(landmarks) > 0).all():
        raise ValueError("all brain voxels have the same value")
    return landmarks


def match(volume: np.ndarray, mask: np.ndarray, landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Bring healthy brain to the reference's histogram, in medians of healthy brain; 0 outside the mask.

    Between landmarks intensities are interpolated; below the lowest and above the highest the gain stays, so a lesion
    keeps its ratio to its mirror side (decision 9). No gain differs from the median's by more than MOST_STRETCH.

    volume: (X, Y, Z); mask: (X, Y, Z) bool.
    landmarks, reference: (7,), this patient's and the reference patient's, each in its own scanner units.
    """
    own = landmarks / landmarks[3]
    aim = np.clip(reference / reference[3], own * (1 - MOST_STRETCH), own * (1 + MOST_STRETCH))
    scaled = volume / np.float32(landmarks[3])
    matched = np.interp(scaled, own, aim)
    matched = np.where(scaled < own[0], scaled * (aim[0] / own[0]), matched)
    matched = np.where(scaled > own[-1], scaled * (aim[-1] / own[-1]), matched)
    return np.where(mask, matched, 0).astype(np.float32)
