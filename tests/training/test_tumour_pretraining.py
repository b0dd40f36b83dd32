"""Medical weights: learned from tumours, and started from in phases 2 and 3 (through run_train.py, as users do)."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import run_eval
import run_train
from tss.data.tasks import Sample
from tss.training import tumour_pretraining
from tss.training.checkpoint import load_checkpoint
from tss.training.dataset import Split
from tss.training.run_setup import fingerprint

TYPES = ("glioma", "meningioma", "pituitary")
PLACES = {"glioma": (10, 16, 4), "meningioma": (22, 10, 5), "pituitary": (16, 22, 2)}
KINDS = pytest.mark.parametrize("kind", ["2d", "3d"])
TINY = ["--width", "4", "--grid", "32", "32", "10", "--device", "cpu", "--lr", "1e-2", "--final-lr", "0.1"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Fifteen heads of 32 x 32 x 10 voxels; where the bright ball sits tells its type."""
    folder = tmp_path_factory.mktemp("tumours")
    rng = np.random.default_rng(0)
    x, y, z = np.indices((32, 32, 10))
    head = ((x - 15.5) / 13) ** 2 + ((y - 15.5) / 14) ** 2 + ((z - 4.5) / 6) ** 2 < 1
    affine = np.diag([182 / 32, 218 / 32, 182 / 10, 1])
    rows = []
    for number in range(15):
        kind = TYPES[number % 3]
        centre = np.array(PLACES[kind]) + rng.integers(-1, 2, 3) * (1, 1, 0)
        ball = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + 9 * (z - centre[2]) ** 2 < 16
        row = {"patient": f"t{number}", "type": kind}
        for name, gain in {"t1": 0.7, "flair": 1.8, "t1ce": 2.2}.items():
            data = head * (100 + 5 * rng.normal(size=head.shape)) * np.where(ball, gain, 1)
            row[name] = f"t{number}_{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), affine), folder / row[name])
        row["tumour"] = f"t{number}_tumour.nii.gz"
        nibabel.save(nibabel.Nifti1Image((ball & head).astype(np.uint8), affine), folder / row["tumour"])
        rows.append(row)
    with open(folder / "tumours.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "tumours.csv"


def test_a_mask_that_moved_is_other_data():
    """Its size, which is all that a sample holds of it, stays."""
    mask = torch.zeros(2, 4, 4, 4)
    mask[:, 1, 1, 1] = 1
    splits = [
        Split([Sample("t0", "both", 1)], torch.zeros(2, 3, 4, 4, 4).half(), labels) for labels in (mask, mask.flip(3))
    ]
    assert fingerprint(splits[0], splits[0]) != fingerprint(splits[1], splits[0])


def learn(table, kind, out, *more, epochs=2):
    return tumour_pretraining.main(
        [str(table), "--model", kind, "--out", str(out), *TINY, "--epochs", str(epochs), *more]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "score", "least", "epochs"), [("2d", "val_accuracy", 0.9, 10), ("3d", "val_dice", 0.5, 20)]
)
def test_what_can_be_learned_is_learned(table, kind, score, least, epochs, tmp_path, capsys):
    assert learn(table, kind, tmp_path, epochs=epochs) == 0
    folder = tmp_path / "tumours"
    log = list(csv.DictReader(open(folder / "log.csv")))
    assert max(float(row[score]) for row in log) >= least
    assert (folder / "curves.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "of 12 patients, val" in said and "channels t1, flair, t1ce in 15 patients" in said
    if kind == "2d":
        assert "types glioma, meningioma, pituitary; always answering" in said
    best = load_checkpoint(folder / "best.pt")
    assert (best["phase"], best["val_auc"], best["threshold"], best["parent"]) == (None, None, None, "random")
    assert best["task"] == {"2d": "tumour type", "3d": "tumour outline"}[kind] and best["grid"] == [32, 32, 10]
    assert json.loads((folder / "settings.json").read_text())["types"] == (list(TYPES) if kind == "2d" else [])


@pytest.mark.slow
@KINDS
def test_continued_training_equals_uninterrupted(table, kind, tmp_path, no_drawing):
    assert learn(table, kind, tmp_path / "whole", epochs=3) == 0
    original = tumour_pretraining.tumour_scores

    def stopped(*args):
        if (tmp_path / "parts/tumours/last.pt").exists():
            raise KeyboardInterrupt
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tumour_pretraining, "tumour_scores", stopped)
        assert learn(table, kind, tmp_path / "parts", epochs=3) == 2
    assert learn(table, kind, tmp_path / "parts", "--resume", epochs=3) == 0
    one, other = (load_checkpoint(tmp_path / name / "tumours/best.pt")["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole/tumours/log.csv").read_bytes() == (tmp_path / "parts/tumours/log.csv").read_bytes()


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("phase", [2, 3])
def test_phases_2_and_3_start_from_it_with_the_papers_layers_frozen(
    table, tiny_data, kind, phase, tmp_path, capsys, no_drawing
):
    assert learn(table, kind, tmp_path) == 0
    first = tmp_path / "tumours" / "best.pt"
    capsys.readouterr()
    assert (
        run_train.main(
            [
                "--phase",
                str(phase),
                "--init",
                str(first),
                "--data",
                str(tiny_data),
                "--out",
                str(tmp_path),
                "--epochs",
                "1",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "medical images (tumours)" in said and "are bit-equal to" in said
    assert ("the types of tumour are not classified here" if kind == "2d" else "the decoder is not needed") in said
    assert "tumours have other classes" in said
    best, parent = load_checkpoint(tmp_path / f"phase{phase}" / "best.pt"), load_checkpoint(first)
    assert best["settings"]["weights"] == "medical images (tumours)" and best["model"] == kind
    assert len(best["frozen"]) == {"2d": 30, "3d": 28}[kind]
    assert all(torch.equal(best["state_dict"][name], parent["state_dict"][name]) for name in best["frozen"])


def test_what_does_not_fit_is_refused(table, tiny_data, tmp_path, capsys, no_drawing):
    assert learn(table, "2d", tmp_path) == 0
    best = str(tmp_path / "tumours" / "best.pt")
    for words, message in (
        (["--phase", "1", "--init", best], "Phase 1 does not start from it"),
        (["--phase", "4", "--init", best], "Phase 4 does not start from it"),
        (["--phase", "2", "--init", best, "--model", "3d"], "has model 2d, this run has 3d"),
    ):
        assert run_train.main([*words, "--data", str(tiny_data), "--out", str(tmp_path), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
    for file, message in ((table, "holds a training already"), (tmp_path / "none.csv", "none.csv cannot be read")):
        assert tumour_pretraining.main([str(file), "--out", str(tmp_path), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
    assert run_eval.main([best, "--data", str(tiny_data), "--out", str(tmp_path / "eval")]) == 2
    assert "was learned from tumours and says nothing about strokes" in capsys.readouterr().err


def test_its_flags_are_those_of_a_training_without_phases(capsys):
    for words, message in (
        ([], "the following arguments are required: TUMOURS.csv"),
        (["t.csv", "--phase", "2"], "unrecognized arguments: --phase 2"),
        (["t.csv", "--resume", "--overwrite"], "not allowed with argument"),
        (["t.csv", "--grid", "0", "1", "1"], "0 is not a whole number from 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            tumour_pretraining.main(words)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert all(action.help for action in tumour_pretraining.build_parser()._actions)


def test_outline_loss_by_hand():
    """Two voxels of tumour, answers 0.8 and 0.5; two of healthy, 0.2 and 0: Dice 2 * 1.3 / (1.5 + 2)."""
    given = torch.tensor([0.8, 0.5, 0.2, 0.0]).reshape(1, 1, 1, 2, 2)
    true = torch.tensor([1, 1, 0, 0], dtype=torch.uint8).reshape(1, 1, 2, 2)
    entropy = -(np.log(0.8) + np.log(0.5) + np.log(0.8)) / 4
    assert tumour_pretraining.outline_loss(given, true).item() == pytest.approx(1 - 2.6 / 3.5 + entropy, rel=1e-6)
    assert tumour_pretraining.TUMOUR_LOSSES["tumour type"] is F.cross_entropy
