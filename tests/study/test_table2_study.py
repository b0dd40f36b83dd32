"""The whole Table 2 by one command: its plan, what it leaves, interrupted and continued, in shards, and refusals."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tss.data import files
from tss.display import calibration_plots, roc_plots, training_plots
from tss.evaluation.auc_comparison import CLAIMS
from tss.study import __main__ as script
from tss.study import table2_study
from tss.training import train
from tss.training.checkpoint import load_checkpoint
from tss.training.phases import build_model

GRID = (32, 32, 4)
QUICK = ["--width", "4", "--epochs", "2", "--lr", "0.003", "--device", "cpu"]


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Nothing is drawn or timed, which would take longer than all the rest; in an empty folder."""
    draw(monkeypatch, (roc_plots, "draw_rocs"), (roc_plots, "draw_bars"),
         (calibration_plots, "draw_calibration"), (calibration_plots, "draw_decision"))  # drawn in `whole`  # fmt: skip
    monkeypatch.setattr(table2_study, "seconds_a_hemisphere", lambda *_: 60.0)
    monkeypatch.chdir(tmp_path)


def draw(monkeypatch, *more):
    """Draw no curves, and nothing that is named: (module, function)."""
    monkeypatch.setattr(table2_study, "PICTURES", 0)
    for module, name in (
        (training_plots, "draw_curves"),
        (training_plots, "draw_restoration"),
        (roc_plots, "draw_roc"),
        *more,
    ):
        monkeypatch.setattr(module, name, lambda path, *_: files.write_text(path, "a picture"))


def resnet18(path, seed=1):
    torch.manual_seed(seed)
    network = build_model("2d", 4, GRID, attention=False)
    torch.save(network.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}, path)
    return str(path)


def line(tiny_data, *more, model="2d"):
    return ["table2", "--model", model, "--data", str(tiny_data), *QUICK, *more]


def rows(path="study/eval/table2.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def extended(model, first):
    """Rows of a plan: the extended recipe's four phases."""
    steps = ("stroke in the hemisphere", "TSS < 3 h", "TSS < 4.5 h", "TSS < 4.5 h, attention")
    starts = (first, "phase 1", "phase 2", "phase 3")
    return [f"{model}, {step}, extended recipe < {start}" for step, start in zip(steps, starts, strict=True)]


def extended_random(model):
    return [f"{model}, {task}, extended recipe < random" for task in ("TSS < 3 h", "TSS < 4.5 h")]


def planned(said):
    """The plan's lines about trainings, as lists of cells."""
    return [re.split(r"\s{2,}", one) for one in said.splitlines() if one[:1].isdigit() and " of " not in one[:8]]


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """A folder in which the 2D study ran from start to end: with ImageNet weights, without medical ones."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw(monkeypatch)
        monkeypatch.chdir(folder)
        assert script.main(line(tiny_data, "--imagenet", resnet18("resnet18.pth"))) == 0
    return folder


@pytest.mark.slow
def test_one_command_leaves_every_row_and_says_which_were_not_run(whole, tiny_data):
    trained = sorted(str(path.parent.relative_to(whole / "study")) for path in whole.glob("study/2d/*/*/best.pt"))
    assert trained == [
        "2d/extended-random/phase2",
        "2d/extended-random/phase3",
        *(f"2d/extended/phase{n}" for n in (1, 2, 3, 4)),
        "2d/imagenet/phase2",
        "2d/imagenet/phase3",
        *(f"2d/previous/phase{n}" for n in (1, 2, 3, 4)),
        "2d/random/phase2",
        "2d/random/phase3",
    ]
    table = rows(whole / "study/eval/table2.csv")
    networks = [(row["name"], row["weights"]) for row in table if row["kind"] == "network"]
    assert networks == [
        ("previous-phase1", "random"), ("extended-phase1", "random"),
        ("random-phase2", "random"), ("imagenet-phase2", "ImageNet"), ("medical-phase2", "medical images"),
        ("previous-phase2", "phase 1"), ("extended-random-phase2", "random"), ("extended-phase2", "phase 1"),
        ("random-phase3", "random"), ("imagenet-phase3", "ImageNet"), ("medical-phase3", "medical images"),
        ("previous-phase3", "phase 2"), ("extended-random-phase3", "random"), ("extended-phase3", "phase 2"),
        ("previous-phase4", "phase 3"),
        ("extended-phase4", "phase 3")]  # fmt: skip
    missing = {row["name"]: row["not_run"] for row in table if row["not_run"]}
    assert "--tumours TUMOURS.csv" in missing["medical-phase2"] and "--medical-2d FILE" in missing["medical-phase3"]
    assert [row["n"] for row in table if row["name"] == "medical-phase3"] == [""]
    shown = (whole / "study/eval/table2.md").read_text()
    assert "Not run: medical-phase2, TSS < 3 h: needs --tumours TUMOURS.csv" in shown and CLAIMS in shown
    compared = json.loads((whole / "study/eval/comparisons.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in compared["tss<4.5h"]] == [
        ("random-phase3", "previous-phase3"), ("imagenet-phase3", "previous-phase3"),
        ("previous-phase3", "previous-phase4"), ("extended-random-phase3", "extended-phase3"),
        ("extended-phase3", "extended-phase4"), ("previous-phase4", "extended-phase4")]  # fmt: skip
    assert [(pair["first"], pair["second"]) for pair in compared["stroke"]] == [("previous-phase1", "extended-phase1")]


def test_other_first_weights_are_trained_on_each_task_directly(whole):
    for number in (2, 3):
        assert load_checkpoint(whole / f"study/2d/random/phase{number}/best.pt")["parent"] == "random"
        published = files.sha256(whole / "resnet18.pth")
        assert load_checkpoint(whole / f"study/2d/imagenet/phase{number}/best.pt")["parent"] == published
        before = files.sha256(whole / f"study/2d/previous/phase{number - 1}/best.pt")
        assert load_checkpoint(whole / f"study/2d/previous/phase{number}/best.pt")["parent"] == before


@pytest.mark.slow
@pytest.mark.parametrize("epochs_before", [3, 24])
def test_interrupted_and_started_again_it_leaves_the_same(whole, tiny_data, quick, monkeypatch, capsys, epochs_before):
    one_epoch, left = train.train_and_validate, [epochs_before]

    def until_interrupted(*given):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        one_epoch(*given)

    shutil.copy(whole / "resnet18.pth", ".")
    command = line(tiny_data, "--imagenet", "resnet18.pth")
    monkeypatch.setattr(train, "train_and_validate", until_interrupted)
    assert script.main(command) == 2
    said = capsys.readouterr()
    stopped = {3: "2 of 14 (study/2d/previous/phase2)", 24: "13 of 14 (study/2d/imagenet/phase2)"}[epochs_before]
    assert f"The study stopped at {stopped}. Rerun the same command to continue." in said.err
    assert not Path("study/eval").exists()
    monkeypatch.setattr(train, "train_and_validate", one_epoch)
    assert script.main([*command, "--dry-run"]) == 0
    assert [cells[3] for cells in planned(capsys.readouterr().out)] == {
        3: ["done", "epoch 1 done", *["to do"] * 12],
        24: [*["done"] * 12, "to do", "to do"],
    }[epochs_before]
    assert script.main(command) == 0
    assert_same_study(whole)
    said = capsys.readouterr().out
    assert said.count("was finished after epoch 2") == epochs_before // 2


def assert_same_study(whole):
    for path in sorted(whole.glob("study/2d/*/*/*")):
        if path.name in ("best.pt", "log.csv"):
            assert path.read_bytes() == Path(path.relative_to(whole)).read_bytes(), path
    for name in ("study.json", "eval/table2.csv", "eval/table2.md", "eval/comparisons.json"):
        assert Path("study", name).read_text() == (whole / "study" / name).read_text(), name


@pytest.mark.slow
def test_shards_train_and_the_line_without_one_writes_the_table(whole, tiny_data, quick, capsys):
    shutil.copy(whole / "resnet18.pth", ".")
    command = line(tiny_data, "--imagenet", "resnet18.pth")
    trained = []
    for number in (3, 1, 2, 4):
        assert script.main([*command, "--shard", f"{number}/4"]) == 0
        trained.append(sorted({path.parent.parent.name for path in Path("study").glob("2d/*/*/best.pt")}))
        assert not Path("study/eval").exists()
    two = ["extended", "imagenet", "previous"]
    assert trained == [["imagenet"], two, *[["extended", "extended-random", "imagenet", "previous", "random"]] * 2]
    assert "Shard 4 of 4 is trained" in capsys.readouterr().out
    assert script.main(command) == 0
    said = capsys.readouterr().out
    assert said.count("was finished after epoch 2") == 14 and "epoch 001" not in said
    assert_same_study(whole)


def test_the_plan_says_each_row_its_command_and_its_cost_and_writes_nothing(tiny_data, quick, capsys, monkeypatch):
    monkeypatch.setattr(table2_study, "seconds_a_hemisphere", lambda phase, model, *_: 60.0)
    for scan in ("t1.nii", "mask.nii"):
        Path(scan).touch()  # the plan looks whether they are there, and does not read them
    Path("tumours.csv").write_text(
        "patient,t1,tumour,type,split\n"
        + "".join(f"{split}-{kind},t1.nii,mask.nii,{kind},{split}\n" for split in ("train", "val") for kind in "ab")
    )
    before = sorted(Path().rglob("*"))
    flags = ["table2", "--data", str(tiny_data), "--tumours", "tumours.csv", "--precision", "bf16"]
    assert script.main([*flags, "--dry-run"]) == 0
    assert sorted(Path().rglob("*")) == before
    said = capsys.readouterr().out
    lines = planned(said)
    assert [f"{cells[1]} < {cells[2]}" for cells in lines] == [
        "2D, stroke in the hemisphere < random", "2D, TSS < 3 h < phase 1", "2D, TSS < 4.5 h < phase 2",
        "2D, TSS < 4.5 h, attention < phase 3", *extended("2D", "random"), "2D, TSS < 3 h < random",
        "2D, TSS < 4.5 h < random", *extended_random("2D"),
        "2D, brain tumours < random", "2D, TSS < 3 h < medical images", "2D, TSS < 4.5 h < medical images",
        "3D, Models Genesis < random", "3D, stroke in the hemisphere < phase 0", "3D, TSS < 3 h < phase 1",
        "3D, TSS < 4.5 h < phase 2", "3D, TSS < 4.5 h, attention < phase 3",
        *extended("3D", "phase 0"), "3D, TSS < 3 h < random", "3D, TSS < 4.5 h < random", *extended_random("3D"),
        "3D, brain tumours < random", "3D, TSS < 3 h < medical images",
        "3D, TSS < 4.5 h < medical images"]  # fmt: skip
    # 36 training and 20 validation hemispheres, each of these a third of a step: 4267 minutes for 100 epochs
    assert lines[0][4] == f"{(36 + 20 / 3) * 100 / 60:.1f} h, 100 epochs" and lines[12][4] == "not timed"
    assert lines[12][5] == (
        "-m tss.training.tumour_pretraining tumours.csv --model 2d --grid 32 32 4 --out study/2d/medical --seed 0 "
        "--precision bf16 --resume"
    )
    assert lines[13][5] == (
        f"run_train.py --phase 2 --init study/2d/medical/tumours/best.pt --model 2d --data {tiny_data} --out "
        "study/2d/medical --seed 0 --precision bf16 --resume"
    )
    assert "2D, TSS < 3 h     " in said and "ImageNet" in said and "needs --imagenet FILE, torchvision's" in said
    Path("study/3d/previous").mkdir(parents=True)
    assert script.main([*flags, "--dry-run", "--shard", "4/6"]) == 0
    assert [cells[1] for cells in planned(capsys.readouterr().out)] == [
        "3D, Models Genesis", "3D, stroke in the hemisphere", "3D, TSS < 3 h", "3D, TSS < 4.5 h",
        "3D, TSS < 4.5 h, attention", *(row.rsplit(" < ", 1)[0] for row in extended("3D", "phase 0"))]  # fmt: skip


def test_published_weights_of_models_genesis_stand_in_the_place_of_phase_0(tmp_path):
    chain = table2_study.chain_of(
        table2_study.Study(Path("data"), Path("s"), genesis=Path("Genesis.pt")), "3d", "previous"
    )
    assert [(step.phase, step.init, step.weights) for step in chain] == [
        (1, Path("Genesis.pt"), "Models Genesis"),
        (2, Path("s/3d/previous/phase1/best.pt"), "phase 1"),
        (3, Path("s/3d/previous/phase2/best.pt"), "phase 2"),
        (4, Path("s/3d/previous/phase3/best.pt"), "phase 3"),
        (1, Path("Genesis.pt"), "Models Genesis"),
        *((n, Path(f"s/3d/extended/phase{n - 1}/best.pt"), f"phase {n - 1}") for n in (2, 3, 4)),
    ]


def test_folds_are_chains_of_their_own_and_one_row_as_an_ensemble():
    study = table2_study.Study(Path("data"), Path("s"), ("2d", "3d"), folds=2)
    chains, _ = table2_study.plan_chains(study)
    folds = [chain for chain in chains if chain[0].fold]
    assert [[step.phase for step in chain] for chain in folds] == [[1, 2, 3, 4]] * 2 + [[0, 1, 2, 3, 4]] * 2
    last = folds[1][-1]
    assert (last.recipe, last.weights, last.row) == ("paper", "phase 3", "2D, TSS < 4.5 h, attention, fold 2")
    assert last.best == Path("s/2d/fold2/phase4/best.pt") and last.init == Path("s/2d/fold2/phase3/best.pt")
    words = [table2_study.words_of(study, chain[-1]) for chain in folds[:2]]
    assert [each[each.index("--fold") + 1] for each in words] == ["1/2", "2/2"]
    plan = table2_study.Plan(chains, [], [], (32, 32, 4), {})
    assert not any("fold" in str(word) for word in table2_study.evaluation_words(study, plan))  # no rows of their own
    assert table2_study.about_rows(study, plan)["ensembles"] == {
        f"{model}-ensemble-of-2-folds": [f"{model}/fold{k}/phase4/best.pt" for k in (1, 2)] for model in ("2d", "3d")
    }
    none = table2_study.Study(Path("data"), Path("s"), ("2d",))
    assert "ensembles" not in table2_study.about_rows(none, plan._replace(chains=table2_study.plan_chains(none)[0]))


def test_given_medical_weights_are_called_after_their_file(tiny_data, quick):
    asked = table2_study.Study(
        tiny_data, Path("s"), ("2d",), tumours=Path("t.csv"), medical={"2d": Path("radimagenet.pt")}
    )
    chains, not_run = table2_study.plan_chains(asked)
    assert [step.init for step in chains[2]] == [Path("radimagenet.pt")] * 2
    assert table2_study.weights_in_words(asked, chains) == {
        f"2d/medical/phase{n}/best.pt": "medical images (radimagenet.pt)" for n in (2, 3)
    }
    assert [row["name"] for row in not_run] == ["imagenet-phase2", "imagenet-phase3"]


@pytest.mark.parametrize(("words", "message"), [
    ("--imagenet own.pt", "--imagenet own.pt is a checkpoint of phase 1, and must be published weights of ResNet-18"),
    ("--imagenet no.pth", "no.pth cannot be read"),
    ("--imagenet resnet18.pth --width 8", "resnet18.pth (ResNet-18) has width 4, this run has 8"),
    ("--tumours no.csv", "no.csv cannot be read: No such file"),
    ("--medical-2d own.pt", "phase 3 starts from a checkpoint of phase 2 (tss<3h). own.pt was written by phase 1"),
    ("--out own.pt", "own.pt is not a folder"),
    ("--data nowhere", "cohort.csv does not exist"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_trained(whole, tiny_data, quick, capsys, words, message):
    shutil.copy(whole / "study/2d/previous/phase1/best.pt", "own.pt")
    shutil.copy(whole / "resnet18.pth", ".")
    assert script.main([*line(tiny_data), *words.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err and "$ python" not in said.out and not Path("study").exists()


def test_folds_that_cannot_be_are_refused_before_anything_is_trained(tiny_data, quick, capsys):
    shutil.copytree(tiny_data, "data")
    assert script.main([*line("data"), "--folds", "20"]) == 2  # of 28 patients: a fold has one class
    said = capsys.readouterr()
    assert (
        "both classes are needed there. Give fewer folds than 20" in said.err
        and "$ python" not in said.out
        and not Path("study").exists()
    )


def test_patience_is_of_the_recipe_that_stops_early(monkeypatch):
    studies = []
    monkeypatch.setattr(script, "run_study", lambda study, *_: studies.append(study) or 0)
    assert script.main(["table2", "--patience", "3", "--epochs", "9"]) == 0
    values = studies[0].values
    assert values["paper", "2d", 4] == values["paper", "3d", None] == {"patience": 3, "epochs": 9}
    assert values["extended", "2d", 4] == {"epochs": 9}


def test_a_file_of_models_genesis_is_no_imagenet(tiny_data, quick, capsys):
    torch.save({"down_tr64.ops.0.conv1.weight": torch.zeros(4, 1, 3, 3, 3)}, "Genesis.pt")
    assert script.main(line(tiny_data, "--imagenet", "Genesis.pt")) == 2
    assert "--imagenet Genesis.pt is Models Genesis, and must be published weights of ResNet-18" in (
        capsys.readouterr().err
    )


def test_a_training_that_fails_stops_the_study(tiny_data, quick, capsys):
    assert script.main(line(tiny_data, "--final-lr", "1e30", "--lr", "1e30")) == 2
    assert "stopped at 1 of 12" in capsys.readouterr().err and not Path("study/2d/random").exists()


@pytest.mark.parametrize(("words", "message"), [
    ("table3", "invalid choice: 'table3'"),
    ("table2 --phase 1", "unrecognized arguments: --phase 1"),
    ("table2 --shard 3/2", "3/2: I counts from 1 to N"),
    ("table2 --folds 1", "--folds 1: an ensemble has two members or more"),
    ("table2 --patients 9", "unrecognized arguments: --patients 9"),
    ("table2 --demo --imagenet a.pt", "unrecognized arguments: --imagenet a.pt"),
    ("table2 --model 3d --imagenet a.pt", "--imagenet is for 2d networks, and this study is of --model 3d"),
    ("table2 --model 2d --genesis g.pt", "--genesis is for 3d networks, and this study is of --model 2d"),
    ("table2 --model 3d --medical-2d a.pt", "--medical-2d is for 2d networks, and this study is of --model 3d"),
    ("table2 --model 2d --tumours t.csv --medical-2d a.pt", "omit one of them"),
    ("table2 --tumours t.csv --medical-2d a.pt --medical-3d b.pt", "omit one of them"),
])  # fmt: skip
def test_wrong_use_is_refused_by_the_parser(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        script.main(words.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err
