"""What --like takes from a checkpoint, and what it refuses."""

from pathlib import Path

import pytest

from tss.errors import InputError
from tss.preprocessing.pattern import Pattern

OWN = {
    "format": "f", "tools": "built-in (tss 1)", "grid": [16, 16, 8], "atlas_sha256": "a" * 64, "atlas_skull": "none",
    "reference": {"patient": "p1", "landmarks": {"dwi": [1.0, 2.0, 3.0]}},
}  # fmt: skip


def pattern(seen=None, **changes):
    return Pattern(Path("best.pt"), "0" * 64, OWN | changes, seen or {})


@pytest.mark.parametrize(
    ("said", "name"),
    [("built-in (tss 1)", "builtin"), ("FSL 6.0.4", "fsl"), ("FSL 6.0.4, the paper's literal order", "literal")],
)
def test_the_tools_are_the_checkpoints(said, name):
    assert (pattern(tools=said).tools, pattern().grid) == (name, (16, 16, 8))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("atlas_sha256", "b" * 64, r"atlas \(SHA-256\) bbbb.*, there aaaa"),
        ("tools", "FSL 6.0.4", r"tools FSL 6.0.4, there built-in \(tss 1\)"),
        ("atlas_skull", "found", "skull of the atlas removed found, there none"),
        ("format", "g", "format g, there f"),
        ("grid", [16, 16, 9], r"grid \[16, 16, 9\], there \[16, 16, 8\]"),
    ],
)
def test_what_would_make_patients_incomparable_is_refused(key, value, message):
    pattern().check(OWN)
    with pytest.raises(InputError, match=message):
        pattern().check(OWN | {key: value})


def test_a_checkpoint_that_does_not_say_how_its_patients_were_prepared_is_refused():
    with pytest.raises(InputError, match=r"how its patients were preprocessed \(tools missing"):
        Pattern(Path("best.pt"), "", {name: value for name, value in OWN.items() if name != "tools"}, {})
    with pytest.raises(InputError, match="landmarks missing"):
        pattern(reference={"patient": "p1"})


def test_a_patient_that_was_learned_from_is_flagged_with_both_names():
    flags = pattern({"p7": ["x", "y"]}).flags("new", {"dwi": "z", "flair": "y"})
    assert flags == ["best.pt has learned from this patient, there p7"]
    assert pattern({"p7": ["x"]}).flags("p7", {"dwi": "z"}) == []
