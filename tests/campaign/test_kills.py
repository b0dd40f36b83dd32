"""Killed at random moments, and typed again: the same files, none beside them, no process left."""

import datetime

import heads
import kills
import pytest


@pytest.fixture
def runner(tmp_path, monkeypatch):
    for name in ("DWI_GRID", "FLAIR_GRID", "ATLAS_GRID"):  # the campaign has coarser heads
        monkeypatch.setattr(heads, name, getattr(heads, name))
    return kills.Runner(tmp_path, datetime.date.today().isocalendar().week)


@pytest.mark.slow
def test_what_was_killed_ends_the_same_when_it_is_typed_again(runner):
    assert not kills.kills(runner, ["evaluation", "2d"], 2)
    assert {"phase3/predictions.csv", "comparisons.json"} <= runner.wholes["evaluation"].files.keys()
    assert {f"phase{phase}/{name}.pt" for phase in (1, 4) for name in ("best", "last")} <= runner.wholes[
        "2d"
    ].files.keys()


def test_what_differs_is_named():
    whole, found = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", ".5.c": "3"}
    assert kills.differences(whole, whole) == []
    assert kills.differences(whole, found) == ["lost: c", "stray: .5.c", "differs: b"]


@pytest.mark.parametrize(
    ("code", "said", "finding"),
    [
        (0, "", ""),
        (2, "x.py: no space. Free some space there.", ""),
        (2, "x.py: no space.", "exit code 2 without a remedy: x.py: no space."),
        (1, "Traceback (most recent call last):", "exit code 1: Traceback (most recent call last):"),
        (-9, "", "exit code -9: "),
    ],
)
def test_an_end_without_a_sentence_is_found(code, said, finding):
    assert kills.why_no_sentence(code, said, ["Free some space"]) == ([finding] if finding else [])
