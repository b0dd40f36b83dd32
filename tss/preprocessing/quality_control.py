"""Measures that say whether a patient's preprocessing can be believed, and flags where not.

In:  Evidence: what preprocessing found for one patient, scans as they came, volumes on the atlas grid (X, Y, Z).
Out: measures (numbers), histograms, flags (short sentences).
Paper: 2.1 ("a visual quality check was manually performed for all cases"; the flags say where to look first).
See: tests/preprocessing/test_quality_control.py
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.linalg import polar

from tss.data.nifti import Volume, apply_affine, resample, shrink, voxel_sizes
from tss.preprocessing import registration, roles
from tss.preprocessing.atlas import Atlas
from tss.preprocessing.brain_extraction import is_stripped

EVERY = 10  # our choice: every tenth voxel is checked against the field of view
LEVELS = 32  # our choice: histogram bins of the correlation ratio
FEWEST_PAIRS = 10  # our choice: of lesion voxels with a mirror, for a contrast to be more than noise
BINS = np.linspace(0, 3, 61)  # our choice: edges of the histograms, in medians; on T2w CSF lies beyond

EDGE = "the brain touches the"
VOID = (
    "has no signal in {{:.0f}} ml of the brain ({{{0}_void_left_ml:.0f}} left, {{{0}_void_right_ml:.0f}} right): "
    "lost slices or a cut field of view"
)
COARSE = 2  # our choice: in the slices every second voxel is looked at for holes and voids
HOLE_MM = 4.0  # our choice: what is nowhere so deep is no hole but the brain's edge, where atlas and patient differ
HOLE_HEIGHT_MM = 10.0  # our choice: a hole is at least so high, and two slices
VOID_MM = 4.0  # our choice: the same for voids; specks in cisterns are thinner
NO_SIGNAL = 0.02  # our choice: of the brain's median
CSF = 1.5  # our choice: of b0's median; where b0 is brighter, DWI and FLAIR may well be dark
EMPTY = 0.01  # our choice: a slice with a smaller share of voxels with signal is padding, not field of view

# measure: lowest and highest that are believed, and what to say beyond. Our choice, from two real patients and ten
# phantoms: aligned, overlap was 0.91 to 0.95, similarity to the atlas 0.10 to 0.42, of FLAIR and b0 0.29 to 0.85;
# moved by 15 mm or turned by 20 degrees, overlap 0.84 to 0.89, similarity below 0.04 and below 0.06. Turned by right
# angles against the header, similarity below 0.06 and below 0.04. FLAIR as it is resembles b0 better by 0.16 to 0.53
# than with its sides exchanged. None of these detects a whole head that is mirrored: brains are symmetric. Of a
# lesion's contrast 0.83 to 1.11 was kept in 40 phantoms, 0.99 or more of it in the mask: the raw scan has the coil's
# bias, and the grid blurs small lesions. On FLAIR the result was nearer to the true ratio than the raw scan (0.03
# against 0.05). CSF on FLAIR was 0.07 to 0.34 of tissue. For FLAIR moved by 6 mm see tss.preprocessing.roles.
LIMITS = {
    "brain_ml": (900, 2000, "brain mask of {:.0f} ml: part of the brain is missing, or more than brain is in it"),
    "atlas_overlap": (
        0.88,
        1,
        "brain and atlas overlap by a Dice of {:.2f} only: mask or registration is wrong, or brain is missing. What is "
        "there should lie within the atlas' outline; exclude the patient if not",
    ),
    "atlas_similarity": (0.06, 1, "b0 and atlas hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_similarity": (0.15, 1, "FLAIR and b0 hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_side": (-0.05, 1, "FLAIR fits b0 better with left and right exchanged ({:+.2f}): one of them is mirrored"),
    "csf_on_dwi": (-9, -0.25, "CSF is as bright on the DWI as on b0 ({:+.2f}): is it a b1000, or a T2w image?"),
    "flair_csf": (0, 0.9, "CSF is as bright as brain on FLAIR ({:.2f}): is it a FLAIR, or a T2w image?"),
    "flair_moved": (
        0,
        0.42,
        "FLAIR fits b0 moved by 6 mm nearly as well ({:.2f}): is it of another patient, or misplaced?",
    ),
    "dwi_coverage": (0.93, 1, "the DWI shows {:.0%} of the brain: its field of view is cut"),
    "flair_coverage": (0.93, 1, "the FLAIR shows {:.0%} of the brain: its field of view is cut"),
    "cut_above_cm2": (0, 20, f"{EDGE} upper edge of the DWI's field of view over {{:.0f}} cm2: brain above is missing"),
    "cut_below_cm2": (0, 20, f"{EDGE} lower edge of the DWI's field of view over {{:.0f}} cm2: brain below is missing"),
    "cut_aside_cm2": (0, 5, f"{EDGE} side of the DWI's field of view over {{:.0f}} cm2: brain beyond is missing"),
    "hole_ml": (0, 5, "the brain mask lacks {:.0f} ml in one place where the other side has brain: a hole"),
    "dwi_void_ml": (0, 5, f"DWI {VOID}".format("dwi")),
    "t2w_void_ml": (0, 5, f"b0 {VOID}".format("t2w")),
    "flair_void_ml": (0, 5, f"FLAIR {VOID}".format("flair")),
    "turn_deg": (
        0,
        35,
        "the head is turned by {:.0f} degrees against the atlas: see if it lies straight, check left and right",
    ),
    "flair_turn_deg": (0, 30, "FLAIR and b0 are turned by {:.0f} degrees against each other: check left and right"),
    "dwi_contrast_kept": (0.8, 1.25, "the lesion's contrast on DWI is {:.2f} of the raw scan's"),
    "flair_contrast_kept": (0.8, 1.25, "the lesion's contrast on FLAIR is {:.2f} of the raw scan's"),
    "lesion_in_mask": (0.9, 1, "{:.0%} of the lesion lies in the brain mask: the mask has cut off the rest"),
    "size": (0.75, 1.3, "the brain had to be scaled by {:.2f} to fit the atlas: mask or registration is wrong"),
}


class Evidence(NamedTuple):
    """What preprocessing found for one patient; what is measured is measured on this."""

    raw: dict[str, Volume]  # channel -> the scan as it came
    clean: dict[str, Volume]  # channel -> the scan without bias field
    brains: dict[str, np.ndarray]  # channel -> (X, Y, Z) bool on the scan's own grid
    to_atlas: dict[str, np.ndarray]  # channel -> (4, 4) world mm -> world mm
    flair_to_b0: np.ndarray  # (4, 4) world mm -> world mm
    matched: dict[str, np.ndarray]  # channel -> (X, Y, Z) on the atlas grid, in medians of healthy brain
    mask: np.ndarray  # (X, Y, Z) bool on the atlas grid
    atlas: Atlas
    padding: dict[str, np.ndarray]  # channel -> (X, Y, Z) bool on the scan's own grid: nothing was measured there


def measure(of: Evidence) -> dict[str, float]:
    """Return the measures of LIMITS that every patient has."""
    return {
        **measure_on_atlas(of),
        "flair_similarity": similarity(of.matched["t2w"][of.mask], of.matched["flair"][of.mask]),
        "flair_coverage": coverage(
            of.raw["flair"], of.to_atlas["flair"], of.mask, of.atlas.affine, of.padding["flair"]
        ),
        "flair_turn_deg": turn_deg(of.flair_to_b0),
        **measure_roles(of),
        "flair_side": likeness_of_sides(of.clean["flair"], of.clean["t2w"], of.brains["t2w"], of.flair_to_b0),
    }


def measure_on_atlas(of: Evidence) -> dict[str, float]:
    """Return the measures of LIMITS that need no FLAIR: of the brain, and of where it came to lie on the atlas."""
    atlas_brain = of.atlas.on_grid > 0
    both = of.mask & atlas_brain
    return {
        "brain_ml": float(np.count_nonzero(of.brains["dwi"]) * np.prod(voxel_sizes(of.raw["dwi"].affine)) / 1000),
        "atlas_overlap": dice(of.mask, atlas_brain),
        "atlas_similarity": similarity(of.atlas.on_grid[both], of.matched["t2w"][both]) if both.any() else 0.0,
        "dwi_coverage": coverage(of.raw["dwi"], of.to_atlas["t2w"], atlas_brain, of.atlas.affine, of.padding["dwi"]),
        "turn_deg": turn_deg(of.to_atlas["t2w"]),
        "size": size(of.to_atlas["t2w"]),
        **cut_cm2(of.brains["dwi"], of.raw["dwi"], of.padding["dwi"]),
        "hole_ml": hole_ml(of),
        **voids_ml(of),
    }


def cut_cm2(brain: np.ndarray, scan: Volume, padding: np.ndarray) -> dict[str, float]:
    """Return over what area the brain (X, Y, Z) touches the edge of a scan's field of view: above, below, aside.

    Slices without signal, with which a scan was padded, are not field of view; nor is `padding` (X, Y, Z), or what is
    next to it, since a mask ends a voxel before.
    """
    signal = np.ones(scan.data.shape, bool) if is_stripped(scan.data) else scan.data != 0
    outside = ndimage.binary_dilation(padding) if padding.any() else np.zeros(brain.shape, bool)
    for axis in range(3):
        seen = np.flatnonzero(signal.mean(tuple({0, 1, 2} - {axis})) > EMPTY)
        first, last = (seen[0], seen[-1]) if seen.size else (0, -1)
        along = np.moveaxis(outside, axis, 0)
        along[:first] = along[last + 1 :] = True
    outside = np.pad(outside, 1, constant_values=True)
    brain = np.pad(brain, 1) & ~outside
    face = np.prod(voxel_sizes(scan.affine)) / voxel_sizes(scan.affine) / 100
    areas = [
        float(np.count_nonzero(brain & np.roll(outside, step, axis)) * face[axis])
        for axis in range(3)
        for step in (1, -1)
    ]
    return {"cut_above_cm2": areas[5], "cut_below_cm2": areas[4], "cut_aside_cm2": max(areas[:4])}


def hole_ml(of: Evidence) -> float:
    """Return the largest part of the brain that the mask lacks on one side and has on the other, atlas agreeing.

    What lies beyond the DWI's field of view is `cut_cm2`'s affair.
    """
    sizes = voxel_sizes(of.atlas.affine) * (COARSE, COARSE, 1)
    missing = (of.mask[::-1] & ~of.mask & (of.atlas.on_grid > 0))[::COARSE, ::COARSE]
    places = apply_affine(of.atlas.affine, (np.argwhere(missing) * (COARSE, COARSE, 1)).T)
    missing[missing] = in_view(of.raw["dwi"], of.to_atlas["dwi"], places, of.padding["dwi"])
    # A slice at the crown that one side just reaches and the other does not is no hole.
    missing = ndimage.binary_opening(missing, np.ones((1, 1, max(2, round(HOLE_HEIGHT_MM / sizes[2])))))
    parts, count = ndimage.label(_compact(missing, sizes, HOLE_MM))
    return float(np.bincount(parts.ravel())[1:].max() * np.prod(sizes) / 1000) if count else 0.0


def voids_ml(of: Evidence) -> dict[str, float]:
    """Return how much brain has no signal on each channel, in all, left and right; on DWI and FLAIR CSF apart."""
    measures: dict[str, float] = {}
    every = (slice(None, None, COARSE), slice(None, None, COARSE))
    sizes = voxel_sizes(of.atlas.affine) * (COARSE, COARSE, 1)
    mask, csf = of.mask[every], of.matched["t2w"][every] > CSF
    for name, volume in of.matched.items():
        void = mask & (volume[every] <= NO_SIGNAL)
        if name != "t2w":
            void &= ~csf
        halves = np.array_split(_compact(void, sizes, VOID_MM), 2)
        left, right = (float(half.sum() * np.prod(sizes) / 1000) for half in halves)
        measures |= {f"{name}_void_ml": left + right, f"{name}_void_left_ml": left, f"{name}_void_right_ml": right}
    return measures


def _compact(mask: np.ndarray, sizes: np.ndarray, mm: float) -> np.ndarray:
    """Return the mask (X, Y, Z) of voxels of these sizes without what is nowhere deeper than mm."""
    if not mask.any():
        return mask
    core = ndimage.distance_transform_edt(mask, sizes) > mm
    return mask & (ndimage.distance_transform_edt(~core, sizes) <= mm + sizes.min()) if core.any() else core


def measure_roles(of: Evidence) -> dict[str, float]:
    """Return what the images say of who they are, on voxels of about 2 mm."""
    dwi, b0, flair = (shrink(of.raw[name]) for name in ("dwi", "t2w", "flair"))
    brain = shrink(Volume(of.brains["t2w"].astype(np.float32), of.raw["t2w"].affine)).data > 0.5
    on_b0 = resample(flair, b0.data.shape, b0.affine, of.flair_to_b0)
    clean_flair, clean_b0 = (shrink(of.clean[name]) for name in ("flair", "t2w"))
    return {
        "csf_on_dwi": roles.csf_on_dwi(dwi.data, b0.data, brain),
        "flair_csf": roles.csf_on_flair(dwi.data, b0.data, on_b0, brain),
        "flair_moved": roles.fit_when_moved(clean_flair, clean_b0, brain, of.flair_to_b0, similarity),
    }


def likeness_of_sides(flair: Volume, b0: Volume, brain: np.ndarray, flair_to_b0: np.ndarray) -> float:
    """Return by how much FLAIR resembles b0 better as it is than with left and right exchanged.

    Below 0 one of the two has a header that exchanges them. The suite's own tools look for the exchanged one's place.
    """
    middle = np.linalg.inv(flair_to_b0) @ b0.affine @ [*np.argwhere(brain).mean(0), 1]
    exchange = np.diag([-1.0, 1, 1, 1])
    exchange[0, 3] = 2 * middle[0]
    exchanged = flair._replace(affine=exchange @ flair.affine)
    found = registration.find_affine(exchanged, b0, 6, fixed_mask=brain)
    alike = []
    for scan, world in ((flair, flair_to_b0), (exchanged, found)):
        moved = resample(scan, b0.data.shape, b0.affine, world)
        inside = brain & (moved > 0)
        alike.append(similarity(b0.data[inside], moved[inside]) if inside.any() else 0.0)
    return alike[0] - alike[1]


def measure_lesion(of: Evidence, lesion: Volume | None) -> dict[str, float]:
    """Return the lesion's contrast to its mirror image, at the same places on the raw scans and on the result; and the
    share of it that lies in the mask, and in the right hemisphere.

    {} where there is no mask of the lesion; no contrast where it has fewer than FEWEST_PAIRS voxels with a mirror.
    """
    if lesion is None:
        return {}
    here, mirror, in_mask = mirrored_pairs(lesion, of.mask, of.atlas.affine, of.to_atlas["dwi"])
    measures = {"lesion_in_mask": in_mask}
    if lesion.data.any():
        places = apply_affine(of.to_atlas["dwi"] @ lesion.affine, np.argwhere(lesion.data > 0).T)
        measures["lesion_right"] = float((places[0] > 0).mean())
    for name in ("dwi", "flair") if here.shape[1] >= FEWEST_PAIRS else ():
        before = contrast(of.raw[name], of.to_atlas[name], here, mirror)
        after = contrast(Volume(of.matched[name], of.atlas.affine), np.eye(4), here, mirror)
        measures |= {
            f"{name}_contrast_raw": before,
            f"{name}_contrast": after,
            f"{name}_contrast_kept": after / max(before, 1e-6),
        }
    return measures


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks; 0 where both are empty."""
    return 2 * int((one & other).sum()) / max(int(one.sum()) + int(other.sum()), 1)


def similarity(fixed: np.ndarray, moving: np.ndarray) -> float:
    """Return the correlation ratio: the share of moving's variance that fixed explains, 0..1 (Roche 1998)."""
    low, high = np.percentile(fixed, [1, 99])
    bins = ((fixed - low) / max(high - low, 1e-6) * (LEVELS - 1)).clip(0, LEVELS - 1).astype(int)
    moving = np.minimum(moving, np.percentile(moving, 99)).astype(np.float64)
    count = np.bincount(bins, minlength=LEVELS)
    mean = np.bincount(bins, moving, LEVELS) / np.maximum(count, 1)
    return float(np.sum(count * (mean - moving.mean()) ** 2) / max(moving.size * moving.var(), 1e-12))


def turn_deg(affine: np.ndarray) -> float:
    """Return by how many degrees a (4, 4) world affine turns the head about any axis; 180 where it mirrors it."""
    rotation, _ = polar(affine[:3, :3])
    if np.linalg.det(rotation) < 0:
        return 180.0
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def size(affine: np.ndarray) -> float:
    """Return the mean scale of a (4, 4) affine."""
    return float(abs(np.linalg.det(affine[:3, :3])) ** (1 / 3))


def coverage(scan: Volume, world: np.ndarray, mask: np.ndarray, affine: np.ndarray, padding: np.ndarray) -> float:
    """Return the share of a mask (X, Y, Z) that lies in a scan's field of view.

    world: (4, 4), mm of the scan -> mm of the mask's space; affine: (4, 4), voxel -> mm of the mask.
    padding: (X, Y, Z) bool on the scan's grid, what of it is no field of view.
    """
    return float(in_view(scan, world, apply_affine(affine, np.argwhere(mask)[::EVERY].T), padding).mean())


def in_view(scan: Volume, world: np.ndarray, places: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Tell which places (3, N), in mm of another space, lie in a scan's field of view: (N,) bool.

    world, padding: as for `coverage`.
    """
    voxel = apply_affine(np.linalg.inv(world @ scan.affine), places)
    inside = np.asarray(((voxel > -0.5) & (voxel < np.array(scan.data.shape)[:, None] - 0.5)).all(0))
    inside[inside] = ~padding[tuple(voxel[:, inside].round().astype(int))]
    return inside


def mirrored_pairs(lesion: Volume, mask: np.ndarray, affine: np.ndarray, world: np.ndarray) -> tuple:
    """Return the places of lesion voxels and of their mirror images, for those that have both in the brain mask.

    lesion: mask in its own space; mask (X, Y, Z) and affine: the brain on the atlas grid, midline at x = 0 mm (MNI);
    world: (4, 4), mm of the lesion -> mm of the atlas. A mirror image that is itself lesion does not count.

    Returns two (3, N) arrays in mm of the atlas, and the share of the lesion that lies in the mask, 0..1.
    """
    index = np.argwhere(lesion.data > 0).T
    here = apply_affine(world @ lesion.affine, index)
    mirror = here * [[-1], [1], [1]]
    in_mask = _value(mask, np.linalg.inv(affine), here, 0) > 0
    paired = in_mask & (_value(mask, np.linalg.inv(affine), mirror, 0) > 0)
    paired &= _value(lesion.data, np.linalg.inv(world @ lesion.affine), mirror, 0) <= 0
    return here[:, paired], mirror[:, paired], float(in_mask.mean()) if in_mask.size else 0.0


def contrast(scan: Volume, world: np.ndarray, lesion: np.ndarray, mirror: np.ndarray) -> float:
    """Return a scan's mean at the lesion's places over its mean at their mirror images, each (3, N) in mm of the atlas.

    world: (4, 4), mm of the scan -> mm of the atlas.
    """
    to_voxel = np.linalg.inv(world @ scan.affine)
    here, there = (_value(scan.data, to_voxel, places, 1).mean() for places in (lesion, mirror))
    return float(here / max(there, 1e-6))


def _value(volume: np.ndarray, to_voxel: np.ndarray, places: np.ndarray, order: int) -> np.ndarray:
    return ndimage.map_coordinates(volume.astype(np.float32, copy=False), apply_affine(to_voxel, places), order=order)


def describe(of: Evidence, medians: Mapping[str, float]) -> dict[str, float]:
    """Return what tells one scanner from another: voxel sizes in mm, intensities of healthy brain, the brightest 1 %.

    medians: channel -> median of healthy brain in scanner units.
    """
    found = {f"{name}_median": value for name, value in medians.items()}
    found["t2w_over_dwi"] = medians["t2w"] / medians["dwi"]
    for name in ("dwi", "flair"):
        in_plane, _, slices = sorted(voxel_sizes(of.raw[name].affine))
        brain = of.matched[name][of.mask]
        top = np.sort(brain)[-max(1, brain.size // 100) :]
        found |= {f"{name}_pixel_mm": in_plane, f"{name}_slice_mm": slices, f"{name}_top": top.mean()}
    return {name: float(value) for name, value in found.items()}


def histogram(values: np.ndarray) -> np.ndarray:
    """Return the shares (60,) of values, in medians, that lie in each of BINS."""
    return np.histogram(values, BINS)[0] / max(values.size, 1)


def histograms(of: Evidence, medians: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return channel -> (2, 60): `histogram` of the brain on the raw scan, over its median, and of the result."""
    return {
        name: np.stack([histogram(of.raw[name].data[of.brains[name]] / medians[name]), histogram(matched[of.mask])])
        for name, matched in of.matched.items()
    }


def flags(measures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each measure beyond its limits."""
    return [
        sentence.format(measures[name], **measures)
        for name, (low, high, sentence) in LIMITS.items()
        if name in measures and not low <= measures[name] <= high
    ]
