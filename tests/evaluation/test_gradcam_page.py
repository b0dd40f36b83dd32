"""The explanation of a verdict: the right hemisphere, the right sign, the slices that weigh most."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tss.data.cohort import Patient
from tss.evaluation import gradcam_page
from tss.evaluation.gradcam import TARGETS, grad_cam
from tss.evaluation.inference import Cuts, Model, Prediction
from tss.models.resnet2d import SliceClassifier
from tss.models.unet3d import VolumeClassifier
from tss.training.phases import build_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = SliceClassifier(width=4, slices=8, attention=False).eval()
    with torch.no_grad():
        network.slice_logits.copy_(torch.linspace(-2, 2, 8))
    return Model(Path("phase4/best.pt"), "phase4", network, {"task": "tss<4.5h", "model": "2d", "threshold": 0.4})


@pytest.fixture
def hemispheres():
    made = torch.rand(2, 3, 8, 64, 32, generator=torch.Generator().manual_seed(0))
    made[:, :, 7] = 0  # above the head
    return made


def test_contributions_add_up_to_the_logit(model, hemispheres):
    found = gradcam_page.explain(model, Prediction("p", "left", 1, 0.9), hemispheres)
    assert found.contributions.sum() == pytest.approx(model.network(hemispheres[:1]).item(), abs=1e-5)


def test_slices_are_those_that_weigh_most_and_have_something_in_them(model, hemispheres):
    found = gradcam_page.explain(model, Prediction("p", "left", 1, 0.9), hemispheres)
    by_hand = sorted(range(7), key=lambda z: -abs(found.contributions[z]))[:5]
    assert found.slices == sorted(by_hand)


def test_the_3d_model_shows_the_slices_with_most_of_the_map(hemispheres):
    torch.manual_seed(0)
    network = VolumeClassifier(width=2, attention=True).eval()
    model = Model(Path("3d/best.pt"), "3d", network, {"task": "tss<4.5h", "model": "3d", "threshold": 0.4})
    line = Prediction("p", "left", 1, 0.1)  # nothing argues for it
    found = gradcam_page.explain(model, line, hemispheres)
    share = found.heat.sum(axis=(0, 1)) / found.heat.sum()
    np.testing.assert_allclose(found.contributions, share, rtol=1e-5)
    assert found.slices == sorted(sorted(range(7), key=lambda z: -share[z])[:5])  # slice 7 is above the head
    assert gradcam_page.amount(model, 0.25) == "25%"
    assert "above each slice: its share of the map" in gradcam_page.title(model, line, "p", "")


@pytest.mark.parametrize(("side", "empty"), [("left", slice(32, 64)), ("right", slice(0, 32))])
def test_the_map_lies_in_the_hemisphere_it_is_of(model, hemispheres, side, empty):
    for probability in (0.9, 0.1):
        heat = gradcam_page.explain(model, Prediction("p", side, 1, probability), hemispheres).heat
        assert heat.shape == (64, 64, 8) and not heat[empty].any()


def test_the_right_hemisphere_is_mirrored_back(model, hemispheres):
    heat = gradcam_page.explain(model, Prediction("p", "right", 1, 0.9), hemispheres).heat
    seen = grad_cam(model.network, hemispheres[1], TARGETS["2d"])  # (D, H, W), W ends at the midline
    assert heat[32, 5, 2] == seen[2, 5, 31] and heat[63, 5, 2] == seen[2, 5, 0]


def test_what_is_drawn_fades_towards_the_midline_and_where_it_is_worth_little(model, hemispheres):
    found = gradcam_page.explain(model, Prediction("p", "left", 1, 0.9), hemispheres)
    (drawn,) = found._replace(worth=1.0).drawn().values()
    np.testing.assert_array_equal(drawn[:30], found.heat[:30])
    np.testing.assert_allclose(drawn[30:32], found.heat[30:32] * np.array([0.75, 0.25])[:, None, None], rtol=1e-6)
    (faint,) = found._replace(worth=0.001).drawn().values()
    np.testing.assert_allclose(faint, drawn * 0.01, rtol=1e-5)
    note = gradcam_page.note(model, found._replace(worth=0.001))
    assert note == "The Grad-CAM as a whole is worth 0.001 of the logit, less than 0.1: there is little to show"
    assert "zero everywhere" in gradcam_page.note(model, found._replace(worth=0.0))


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_of_the_extended_recipe_evidence_is_drawn_beside_grad_cam(hemispheres, kind):
    torch.manual_seed(0)
    about = {"task": "tss<4.5h", "model": kind, "threshold": 0.4}
    network = build_model(kind, 4, [64, 64, 8], True, "tss<4.5h", recipe="extended").eval()
    torch.nn.init.normal_(network.evidence.context[-2].weight)
    model, line = Model(Path("phase4/best.pt"), "phase4", network, about), Prediction("p", "right", 1, 0.9)
    found = gradcam_page.explain(model, line, hemispheres)
    assert list(found.drawn()) == ["evidence", "Grad-CAM"] and 0 < found.heat.max() <= 1
    assert not found.heat[:32].any() and not found.heat[..., 7].any()
    assert found.contributions.sum() == pytest.approx(1, abs=1e-5) and len(found.slices) == 5
    assert "its share of what is read" in gradcam_page.title(model, line, "p", "")
    assert "evidence for stroke\n(1 = certain, 0 = no likelier than not)" in gradcam_page.scale(model, line)
    assert gradcam_page.amount(model, 0.25) == "25%"


def test_a_negative_verdict_shows_the_evidence_against(model, hemispheres):
    against = gradcam_page.explain(model, Prediction("p", "left", 1, 0.39), hemispheres).heat
    np.testing.assert_array_equal(
        against[:32].transpose(2, 1, 0), grad_cam(model.network, hemispheres[0], TARGETS["2d"], sign=-1)
    )
    assert "evidence against TSS < 4.5 h" in gradcam_page.scale(model, Prediction("p", "left", 1, 0.39))
    assert "evidence for TSS < 4.5 h" in gradcam_page.scale(model, Prediction("p", "left", 1, 0.4))


def test_the_cuts_of_a_promise_decide_which_evidence_is_shown(model):
    promising = model._replace(cuts=Cuts(0.8, 0.1, 0.3, 20, 20, 250, 190))  # the threshold is 0.4
    shown = {chance: gradcam_page.scale(promising, Prediction("p", "left", 1, chance)) for chance in (0.35, 0.25, 0.05)}
    assert [text.split()[1] for text in shown.values()] == ["for", "against", "against"]
    title = gradcam_page.title(promising, Prediction("p", "left", 1, 0.35), "p", "")
    assert "0.350, negative below 0.100, positive above 0.300: positive\n" in title


def test_the_title_gives_probability_threshold_verdict_and_truth(model):
    patient = Patient({"patient": "p7", "onset_to_mri_min": "195"}, Path())
    line = Prediction("p7", "right", 1, 0.7123)
    title = gradcam_page.title(model, line, "p7", gradcam_page.truth(model, line, patient))
    assert "p7, right hemisphere: probability of TSS < 4.5 h 0.712, threshold 0.400: positive" in title
    assert "truth: yes (195 min from onset to MRI)" in title
    assert gradcam_page.truth(model, line._replace(label=-1), patient) == "truth unknown"
