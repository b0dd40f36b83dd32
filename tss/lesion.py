"""Infarcts: where in an arterial territory, how large, of what shape.

In:    a Subject, an rng, side, artery, volume in ml
Out:   Infarct: flat indices into the brain box and severity in each voxel
Paper: - (the phantom is ours; DESIGN section 6)
See:   tests/test_phantom.py

An infarct grows from a seed in the territory of one artery and takes the nearest tissue until its volume is
reached. "Near" is measured along the surface for cortical infarcts, so that they are wedges with their base on
the cortex, and straight for deep ones; a random field makes the border irregular.
"""

from typing import NamedTuple

import numpy as np

from tss.geometry import STEP
from tss.subject import MATTER, Subject, box_points, noise_field, stretch

MIDLINE_MM = 2.5  # no infarct comes nearer to the midline


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
    "mca stem": Artery(0.12, (44, -4, 6), (4, 8, 6), 150, True),
    "lenticulostriate": Artery(0.14, (25, 0, 8), (3, 8, 8), 14, False),
    "pca": Artery(0.10, (18, -80, 4), (6, 8, 8), 60, True),
    "aca": Artery(0.05, (8, 34, 38), (2, 16, 10), 45, True),
    "pica": Artery(0.05, (22, -68, -44), (8, 6, 5), 30, False),
}
# mm beyond which an artery's neighbours supply the tissue: lateral surface further than x, and so on
MCA_INNER, ACA_OUTER, PCA_FRONT = 14.0, 24.0, -48.0


class Infarct(NamedTuple):
    index: np.ndarray  # (n,) flat index into the brain box
    severity: np.ndarray  # (n,) 1 on average, more in the core, less at the rim
    artery: str
    ml: float


def draw_artery(rng: np.random.Generator) -> str:
    names = list(ARTERIES)
    shares = np.array([ARTERIES[name].share for name in names])
    return names[rng.choice(len(names), p=shares / shares.sum())]


def grow(subject: Subject, rng: np.random.Generator, side: str, artery: str, ml: float) -> Infarct:
    """An infarct of about `ml` (less where the territory is smaller) in one artery's territory, on one side."""
    row = ARTERIES[artery]
    head = subject.head
    x, y, z = box_points(head)
    sign = 1 if side == "right" else -1
    seed = np.array(row.seed) + rng.normal(size=3) * row.spread
    half = slice(head.hull.shape[0] // 2, None) if sign > 0 else slice(0, head.hull.shape[0] // 2)
    across = sign * x[half]
    solid = 1 - subject.matter[0][half] - subject.matter[-1][half]
    allowed = (solid > 0.35) & (across > MIDLINE_MM) & territory(artery, across, y, z, head, half)

    places = [across, y, z]
    straight = np.sqrt(sum((p - s) ** 2 for p, s in zip(places, seed)))
    if row.cortical:
        crown = head.crown[:, half]
        along = np.sqrt((sign * crown[0] - seed[0]) ** 2 + (crown[1] - seed[1]) ** 2 + (crown[2] - seed[2]) ** 2)
        distance = 0.75 * along + 0.35 * straight
    else:
        distance = straight
    rough = stretch(noise_field(rng, [n // 2 + 1 for n in solid.shape], 18.0, False, step=2.5), solid.shape)
    reach = (ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    distance = distance + rough * np.clip(0.22 * reach, 0.8, 5.0)

    voxel_ml = np.prod(STEP) / 1000 / abs(np.linalg.det(subject.linear[:3, :3]))
    candidates = np.flatnonzero(allowed)
    ranks = distance.ravel()[candidates]
    count = int(np.clip(round(min(ml, row.largest_ml) / voxel_ml), 8, 0.9 * len(candidates)))
    chosen = np.argpartition(ranks, count)[:count]
    edge = ranks[chosen].max()
    inside = (edge - ranks[chosen]) / max(edge - ranks[chosen].min(), 1e-6)
    severity = np.clip(0.4 + 2.2 * inside, 0.4, 1.5)
    index = np.ravel_multi_index(np.unravel_index(candidates[chosen], solid.shape), solid.shape)
    index = index + half.start * int(np.prod(solid.shape[1:]))
    return Infarct(index, (severity / severity.mean()).astype(np.float32), artery, count * voxel_ml)


def territory(artery: str, across, y, z, head, half):
    """True where the artery may have its infarcts; `across` is mm from the midline on the infarct's side."""
    hind = (head.cerebellum[half] > 0) | (head.stem[half] > 0.3)
    if artery == "pica":
        return head.cerebellum[half] > 0
    if artery == "lenticulostriate":
        return (head.depth[half] > 4) & (across > 8) & (across < 36) & (z > -12) & (z < 34) & ~hind
    if artery == "pca":
        return (y < PCA_FRONT + across * 0.2) & (across < 42) & (z < 26) & ~hind
    if artery == "aca":
        return (across < ACA_OUTER) & (z > -14) & (y > -44) & ~hind & (head.ventricle[half] > 3)
    return (across > MCA_INNER) & ~((y < -62) & (across < 30)) & ~((y < -74)) & ~((z < -26) & (y < -20)) & ~hind


def scar(subject: Subject, old: Infarct) -> None:
    """Turns an infarct into an old one, in place: a cavity of CSF with a rim of gliosis."""
    matter = subject.matter.reshape(len(MATTER), -1)
    core = old.severity > 1.0
    for index, substance in ((old.index[core], "csf"), (old.index[~core], "gliosis")):
        solid = 1 - matter[0, index] - matter[-1, index]
        matter[1:-1, index] = 0
        if substance == "csf":
            matter[0, index] += solid
        else:
            matter[MATTER.index("gliosis"), index] = solid
