"""The mean head: shapes in MNI millimetres turned into distance fields on one fixed grid.

In:    nothing (tables of ellipsoids and tubes; centres, radii in mm, right half, mirrored at x = 0)
Out:   mean_head() -> Head: arrays (X, Y, Z), RAS, with distances in mm and labels; made once a process
Paper: - (the phantom is ours)
See:   tests/phantom/test_cohort_phantom.py

The brain's envelope was fitted by eye and by gradient descent to the outline of the MNI152 brain (Dice 0.98);
everything else is textbook anatomy at MNI coordinates. Only shapes are here: what varies from patient to
patient is in tss.phantom.individual_head, what a scanner sees in tss.phantom.scanner.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tss.phantom.extracranial import outer_tissues
from tss.phantom.shapes import LOW, STEP, distance_into, ellipsoid, grid_points, mirror, share, tube, union

# name: centre, radii, pitch about x and yaw about z in degrees
CEREBRUM = {
    "frontal": ((9, 20, 17), (42, 48, 44), -5, 4),
    "parietal": ((13, -22, 31), (44, 68, 48), -2, 6),
    "occipital": ((11, -61, 3), (46, 44, 45), 0, 6),
    "temporal": ((42, -19, -16), (28, 52, 23), -29, 17),
    "lateral": ((37, -14, 16), (32, 66, 48), -12, 6),
    "orbital": ((9, 44, 2), (46, 30, 29), -1, -10),
}
CEREBELLUM = ((23, -60, -30), (34, 28, 33), 5, 17)
BASE = {  # brain stem and basal cisterns, filled: only for the envelope
    "stem": ((3, -37, -29), (18, 20, 42), -20, 5),
    "core": ((8, -12, -5), (20, 31, 24), 0, -6),
}
CISTERNS = {
    "suprasellar": ((0, 2, -19), (8, 9, 6), 0, 0),
    "interpeduncular": ((0, -15, -17), (5, 6, 8), 0, 0),
    "quadrigeminal": ((0, -38, -3), (8, 5, 8), 0, 0),
    "magna": ((0, -74, -54), (7, 8, 10), 0, 0),
}
DEEP_GREY = {
    "thalamus": ((11.5, -19, 7), (8.5, 14, 8.5), 0, 20),
    "caudate": ((13.5, 14, 7), (5, 10, 10), 20, -14),
    "putamen": ((27, 3, 1), (5.5, 17, 10.5), 0, 14),
    "hypothalamus": ((0, -6, -8), (6, 9, 5), 0, 0),
    "amygdala": ((24, -4, -20), (8, 8, 7), 0, 0),
    "dentate": ((15, -60, -34), (7, 9, 5), 0, 20),
}
IRON = {  # dark on T2
    "pallidum": ((19.5, -3, 0), (4.5, 9, 7.5), 0, 26),
    "red nucleus": ((5, -21, -9), (3, 3.5, 4), 0, 0),
    "nigra": ((9, -17, -12), (6, 2, 4), 0, -30),
}
# tubes: (x, y, z, radius) along the axis
CAUDATE_TAIL = [(15, 6, 16, 3.5), (17, -8, 20, 3), (21, -22, 19, 2)]
FRONTAL_HORN = [
    (17, 34, 2, 2),
    (13, 26, 6, 4.2),
    (7.5, 14, 10, 4.4),
    (6.5, 4, 14, 4.2),
    (8.5, -10, 19, 4),
    (12, -24, 19, 4.4),
    (22, -37, 15, 6),
    (26, -46, 9, 5.5),
    (25, -58, 6, 4),
    (22, -72, 5, 1.6),
]
TEMPORAL_HORN = [(25, -40, 10, 4.5), (33, -38, -2, 3), (34, -26, -13, 2.2), (29, -12, -20, 2)]
THIRD_VENTRICLE = ((0, -12, -2), (2.2, 14, 10), 25, 0)
AQUEDUCT = [(0, -28, -3, 1.2), (0, -36, -20, 1.4)]
FOURTH_VENTRICLE = ((0, -45, -34), (8, 6, 11), -20, 0)
MIDBRAIN = ((0, -28, -12), (15, 11, 13), -15, 0)
PEDUNCLE = [(16, -12, -2, 5), (9, -19, -14, 6.5), (5, -24, -26, 6)]
PONS = ((0, -27, -32), (18, 13, 14), -12, 0)
MEDULLA = [(0, -30, -38, 11), (0, -38, -52, 8.5), (0, -44, -66, 6.5), (0, -46, -85, 5.5), (0, -42, -120, 5.5)]
CEREBELLAR_ARM = [(12, -32, -33, 7), (24, -44, -36, 7)]
PETROUS = [(24, -26, -40, 7), (44, -28, -37, 7.5), (62, -30, -36, 8)]
VESSELS = [
    [(0, -12, -40, 1.6), (0, -13, -22, 1.6)],  # basilar
    [(13, 4, -42, 2.4), (12, 2, -24, 2.2), (10, 2, -16, 2)],  # carotid
    [(10, 2, -15, 1.6), (24, 3, -15, 1.5), (36, 5, -12, 1.4)],  # middle cerebral
    [(9, 4, -14, 1.1), (2, 16, -12, 1.1), (2, 36, 6, 1)],  # anterior cerebral
    [(3, -13, -20, 1.1), (14, -22, -14, 1.1), (16, -36, -10, 1)],  # posterior cerebral
]

EDGE_MM = 1.5  # voxels this far outside the envelope still have a share of it


class Head(NamedTuple):
    """Fields of the mean head: distances in mm, float32 unless stated.

    The brain is a list of N voxels, so that nothing is computed for the half of a box that is not brain."""

    affine: np.ndarray  # (4, 4) voxel -> world mm
    label: np.ndarray  # (X, Y, Z) uint8, index into TISSUES; inside the brain it is CSF
    box: tuple[slice, ...]  # part of the grid that holds the brain
    surface: np.ndarray  # (3, x, y, z) on the box: world mm of the nearest point on the cerebrum's surface
    inside: np.ndarray  # (N,) flat index into the grid of the brain's voxels; the fields below belong to them
    boxed: np.ndarray  # (N,) the same as index into the box
    place: np.ndarray  # (3, N) world mm
    crown: np.ndarray  # (3, N) `surface` at the voxels
    hull: np.ndarray  # depth under the pial envelope, negative outside
    depth: np.ndarray  # distance from outside into the cerebrum, fissures count as outside; -0.6 outside it
    ventricle: np.ndarray  # signed distance to ventricles, negative inside
    callosum: np.ndarray  # 0..1, where the fissure's floor is white matter and not cortex
    grey: np.ndarray  # 0..1, deep grey nuclei
    iron: np.ndarray  # 0..1, iron-rich nuclei
    cerebellum: np.ndarray  # depth inside the cerebellum, -0.6 outside
    stem: np.ndarray  # 0..1, brain stem
    dark: np.ndarray  # 0..1, falx, tentorium and flowing blood


def shapes(points, table, blend: float = 0.0) -> np.ndarray:
    return union((ellipsoid(points, *row) for row in table.values()), blend)


def tentorium(points) -> np.ndarray:
    """Height above the tentorium in mm: a tent with its ridge on the midline, falling to the sides and back."""
    x, y, z = points
    return z + 3 + 0.32 * x + 0.36 * np.maximum(-50 - y, 0)


def fissures(points) -> np.ndarray:
    """True in the longitudinal fissure, the Sylvian fissure and over the insula."""
    x, y, z = points
    block = ((y + 6) / 38) ** 2 + ((z - 4) / 25) ** 2 < 1
    longitudinal = (x < 0.7) & ~block
    course = 2 - 0.42 * (y + 5) + 0.25 * (x - 50) + 2 * np.sin(x / 5 + y / 8)
    opening = np.abs(z - course) < 0.9 + 0.03 * np.maximum(y, 0)
    floor = 38.5 - 0.004 * (y - 5) ** 2 + 1.2 * np.sin(z / 4 + y / 6)
    sylvian = opening & (x > floor) & (y > -38) & (y < 28)
    island = ((y - 1) / 25) ** 2 + ((z - 3 + 0.25 * y) / 15) ** 2 < 1
    insula = (np.abs(x - floor) < 1.3) & island
    return longitudinal | sylvian | insula


@lru_cache(maxsize=1)
def mean_head() -> Head:
    """The mean head (about 3 s the first time)."""
    points = x, y, z = grid_points()
    stem = union(
        [
            ellipsoid(points, *MIDBRAIN),
            tube(points, PEDUNCLE),
            ellipsoid(points, *PONS),
            tube(points, MEDULLA),
            tube(points, CEREBELLAR_ARM),
        ],
        3.0,
    )
    hemisphere = shapes(points, CEREBRUM, 4.0)
    hindbrain = ellipsoid(points, *CEREBELLUM)
    petrous = tube(points, PETROUS)
    above = tentorium(points)
    envelope = union([hemisphere, hindbrain, shapes(points, BASE)], 4.0)
    envelope = np.maximum(np.maximum(envelope, -petrous), -72 - z)

    ring = (stem < 2.4) & (z < -5)
    cistern = (shapes(points, CISTERNS) < 0) | ring
    behind = y < -36
    cerebrum = (hemisphere < 0) & (petrous > 1) & ~cistern & ~fissures(points) & ~(behind & (above < 1.2))
    cerebrum &= ~((z < -34) & (y < -24))
    cerebellum = (hindbrain < 0) & (above < -1.2) & (petrous > 1) & ~cistern & behind & (envelope < 0)
    depth, crown = depth_and_surface(cerebrum, points)

    # z is squeezed so that this tube is taller than wide: the lateral ventricle's body is a slit.
    ventricle = union(
        [
            tube((x, y, z * np.float32(0.75)), [(*at, up * 0.75, r) for *at, up, r in FRONTAL_HORN]),
            tube(points, TEMPORAL_HORN),
            ellipsoid(points, *THIRD_VENTRICLE),
            tube(points, AQUEDUCT),
            ellipsoid(points, *FOURTH_VENTRICLE),
        ]
    )
    septum = (z > 2) & (z < 24) & (y > -24) & (y < 32)
    ventricle = np.where(septum, np.maximum(ventricle, 0.9 - x), ventricle)
    ellipse = np.sqrt(((y + 6) / 38) ** 2 + ((z - 4) / 25) ** 2)
    callosum = share(x - 9, 6) * np.clip((ellipse - 0.6) / 0.15, 0, 1) * (ellipse < 1.05) * (z > -8)
    grey = union([shapes(points, DEEP_GREY), tube(points, CAUDATE_TAIL)])
    dark = np.maximum.reduce([share(tube(points, vessel)) for vessel in VESSELS])
    falx = share(x - 0.5, 1.2) * ((ellipse > 1.18) & (z > -12 + 0 * y) | (y > 45)) * (envelope < 2)
    tent = share(np.abs(above) - 0.4, 1.2) * (behind & (envelope < 0) & (x > 8))
    dark = np.maximum(dark, 0.8 * np.maximum(falx, tent))

    label = outer_tissues(points, envelope, stem, petrous)
    iron, folia = share(shapes(points, IRON)), distance_into(cerebellum) - STEP[0] / 2
    return assemble(label, crown, [-envelope, depth, ventricle, callosum, share(grey), iron, folia, share(stem), dark])


def assemble(label: np.ndarray, crown: list[np.ndarray], fields: list[np.ndarray]) -> Head:
    """Mirror the right half and keep of each field what lies in the brain (fields[0] is depth under its hull)."""
    hull = mirror(fields[0])
    near = hull > -EDGE_MM
    box = tuple(
        slice(int(np.flatnonzero(near.any(other))[0]), int(np.flatnonzero(near.any(other))[-1]) + 1)
        for other in ((1, 2), (0, 2), (0, 1))
    )
    surface = np.stack([mirror(c)[box] for c in crown])
    surface[0, : surface.shape[1] // 2] *= -1
    inside, boxed = np.flatnonzero(near), np.flatnonzero(near[box])
    affine = np.diag([*STEP, 1.0])
    affine[:3, 3] = np.array(LOW) + np.array(STEP) / 2
    voxels = np.stack(np.unravel_index(inside, near.shape)).astype(np.float32)
    place = voxels * np.array(STEP, np.float32)[:, None] + affine[:3, 3:].astype(np.float32)
    flat = [mirror(np.broadcast_to(f, label.shape)).astype(np.float32).ravel()[inside] for f in fields]
    return Head(affine, mirror(label), box, surface, inside, boxed, place, surface.reshape(3, -1)[:, boxed], *flat)


def depth_and_surface(inside: np.ndarray, points) -> tuple[np.ndarray, list[np.ndarray]]:
    """Depth (mm) inside a region and the smoothed nearest surface point (three arrays of world mm)."""
    depth = np.maximum(distance_into(inside) - STEP[0] / 2, 0) - STEP[0] / 2 * ~inside
    smooth = ndimage.gaussian_filter(depth, [1.6 / step for step in STEP], mode="nearest")
    slopes = np.gradient(smooth, *STEP)
    length = np.sqrt(sum(s * s for s in slopes)) + 1e-3
    nearest = [
        np.asarray(p - depth * s / np.maximum(length, 0.5), np.float32) for p, s in zip(points, slopes, strict=True)
    ]
    return depth, [ndimage.gaussian_filter(c, [1.5 / step for step in STEP], mode="nearest") for c in nearest]
