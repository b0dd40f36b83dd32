"""Which line, side and label a patient gets, against a network whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from untrained import save_checkpoint

from tss.data.cohort import Patient
from tss.errors import InputError
from tss.evaluation import inference
from tss.evaluation.inference import Model, Prediction

CPU = torch.device("cpu")


class MeanOfDwi(nn.Module):
    """logit = mean of the DWI channel."""

    def forward(self, x):
        return x[:, 0].mean(dim=(1, 2, 3))


def model(task, name="phase"):
    return Model(Path(f"{name}/best.pt"), name, MeanOfDwi(), {"task": task, "model": "2d", "threshold": 0.5})


def patient(side="", minutes="", **more):
    return Patient({"patient": "p1", "stroke_side": side, "onset_to_mri_min": minutes, "status": "ok"} | more, Path())


def chance(logit):
    return pytest.approx(1 / (1 + np.exp(-logit)))


BRIGHT_RIGHT = torch.stack([torch.full((3, 2, 4, 2), value) for value in (0.25, 0.75)]).half()


def test_stroke_has_a_line_a_hemisphere():
    lines = inference.predict_patient(model("stroke"), None, patient("right"), BRIGHT_RIGHT, CPU)
    assert lines == [
        Prediction("p1", "left", 0, chance(0.25), side_from="each hemisphere"),
        Prediction("p1", "right", 1, chance(0.75), side_from="each hemisphere"),
    ]


@pytest.mark.parametrize(("side", "labels"), [("both", [1, 1]), ("left", [1, 0]), ("", [-1, -1])])
def test_labels_of_stroke(side, labels):
    lines = inference.predict_patient(model("stroke"), None, patient(side), BRIGHT_RIGHT, CPU)
    assert [line.label for line in lines] == labels


@pytest.mark.parametrize(("side", "expected"), [("left", 0.25), ("right", 0.75), ("both", 0.75)])
def test_tss_has_a_line_a_patient_and_both_takes_the_higher(side, expected):
    (line,) = inference.predict_patient(model("tss<4.5h"), None, patient(side, "269"), BRIGHT_RIGHT, CPU)
    assert line.probability == chance(expected) and line.label == 1
    assert line.side == ("right" if side == "both" else side)
    assert line.side_from == ("table: both, the likelier" if side == "both" else "table")


@pytest.mark.parametrize(("minutes", "label"), [("269.5", 1), ("270", 0), ("900", 0), ("", -1)])
def test_labels_of_tss(minutes, label):
    (line,) = inference.predict_patient(model("tss<4.5h"), None, patient("left", minutes), BRIGHT_RIGHT, CPU)
    assert line.label == label


def test_an_unknown_side_is_chosen_by_phase_1_and_said():
    (line,) = inference.predict_patient(
        model("tss<3h"), model("stroke", "phase1"), patient("", "60"), BRIGHT_RIGHT, CPU
    )
    assert (line.side, line.label, line.probability) == ("right", 1, chance(0.75))
    assert line.side_from == inference.BY_PHASE_1


def test_an_unknown_side_without_phase_1_has_no_probability_and_says_why():
    (line,) = inference.predict_patient(model("tss<3h"), None, patient("", "60"), BRIGHT_RIGHT, CPU)
    assert line.probability is None and "no checkpoint of phase 1" in line.reason


@pytest.mark.parametrize(("task", "lines"), [("stroke", 2), ("tss<3h", 1)])
def test_a_failed_patient_keeps_its_lines_with_the_reason(task, lines):
    failed = patient("left", "60", status="failed", reason="b0.nii.gz is cut off")
    predictions = inference.predict_patients(model(task), None, [failed], "nowhere", CPU)
    assert [(line.probability, line.reason) for line in predictions] == [(None, "b0.nii.gz is cut off")] * lines


def test_outputs_that_are_not_numbers_are_refused():
    broken = torch.full((2, 3, 2, 4, 2), float("nan"))
    with pytest.raises(InputError, match="phase/best.pt: .*not finite"):
        inference.predict_patient(model("tss<3h"), None, patient("left", "60"), broken, CPU)


def test_names_are_those_of_the_folders_and_never_alike(tmp_path):
    one, four, other, mine = (
        save_checkpoint(tmp_path / name, phase)
        for name, phase in (
            ("2d/phase1/best.pt", 1),
            ("2d/phase4/best.pt", 4),
            ("3d/phase4/best.pt", 4),
            ("mine.pt", 4),
        )
    )
    assert [model.name for model in inference.open_models([one, four])] == ["phase1", "phase4"]
    assert [model.name for model in inference.open_models([four, other])] == ["2d-phase4", "3d-phase4"]
    assert [model.name for model in inference.open_models([mine])] == ["mine"]
    with pytest.raises(InputError, match="given twice"):
        inference.open_models([four, f"{tmp_path}/2d/phase1/../phase4/best.pt"])


def test_phase_0_has_nothing_to_say_about_a_patient(tmp_path):
    zero = save_checkpoint(tmp_path / "phase0" / "best.pt", 0, model="3d", val_auc=None, threshold=None)
    with pytest.raises(InputError, match="phase0/best.pt is of phase 0, which restores volumes .* Omit it"):
        inference.open_models([zero])


def test_a_3d_checkpoint_gives_a_probability(tmp_path):
    four = save_checkpoint(tmp_path / "3d" / "phase4" / "best.pt", 4, model="3d", grid=[4, 4, 2])
    (opened,) = inference.open_models([four])
    (line,) = inference.predict_patient(opened, None, patient("left", "60"), BRIGHT_RIGHT, CPU)
    assert 0 < line.probability < 1 and line.side == "left"


def test_phase_1_is_taken_from_those_given_or_from_beside(tmp_path):
    four = save_checkpoint(tmp_path / "phase4" / "best.pt", 4)
    (alone,) = inference.open_models([four])
    assert inference.side_picker(alone, [alone]) is None
    one = save_checkpoint(tmp_path / "phase1" / "best.pt", 1)
    assert inference.side_picker(alone, [alone]).path == Path(one)
    both = inference.open_models([one, four])
    assert inference.side_picker(both[1], both) is both[0]


def test_the_side_is_found_by_phase_1_of_the_same_kind_of_network():
    two, three = (model("stroke", kind)._replace(checkpoint={"task": "stroke", "model": kind}) for kind in ("2d", "3d"))
    last = model("tss<3h")._replace(checkpoint={"task": "tss<3h", "model": "3d"})
    assert inference.side_picker(last, [two, three]) is three is inference.side_picker(last, [three, two])
    assert inference.side_picker(last, [two]) is two


def test_who_lies_on_a_cut_is_unsure():
    cuts = inference.Cuts(0.9, 0.25, 0.75, 100, 100, 200, 90)
    found = [model("tss<3h")._replace(cuts=cuts).verdict(p) for p in (0.2, 0.25, 0.5, 0.75, 0.8)]
    assert found == ["negative", "unsure", "unsure", "unsure", "positive"]
    nobody = model("tss<3h")._replace(cuts=cuts._replace(lower=None, upper=None))
    assert nobody.verdict(0.0) == nobody.verdict(1.0) == "unsure"


@pytest.mark.parametrize(("probability", "threshold", "words"), [
    (0.7123, 0.4, "0.712, threshold 0.400: positive"),
    (0.3, 0.4, "0.300, threshold 0.400: negative"),
    (0.49991829, 0.49991991, "0.499918, threshold 0.499920: negative, but too close to call"),
    (0.5, 0.5, "0.500, threshold 0.500: positive, but too close to call"),
    (0.9996, 0.9998, "0.9996, threshold 0.9998: negative"),  # half the odds: no toss-up
    (1.0, 1.0, "1.000, threshold 1.000: positive, but too close to call"),
    (0.9999999, 1.0, "0.9999999, threshold 1.0000000: negative"),
])  # fmt: skip
def test_probabilities_are_written_with_the_digits_that_decide(probability, threshold, words):
    assert inference.in_words(probability, threshold) == words


@pytest.mark.parametrize(("probability", "verdict", "cuts", "words"), [
    (0.45, "positive", (0.2, 0.3), "0.450, negative below 0.200, positive above 0.300: positive"),  # below 0.5
    (0.6, "unsure", (0.2, None), "0.600, negative below 0.200: unsure"),
    (0.6, "unsure", (None, None), "0.600: unsure"),
    (0.30004, "positive", (0.2, 0.3), "0.30004, negative below 0.20000, positive above 0.30000: positive, but too "
                                      "close to call"),
])  # fmt: skip
def test_where_a_promise_decides_its_cuts_are_written_and_not_the_threshold(probability, verdict, cuts, words):
    assert inference.in_words(probability, 0.5, verdict, cuts) == words
