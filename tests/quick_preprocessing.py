"""Preprocessing without its slowest steps, for tests of something else: a fifth of the time."""

from dataclasses import replace

import numpy as np

from tss.data import files
from tss.display import slice_plots
from tss.preprocessing import intensity, registration, tools


def no_registration(monkeypatch):
    """No registration by the suite's own tools: what is preprocessed lies near the identity."""

    def known(*_, **__):
        return np.eye(4)

    monkeypatch.setattr(registration, "find_affine", known)
    monkeypatch.setattr(tools, "BUILTIN", replace(tools.BUILTIN, find_affine=known))


def no_pictures(monkeypatch):
    monkeypatch.setattr(slice_plots, "draw_qc", lambda path, *_: files.write_text(path, "picture"))


def no_bias_correction(monkeypatch):
    monkeypatch.setattr(intensity, "correct_bias", lambda data, brain: data)
