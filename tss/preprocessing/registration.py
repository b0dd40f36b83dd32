"""The suite's own affine registration, by mutual information, from coarse to fine.

In:  two Volumes (X, Y, Z) in RAS with their affines; the brain on the fixed one.
Out: world affine (4, 4) moving -> fixed, in mm.
Paper: 2.1 (FLIRT there; mutual information after Mattes et al. 2003).
See: tests/preprocessing/test_registration.py
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize
from scipy.linalg import expm, polar

from tss.data.nifti import Volume, apply_affine, shrink, voxel_sizes
from tss.errors import InputError
from tss.preprocessing.brain_extraction import depth, is_stripped

BINS = 32  # our choice, as Mattes: of each image's histogram
RADIUS_MM = 60.0  # of a head: turns and stretches count in mm at this distance, so that all parameters weigh alike
SMOOTH_MM = (4.0, 2.0, 1.0)  # our choice: standard deviation of the Gaussian at each level
POINTS = (2000, 5000, 12000)  # our choice: compared at each level
# Our choice: at the last level with the atlas, another head. Twelve poses and cuts of two real heads ended up to 7.6 mm
# from where the whole head did with 12000 points, and up to 4.1 with 36000.
POINTS_ON_ATLAS = 36000
STEPS = (10, 20, 20)  # our choice: iterations at each level; more change the result by less than 0.1 mm
KEPT = (4, 2, 1)  # our choice: poses that are refined at each level
TURNS_DEG = (-18.0, 0.0, 18.0)  # our choice: about each axis; a head tilted by 25 degrees is within 9 of a start
SHIFTS_MM = (-18.0, 0.0, 18.0)  # our choice: upwards; a scan that lacks the crown, or has a neck, has a low centre
ALIKE_MM = 5.0  # our choice: poses closer than this lead to the same one
LEAST_OVERLAP = 0.4  # our choice: poses with a smaller share of the points inside the moving scan are not considered
# Our choice: SD of the blur that FLAIR and b0 are divided by. Over 30 mm one of eight strong coils misleads.
FLAT_MM = 20.0
HEAD = 0.3  # our choice: of the mean signal; darker is air
DIMMEST = 0.2  # our choice: of the head's median blur; beyond the head nothing is divided by less
STRAIN = 0.05  # our choice: SD of the log of heads' stretch or shear against the atlas, size excluded
# Our choice: how many independent observations the information counts as. Real heads cut by 15 or 30 mm then land
# within 5 mm of themselves; with 300 within 6, without this prior within 8.
WORTH = 100.0
# Our choice: a head turned further, or seen in a smaller part than this, may lie beyond what the first search reaches;
# a second one looks around what the first found. Volunteers who lay tilted by 35 degrees, turned on to 48 and 62, were
# missed by 43 and 58 mm by the first one, and are found within 4 by the second.
FAR_DEG, SHORT = 22.0, 0.9
WIDER_DEG = (-36.0, -18.0, 0.0, 18.0, 36.0)  # our choice: the second search's turns about each axis
# Our choice: poses that it refines at each level. Of 72 heads that lacked 30 mm four then land more than 5 mm off with
# (8, 3, 2), three with (8, 4, 4) and with (12, 5, 3), and those three have less than 500 ml of brain left.
KEPT_AGAIN = (8, 4, 4)
ROUNDS, MUCH = 3, 0.01  # our choice: it goes on, at most so often, while it gains so much information
LEAST_OF_PART = 0.25  # our choice: LEAST_OVERLAP of that search where little of the head is seen
LAST_STEPS = 60  # our choice: iterations of the descents after it
# Our choice: so many of those descents start elsewhere, by so many mm (SD of each of the 12 parameters), since at the
# last level information has many small peaks. Of 122 heads posed anew, cut or acquired again 5 came to lie more than
# 5 mm from where they did with one descent, 2 with seven; nine do no better.
NUDGES, NUDGE_MM = 6, 3.0
# Our choice: WORTH in that descent where little of the head is seen. Six real heads that lacked 30 mm of the crown then
# came to lie 1.3 to 5.0 mm from where the whole heads do, with 100 4.4 to 5.9; cuts of the base differ by 0.1.
WORTH_OF_PART = 300.0
FARTHEST_MM = 200.0  # no parameter of a motion leads further: half a turn is 188 mm
DIFFERENCE_MM = 1e-3  # of the difference quotients of a motion by its parameters
STEEPNESS = 100.0  # L-BFGS-B's first step is 1 / |slope|; information changes by some 0.01 a mm, so this makes mm
THICK_MM = 3.0  # our choice: along such an axis points lie in the slices; between them an image is blurred
# Our choice: registration looks this far beyond the brain, where its outline shows. With more of the dark around it, a
# head that is cut slides along its outline; with 8 mm FLAIR landed up to 2.1 mm off in 24 phantoms and 0.8 in 48 other
# heads, with 5 up to 0.7 and 0.5.
MARGIN_MM = 5.0
AIR = 0.1  # our choice: of the mean; darker voxels do not count for the range that the bins span


class Images(NamedTuple):
    """What one level compares: points of the fixed scan with their histogram bins, and the smoothed moving scan."""

    points: np.ndarray  # (3, N) world mm of the fixed scan
    fixed_bins: np.ndarray  # (N,) int
    moving: np.ndarray  # (X, Y, Z), in units of bins
    to_voxel: np.ndarray  # (4, 4) world mm of the moving scan -> its voxel indices
    padding: np.ndarray | None = None  # (X, Y, Z) bool of the moving scan: nothing was measured there
    least: float = LEAST_OVERLAP  # share of the points that must lie in the moving scan


def find_affine(
    moving: Volume,
    fixed: Volume,
    dof: int,
    fixed_mask: np.ndarray | None = None,
    moving_padding: np.ndarray | None = None,
) -> np.ndarray:
    """Return the world affine (4, 4) moving -> fixed.

    dof: 12 for b0 (zero outside the brain) -> atlas brain; 6 for FLAIR -> b0, whole heads.
    fixed_mask: (X, Y, Z) bool on the fixed grid, the brain; None = where fixed is not zero.
    moving_padding: (X, Y, Z) bool on the moving grid, where nothing was measured and so nothing is compared; None =
        nowhere. Of no use to whole heads: 16 padded FLAIR came to lie 0.3 mm off on average without, 0.2 with it.

    Raises InputError: one of the two is empty.
    """
    mask = fixed.data > 0 if fixed_mask is None else fixed_mask
    if not mask.any() or not moving.data.any():
        raise InputError(f"{moving.path or fixed.path}: there is nothing in it to register. Export the scan again.")
    near = depth(~mask, voxel_sizes(fixed.affine), MARGIN_MM) <= MARGIN_MM
    if dof == 12:
        centres = [_centre(moving.data > 0, moving.affine)]
        return register(moving, fixed, (near, near, near), dof, centres, moving_padding)
    # Scans of one session share a world, unless the patient left the scanner in between: start from that, and from
    # aligned centres of mass.
    middle = _centre(mask, fixed.affine)
    centres = [middle, middle + _centre(moving.data, moving.affine) - _centre(fixed.data, fixed.affine)]
    # Blurred, the skull outshines the brain and misleads; sharp, it says where along the slices the head lies.
    coarse = near if is_stripped(moving.data) else mask
    return register(moving, fixed, (coarse, coarse, near), dof, centres, moving_padding)


def _centre(weights: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centre of mass (3,) in world mm."""
    index = np.array(ndimage.center_of_mass(np.clip(weights, 0, None)))
    return apply_affine(affine, index)


def register(
    moving: Volume, fixed: Volume, masks: tuple, dof: int, centres: list, padding: np.ndarray | None = None
) -> np.ndarray:
    """Find the affine that aligns moving with fixed.

    moving, fixed: volumes (X, Y, Z); outside the moving scan's field of view nothing is compared.
    masks: for each of the three levels where to compare, (X, Y, Z) bool on the fixed grid.
    dof: 6 = rigid, 12 = affine.
    centres: world positions in the moving scan (mm), each one guess of where the first mask's centre lies in it.
    padding: (X, Y, Z) bool on the moving grid, as outside its field of view; None = nowhere.

    Returns the world affine (4, 4) moving -> fixed.
    """
    centre = apply_affine(fixed.affine, np.argwhere(masks[0]).mean(0))
    small_moving, small_fixed = shrink(moving), shrink(fixed)
    if dof == 6:  # with their skulls; a coil puts different tissues in one bin
        small_moving, small_fixed = _flattened(small_moving), _flattened(small_fixed)
    counts = POINTS if dof == 6 else (*POINTS[:2], POINTS_ON_ATLAS)
    if padding is not None:
        padding = shrink(Volume(padding.astype(np.float32), moving.affine)).data > 0 if padding.any() else None
    levels = [
        _images(small_moving, small_fixed, _points(mask, fixed.affine, count), smooth, padding)
        for mask, count, smooth in zip(masks, counts, SMOOTH_MM, strict=True)
    ]

    starts = [
        _start(guess, turn, shift, centre)
        for guess in centres
        for turn in product(TURNS_DEG, repeat=3)
        for shift in SHIFTS_MM
    ]
    # In any case what the first guess leads to as it is: the scans' own headers are seldom far wrong.
    plain = _start(centres[0], (0, 0, 0), 0, centre)
    found, cost = _search(starts, plain, levels, centre, dof, KEPT)
    if dof == 12 and (_turned_far(found) or _seen_in_part(found, levels[-1])):
        found = _search_again(found, cost, levels, centre)
    return np.linalg.inv(found)


def _search(
    starts: list, plain: np.ndarray | None, levels: list[Images], centre: np.ndarray, dof: int, kept: tuple
) -> tuple[np.ndarray, float]:
    """Descend from the best of many starts, affines (4, 4) fixed -> moving, from level to level.

    plain: one more start, kept to the last level. Returns the affine and its cost.
    """
    costs = [_cost(start, levels[0], gradient=False)[0] for start in starts]
    poses = [starts[index] for index in np.argsort(costs, kind="stable")]
    # A coarse image may rank two poses the wrong way round, so more than one goes on to the next level.
    for images, count, steps, freedom in zip(levels, kept, STEPS, (min(dof, 7), dof, dof), strict=True):
        found = [_descend(pose, images, centre, freedom, steps) for pose in poses[:count]]
        if plain is not None:
            plain, cost = _descend(plain, images, centre, freedom, steps)
            if min(_apart(plain, pose, centre) for pose, _ in found) > ALIKE_MM:
                found.append((plain, cost))
            else:
                plain = None
        found.sort(key=lambda pose: pose[1])
        poses = [pose for pose, _ in found]
    return found[0]


def _turned_far(affine: np.ndarray) -> bool:
    """Tell whether an affine (4, 4) turns the head by more than FAR_DEG."""
    turn, _ = polar(affine[:3, :3])
    return bool(np.trace(turn) < 1 + 2 * np.cos(np.radians(FAR_DEG)))


def _seen_in_part(affine: np.ndarray, images: Images) -> bool:
    """Tell whether, at an affine (4, 4) fixed -> moving, a smaller share of the points than SHORT is in the scan."""
    place = apply_affine(images.to_voxel @ affine, images.points)
    return bool(_sample(images.moving, place, images.padding, slopes=False)[2].mean() < SHORT)


def _search_again(found: np.ndarray, cost: float, levels: list[Images], centre: np.ndarray) -> np.ndarray:
    """Search in a wider range around what was found, until nothing better is found.

    found, cost: the affine fixed -> moving, and its cost at the last level. Returns the better affine.
    """
    if _seen_in_part(found, levels[-1]):
        levels = [images._replace(least=LEAST_OF_PART) for images in levels]
    for _ in range(ROUNDS):
        turn, strain = polar(found[:3, :3])
        alike = np.eye(4)  # stretch and shear of a wrong pose mislead; its size does not
        alike[:3, :3] = turn * np.linalg.det(strain) ** (1 / 3)
        alike[:3, 3] = apply_affine(found, centre) - alike[:3, :3] @ centre
        starts = [
            alike @ _motions(np.array([*(np.radians(turns) * RADIUS_MM), 0, 0, shift]), centre)
            for turns in product(WIDER_DEG, repeat=3)
            for shift in SHIFTS_MM
        ]
        again, lower = _search(starts, found, levels, centre, 12, KEPT_AGAIN)
        gain = (cost - lower) / STEEPNESS
        if gain > 0:
            found, cost = again, lower
        if gain < MUCH:
            break
    worth = WORTH_OF_PART if _seen_in_part(found, levels[-1]) else WORTH
    poses = [_descend(found, levels[-1], centre, 12, LAST_STEPS, worth)]
    rng = np.random.default_rng(0)
    for _ in range(NUDGES):
        start = poses[0][0] @ _motions(rng.normal(0, NUDGE_MM, 12), centre)
        poses.append(_descend(start, levels[-1], centre, 12, LAST_STEPS, worth))
    return min(poses, key=lambda pose: pose[1])[0]


def _flattened(scan: Volume) -> Volume:
    """Divide a scan by its own blur over the head: whatever the coil does, near is compared with near."""
    signal = np.clip(scan.data, 0, None)
    head = signal > HEAD * signal[signal > 0].mean() if signal.any() else signal > 0
    level = _mean_nearby(signal, head, FLAT_MM / voxel_sizes(scan.affine))
    least = DIMMEST * np.median(level[head]) if head.any() else 1.0
    return scan._replace(data=(signal / np.maximum(level, max(least, 1e-6))).astype(np.float32))


def _mean_nearby(signal: np.ndarray, where: np.ndarray, width: np.ndarray, mode: str = "reflect") -> np.ndarray:
    """Return the mean (X, Y, Z) of the signal about each voxel, over what is `where` (X, Y, Z) bool only.

    width: of the Gaussian, SD in voxels along each axis; mode: how it goes on beyond the grid, as in scipy.ndimage.
    """
    share, total = (
        ndimage.gaussian_filter(np.where(where, values, 0).astype(np.float32), width, mode=mode, truncate=3)
        for values in (1, signal)
    )
    return total / np.maximum(share, 1e-3)


def _apart(one: np.ndarray, other: np.ndarray, centre: np.ndarray) -> float:
    """Return by how many mm two affines differ on the surface of a head about a centre: a rough upper bound."""
    return float(
        np.linalg.norm(apply_affine(one - other, centre)) + RADIUS_MM * np.linalg.norm((one - other)[:3, :3], 2)
    )


def _start(guess: np.ndarray, turn_deg: tuple, shift_mm: float, centre: np.ndarray) -> np.ndarray:
    """Return the affine fixed -> moving that carries the mask's centre to a guess, turned and lifted."""
    place = np.eye(4)
    place[:3, 3] = guess - centre + (0, 0, shift_mm)
    return place @ _motions(np.array([*(np.radians(turn_deg) * RADIUS_MM), 0, 0, 0]), centre)


def _generators() -> np.ndarray:
    """Return the (12, 4, 4) directions of motion: 3 turns, 3 shifts, growth, 2 stretches, 3 shears."""
    directions = np.zeros((12, 4, 4))
    for k, (i, j) in enumerate([(1, 2), (0, 2), (0, 1)]):
        directions[k, i, j], directions[k, j, i] = -1 / RADIUS_MM, 1 / RADIUS_MM
        directions[9 + k, i, j] = directions[9 + k, j, i] = 1 / RADIUS_MM
        directions[3 + k, k, 3] = 1
    for k, stretch in enumerate([(1, 1, 1), (1, -1, 0), (1, 1, -2)]):
        directions[6 + k, [0, 1, 2], [0, 1, 2]] = np.array(stretch) / RADIUS_MM
    return directions


GENERATORS = _generators()


def _motions(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return motions (..., 4, 4) about a centre. Parameters (..., 6, 7 or 12) in mm, in the order of GENERATORS."""
    there, back = np.eye(4), np.eye(4)
    there[:3, 3], back[:3, 3] = centre, -centre
    return there @ expm(np.tensordot(parameters, GENERATORS[: parameters.shape[-1]], 1)) @ back


def _descend(
    start: np.ndarray, images: Images, centre: np.ndarray, dof: int, steps: int, worth: float = WORTH
) -> tuple[np.ndarray, float]:
    """Descend from an affine fixed -> moving. Returns the affine and its cost."""
    nudges = DIFFERENCE_MM * np.concatenate([np.zeros((1, dof)), np.eye(dof), -np.eye(dof)])

    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        if np.abs(parameters).max() > FARTHEST_MM:  # a step that overshot: nothing is learned there
            return 0.0, np.zeros(dof)
        affines = start @ _motions(parameters + nudges, centre)
        value, slope = _cost(affines[0], images)
        ways = (affines[1 : dof + 1] - affines[dof + 1 :])[:, :3] / (2 * DIFFERENCE_MM)
        slope = (ways * slope).sum((1, 2))
        if dof > 7:
            odd = _oddness(affines[:, :3, :3], worth)
            value += odd[0]
            slope += (odd[1 : dof + 1] - odd[dof + 1 :]) / (2 * DIFFERENCE_MM)
        return STEEPNESS * value, STEEPNESS * slope

    found = optimize.minimize(
        cost, np.zeros(dof), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxls": 8, "ftol": 1e-6}
    )
    return start @ _motions(found.x, centre), found.fun


def _oddness(matrices: np.ndarray, worth: float = WORTH) -> np.ndarray:
    """Return the penalty on the stretches and shears of (..., 3, 3) matrices, in units of information.

    The squared log strain without overall growth, relative to how much heads differ. Where much of the brain is
    seen this weighs little; where a scan lacks the cerebellum or the crown it decides what the scan cannot.
    """
    values, vectors = np.linalg.eigh(np.swapaxes(matrices, -1, -2) @ matrices)
    strain = np.einsum("...ij,...j,...kj->...ik", vectors, 0.5 * np.log(values), vectors)
    growth = np.trace(strain, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)
    return ((strain - growth) ** 2).sum((-2, -1)) * (0.5 / STRAIN**2 / worth)


def _cost(affine: np.ndarray, images: Images, gradient: bool = True) -> tuple[float, np.ndarray]:
    """Return minus the mutual information at an affine fixed -> moving, and its gradient by the (3, 4) entries.

    gradient: False = zeros in its place, in half the time.

    MI = sum_fm p(f, m) log(p(f, m) / (p(f) p(m))), p smoothed along m by a cubic B-spline.
    """
    matrix = images.to_voxel @ affine
    place = apply_affine(matrix.astype(np.float32), images.points)
    value, slope, inside = _sample(images.moving, place, images.padding, gradient)
    count = inside.sum()
    if count < images.least * inside.size:
        return 0.0, np.zeros((3, 4))
    seen = np.flatnonzero(inside)  # take() is several times as fast as a mask
    value = value.take(seen)
    lower = value.astype(np.intp)
    weights, derivatives = _spline(value - lower.astype(np.float32))
    index = images.fixed_bins.take(seen) * (BINS + 3) + lower
    bins = BINS * (BINS + 3)
    counts = sum((np.bincount(index + k, weights[k], bins) for k in range(4)), np.zeros(bins))
    joint = counts.reshape(BINS, BINS + 3) / count
    by_fixed, by_moving = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    ratio = np.log((joint + 1e-9) / (by_fixed * by_moving + 1e-9))
    information = float(np.sum(joint * ratio))
    if not gradient:
        return -information, np.zeros((3, 4))

    table = ratio.ravel().astype(np.float32)
    gain = sum(derivatives[k] * table.take(index + k) for k in range(4)) / np.float32(count)  # dMI / d(value)
    by_position = gain * slope.take(seen, 1)  # (3, n)
    by_matrix = np.empty((3, 4))
    by_matrix[:, :3] = by_position @ images.points.take(seen, 1).T
    by_matrix[:, 3] = by_position.sum(1)
    return -information, -images.to_voxel[:3, :3].T @ by_matrix


def _spline(fraction: np.ndarray) -> tuple[list, list]:
    """Return the cubic B-spline's four weights at a fraction of a bin, and their derivatives."""
    f, g = fraction, 1 - fraction
    ff, gg = f * f, g * g
    weights = [gg * g / 6, 2 / 3 - ff + ff * f / 2, 2 / 3 - gg + gg * g / 2, ff * f / 6]
    return weights, [-gg / 2, 1.5 * ff - 2 * f, 2 * g - 1.5 * gg, ff / 2]


def _sample(
    data: np.ndarray, position: np.ndarray, padding: np.ndarray | None = None, slopes: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate linearly at (3, N) voxel positions: values (N,), slopes (3, N), and which lie in the scan (N,).

    padding: (X, Y, Z) bool, what of the grid counts as outside the scan; None = nothing.
    slopes: False = an empty array in their place.
    """
    last = np.array(data.shape, np.float32)[:, None] - 1
    inside = np.asarray(((position >= -0.5) & (position <= last + 0.5)).all(0))
    lower = np.clip(position, 0, last - 1e-3)
    corner = lower.astype(np.intp)  # numpy converts any other index at each use
    fraction = lower - corner.astype(np.float32)
    x, y, z = fraction
    across, along = data.shape[1] * data.shape[2], data.shape[2]
    first = corner[0] * across + corner[1] * along + corner[2]
    if padding is not None:
        steps = (fraction > 0.5) * np.array([[across], [along], [1]])
        inside &= ~padding.ravel()[first + steps.sum(0)]
    flat = data.ravel()
    low = [flat.take(first + dx * across + dy * along) for dx in (0, 1) for dy in (0, 1)]
    rise = [flat.take(first + dx * across + dy * along + 1) - low[2 * dx + dy] for dx in (0, 1) for dy in (0, 1)]
    v00, v01, v10, v11 = (a + z * b for a, b in zip(low, rise, strict=True))
    v0, v1 = v00 + y * (v01 - v00), v10 + y * (v11 - v10)
    value = v0 + x * (v1 - v0)
    if not slopes:
        return value, np.empty((3, 0)), inside
    r0, r1 = rise[0] + y * (rise[1] - rise[0]), rise[2] + y * (rise[3] - rise[2])
    slope = np.stack([v1 - v0, (v01 - v00) * (1 - x) + (v11 - v10) * x, r0 + x * (r1 - r0)])
    return value, slope, inside


def _images(
    moving: Volume, fixed: Volume, points: np.ndarray, smooth_mm: float, padding: np.ndarray | None = None
) -> Images:
    widths = [smooth_mm / voxel_sizes(volume.affine) for volume in (moving, fixed)]
    smooth_fixed = ndimage.gaussian_filter(fixed.data, widths[1], mode="nearest", truncate=3.0)
    if padding is None:
        smooth = ndimage.gaussian_filter(moving.data, widths[0], mode="nearest", truncate=3.0)
    else:  # nothing of it is blurred into the scan
        smooth = _mean_nearby(moving.data, ~padding, widths[0], mode="nearest")
    at_fixed = _sample(
        smooth_fixed, apply_affine(np.linalg.inv(fixed.affine).astype(np.float32), points), slopes=False
    )[0]
    tissue = smooth[smooth > AIR * smooth.mean()]
    return Images(
        points,
        _to_bins(at_fixed, at_fixed, BINS - 1).round().astype(np.int32),
        _to_bins(smooth, tissue, BINS - 1),
        np.linalg.inv(moving.affine),
        padding,
    )


def _to_bins(values: np.ndarray, sample: np.ndarray, last: int) -> np.ndarray:
    low, high = np.percentile(sample, [0.5, 99.5])  # our choice: a few bright vessels must not use up all the bins
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * last).astype(np.float32)


def _points(mask: np.ndarray, affine: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` world positions (3, N) in the mask, spread evenly but on no lattice (Kronecker sequence)."""
    corners = np.argwhere(mask)
    low, high = corners.min(0) - 0.5, corners.max(0) + 0.5
    tried = int(count * np.prod(high - low) / len(corners))
    root = 1.2207440846057596  # of x^4 = x + 1: its powers fill three dimensions most evenly
    index = low[:, None] + (high - low)[:, None] * (np.arange(1, tried + 1) * root ** -np.arange(1.0, 4)[:, None] % 1)
    inside = mask[tuple(index.round().astype(int).clip(0, np.array(mask.shape)[:, None] - 1))]
    thick = voxel_sizes(affine) > THICK_MM
    index[thick] = index[thick].round()
    return apply_affine(affine.astype(np.float32), index[:, inside].astype(np.float32))
