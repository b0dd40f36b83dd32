"""Made-up heads for tests, in a hundredth of a second: ellipsoids, with what preprocessing needs to hold on to.

A brain with a cortex, ventricles, two deep nuclei, a lesion on one side, skull and scalp around it.
"""

import csv
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np

from tss.data.nifti import Volume, apply_affine, resample
from tss.phantom.cohort_phantom import ORDINARY, Difficulty

BRAIN_MM = np.array([66.0, 84.0, 62.0])  # half axes
LESION_MM, LESION_RADIUS = np.array([34.0, -20.0, 16.0]), 15.0  # on the patient's right
# tissue: value on DWI, b0, FLAIR and the T2w atlas
VALUES = {
    "air": (0, 0, 0, 0),
    "scalp": (12, 150, 500, 0),
    "skull": (2, 10, 15, 0),
    "white": (90, 200, 220, 300),
    "grey": (110, 260, 280, 380),
    "csf": (20, 900, 40, 900),
    "nucleus": (100, 140, 250, 220),
    "lesion": (220, 300, 320, 0),
}
CHANNELS = ("dwi", "b0", "flair", "atlas")
COARSE = replace(ORDINARY, dwi_mm=(3.0, 3.2), flair_mm=(2.4, 2.6))  # a third of the paper's voxels, and of the time
# Phantoms far from ordinary: the neck in view, a strong bias field, much noise, old infarcts, some without skull.
HARD = Difficulty(
    tilt=20.0,
    shift=30.0,
    neck=70.0,
    cut_top=12.0,
    bias=(0.3, 0.6),
    snr=(9.0, 18.0),
    stripped=0.15,
    volume_ml=(17.0, 2.0),
    volume_range=(0.4, 260.0),
    old_infarct=0.4,
    midline_shift=8.0,
)


def sample(
    channel: str, shape: tuple, affine: np.ndarray, place: np.ndarray | None = None, side: str = "right", seed: int = 0
) -> np.ndarray:
    """Evaluate a head at a grid's voxels. `place`: world of the head (MNI-like) -> world of the scan."""
    place = np.eye(4) if place is None else place
    index = np.indices(shape).reshape(3, -1)
    world = np.linalg.inv(place) @ affine @ np.r_[index, np.ones((1, index.shape[1]))]
    x, y, z = world[:3]
    depth = 1 - np.sqrt((x / BRAIN_MM[0]) ** 2 + ((y + 15) / BRAIN_MM[1]) ** 2 + ((z - 10) / BRAIN_MM[2]) ** 2)
    depth = depth * 70  # about mm below the brain's surface
    ripple = 4 * np.sin(x / 5) * np.cos(y / 6) * np.sin(z / 7)

    values = np.zeros(x.shape)
    k = CHANNELS.index(channel)
    order = [
        ("scalp", (depth > -14) & (depth <= -7)),
        ("skull", (depth > -7) & (depth <= 0)),
        ("grey", depth > 0),
        ("white", depth > 12 + ripple),
        ("csf", (np.abs(np.abs(x) - 9) < 6) & (np.abs(y + 10) < 32) & (np.abs(z - 14) < 9)),
        ("nucleus", (np.abs(np.abs(x) - 26) < 5) & (np.abs(y - 2) < 14) & (np.abs(z - 2) < 9)),
        ("csf", (np.abs(x) < 2) & (depth > 0) & (depth < 25) & (z > 20)),
    ]
    for tissue, where in order:
        values[where] = VALUES[tissue][k]
    if channel != "atlas":
        sign = 1 if side == "right" else -1
        values[in_lesion(np.stack([sign * x, y, z]))] = VALUES["lesion"][k]
        noise = np.random.default_rng(seed).normal(0, 2 if channel == "dwi" else 5, values.shape)
        values = np.abs(values + noise)
    return values.reshape(shape).astype(np.float32)


def in_lesion(world: np.ndarray) -> np.ndarray:
    return np.linalg.norm(world[:3] - LESION_MM[:, None], axis=0) < LESION_RADIUS


def grid(shape: tuple, sizes: tuple) -> np.ndarray:
    """Return the affine of a grid centred on the brain's middle."""
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = np.array([0, -15, 5]) - np.array(sizes) * (np.array(shape) - 1) / 2
    return affine


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def turned(degrees: float, shift: tuple = (0, 0, 0)) -> np.ndarray:
    angle = np.radians(degrees)
    place = np.eye(4)
    place[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    place[:3, 3] = shift
    return place


DWI_GRID = (56, 68, 24), (3.5, 3.5, 6.5)
FLAIR_GRID = (72, 84, 23), (2.7, 2.7, 6.8)
ATLAS_GRID = (46, 55, 46), (4.0, 4.0, 4.0)


def write_atlas(path: Path) -> Path:
    affine = grid(*ATLAS_GRID)
    affine[0, 3] = -ATLAS_GRID[1][0] * (ATLAS_GRID[0][0] - 1) / 2
    save(path, sample("atlas", ATLAS_GRID[0], affine), affine)
    return path


def write_patient(folder: Path, name: str, number: int) -> dict[str, str]:
    """Write DWI, b0, FLAIR and lesion, turned and shifted by the number. Returns the row of the table."""
    side = ("right", "left")[number % 2]
    place = turned(number % 5 - 2, (number % 3, 2 - number % 4, 0))
    affine, shape = grid(*DWI_GRID), DWI_GRID[0]
    for channel in ("dwi", "b0"):
        save(folder / f"{name}_{channel}.nii.gz", sample(channel, shape, affine, place, side, number), affine)
    flair_affine = grid(*FLAIR_GRID)
    save(
        folder / f"{name}_flair.nii.gz",
        sample("flair", FLAIR_GRID[0], flair_affine, turned(1, (1, 0, 0)) @ place, side, number + 1),
        flair_affine,
    )
    return {
        "patient": name,
        "dwi": f"{name}_dwi.nii.gz",
        "b0": f"{name}_b0.nii.gz",
        "flair": f"{name}_flair.nii.gz",
        "onset_to_mri_min": str(100 + 60 * number),
        "stroke_side": side,
        "site": "A",
    }


def write_cohort(folder: Path, count: int) -> Path:
    """Write `count` patients p0, p1, ... and their cohort.csv."""
    return write_table(folder, [write_patient(folder, f"p{number}", number) for number in range(count)])


def write_table(folder: Path, rows: list[dict]) -> Path:
    with open(folder / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "cohort.csv"


def upright(scan: Volume, world: np.ndarray) -> Volume:
    """The scan as a workstation exports it after turning it by a world affine (4, 4) onto a grid that holds it all."""
    corners = apply_affine(
        world @ scan.affine, np.indices((2, 2, 2)).reshape(3, -1) * (np.array(scan.data.shape) - 1)[:, None]
    )
    grid = np.diag([2.0, 2, 4, 1])
    grid[:3, 3] = corners.min(1)
    shape = tuple(np.ceil(np.ptp(corners, axis=1) / np.diag(grid)[:3]).astype(int) + 1)
    return scan._replace(data=resample(scan, shape, grid, world), affine=grid)
