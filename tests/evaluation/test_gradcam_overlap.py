"""Grad-CAM laid on lesions: by hand, by another way through the picture's own map, and what is counted and refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_gradcam import ONE_TO_ONE, Linear
from untrained import save_checkpoint

import run_eval
from tss.data import nifti
from tss.data.cohort import write_cohort
from tss.data.prepared import read_prepared
from tss.evaluation import gradcam_overlap
from tss.evaluation.gradcam import TARGETS, grad_cam, map_of, recorded, to_input_grid
from tss.evaluation.gradcam_page import explain
from tss.evaluation.inference import Model, Prediction, hemispheres_of
from tss.evaluation.results import as_json
from tss.training.checkpoint import load_model
from tss.training.dataset import Split
from tss.training.feature_cache import cache_features
from tss.training.phases import FROZEN, build_model, freeze

GRID = (32, 32, 26)  # the paper's number of slices
AFFINE = np.diag([5.0, 6.0, 7.0, 1.0])


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory):
    """DATA with masks of its test patients, one of each kind, and checkpoints in runs/<model>/phase<N>."""
    folder = tmp_path_factory.mktemp("overlap")
    (folder / "data" / "hemispheres").mkdir(parents=True)
    settings = json.loads((tiny_data / "settings.json").read_text())
    (folder / "data" / "settings.json").write_text(json.dumps(settings | {"grid": GRID}))
    patients = read_prepared(tiny_data)
    rng = np.random.default_rng(1)
    brain = np.zeros(GRID, bool)
    brain[4:28, 4:28, 1:25] = True
    for patient in (patient for patient in patients if patient.split == "test"):
        hemispheres = rng.uniform(0.2, 0.6, (2, 3, 26, 32, 16)).astype(np.float16)
        lesion = np.zeros(GRID, bool)
        x, y, z = rng.integers((5, 6, 3), (9, 18, 18))
        for side, column in (("left", x), ("right", 31 - x - 4)):
            if patient.side in (side, "both"):
                lesion[column : column + 5, y : y + 8, z : z + 3] = True
        lesion[:, y + 2 :, z] = False  # so that one slice has less
        if patient.id == "p35":
            lesion[:] = False
        np.save(folder / "data" / "hemispheres" / f"{patient.id}.npy", hemispheres)
        for kind, volume in (("lesion", lesion), ("mask", brain)):
            nifti.save(folder / "data" / "registered" / f"{patient.id}_{kind}.nii.gz", volume, AFFINE)
        patient.row["lesion"] = "truth.nii.gz" if patient.id != "p33" else ""
    rows = {patient.id: patient.row for patient in patients}
    rows["p29"] |= {"status": "failed", "reason": "b0.nii.gz is cut off"}
    rows["p30"]["stroke_side"] = ""
    write_cohort(folder / "data" / "cohort.csv", patients)
    for kind in ("2d", "3d"):
        for phase in (1, 4):
            save_checkpoint(
                folder / "runs" / kind / f"phase{phase}" / "best.pt",
                phase,
                folder / "data",
                0.5,
                seed=phase,
                model=kind,
            )
    return folder


def run(made, out, *words, data=None, kind="2d", phases=(1, 4)):
    checkpoints = [str(made / "runs" / kind / f"phase{phase}" / "best.pt") for phase in phases]
    return run_eval.main(
        [
            *checkpoints,
            "--data",
            str(data or made / "data"),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--gradcam",
            "0",
            "--gradcam-scores",
            *words,
        ]
    )


def lesion_at(*voxels, shape=(2, 2, 2), zyx_mm=(9.0, 9.0, 9.0)):
    inside = np.zeros(shape, bool)
    inside[tuple(zip(*voxels, strict=True))] = True
    return gradcam_overlap.lay_out(inside, np.ones(shape, bool), zyx_mm)


def test_a_linear_network_worked_out_by_hand():
    hemisphere = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]], [[0.0, 8.0], [1.0, 1.0]]]])
    # As test_gradcam.py has it: 1.5, 0, 4.5, 6 in the lower slice, 0, 3, 0.375, 0.375 above, over 6; sum 15.75.
    heat = grad_cam(Linear([2.0, -1.0], [1.0, 0.5], [1.0, 0.25]).eval(), hemisphere, ONE_TO_ONE)
    found = gradcam_overlap.overlap_scores(
        heat,
        [
            lesion_at((0, 1, 0), (0, 1, 1)),  # 4.5 and the hottest; both lit
            lesion_at((1, 0, 1), (1, 1, 0), (1, 1, 1)),  # 3 is just lit, 0.375 is not; 9 mm from the hottest
            lesion_at((1, 0, 1), (1, 1, 0), (1, 1, 1), zyx_mm=(8.0, 9.0, 9.0)),  # 8 mm are near enough
            lesion_at((0, 0, 0), (0, 1, 0), (1, 1, 1)),
        ],
    )  # just half of the larger slice lit: not more than half
    np.testing.assert_allclose(
        found, [[10.5 / 15.75, 1, 1], [3.75 / 15.75, 0, 0], [3.75 / 15.75, 0, 1], [6.375 / 15.75, 0, 0]], rtol=1e-6
    )
    assert not gradcam_overlap.overlap_scores(
        np.zeros((2, 2, 2), np.float32), [lesion_at((0, 0, 0))]
    ).any()  # empty: 0, no, no


def test_a_lesion_is_laid_out_with_its_largest_slice_and_what_a_uniform_map_would_get():
    inside, brain = np.zeros((2, 3, 8, 8), bool)
    inside[1, 2, 2] = inside[2, 4, 2:5] = True
    brain[:, 1:7, 1:7] = True
    found = gradcam_overlap.lay_out(inside, brain, (20.0, 8.0, 4.0))
    assert found.voxels.tolist() == [64 + 18, 128 + 34, 128 + 35, 128 + 36]
    assert found.largest_slice.tolist() == found.voxels.tolist()[1:]
    # 8 mm are one row or two columns: in slice 1 five columns and the rows above and below, in slice 2 seven and 3 + 3,
    # whose columns 0 to 6 stand out of the brain by one.
    assert len(found.near) == (5 + 2) + (7 + 6)
    assert found.uniform == pytest.approx((4 / 108, (4 + 2 + 6 + 6) / 108))


def test_a_masks_millimetres_are_those_of_its_own_axes(tmp_path):
    """Voxels of 3 x 9 x 20 mm: within 8 mm of one lie two on either side along x, and none along y or z."""
    lesion = np.zeros((12, 8, 5), bool)
    lesion[2, 4, 1] = True  # on the left, whose columns run to the midline as they are
    for name, volume in (("lesion", lesion), ("mask", np.ones_like(lesion))):
        nifti.save(tmp_path / f"{name}.nii.gz", volume, np.diag([3.0, 9.0, 20.0, 1.0]))
    found = gradcam_overlap._sides(tmp_path / "lesion.nii.gz", tmp_path / "mask.nii.gz", (12, 8, 5))
    assert list(found) == ["left"] and found["left"].near.tolist() == [(8 + 4) * 6 + x for x in range(5)]


def test_means_shares_and_chance_by_hand():
    table = np.zeros((3, 3, 3))  # (maps, lesions, scores)
    table[:, :, 0] = [[0.6, 0.1, 0.2], [0.3, 0.3, 0.0], [0.1, 0.3, 0.9]]
    table[:, :, 1] = [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    found = gradcam_overlap.summarise(table, 0)
    assert found.share_in_lesion.mean == pytest.approx(0.6)
    assert found.chance == pytest.approx({"share_in_lesion": 1 / 6, "overlap_over_half": 2 / 6, "pointing": 0})
    above = found.share_in_lesion.above_chance
    assert above.mean == pytest.approx(np.mean([0.6 - 0.2, 0.3 - 0.2, 0.9 - 0.1]))
    # Own map, less others' on the lesion, less its own on others', plus chance: 0.4167, 0.1167, 0.7667, SD 0.32532;
    # Student's t with 2 degrees of freedom is 4.3027.
    assert above.ci == pytest.approx((1.3 / 3 - 4.3027 * 0.32532 / 3**0.5, 1.0), abs=1e-4)
    assert (found.overlap_over_half.k, found.overlap_over_half.n, found.overlap_over_half.share) == (2, 3, 2 / 3)
    assert found.overlap_over_half.ci == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson's, by calculator
    assert as_json(found.pointing) == {
        "k": 0,
        "n": 3,
        "share": 0,
        "ci": [0, pytest.approx(0.5615, abs=1e-4)],
        "above_chance": {"mean": 0, "ci": [0, 0]},
    }
    alone = gradcam_overlap.summarise(table[:1, :1], 0)
    assert as_json(alone.share_in_lesion) == {"mean": 0.6, "ci": None, "above_chance": None}
    assert alone.chance == dict.fromkeys(gradcam_overlap.SCORES)


def test_phase_1_is_asked_for_stroke_and_the_others_for_their_verdict():
    def model(task):
        return Model(Path("x/best.pt"), "x", torch.nn.Identity(), {"task": task, "threshold": 0.4})

    small, large = lesion_at((0, 0, 0)), lesion_at((0, 0, 0), (1, 1, 1))
    both = {"left": small, "right": large}
    lines = [Prediction("p", side, 1, 0.1) for side in ("left", "right")]
    assert gradcam_overlap.evidence_of(model("stroke"), lines, both) == (
        "right",
        1,
    )  # called negative, and yet asked for stroke
    assert gradcam_overlap.evidence_of(model("stroke"), lines, {"left": small}) == ("left", 1)
    assert gradcam_overlap.evidence_of(model("tss<3h"), lines[:1], both) == ("left", -1)
    assert gradcam_overlap.evidence_of(model("tss<3h"), [Prediction("p", "left", -1, 0.4)], both) == ("left", 1)
    assert gradcam_overlap.evidence_of(model("tss<3h"), lines[:1], {"right": large}) == (
        "no lesion voxel in the left hemisphere, which was read"
    )
    assert gradcam_overlap.evidence_of(model("tss<3h"), lines[:1], {}) == "no lesion voxel on the grid"
    assert gradcam_overlap.evidence_of(model("tss<3h"), [Prediction("p", "left", 1, None, "cut off")], {}) == "cut off"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_run_eval_measures_and_counts_everybody(made, tmp_path, capsys, kind):
    assert run(made, tmp_path, kind=kind) == 0
    found = {
        phase: json.loads((tmp_path / f"phase{phase}" / "metrics.json").read_text())["gradcam"] for phase in (1, 4)
    }
    for gradcam in found.values():
        assert gradcam["patients_with_lesion"] == 7  # of p28 to p35, without p33, who has no mask
        # p30's side is unknown: the mask knows it in phase 1; in phase 4 phase 1 chooses it, right or wrong.
        others = {patient: why for patient, why in gradcam["not_measured"].items() if patient != "p30"}
        assert others == {"p29": "b0.nii.gz is cut off", "p35": "no lesion voxel on the grid"}
        assert gradcam["measured"] == 7 - len(gradcam["not_measured"]) == gradcam["overlap_over_half"]["n"]
        for part in (gradcam, gradcam["randomised"]):
            low, high = part["share_in_lesion"]["ci"]
            assert 0 <= low <= part["share_in_lesion"]["mean"] <= high <= 1
            assert set(part["chance"]) == {"share_in_lesion", "overlap_over_half", "pointing"}
        assert gradcam["randomised"]["share_in_lesion"] != gradcam["share_in_lesion"]
    assert "p30" not in found[1]["not_measured"] and "within 8 mm" in found[1]["definition"]
    said = capsys.readouterr().out
    assert "Grad-CAM on the lesions of 5 of 7 patients with a mask: " in said
    assert "p29 not measured: b0.nii.gz is cut off" in said and "randomised" in said

    # Phase 4's mean again, from the pictures' maps on the atlas grid and the masks as they lie in the files.
    path = made / "runs" / kind / "phase4" / "best.pt"
    model = Model(path, "phase4", *load_model(path))
    with open(tmp_path / "phase4" / "predictions.csv", newline="") as file:
        lines = [(line["patient"], line["side"], line["label"], line["probability"]) for line in csv.DictReader(file)]
    patients = {patient.id: patient for patient in read_prepared(made / "data")}
    shares = []
    for patient, side, label, probability in lines:
        if patient not in found[4]["not_measured"] and patient != "p33":
            heat = explain(
                model,
                Prediction(patient, side, int(label), float(probability)),
                hemispheres_of(patients[patient], model, str(made / "data")),
            ).heat
            lesion = nifti.load(made / "data" / "registered" / f"{patient}_lesion.nii.gz").data > 0.5
            shares.append(heat[lesion].sum() / heat.sum() if heat.any() else 0.0)  # nothing argues for it
    assert found[4]["share_in_lesion"]["mean"] == pytest.approx(np.mean(shares), rel=1e-4) and len(shares) >= 4


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_of_the_extended_recipe_the_evidence_is_drawn_and_measured(made, tmp_path, kind):
    scan = np.zeros(GRID, np.float32)
    scan[4:28, 4:28, 1:25] = 1
    paths = [
        save_checkpoint(tmp_path / f"runs/phase{n}/best.pt", n, made / "data", seed=n, model=kind, recipe="extended")
        for n in (1, 4)
    ]
    for name in ("dwi", "flair"):
        nifti.save(made / "data" / "registered" / f"p28_{name}.nii.gz", scan, AFFINE)
    words = ["--data", str(made / "data"), "--out", str(tmp_path / "eval"), "--device", "cpu"]
    assert run_eval.main([*paths, *words, "--gradcam", "1", "--gradcam-scores"]) == 0
    for n in (1, 4):
        found = json.loads((tmp_path / "eval" / f"phase{n}" / "metrics.json").read_text())
        assert found["recipe"] == "extended" and found["gradcam"]["measured"] > 3
        assert (tmp_path / "eval" / f"phase{n}" / "gradcam" / "p28.png").stat().st_size > 10_000
    model = Model(Path(paths[1]), "phase4", *load_model(paths[1]))
    patient = next(patient for patient in read_prepared(made / "data") if patient.id == "p28")
    hemisphere = hemispheres_of(patient, model, str(made / "data"))[1].float()
    ((own, _),) = gradcam_overlap.maps_of(model, [patient], [("right", -1)], str(made / "data"))
    np.testing.assert_array_equal(own, map_of(model.network, hemisphere, TARGETS[kind]))


def test_a_studys_ensemble_is_scored_and_its_single_networks_are_measured(made, tmp_path):
    for k in (1, 2):
        path, settings = tmp_path / f"fold{k}" / "phase4" / "best.pt", {"fold": f"{k}/2"}
        save_checkpoint(path, 4, made / "data", seed=k, settings=settings)
    members = {"ensemble": [f"fold{k}/phase4/best.pt" for k in (1, 2)]}
    (tmp_path / "study.json").write_text(json.dumps({"ensembles": members}))
    assert run(made, tmp_path / "eval", "--study", str(tmp_path / "study.json")) == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "eval").glob("*/metrics.json")}
    assert {name: "gradcam" in row for name, row in found.items()} == {
        "phase1": True,
        "phase4": True,
        "ensemble": False,
    }
    assert (
        found["ensemble"]["members"] == 2 and found["ensemble"]["n"] == 6
    )  # of p28 to p35: one failed, one of unknown side


def test_maps_have_the_inputs_26_slices_and_the_untrained_network_is_another_for_each_patient(made):
    path = made / "runs" / "3d" / "phase4" / "best.pt"
    model = Model(path, "phase4", *load_model(path))
    with recorded(model.network.get_submodule(TARGETS["3d"].layer)) as outputs, torch.no_grad():
        model.network(torch.zeros(1, 3, 26, 32, 16))
    assert outputs[0].shape[2] == 7  # slices in the layer that is explained
    patient = next(patient for patient in read_prepared(made / "data") if patient.id == "p28")
    pairs = list(gradcam_overlap.maps_of(model, [patient] * 2, [("right", -1)] * 2, str(made / "data")))
    assert all(heat.shape == (26, 32, 16) for pair in pairs for heat in pair)
    assert pairs[0][0].any(axis=(1, 2)).all() and len(set(pairs[0][0].sum(axis=(1, 2)))) > 20  # not 7, repeated
    np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
    assert not np.array_equal(pairs[0][1], pairs[1][1])


def test_randomised_is_every_tensor_as_before_training_seeded_and_leaves_the_generator_alone(made_up):
    checkpoint = made_up(phase=4, attention=True)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    network = gradcam_overlap.randomised_network(checkpoint, 1)
    assert torch.rand(1) == expected and not network.training
    state = network.state_dict()
    again = gradcam_overlap.randomised_network(checkpoint, 1).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert not torch.equal(state["backbone.conv1.weight"], checkpoint["state_dict"]["backbone.conv1.weight"])
    assert not state["backbone.bn1.running_mean"].any() and (state["backbone.bn1.running_var"] == 1).all()
    assert torch.sigmoid(state["slice_logits"]).tolist() == pytest.approx([1 / 4] * 4)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_frozen_and_cached_the_map_is_the_same(kind):
    torch.manual_seed(0)
    network = build_model(kind, 4, (32, 32, 26), attention=True)
    freeze(network, FROZEN[kind])
    hemispheres = torch.rand(2, 3, 26, 32, 16)
    split = Split([], hemispheres, torch.ones(2))
    learner, (cached,) = cache_features(network, [split], torch.device("cpu"), "fp32", say=lambda text: None)
    learner.train()(cached.hemispheres).sum().backward()
    with torch.no_grad():  # a step of training; torch.optim would take seconds to load
        for parameter in (parameter for parameter in network.parameters() if parameter.grad is not None):
            parameter -= 0.01 * parameter.grad
    network.eval()
    heat = grad_cam(network, hemispheres[0], TARGETS[kind])
    with recorded(network.get_submodule(TARGETS[kind].layer)) as outputs:  # from what was computed once
        logit = learner(cached.hemispheres[:1])
    (gradient,) = torch.autograd.grad(logit.sum(), outputs[0])
    over = tuple(range(2, gradient.ndim))
    cells = (gradient.mean(over, keepdim=True) * outputs[0]).sum(1).clamp(min=0).detach().numpy()
    again = to_input_grid(cells.reshape(-1, *cells.shape[-2:]).astype(float), (26, 32, 16), TARGETS[kind])
    assert heat.max() == 1
    np.testing.assert_allclose(heat, again / again.max(), atol=1e-4)


def test_what_cannot_be_measured_is_refused_before_any_work(made, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(made / "data", data)
    nifti.save(data / "registered" / "p31_lesion.nii.gz", np.zeros((32, 32, 20), bool), AFFINE)
    assert run(made, tmp_path / "out", data=data) == 2
    assert "p31_lesion.nii.gz has (32, 32, 20) voxels, and DATA's grid is (32, 32, 26)" in capsys.readouterr().err
    (data / "registered" / "p31_lesion.nii.gz").unlink()
    assert run(made, tmp_path / "out", data=data) == 2
    assert "p31_lesion.nii.gz is missing, and --gradcam-scores needs it" in capsys.readouterr().err
    patients = read_prepared(data)
    for patient in patients:
        patient.row["lesion"] = ""
    write_cohort(data / "cohort.csv", patients)
    assert run(made, tmp_path / "out", data=data) == 2
    assert "names no lesion mask of these patients" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as ended:
        run_eval.main(["x.pt", "--patient", "a", "b", "c", "--atlas", "d", "--gradcam-scores"])
    assert ended.value.code == 2 and "--gradcam-scores is about a cohort" in capsys.readouterr().err


def test_nobody_measured_is_said_and_has_no_scores(made):
    patients = [patient for patient in read_prepared(made / "data") if patient.id in ("p29", "p35")]
    model = Model(Path("x/best.pt"), "x", torch.nn.Linear(1, 1), {"task": "stroke", "model": "2d", "threshold": 0.4})
    lines = [Prediction("p29", "left", 1, None, "b0.nii.gz is cut off"), Prediction("p35", "left", 1, 0.5)]
    found = gradcam_overlap.measure_overlap(
        model, lines, patients, gradcam_overlap.lesions_of(patients, made / "data"), str(made / "data")
    )
    assert (found.patients_with_lesion, found.measured) == (2, 0)
    plain = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert plain["share_in_lesion"] == {"mean": None, "ci": None, "above_chance": None}
    assert plain["pointing"] == {"k": 0, "n": 0, "share": None, "ci": None, "above_chance": None}
    said = gradcam_overlap.overlap_line(found)
    assert said.splitlines() == [
        "Grad-CAM on the lesions of 0 of 2 patients with a mask: share of the map in the lesion - (chance -); over "
        "half lit - (chance -); hottest place in it - (chance -)",
        "  p29 not measured: b0.nii.gz is cut off",
        "  p35 not measured: no lesion voxel on the grid",
    ]
