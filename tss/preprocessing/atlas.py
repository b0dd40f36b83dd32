"""The atlas: which file it is, its skull removed, and the grid that it spans.

In:  a T2w atlas in MNI152 space, with or without skull; the number of voxels (X, Y, Z).
Out: Atlas(brain, shape, affine, on_grid, skull, near).
Paper: 2.1 (T2w MNI-152 atlas, resized to 224 x 224 x 26).
See: tests/preprocessing/test_atlas.py
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tss.data.files import sha256
from tss.data.nifti import Volume, atlas_grid, load, resample, voxel_sizes
from tss.errors import InputError
from tss.preprocessing.brain_extraction import find_brain

MARGIN_MM = 6.0  # our choice: brain further outside the atlas' is a remnant (the paper's second BET)
ZEROS_WITHOUT_SKULL = 0.5  # our choice: an atlas with more zeros than this has no skull
ADVICE = (
    "Give the ICBM-152 T2w atlas with --atlas FILE: mni_icbm152_t2_tal_nlin_sym_09a.nii, in the archive "
    "mni_icbm152_nlin_sym_09a_nifti.zip of the McConnell Brain Imaging Centre (nist.mni.mcgill.ca, "
    "ICBM 152 nonlinear atlases version 2009), and leave its brain mask, "
    "mni_icbm152_t1_tal_nlin_sym_09a_mask.nii of the same archive, beside it."
)
FSL_ATLASES = ("MNI152_T2_1mm_brain", "MNI152_T2_2mm_brain", "MNI152_T2_1mm", "MNI152_T2_2mm")


class Atlas(NamedTuple):
    """The atlas without skull, and the grid that it spans."""

    brain: Volume  # zero outside the brain
    shape: tuple[int, int, int]  # (X, Y, Z) of the grid
    affine: np.ndarray  # (4, 4) of the grid
    on_grid: np.ndarray  # (X, Y, Z), the brain on the grid
    skull: str  # how it was removed: "none", "by mask SHA-256", "found"
    near: np.ndarray  # (X, Y, Z) bool, brain and MARGIN_MM around it


def find_atlas(path: str | os.PathLike | None) -> Path:
    """Return the atlas file: the one given, else FSL's. Raises InputError: none is given and FSL has none."""
    if path:
        return Path(path)
    home = os.environ.get("FSLDIR", "")
    standard = Path(home) / "data" / "standard"
    for name in FSL_ATLASES if home else ():
        for file in (standard / f"{name}.nii.gz", standard / f"{name}.nii"):
            if file.is_file():
                return file
    raise InputError(f"no atlas: --atlas is not given and FSL has no T2w atlas in {standard}. {ADVICE}")


def load_atlas(path: str | os.PathLike, shape: tuple[int, int, int]) -> Atlas:
    """Load the atlas, remove its skull if it has one (see `mask_beside`), and lay the grid over it.

    Raises InputError: unreadable, or not in MNI space.
    """
    return lay_out(load(path), shape)


def mask_beside(atlas: str | os.PathLike) -> Path | None:
    """Return the brain mask that lies beside an atlas: ATLAS_mask or ATLAS_brain_mask, .nii or .nii.gz; those of ICBM
    and FSL are named for T1."""
    atlas = Path(atlas)
    stem = atlas.name.removesuffix(".gz").removesuffix(".nii")
    stems = dict.fromkeys((stem, stem.replace("_t2_", "_t1_"), stem.replace("_T2_", "_T1_")))
    names = [
        f"{name}{mask}{suffix}" for name in stems for mask in ("_mask", "_brain_mask") for suffix in (".nii", ".nii.gz")
    ]
    return next((atlas.with_name(name) for name in names if atlas.with_name(name).is_file()), None)


def lay_out(atlas: Volume, shape: tuple[int, int, int]) -> Atlas:
    """Remove the skull of an atlas if it has one, and lay a grid of (X, Y, Z) voxels over it.

    Raises InputError: not in MNI space, or no brain is found in it.
    """
    skull = "none"
    if np.mean(atlas.data == 0) < ZEROS_WITHOUT_SKULL:
        atlas, skull = _without_skull(atlas)
    affine = atlas_grid(atlas, shape)
    on_grid = resample(atlas, shape, affine)
    if not on_grid.any():
        raise InputError(f"{atlas.path}: no brain is left on a grid of {shape}. {ADVICE}")
    near = ndimage.distance_transform_edt(on_grid == 0, voxel_sizes(affine)) <= MARGIN_MM
    return Atlas(atlas, shape, affine, on_grid, skull, near)


def _without_skull(atlas: Volume) -> tuple[Volume, str]:
    """Remove what is not brain, and say how. On T2w eyes and scalp are as bright as brain, so a mask is wanted;
    without one the brain is looked for as on a DWI."""
    if mask := atlas.path and mask_beside(atlas.path):
        brain = resample(load(mask), atlas.data.shape, atlas.affine)
        return atlas._replace(data=np.where(brain > 0.5, atlas.data, 0)), f"by mask {sha256(mask)}"
    try:
        return atlas._replace(data=np.where(find_brain(atlas, atlas), atlas.data, 0)), "found"
    except InputError as error:
        raise InputError(f"{atlas.path} is a whole head, and its brain is not found ({error}). {ADVICE}") from error
