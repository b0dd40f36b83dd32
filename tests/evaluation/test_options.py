"""Which flags of run_eval.py go together, and that what is typed becomes the options."""

import re

import pytest

import run_eval
import tss
from tss.evaluation.options import Options, PatientOptions

PATIENT = ["a.pt", "--patient", "d", "b", "f"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: CKPT"),
        (PATIENT, "--patient needs --atlas FILE"),
        ([*PATIENT, "--atlas", "x", "--data", "data"], "--data is about a cohort and --patient about"),
        ([*PATIENT, "--atlas", "x", "--table"], "--table is about a cohort and --patient about"),
        ([*PATIENT, "--atlas", "x", "--report"], "--report is about a cohort and --patient about"),
        ([*PATIENT, "--atlas", "x", "--gradcam-scores"], "--gradcam-scores is about a cohort"),
        (["a.pt", "--patient", "d", "-", "f", "--atlas", "x", "--adc"], "that there is none: omit one"),
        (["a.pt", "--side", "left"], "--side goes with --patient DWI B0 FLAIR only"),
        (["a.pt", "--adc"], "--adc goes with --patient"),
        (["a.pt", "--gradcam", "-1"], "-1 is not a whole number from 0"),
        (["a.pt", "--over"], "unrecognized arguments: --over"),
    ],
)
def test_flags_that_do_not_go_together(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run_eval.main(words)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def typed(*words):
    parser = run_eval.build_parser()
    return run_eval.options_of(parser, parser.parse_args(words))


def test_what_is_typed_becomes_the_options_and_the_rest_are_defaults():
    assert typed("a.pt", "b.pt") == Options(["a.pt", "b.pt"])
    words = ["--data", "d", "--split", "val", "--table", "--report", "--gradcam-scores", "--study", "s.json"]
    assert typed("a.pt", *words, "--gradcam", "0", "--overwrite") == Options(
        ["a.pt"], "d", "val", gradcam=0, gradcam_scores=True, table=True, report=True, study="s.json", overwrite=True
    )
    words = ["--atlas", "t2.nii", "--adc", "--side", "left", "--tools", "fsl", "--out", "o"]
    assert typed(*PATIENT, *words) == PatientOptions(
        ["a.pt"], ["d", "b", "f"], "t2.nii", adc=True, side="left", tools="fsl", out="o"
    )


def test_every_flag_is_an_option_of_one_kind_at_least():
    flags = set(re.findall(r"--([a-z-]+)", run_eval.build_parser().format_usage())) - {"version"}
    both = Options.__dataclass_fields__ | PatientOptions.__dataclass_fields__
    assert {flag.replace("-", "_") for flag in flags} == both.keys() - {"checkpoints"}


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        run_eval.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"tss {tss.__version__}\n"
