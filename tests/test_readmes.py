"""What READMEs and docstrings tell one to type can be typed: programs, flags and values exist, and so do links."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "tss" / "README.md", *sorted((ROOT / "tests" / "benchmarks").glob("*.md"))]
DOCSTRINGS = [
    *sorted(ROOT.glob("run_*.py")),
    *sorted((ROOT / "tss").rglob("*.py")),
    *sorted((ROOT / "tests" / "benchmarks").glob("*.py")),
]
PYTHON = r"(?:[\w./-]*/)?python3? "  # python, or that of an environment


def commands_of(path):
    """Every python command in a README's code, in blocks and between backticks, or in a module's docstring."""
    if path.suffix == ".md":
        text = path.read_text()
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        lines = [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *(" ".join(span.split()) for span in spans)]
    else:
        lines = (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\\\n", " ").splitlines()
        lines = [re.split(r" {3,}(?!-)", line.strip())[0] for line in lines if line.startswith("    ")]
    parts = [part.strip() for line in lines for part in line.split(" && ")]
    return [found[1] for part in parts if (found := re.match(rf"(?:\w+=\S+ )*{PYTHON}(.+)", part))]


COMMANDS = sorted({(path, command) for path in [*READMES, *DOCSTRINGS] for command in commands_of(path)})


def check(command):
    """Parse a command's arguments with its own program, as far as that is one of ours."""
    words = shlex.split(command.replace("$SLURM_ARRAY_TASK_ID", "1").replace("I/N", "1/2"))
    if words[0] == "-c":
        for node in ast.walk(ast.parse(words[1])):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
        return
    if words[:2] == ["-m", "venv"]:
        return
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if word[0] != "-" and not word.isdigit())
        return
    if words[0] == "-m":
        (name, *rest) = words[1:]
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):  # a folder: what is run is its __main__
            module = importlib.import_module(f"{name}.__main__")
    else:
        (script, *rest) = words
        assert (ROOT / script).is_file(), f"there is no {script}"
        if "/" in script:  # a benchmark, whose parser is part of its main
            flags = [word for word in rest if word.startswith("--")]
            assert [flag for flag in flags if f'"{flag}"' not in (ROOT / script).read_text()] == []
            return
        module = importlib.import_module(Path(script).stem)
    module.build_parser().parse_args(rest)


@pytest.mark.parametrize(
    "path, command", COMMANDS, ids=[f"{path.relative_to(ROOT)}: {command}" for path, command in COMMANDS]
)
def test_what_is_told_to_be_typed_can_be_typed(path, command, capsys):
    try:
        check(command)
    except SystemExit as error:
        assert not error.code, f"{path}: {command}: {capsys.readouterr().err.splitlines()[-1]}"


def test_the_commands_are_found():
    of_readme = [command for path, command in COMMANDS if path == ROOT / "README.md"]
    for start in ("run_train.py --demo", "-m pytest -n 2 --dist=worksteal tests", "run_preprocess.py cohort.csv",
                  "run_train.py --phase 4",
                  "run_eval.py runs/2d/phase4/best.pt --patient", "-m tss.study table2"):  # fmt: skip
        assert any(command.startswith(start) for command in of_readme), start


@pytest.mark.parametrize("command", ["run_train.py --phase 5", "run_train.py --fase 1", "run_eval.py --dat x ckpt.pt"])
def test_a_wrong_command_is_found(command):
    with pytest.raises(SystemExit):
        check(command)


@pytest.mark.parametrize("path", READMES, ids=[str(path.relative_to(ROOT)) for path in READMES])
def test_every_file_that_a_readme_names_exists(path):
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    named = re.findall(r"`((?:tss|tests|\.ci)/[\w./-]+|run_\w+\.py)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = re.findall(r"`(tss(?:\.\w+)+)`", text)
    assert [name for name in modules if not importlib.import_module(name)] == []


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 180
    assert lines.index("## Your own data") < 60
