"""Saved pictures: the same bytes again, and a message where none can be written."""

import numpy as np
import pytest

from tss.display import roc_plots
from tss.errors import InputError


def test_the_same_numbers_give_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        roc_plots.draw_roc(tmp_path / name, (np.array([0, 1]), np.array([0, 1])), 0.5, (0, 1), (0, 0), 0.5, "", "")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/roc.png cannot be written"):
        roc_plots.draw_roc(
            tmp_path / "file" / "roc.png", (np.array([0, 1]), np.array([0, 1])), 0.5, (0, 1), (0, 0), 0.5, "", ""
        )
