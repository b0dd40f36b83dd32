"""Fixtures of the training's tests."""

import pytest
from tiny_runs import FAST

from tss.training.run_setup import Options


@pytest.fixture
def options(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Options(data=tiny_data, width=4, device="cpu", values=FAST)
