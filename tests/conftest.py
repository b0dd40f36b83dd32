"""Fixtures that several tests share."""

import gc
import os
import shutil
from pathlib import Path

# One thread, before numpy and torch read it: on volumes this small threads only wait for each other, and on a machine
# with other work to do ten times as long as they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from quick_preprocessing import no_registration  # noqa: E402
from stroke import VOXEL_MM, made_up_stroke  # noqa: E402
from tiny_data import TINY_GRID, write_tiny_data  # noqa: E402
from untrained import save_checkpoint  # noqa: E402

from tss.data import files, nifti
from tss.data.cohort import write_cohort
from tss.data.prepared import read_prepared  # noqa: E402
from tss.display import training_plots
from tss.training.checkpoint import FORMAT  # noqa: E402
from tss.training.phases import PAPER, build_model  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than some seconds; pytest -m 'not slow' skips it")


def pytest_collection_finish():
    """What torch's import made stays until the end: looking through it at each collection takes 3 % of the tests."""
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A DATA folder as run_preprocess.py leaves it, for training (tests/tiny_data.py). Copy it to change it."""
    return write_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def scanned(tiny_data, tmp_path_factory) -> Path:
    """A folder with tiny_data's patients and their registered scans, readings and phantoms' mark in data/, and
    checkpoints of phases 1 and 4 in phase<N>/best.pt. The FLAIR ratio rises with time; p30 has no infarct."""
    folder = tmp_path_factory.mktemp("scanned")
    shutil.copytree(tiny_data, folder / "data")
    patients = read_prepared(folder / "data")
    infarct = np.zeros((24, 28, 6), bool)
    infarct[3:8, 8:20, 1:5] = True
    for seed, patient in enumerate(patients):
        volumes, _ = made_up_stroke(infarct & (patient.id != "p30"), 1.05 + patient.minutes / 3000, seed)
        for kind, volume in zip(("dwi", "t2w", "flair", "mask"), volumes, strict=True):
            nifti.save(
                folder / "data" / "registered" / f"{patient.id}_{kind}.nii.gz",
                volume.astype(np.float32),
                np.diag([*VOXEL_MM, 1.0]),
            )
        patient.row |= {"phantom": "0.115", "reader_1": "1", "reader_2": {"p28": "", "p32": "0"}.get(patient.id, "1")}
    write_cohort(folder / "data" / "cohort.csv", patients)
    for phase in (1, 4):
        save_checkpoint(folder / f"phase{phase}" / "best.pt", phase, folder / "data", settings={"weights": "phase 3"})
    return folder


@pytest.fixture
def known_affines(monkeypatch):
    """As tests/quick_preprocessing.py says."""
    no_registration(monkeypatch)


@pytest.fixture
def made_up():
    """A function that makes the content of a checkpoint; any key can be given another value."""

    def make(phase: int = 1, attention: bool = False, width: int = 4, model: str = "2d", **changes) -> dict:
        torch.manual_seed(phase)
        task = PAPER[phase].task
        auc, threshold, validation = (None, None, None) if phase == 0 else (0.75, 0.4, {"logits": []})
        return {
            "format": FORMAT, "model": model, "width": width, "grid": list(TINY_GRID), "attention": attention,
            "phase": phase, "task": task, "epoch": 3, "val_auc": auc, "threshold": threshold, "frozen": [],
            "recipe": "paper", "validation": validation,
            "parent": "random", "cohort": "c" * 64, "patients_seen": {}, "settings": {"seed": 0},
            "state_dict": build_model(model, width, TINY_GRID, attention, task).state_dict(), **changes,
        }  # fmt: skip

    return make


@pytest.fixture
def no_drawing(monkeypatch):
    """Drawing the curves takes longer than all the rest of a tiny phase."""
    monkeypatch.setattr(training_plots, "draw_curves", lambda path, history, best, title: files.write_text(path, title))
    monkeypatch.setattr(training_plots, "draw_restoration", lambda path, rows, title: files.write_text(path, title))
