"""Built-in tools on phantoms with known truth, on made-up heads, and on the real scans where they lie here."""

import json
import os
from pathlib import Path

import heads
import numpy as np
import pytest

from tss.data import nifti
from tss.data.nifti import Volume
from tss.errors import InputError
from tss.phantom import cohort_phantom
from tss.preprocessing import brain_extraction, pipeline, quality_control, registration

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real scans in ../shared/real")


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A phantom patient: scans, true brain mask, true affines, and the atlas."""
    folder = tmp_path_factory.mktemp("phantom")
    row = cohort_phantom.make_stroke_patient(folder, "p1", np.random.default_rng(8))
    cohort_phantom.write_atlas(folder / "atlas.nii.gz")
    truth = json.loads((folder / "truth" / "p1.json").read_text())
    return {name: nifti.load(folder / row[name]) for name in ("dwi", "b0", "flair", "lesion")} | {
        "atlas": nifti.load(folder / "atlas.nii.gz"),
        "brain": nifti.load(folder / "truth" / "p1_brain.nii.gz").data > 0,
        "b0_to_atlas": np.array(truth["b0_to_atlas"]),
        "flair_to_b0": np.array(truth["flair_to_b0"]),
    }


def apart(one: np.ndarray, other: np.ndarray, world: np.ndarray) -> np.ndarray:
    """Distance in mm between where two affines bring world points (3, N)."""
    points = np.r_[world, np.ones((1, world.shape[1]))]
    return np.linalg.norm(((one - other) @ points)[:3], axis=0)


def world_of(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.argwhere(mask).T + affine[:3, 3:]


def test_brain_mask_on_a_phantom(patient):
    mask = brain_extraction.find_brain(patient["dwi"], patient["b0"])
    assert mask.dtype == bool and mask.shape == patient["dwi"].data.shape
    assert quality_control.dice(mask, patient["brain"]) >= 0.97  # DESIGN 7


def test_a_stripped_scan_is_kept_and_not_eaten(patient):
    stripped = [
        patient[name]._replace(data=np.where(patient["brain"], patient[name].data, 0)) for name in ("dwi", "b0")
    ]
    assert quality_control.dice(brain_extraction.find_brain(*stripped), patient["brain"]) >= 0.99


def test_noise_is_no_brain():
    noise = Volume(np.random.default_rng(0).random((60, 60, 30)).astype(np.float32) + 1, np.diag([3.0, 3, 5, 1]))
    with pytest.raises(InputError, match="looks like brain in it measures"):
        brain_extraction.find_brain(noise, noise)


def test_lesion_lands_in_its_place_on_the_atlas(patient):
    moving = patient["b0"]._replace(data=np.where(patient["brain"], patient["b0"].data, 0))
    found = registration.find_affine(moving, patient["atlas"], 12)
    centroid = world_of(patient["lesion"].data > 0, patient["dwi"].affine).mean(1, keepdims=True)
    assert apart(found, patient["b0_to_atlas"], centroid)[0] <= 2.5  # DESIGN 7


def test_flair_lands_on_b0(patient):
    found = registration.find_affine(patient["flair"], patient["b0"], 6, patient["brain"])
    brain = (
        np.linalg.inv(patient["flair_to_b0"])
        @ np.r_[world_of(patient["brain"], patient["b0"].affine), np.ones((1, patient["brain"].sum()))]
    )
    assert apart(found, patient["flair_to_b0"], brain[:3]).mean() <= 1.0  # issue 4
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)  # rigid


def test_a_head_turned_by_180_degrees_against_its_header_is_flagged(patient):
    """Back to front and left to right at once: the outline hardly tells, the tissue does."""
    turn = np.diag([-1.0, -1, 1, 1])
    head = [patient[name]._replace(affine=turn @ patient[name].affine) for name in ("dwi", "b0", "flair")]
    prepared = pipeline.prepare(*head, pipeline._laid_out(patient["atlas"], (56, 56, 13)), brain_extraction)
    assert any(flag.startswith("b0 and atlas hardly resemble each other") for flag in prepared.flags)


def test_the_same_input_gives_the_same_affine():
    shape, sizes = heads.FLAIR_GRID
    volumes = [
        Volume(heads.sample(channel, shape, heads.grid(shape, sizes), heads.turned(degrees)), heads.grid(shape, sizes))
        for channel, degrees in (("flair", 12), ("b0", -3))
    ]
    brain = np.linalg.norm(world_of(np.ones(shape, bool), volumes[1].affine).T / 70, axis=1).reshape(shape) < 1
    found = [registration.find_affine(*volumes, 6, brain) for _ in range(2)]
    assert np.array_equal(*found)
    assert quality_control.turn_deg(found[0]) == pytest.approx(15, abs=1)


def test_slope_of_the_cost_is_its_derivative():
    rng = np.random.default_rng(1)
    images = registration.Images(
        rng.uniform(2, 12, (3, 500)).astype(np.float32),
        rng.integers(0, 32, 500),
        (rng.random((16, 16, 16)) * 31).astype(np.float32),
        np.eye(4),
    )
    affine = np.eye(4)
    affine[:3] += rng.normal(0, 0.01, (3, 4))
    _, slope = registration._cost(affine, images)
    for row, column in np.ndindex(3, 4):
        step = np.zeros((4, 4))
        step[row, column] = 1e-3 if column == 3 else 1e-4
        size = step[row, column]
        above, below = (registration._cost(affine + sign * step, images)[0] for sign in (1, -1))
        numeric = (above - below) / (2 * size)
        assert slope[row, column] == pytest.approx(numeric, rel=0.1, abs=0.02)


def test_shrinking_keeps_world_positions():
    index = np.indices((9, 8, 5)).astype(np.float32)
    small = nifti.shrink(Volume(index[0], np.diag([1.0, 1, 5, 1])))
    assert small.data.shape == (4, 4, 5)
    assert (small.affine @ [1, 0, 0, 1])[0] == pytest.approx(small.data[1, 0, 0])  # world x = value, before and after


def test_nothing_to_register():
    empty = Volume(np.zeros((10, 10, 10), np.float32), np.eye(4))
    with pytest.raises(InputError, match="nothing in it to register"):
        registration.find_affine(empty, empty, 12)


@needs_real
def test_isles_brain_is_kept():
    dwi, adc = (nifti.load(REAL / f"isles0001_{name}.nii.gz") for name in ("dwi", "adc"))
    mask = brain_extraction.find_brain(dwi, dwi._replace(data=dwi.data * np.exp(np.clip(adc.data, 0, 3.5))))
    assert quality_control.dice(mask, dwi.data > 20) > 0.95


@needs_real
def test_tcga_heads_are_turned_onto_each_other():
    t2, flair = (nifti.load(REAL / f"tcga_fg6692_{name}.nii.gz") for name in ("t2", "flair"))
    mask = brain_extraction.find_brain(t2, t2)
    found = registration.find_affine(flair, t2, 6, mask)
    assert quality_control.turn_deg(found) == pytest.approx(18, abs=2)
    moved = nifti.resample(flair, t2.data.shape, t2.affine, found)
    assert quality_control.similarity(t2.data[mask], moved[mask]) > 2 * quality_control.similarity(
        t2.data[mask], nifti.resample(flair, t2.data.shape, t2.affine)[mask]
    )
