"""Made-up stroke patients, written as a lab has its scans: NIfTI files and a cohort.csv.

In:    an empty folder, a number of patients, a seed, a Difficulty
Out:   FOLDER/cohort.csv, FOLDER/scans/<patient>_{dwi,b0,flair}.nii.gz, FOLDER/truth/<patient>...; an atlas
Paper: 2.1 (voxel sizes, TE), Table 1 (times, age, sex, NIHSS)
See:   tests/phantom/test_cohort_phantom.py

Truth, in FOLDER/truth: <patient>_brain.nii.gz and <patient>_lesion.nii.gz in DWI space (uint8), and
<patient>.json with the affines b0 -> atlas and FLAIR -> b0 (world mm), the latent and the volume.
The brain mask is what a careful rater outlines: everything inside the pial envelope, that is the crowns of the
gyri bridged over the sulci, with sulcal, ventricular and cisternal CSF, cerebellum and brain stem down to the
foramen magnum (72 mm below the anterior commissure in the mean head); not the CSF between envelope and skull.
Scores on these patients are not clinical results.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np
import torch
from scipy import special

from tss.data.files import as_csv, write_json, write_text, write_whole
from tss.data.nifti import apply_affine
from tss.data.workers import workers
from tss.errors import InputError
from tss.phantom import infarct, onset_law, simulated_readers
from tss.phantom.individual_head import Subject, draw_variation, make_subject, noise_at
from tss.phantom.mr_signal import Contrast, Lesion, render_head, signals
from tss.phantom.scanner import Grid, add_noise, bias_field, make_grid, make_pose, save_scan, scan, to_mean_head

Made = TypeVar("Made")
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
AGE_YEARS = (22.0, 55.0, 70.0, 80.0, 97.0)  # Table 1's quartiles; ends our choice
NIHSS_POINTS = (0.0, 4.0, 8.0, 15.0, 38.0)  # the same
FEMALE = 0.53  # Table 1
VOLUME_AND_NIHSS = 0.6  # correlation of normal scores; our choice
# Mean ADC of the infarct over the healthy side: between the published 0.74 (Nagesh 1998) and 0.772 (PMC6399390) of the
# first day, with the SD of Nagesh 1998 (76.8 of 842.9). Truncated at 2 SD, so that DWI is brighter by at least 5 % from
# the first minute.
ADC_RATIO = (0.755, 0.09)
TE_EPI_MS, TE_FLAIR_MS = (80.0, 110.0), (95.0, 125.0)  # within the paper's 78-122 and 88-134 (2.1)
DWI_PIXEL_MM, FLAIR_PIXEL_MM = (1.65, 1.85), (0.88, 0.938)  # the coarse end of the paper's ranges (2.1)
FULL_SCALE = 2000.0  # scanner units of a signal of 1
NOISE = {"b0": np.sqrt(3), "dwi": 1.0, "flair": 1.2}  # SD relative to DWI, the mean of three directions
DWI_BIAS = 0.03  # strength of DWI's bias field beyond b0's
KINDS = ((np.int16, 1.0), (np.int16, 0.37), (np.float32, 0))  # voxels in the file and their slope
KIND_SHARES = (0.6, 0.25, 0.15)
STORED_AXES = ("RAS", "LAS", "LPS", "LAS", "LPS", "RPS")  # what converters of axial scans leave
FLAIR_AXES = (*STORED_AXES, "SAL", "PSR")  # occasionally slices are not the last axis in the file
TEXTURE, TEXTURE_MM = 0.02, 12.0  # SD and correlation length of the tissue's own inhomogeneity


@dataclass(frozen=True)
class Difficulty:
    """How patients and scans vary. Pairs are ranges; lengths in mm, angles in degrees."""

    tilt: float = 8.0  # largest turn of the head about each axis
    shift: float = 10.0  # largest displacement from the middle of the field of view
    motion: tuple[float, float] = (3.0, 4.0)  # largest turn and shift between DWI and FLAIR
    neck: float = 8.0  # field of view below the brain
    cut_top: float = 0.0  # of the brain above the field of view
    bias: tuple[float, float] = (0.05, 0.20)  # bias field, +- share
    snr: tuple[float, float] = (25.0, 45.0)  # white matter in DWI
    stripped: float = 0.0  # share of patients whose skull is already removed
    volume_ml: tuple[float, float] = (17.0, 1.1)  # median and log SD of the infarct's volume
    volume_range: tuple[float, float] = (0.5, 150.0)
    both: float = 0.03  # share with infarcts on both sides
    old_infarct: float = 0.0  # share with an old infarct
    midline_shift: float = 0.0  # largest shift towards the healthy side
    unknown_onset: float = 0.0  # share whose time is not in the table
    unknown_side: float = 0.0
    dwi_mm: tuple[float, float] = DWI_PIXEL_MM
    flair_mm: tuple[float, float] = FLAIR_PIXEL_MM
    kinds: tuple[float, ...] = KIND_SHARES
    spread: float = onset_law.SPREAD  # SD of the latent at equal time
    readers: float = onset_law.SPREAD  # the spread at which the simulated readers have the paper's figures


ORDINARY = Difficulty()


def make_cohort(
    folder,
    n: int,
    seed: int,
    difficulty: Difficulty = ORDINARY,
    jobs: int = 1,
    progress: bool | Callable[[str], None] = True,
) -> Path:
    """Write n patients and their table. The same (n, seed, difficulty) gives the same files whatever `jobs`.

    progress: True prints a line per patient with the time left, False is silent, a function gets the lines.
    Returns: path of cohort.csv, written last.
    """
    if n < 1:
        raise InputError(f"a cohort needs at least one patient, not {n}")
    folder = Path(folder)
    say = partial(print, flush=True) if progress is True else progress or (lambda line: None)
    start, rows = time.monotonic(), []
    task = partial(_make_numbered, folder, n, seed, difficulty)
    for row in on_cores(task, n, min(jobs, n)):
        rows.append(row)
        left = (time.monotonic() - start) / len(rows) * (n - len(rows))
        say(
            f"phantom {row['patient']}  {len(rows):{len(str(n))}d}/{n}  {row['onset_to_mri_min'] or '?':>6} min  "
            f"{row['stroke_side'] or 'unknown':7s}  {left:4.0f} s left"
        )
    write_text(folder / "cohort.csv", as_csv(rows))
    return folder / "cohort.csv"


def _make_numbered(folder: Path, n: int, seed: int, difficulty: Difficulty, index: int) -> dict[str, str]:
    name = f"p{index + 1:0{max(3, len(str(n)))}d}"
    return make_stroke_patient(folder, name, np.random.default_rng([seed, index]), difficulty)


def on_cores(task: Callable[[int], Made], n: int, jobs: int) -> Iterator[Made]:
    """Yield task(0) .. task(n - 1) in this order, made by `jobs` processes."""
    if jobs <= 1:
        yield from map(task, range(n))
        return
    with workers(jobs, partial(torch.set_num_threads, 1)) as pool:
        yield from pool.map(task, range(n))


def make_stroke_patient(folder, id: str, rng: np.random.Generator, difficulty: Difficulty = ORDINARY) -> dict[str, str]:
    """Write one patient's scans and truth below `folder` and return the row of the table (all strings)."""
    folder = Path(folder)
    person, row = draw_person(id, rng, difficulty)
    shift = rng.uniform(0, difficulty.midline_shift) * (-1 if person["side"] == "right" else 1)
    subject = make_subject(draw_variation(rng, person["age"], shift), rng)
    infarcts = _infarcts(subject, rng, person, difficulty)
    ratio = float(onset_law.flair_ratio(person["latent"]))
    lesions = [Lesion(i.voxels, i.severity, draw_adc_ratio(rng), ratio) for i in infarcts]
    contrast = Contrast(rng.uniform(*TE_EPI_MS), rng.uniform(*TE_FLAIR_MS))
    texture = 1 + TEXTURE * noise_at(subject.head, rng, TEXTURE_MM)
    image = render_head(subject, lesions, contrast, texture)

    affines = _write_scans(folder, id, rng, difficulty, subject, infarcts, image, contrast)
    write_json(
        folder / "truth" / f"{id}.json",
        {
            "b0_to_atlas": affines[0].tolist(),
            "flair_to_b0": affines[1].tolist(),
            "latent": person["latent"],
            "flair_ratio": ratio,
            "adc_ratios": [acute.adc_ratio for acute in lesions],
            "onset_to_mri_min": person["minutes"],
            "stroke_side": person["side"],
            "lesion_ml": float(sum(i.ml for i in infarcts)),
            "arteries": [i.artery for i in infarcts],
        },
    )
    if rng.uniform() < difficulty.unknown_onset:
        row["onset_to_mri_min"] = ""
    if rng.uniform() < difficulty.unknown_side:
        row["stroke_side"] = ""
    return row


def draw_person(id: str, rng: np.random.Generator, difficulty: Difficulty = ORDINARY) -> tuple[dict, dict[str, str]]:
    """Who the patient is, before any scan: what make_stroke_patient draws first, and the table's row (all strings)."""
    person = _person(rng, difficulty)
    # An rng of their own: the scans are the same whether or not anybody reads them.
    readings = simulated_readers.draw_readings(rng.spawn(1)[0], person["latent"], difficulty.readers)
    files = {name: f"scans/{id}_{name}.nii.gz" for name in ("dwi", "b0", "flair")}
    return person, {
        "patient": id,
        **files,
        "onset_to_mri_min": f"{person['minutes']:.0f}",
        "stroke_side": person["side"],
        "age": f"{person['age']:.0f}",
        "sex": person["sex"],
        "nihss": f"{person['nihss']:.0f}",
        "lesion": f"truth/{id}_lesion.nii.gz",
        "phantom": f"{difficulty.spread}",
        **{reader: str(reading) for reader, reading in readings.items()},
    }


def _person(rng: np.random.Generator, difficulty: Difficulty) -> dict:
    """Age, sex, side, time, latent, volume and NIHSS of one patient."""
    minutes = onset_law.draw_onset(rng)
    size, own = rng.normal(size=2)
    severity = VOLUME_AND_NIHSS * size + np.sqrt(1 - VOLUME_AND_NIHSS**2) * own
    median, log_sd = difficulty.volume_ml
    return {
        "age": float(np.interp(rng.uniform(), QUARTILES, AGE_YEARS)),
        "sex": "F" if rng.uniform() < FEMALE else "M",
        "side": "both" if rng.uniform() < difficulty.both else ("left", "right")[rng.integers(2)],
        "minutes": minutes,
        "latent": onset_law.draw_latent(rng, minutes, difficulty.spread),
        "ml": float(np.clip(median * np.exp(log_sd * size), *difficulty.volume_range)),
        "nihss": float(np.interp(special.ndtr(severity), QUARTILES, NIHSS_POINTS)),
    }


def draw_adc_ratio(rng: np.random.Generator) -> float:
    """Mean ADC of one infarct over the healthy side: normal, cut off at 2 SD; time has no part in it."""
    mean, sd = ADC_RATIO
    return float(mean + sd * special.ndtri(rng.uniform(*special.ndtr([-2, 2]))))


def _infarcts(subject: Subject, rng, person: dict, difficulty: Difficulty) -> list[infarct.Infarct]:
    sides = ("left", "right") if person["side"] == "both" else (person["side"],)
    if rng.uniform() < difficulty.old_infarct:
        side = ("left", "right")[rng.integers(2)]
        infarct.make_scar(
            subject, infarct.grow_infarct(subject, rng, side, infarct.draw_artery(rng), rng.uniform(2, 40))
        )
    found = []
    for side in sides:
        artery = infarct.draw_artery(rng)
        while person["ml"] > 1.5 * infarct.ARTERIES[artery].largest_ml:
            artery = infarct.draw_artery(rng)
        found.append(infarct.grow_infarct(subject, rng, side, artery, person["ml"] / len(sides)))
    return found


def _write_scans(folder: Path, id: str, rng, difficulty: Difficulty, subject: Subject, infarcts, image, contrast):
    """Scan one head twice, DWI with b0 and FLAIR, and write scans and masks; return the true affines."""
    pose = make_pose(rng, difficulty.tilt, difficulty.shift)
    motion = make_pose(rng, *difficulty.motion)
    view = difficulty.neck, difficulty.cut_top
    dwi_grid = make_grid(rng, subject, pose, rng.uniform(*difficulty.dwi_mm), *view)
    flair_grid = make_grid(rng, subject, motion @ pose, rng.uniform(*difficulty.flair_mm), *view)

    masks = np.zeros((2, *image.shape[1:]), np.float32)
    masks.reshape(2, -1)[0, subject.head.inside] = subject.brain
    for one in infarcts:
        masks.reshape(2, -1)[1, subject.head.inside[one.voxels]] = 1
    b0, dwi, brain, acute = scan(np.concatenate([image[:2], masks]), subject, dwi_grid, pose)
    stripped = rng.uniform() < difficulty.stripped
    flair = scan(np.concatenate([image[2:], masks[:stripped]]), subject, flair_grid, motion @ pose)

    coil = bias_field(rng, dwi_grid.shape, rng.uniform(*difficulty.bias))
    biases = {
        "b0": coil,
        "dwi": coil * bias_field(rng, dwi_grid.shape, DWI_BIAS),
        "flair": bias_field(rng, flair_grid.shape, rng.uniform(*difficulty.bias)),
    }
    noise = signals(contrast, ["white"])[1, 0] / rng.uniform(*difficulty.snr)
    scans = {"b0": (b0, dwi_grid, brain), "dwi": (dwi, dwi_grid, brain), "flair": (flair[0], flair_grid, flair[-1])}
    axes = STORED_AXES[rng.integers(len(STORED_AXES))]
    stored = {"b0": axes, "dwi": axes, "flair": FLAIR_AXES[rng.integers(len(FLAIR_AXES))]}
    kind = KINDS[rng.choice(len(KINDS), p=difficulty.kinds)]
    for name, (data, grid, mask) in scans.items():
        data = add_noise(rng, data * biases[name], noise * NOISE[name]) * FULL_SCALE
        if stripped:
            data = data * (mask > 0.5)
        save_scan(folder / "scans" / f"{id}_{name}.nii.gz", data, grid.affine, stored[name], *kind)
    truth = {"brain": brain > 0.5, "lesion": acute > min(0.5, acute.max() / 2)}  # the smallest do not fill a voxel
    for name, mask in truth.items():
        save_scan(folder / "truth" / f"{id}_{name}.nii.gz", mask, dwi_grid.affine, axes, np.uint8)
    return _best_affine(subject, pose, brain, dwi_grid.affine), np.linalg.inv(motion)


def _best_affine(subject: Subject, pose, brain, affine) -> np.ndarray:
    """The affine DWI world -> mean head that fits the true (partly non-linear) map best over the brain."""
    voxels = np.argwhere(brain > 0.5)[::7].T.astype(float)
    world = apply_affine(affine, voxels)
    target = to_mean_head(subject, apply_affine(np.linalg.inv(pose), world))
    solution = np.linalg.lstsq(np.vstack([world, np.ones(world.shape[1])]).T, target.T, rcond=None)[0]
    return np.vstack([solution.T, [0, 0, 0, 1]])


def write_atlas(path) -> None:
    """Write the mean head's brain as T2w (b0) at 2 mm on MNI152's grid (91, 109, 91), RAS, float32."""
    subject = make_subject()
    image = render_head(subject, [], Contrast())[:1]
    brain = np.zeros_like(image)
    brain.reshape(-1)[subject.head.inside] = subject.brain
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    t2w, mask = scan(np.concatenate([image, brain]), subject, Grid((91, 109, 91), affine), np.eye(4))
    atlas = nibabel.Nifti1Image(np.where(mask > 0.5, t2w * FULL_SCALE, 0).astype(np.float32), affine)
    atlas.set_sform(affine, code=4)
    atlas.set_qform(affine, code=4)
    write_whole(path, lambda beside: nibabel.save(atlas, beside))
