"""A made-up brain with an infarct on the atlas grid, in a millisecond: what registered volumes look like."""

import numpy as np

SHAPE = (24, 28, 6)  # X, Y, Z
VOXEL_MM = np.array([4.0, 4.0, 8.0])  # 0.128 ml
NOISE = 0.02


def brain() -> np.ndarray:
    x, y, z = (2 * (np.arange(length) + 0.5) / length - 1 for length in SHAPE)
    return x[:, None, None] ** 2 + y[:, None] ** 2 + 0.3 * z**2 < 0.9


def made_up_stroke(infarct: np.ndarray, flair_ratio: float = 1.2, seed: int = 0) -> tuple[tuple, np.ndarray]:
    """Return (dwi, t2w, flair, mask), each (X, Y, Z), in medians of healthy brain, and the infarct inside the brain.

    White and grey matter in layers, CSF in the middle; in the infarct the ADC falls by 0.25.
    """
    rng = np.random.default_rng(seed)
    mask = brain()
    layers = np.indices(SHAPE)[1] // 3 % 2  # grey every other three rows
    fluid = np.zeros(SHAPE, bool)
    fluid[9:15, 12:16] = True
    infarct = infarct & mask & ~fluid
    t2w = np.where(fluid, 4.0, np.where(layers, 1.1, 0.9)) * np.where(infarct, flair_ratio, 1)
    adc = np.where(fluid, 2.5, np.where(layers, 0.80, 0.74) - 0.25 * infarct)
    flair = np.where(fluid, 0.2, np.where(layers, 1.05, 0.95)) * np.where(infarct, flair_ratio, 1)
    volumes = (t2w * np.exp(0.77 - adc), t2w, flair)
    return (
        *(np.where(mask, volume * rng.normal(1, NOISE, SHAPE), 0).astype(np.float32) for volume in volumes),
        mask,
    ), infarct
