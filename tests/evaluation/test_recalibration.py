"""A site's recalibration: its file beside the checkpoint, what it changes, what it refuses."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit, logit
from untrained import save_checkpoint

import run_eval
from tss.data.files import as_csv, sha256, write_json, write_text
from tss.errors import InputError
from tss.evaluation import recalibration
from tss.evaluation.inference import Model, open_models
from tss.metrics.platt import Line


@pytest.fixture
def site(scanned, tmp_path):
    """A checkpoint, and an evaluation of 80 made-up patients whose scanner shifts the logits by 1.5."""
    path = save_checkpoint(tmp_path / "run" / "best.pt", 4, scanned / "data")
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, 80)
    labels, shown = (rng.random(80) < expit(true)).astype(int), expit(true + 1.5)
    rows = [{"patient": f"s{i}", "label": labels[i], "probability": shown[i]} for i in range(80)]
    write_text(
        tmp_path / "eval" / "predictions.csv", as_csv([*rows, {"patient": "x", "label": None, "probability": 0.5}])
    )
    write_json(tmp_path / "eval" / "metrics.json", {"checkpoint_sha256": sha256(path)})
    return [str(tmp_path / "eval"), path, "--site", "b"]


def test_the_file_lies_beside_the_checkpoint_which_is_unchanged(site, tmp_path, capsys):
    before = sha256(site[1])
    assert recalibration.main([*site, "--patients", "60"]) == 0
    found = json.loads((tmp_path / "run" / "best.b.json").read_text())
    assert sha256(site[1]) == before == found["checkpoint_sha256"]
    assert found["slope"] == 1 and found["intercept"] == pytest.approx(-1.5, abs=0.7)
    assert len(found["patients"]) == found["n"] == 60 and "x" not in found["patients"]
    low, high = found["gain_ci"]
    assert 0 < low < found["gain"] < high and found["brier_after"] < found["brier_before"]
    said = capsys.readouterr().out
    assert "site b, 60 labelled lines" in said and "gain +0." in said and "NO GAIN" not in said


def test_it_is_used_on_the_others_only(site, scanned, tmp_path, capsys):
    """p28 to p35 are scored; two of them were recalibrated on."""
    common = [site[1], "--data", str(scanned / "data"), "--device", "cpu", "--gradcam", "0"]
    assert run_eval.main([*common, "--out", str(tmp_path / "raw")]) == 0
    assert recalibration.main(site) == 0
    file = tmp_path / "run" / "best.b.json"
    found = json.loads(file.read_text()) | {"patients": ["p28", "p29"]}
    write_json(file, found)
    assert run_eval.main([*common, "--out", str(tmp_path / "new"), "--recalibration", str(file), "--report"]) == 0
    tables = []
    for name in ("raw", "new"):
        with open(tmp_path / name / "predictions.csv", newline="") as table:
            tables.append({line["patient"]: line for line in csv.DictReader(table)})
    raw, new = tables
    assert raw.keys() - new.keys() == {"p28", "p29"}
    for name, line in new.items():
        expected = found["intercept"] + logit(float(raw[name]["probability"]))
        assert logit(float(line["probability"])) == pytest.approx(expected)
        assert float(line["threshold"]) == found["threshold"]
    assert "recalibrated for the site b on 2 of its patients" in capsys.readouterr().out
    page = (tmp_path / "new" / "report.html").read_text()
    assert "scans of 6 patients" in page and "for these 6 patients, test split" in page
    assert "2 no prediction by a network: recalibrated on" in page
    assert "changed for this site alone, by recalibration" in page and "not changed" not in page
    assert recalibration.main([str(tmp_path / "new"), site[1], "--site", "c"]) == 2
    assert "was recalibrated already" in capsys.readouterr().err


def test_no_gain_is_said(site, tmp_path, capsys):
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1.5, 40)
    rows = [
        {"patient": f"s{i}", "label": int(rng.random() < expit(true[i])), "probability": expit(true[i])}
        for i in range(40)
    ]
    write_text(tmp_path / "eval" / "predictions.csv", as_csv(rows))
    assert recalibration.main([*site, "--slope"]) == 0
    assert "NO GAIN IS SHOWN: the interval holds 0" in capsys.readouterr().out


def test_the_simulated_sites_of_20_50_and_100_patients_get_better():
    """Acceptance: Brier score, intercept and slope of 400 other patients before and after, at 60 sites each."""
    from tss.metrics.calibration import brier
    from tss.metrics.platt import fit_line

    rng = np.random.default_rng(3)
    for n in (20, 50, 100):
        better = []
        for _ in range(60):
            true = rng.normal(0, 1.5, n + 400)
            y, z = (rng.random(n + 400) < expit(true)).astype(int), true + 1.5
            line = fit_line(y[:n], z[:n], slope=False)
            better.append(brier(y[n:], expit(z[n:])) - brier(y[n:], expit(line.of(z[n:]))))
        assert np.mean(np.array(better) > 0) >= 0.9


@pytest.mark.parametrize(("more", "message"), [
    (["--patients", "500"], "80 have a label and a probability"),
    (["--site", "../b"], "must be of letters, digits"),
])  # fmt: skip
def test_wrong_use_is_refused(site, capsys, more, message):
    assert recalibration.main([*site, *more]) == 2
    assert message in capsys.readouterr().err


def test_hemispheres_are_refused(site, scanned, tmp_path, capsys):
    path = save_checkpoint(tmp_path / "phase1" / "best.pt", 1, scanned / "data")
    assert recalibration.main([site[0], path, "--site", "b"]) == 2
    assert "two hemispheres are not independent" in capsys.readouterr().err


def test_another_model_is_refused(site, scanned, tmp_path, capsys):
    other = save_checkpoint(tmp_path / "other" / "best.pt", 4, scanned / "data", seed=5)
    assert recalibration.main([site[0], other, "--site", "b"]) == 2
    assert "is of another model" in capsys.readouterr().err
    assert recalibration.main(site) == 0
    file = str(tmp_path / "run" / "best.b.json")
    common = ["--data", str(scanned / "data"), "--device", "cpu", "--gradcam", "0", "--out", str(tmp_path / "o")]
    assert run_eval.main([other, *common, "--recalibration", file]) == 2
    assert "recalibrates another model" in capsys.readouterr().err
    assert run_eval.main([site[1], *common, "--recalibration", file, "--promise", "0.9"]) == 2
    assert "goes without --promise" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "why"), [
    ({"intercept": None}, "intercept is missing"), ({"slope": -1.0}, "slope is -1.0"),
    ({"threshold": "a"}, "threshold is 'a'"), ({"patients": [1]}, r"patients\[0\] is 1"),
])  # fmt: skip
def test_a_file_that_was_changed_is_refused(site, tmp_path, change, why):
    assert recalibration.main(site) == 0
    file = tmp_path / "run" / "best.b.json"
    found = json.loads(file.read_text()) | change
    write_json(file, {name: value for name, value in found.items() if value is not None})
    with pytest.raises(InputError, match=f"best.b.json: {why}.*Make it again"):
        recalibration.recalibrated(open_models([site[1]])[0], str(file))


def test_a_site_s_line_comes_after_the_model_s_own(tmp_path):
    """Of logit 1 an ensemble's line makes 0.3 + 1.5 = 1.8, and the site's 0.5 + 2 * 1.8 = 4.1."""
    (tmp_path / "best.pt").write_bytes(b"a file that has a hash")
    model = Model(tmp_path / "best.pt", "phase4", None, {"threshold": 0.4}, line=Line(0.3, 1.5))
    file = tmp_path / "best.b.json"
    found = {"format": recalibration.FORMAT, "checkpoint_sha256": sha256(tmp_path / "best.pt"), "site": "b"}
    found |= {"gain": 0.01, "gain_ci": [0.0, 0.02]}
    write_json(file, found | {"intercept": 0.5, "slope": 2.0, "threshold": 0.6, "patients": ["p1"]})
    new, patients, _ = recalibration.recalibrated(model, str(file))
    assert new.line.of(1.0) == pytest.approx(4.1) and (new.threshold, patients) == (0.6, ["p1"])


def test_the_file_has_the_threshold_in_calibrated_probabilities(site, tmp_path, monkeypatch):
    monkeypatch.setattr(recalibration, "calibrated_threshold", lambda model: 0.123)
    assert recalibration.main(site) == 0
    assert json.loads((tmp_path / "run" / "best.b.json").read_text())["threshold"] == 0.123


def test_the_threshold_at_a_site_is_the_calibrated_one_of_validation(tmp_path):
    """20 of 100 are positive at logit -1 and 90 of 100 at 1: Firth's line goes through 20.5 and 90.5 of 101."""
    validation = {"logits": [-1.0] * 100 + [1.0] * 100, "labels": [1] * 20 + [0] * 80 + [1] * 90 + [0] * 10}
    model = Model(tmp_path / "best.pt", "phase4", None, {"threshold": 0.7, "validation": validation})
    low, high = logit(20.5 / 101), logit(90.5 / 101)
    expected = expit((low + high) / 2 + (high - low) / 2 * logit(0.7))
    assert recalibration.calibrated_threshold(model) == pytest.approx(expected, abs=1e-4)
    turned = model._replace(
        checkpoint=model.checkpoint | {"validation": validation | {"labels": [1] * 100 + [0] * 100}}
    )
    assert recalibration.calibrated_threshold(turned) == 0.7  # scores that say the opposite are not turned round
    assert recalibration.calibrated_threshold(model._replace(files=(tmp_path / "a", tmp_path / "b"))) == 0.7
