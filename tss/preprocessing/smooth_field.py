"""Smooth fields, as Legendre polynomials of the place in a box, fitted to differences of log intensities.

In:  positions in -1..1 along each axis of the box; differences (N,) that the field should explain.
Out: coefficients (K,); the log field (X, Y, Z).
Paper: 2.1 (bias field correction).
See: tests/preprocessing/test_smooth_field.py
"""

import numpy as np
from numpy.polynomial import legendre

DEGREE = 4  # our choice: of the polynomial. A coil's field has a few extrema across a head, no more
STIFFNESS = (0, 1, 4, 9, 64)  # our choice: by order, one over the variance expected of the field's coefficients
ITERATIONS = 3  # our choice: of each fit's weighted least squares


def all_orders() -> list[tuple[int, int, int]]:
    """Return the K orders along X, Y and Z of the polynomials up to DEGREE, without the constant."""
    orders = range(DEGREE + 1)
    return [(i, j, k) for i in orders for j in orders for k in orders if 0 < i + j + k <= DEGREE]


def stiffness_of(orders: list[tuple[int, int, int]]) -> np.ndarray:
    """Return the STIFFNESS (K,) of each polynomial."""
    return np.take(STIFFNESS, np.sum(orders, axis=1))


def at_blocks(orders: list[tuple[int, int, int]], positions: list[np.ndarray], blocks: np.ndarray) -> np.ndarray:
    """Return the polynomials (N, K) at blocks (3, N), indices into the lattice of three arrays of positions."""
    along = [legendre.legvander(at, np.max(orders))[index] for at, index in zip(positions, blocks, strict=True)]
    return np.stack([along[0][:, i] * along[1][:, j] * along[2][:, k] for i, j, k in orders], 1)


def on_lattice(orders: list[tuple[int, int, int]], coefficients: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """Return the log field (X, Y, Z) on the lattice of three arrays of positions in -1..1."""
    degree = np.max(orders)
    field = np.zeros((degree + 1,) * 3)
    field[tuple(np.transpose(orders))] = coefficients
    for at in positions:
        field = np.tensordot(field, legendre.legvander(at, degree), (0, 1)).astype(np.float32)
    return field


def refit(
    coefficients: np.ndarray, slopes: np.ndarray, steps: np.ndarray, alike: float, stiffness: np.ndarray
) -> np.ndarray:
    """Return coefficients (K,) whose field explains the steps (N,), without those that it cannot explain.

    slopes: (N, K), of each step by the coefficients. alike: a step that is off by more than some twice this does not
    count: what it compares is not of one tissue. stiffness: (K,), weight of each squared coefficient.
    """
    for _ in range(ITERATIONS):
        weights = np.exp(-0.5 * ((steps - slopes @ coefficients) / alike) ** 2)
        weighted = slopes * weights[:, None]
        coefficients = np.linalg.solve(weighted.T @ slopes + np.diag(stiffness), weighted.T @ steps)
    return coefficients
