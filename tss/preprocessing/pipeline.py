"""One patient, from raw scans to hemispheres: the paper's steps, one line each.

In:  DWI (b1000), b0 and FLAIR as Volumes (X, Y, Z) in RAS, each in its own space; the atlas; the tools.
Out: Prepared: hemispheres (2, 3, D, H, W) in [0, 1], the volumes on the atlas grid, affines, figures and flags.
Paper: 2.1 and Fig. 2 (steps), 2.3 (hemispheres). Where our order differs, `prepare` says so.
See: tests/preprocessing/test_pipeline.py
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tss.data import hemispheres
from tss.data.cohort import Patient
from tss.data.diffusion import B0_MOST, B_WANTED, load_dwi
from tss.data.files import sha256
from tss.data.nifti import Volume, atlas_grid, load, resample, voxel_sizes
from tss.errors import InputError
from tss.preprocessing import brain_extraction, fsl, intensity, literal, quality_control, registration

ATLAS_MARGIN_MM = 6.0  # our choice: brain further outside the atlas' is a remnant (the paper's second BET)
SAME_SPACE_MM = 0.5  # our choice: how far corners of DWI and b0 may lie apart; converters round
STRIPPED = 0.5  # our choice: an atlas with more zeros than this has no skull
ADC_UNITS = {"10^-3 mm^2/s": (0.2, 5.0, 1.0), "10^-6 mm^2/s": (200, 5000, 1e-3)}  # range of the brain's median,
# and the factor that brings it to units of b = 1000 s/mm^2. Brain is 0.6 to 1.2 in the first.
ATLAS_ADVICE = (
    "Give the ICBM-152 T2w atlas with --atlas FILE: mni_icbm152_t2_tal_nlin_sym_09a.nii, in the archive "
    "mni_icbm152_nlin_sym_09a_nifti.zip of the McConnell Brain Imaging Centre (nist.mni.mcgill.ca, "
    "ICBM 152 nonlinear atlases version 2009), and leave its brain mask, "
    "mni_icbm152_t1_tal_nlin_sym_09a_mask.nii of the same archive, beside it."
)
FSL_ATLASES = ("MNI152_T2_1mm_brain", "MNI152_T2_2mm_brain", "MNI152_T2_1mm", "MNI152_T2_2mm")


class Atlas(NamedTuple):
    """The atlas as it is, without skull, and the grid that it spans."""

    brain: Volume  # zero outside the brain
    shape: tuple[int, int, int]  # (X, Y, Z) of the grid
    affine: np.ndarray  # (4, 4) of the grid
    on_grid: np.ndarray  # (X, Y, Z), the brain on the grid
    skull: str  # how it was taken off: "none", "by mask SHA-256", "found"
    near: np.ndarray  # (X, Y, Z) bool, brain and ATLAS_MARGIN_MM around it


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
    dwi_to_b0: np.ndarray  # (4, 4) world mm -> world mm; the identity but in the paper's literal order
    landmarks: dict[str, list[float]]  # channel -> percentiles of healthy brain, in scanner units
    histograms: dict[str, np.ndarray]  # channel -> (2, 60): the brain's on the raw scan, and at last (quality.BINS)
    figures: dict[str, float]
    flags: list[str]


def find_tools(name: str) -> ModuleType:
    """Return the backend for "auto", "fsl", "literal" or "builtin"; auto is FSL where it is installed.

    Raises:
        InputError: FSL is asked for and missing.
    """
    if name == "builtin" or (name == "auto" and not fsl.available()):
        return brain_extraction
    fsl.describe()
    return literal if name == "literal" else fsl


def find_atlas(path: str | os.PathLike | None) -> Path:
    """Return the atlas file: the one given, else FSL's.

    Raises:
        InputError: none is given and FSL has none.
    """
    if path:
        return Path(path)
    standard = Path(os.environ.get("FSLDIR", "")) / "data" / "standard"
    for name in FSL_ATLASES:
        for file in (standard / f"{name}.nii.gz", standard / f"{name}.nii"):
            if os.environ.get("FSLDIR") and file.is_file():
                return file
    raise InputError(f"no atlas: --atlas is not given and FSL has no T2w atlas in {standard}. {ATLAS_ADVICE}")


def load_atlas(path: str | os.PathLike, shape: tuple[int, int, int]) -> Atlas:
    """Load the atlas, take its skull off if it has one (see `mask_beside`), and lay the grid over it.

    Raises:
        InputError: unreadable, or not in MNI space.
    """
    return _laid_out(load(path), shape)


def mask_beside(atlas: str | os.PathLike) -> Path | None:
    """Return the brain mask that lies beside an atlas: ATLAS_mask or ATLAS_brain_mask, .nii or .nii.gz; of ICBM and FSL
    it is named for T1."""
    atlas = Path(atlas)
    stem = atlas.name.removesuffix(".gz").removesuffix(".nii")
    stems = dict.fromkeys((stem, stem.replace("_t2_", "_t1_"), stem.replace("_T2_", "_T1_")))
    names = [
        f"{name}{mask}{suffix}" for name in stems for mask in ("_mask", "_brain_mask") for suffix in (".nii", ".nii.gz")
    ]
    return next((atlas.with_name(name) for name in names if atlas.with_name(name).is_file()), None)


def _without_skull(atlas: Volume) -> tuple[Volume, str]:
    """Take off what is not brain, and say how. On T2w eyes and scalp are as bright as brain, so a mask is wanted;
    without one the brain is looked for as on a DWI."""
    if mask := atlas.path and mask_beside(atlas.path):
        brain = resample(load(mask), atlas.data.shape, atlas.affine)
        return atlas._replace(data=np.where(brain > 0.5, atlas.data, 0)), f"by mask {sha256(mask)}"
    try:
        return atlas._replace(data=np.where(brain_extraction.find_brain(atlas, atlas), atlas.data, 0)), "found"
    except InputError as error:
        raise InputError(
            f"{atlas.path} is a whole head, and its brain is not found ({error}). {ATLAS_ADVICE}"
        ) from error


def _laid_out(atlas: Volume, shape: tuple[int, int, int]) -> Atlas:
    skull = "none"
    if np.mean(atlas.data == 0) < STRIPPED:
        atlas, skull = _without_skull(atlas)
    affine = atlas_grid(atlas, shape)
    on_grid = resample(atlas, shape, affine)
    if not on_grid.any():
        raise InputError(f"{atlas.path}: no brain is left on a grid of {shape}. {ATLAS_ADVICE}")
    near = ndimage.distance_transform_edt(on_grid == 0, voxel_sizes(affine)) <= ATLAS_MARGIN_MM
    return Atlas(atlas, tuple(shape), affine, on_grid, skull, near)


def load_scans(patient: Patient) -> dict[str, Volume]:
    """Load a patient's dwi, b0, flair, and lesion if given.

    The b0 is the one that is named, else the one within a 4-D DWI, else it is made from the ADC.

    Raises:
        InputError: a file is missing or unusable, or two that share a space differ in shape or place.
    """
    for name in ("dwi", "flair"):
        if not patient.path(name):
            raise InputError(patient.row.get("not_found") or f"no {name} is given. Name the file in column {name}.")
    dwi, b, b0 = load_dwi(patient.path("dwi"), patient.bval)
    scans = {"dwi": dwi, "flair": load(patient.path("flair"))}
    if patient.path("lesion"):
        scans["lesion"] = load(patient.path("lesion"), mask=True)
    if patient.path("b0"):
        scans["b0"] = load(patient.path("b0"))
    elif b0 is not None:
        scans["b0"] = b0
    elif patient.path("adc"):
        adc = load(patient.path("adc"))
        check_same_space(dwi, adc)
        scans["b0"] = b0_from_adc(dwi, adc, b)
    else:
        raise InputError(
            patient.row.get("not_found")
            or f"{dwi.path} holds no b0 (b <= {B0_MOST:.0f}), and neither b0 nor adc is given. Name one of the two."
        )
    return scans


def check_same_space(dwi: Volume, other: Volume) -> None:
    """Refuse a b0, ADC or lesion that does not lie voxel on voxel with the DWI (decision 12).

    Raises:
        InputError: shapes differ, or corners lie more than SAME_SPACE_MM apart.
    """
    names = f"{dwi.path or 'DWI'} and {other.path or 'b0'}"
    if dwi.data.shape != other.data.shape:
        raise InputError(
            f"{names} differ in shape, {dwi.data.shape} and {other.data.shape}. DWI, b0, ADC and "
            "lesion come from one acquisition: export them on the same grid."
        )
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(dwi.data.shape) - 1)
    corners = np.c_[corners, np.ones(8)].T
    apart = np.linalg.norm(((dwi.affine - other.affine) @ corners)[:3], axis=0).max()
    if apart > SAME_SPACE_MM:
        raise InputError(
            f"{names} have the same shape but lie {apart:.1f} mm apart by their headers. "
            "DWI, b0, ADC and lesion come from one acquisition: export them on the same grid."
        )


def b0_from_adc(dwi: Volume, adc: Volume, b: float = B_WANTED) -> Volume:
    """Return b0 = DWI * exp(b * ADC), b in s/mm^2. The ADC's unit is recognised by its size.

    Raises:
        InputError: the ADC's median fits neither 10^-3 nor 10^-6 mm^2/s.
    """
    median = float(np.median(adc.data[(adc.data > 0) & (dwi.data > 0)]))
    for low, high, factor in ADC_UNITS.values():
        if low <= median <= high:
            # Brain and CSF end near 3.2; what lies above is noise over noise, and its exponential would dwarf the head.
            exponent = np.clip(adc.data * factor, 0, 3.5) * (b / 1000)
            return Volume(dwi.data * np.exp(exponent), dwi.affine, adc.path)
    raise InputError(
        f"{adc.path}: the median of positive voxels is {median:.3g}, which is neither "
        f"{' nor '.join(ADC_UNITS)} of a brain. Give b0 instead, or bring the ADC to one of these units."
    )


def prepare(
    dwi: Volume,
    b0: Volume,
    flair: Volume,
    atlas: Atlas,
    tools: ModuleType,
    reference: dict[str, list[float]] | None = None,
    lesion: Volume | None = None,
) -> Prepared:
    """Bring one patient into the atlas space, in comparable intensities (paper 2.1, Fig. 2).

    Args:
        tools: tss.preprocessing.fsl, tss.preprocessing.brain_extraction, or tss.preprocessing.literal, the paper's order as it stands.
        reference: the reference patient's landmarks for each channel; None = this is the reference patient.
        lesion: mask in DWI space, carried along.

    Raises:
        InputError: scans that do not belong together, no brain, or a channel without signal.
    """
    for other in (b0, lesion):
        if other is not None:
            check_same_space(dwi, other)
    scans = {"dwi": dwi, "t2w": b0, "flair": flair}
    scans = {name: scan._replace(data=np.clip(scan.data, 0, None)) for name, scan in scans.items()}

    # "the neck and skull were removed": on DWI with b0's help, before the bias field, which is of the brain's tissue.
    brain = tools.find_brain(scans["dwi"], scans["t2w"])
    if not brain.any():
        raise InputError(f"{dwi.path or 'the DWI'}: no brain was found in it.")

    # "N4 bias field correction was applied to all sequences"
    brain_of = {"dwi": brain, "t2w": brain}
    scans |= {name: _without_bias(scans[name], brain, name) for name in brain_of}

    # "the remaining sequences were co-registered to the T2w volume"
    flair_to_b0 = tools.find_affine(scans["flair"], scans["t2w"], 6, fixed_mask=brain)
    dwi_to_b0 = np.eye(4)  # they come from one acquisition
    if tools is literal:
        dwi_to_b0 = tools.find_affine(scans["dwi"], scans["t2w"], 6, fixed_mask=brain)

    brain_of["flair"] = _carried(brain, dwi, flair, np.linalg.inv(flair_to_b0))
    scans["flair"] = _without_bias(scans["flair"], brain_of["flair"], "flair")

    # "the T2w sequence was registered ... to a version of the T2w MNI-152 atlas ... resized to 224 x 224 x 26"
    stripped = scans["t2w"]._replace(data=np.where(brain, scans["t2w"].data, 0))
    b0_to_atlas = tools.find_affine(stripped, atlas.brain, 12)

    # "using linear interpolation": each volume once, through the composed affines.
    to_atlas = {"dwi": b0_to_atlas @ dwi_to_b0, "t2w": b0_to_atlas, "flair": b0_to_atlas @ flair_to_b0}
    on_grid = {name: resample(scan, atlas.shape, atlas.affine, to_atlas[name]) for name, scan in scans.items()}

    # "a second run of FSL BET was performed to remove remnant artifacts"
    mask = _on_grid(brain, dwi.affine, atlas, b0_to_atlas)
    if tools is literal:
        mask &= tools.find_brain_again(Volume(np.where(mask, on_grid["t2w"], 0), atlas.affine, b0.path))
    else:
        mask &= atlas.near
    if not mask.any():
        raise InputError(f"{dwi.path or 'the DWI'}: after registration nothing of the brain lies in the atlas' brain.")

    # "intensity was normalized, and histogram matching was performed using a reference study"
    landmarks = {name: _landmarks(on_grid[name], mask, name) for name in hemispheres.CHANNELS}
    aims = reference or landmarks
    matched = {
        name: intensity.match(on_grid[name], mask, np.array(landmarks[name]), np.array(aims[name]))
        for name in hemispheres.CHANNELS
    }

    # 2.3: "split into hemispheres along the midsagittal plane", "values normalized to a range of 0 to 1"
    unit = np.stack([hemispheres.to_unit(matched[name], name) for name in hemispheres.CHANNELS])
    halves = hemispheres.split(unit)

    figures = _figures(brain, dwi, flair, matched, mask, atlas, b0_to_atlas, flair_to_b0)
    figures["flair_side"] = _sameness_of_sides(scans["flair"], scans["t2w"], brain, flair_to_b0)
    carried_lesion = None
    if lesion is not None:
        carried_lesion = _on_grid(lesion.data > 0, dwi.affine, atlas, to_atlas["dwi"])
        figures |= _lesion_figures(lesion, {"dwi": dwi, "flair": flair}, to_atlas, matched, mask, atlas)
    raw = {"dwi": dwi, "t2w": b0, "flair": flair}
    histograms = {
        name: np.stack(
            [
                quality_control.histogram(raw[name].data[brain_of[name]] / landmarks[name][3]),
                quality_control.histogram(matched[name][mask]),
            ]
        )
        for name in hemispheres.CHANNELS
    }
    return Prepared(
        halves,
        matched,
        mask,
        carried_lesion,
        atlas.affine,
        b0_to_atlas,
        flair_to_b0,
        dwi_to_b0,
        landmarks,
        histograms,
        figures,
        quality_control.flags(figures),
    )


def _carried(mask: np.ndarray, source: Volume, target: Volume, world: np.ndarray) -> np.ndarray:
    return resample(Volume(mask.astype(np.float32), source.affine), target.data.shape, target.affine, world) > 0.5


def _on_grid(mask: np.ndarray, affine: np.ndarray, atlas: Atlas, world: np.ndarray) -> np.ndarray:
    return resample(Volume(mask.astype(np.float32), affine), atlas.shape, atlas.affine, world) > 0.5


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


def _sameness_of_sides(flair: Volume, b0: Volume, brain: np.ndarray, flair_to_b0: np.ndarray) -> float:
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
        alike.append(quality_control.similarity(b0.data[inside], moved[inside]) if inside.any() else 0.0)
    return alike[0] - alike[1]


def _figures(
    brain: np.ndarray,
    dwi: Volume,
    flair: Volume,
    matched: dict[str, np.ndarray],
    mask: np.ndarray,
    atlas: Atlas,
    b0_to_atlas: np.ndarray,
    flair_to_b0: np.ndarray,
) -> dict[str, float]:
    atlas_brain = atlas.on_grid > 0
    both = mask & atlas_brain
    return {
        "brain_ml": float(np.count_nonzero(brain) * np.prod(voxel_sizes(dwi.affine)) / 1000),
        "atlas_overlap": quality_control.dice(mask, atlas_brain),
        "atlas_similarity": quality_control.similarity(atlas.on_grid[both], matched["t2w"][both])
        if both.any()
        else 0.0,
        "flair_similarity": quality_control.similarity(matched["t2w"][mask], matched["flair"][mask]),
        "dwi_coverage": quality_control.coverage(dwi, b0_to_atlas, atlas_brain, atlas.affine),
        "flair_coverage": quality_control.coverage(flair, b0_to_atlas @ flair_to_b0, mask, atlas.affine),
        "turn_deg": quality_control.turn_deg(b0_to_atlas),
        "flair_turn_deg": quality_control.turn_deg(flair_to_b0),
        "size": quality_control.size(b0_to_atlas),
    }


def _lesion_figures(
    lesion: Volume,
    raw: dict[str, Volume],
    to_atlas: dict[str, np.ndarray],
    matched: dict[str, np.ndarray],
    mask: np.ndarray,
    atlas: Atlas,
) -> dict[str, float]:
    """Lesion-to-mirror contrast at the same places of the head, on the raw scans and at last (DESIGN 7)."""
    here, mirror, in_mask = quality_control.mirrored_pairs(lesion, mask, atlas.affine, to_atlas["dwi"])
    figures = {"lesion_in_mask": in_mask}
    for name, scan in raw.items() if here.shape[1] >= quality_control.FEWEST_PAIRS else ():
        before = quality_control.contrast(scan, to_atlas[name], here, mirror)
        after = quality_control.contrast(Volume(matched[name], atlas.affine), np.eye(4), here, mirror)
        figures |= {
            f"{name}_contrast_raw": before,
            f"{name}_contrast": after,
            f"{name}_contrast_kept": after / max(before, 1e-6),
        }
    return figures
