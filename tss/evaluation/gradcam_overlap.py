"""How much of the map lies in the lesion, beside what other patients' maps and untrained networks get.

In:  a model and its predictions, whose Grad-CAM, or evidence, is the map; the masks
     DATA/registered/<patient>_lesion.nii.gz and _mask.nii.gz (X, Y, Z).
Out: GradcamScores; a line and a table of them for the screen.
Paper: 3 ("for slices most representative of stroke lesion, 96% of cases evaluated had substantial overlap (>50%)
     between the lesion and activation", judged by one radiologist's eye), Fig. 9 (from scratch beside pretrained).
See: tests/evaluation/test_gradcam_overlap.py

The paper does not say what part of what overlaps, where activation begins, or what an untrained network would get.
Ours: a place is lit where the map has at least LIT of its largest value in the hemisphere; overlap is the lit share of
the lesion in the slice in which the lesion is largest. A map that is lit
everywhere overlaps every lesion, so no score is given alone:

- chance: the same scores for each map on every other patient's lesion. Such a map is as wide as the patient's own,
  knows where infarcts tend to lie, and does not know where this one is.
- randomised: the same network with all weights and BatchNorm's statistics drawn at random, again for each patient, so
  that the interval holds for networks too (Adebayo 2018). Untrained need not be blind: convolutions of any weights
  pass on how bright a place is, and infarcts are bright on DWI. Where these maps lie above chance, so much of the
  overlap is owed to the picture and the architecture, and not to training.

None of this tells a network that has learned from one that finds what is bright: the DWI itself as a map has every
infarct over half lit.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from tss.data.cohort import SIDES, Patient
from tss.data.hemispheres import split
from tss.data.nifti import load, voxel_sizes
from tss.data.prepared import cohort_file, read_settings, registered_file
from tss.display.tables import aligned
from tss.errors import InputError
from tss.evaluation.gradcam import TARGETS, map_of
from tss.evaluation.gradcam_page import verdict
from tss.evaluation.inference import Model, Prediction, hemispheres_of
from tss.evaluation.results import GradcamScores, MapMean, MapShare, Mean, Overlap, Row
from tss.metrics import mean_ci, wilson
from tss.training.checkpoint import network_of

LIT = 0.5  # our choice: half the largest value, the full width at half maximum of other imaging
HALF = 0.5  # paper 3: "substantial overlap (>50%)"
# Our choice: half a cell of the 2D model's layer at the paper's grid (16 voxels of 0.8 to 1 mm), since a map's peak
# lies at a cell's centre. In mm, so that 2D and 3D, and grids, are asked the same.
TOLERANCE_MM = 8.0
SEED = 0  # of the first patient's untrained network; the next one has the next
SCORES = ("share_in_lesion", "overlap_over_half", "pointing")
DEFINITION = (
    "The map is the evidence for stroke in phase 1, in the hemisphere with more of the lesion; for the verdict given "
    "in the TSS tasks, in the hemisphere that was read; of the extended recipe, where it has found the stroke. "
    "share_in_lesion: sum of the map inside the lesion over its sum in the hemisphere. overlap_over_half: "
    f"more than {HALF:.0%} of the lesion, in the slice in which it is largest, "
    f"is lit (at least {LIT:.0%} of the map's largest value in the hemisphere). pointing: the map's hottest voxel lies "
    f"in the lesion or within {TOLERANCE_MM:.0f} mm of it. An empty map counts as 0, no and no. chance: the same maps "
    "on the lesions of the other patients. uniform: a map that is the same everywhere in the hemisphere's brain mask "
    "(its overlap is always whole). randomised: weights and BatchNorm statistics drawn anew for each patient, evidence "
    "for that network's own verdict. Intervals 95 %: Wilson's for shares of patients, else Student's over patients."
)


class Lesion(NamedTuple):
    """What a map is laid on: voxels of one hemisphere, as places in the flattened (D, H, W)."""

    voxels: np.ndarray  # (n,)
    largest_slice: np.ndarray  # those of them in the slice that has most
    near: np.ndarray  # they and what lies within TOLERANCE_MM
    uniform: tuple[float, float]  # share of the hemisphere's brain that is lesion, and that is near it


def lesions_of(patients: Sequence[Patient], data: str | Path) -> dict[str, dict[str, Lesion]]:
    """Return patient -> side -> Lesion of all that have a mask; a side without lesion voxels is omitted.

    Patients that failed preprocessing have no mask on the grid and therefore no side.

    Raises InputError: nobody has a mask; a file is missing; a mask is not on DATA's grid.
    """
    marked = [patient for patient in patients if patient.path("lesion")]
    if not marked:
        raise InputError(
            f"{cohort_file(data)} names no lesion mask of these patients, and --gradcam-scores measures on "
            "it. Omit the flag, or give masks in the column lesion and run run_preprocess.py again."
        )
    files = {
        patient.id: (registered_file(data, patient.id, "lesion"), registered_file(data, patient.id, "mask"))
        for patient in marked
        if patient.status == "ok"
    }
    if missing := [path for pair in files.values() for path in pair if not path.is_file()]:
        raise InputError(
            f"{missing[0]} is missing, and --gradcam-scores needs it. Run run_preprocess.py again, or omit the flag."
        )
    grid = read_settings(data)["grid"]
    return {patient.id: _sides(*files[patient.id], grid) if patient.id in files else {} for patient in marked}


def _sides(lesion: Path, mask: Path, grid: Sequence[int]) -> dict[str, Lesion]:
    volumes = [load(path, mask=True) for path in (lesion, mask)]
    for volume in volumes:
        if volume.data.shape != tuple(grid):
            raise InputError(
                f"{volume.path} has {volume.data.shape} voxels, and DATA's grid is {tuple(grid)}. "
                "Run run_preprocess.py again."
            )
    insides, brains = (split(volume.data > 0.5) for volume in volumes)
    zyx_mm = voxel_sizes(volumes[0].affine)[::-1]
    return {
        side: lay_out(inside, brain, zyx_mm)
        for side, inside, brain in zip(SIDES, insides, brains, strict=True)
        if inside.any()
    }


def lay_out(inside: np.ndarray, brain: np.ndarray, zyx_mm: Sequence[float] | np.ndarray) -> Lesion:
    """Prepare a hemisphere's lesion and brain, (D, H, W) bool each, voxels of zyx_mm, for maps to be laid on."""
    z = inside.sum(axis=(1, 2)).argmax()
    in_slice = np.zeros_like(inside)
    in_slice[z] = inside[z]
    near = np.zeros_like(inside)
    reach = np.ceil(TOLERANCE_MM / np.asarray(zyx_mm)).astype(int)  # voxels; distances further off are not needed
    box = tuple(
        slice(max(0, place.min() - more), place.max() + more + 1)
        for place, more in zip(np.nonzero(inside), reach, strict=True)
    )
    near[box] = ndimage.distance_transform_edt(~inside[box], sampling=zyx_mm) <= TOLERANCE_MM
    whole = max(brain.sum(), 1)
    uniform = float((brain & inside).sum() / whole), float((brain & near).sum() / whole)
    return Lesion(np.flatnonzero(inside), np.flatnonzero(in_slice), np.flatnonzero(near), uniform)


def overlap_scores(heat: np.ndarray, lesions: Sequence[Lesion]) -> np.ndarray:
    """Lay a map on n lesions; returns (n, SCORES): share of the map, over half lit?, hottest voxel in or near it?

    heat: (D, H, W) from 0; where it is zero everywhere: 0, no and no.
    """
    flat = heat.ravel()
    whole, hottest = flat.sum(dtype=np.float64), flat.argmax()
    if whole == 0:
        return np.zeros((len(lesions), len(SCORES)))
    return np.array(
        [
            (
                flat[lesion.voxels].sum(dtype=np.float64) / whole,
                (flat[lesion.largest_slice] >= LIT * flat[hottest]).mean() > HALF,
                hottest in lesion.near,
            )
            for lesion in lesions
        ],
        dtype=np.float64,
    )


def measure_overlap(
    model: Model,
    predictions: Sequence[Prediction],
    patients: Sequence[Patient],
    lesions: Mapping[str, dict[str, Lesion]],
    data: str,
) -> GradcamScores:
    """Lay the Grad-CAM of each patient with a lesion mask on it; nobody is left out without being named.

    predictions: of `patients`, whose network has been moved to its device.
    lesions: as `lesions_of` returns them.
    """
    looks, not_measured = {}, {}
    for patient, sides in lesions.items():
        found = evidence_of(model, [line for line in predictions if line.patient == patient], sides)
        if isinstance(found, str):
            not_measured[patient] = found
        else:
            looks[patient] = found
    seen = [patient for patient in patients if patient.id in looks]
    beneath = [lesions[patient.id][looks[patient.id][0]] for patient in seen]
    tables, empty = np.zeros((2, len(seen), len(seen), len(SCORES))), np.zeros(2, dtype=int)
    for number, pair in enumerate(maps_of(model, seen, [looks[patient.id] for patient in seen], data)):
        for which, heat in enumerate(pair):
            tables[which, number] = overlap_scores(heat, beneath)
            empty[which] += not heat.any()
    trained, randomised = (summarise(table, int(count)) for table, count in zip(tables, empty, strict=True))
    uniform = np.mean([lesion.uniform for lesion in beneath], axis=0).tolist() if seen else (None, None)
    return GradcamScores(
        patients_with_lesion=len(lesions),
        measured=len(seen),
        not_measured=not_measured,
        trained=trained,
        uniform={"share_in_lesion": uniform[0], "pointing": uniform[1]},
        randomised=randomised,
        definition=DEFINITION,
    )


def evidence_of(model: Model, lines: Sequence[Prediction], sides: Mapping[str, Lesion]) -> tuple[str, int] | str:
    """Return (side, sign of the evidence) to be measured, or why a patient cannot be.

    Phase 1: the evidence for stroke, whatever the verdict, in the hemisphere with more of the lesion. TSS: the
    evidence for the verdict, in the hemisphere that it is about, as tss.evaluation.gradcam_page draws it.
    """
    for line in lines:
        if line.probability is None:
            return line.reason
    if not sides:
        return "no lesion voxel on the grid"
    if model.task == "stroke":
        return max(sides, key=lambda side: len(sides[side].voxels)), 1
    (line,) = lines
    if line.side not in sides:
        return f"no lesion voxel in the {line.side} hemisphere, which was read"
    return line.side, 1 if verdict(model, line) else -1


def maps_of(
    model: Model, patients: Sequence[Patient], looks: Sequence[tuple[str, int]], data: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each patient's map (D, H, W) by the model, and by an untrained network of the same kind."""
    target = TARGETS[model.checkpoint["model"]]
    device = next(model.network.parameters()).device
    for number, (patient, (side, sign)) in enumerate(zip(patients, looks, strict=True)):
        hemisphere = hemispheres_of(patient, model, data)[SIDES.index(side)].to(device).float()
        untrained = randomised_network(model.checkpoint, SEED + number).to(device)
        with torch.no_grad():
            its_sign = 1 if untrained(hemisphere[None]).item() >= 0 else -1  # no threshold was ever chosen for it
        yield (map_of(model.network, hemisphere, target, sign), map_of(untrained, hemisphere, target, its_sign))


def randomised_network(checkpoint: dict, seed: int) -> nn.Module:
    """Return a checkpoint's network in eval mode as it is before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network_of(checkpoint).eval()


def summarise(table: np.ndarray, empty: int) -> Overlap:
    """Bring (maps, lesions, SCORES) of n patients to means, shares and chance, with intervals."""
    n = len(table)
    own = table[np.arange(n), np.arange(n)]  # (n, SCORES)

    def mean(values: np.ndarray, lowest: float) -> Mean:
        """One patient has no spread, so no interval."""
        return Mean(float(values.mean()) if n else None, mean_ci(values, lowest, 1.0) if n > 1 else None)

    def share(column: int) -> MapShare:
        k = int(own[:, column].sum())
        return MapShare(k, n, k / n if n else None, wilson(k, n) if n else None, above[column])

    first = mean(own[:, 0], 0.0)
    above: list[Mean | None] = [None] * len(SCORES)
    chance: list[float | None] = [None] * len(SCORES)
    if n > 1:
        # (n, SCORES): others' maps on a patient's lesion, and its map on theirs; it adds to chance as both.
        on_lesion, of_map = ((table.sum(axis=axis) - own) / (n - 1) for axis in (0, 1))
        added = on_lesion + of_map - on_lesion.mean(axis=0)
        above = [mean(own[:, k] - added[:, k], -1.0) for k in range(len(SCORES))]
        chance = on_lesion.mean(axis=0).tolist()
    return Overlap(
        share_in_lesion=MapMean(first.mean, first.ci, above[0]),
        overlap_over_half=share(1),
        pointing=share(2),
        chance=dict(zip(SCORES, chance, strict=True)),
        empty_maps=empty,
    )


def overlap_line(found: GradcamScores) -> str:
    """Say a model's scores in a line, and who is not behind them in others."""
    names = ("share of the map in the lesion", "over half lit", "hottest place in it")
    parts = [
        f"{name} {cell} (chance {chance})"
        for name, cell, chance in zip(names, _cells(found.trained), _chance(found.trained), strict=True)
    ]
    said = [
        f"Grad-CAM on the lesions of {found.measured} of {found.patients_with_lesion} patients with a mask: "
        f"{'; '.join(parts)}"
    ]
    return "\n".join(said + [f"  {patient} not measured: {why}" for patient, why in found.not_measured.items()])


def overlap_table(results: Sequence[Row]) -> str:
    """Return two lines a model, trained and randomised, for the screen; "" where nothing was measured."""
    rows = []
    for row in results:
        if found := row.gradcam:
            for weights, part in ((f"from {row.weights}", found.trained), ("randomised", found.randomised)):
                mixed = [cell for pair in zip(_cells(part), _chance(part), strict=True) for cell in pair]
                rows.append([row.name, weights, str(found.measured), *mixed, str(part.empty_maps)])
    if not rows:
        return ""
    names = [cell for name in ("in the lesion", "over half lit", "hottest in it") for cell in (name, "chance")]
    return aligned([["Grad-CAM", "weights", "n", *names, "empty"], *rows]) + (
        "\nIn the lesion: share of the map. Over half lit: patients. Chance: the same maps on other patients' lesions."
    )


def _cells(found: Overlap) -> list[str]:
    first, counts = found.share_in_lesion, (found.overlap_over_half, found.pointing)
    if first.mean is None:
        return ["-"] * len(SCORES)
    ends = " [{:.3f}-{:.3f}]".format(*first.ci) if first.ci else ""
    return [f"{first.mean:.3f}{ends}"] + [
        f"{count.k}/{count.n} [{count.ci[0]:.2f}-{count.ci[1]:.2f}]" for count in counts if count.ci
    ]


def _chance(found: Overlap) -> list[str]:
    return [
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in zip(found.chance.values(), (3, 2, 2), strict=True)
    ]
