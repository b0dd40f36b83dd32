"""Infarcts: where in an arterial territory, how large, of what shape.

In:    a Subject, an rng, side, artery, volume in ml
Out:   Infarct: indices into the head's brain voxels and severity in each
Paper: - (the phantom is ours)
See:   tests/phantom/test_cohort_phantom.py

An infarct grows from a seed in the territory of one artery and takes the nearest tissue until its volume is
reached. "Near" is measured along the surface for cortical infarcts, so that they are wedges with their base on
the cortex, and straight for deep ones; a random field makes the border irregular.
"""

from typing import NamedTuple

import numpy as np

from tss.phantom.individual_head import MATTER, Subject, noise_at
from tss.phantom.shapes import STEP

MIDLINE_MM = 2.5  # no infarct comes closer to the midline
ROUGH_MM = 18.0  # correlation length of the border's irregularity


class Artery(NamedTuple):
    """A territory: seeds (world mm, right side) with their spread, and the largest infarct in it."""

    share: float  # of all infarcts
    seed: tuple[float, float, float]
    spread: tuple[float, float, float]
    largest_ml: float
    cortical: bool


ARTERIES = {
    "mca upper": Artery(0.30, (52, 6, 28), (4, 16, 10), 150, True),
    "mca lower": Artery(0.24, (56, -38, 8), (4, 14, 14), 150, True),
    "mca stem": Artery(0.12, (44, -4, 6), (4, 8, 6), 280, True),
    "lenticulostriate": Artery(0.14, (25, 0, 8), (3, 8, 8), 14, False),
    "pca": Artery(0.10, (18, -80, 4), (6, 8, 8), 60, True),
    "aca": Artery(0.05, (8, 34, 38), (2, 16, 10), 45, True),
    "pica": Artery(0.05, (22, -68, -44), (8, 6, 5), 30, False),
}
# mm beyond which an artery's neighbours supply the tissue: lateral surface further than x, and so on
MCA_INNER, ACA_OUTER, PCA_FRONT = 14.0, 24.0, -48.0


class Infarct(NamedTuple):
    voxels: np.ndarray  # (n,) index into the head's N brain voxels
    severity: np.ndarray  # (n,) 1 on average, more in the core, less at the rim
    artery: str
    ml: float


def draw_artery(rng: np.random.Generator) -> str:
    names = list(ARTERIES)
    shares = np.array([ARTERIES[name].share for name in names])
    return names[rng.choice(len(names), p=shares / shares.sum())]


def grow_infarct(subject: Subject, rng: np.random.Generator, side: str, artery: str, ml: float) -> Infarct:
    """An infarct of about `ml` (less where the territory is smaller) in one artery's territory, on one side."""
    row = ARTERIES[artery]
    head = subject.head
    sign = 1 if side == "right" else -1
    across, y, z = sign * head.place[0], head.place[1], head.place[2]
    seed = np.array(row.seed) + rng.normal(size=3) * row.spread
    solid = 1 - subject.matter[0] - subject.matter[-1]
    allowed = np.flatnonzero((solid > 0.35) & (across > MIDLINE_MM) & territory(head, artery, across, y, z))

    across, y, z = (p[allowed] for p in (across, y, z))
    distance = np.sqrt((across - seed[0]) ** 2 + (y - seed[1]) ** 2 + (z - seed[2]) ** 2)
    if row.cortical:
        x, y, z = head.crown[:, allowed]
        along = np.sqrt((sign * x - seed[0]) ** 2 + (y - seed[1]) ** 2 + (z - seed[2]) ** 2)
        distance = 0.75 * along + 0.35 * distance
    reach = (ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    distance = distance + noise_at(head, rng, ROUGH_MM)[allowed] * np.clip(0.22 * reach, 0.8, 5.0)

    voxel_ml = np.prod(STEP) / 1000 / abs(np.linalg.det(subject.linear[:3, :3]))
    count = int(np.clip(round(min(ml, row.largest_ml) / voxel_ml), 8, 0.9 * len(allowed)))
    chosen = np.argpartition(distance, count)[:count]
    edge, core = distance[chosen].max(), distance[chosen].min()
    within = (edge - distance[chosen]) / max(edge - core, 1e-6)
    severity = np.clip(0.4 + 2.2 * within, 0.4, 1.5)
    return Infarct(allowed[chosen], (severity / severity.mean()).astype(np.float32), artery, count * voxel_ml)


def territory(head, artery: str, across, y, z) -> np.ndarray:
    """True (N,) where the artery may have infarcts; `across` is mm from the midline on the infarct's side."""
    hind = (head.cerebellum > 0) | (head.stem > 0.3)
    if artery == "pica":
        return head.cerebellum > 0
    if artery == "lenticulostriate":
        return (head.depth > 4) & (across > 8) & (across < 36) & (z > -12) & (z < 34) & ~hind
    if artery == "pca":
        return (y < PCA_FRONT + across * 0.2) & (across < 42) & (z < 26) & ~hind
    if artery == "aca":
        return (across < ACA_OUTER) & (z > -14) & (y > -44) & ~hind & (head.ventricle > 3)
    return (across > MCA_INNER) & ~((y < -62) & (across < 30)) & (y > -74) & ~((z < -26) & (y < -20)) & ~hind


def make_scar(subject: Subject, old: Infarct) -> None:
    """Turn an infarct into an old one, in place: a cavity of CSF with a rim of gliosis."""
    matter = subject.matter
    core = old.severity > 1.0
    for index, substance in ((old.voxels[core], "csf"), (old.voxels[~core], "gliosis")):
        solid = 1 - matter[0, index] - matter[-1, index]
        matter[1:-1, index] = 0
        if substance == "csf":
            matter[0, index] += solid
        else:
            matter[MATTER.index("gliosis"), index] = solid
