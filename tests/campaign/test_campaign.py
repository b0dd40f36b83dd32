"""Broken inputs of six families end in sentences: another seed each week of the year, 45 seconds long."""

import datetime

import mutate
import pytest

SECONDS = 45  # so that all tests take 5 minutes


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """The campaign replaces what is slow and not its subject; the tests that follow in this process need it again."""
    for module, name in mutate.REPLACED:
        monkeypatch.setattr(module, name, getattr(module, name))


@pytest.mark.slow
def test_broken_inputs_end_in_sentences():
    week = datetime.date.today().isocalendar().week
    assert not mutate.campaign(SECONDS, week)


@pytest.mark.slow
def test_a_fault_is_noticed(monkeypatch):
    """The campaign itself: a program that answers with a traceback, or not at all, is found."""

    def fails(argv):
        raise KeyError("patient")

    monkeypatch.setitem(mutate.PROGRAMS, "preprocess", fails)
    assert "KeyError('patient')" in mutate.campaign(60, 0, ["tables"], most=1)[0]
