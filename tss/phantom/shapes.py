"""Shapes as signed distances: ellipsoids, tubes, smooth unions, and the grid that they are evaluated on.

In:    coordinates (x, y, z) in world mm as broadcastable arrays, sizes in mm
Out:   distances in mm, negative inside; partial volumes 0..1
Paper: - (the phantom is ours)
See:   tests/phantom/test_cohort_phantom.py
"""

from itertools import pairwise

import numpy as np
from scipy import ndimage

Point = tuple[float, float, float]  # mm
Ellipsoid = tuple[Point, Point, float, float]  # centre, radii in mm; pitch about x and yaw about z in degrees

STEP = (1.25, 1.25, 2.5)  # mm; our choice: sharp in plane, coarse along thick slices
LOW, HIGH = (-90.0, -125.0, -120.0), (90.0, 110.0, 97.5)  # mm; neck to crown, occiput to nose


def grid_points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right half of the grid as broadcastable coordinates (X, 1, 1), (1, Y, 1), (1, 1, Z) in mm."""
    axes = [
        np.arange(low + step / 2, high, step, dtype=np.float32) for low, high, step in zip(LOW, HIGH, STEP, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return x[len(axes[0]) // 2 :], y, z


def ellipsoid(points, centre, radii, pitch=0.0, yaw=0.0) -> np.ndarray:
    """Signed distance in mm (first order) to an ellipsoid turned by yaw about z, then pitch about x."""
    x, y, z = (p - c for p, c in zip(points, centre, strict=True))
    cos, sin = np.cos(np.radians([pitch, yaw], dtype=np.float32)), np.sin(np.radians([pitch, yaw], dtype=np.float32))
    x, y = x * cos[1] + y * sin[1], y * cos[1] - x * sin[1]
    y, z = y * cos[0] + z * sin[0], z * cos[0] - y * sin[0]
    squares = [(q / np.float32(r)) ** 2 for q, r in zip((x, y, z), radii, strict=True)]
    level = np.sqrt(sum(squares)) + np.float32(1e-6)
    slope = np.sqrt(sum(s / np.float32(r * r) for s, r in zip(squares, radii, strict=True))) + np.float32(1e-6)
    return level * (level - 1) / slope


def tube(points, axis) -> np.ndarray:
    """Signed distance in mm to a chain of cones: axis is a list of (x, y, z, radius)."""
    *first, thin = axis[0]
    distance = np.sqrt(sum((p - c) ** 2 for p, c in zip(points, first, strict=True))) - thin
    for (*start, r0), (*end, r1) in pairwise(axis):
        along = np.subtract(end, start).astype(np.float32)
        share = sum((p - c) * a for p, c, a in zip(points, start, along, strict=True)) / float(along @ along)
        share = np.clip(share, 0, 1)
        gap = np.sqrt(sum((p - c - share * a) ** 2 for p, c, a in zip(points, start, along, strict=True)))
        distance = np.minimum(distance, gap - (r0 + share * (r1 - r0)))
    return distance


def union(distances, blend: float = 0.0) -> np.ndarray:
    """Smallest of the distances; with blend (mm) corners between shapes are filled smoothly."""
    distances = list(distances)
    result = distances[0]
    for other in distances[1:]:
        if blend:
            gap = np.clip(blend - np.abs(result - other), 0, None)
            result = np.minimum(result, other) - gap * gap / (4 * blend)
        else:
            result = np.minimum(result, other)
    return result


def share(distance, softness: float = 1.25) -> np.ndarray:
    """Partial volume 0..1 of a voxel whose centre lies `distance` mm from a surface (negative = inside)."""
    return np.clip(0.5 - distance / softness, 0, 1).astype(np.float32)


def distance_into(inside) -> np.ndarray:
    """Distance in mm from each voxel inside to the nearest one outside."""
    return ndimage.distance_transform_edt(inside, sampling=STEP).astype(np.float32)


def mirror(half: np.ndarray) -> np.ndarray:
    """Right half (X, ...) -> both halves (2X, ...), symmetric about the midline."""
    return np.concatenate([half[::-1], half])
