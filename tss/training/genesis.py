"""Models Genesis: four ways to distort a volume, so that a network which restores it learns anatomy without labels.

In:  volume (C, D, H, W) float32 in [0, 1], and an rng.
Out: a distorted copy, same shape, values in [0, 1].
Paper: section 2.2; the distortions are those of Zhou et al. 2019 (Models Genesis), section 2, reimplemented.
See: tests/training/test_genesis.py
"""

import numpy as np

# Zhou 2019: how often each distortion is applied. Painting is out-painting four times in five.
NONLINEAR_RATE, SHUFFLE_RATE, PAINT_RATE, OUT_PAINT_SHARE = 0.9, 0.5, 0.9, 0.8
# No flips (Zhou 2019: 0.4): every hemisphere has its midline at the last column, on purpose (paper 2.3).
LEVELS = 4096  # of the intensity curve's table: volumes are stored as float16, whose steps above 0.5 are twice as large
LARGEST_WINDOW = 10  # a shuffled window's side is at most 1/10 of the volume's
MOST_PAINTED, GO_ON = 5, 0.95  # up to 5 boxes, each but the first drawn with this chance


def distort(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distort a volume (C, D, H, W) in [0, 1]; the input is not changed.

    All channels share the places that are shuffled or painted, since they show the same tissue; each has its own
    intensity curve and its own noise, since each is its own contrast.
    """
    distorted = volume.astype(np.float32)
    if rng.random() < SHUFFLE_RATE:
        distorted = shuffle_locally(distorted, rng)
    if rng.random() < NONLINEAR_RATE:
        distorted = bend_intensities(distorted, rng)
    if rng.random() < PAINT_RATE:
        paint = paint_outside if rng.random() < OUT_PAINT_SHARE else paint_inside
        distorted = paint(distorted, rng)
    return distorted


def bend_intensities(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map each channel's intensities through a random monotonic Bezier curve; half of the curves turn dark to bright.

    The curve goes from (0, 0) to (1, 1) with two random control points, sorted so that it is a function:
    B(t) = 3 (1-t)^2 t p1 + 3 (1-t) t^2 p2 + t^3.
    """
    t = np.linspace(0, 1, 1000)
    blend = np.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])  # (3, 1000)
    levels = np.linspace(0, 1, LEVELS)
    bent = np.empty_like(volume)
    for channel, out in zip(volume, bent, strict=True):
        x, y = (np.sort(np.array([*rng.random(2), 1.0]) @ blend) for _ in "xy")
        if rng.random() < 0.5:
            y = y[::-1]
        table = np.interp(levels, x, y).astype(np.float32)
        np.take(table, (channel * (LEVELS - 1) + 0.5).astype(np.intp), out=out, mode="clip")
    return bent


def shuffle_locally(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the voxels inside small windows; the windows are half of the cells of one random tiling.

    Zhou 2019 draws 10,000 windows one by one, which may overlap. A tiling covers as much without a loop over
    windows (our choice).
    """
    corner, cells, sides = [], [], []
    for length in volume.shape[1:]:
        side = int(rng.integers(1, max(1, length // LARGEST_WINDOW), endpoint=True))
        sides.append(side)
        cells.append(length // side)
        corner.append(int(rng.integers(length - length // side * side, endpoint=True)))
    tiled = tuple(slice(start, start + n * side) for start, n, side in zip(corner, cells, sides, strict=True))

    (nd, nh, nw), (d, h, w) = cells, sides
    windows = volume[:, *tiled].reshape(-1, nd, d, nh, h, nw, w).transpose(0, 1, 3, 5, 2, 4, 6)
    windows = windows.reshape(len(volume), nd * nh * nw, d * h * w)  # (C, window, voxel), a copy
    chosen = np.flatnonzero(rng.random(nd * nh * nw) < 0.5)
    order = rng.permuted(np.broadcast_to(np.arange(d * h * w, dtype=np.intp), (len(chosen), d * h * w)), axis=1)
    for channel in windows:
        channel[chosen] = np.take_along_axis(channel[chosen], order, axis=1)
    shuffled = volume.copy()
    windows = windows.reshape(-1, nd, nh, nw, d, h, w).transpose(0, 1, 4, 2, 5, 3, 6)
    shuffled[:, *tiled] = windows.reshape(len(volume), nd * d, nh * h, nw * w)
    return shuffled


def paint_inside(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill up to five boxes, each a sixth to a third of the volume's sides, with noise."""
    painted = volume.copy()
    for box in random_boxes(volume.shape[1:], (1 / 6, 1 / 3), rng):
        sides = [side.stop - side.start for side in box]
        painted[:, *box] = rng.random((len(volume), *sides), dtype=np.float32)
    return painted


def paint_outside(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill all but up to five boxes, each 3/7 to 4/7 of the volume's sides, with noise."""
    painted = rng.random(volume.shape, dtype=np.float32)
    for box in random_boxes(volume.shape[1:], (3 / 7, 4 / 7), rng):
        painted[:, *box] = volume[:, *box]
    return painted


def random_boxes(
    shape: tuple[int, int, int], share: tuple[float, float], rng: np.random.Generator
) -> list[tuple[slice, ...]]:
    """One to five boxes inside a volume (D, H, W), as slices; each side is a random share of the volume's."""
    boxes: list[tuple[slice, ...]] = []
    while len(boxes) < MOST_PAINTED and (not boxes or rng.random() < GO_ON):
        sides = [max(1, round(length * rng.uniform(*share))) for length in shape]
        starts = [int(rng.integers(length - side, endpoint=True)) for length, side in zip(shape, sides, strict=True)]
        boxes.append(tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))
    return boxes
