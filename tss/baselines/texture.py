"""Texture of a region: how values are distributed, how neighbours differ, how long runs of equal values are.

In:  an image (X, Y, Z) and a region (X, Y, Z) bool; counts and runs also need the image in whole levels 0..LEVELS - 1.
Out: dicts name -> number, always finite: 4 moments; 21 features of co-occurrence; 11 of run lengths.
Paper: 3 and 4 (Lee et al. 2020). Haralick 1973, Soh 1999, Clausi 2002 (co-occurrence); Galloway 1975, Chu 1990,
       Dasarathy 1991 (runs); Ojala 2002 (local binary patterns).
See: tests/baselines/test_texture.py

All in the slice (X, Y), along four directions, since slices are thick. Different from Lee's code: runs are counted for
each direction separately and end at the region's border (there the counts of one direction continue into the next, and
a run that meets the border counts as 1); a gradient is per mm, so that grids agree.
"""

import numpy as np

LEVELS = 32  # Lee 2020
LONGEST = 32  # Lee 2020: longer runs count as this long
DIRECTIONS = ((1, 0), (1, 1), (0, 1), (-1, 1))  # steps in (X, Y): 0, 45, 90 and 135 degrees
RING = [(np.cos(a), np.sin(a)) for a in np.arange(8) * np.pi / 4]  # eight neighbours, radius 1 (Lee 2020)


def moments(values: np.ndarray) -> dict[str, float]:
    """Return mean, SD, skewness and kurtosis (3 = normal) of values (n,); the last two are 0 where all are equal."""
    values = values.astype(np.float64)
    mean, spread = values.mean(), values.std()
    alike = spread <= 1e-9 * max(abs(mean), 1e-9)
    z = np.zeros_like(values) if alike else (values - mean) / spread
    return {
        "mean": float(mean),
        "sd": float(spread),
        "skewness": float((z**3).mean()),
        "kurtosis": float((z**4).mean()),
    }


def gradient(image: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return the length of the gradient in the slice (X, Y, Z), per mm."""
    return np.hypot(np.gradient(image, voxel_mm[0], axis=0), np.gradient(image, voxel_mm[1], axis=1))


def quantised(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return whole levels 0..LEVELS - 1 (X, Y, Z) of equal width between low and high; values beyond are clipped."""
    width = max(high - low, 1e-9) / LEVELS
    return np.clip((image - low) // width, 0, LEVELS - 1).astype(np.int64)


def cooccurrence(levels: np.ndarray, region: np.ndarray, directions=DIRECTIONS, count: int = LEVELS) -> np.ndarray:
    """Return (count, count) symmetric counts of the levels of neighbours, both in the region, over all directions."""
    counts = np.zeros((count, count))
    for dx, dy in directions:
        here, there = _pairs(levels.shape, dx, dy)
        both = region[here] & region[there]
        np.add.at(counts, (levels[here][both], levels[there][both]), 1)
    return counts + counts.T


def _pairs(shape: tuple, dx: int, dy: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return slices (X, Y) such that volume[second] is volume[first] moved by the step."""

    def ends(step: int, length: int) -> tuple[slice, slice]:
        return (slice(max(0, -step), length - max(0, step)), slice(max(0, step), length + min(0, step)))

    (x0, x1), (y0, y1) = ends(dx, shape[0]), ends(dy, shape[1])
    return (x0, y0), (x1, y1)


def cooccurrence_features(counts: np.ndarray) -> dict[str, float]:
    """Return the 21 features of symmetric counts (levels, levels). Levels count from 1; entropies are natural.

    A region of one level (or of no neighbours) has correlation 1 and no information.
    """
    size = len(counts)
    p = counts / counts.sum() if counts.any() else np.eye(size) / size
    i, j = np.indices(p.shape) + 1
    apart = np.abs(i - j)
    margin = p.sum(1)
    mean = float((i * p).sum())
    variance = float(((i - mean) ** 2 * p).sum())
    sums = np.bincount((i + j).ravel(), p.ravel())
    differences = np.bincount(apart.ravel(), p.ravel())
    k, d = np.arange(len(sums)), np.arange(len(differences))
    joint, single, independent = _entropy(p), _entropy(margin), np.outer(margin, margin)
    crossed = -float((p * np.log(np.where(independent > 0, independent, 1))).sum())
    both = _entropy(independent)
    return {
        "energy": float((p**2).sum()),
        "entropy": joint,
        "dissimilarity": float((apart * p).sum()),
        "contrast": float((apart**2 * p).sum()),
        "inverse difference": float((p / (1 + apart)).sum()),
        "correlation": float(((i - mean) * (j - mean) * p).sum() / variance) if variance > 1e-12 else 1.0,
        "homogeneity": float((p / (1 + apart**2)).sum()),
        "autocorrelation": float((i * j * p).sum()),
        "cluster shade": float(((i + j - 2 * mean) ** 3 * p).sum()),
        "cluster prominence": float(((i + j - 2 * mean) ** 4 * p).sum()),
        "maximum": float(p.max()),
        "variance": variance,
        "sum average": float((k * sums).sum()),
        "sum variance": float(((k - 2 * mean) ** 2 * sums).sum()),
        "sum entropy": _entropy(sums),
        "difference variance": float(((d - (d * differences).sum()) ** 2 * differences).sum()),
        "difference entropy": _entropy(differences),
        "information 1": (joint - crossed) / single if single > 1e-12 else 0.0,
        "information 2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (both - joint))))),
        "inverse difference normalised": float((p / (1 + apart / size)).sum()),
        "inverse moment normalised": float((p / (1 + apart**2 / size**2)).sum()),
    }


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def run_lengths(
    levels: np.ndarray, region: np.ndarray, direction: tuple[int, int], count: int = LEVELS, longest: int = LONGEST
) -> np.ndarray:
    """Return (count, longest) numbers of runs: neighbours of one level along a direction, inside the region."""
    dx, dy = direction
    inside, value = np.pad(region, ((1, 1), (1, 1), (0, 0))), np.pad(levels, ((1, 1), (1, 1), (0, 0)))
    here, there = _pairs(inside.shape, dx, dy)
    goes_on = np.zeros_like(inside)  # the voxel before is in the region and equal
    goes_on[there] = inside[here] & inside[there] & (value[here] == value[there])

    step = (dx * inside.shape[1] + dy) * inside.shape[2]  # in the flattened volume
    goes_on, starts = goes_on.ravel(), np.flatnonzero(inside & ~goes_on)
    length = np.ones(len(starts), np.int64)
    running, place = np.arange(len(starts)), starts
    while len(running):
        place = place + step
        more = goes_on[place]
        running, place = running[more], place[more]
        length[running] += 1
    runs = np.zeros((count, longest))
    np.add.at(runs, (value.ravel()[starts], np.minimum(length, longest) - 1), 1)
    return runs


def run_features(runs: np.ndarray, voxels: int) -> dict[str, float]:
    """Return the 11 features of runs (levels, lengths) in a region of this many voxels; levels count from 1."""
    level, length = np.indices(runs.shape) + 1.0
    number = runs.sum()

    def mean(weight: np.ndarray) -> float:
        return float((runs * weight).sum() / number)

    return {
        "short": mean(length**-2),
        "long": mean(length**2),
        "level unevenness": float((runs.sum(1) ** 2).sum() / number),
        "length unevenness": float((runs.sum(0) ** 2).sum() / number),
        "percentage": float(number / voxels),
        "low": mean(level**-2),
        "high": mean(level**2),
        "short low": mean(length**-2 * level**-2),
        "short high": mean(length**-2 * level**2),
        "long low": mean(length**2 * level**-2),
        "long high": mean(length**2 * level**2),
    }


def binary_patterns(image: np.ndarray) -> np.ndarray:
    """Return each voxel's local binary pattern (X, Y, Z), 0..255, invariant to rotation of the slice.

    Eight points on a circle of radius 1, bilinear between voxels; one bit each, set where the point is not darker than
    the voxel; of the eight rotations of the bits the smallest number. At the slice's edge the last voxel is repeated.
    """
    around = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    width, height = image.shape[:2]
    code = np.zeros(image.shape, np.int64)
    for bit, (x, y) in enumerate(RING):
        point = sum(
            share * around[1 + a : 1 + a + width, 1 + b : 1 + b + height]
            for a, share_a in _between(x)
            for b, share_b in _between(y)
            if (share := share_a * share_b)
        )
        code |= (point - image >= -1e-9).astype(np.int64) << bit  # equal up to rounding is not darker
    return np.minimum.reduce([(code >> turn | code << 8 - turn) & 255 for turn in range(8)])


def _between(position: float) -> list[tuple[int, float]]:
    """Return the two integer positions around a position in -1..1, and the share of each."""
    low = min(int(np.floor(round(position, 9))), 0)
    share = round(position, 9) - low
    return [(low, 1 - share), (low + 1, share)]


def texture(image: np.ndarray, levels: np.ndarray, region: np.ndarray, voxel_mm: np.ndarray) -> dict[str, float]:
    """Return all 44 texture features of a region: moments of image, gradient and patterns, co-occurrence, runs.

    image: (X, Y, Z); levels: the same, quantised; region: (X, Y, Z) bool, not empty.
    """
    voxels = int(np.count_nonzero(region))
    runs = [run_features(run_lengths(levels, region, direction), voxels) for direction in DIRECTIONS]
    groups = {
        "": moments(image[region]),
        "gradient ": moments(gradient(image, voxel_mm)[region]),
        "co-occurrence ": cooccurrence_features(cooccurrence(levels, region)),
        "runs ": {name: float(np.mean([direction[name] for direction in runs])) for name in runs[0]},
        "patterns ": moments(binary_patterns(image)[region]),
    }
    return {prefix + name: value for prefix, group in groups.items() for name, value in group.items()}
