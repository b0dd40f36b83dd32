"""The layout holds: who may import whom, what each module says of itself, and which decisions comments cite.

Imports inside functions and under TYPE_CHECKING count as those at the top do.
"""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tss"
SCRIPTS = ("run_preprocess", "run_train", "run_eval")

# The table: each folder may import itself and these, nothing else of the suite.
MAY_IMPORT = {
    "errors": set(),
    "data": {"errors"},
    "metrics": {"errors"},
    "models": set(),
    "display": {"errors", "data"},
    "phantom": {"errors", "data", "metrics", "display"},
    "baselines": {"errors", "metrics"},
    "preprocessing": {"errors", "data", "display"},
    "training": {"errors", "data", "models", "metrics", "display"},
    "evaluation": {
        "errors", "data", "metrics", "models", "display", "phantom", "baselines", "preprocessing", "training",
    },
    "study": {
        "errors", "data", "metrics", "models", "display", "phantom", "baselines", "preprocessing", "training",
        "evaluation",
    },
    "run_preprocess": {"errors", "data", "preprocessing", "training"},  # training: to read a checkpoint, for --like
    "run_train": {"errors", "data", "training", "study"},
    "run_eval": {"errors", "data", "evaluation"},
}  # fmt: skip

# Packages from elsewhere, and the only parts of the suite that may know them.
ONLY = {
    "matplotlib": {"display"},
    "PIL": {"display"},
    "torch": {"models", "phantom", "training", "evaluation", "study"},
    "adabound": {"training"},
}
# And those that know nothing from elsewhere but these.
NOTHING_BUT = {
    "errors": set(),
    "models": {"torch"},
    "metrics": {"numpy", "scipy"},
    **dict.fromkeys(SCRIPTS, set()),
}

TOLD_BY_HELP = {"__init__.py", "__main__.py"}  # a folder's public names; a command, whose docstring is its help
HAND_ON = {"metrics", "phantom"}  # folders whose __init__.py hands on public names; the others' are empty


def name_of(path):
    """A file's name as a module, e.g. tss.data.cohort; a folder's __init__.py is the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in [*sorted(PACKAGE.rglob("*.py")), *(ROOT / f"{name}.py" for name in SCRIPTS)]}


def part_of(module):
    """The row of the table that a module belongs to; "" for the package itself, which everybody may import."""
    names = module.split(".")
    return names[0] if names[0] != "tss" else names[1] if len(names) > 1 else ""


def imports(name, source):
    """Return the modules of the suite that a module imports, and the packages from elsewhere."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: imports are absolute, from tss.FOLDER.MODULE"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [one if one in MODULES else node.module for one in whole]
        else:
            continue
        for other in found:
            first = other.split(".")[0]
            if first == "tss" or first in SCRIPTS:
                assert other in MODULES, f"{name}, line {node.lineno}: no module {other}"
                inside.add(other)
            elif first not in sys.stdlib_module_names:
                outside.add(first)
    return inside, outside


def forbidden(name, source):
    """What a module imports that the tables above do not have."""
    part = part_of(name)
    inside, outside = imports(name, source)
    allowed = MAY_IMPORT.get(part, set()) | {"", part} - set(SCRIPTS)
    packages = NOTHING_BUT.get(part, outside) - {package for package, users in ONLY.items() if part not in users}
    return sorted({other for other in inside if part_of(other) not in allowed} | (outside - packages))


def circle(sources):
    """The first circle of modules that import each other, or []; the package itself apart."""
    above = {name: imports(name, source)[0] - {"tss"} for name, source in sources.items()}
    try:
        TopologicalSorter(above).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def sources():
    return {name: path.read_text() for name, path in MODULES.items()}


def test_every_module_lies_in_a_folder_of_the_table():
    assert {part_of(name) for name in MODULES} == {"", *MAY_IMPORT}
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "errors.py"}


def test_nobody_imports_whom_the_table_does_not_allow():
    found = {name: forbidden(name, source) for name, source in sources().items()}
    assert {name: others for name, others in found.items() if others} == {}


@pytest.mark.parametrize(
    "name, line, other",
    [
        ("tss.errors", "from tss import data", "tss.data"),
        ("tss.data.cohort", "from tss.display.tables import aligned", "tss.display.tables"),
        ("tss.data.cohort", "def late():\n    from tss.training import phases", "tss.training.phases"),
        ("tss.metrics.roc", "from tss.data.cohort import Patient", "tss.data.cohort"),
        ("tss.metrics.roc", "import torch", "torch"),
        ("tss.models.unet3d", "from tss.errors import InputError", "tss.errors"),
        ("tss.models.unet3d", "import numpy", "numpy"),
        ("tss.training.train", "import tss.preprocessing.pipeline", "tss.preprocessing.pipeline"),
        ("tss.training.train", "import matplotlib.pyplot", "matplotlib"),
        ("tss.preprocessing.pipeline", "import torch", "torch"),
        ("tss.baselines.lee2020", "from torch import nn", "torch"),
        ("tss.study.demo", "import run_eval", "run_eval"),
        ("run_train", "from run_preprocess import build_parser", "run_preprocess"),
        ("run_train", "import numpy as np", "numpy"),
    ],
)
def test_a_forbidden_import_is_found(name, line, other):
    source = MODULES[name].read_text()
    assert other not in forbidden(name, source)
    assert other in forbidden(name, f"{source}\n{line}\n")


def test_modules_do_not_import_each_other_in_a_circle():
    assert circle(sources()) == []


def test_a_circle_is_found():
    more = sources()
    more["tss.data.cohort"] += "\ndef late():\n    from tss.data import splits\n"
    assert {"tss.data.cohort", "tss.data.splits"} <= set(circle(more))


def test_a_folder_hands_nothing_on_but_metrics_and_phantom():
    full = {part_of(name) for name, path in MODULES.items() if path.name == "__init__.py" and path.read_text()}
    assert full == {*HAND_ON, ""}


@pytest.mark.parametrize(
    "name", [name for name in MODULES if MODULES[name].name not in TOLD_BY_HELP and name not in SCRIPTS]
)
def test_every_module_says_what_comes_in_and_goes_out(name):
    doc = ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""
    for word in ("In:", "Out:", "Paper:", "See:"):
        assert re.search(rf"^{word}", doc, re.MULTILINE), f"{name} does not say {word}"
    test = re.search(r"^See:\s+(\S+)", doc, re.MULTILINE)[1].rstrip(",.;")
    assert (ROOT / test).is_file(), f"{name} sends the reader to {test}, which does not exist"


def test_comments_cite_decisions_that_are_in_the_list():
    decisions = re.findall(r"^(\d+)\. ", (PACKAGE / "README.md").read_text(), re.MULTILINE)
    assert decisions == [str(number + 1) for number in range(len(decisions))]
    for name, source in sources().items():
        for cited in re.findall(r"[Dd]ecisions? (\d+)", source):
            assert cited in decisions, f"{name} cites decision {cited}, which tss/README.md does not have"
