"""Intensities made comparable: bias field out, healthy brain at the reference's level, lesions as bright as they were.

In:  a scan (X, Y, Z) in the scanner's units and its brain mask.
Out: the same scan without bias field; then healthy brain matched to the reference patient's; then [0, 1].
Paper: 2.1 (N4 bias correction, normalisation, histogram matching to a reference study), 2.3 (channels in 0..1).
See: tests/test_intensity.py
"""

import numpy as np
from numpy.polynomial import legendre

DEGREE = 4  # our choice: of the field's polynomial. A coil's field has a few extrema across a head, no more
SAMPLES = (40, 40, 26)  # our choice: the field is fitted on blocks of the brain's bounding box, about so many
ROUNDS = 25  # our choice: the field changes by less than 0.1 % after it
BLUR_LOG = 0.15  # Sled 1998: width (FWHM, in log units) of what a bias field does to a histogram
NOISE = 0.01  # Sled 1998: of the Wiener filter that takes this blur away
STIFFNESS = 1e-3  # our choice: times order^4, holds down the high orders, which otherwise learn lesions and lobes
OUTLIER = 3.0  # our choice: in robust standard deviations; what lies beyond (lesion, CSF) does not pull at the field
DARKEST = 0.05  # our choice: fraction of the median below which a voxel is no signal but noise or a hole

ENOUGH = 50_000  # our choice: voxels to take percentiles of; ten times as many move them by less than 0.2 %
PERCENTILES = (5, 10, 25, 50, 75, 90, 95)  # our choice: landmarks within the healthy bulk
BULK = 2.5  # our choice: healthy bulk = median +- so many robust standard deviations; lesions and CSF lie outside
MOST_STRETCH = 0.04  # our choice: matching changes a gain by 4 % at most, so any contrast by 8 % (DESIGN 7: 10 %)
CEILING = {"dwi": 4.0, "t2w": 8.0, "flair": 3.0}  # our choice: 1.0 of the unit scale, in medians of healthy brain.
# Acute lesions reach 3 on DWI and 2 on FLAIR, CSF 4-5 on b0: nothing but artefact is clipped. No higher than that,
# since b0's bright CSF would drown what the other two show: with 6, 6 and 5 phase 1 learned from DWI at half the pace.


def correct_bias(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Divide out a smooth multiplicative field, estimated in the log domain inside the brain (DESIGN 3.10).

    As in N3/N4 the field is what must be taken away to sharpen the histogram; it is a polynomial, and voxels far
    from the bulk (a lesion, CSF) have no say in it. The mean inside the mask is kept.

    Args:
        volume: (X, Y, Z), values >= 0.
        mask: (X, Y, Z) bool, the brain.

    Returns:
        (X, Y, Z) float32; outside the mask the field goes on smoothly.

    Raises:
        ValueError: the mask is empty, or the volume has no positive value in it.
    """
    if not (volume[mask] > 0).any():
        raise ValueError("no brain to estimate a bias field in")
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(mask))
    values, positions = _blocks(volume[box], mask[box])
    logs = np.log(values)
    basis = _basis(positions)  # (N, K)
    order = np.array([sum(powers) for powers in _powers()])
    stiff = STIFFNESS * len(logs) * np.diag(order.astype(float) ** 4)

    coefficients = np.zeros(basis.shape[1])
    for _ in range(ROUNDS):
        flat = logs - basis @ coefficients
        weights = _inlying(flat)
        residual = logs - _sharpened(flat, weights)
        weighted = basis * weights[:, None]
        coefficients = np.linalg.solve(weighted.T @ basis + stiff, weighted.T @ residual)

    field = np.exp(_evaluate(coefficients, volume.shape, box))
    corrected = volume / field
    return (corrected * (volume[mask].mean() / corrected[mask].mean())).astype(np.float32)


def _blocks(volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average blocks of brain voxels: values (N,) and positions (N, 3) in -1..1 across the box."""
    factor = np.maximum(1, np.round(np.array(volume.shape) / SAMPLES)).astype(int)
    padding = [(0, -length % step) for length, step in zip(volume.shape, factor, strict=True)]
    signal = mask & (volume > DARKEST * np.median(volume[mask]))
    shape = [part for length, (_, more), step in zip(volume.shape, padding, factor, strict=True)
             for part in ((length + more) // step, step)]
    total, count = (np.pad(data, padding).reshape(shape).sum((1, 3, 5), dtype=np.float64)
                    for data in (np.where(signal, volume, 0), signal))
    full = count > 0.5 * np.prod(factor)
    centre = np.argwhere(full) * factor + (factor - 1) / 2
    return total[full] / count[full], 2 * centre / np.maximum(np.array(volume.shape) - 1, 1) - 1


def _powers() -> list[tuple[int, int, int]]:
    orders = range(DEGREE + 1)
    return [(i, j, k) for i in orders for j in orders for k in orders if 0 < i + j + k <= DEGREE]


def _basis(positions: np.ndarray) -> np.ndarray:
    along = [legendre.legvander(positions[:, axis], DEGREE) for axis in range(3)]
    return np.stack([along[0][:, i] * along[1][:, j] * along[2][:, k] for i, j, k in _powers()], 1)


def _inlying(logs: np.ndarray) -> np.ndarray:
    """Return 1 for the bulk, falling to 0 at OUTLIER robust standard deviations (Tukey's weights)."""
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle)) + 1e-6
    return np.clip(1 - ((logs - middle) / (OUTLIER * spread)) ** 2, 0, 1) ** 2


def _sharpened(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what each log intensity would be without the field's blur of the histogram: E[true | seen] (Sled 1998)."""
    low, high = logs.min(), logs.max()
    bins = 200
    width = (high - low) / (bins - 1) + 1e-9
    place = (logs - low) / width
    size = 512  # bins padded, so that the ends of the histogram do not wrap round onto each other
    histogram = np.bincount(place.astype(int) + 100, weights, size)
    offsets = np.minimum(np.arange(size), size - np.arange(size)) * width
    blur = np.exp(-4 * np.log(2) * (offsets / BLUR_LOG) ** 2)
    blur = np.fft.rfft(blur / blur.sum())
    wiener = blur.conj() / (np.abs(blur) ** 2 + NOISE)
    sharp = np.clip(np.fft.irfft(np.fft.rfft(histogram) * wiener, size), 0, None)
    centres = low + (np.arange(size) - 100) * width
    top = np.fft.irfft(np.fft.rfft(sharp * centres) * blur, size)
    bottom = np.fft.irfft(np.fft.rfft(sharp) * blur, size)
    expected = np.where(bottom > 1e-6 * bottom.max(), top / np.maximum(bottom, 1e-12), centres)
    return np.interp(place + 100, np.arange(size), expected)


def _evaluate(coefficients: np.ndarray, shape: tuple, box: tuple) -> np.ndarray:
    """Return the log field (X, Y, Z). Beyond the brain's box it stays as it is at the box's face."""
    tensor = np.zeros((DEGREE + 1,) * 3)
    for coefficient, powers in zip(coefficients, _powers(), strict=True):
        tensor[powers] = coefficient
    for length, part in zip(shape, box, strict=True):
        position = np.clip(2 * (np.arange(length) - part.start) / max(part.stop - part.start - 1, 1) - 1, -1, 1)
        tensor = np.tensordot(tensor, legendre.legvander(position, DEGREE), (0, 1)).astype(np.float32)
    return tensor


def find_landmarks(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return percentiles (7,) of the healthy bulk of the brain, in the volume's units, increasing.

    The bulk is found by cutting both tails off around the median until nothing more falls away, so that a lesion
    of a fifth of the brain hardly moves the landmarks.

    Raises:
        ValueError: there is no spread of positive values in the mask.
    """
    values = volume[mask]
    values = values[values > 0]
    values = values[::max(1, values.size // ENOUGH)]
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
        raise ValueError("brain voxels are all alike")
    return landmarks


def match(volume: np.ndarray, mask: np.ndarray, landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Bring healthy brain to the reference's histogram, in medians of healthy brain; 0 outside the mask.

    Between landmarks the gain runs linearly; below the lowest and above the highest it stays, so a lesion keeps
    its ratio to its mirror side (DESIGN 3.9). No gain differs from the median's by more than MOST_STRETCH.

    Args:
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


def to_unit(volume: np.ndarray, channel: str) -> np.ndarray:
    """Map a matched volume to [0, 1] by the channel's fixed ceiling; healthy brain lies near 1 / CEILING."""
    return np.clip(volume / np.float32(CEILING[channel]), 0, 1)
