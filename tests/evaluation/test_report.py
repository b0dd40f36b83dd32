"""report.html through run_eval.py: what stands in it is what stands in the files beside it, and it needs no network."""

import base64
import csv
import html
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from untrained import save_checkpoint

import run_eval
from tss.baselines import classifiers
from tss.data.cohort import write_cohort
from tss.data.prepared import read_prepared
from tss.display import panel
from tss.evaluation import gradcam_page, report
from tss.evaluation.inference import Prediction
from tss.evaluation.results import NETWORK, Estimate, GradcamScores, MapMean, MapShare, Mean, Overlap, Promise, Row
from tss.evaluation.scores import score

REASON = 'FLAIR is "cut off" <script>alert(1)</script>'
NOT_RUN = {
    "kind": "network",
    "name": "2d-imagenet-phase3",
    "task": "tss<4.5h",
    "phase": 3,
    "model": "2d",
    "weights": "ImageNet",
    "reason": "needs --imagenet FILE",
}


class Content(HTMLParser):
    """The tables by caption, captions and headings of a page, as text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.captions, self.headings, self.cells = {}, [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("th", "td", "figcaption", "h2"):
            self.cells = ""
        elif tag == "tr":
            self.row = []

    def handle_data(self, data):
        self.cells = None if self.cells is None else self.cells + data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.row.append(self.cells)
        elif tag == "figcaption":
            self.captions.append(self.cells)
            self.rows = self.tables[self.cells] = []
        elif tag == "h2":
            self.headings.append(self.cells)
        elif tag == "tr":
            self.rows.append(self.row)

    def table(self, beginning):
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(beginning)]
        return rows


@pytest.fixture(scope="module")
def made(scanned, tmp_path_factory):
    """The report of five networks on phantoms, of whom one failed and one has no known onset; its folder."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(scanned / "data", folder / "data")
    patients = {patient.id: patient for patient in read_prepared(folder / "data")}
    patients["p29"].row |= {"status": "failed", "reason": REASON}
    patients["p31"].row["onset_to_mri_min"] = ""
    patients["p20"].row |= {"verdict": "reject", "verdict_remark": "motion"}
    write_cohort(folder / "data" / "cohort.csv", list(patients.values()))
    paths = [
        save_checkpoint(
            folder / model / f"phase{phase}" / "best.pt",
            phase,
            folder / "data",
            0.5,
            phase,
            model=model,
            settings={"weights": weights},
        )
        for model, phase, weights in (
            ("2d", 1, "random"),
            ("2d", 3, "random"),
            ("2d", 4, "phase 3"),
            ("3d", 2, "phase 1"),
            ("3d", 3, "phase 2"),
        )
    ]
    (folder / "study.json").write_text(json.dumps({"weights": {}, "not_run": [NOT_RUN]}))
    words = [
        *paths,
        "--data",
        str(folder / "data"),
        "--out",
        str(folder / "eval"),
        "--report",
        "--gradcam",
        "1",
        "--study",
        str(folder / "study.json"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (classifiers, "TREES", 20),
            (panel, "PANEL_DPI", 50),
            (gradcam_page, "SLICES_SHOWN", 1),
        ):
            patch.setattr(module, name, value)  # as little work as shows the same
        assert run_eval.main(words) == 0
    return folder / "eval"


@pytest.fixture(scope="module")
def text(made):
    return (made / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def content(text):
    return Content(text)


def table2_csv(folder):
    with open(folder / "table2.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_nothing_is_loaded_from_outside_and_every_picture_is_in_the_page(made, text):
    assert not re.search(r'(?:src|href|action|data)="(?!data:image/png;base64,)', text)
    assert not re.search(r"<script|<link|<iframe|@import|url\(|onload=", text) and "default-src 'none'" in text
    inside = {base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', text)}
    files = [*made.glob("figures/*.png"), *made.glob("*/gradcam/*.png")]
    assert {path.read_bytes() for path in files} == inside and len(inside) == len(files)
    assert {path.name for path in made.glob("figures/*.png")} == {
        "roc_stroke_networks.png",
        "roc_tss_3h_networks.png",
        "roc_tss_3h_older_methods.png",
        "roc_tss_4.5h_networks.png",
        "roc_tss_4.5h_older_methods.png",
        "auc_tss_3h.png",
        "auc_tss_4.5h.png",
        "calibration_tss_3h.png",
        "decision_tss_3h.png",
        "calibration_tss_4.5h.png",
        "decision_tss_4.5h.png",
    }  # no older methods for 3 h: nobody whose ratio can be measured is positive
    assert len(text) < 20e6


def test_every_caption_says_phantom_and_every_picture_and_table_has_one(text, content):
    assert len(content.captions) == text.count("<figure") > 20
    assert all(caption.endswith(report.PHANTOMS) and "not clinical results" in caption for caption in content.captions)
    heading = text[: text.index("<section")]
    assert "not a medical device" in heading and "Phantom scores are not clinical results" in heading
    assert "scans of 7 patients with an ischaemic stroke, of 8 in the test group" in heading


def test_table_2_has_the_rows_of_the_csv_with_their_figures(made, content):
    lines = table2_csv(made)
    rows = {row[0]: row for row in content.table("Table 2 of the paper")[1:] if len(row) > 1}
    twice = [line["name"] for line in lines if line["kind"] in ("older method", "published cut-off")]
    assert list(rows) == list(dict.fromkeys(line["name"] for line in lines)) and len(set(twice)) == len(twice) / 2
    head = content.table("Table 2 of the paper")[0]
    for line in lines:
        if line["name"] in twice:
            continue  # the same name in both tasks
        row = dict(zip(head, rows[line["name"]], strict=True))
        if line["not_run"]:
            assert row["n"] == "not run" and row["Weights"] == "ImageNet"
            continue
        expected = {"AUC [95 % CI]": (line["auc"], 3), "Sensitivity": (line["sensitivity"], 2)}
        for column, (value, digits) in expected.items():
            assert row[column].split(" ")[0] == (f"{float(value):.{digits}f}" if value else "-")
        assert [row[name] for name in ("TP", "FP", "TN", "FN")] == [line[name] for name in ("tp", "fp", "tn", "fn")]
        assert row["Patients covered"] == f"{line['scored']} of {line['patients']}"
    stages = [row[0] for row in content.table("Table 2 of the paper")[1:] if len(row) == 1]
    assert stages[0] == "Phase 1: stroke in the hemisphere" and len(stages) == len(set(stages)) == 11


def test_what_was_not_run_is_said_with_the_reason(text):
    assert "Not run: 2d-imagenet-phase3, TSS &lt; 4.5 h: needs --imagenet FILE" in text


def test_the_patient_flow_adds_up_to_the_table_and_names_the_reasons(made, text, content):
    for words, n in (("Time since stroke", 6), ("stroke in the hemisphere", 7)):
        first, *lost, last = [[int(cell) for cell in row[1:]] for row in content.table(f"Patient flow, {words}")[1:]]
        assert first == [18, 10, 8] and [a - sum(b) for a, *b in zip(first, *lost, strict=True)] == last
        assert last[2] == n
    csv_n = {line["name"]: line["n"] for line in table2_csv(made)}
    assert csv_n["2d-phase4"] == "6" and csv_n["2d-phase1"] == "14"  # two hemispheres each
    assert f"1 failed preprocessing: {html.escape(REASON)}" in text
    assert "1 rejected at quality control: rejected at quality control: motion" in text


def test_calibration_subgroups_readers_and_comparisons_are_the_files_own(made, content):
    metrics = {path.parent.name: json.loads(path.read_text()) for path in made.glob("*/metrics.json")}
    four = metrics["2d-phase4"]
    brier = {row[0]: row[2] for row in content.table("Brier score")[1:]}
    assert brier["2d-phase4, TSS < 4.5 h"].startswith(f"{four['brier']:.3f} [")
    assert len(brier) == 4 + 3 + 2 * 5 * 3  # networks; on Lee's patients; each older method three times in two tasks
    groups = content.table("2d-phase4, TSS < 4.5 h: scores in groups")[1:]
    assert [[row[1], int(row[2])] for row in groups] == [[cell["cell"], cell["n"]] for cell in four["subgroups"]]
    assert any("withheld" in row for row in groups)
    readers = {row[0]: row for row in content.table("Readers: DWI-FLAIR mismatch")[1:]}
    assert [int(cell) for cell in readers["reader_1"][3:7]] == [
        four["readers"]["each"]["reader_1"][name] for name in ("tp", "fp", "tn", "fn")
    ]
    beside = [row[0] for row in content.table("The last network of 2D and of 3D beside each reader")[1:]]
    assert beside == [
        f"{name} beside {who}" for name in ("2d-phase4", "3d-phase3") for who in ("reader_1", "reader_2", "majority")
    ]
    compared = json.loads((made / "comparisons.json").read_text())["tss<4.5h"]
    rows = content.table("Differences in AUC, TSS < 4.5 h")[1:]
    assert [row[0] for row in rows] == [f"{pair['second']} - {pair['first']}" for pair in compared]
    assert "chosen before any result was seen" in (made / "report.html").read_text()


def test_networks_are_known_by_their_hashes_and_the_threshold_by_its_origin(made, text, content):
    rows = {row[0]: row[1:] for row in content.table("The networks that were evaluated")[1:]}
    for path in made.glob("*/metrics.json"):
        metrics = json.loads(path.read_text())
        assert rows[metrics["name"]] == [metrics["checkpoint_sha256"], metrics["parent"], metrics["cases_sha256"]]
        assert metrics["cohort"] in text
    assert "Software: tss 0." in text and "chosen on the validation patients" in text
    assert all("(optimistic)" in head for head in content.table("Optimistic, for comparison only")[0][1:])


def test_results_are_refused_without_overwrite_and_an_old_report_does_not_stay(made, tmp_path, capsys):
    shutil.copytree(made.parent / "data", tmp_path / "data")
    out = tmp_path / "eval"
    (out / "figures").mkdir(parents=True)
    for name in ("report.html", "figures/auc_tss_3h.png"):
        (out / name).write_text("of before")
    words = [
        str(made.parent / "2d" / "phase1" / "best.pt"),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(out),
        "--gradcam",
        "0",
    ]
    assert run_eval.main([*words, "--report"]) == 2
    assert f"{out} already holds report.html, figures" in capsys.readouterr().err
    assert run_eval.main([*words, "--overwrite"]) == 0
    assert not (out / "report.html").exists() and list((out / "figures").iterdir()) == []


def test_a_page_of_patients_does_not_speak_of_phantoms_and_does_without_what_there_is_not(made, tmp_path):
    shutil.copytree(made.parent / "data", tmp_path / "data")
    patients = read_prepared(tmp_path / "data")
    for patient in patients:
        patient.row |= {"phantom": "", "reader_1": "", "reader_2": ""}
    write_cohort(tmp_path / "data" / "cohort.csv", patients)
    words = [
        str(made.parent / "2d" / "phase1" / "best.pt"),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "eval"),
        "--report",
        "--gradcam",
        "0",
        "--split",
        "val",
    ]
    assert run_eval.main(words) == 0
    text = (tmp_path / "eval" / "report.html").read_text(encoding="utf-8")
    assert "hantom" not in text and "the probability of a stroke in each half of the brain" in text
    assert "which were used to make the programs: the scores are optimistic" in text
    headings = Content(text).headings
    assert "The patients" in headings and "Beside the readers" not in headings and "In short" not in headings
    assert (tmp_path / "eval" / "table2.csv").is_file()


def network(**more):
    return Row(kind=NETWORK, name="a", task="tss<4.5h", scores=score([], 0.5), **more)


def test_grad_cam_that_was_measured_stands_beside_chance_and_random_weights():
    nothing = MapShare(0, 8, None, None, None)
    chance = {"share_in_lesion": 0.05, "overlap_over_half": None, "pointing": 0.1}
    measured = GradcamScores(
        patients_with_lesion=9,
        measured=8,
        not_measured={},
        trained=Overlap(
            share_in_lesion=MapMean(0.31, (0.2, 0.4), Mean(0.26, (-0.01, 0.5))),
            overlap_over_half=MapShare(6, 8, 0.75, (0.41, 0.93), None),
            pointing=MapShare(5, 8, 0.625, None, None),
            chance=chance,
            empty_maps=0,
        ),
        uniform={"share_in_lesion": None, "pointing": None},
        randomised=Overlap(
            share_in_lesion=MapMean(None, None, None),
            overlap_over_half=nothing,
            pointing=MapShare(1, 8, 0.125, (0.02, 0.47), None),
            chance=chance,
            empty_maps=0,
        ),
        definition="Lit: half the peak.",
    )
    row = network(weights="ImageNet (a.pt)", gradcam=measured, ceiling=Estimate(0.9, (0.7, 0.95)))
    made = Content(report._measured(report.Findings([], [], "test", [row], {}, "", {}, {})))
    assert made.table("Grad-CAM measured on the lesion masks of 8 patients")[1:] == [
        [
            "a, TSS < 4.5 h",
            "trained, first ImageNet (a.pt)",
            "8",
            "0.310 [0.200-0.400]",
            "0.050",
            "+0.260 [-0.010 to +0.500]",
            "0.750 [0.410-0.930] (6 of 8)",
            "-",
            "-",
            "0.625 (5 of 8)",
            "0.100",
            "-",
        ],
        [
            "a, TSS < 4.5 h",
            "randomised",
            "8",
            "-",
            "0.050",
            "-",
            "-",
            "-",
            "-",
            "0.125 [0.020-0.470] (1 of 8)",
            "0.100",
            "-",
        ],
    ]
    assert "Lit: half the peak." in made.captions[0]


def test_too_many_pictures_for_a_mail_are_left_in_their_folders_and_named(tmp_path, monkeypatch):
    for name in ("p1", "p2"):
        (tmp_path / f"{name}.png").write_bytes(b"x" * 60)
    found = report.Findings(
        [], [], "test", [network(weights="random")], {}, "", {"a": sorted(tmp_path.glob("*.png"))}, {}
    )
    monkeypatch.setattr(report, "MOST_PICTURES", 100)
    made = report._maps(found)
    assert made.count("<img") == 1 and "the pictures of p2 are not on this page" in made


def test_nothing_is_said_of_rows_that_are_not_there(tmp_path, monkeypatch):
    """Of external patients: no older method could be fitted, nobody has read the scans."""
    (tmp_path / "roc.png").write_bytes(b"")
    monkeypatch.setattr(report.report_plots, "draw_roc", lambda *_: [tmp_path / "roc.png"])
    monkeypatch.setattr(report.report_plots, "draw_bars", lambda *_: [tmp_path / "roc.png"])
    for row, fitted in (
        (network(), "Nothing was fitted or chosen here"),
        (network(recalibration="b"), "recalibrated on"),
    ):
        found = report.Findings([], [], "external", [row], {}, "", {}, {})
        page = "".join([report._roc(tmp_path, found), report._bars(tmp_path, found), report._thresholds(found)])
        for words in ("ROC curves", "AUC by what the weights were", "chosen on the validation patients"):
            assert words in page
        for absent in (
            "black:",
            "brown:",
            "Yellow",
            "White marks",
            "older methods",
            "Lee 2020",
            "out-of-fold",
            "reader",
        ):
            assert absent not in page, absent
        assert fitted in report._limits(found)
    assert "Nothing was fitted" not in report._limits(found)


def test_in_short_says_how_many_a_promise_leaves_unsure():
    lines = [Prediction(f"p{n}", "left", n % 2, n / 8) for n in range(8)]
    kept = Promise(promised=0.8, confidence=0.9, chosen_on=9, chosen_from="validation", lower=None, upper=None, n=8,
                   unsure=7, ppv=None, npv=None)  # fmt: skip
    for promise in (None, kept):
        row = Row(kind=NETWORK, name="a", task="tss<4.5h", scores=score(lines, 0.5), promise=promise)
        said = report._in_short(report.Findings([], [], "test", [row], {}, "", {}, {}))
        assert "it recognised 2 of the 4 patients" in said
        assert ("PPV and NPV of 0.8 are to be kept, it is unsure of 7 of 8" in said) == bool(promise)
