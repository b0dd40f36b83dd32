"""One patient, from raw scans to hemispheres: the paper's steps in order.

In:  Scans (DWI b1000, b0, FLAIR), each in its own space; the atlas; the tools; the reference patient's landmarks.
Out: Prepared: hemispheres (2, 3, D, H, W) in [0, 1], the volumes on the atlas grid, affines, measures and flags.
Paper: 2.1 and Fig. 2 (steps), 2.3 (hemispheres). Where our order differs, `prepare` says so.
See: tests/preprocessing/test_pipeline.py
"""

from dataclasses import dataclass

import numpy as np

from tss.data import hemispheres
from tss.data.hemispheres import CHANNELS
from tss.data.nifti import Volume, resample, voxel_sizes
from tss.errors import InputError
from tss.preprocessing import intensity, quality_control, symmetry
from tss.preprocessing.atlas import Atlas
from tss.preprocessing.padding import find_padding
from tss.preprocessing.roles import check_not_exchanged
from tss.preprocessing.scans import Scans, check_same_space, hash_voxels
from tss.preprocessing.tools import Tools


@dataclass
class Prepared:
    """A patient on the atlas grid. Volumes are in medians of healthy brain, 0 outside the mask."""

    hemispheres: np.ndarray  # (2, 3, D, H, W) float32 in [0, 1]: left, right mirrored; DWI, T2w, FLAIR
    volumes: dict[str, np.ndarray]  # channel -> (X, Y, Z) float32
    mask: np.ndarray  # (X, Y, Z) bool
    lesion: np.ndarray | None  # (X, Y, Z) bool
    affine: np.ndarray  # (4, 4) of the grid
    b0_to_atlas: np.ndarray  # (4, 4) world mm -> world mm
    flair_to_b0: np.ndarray  # (4, 4) world mm -> world mm
    dwi_to_b0: np.ndarray  # (4, 4) world mm -> world mm; the identity except in the paper's literal order
    landmarks: dict[str, list[float]]  # channel -> percentiles of healthy brain, in scanner units
    histograms: dict[str, np.ndarray]  # channel -> (2, 60): the brain's on the raw scan, and on the result
    measures: dict[str, float]  # of quality
    flags: list[str]
    acquired: dict[str, float]  # of the scans as they came: voxel sizes, intensities
    voxels: dict[str, str]  # channel -> SHA-256 of the scan as it came


def prepare(scans: Scans, atlas: Atlas, tools: Tools, reference: dict[str, list[float]] | None = None) -> Prepared:
    """Bring one patient into the atlas space, in comparable intensities (paper 2.1, Fig. 2).

    reference: the reference patient's landmarks for each channel; None = this is the reference patient.

    Raises InputError: scans that do not belong together, no brain, or a channel without signal.
    """
    dwi, b0, flair, lesion = scans
    for other in (b0, lesion):
        if other is not None:
            check_same_space(dwi, other)
    raw = {"dwi": dwi, "t2w": b0, "flair": flair}
    clean = {name: scan._replace(data=np.clip(scan.data, 0, None)) for name, scan in raw.items()}
    padding = {"dwi": find_padding(dwi, b0), "flair": find_padding(flair, flair)}

    # "the neck and skull were removed": on DWI with b0's help, before bias correction, which needs the brain mask.
    brain = tools.find_brain(clean["dwi"], clean["t2w"])
    if not brain.any():
        raise InputError(f"{dwi.path or 'the DWI'}: no brain was found in it. Look at it: is it the b1000 of a head?")
    check_not_exchanged(dwi, b0, brain)

    # "N4 bias field correction was applied to all sequences": to FLAIR once it is registered, and so has a mask
    brains = {"dwi": brain, "t2w": brain}
    clean |= {name: _without_bias(clean[name], brain, name) for name in brains}

    # "the remaining sequences were co-registered to the T2w volume"
    flair_to_b0 = tools.find_affine(clean["flair"], clean["t2w"], 6, fixed_mask=brain)
    dwi_to_b0 = tools.find_affine(clean["dwi"], clean["t2w"], 6, fixed_mask=brain) if tools.registers_dwi else np.eye(4)
    brains["flair"] = _mask_on(flair.data.shape, flair.affine, brain, dwi.affine, np.linalg.inv(flair_to_b0))
    clean["flair"] = _without_bias(clean["flair"], brains["flair"], "flair")

    # "the T2w sequence was registered ... to a version of the T2w MNI-152 atlas ... resized to 224 x 224 x 26"
    stripped = clean["t2w"]._replace(data=np.where(brain, clean["t2w"].data, 0))
    b0_to_atlas = tools.find_affine(stripped, atlas.brain, 12, moving_padding=padding["dwi"])

    # "using linear interpolation": each volume once, through the composed affines (decision 11).
    to_atlas = {"dwi": b0_to_atlas @ dwi_to_b0, "t2w": b0_to_atlas, "flair": b0_to_atlas @ flair_to_b0}
    on_grid = {name: resample(scan, atlas.shape, atlas.affine, to_atlas[name]) for name, scan in clean.items()}

    # "a second run of FSL BET was performed to remove remnant artifacts"
    mask = _mask_on(atlas.shape, atlas.affine, brain, dwi.affine, b0_to_atlas)
    mask &= tools.second_brain(Volume(np.where(mask, on_grid["t2w"], 0), atlas.affine, b0.path), atlas.near)
    if not mask.any():
        raise InputError(
            f"{dwi.path or 'the DWI'}: after registration nothing of the brain lies in the atlas' brain. Look at it: "
            "is it a whole head?"
        )

    # Bias field again, now that the midline is known: what is left of it must not look like a stroke on one side.
    on_grid = symmetry.balance(on_grid, mask, voxel_sizes(atlas.affine))

    # "intensity was normalized, and histogram matching was performed using a reference study"
    landmarks = {name: _landmarks(on_grid[name], mask, name) for name in CHANNELS}
    matched = {
        name: intensity.match(on_grid[name], mask, np.array(landmarks[name]), np.array((reference or landmarks)[name]))
        for name in CHANNELS
    }

    # 2.3: "split into hemispheres along the midsagittal plane", "values normalized to a range of 0 to 1"
    halves = hemispheres.split(np.stack([hemispheres.to_unit(matched[name], name) for name in CHANNELS]))

    lesion_on_grid = None
    if lesion is not None:
        lesion_on_grid = _mask_on(atlas.shape, atlas.affine, lesion.data > 0, dwi.affine, to_atlas["dwi"])

    # "a visual quality check was manually performed for all cases": measures that say where to look first
    evidence = quality_control.Evidence(raw, clean, brains, to_atlas, flair_to_b0, matched, mask, atlas, padding)
    measures = quality_control.measure(evidence) | quality_control.measure_lesion(evidence, lesion)
    return Prepared(
        hemispheres=halves,
        volumes=matched,
        mask=mask,
        lesion=lesion_on_grid,
        affine=atlas.affine,
        b0_to_atlas=b0_to_atlas,
        flair_to_b0=flair_to_b0,
        dwi_to_b0=dwi_to_b0,
        landmarks=landmarks,
        histograms=quality_control.histograms(evidence, {name: values[3] for name, values in landmarks.items()}),
        measures=measures,
        flags=[*dict.fromkeys([*dwi.notes, *b0.notes, *flair.notes]), *quality_control.flags(measures)],
        acquired=quality_control.describe(evidence, {name: values[3] for name, values in landmarks.items()}),
        voxels={name: hash_voxels(scan) for name, scan in raw.items()},
    )


def _mask_on(
    shape: tuple[int, ...], affine: np.ndarray, mask: np.ndarray, source: np.ndarray, world: np.ndarray
) -> np.ndarray:
    """Carry a mask with the affine `source` to another grid; world: (4, 4) mm of the mask -> mm of the grid."""
    return resample(Volume(mask.astype(np.float32), source), shape, affine, world) > 0.5


def _without_bias(scan: Volume, brain: np.ndarray, name: str) -> Volume:
    try:
        return scan._replace(data=intensity.correct_bias(scan.data, brain))
    except ValueError as error:
        raise InputError(f"{scan.path or name}: {error}. Is this the {name.upper()} of the same head?") from error


def _landmarks(volume: np.ndarray, mask: np.ndarray, name: str) -> list[float]:
    try:
        return intensity.find_landmarks(volume, mask).tolist()
    except ValueError as error:
        raise InputError(f"{name}, within the brain: {error}. Does its field of view cover the head?") from error
