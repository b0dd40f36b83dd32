"""An atlas of made-up heads, and a phantom patient with known truth."""

import json

import heads
import numpy as np
import pytest

from tss.data import nifti
from tss.phantom import cohort_phantom
from tss.preprocessing.atlas import load_atlas

GRID = (56, 56, 13)


@pytest.fixture(scope="session")
def atlas(tmp_path_factory):
    return load_atlas(heads.write_atlas(tmp_path_factory.mktemp("atlas") / "atlas.nii.gz"), GRID)


@pytest.fixture(scope="session")
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
