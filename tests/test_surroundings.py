"""Where the programs are started: a notebook's matplotlib backend, output in ASCII."""

import os
import subprocess
import sys
from pathlib import Path

import heads
import pytest

ROOT = Path(__file__).parents[1]


def started(*words, **surroundings):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=os.environ | surroundings, capture_output=True, text=True
    )


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "inline"])
def test_a_notebooks_backend_is_no_hindrance(backend):
    """Of a notebook in another environment; what it starts inherits the name of its backend."""
    drawn = "from tss.display import slice_plots, roc_plots, training_plots, calibration_plots"
    done = started("-c", drawn, MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr


def test_accents_where_the_output_is_ascii(tmp_path):
    row = heads.write_patient(tmp_path, "p0", 0)
    table = heads.write_table(tmp_path, [row | {"site": "Zürich"}])
    folder = tmp_path / "Köln"
    folder.mkdir()
    words = ("run_preprocess.py", table, "--out", folder / "data", "--atlas", heads.write_atlas(folder / "átlas.nii"))
    done = started(*words, "--tools", "builtin", "--grid", 16, 16, 8, "--dry-run", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "K\\xf6ln" in done.stdout and "\\xe1tlas.nii" in done.stdout
    done = started(*words[:1], folder / "none.csv", *words[2:], "--tools", "builtin", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and "K\\xf6ln/none.csv cannot be read" in done.stderr
