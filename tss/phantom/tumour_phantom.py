"""Made-up patients with brain tumours of three kinds: NIfTI files and a tumours.csv.

In:    an empty folder, a number of patients, a seed
Out:   FOLDER/tumours.csv and FOLDER/scans/<patient>_{t1,flair,t1ce,tumour}.nii.gz, all four on one grid
Paper: 3 (Cheng 2015: meningioma, glioma, pituitary tumour; Buda 2019: before contrast, FLAIR, after contrast)
See:   tests/phantom/test_tumour_phantom.py

The heads are the stroke phantom's. What differs is the place, the shape and what contrast agent does:

    meningioma  at the convexity, on the brain's surface; round; homogeneously bright after contrast; sometimes oedema
    glioma      in white matter; irregular; a bright ring around a dark core; oedema that follows white matter
    pituitary   in the midline at the base; small, round; bright after contrast, less than a meningioma

    T1 = PD (1 - exp(-TR/T1)) exp(-TE/T2);  after contrast 1/T1 rises by UPTAKE where the agent leaves the blood

The mask holds the tumour and its oedema: that is what FLAIR shows, and what Buda 2019 outlined. There is no mass
effect: brain that a tumour replaces is gone. Scores on these patients are not clinical results.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from tss.data.files import as_csv, write_text
from tss.errors import InputError
from tss.phantom.cohort_phantom import FULL_SCALE, TEXTURE, TEXTURE_MM, on_cores
from tss.phantom.extracranial import CSF, TISSUES
from tss.phantom.individual_head import MATTER, Subject, draw_variation, make_subject, noise_at
from tss.phantom.mean_head import Head
from tss.phantom.mr_signal import SUBSTANCES, Contrast, outside_brain, put_brain, signals
from tss.phantom.scanner import add_noise, bias_field, make_grid, make_pose, save_scan, scan
from tss.phantom.shapes import ellipsoid, share

TYPES = ("meningioma", "glioma", "pituitary")  # in turn; Cheng 2015 has 82, 89 and 62 patients
TR_MS, TE_MS = 550.0, 12.0  # our choice: a usual spin echo
UPTAKE = {
    "meningioma": 2.6,
    "glioma": 1.6,
    "adenoma": 1.5,
    "mucosa": 1.5,
    "muscle": 0.3,
    "skin": 0.3,
    "grey": 0.04,
    "deep": 0.04,
}  # 1/s that contrast agent adds to 1/T1; our choice, within what is seen in enhancing tissue
# All of these are our choice, in mm: radii of the solid part, and how far oedema reaches beyond it
RADIUS_MM = {"meningioma": (10.0, 23.0), "glioma": (9.0, 22.0), "pituitary": (7.0, 13.0)}
OEDEMA_MM = {"meningioma": (-6.0, 8.0), "glioma": (4.0, 13.0)}  # below 0: none
RIM_MM = (2.5, 5.0)  # thickness of a glioma's ring
ROUGHNESS, ROUGH_MM = 0.22, 16.0  # SD of a glioma's border, in radii, and its correlation length
SELLA = (0.0, 4.0, -28.0)  # world mm
LOWEST_MM = -20.0  # meningiomas of the convexity lie above, beside the midline and at it
DEEP_MM = 9.0  # a glioma's centre lies at least this deep under the cortex and away from ventricles and midline
PIXEL_MM = (1.0, 1.1)  # our choice, for speed; Cheng 2015 has 0.49
TILT, SHIFT, NECK = 8.0, 8.0, 8.0  # degrees and mm, as in tss.phantom.cohort_phantom.ORDINARY
BIAS, SNR = (0.03, 0.15), (25.0, 45.0)  # the coil's field, +- share; white matter before contrast over the noise


def make_tumours(
    folder, patients: int, seed: int, jobs: int = 1, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Write patients and their table. The same (patients, seed) gives the same files whatever `jobs`.

    Returns: path of tumours.csv, written last.
    """
    folder = Path(folder)
    if patients < 1:
        raise InputError(f"a cohort needs at least one patient with a tumour, not {patients}")
    rows = []
    for row in on_cores(partial(_make_numbered, folder, patients, seed), patients, min(jobs, patients)):
        rows.append(row)
        say(f"phantom {row['patient']}  {len(rows)}/{patients}  {row['type']}")
    write_text(folder / "tumours.csv", as_csv(rows))
    return folder / "tumours.csv"


def _make_numbered(folder: Path, patients: int, seed: int, index: int) -> dict[str, str]:
    name = f"t{index + 1:0{max(3, len(str(patients)))}d}"
    return make_tumour_patient(folder, name, TYPES[index % len(TYPES)], np.random.default_rng([seed, index]))


def make_tumour_patient(folder, id: str, kind: str, rng: np.random.Generator) -> dict[str, str]:
    """Write one patient's scans and mask below `folder` and return the row of the table."""
    folder = Path(folder)
    subject = make_subject(draw_variation(rng, rng.uniform(30, 75)), rng)
    image, tumour = render_tumour_head(subject, kind, rng)
    pose = make_pose(rng, TILT, SHIFT)
    grid = make_grid(rng, subject, pose, rng.uniform(*PIXEL_MM), NECK, 0.0)
    *sequences, mask = scan(np.concatenate([image, tumour[None]]), subject, grid, pose)
    noise = weighted(["white"])[0, 0] / rng.uniform(*SNR)
    row = {"patient": id}
    for name, data in zip(("t1", "flair", "t1ce"), sequences, strict=True):
        row[name] = f"scans/{id}_{name}.nii.gz"
        data = add_noise(rng, data * bias_field(rng, grid.shape, rng.uniform(*BIAS)), noise) * FULL_SCALE
        save_scan(folder / row[name], data, grid.affine, "LPS", np.int16, slope=1.0)
    row |= {"type": kind, "tumour": f"scans/{id}_tumour.nii.gz"}
    save_scan(folder / row["tumour"], mask > 0.5, grid.affine, "LPS", np.uint8)
    return row


def weighted(names) -> np.ndarray:
    """(3, K) noise-free signals of the named substances: T1, FLAIR, T1 after contrast."""
    pd, t1, t2, _ = np.array([SUBSTANCES[name] for name in names]).T
    uptake = np.array([UPTAKE.get(name, 0.0) for name in names])
    before, after = (
        pd * (1 - np.exp(-TR_MS / time)) * np.exp(-TE_MS / t2) for time in (t1, 1 / (1 / t1 + uptake / 1000))
    )
    return np.stack([before, signals(Contrast(), names)[2], after])


@lru_cache(maxsize=1)
def tumour_surroundings() -> np.ndarray:
    """(3, X, Y, Z) signals of all but the brain; made once a process."""
    return outside_brain(weighted(TISSUES))


def render_tumour_head(subject: Subject, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return noise-free signals (3, X, Y, Z) = T1, FLAIR, T1 after contrast, and the share of tumour (X, Y, Z).

    On the mean head's grid. kind: one of TYPES.
    """
    head = subject.head
    image, tumour = tumour_surroundings().copy(), np.zeros(head.label.shape, np.float32)
    brain = (weighted(MATTER) @ subject.matter * (1 + TEXTURE * noise_at(head, rng, TEXTURE_MM))).astype(np.float32)
    radius = rng.uniform(*RADIUS_MM[kind])
    centre = {"meningioma": _on_surface, "glioma": _in_white_matter, "pituitary": _in_sella}[kind](subject, rng, radius)
    radii = radius * rng.uniform(0.85, 1.15, 3)
    inside = ellipsoid(head.place, centre, radii)  # mm to the tumour's border, < 0 in it, at the brain's voxels
    filled = np.where(head.ventricle > 0, 1, 1 - subject.matter[0])  # sulci are compressed, ventricles are not

    parts = {}  # share of each substance at the brain's voxels
    if kind == "glioma":
        inside = inside + ROUGHNESS * radius * noise_at(head, rng, ROUGH_MM)
        inside = np.where(np.sign(head.place[0]) == np.sign(centre[0]), inside, np.inf)  # the falx holds it
        parts = {"necrosis": share(inside + rng.uniform(*RIM_MM)) * filled, "glioma": share(inside) * filled}
        parts["glioma"] = parts["glioma"] - parts["necrosis"]
    if kind in OEDEMA_MM:
        white = subject.matter[MATTER.index("white")] + subject.matter[MATTER.index("gliosis")]
        reach = rng.uniform(*OEDEMA_MM[kind])
        parts["oedema"] = (share(inside - reach, 3.0) - share(inside)).clip(0) * white * (reach > 0)
    for substance, part in parts.items():
        brain += part * (weighted([substance]).astype(np.float32) - brain)
    put_brain(image, subject, brain)
    tumour.reshape(-1)[head.inside] = sum(parts.values(), np.float32(0))

    if kind != "glioma":  # these grow outside the brain, against it
        border = ellipsoid(_grid(head), centre, radii)
        part = share(border) * (1.0 if kind == "pituitary" else head.label == CSF)  # the skull holds a meningioma
        substance = "adenoma" if kind == "pituitary" else "meningioma"
        image += part * (weighted([substance]).astype(np.float32)[..., None, None] - image)
        tumour = np.maximum(tumour, part)
    return image, tumour


def _grid(head: Head) -> tuple[np.ndarray, ...]:
    """World mm of the mean head's grid as broadcastable x, y, z."""
    axes = [head.affine[k, 3] + head.affine[k, k] * np.arange(n) for k, n in enumerate(head.label.shape)]
    return tuple(np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True))


def _on_surface(subject: Subject, rng: np.random.Generator, radius: float) -> np.ndarray:
    """The centre of a meningioma: somewhat less than a radius under a random point of the convexity."""
    head = subject.head
    places = head.place[:, (np.abs(head.hull) < 1) & (head.place[2] > LOWEST_MM) & (head.cerebellum < 0)]
    outer = places[:, rng.integers(places.shape[1])]
    inwards = np.array([0.0, -18.0, 10.0]) - outer
    return outer + inwards / np.linalg.norm(inwards) * rng.uniform(0.5, 0.9) * radius


def _in_white_matter(subject: Subject, rng: np.random.Generator, radius: float) -> np.ndarray:
    """The centre of a glioma: a random point deep in the white matter of the cerebrum."""
    head, white = subject.head, subject.matter[MATTER.index("white")]
    deep = (head.depth > DEEP_MM) & (head.ventricle > DEEP_MM) & (np.abs(head.place[0]) > DEEP_MM) & (white > 0.9)
    places = head.place[:, deep & (head.stem < 0.1)]
    return places[:, rng.integers(places.shape[1])]


def _in_sella(subject: Subject, rng: np.random.Generator, radius: float) -> np.ndarray:
    """The centre of a pituitary tumour: it fills the sella and grows upwards."""
    return np.array(SELLA) + rng.normal(size=3) * (1.5, 1.5, 1.5) + (0, 0, 0.3 * radius)
