"""Which tools a name stands for."""

import pytest

from tss.preprocessing import fsl
from tss.preprocessing.tools import BUILTIN, FSL, LITERAL, NAMES, find_tools


def test_auto_is_fsl_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(fsl, "available", lambda: False)
    assert find_tools("auto") is BUILTIN and find_tools("builtin") is BUILTIN
    monkeypatch.setattr(fsl, "available", lambda: True)
    monkeypatch.setattr(fsl, "describe", lambda: "FSL")
    assert find_tools("auto") is FSL and find_tools("builtin") is BUILTIN


@pytest.mark.parametrize("tools", [BUILTIN, FSL, LITERAL])
def test_names_are_those_that_find_the_tools(monkeypatch, tools):
    monkeypatch.setattr(fsl, "describe", lambda: "FSL")
    assert tools.name in NAMES and find_tools(tools.name) is tools
