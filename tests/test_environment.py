"""environment.yml, pyproject.toml and the imports say the same about what is needed."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch"}
IMPORT_NAMES = {"IPython": "ipython", "PIL": "pillow", "sklearn": "scikit_learn"}


def split(requirement: str) -> tuple[str, str]:
    """("plotly", ">=6") of "plotly>=6"."""
    name = re.match(r"[A-Za-z0-9_.-]+?(?=[<>=!~]|$)", requirement).group()
    return name, requirement.removeprefix(name)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_conda_installs_what_pip_installs(project, environment):
    listed = dict(split(line) for line in environment["dependencies"] if isinstance(line, str))
    del listed["python"], listed["pip"]
    declared = dict(split(line) for line in project["dependencies"])
    assert listed == {CONDA_NAMES.get(name, name): bound for name, bound in declared.items()}


def test_both_want_the_same_python(project, environment):
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_conda_takes_the_package_from_this_folder(environment):
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert [line.split()[-2:] for line in pip] == [["-e", "."]]


def test_every_import_is_declared(project):
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {split(line)[0].replace("-", "_") for line in [*project["dependencies"], *extras]}
    imported = {}
    for path in (ROOT / "workbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            imported |= {name.partition(".")[0]: path.name for name in names}
    needed = {
        name: file for name, file in imported.items() if name not in (*sys.stdlib_module_names, "workbench")
    }
    assert needed, "no import was found: the search itself is broken"
    missing = {name: file for name, file in needed.items() if IMPORT_NAMES.get(name, name) not in declared}
    assert not missing, f"imported but not declared in pyproject.toml: {missing}"
