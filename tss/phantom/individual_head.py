"""One person's head: folding, atrophy, ventricles, white-matter disease, and the warp from the mean head.

In:    the mean head's fields, an rng (or none: the mean head itself)
Out:   Subject: tissue fractions (K, N) at the brain's voxels, and the map from this head to the mean head
Paper: - (the phantom is ours)
See:   tests/phantom/test_cohort_phantom.py

Cortex: sulci are the zero level of a band-passed random field f that is constant along the way from the surface
inwards, so that they are perpendicular to it and wind like real ones. A voxel's distance to CSF is then
min(depth, |f| / |grad f|), and the cortex is the ribbon within 2.7 mm of CSF, at the surface and along each sulcus.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import fft
from torch.nn import functional

from tss.phantom.mean_head import Head, mean_head
from tss.phantom.shapes import STEP, share

MATTER = ("csf", "grey", "white", "deep", "iron", "gliosis", "dark")
CORTEX_MM = 2.7  # mean cortical thickness
GYRUS_MM = 24.0  # wavelength of the folding: a sulcus every 12 mm
COMMON_FOLDING = 0.65  # share of the folding (as correlation) that all heads have in common
SULCUS_DEPTH_MM = (5.0, 28.0)
CRUMPLE_MM = 40.0  # wavelength over which sulci become deeper and shallower
STEM_NUCLEI = 0.4  # share of the brain stem that is nuclei, too fine to draw
FOLIUM_MM = 4.6
COMMON_SEED = 1909  # the folding of the mean head
HEAD_SCALE = 0.93  # people are smaller than the MNI152 template
WARP_REACH_MM = 32.0  # correlation length of the smooth deformation
NOISE_STEP = 3.0  # mm


class Variation(NamedTuple):
    """What differs from person to person. The defaults are the mean head."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # size along x, y, z, relative to the mean head
    shear: tuple[float, float, float] = (0.0, 0.0, 0.0)  # xy, xz, yz
    warp_mm: float = 0.0  # RMS of the smooth deformation
    shift_mm: float = 0.0  # midline shift towards the right
    ventricle_mm: float = 0.0  # ventricles' walls moved outwards
    atrophy_mm: float = 0.0  # pial surface moved inwards
    sulcus_mm: float = 0.55  # half width of a sulcus
    gliosis: float = 0.0  # volume of white-matter disease, 0 none .. 1 confluent


MEAN = Variation()


class Subject(NamedTuple):
    """A head in the mean head's coordinates plus the warp that leads there."""

    head: Head
    matter: np.ndarray  # (K, N) fractions in the order of MATTER at the head's N brain voxels; they sum to 1
    brain: np.ndarray  # (N,) 0..1, inside the pial envelope
    linear: np.ndarray  # (4, 4) this head's mm -> mean head's mm, without the smooth part
    warp: np.ndarray  # (3, x, y, z) mm added after `linear`, on a lattice of WARP_STEP over this head's mm
    warp_low: np.ndarray  # (3,) mm, first node of the lattice


WARP_STEP = 12.0  # mm
WARP_LOW, WARP_HIGH = -180.0, 180.0


def draw_variation(rng: np.random.Generator, age: float, shift_mm: float = 0.0) -> Variation:
    """A person of the given age: older brains have wider ventricles and sulci and more white-matter disease."""
    old = (age - 60) / 20
    return Variation(
        scale=tuple(HEAD_SCALE * np.exp(rng.normal(0, 0.03) + rng.normal(0, 0.025, 3))),
        shear=tuple(rng.normal(0, 0.015, 3)),
        warp_mm=rng.uniform(1.2, 2.4),
        shift_mm=shift_mm,
        ventricle_mm=float(np.clip(rng.normal(0.5 + 0.7 * old, 0.7), -0.8, 3.5)),
        atrophy_mm=float(np.clip(rng.normal(0.3 + 0.3 * old, 0.25), 0, 1.6)),
        sulcus_mm=float(np.clip(rng.normal(0.65 + 0.2 * old, 0.15), 0.35, 1.4)),
        gliosis=float(np.clip(rng.normal(0.25 + 0.2 * old, 0.2), 0, 1)),
    )


def make_subject(variation: Variation = MEAN, rng: np.random.Generator | None = None) -> Subject:
    """Build tissue fractions and warp; without an rng the mean head, which the atlas shows."""
    head = mean_head()
    folds, crumple = folding(head, rng)
    cortex = cortical_distance(head, variation, folds, crumple)
    matter, brain = tissues(head, variation, cortex, crumple, rng)
    warp, low = smooth_warp(variation, rng)
    linear = np.eye(4)
    linear[:3, :3] = np.diag(1 / np.array(variation.scale))
    linear[0, 1], linear[0, 2], linear[1, 2] = variation.shear
    return Subject(head, matter, brain, linear, warp, low)


def noise_field(rng: np.random.Generator, shape, wavelength: float, narrow: bool, step=NOISE_STEP) -> np.ndarray:
    """Random field (X, Y, Z) of unit SD: around one wavelength (mm) if narrow, else all longer ones."""
    spectrum = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    frequencies = [fft.fftfreq(n, step) for n in shape[:2]] + [fft.rfftfreq(shape[2], step)]
    squared = sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij", sparse=True))
    k = np.sqrt(squared).astype(np.float32) * np.float32(wavelength)
    spectrum *= np.exp(-((k - 1) ** 2) / (2 * 0.22**2)) if narrow else np.exp(-(k**2) / 2)
    field = fft.irfftn(spectrum, shape)
    return (field / field.std()).astype(np.float32)


def folding(head: Head, rng) -> tuple[np.ndarray, np.ndarray]:
    """f, whose zeros are sulci, on the brain's box (x, y, z), and a field (N,) that varies their depth.

    The field of the mean head is shared by everybody, so that sulci of different heads roughly match."""
    box = head.surface.shape[1:]
    span = [int(np.ceil(n * s / NOISE_STEP)) + 12 for n, s in zip(box, STEP, strict=True)]
    fields = common_folding(span[0], span[1], span[2])
    if rng is not None:
        own = np.stack([noise_field(rng, span, GYRUS_MM, True), noise_field(rng, span, CRUMPLE_MM, False)])
        fields = COMMON_FOLDING * fields + np.float32(np.sqrt(1 - COMMON_FOLDING**2)) * own
    low = head.affine[:3, 3] + [s.start * d for s, d in zip(head.box, STEP, strict=True)]
    middle = low + (np.array(box) - 1) * STEP / 2
    half = (np.array(span) - 1) / 2 * NOISE_STEP
    unit = [(c - m) / np.float32(h) for c, m, h in zip(head.surface, middle.astype(np.float32), half, strict=True)]
    grid = torch.from_numpy(np.stack(unit[::-1], axis=-1))[None]
    field = torch.from_numpy(fields)[None]
    folds, crumple = functional.grid_sample(field, grid, padding_mode="border", align_corners=True)[0].numpy()
    return folds, crumple.ravel()[head.boxed]


@lru_cache(maxsize=1)
def common_folding(*span: int) -> np.ndarray:
    """Folding that all heads share, (2, X, Y, Z): nearly but not quite the same on both sides."""
    rng = np.random.default_rng(COMMON_SEED)
    fields = []
    for wavelength, narrow in ((GYRUS_MM, True), (CRUMPLE_MM, False)):
        field = noise_field(rng, span, wavelength, narrow)
        field = field + 0.3 * field[::-1] + 0.4 * noise_field(rng, span, wavelength, narrow)
        fields.append(field / field.std())
    return np.stack(fields)


def cortical_distance(head: Head, variation: Variation, folds: np.ndarray, crumple: np.ndarray) -> np.ndarray:
    """Distance in mm from CSF (N,) at each voxel of the cerebrum; negative inside a sulcus or outside the cerebrum."""
    slope = np.sqrt(sum(s.ravel()[head.boxed] ** 2 for s in np.gradient(folds, *STEP)) + np.float32(0.03**2))
    outer = np.clip(1 - (head.hull - head.depth) / 8, 0, 1)  # falls towards midline, insula and base
    shallow, deep = SULCUS_DEPTH_MM
    floor = (shallow + (deep - shallow) * outer) * np.clip(0.6 + 0.45 * crumple, 0.2, 1)
    depth = head.depth - np.float32(variation.atrophy_mm)
    width = np.float32(variation.sulcus_mm) * (np.float32(1.6) - np.clip(depth / floor, 0, 1))
    wall = np.abs(folds.ravel()[head.boxed]) / slope - width
    beyond = np.maximum(depth - floor, 0)
    wall = np.where(beyond > 0, np.sqrt(np.maximum(wall, 0) ** 2 + beyond**2), wall)
    return np.minimum(depth, wall)


def tissues(head: Head, variation: Variation, cortex, crumple, rng) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (K, N) in the order of MATTER, and the brain (N,) inside the pial envelope."""
    solid = share(-cortex)
    white = np.minimum(share(CORTEX_MM - cortex, 1.6), solid)
    ribbon = (solid - white) * (1 - head.callosum)
    hind_solid, hind_white = cerebellum(head, crumple)
    rest = 1 - head.stem
    white = np.maximum((solid - ribbon + hind_white) * rest, head.stem * (1 - STEM_NUCLEI))
    grey = (ribbon + hind_solid - hind_white) * rest

    core = np.maximum(np.clip(head.depth / 3 - 1, 0, 1), head.stem)
    iron = head.iron * core
    deep = head.grey * np.maximum(core, np.clip(head.cerebellum / 3 - 1, 0, 1)) * (1 - iron)
    keep = (1 - deep - iron) * (1 - head.dark)
    deep = deep + STEM_NUCLEI * head.stem * (1 - deep - iron)
    solid = 1 - share(head.ventricle - variation.ventricle_mm, 1.8)
    gliosis = white_matter_disease(head, variation, rng)
    matter = np.stack(
        [
            solid,
            grey * solid * keep,
            white * solid * keep * (1 - gliosis),
            deep * solid * (1 - head.dark),
            iron * solid * (1 - head.dark),
            white * solid * keep * gliosis,
            head.dark,
        ]
    )
    matter[0] = np.maximum(1 - matter[1:].sum(0), 0)
    return matter, share(variation.atrophy_mm - head.hull)


def cerebellum(head: Head, crumple) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (N,) of the cerebellum: all of it without the clefts between folia, and its white matter."""
    solid, white = np.zeros((2, len(head.hull)), np.float32)
    here = np.flatnonzero(head.cerebellum > -0.5)
    depth, (x, y, z) = head.cerebellum[here], head.place[:, here]
    phase = (y + 0.011 * x * x + 0.35 * (z + 40)) / FOLIUM_MM + 0.35 * crumple[here]
    wave = np.abs(np.mod(phase, 1) - 0.5) * 2  # 0 in a cleft, 1 in a folium's core
    cleft = np.clip(1 - wave * 2.2, 0, 1) * np.clip(1 - depth / 9, 0, 1) * 0.7
    solid[here] = share(-depth) * (1 - cleft)
    white[here] = np.minimum(np.clip((depth - 9 + 4 * wave) / 3, 0, 1), solid[here]) * 0.9
    return solid, white


def white_matter_disease(head: Head, variation: Variation, rng) -> np.ndarray:
    """0..1 (N,): caps and rims around the ventricles and spots in the white matter, alike on both sides."""
    if rng is None or variation.gliosis == 0:
        return np.zeros_like(head.hull)
    spots = noise_at(head, rng, 9.0)
    rim = np.exp(-np.maximum(head.ventricle - variation.ventricle_mm, 0) / 4)
    level = spots + 2.6 * rim - 3.6 + 1.8 * variation.gliosis
    above = np.clip(head.place[2] / 10 + 0.5, 0, 1)
    return (np.clip(level * 1.5, 0, 1) * above * (head.depth > 7)).astype(np.float32)


def noise_at(head: Head, rng: np.random.Generator, wavelength: float) -> np.ndarray:
    """A random field of unit SD and the given correlation length (mm) at the brain's voxels (N,)."""
    box = head.surface.shape[1:]
    step = wavelength / 3
    nodes = [int(np.ceil(n * s / step)) + 1 for n, s in zip(box, STEP, strict=True)]
    coarse = noise_field(rng, nodes, wavelength, False, step)
    tensor = torch.from_numpy(coarse)[None, None]
    field = functional.interpolate(tensor, size=box, mode="trilinear", align_corners=True)
    return field.numpy().ravel()[head.boxed]


def smooth_warp(variation: Variation, rng) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random displacement (3, x, y, z) in mm, and a push of the midline that fades towards the skull."""
    count = int((WARP_HIGH - WARP_LOW) / WARP_STEP) + 1
    nodes = np.linspace(WARP_LOW, WARP_HIGH, count)
    warp = np.zeros((3, count, count, count), np.float32)
    if rng is not None and variation.warp_mm:
        for axis in warp:
            axis += variation.warp_mm / np.sqrt(3) * noise_field(rng, axis.shape, WARP_REACH_MM * 2.5, False, WARP_STEP)
    if variation.shift_mm:
        x, y, z = np.meshgrid(nodes, nodes, nodes, indexing="ij", sparse=True)
        warp[0] -= variation.shift_mm * np.exp(-((x / 30) ** 2) - ((y + 5) / 45) ** 2 - ((z - 10) / 35) ** 2)
    return warp, np.full(3, WARP_LOW)
