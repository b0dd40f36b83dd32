"""A scanner: pose, field of view, thick slices, bias field, noise, and the file's axis order.

In:    signals (C, X, Y, Z) on the mean head's grid, the Subject whose warp leads there, an rng
Out:   (X, Y, Z) float32 images on the scan's grid; NIfTI files in any storage orientation
Paper: 2.1 (voxel sizes)
See:   tests/phantom/test_cohort_phantom.py
"""

from typing import NamedTuple

import nibabel
import numpy as np
import torch
from nibabel import orientations
from scipy import ndimage
from torch.nn import functional

from tss.data.files import write_whole
from tss.data.nifti import apply_affine
from tss.phantom.individual_head import WARP_STEP, Subject

SUBSLICES = 3  # samples averaged over a slice: one every 2.2 mm, the grid of the head has 2.5
WARP_MARGIN = 6.0  # mm that the smooth warp may add to the head's extent
WARP_NODES = 8  # voxels between points where the warp is evaluated


SLICE_MM = (6.0, 6.5)  # paper 2.1
VIEW_MM = (224.0, 240.0)  # in-plane field of view; our choice, usual for heads
ALONG_HEAD = 0.4  # share of scans whose slices are planned along the head, hence oblique
BRAIN_MM = [[-68, 68], [-102, 70], [-70, 80]]  # extent of the mean brain
BRAIN_ROUND = 0.75  # its corners are empty: the box shrunk by this touches it


class Grid(NamedTuple):
    """Where a scan's voxels lie: how many along (x, y, z), and the affine (4, 4) voxel -> scanner mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray


def make_pose(rng: np.random.Generator, tilt: float, shift: float) -> np.ndarray:
    """A rigid motion (4, 4): turns up to `tilt` degrees about x, y, z (rolling less), shifts up to `shift` mm."""
    pose = np.eye(4)
    for axis, angle in enumerate(np.radians(rng.uniform(-tilt, tilt, 3) * (1.0, 0.7, 1.0))):
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        pose = turn @ pose
    pose[:3, 3] = rng.uniform(-shift, shift, 3)
    return pose


def make_grid(rng: np.random.Generator, subject: Subject, pose, pixel_mm: float, neck: float, cut_top: float) -> Grid:
    """Return the grid of an axial scan that covers this brain, along R, A, S or turned with the head.

    pose: (4, 4) this head's mm -> scanner mm.
    neck: mm of field of view below the brain. cut_top: largest part of the brain above the field of view.
    """
    axes = np.eye(3)
    if rng.uniform() < ALONG_HEAD:
        axes = pose[:3, :3] @ make_pose(rng, 3.0, 0.0)[:3, :3]
    corners = np.stack(np.meshgrid(*BRAIN_MM, indexing="ij")).reshape(3, 8) * BRAIN_ROUND
    poles = [[0, 0, -68, 68, 0, 0], [-40, -20, -20, -20, -102, 70], [-70, 80, 0, 0, 0, 0]]
    brain = apply_affine(np.linalg.inv(subject.linear), np.concatenate([corners, poles], axis=1))
    brain = axes.T @ apply_affine(pose, brain)
    low = brain[2].min() - rng.uniform(0.3, 1) * neck
    high = brain[2].max() + 4 - rng.uniform(0, 1) * cut_top
    slice_mm = rng.uniform(*SLICE_MM)
    field = max(rng.uniform(*VIEW_MM), 2 * np.abs(brain[:2]).max() + 8)
    width = int(np.ceil(field / pixel_mm / 8)) * 8
    corner = pixel_mm * (width - 1) / 2
    affine = np.eye(4)
    affine[:3, 3] = axes @ (-corner, -corner, low + slice_mm / 2)
    affine[:3, :3] = axes * (pixel_mm, pixel_mm, slice_mm)
    return Grid((width, width, int(np.ceil((high - low) / slice_mm))), affine)


def scan(image: np.ndarray, subject: Subject, grid: Grid, pose: np.ndarray) -> np.ndarray:
    """Sample (C, X, Y, Z) fields of the mean head's grid on a scan's grid, averaged over the slice thickness.

    grid: slices lie along its third axis.
    pose: (4, 4) this head's mm -> scanner mm.
    Returns: (C, X, Y, Z) float32 on the grid.
    """
    source = torch.from_numpy(np.ascontiguousarray(image))[None]
    span = _head_span(subject, grid, pose)
    size = [s.stop - s.start for s in span]
    nodes = [np.linspace(s.start, s.stop - 1, max(2, -(-n // WARP_NODES))) for s, n in zip(span, size, strict=True)]
    to_head = np.linalg.inv(pose) @ grid.affine
    places = to_mean_head(subject, apply_affine(to_head, np.stack(np.meshgrid(*nodes, indexing="ij"))))
    last = np.array(image.shape[1:]) - 1
    to_unit = np.diag([*(2 / last), 1]) @ np.linalg.inv(subject.head.affine)
    unit = apply_affine(to_unit, places) - 1
    coarse = torch.from_numpy(unit[::-1].astype(np.float32))[None]
    where = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    where = where.permute(0, 2, 3, 4, 1).contiguous()
    # Across one slice the smooth warp hardly changes, so that its samples differ by a constant step.
    slice_step = (to_unit @ subject.linear @ to_head)[:3, 2][::-1].astype(np.float32)
    total = torch.zeros(())
    for offset in (np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5:
        shifted = where + torch.from_numpy(np.float32(offset) * slice_step)
        total = total + functional.grid_sample(source, shifted, align_corners=True)[0]
    result = np.zeros((len(image), *grid.shape), np.float32)
    result[(slice(None), *span)] = total.numpy() / SUBSLICES
    return result


def _head_span(subject: Subject, grid: Grid, pose: np.ndarray) -> tuple[slice, ...]:
    """The part of a scan's grid that the head can reach: the rest is air and need not be sampled."""
    head = subject.head
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in head.label.shape], indexing="ij")).reshape(3, 8)
    reach = apply_affine(np.linalg.inv(grid.affine) @ pose @ np.linalg.inv(subject.linear) @ head.affine, corners)
    margin = WARP_MARGIN / np.linalg.norm(grid.affine[:3, :3], axis=0)
    low = np.clip(np.floor(reach.min(1) - margin), 0, np.array(grid.shape) - 2).astype(int)
    high = np.clip(np.ceil(reach.max(1) + margin) + 1, low + 2, grid.shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))


def to_mean_head(subject: Subject, points: np.ndarray) -> np.ndarray:
    """(3, ...) mm of this head -> mm of the mean head: linear part plus smooth warp."""
    nodes = (points - subject.warp_low.reshape(3, *[1] * (points.ndim - 1))) / WARP_STEP
    smooth = [ndimage.map_coordinates(axis, nodes, order=1, mode="nearest") for axis in subject.warp]
    return apply_affine(subject.linear, points) + np.stack(smooth)


def bias_field(rng: np.random.Generator, shape, strength: float) -> np.ndarray:
    """Smooth multiplicative field (X, Y, Z), about 1 +- strength over the head, made of the lowest cosines."""
    order = np.add.outer(np.add.outer(range(3), range(3)), range(3))
    weights = rng.normal(size=order.shape) / np.maximum(order, 1) * ((order > 0) & (order <= 3))
    waves = [np.cos(np.pi * np.arange(3)[:, None] * (np.arange(n) + 0.5) / n) for n in shape]
    log = np.einsum("ijk,kz->ijz", weights, waves[2])
    log = np.einsum("ijz,jy->iyz", log, waves[1]).astype(np.float32)
    log = np.tensordot(waves[0].T.astype(np.float32), log, 1)
    low, high = np.percentile(log[::4, ::4, ::2], [2, 98])
    return np.exp((log - (low + high) / 2) * np.float32(2 * np.log1p(strength) / (high - low)))


def add_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Rician noise: magnitude of the signal with Gaussian noise of SD sigma in both channels."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.sqrt(real * real + imaginary * imaginary)


def save_scan(
    path, data: np.ndarray, affine: np.ndarray, axes: str = "RAS", dtype=np.float32, slope: float = 0
) -> None:
    """Write (X, Y, Z) RAS data with its voxels stored along `axes` (such as "LPS" or "SAL"); world mm stay.

    With a slope the file holds integers, value = slope * integer, as converters leave them.
    """
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(axes))
    stored = np.ascontiguousarray(orientations.apply_orientation(data, turn))
    affine = affine @ orientations.inv_ornt_aff(turn, data.shape)
    image = nibabel.Nifti1Image((stored / slope).round().astype(dtype) if slope else stored.astype(dtype), affine)
    image.header.set_slope_inter(slope or 1, 0)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    write_whole(path, lambda beside: nibabel.save(image, beside))
