"""Programs are found beside the package and inside it, wherever one stands, and their line is printed."""

import pytest

from tss.study import programs


@pytest.mark.parametrize("program", [programs.PREPROCESS, programs.TRAIN, programs.EVALUATE, programs.PRETRAIN])
def test_every_program_is_found_and_run(program, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        programs.type_in(program, ["--help", "two words"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and said.startswith(f"$ python {program} --help 'two words'\n")
    assert "usage: " + program.replace("-m", "python -m") in said
