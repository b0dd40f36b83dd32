"""Fixtures of the evaluation's tests."""

from unittest.mock import create_autospec

import pytest

from tss.data import files
from tss.display import roc_plots


@pytest.fixture(autouse=True)
def no_roc(monkeypatch):
    """ROC curves are drawn in tests/display/ and in test_raw_to_table.py: here there are some fifty of them."""
    picture = create_autospec(roc_plots.draw_roc, side_effect=lambda path, *_: files.write_text(path, "picture"))
    monkeypatch.setattr(roc_plots, "draw_roc", picture)
