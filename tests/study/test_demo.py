"""The demo: which commands it types, that it stops where one fails, and that it makes its patients once."""

from pathlib import Path

import pytest

from tss.data.files import write_json, write_text
from tss.phantom import cohort_phantom, tumour_phantom
from tss.study import demo, programs, table2_study
from tss.study.table2_study import Plan

COLUMNS = "phase,kind,name,task,recipe,attention,n,auc,auc_ci_low,auc_ci_high,ceiling,ceiling_ci_low,ceiling_ci_high"
TABLE = f"""{COLUMNS}
3,network,a,tss<4.5h,paper,no,16,.7,.5,.9,.85,.6,1
4,network,b,tss<4.5h,paper,yes,16,.71,.5,.9,.85,.6,1
3,network,c,tss<4.5h,extended,no,16,.8,.6,1,.85,.6,1
4,network,d,tss<4.5h,extended,yes,16,.81,.6,1,.85,.6,1
4,network on an older method's patients,"d, where Lee 2020 can be used",tss<4.5h,extended,yes,15,.7,.6,1,.85,.6,1
,older method,"soft tissue clock, all patients",tss<4.5h,,,16,.79,.6,.9,.85,.6,1
"""


@pytest.fixture
def typed(monkeypatch):
    """Stand-ins for the programs and the phantoms: they note what they are told. Lines, and exit codes to give."""
    lines, codes = [], {}
    monkeypatch.setattr(cohort_phantom, "write_atlas", lambda path: lines.append(["atlas", str(path)]))

    def make_cohort(folder, n, seed, jobs):
        lines.append(["phantom", n, seed])
        folder.mkdir(parents=True)
        (folder / "cohort.csv").touch()

    def main_of(program):
        def main(line):
            lines.append([program, *line])
            if program == programs.EVALUATE and "--study" not in line:
                write_text(Path(line[line.index("--out") + 1]) / "table2.csv", TABLE)
            if program == programs.PREPROCESS:
                write_json(Path(line[line.index("--out") + 1]) / "settings.json", {"grid": demo.GRID})
            return codes.get(program, 0)

        return main

    monkeypatch.setattr(cohort_phantom, "make_cohort", make_cohort)
    monkeypatch.setattr(tumour_phantom, "make_tumours", lambda folder, n, seed, jobs: lines.append(["tumours", n]))
    monkeypatch.setattr(programs, "main_of", main_of)
    return lines, codes


def run_table2(tmp_path, monkeypatch, models):
    """The demo of the whole Table 2 with stand-ins: nothing is made, checked or trained."""
    monkeypatch.setattr(
        table2_study, "make_plan", lambda study: Plan(*table2_study.plan_chains(study), [], demo.GRID, {})
    )
    monkeypatch.setattr(table2_study, "show_plan", lambda study, plan: None)
    return demo.run_table2(tmp_path / "out", models, 7, patients=9)


@pytest.mark.slow
def test_table_2_on_phantoms_gives_the_rows_of_a_task_the_same_rates(typed, tmp_path, monkeypatch, capsys):
    lines, codes = typed
    assert run_table2(tmp_path, monkeypatch, ("2d", "3d")) == 0
    assert [line[:2] for line in lines[1:4:2]] == [["phantom", 9], ["tumours", demo.TUMOUR_PATIENTS]]
    trained = [" ".join(line) for line in lines if line[0] in (programs.TRAIN, programs.PRETRAIN)]
    assert len(trained) == 4 + 2 + 3 + 5 + 2 + 3 + 2 * (4 + 2) and lines[-1][0] == programs.EVALUATE
    two = [line for line in trained if "--model 2d" in line]
    for number in (2, 3):
        rates = {line.split(" --width ")[1] for line in two if f"--phase {number} " in line and "extended" not in line}
        assert rates == {"16 --epochs 12 --patience 6 --lr 0.0005 --final-lr 0.01 --seed 7 --resume"}
        rates = {line.split(" --width ")[1] for line in two if f"--phase {number} " in line and "extended" in line}
        assert rates == {"16 --seed 7 --resume"}
    assert trained[12] == (
        f"-m tss.training.tumour_pretraining {tmp_path}/out/tumours/tumours.csv --model 2d --grid 112 112 13 --out "
        f"{tmp_path}/out/study/2d/medical --width 16 --epochs 12 --patience 6 --seed 7 --resume"
    )
    assert "medical/tumours/best.pt" in trained[13] and "It took " in capsys.readouterr().out
    assert "phase0" not in " ".join(lines[-1]) and f"--study {tmp_path}/out/study/study.json" in " ".join(lines[-1])


@pytest.mark.slow
def test_table_2_on_phantoms_stops_where_a_script_fails(typed, tmp_path, monkeypatch):
    lines, codes = typed
    codes[programs.PREPROCESS] = 2
    assert run_table2(tmp_path, monkeypatch, ("2d",)) == 2
    assert lines[-1][0] == programs.PREPROCESS
    codes[programs.PREPROCESS] = 1  # some patients failed, and the rest is complete
    assert run_table2(tmp_path, monkeypatch, ("2d",)) == 0
    assert lines[-1][0] != programs.PREPROCESS


def test_in_3d_it_begins_with_phase_0_and_evaluates_the_others(typed, tmp_path):
    lines, _ = typed
    assert demo.run(tmp_path / "demo", "3d", 7) == 0
    trained = [" ".join(line) for line in lines if line[0] == programs.TRAIN]
    assert [line.split()[2] for line in trained] == list("012341234")
    assert "--phase 0 --model 3d --width 8" in trained[0]
    for line, recipe in ((trained[1], "--epochs 20"), (trained[5], "--recipe extended --epochs 20 --seed")):
        assert f"--phase 1 --init {tmp_path}/demo/runs/3d/phase0/best.pt" in line and recipe in line
    assert f"--phase 2 --init {tmp_path}/demo/runs/3d-extended/phase1/best.pt" in trained[6]
    evaluated = " ".join(lines[-1])
    assert "phase0" not in evaluated and "runs/3d/phase1/best.pt" in evaluated


def test_the_demo_types_what_a_user_would_type(typed, tmp_path, capsys):
    lines, _ = typed
    assert demo.run(tmp_path / "demo", "2d", 7) == 0
    steps = [line[0] for line in lines]
    assert steps == ["atlas", "phantom", programs.PREPROCESS, *[programs.TRAIN] * 8, programs.EVALUATE]
    assert lines[1] == ["phantom", demo.PATIENTS, 7]
    phase2 = " ".join(lines[4])
    assert f"--phase 2 --init {tmp_path}/demo/runs/2d/phase1/best.pt --data {tmp_path}/demo/data" in phase2
    assert lines[-1][1:9] == [
        str(tmp_path / f"demo/runs/{name}/phase{n}/best.pt") for name in ("2d", "2d-extended") for n in (1, 2, 3, 4)
    ]
    extended = " ".join(lines[7])
    assert "--phase 1 --model 2d --width 16 --data" in extended and "--recipe extended --epochs 20 --seed 7" in extended
    assert "--epochs" not in " ".join(lines[8])
    said = capsys.readouterr().out
    assert f"$ python {phase2}\n" in said
    assert str(tmp_path / "demo/eval/2d/2d-extended-phase4/gradcam") in said
    assert [" ".join(line.split()) for line in said.splitlines() if line.startswith(("phase  ", "3  ", "4  "))] == [
        "phase positive class n paper extended soft tissue clock best on average",
        "3 TSS < 4.5 h 16 0.700 [0.50-0.90] 0.800 [0.60-1.00] 0.790 [0.60-0.90] 0.850 [0.60-1.00]",
        "4 TSS < 4.5 h, attention 16 0.710 [0.50-0.90] 0.810 [0.60-1.00] 0.790 [0.60-0.90] 0.850 [0.60-1.00]",
    ]


def test_a_second_run_keeps_the_patients(typed, tmp_path):
    lines, _ = typed
    demo.run(tmp_path / "demo", "2d", 7)
    demo.run(tmp_path / "demo", "2d", 7)
    assert [line[0] for line in lines].count("phantom") == 1


def test_the_demo_stops_where_a_script_fails(typed, tmp_path):
    lines, codes = typed
    codes[programs.TRAIN] = 2
    assert demo.run(tmp_path / "demo", "2d", 7) == 2
    assert lines[-1][0] == programs.TRAIN and [line[0] for line in lines].count(programs.TRAIN) == 1
