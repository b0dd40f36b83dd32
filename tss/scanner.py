"""A scanner: signals of each tissue, sampling in thick slices, bias field, noise, and the file's own axes.

In:    a Subject with a lesion, pose and grid of the scan, contrast settings
Out:   (X, Y, Z) float32 magnitude images and NIfTI files in any storage orientation
Paper: 2.1 (TR, TE, voxel sizes of FLAIR and DWI)
See:   tests/test_phantom.py

Signals: b0 = PD exp(-TE/T2); DWI = b0 exp(-b ADC); FLAIR = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2).
"""

from typing import NamedTuple

import nibabel
import numpy as np
import torch
from nibabel import orientations
from scipy import ndimage
from torch.nn import functional

from tss.files import write_whole
from tss.geometry import STEP
from tss.skull import TISSUES
from tss.subject import MATTER, WARP_STEP, Subject

B_VALUE = 1.0  # ms/um^2, that is b = 1000 s/mm^2 with ADC in 10^-3 mm^2/s
FLAIR_TR_MS = 8500.0  # paper 2.1: 8000-9000
SUBSLICES = 3  # samples averaged over a slice: one every 2.2 mm, the grid of the head has 2.5
FULL_SCALE = 1000.0  # scanner units of a signal of 1
WARP_MARGIN = 6.0  # mm that the smooth warp may add to the head's extent
WARP_NODES = 8  # voxels between points where the warp is evaluated


class Substance(NamedTuple):
    """PD relative to water, T1 and T2 in ms, ADC in 10^-3 mm^2/s, at 1.5-3 T."""

    pd: float
    t1: float
    t2: float
    adc: float


# Fat is suppressed in EPI: its PD differs between EPI and FLAIR, and its ADC stands for the suppression.
SUBSTANCES = {
    "air": Substance(0.0, 1000, 50, 1.0),
    "skin": Substance(0.45, 800, 55, 2.2),
    "fat": Substance(0.95, 300, 105, 2.4),
    "muscle": Substance(0.80, 1100, 40, 1.6),
    "bone": Substance(0.08, 500, 25, 1.0),
    "marrow": Substance(0.40, 400, 70, 2.2),
    "mucosa": Substance(0.85, 1400, 130, 2.0),
    "vitreous": Substance(1.00, 4000, 900, 2.7),
    "nerve": Substance(0.70, 850, 80, 0.75),
    "csf": Substance(1.00, 4300, 1500, 3.0),
    "blood": Substance(0.15, 1600, 50, 2.5),
    "grey": Substance(0.82, 1350, 92, 0.83),
    "white": Substance(0.70, 850, 78, 0.72),
    "deep": Substance(0.78, 1150, 78, 0.76),
    "iron": Substance(0.74, 1000, 62, 0.74),
    "gliosis": Substance(0.82, 1250, 125, 1.05),
    "dark": Substance(0.10, 1000, 40, 1.5),
}
FAT_IN_EPI = 0.45  # share of fat that suppression leaves in b0


class Contrast(NamedTuple):
    """Echo times in ms."""

    te_epi: float = 95.0
    te_flair: float = 110.0


def signals(contrast: Contrast, names) -> np.ndarray:
    """(3, K) noise-free signals of the named substances: b0, DWI, FLAIR."""
    rows = np.array([SUBSTANCES[name] for name in names])
    pd, t1, t2, adc = rows.T
    epi_pd = np.where(np.isin(names, ["fat", "marrow"]), pd * FAT_IN_EPI, pd)
    b0 = epi_pd * np.exp(-contrast.te_epi / t2)
    csf = SUBSTANCES["csf"].t1
    inversion = csf * (np.log(2) - np.log1p(np.exp(-FLAIR_TR_MS / csf)))  # nulls CSF
    recovery = np.abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-FLAIR_TR_MS / t1))
    return np.stack([b0, b0 * np.exp(-B_VALUE * adc), pd * recovery * np.exp(-contrast.te_flair / t2)])


class Lesion(NamedTuple):
    """Voxels of the brain box with acute ischaemia and what it does to their signals."""

    index: np.ndarray  # (n,) flat index into the brain box
    severity: np.ndarray  # (n,) about 1 on average: deep in the core more, at the rim less
    adc_ratio: float  # mean ADC, lesion / healthy
    flair_ratio: float  # mean FLAIR signal, lesion / healthy


def render(subject: Subject, lesions: list[Lesion], contrast: Contrast, texture=None) -> np.ndarray:
    """Noise-free signals (3, X, Y, Z) = b0, DWI, FLAIR on the whole grid of the mean head."""
    outer = signals(contrast, TISSUES).astype(np.float32)
    image = np.stack([np.take(row, subject.head.label) for row in outer])
    inner = signals(contrast, MATTER).astype(np.float32)
    shape = subject.brain.shape
    matter = subject.matter.reshape(len(MATTER), -1)
    brain = inner @ matter
    if texture is not None:
        brain *= texture.reshape(-1)
    for lesion in lesions:
        infarct(brain, inner, matter, lesion, contrast)
    box = (slice(None), *subject.head.box)
    image[box] += subject.brain * (brain.reshape(3, *shape) - image[box])
    return image


def infarct(brain, inner, matter, lesion: Lesion, contrast: Contrast) -> None:
    """Changes signals (3, N) in place. One T2 prolongation makes FLAIR and b0 rise together; DWI adds the ADC."""
    fluid = inner[:, :1] * matter[:1, lesion.index]
    solid = brain[:, lesion.index] - fluid
    log_ratio = np.log(lesion.flair_ratio) * lesion.severity  # = TE * (1/T2 - 1/T2 in the lesion)
    b0 = np.exp(log_ratio * contrast.te_epi / contrast.te_flair)
    healthy_adc = 0.5 * (SUBSTANCES["grey"].adc + SUBSTANCES["white"].adc)
    diffusion = np.exp(B_VALUE * healthy_adc * (1 - lesion.adc_ratio) * lesion.severity)
    brain[:, lesion.index] = fluid + solid * np.stack([b0, b0 * diffusion, np.exp(log_ratio)])


def scan(image: np.ndarray, subject: Subject, shape, affine, pose) -> np.ndarray:
    """Samples (C, X, Y, Z) fields of the mean head's grid on a scan's grid, averaged over the slice thickness.

    Args:
        shape, affine: the scan's grid, voxel -> scanner mm, slices along the third axis.
        pose: (4, 4) this head's mm -> scanner mm.
    Returns: (C, *shape) float32.
    """
    source = torch.from_numpy(np.ascontiguousarray(image))[None]
    span = _head_span(subject, shape, affine, pose)
    size = [s.stop - s.start for s in span]
    total = 0.0
    for offset in (np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5:
        nodes = [np.linspace(s.start, s.stop - 1, max(2, -(-n // WARP_NODES))) for s, n in zip(span, size)]
        voxels = np.stack(np.meshgrid(nodes[0], nodes[1], nodes[2] + offset, indexing="ij"))
        places = to_mean_head(subject, apply(np.linalg.inv(pose) @ affine, voxels))
        places = apply(np.linalg.inv(subject.head.affine), places)
        last = np.array(image.shape[1:]).reshape(3, 1, 1, 1) - 1
        unit = torch.from_numpy((2 * places / last - 1)[::-1].astype(np.float32))[None]
        grid = functional.interpolate(unit, size=size, mode="trilinear", align_corners=True)
        total = total + functional.grid_sample(source, grid.permute(0, 2, 3, 4, 1), align_corners=True)[0]
    result = np.zeros((len(image), *shape), np.float32)
    result[(slice(None), *span)] = total.numpy() / SUBSLICES
    return result


def _head_span(subject: Subject, shape, affine, pose) -> tuple[slice, ...]:
    """The part of a scan's grid that the head can reach: the rest is air and need not be sampled."""
    head = subject.head
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in head.label.shape], indexing="ij")).reshape(3, 8)
    here = apply(np.linalg.inv(affine) @ pose @ np.linalg.inv(subject.linear) @ head.affine, corners)
    margin = WARP_MARGIN / np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(slice(int(np.clip(low, 0, n - 2)), int(np.clip(high, np.clip(low, 0, n - 2) + 2, n)))
                 for low, high, n in zip(np.floor(here.min(1) - margin), np.ceil(here.max(1) + margin) + 1, shape))


def to_mean_head(subject: Subject, points: np.ndarray) -> np.ndarray:
    """(3, ...) mm of this head -> mm of the mean head: linear part plus smooth warp."""
    nodes = (points - subject.warp_low.reshape(3, *[1] * (points.ndim - 1))) / WARP_STEP
    smooth = [ndimage.map_coordinates(axis, nodes, order=1, mode="nearest") for axis in subject.warp]
    return apply(subject.linear, points) + np.stack(smooth)


def apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(4, 4) applied to (3, ...) points."""
    return np.tensordot(affine[:3, :3], points, 1) + affine[:3, 3].reshape(3, *[1] * (points.ndim - 1))


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


def save_scan(path, data: np.ndarray, affine: np.ndarray, axes: str = "RAS", dtype=np.float32) -> None:
    """Writes (X, Y, Z) RAS data with its voxels stored along `axes` (such as "LPS" or "SAL"); world mm stay."""
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(axes))
    stored = np.ascontiguousarray(orientations.apply_orientation(data, turn))
    affine = affine @ orientations.inv_ornt_aff(turn, data.shape)
    if dtype == np.int16:  # 12 bits and one slope for the file, as scanners have it
        slope = max(float(stored.max()) / 4095, 1e-6)
        image = nibabel.Nifti1Image(np.round(stored / slope).astype(np.int16), affine)
        image.header.set_slope_inter(slope, 0)
    else:
        image = nibabel.Nifti1Image(stored.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    write_whole(path, lambda beside: nibabel.save(image, beside))
