"""Everything of the head that is not brain: skull, scalp, eyes, face and neck, as one label map.

In:    coordinates of the right half of the grid, signed distance to the brain's envelope (mm)
Out:   outer_tissues() -> uint8 labels (index into TISSUES), right half
Paper: - (the phantom is ours)
See:   tests/phantom/test_cohort_phantom.py

Layers from the brain outwards: CSF, dura, inner table, marrow, outer table; from the air inwards: skin, fat.
Between them, in face and neck, muscle with fat planes, bone, air cells, and the eyes in their fat.
"""

import numpy as np

from tss.phantom.shapes import STEP, Ellipsoid, distance_into, ellipsoid, tube, union

TISSUES = ("air", "skin", "fat", "muscle", "bone", "marrow", "mucosa", "vitreous", "nerve", "csf", "blood")
AIR, SKIN, FAT, MUSCLE, BONE, MARROW, MUCOSA, VITREOUS, NERVE, CSF, BLOOD = range(len(TISSUES))

# thickness of the layers over the vertex, mm
CSF_LAYER, INNER_TABLE, DIPLOE, OUTER_TABLE, SCALP = 0.7, 2.8, 5.8, 7.4, 12.0
SKIN_THICK, FAT_THICK = 2.0, 4.5
FAT_PLANE = 0.11  # width of the fat planes between muscles, in units of `marbling`

FACE: dict[str, Ellipsoid] = {  # fills the head in front of and below the brain
    "face": ((0, 42, -62), (58, 42, 58), 0, 0),
    "jaw": ((0, 40, -100), (46, 40, 40), 0, 0),
    "nose": ((0, 88, -58), (14, 20, 18), -30, 0),
    "brow": ((0, 66, -22), (50, 20, 26), 0, 0),
    "nape": ((0, -52, -90), (56, 52, 60), 0, 0),
    "skull base": ((0, -10, -60), (68, 74, 36), 0, 0),
    "ear": ((82, -22, -34), (6, 14, 20), 0, 25),
}
NECK = [(0, -20, -60, 56), (0, -22, -130, 54)]
EYE = ((32, 64, -36), 12.5)
LENS = ((33, 73, -36), (4.5, 2.2, 4.5))
ORBIT = [(33, 68, -36, 17), (24, 40, -33, 12), (14, 20, -28, 4)]
OPTIC_NERVE = [(30, 53, -36, 2), (18, 28, -30, 2), (5, 10, -20, 2)]
EYE_MUSCLES = [
    [(45, 60, -36, 2), (38, 44, -35, 2.6), (18, 22, -29, 1.5)],
    [(19, 60, -36, 2), (17, 44, -35, 2.6), (13, 22, -29, 1.5)],
    [(32, 60, -48, 2), (28, 44, -42, 2.4), (15, 22, -30, 1.5)],
    [(32, 60, -24, 2), (28, 44, -28, 2.4), (15, 22, -27, 1.5)],
]
AIR_CELLS: dict[str, Ellipsoid] = {
    "frontal sinus": ((9, 74, -16), (12, 5, 10), 0, 0),
    "ethmoid": ((6, 52, -38), (7, 22, 11), 0, 0),
    "sphenoid": ((8, 20, -38), (9, 11, 8), 0, 0),
    "maxillary": ((26, 48, -66), (13, 16, 15), 0, 0),
    "nasal": ((5, 60, -66), (3, 30, 16), 0, 0),
    "pharynx": ((0, 8, -88), (9, 6, 26), 0, 0),
    "ear canal": ((66, -24, -40), (12, 2.5, 2.5), 0, 0),
}
BONES: dict[str, Ellipsoid] = {
    "zygoma": ((54, 54, -52), (7, 12, 7), 0, 30),
    "mandible": ((48, 12, -86), (4, 14, 30), 0, 0),
    "palate": ((0, 52, -84), (20, 24, 4), 0, 0),
    "clivus": ((0, 2, -48), (11, 8, 18), 25, 0),
    "occipital condyle": ((18, -36, -68), (9, 12, 8), 0, 0),
    "vertebra": ((0, -18, -100), (15, 12, 40), 0, 0),
    "arch": ((14, -52, -100), (12, 10, 40), 0, 0),
}
MASTOID = [(50, -34, -44, 11), (54, -40, -58, 9)]


def outer_tissues(points, envelope: np.ndarray, stem: np.ndarray, petrous: np.ndarray) -> np.ndarray:
    """Labels (X/2, Y, Z) of the right half; inside the brain's envelope and the spinal canal the label is CSF."""
    x, y, z = points
    brain = envelope < 0
    out = distance_into(~brain) - STEP[0] / 2
    face = union([ellipsoid(points, *row) for row in FACE.values()] + [tube(points, NECK)], 10.0)
    head = (out < SCALP + 1.5 * (y < -40)) | (face < 0)
    head[:, :, 0] |= head[:, :, 1]
    padded = np.pad(head, ((0, 0), (0, 0), (1, 0)), mode="edge")
    under = distance_into(padded)[:, :, 1:]
    marble = marbling(points)

    label = np.full(head.shape, MUSCLE, np.uint8)
    label[np.abs(marble) < FAT_PLANE] = FAT
    label[under < SKIN_THICK + FAT_THICK] = FAT
    skull = (out < OUTER_TABLE) & (z > -66)
    label[skull] = BONE
    label[skull & (out > INNER_TABLE) & (out < DIPLOE) & ((z > -22) | (y < -45))] = MARROW
    temporal = (out >= OUTER_TABLE) & (out < SCALP - 2.5) & (x > 52) & (np.abs(y - 8) < 34) & (z < 22) & (z > -50)
    label[temporal] = MUSCLE
    for row in BONES.values():
        distance = ellipsoid(points, *row)
        label[distance < 0] = BONE
        label[distance < -2.5] = MARROW
    label[petrous < -1.5] = BONE
    cells = tube(points, MASTOID)
    label[cells < 0] = BONE
    label[(cells < -1.5) & (marble > -0.3)] = AIR
    for name, row in AIR_CELLS.items():
        distance = ellipsoid(points, *row)
        label[(distance < 0) & ~brain] = MUCOSA if name != "ear canal" else SKIN
        label[distance < -1.3] = AIR
    septa = (np.abs(np.mod(y, 9) - 4) < 1) & (ellipsoid(points, *AIR_CELLS["ethmoid"]) < 0)
    label[septa] = MUCOSA
    paint_orbit(label, points)
    label[under < SKIN_THICK] = SKIN
    label[out < CSF_LAYER] = CSF
    canal = (stem < 3) & (z < -48)
    label[canal] = CSF
    label[(stem < 0) & (z < -48)] = NERVE
    sinus = (y + 106 - 0.012 * (z - 5) ** 2) ** 2 + x * x * 2 < 22
    label[sinus & (np.abs(z - 10) < 50) & ~brain] = BLOOD
    label[brain] = CSF
    label[~head] = AIR
    return label


def paint_orbit(label: np.ndarray, points) -> None:
    """Globe, lens, optic nerve and eye muscles in a cone of fat; changes `label` in place."""
    cone = tube(points, ORBIT)
    label[(cone < 2) & (cone >= 0)] = BONE
    label[cone < 0] = FAT
    for muscle in EYE_MUSCLES:
        label[tube(points, muscle) < 0] = MUSCLE
    label[tube(points, OPTIC_NERVE) < 0] = NERVE
    centre, radius = EYE
    globe = ellipsoid(points, centre, (radius,) * 3)
    label[globe < 0] = MUSCLE
    label[globe < -1.2] = VITREOUS
    label[ellipsoid(points, *LENS) < 0] = MUSCLE


def marbling(points) -> np.ndarray:
    """A fixed pattern of about unit size, elongated downwards: fat planes between muscles."""
    x, y, z = points
    return np.sin(x / 7 + 1.5 * np.sin(y / 13)) * np.cos(y / 9 + 1.5 * np.sin(x / 17 + z / 25)) + 0.5 * np.sin(
        z / 17 + x / 11 - y / 13
    )
