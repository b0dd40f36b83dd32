"""The demo: which commands it types, that it stops where one fails, and that it makes its patients once."""

import sys
import types
from pathlib import Path

import pytest

import tss
from tss.data.files import write_json
from tss.phantom import cohort_phantom
from tss.study import demo, table2_study

NAMES = {
    "run_preprocess.py": "preprocess",
    "run_train.py": "train",
    "-m tss.training.tumour_pretraining": "train",
    "run_eval.py": "evaluate",
}


@pytest.fixture
def typed(monkeypatch):
    """Stand-ins for the three scripts and the phantom: they note what they are told."""
    lines, codes = [], {}
    monkeypatch.setattr(cohort_phantom, "write_atlas", lambda path: lines.append(["atlas", str(path)]))

    def make_cohort(folder, n, seed, jobs):
        lines.append(["phantom", n, seed])
        folder.mkdir(parents=True)
        (folder / "cohort.csv").touch()

    monkeypatch.setattr(cohort_phantom, "make_cohort", make_cohort)

    def script(name):
        def main(line):
            lines.append([name, *line])
            return codes.get(name, 0)

        return main

    def run(out, model="2d"):
        return demo.run(out, model, 7)

    monkeypatch.setattr(table2_study, "main_of", lambda program: script(NAMES[program]))

    return run, lines, codes


def run_study(tmp_path, lines, codes, monkeypatch, models):
    """The demo of the whole Table 2 with stand-ins: nothing is made, checked or trained."""
    made = types.SimpleNamespace(make_tumours=lambda folder, patients, seed, jobs: lines.append(["tumours", patients]))
    monkeypatch.setitem(sys.modules, "tss.phantom.tumour_phantom", made)
    monkeypatch.setattr(tss, "phantomtumours", made, raising=False)
    monkeypatch.setattr(table2_study, "check", lambda asked, chains: ([], (), {}))
    monkeypatch.setattr(table2_study, "show", lambda asked, *_: None)

    def script(name):
        def main(line):
            lines.append([name, *line])
            if name == "preprocess":
                write_json(Path(line[line.index("--out") + 1]) / "settings.json", {"grid": demo.GRID})
            return codes.get(name, 0)

        return main

    monkeypatch.setattr(table2_study, "main_of", lambda program: script(NAMES[program]))
    return demo.run_study(tmp_path / "out", models, 7, patients=9)


def test_table_2_on_phantoms_gives_the_rows_of_a_task_the_same_rates(typed, tmp_path, monkeypatch, capsys):
    _, lines, codes = typed
    assert run_study(tmp_path, lines, codes, monkeypatch, ("2d", "3d")) == 0
    assert [line[:2] for line in lines[1:4:2]] == [["phantom", 9], ["tumours", demo.TUMOUR_PATIENTS]]
    trained = [" ".join(line) for line in lines if line[0] == "train"]
    assert len(trained) == 4 + 2 + 3 + 5 + 2 + 3 and lines[-1][0] == "evaluate"
    two = [line for line in trained if "--model 2d" in line]
    for number in (2, 3):
        rates = {line.split(" --width ")[1] for line in two if f"--phase {number} " in line}
        assert rates == {"16 --epochs 12 --patience 6 --lr 0.0005 --final-lr 0.01 --seed 7 --resume"}
    assert trained[6] == (
        f"train {tmp_path}/out/tumours/tumours.csv --model 2d --grid 112 112 13 --out "
        f"{tmp_path}/out/study/2d/medical --width 16 --epochs 12 --patience 6 --seed 7 --resume"
    )
    assert "medical/tumours/best.pt" in trained[7] and "It took " in capsys.readouterr().out
    assert "phase0" not in " ".join(lines[-1]) and f"--study {tmp_path}/out/study/study.json" in " ".join(lines[-1])


def test_table_2_on_phantoms_stops_where_a_script_fails(typed, tmp_path, monkeypatch):
    _, lines, codes = typed
    codes["preprocess"] = 2
    assert run_study(tmp_path, lines, codes, monkeypatch, ("2d",)) == 2
    assert lines[-1][0] == "preprocess"
    codes["preprocess"] = 1  # some patients failed, and the rest is complete
    assert run_study(tmp_path, lines, codes, monkeypatch, ("2d",)) == 0
    assert lines[-1][0] != "preprocess"


def test_in_3d_it_begins_with_phase_0_and_evaluates_the_others(typed, tmp_path):
    run, lines, _ = typed
    assert run(tmp_path / "demo", "3d") == 0
    trained = [" ".join(line) for line in lines if line[0] == "train"]
    assert [line.split()[2] for line in trained] == list("01234")
    assert "--phase 0 --model 3d --width 8" in trained[0]
    assert f"--phase 1 --init {tmp_path}/demo/runs/3d/phase0/best.pt" in trained[1]
    evaluated = " ".join(lines[-1])
    assert "phase0" not in evaluated and "runs/3d/phase1/best.pt" in evaluated


def test_the_demo_types_what_a_user_would_type(typed, tmp_path, capsys):
    run, lines, _ = typed
    assert run(tmp_path / "demo") == 0
    steps = [line[0] for line in lines]
    assert steps == ["atlas", "phantom", "preprocess", "train", "train", "train", "train", "evaluate"]
    assert lines[1] == ["phantom", demo.PATIENTS, 7]
    phase2 = " ".join(lines[4])
    assert f"--phase 2 --init {tmp_path}/demo/runs/2d/phase1/best.pt --data {tmp_path}/demo/data" in phase2
    assert lines[-1][1:5] == [str(tmp_path / f"demo/runs/2d/phase{n}/best.pt") for n in (1, 2, 3, 4)]
    said = capsys.readouterr().out
    assert f"$ python run_train.py {phase2.removeprefix('train ')}\n" in said
    assert str(tmp_path / "demo/eval/2d/phase4/roc.png") in said


def test_a_second_run_keeps_the_patients(typed, tmp_path):
    run, lines, _ = typed
    run(tmp_path / "demo")
    run(tmp_path / "demo")
    assert [line[0] for line in lines].count("phantom") == 1


def test_the_demo_stops_where_a_script_fails(typed, tmp_path):
    run, lines, codes = typed
    codes["train"] = 2
    assert run(tmp_path / "demo") == 2
    assert lines[-1][0] == "train" and [line[0] for line in lines].count("train") == 1
