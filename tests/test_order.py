"""The package reads downwards: every module stands in the reading order and imports only from those above it."""

import ast
import re
from pathlib import Path

import tss

PACKAGE = Path(tss.__file__).parent
ORDER = re.findall(r"^    (\w+)  ", tss.__doc__, re.MULTILINE)
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports_of(module):
    """Modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tss":
            found |= {name.name for name in node.names} & set(MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tss."):
            found.add(node.module.split(".")[1])
    return found


def test_the_reading_order_names_every_module_once():
    assert sorted(ORDER) == MODULES


def test_the_readme_sends_newcomers_to_every_module_in_this_order():
    readme = (PACKAGE.parent / "README.md").read_text()
    assert re.findall(r"^\| \[`(\w+)\.py`\]\(tss/\1\.py\)", readme, re.MULTILINE) == ORDER


def test_no_import_runs_back_up():
    back = [f"{module} imports {other}" for place, module in enumerate(ORDER) for other in imports_of(module)
            if other not in ORDER[:place]]
    assert back == []


def test_every_module_opens_with_what_comes_in_and_goes_out():
    for module in MODULES:
        doc = ast.get_docstring(ast.parse((PACKAGE / f"{module}.py").read_text()))
        for word in ("In:", "Out:", "Paper:", "See:"):
            assert re.search(rf"^{word}", doc, re.MULTILINE), f"{module} does not say {word}"
        test = re.search(r"^See:\s+(\S+)", doc, re.MULTILINE)[1].rstrip(",")
        assert (PACKAGE.parent / test).is_file(), f"{module} sends the reader to {test}, which is not there"


def test_only_figures_knows_matplotlib():
    users = [path.stem for path in [*PACKAGE.glob("*.py"), *PACKAGE.parent.glob("run_*.py")]
             if re.search(r"^\s*(import|from) matplotlib", path.read_text(), re.MULTILINE)]
    assert users == ["figures"]
