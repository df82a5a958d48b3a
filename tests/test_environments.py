"""What is installed, in every way there is to install it, has the same versions, and holds all that is imported."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from configs import ROOT
from packaging.requirements import Requirement

EXTRAS = (ROOT / "requirements-extras.txt").read_text(encoding="utf-8").splitlines()
"""Installed by `make extras`; the workflow needs none of them."""

PINS = {
    requirement.name.replace("_", "-").lower(): requirement
    for line in ["torch==2.13.0", *(ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines(), *EXTRAS]
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# The extra `benchmarks` names its one version itself.
DECLARED = PROJECT["dependencies"] + [
    line for extra, lines in PROJECT["optional-dependencies"].items() if extra != "benchmarks" for line in lines
]

# What is run for each environment: the packages that it lacks cannot be found, and each of its scripts is run up to the
# first use of what Snakemake gives it, which is after its imports. Then come the imports inside of functions.
BLOCKED_RUN = """
import ast, importlib, pathlib, runpy, sys
from importlib.machinery import PathFinder

class Listed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

blocked, scripts = set(sys.argv[1].split(",")), sys.argv[2:]
sys.meta_path = [Listed if finder is PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, str(pathlib.Path(scripts[0]).parent))
for script in scripts:
    try:
        runpy.run_path(script)
    except NameError as error:
        assert error.name == "snakemake", error
checked = set()
while found := {name for name in sys.modules if name.startswith("wireheading")} - checked:
    checked |= found
    for name in found:
        for node in ast.walk(ast.parse(pathlib.Path(sys.modules[name].__file__).read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                importlib.import_module(module)
"""


def environment_files() -> list[Path]:
    return sorted((ROOT / "envs").glob("*.yaml"))


def listed(path: Path) -> list[Requirement]:
    """The packages of an environment file."""
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    return [Requirement(line) for line in next(entry["pip"] for entry in dependencies if isinstance(entry, dict))]


def scripts_of(path: Path) -> list[Path]:
    """The scripts of all rules that run in an environment."""
    rules = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "workflow").rglob("*.smk")))
    pattern = rf'conda:\s+"../../envs/{path.name}"(?:(?!\nrule ).)*?script:\s+"../scripts/(\w+\.py)"'
    return [ROOT / "workflow" / "scripts" / name for name in re.findall(pattern, rules, re.DOTALL)]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Packages and all that they need, as it is installed here."""
    wanted, found = {normal(name) for name in names}, set[str]()
    while wanted:
        name = wanted.pop()
        found.add(name)
        try:
            needed = map(Requirement, importlib.metadata.requires(name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        wanted |= {
            normal(requirement.name)
            for requirement in needed
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        } - found
    return found


def imported(folders: Iterable[Path]) -> Iterator[str]:
    """The packages that source files import, wherever in the file."""
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def version(name: str) -> str:
    return str(PINS[name.replace("_", "-").lower()].specifier).removeprefix("==")


def test_requirements_are_exact() -> None:
    for requirement in PINS.values():
        assert re.fullmatch(r"==[0-9a-z.]+", str(requirement.specifier)), requirement


@pytest.mark.parametrize("path", environment_files(), ids=lambda path: path.stem)
def test_conda_environments_have_the_same_versions(path: Path) -> None:
    for requirement in listed(path):
        assert str(requirement.specifier) == f"=={version(requirement.name)}"


@pytest.mark.parametrize("path", environment_files(), ids=lambda path: path.stem)
@pytest.mark.slow
def test_an_environment_holds_all_that_its_scripts_import(path: Path) -> None:
    scripts = scripts_of(path)
    assert scripts
    there = with_dependencies(["pip", "setuptools", *(requirement.name for requirement in listed(path))])
    blocked = [
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not there.intersection(map(normal, packages)) and module not in ("wireheading", "__editable___wireheading")
    ]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED_RUN, ",".join(blocked), *map(str, scripts)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_direct_import_is_declared() -> None:
    declared = {normal(Requirement(line).name) for line in DECLARED}
    packages = importlib.metadata.packages_distributions()
    undeclared = {
        name
        for name in imported([ROOT / "src", ROOT / "workflow"])
        # Triton is a part of PyTorch where there is a GPU.
        if name not in sys.stdlib_module_names | {"wireheading", "triton"}
        and not declared.intersection(map(normal, packages.get(name, [name])))
    }
    assert undeclared == set()


def test_the_project_admits_the_exact_versions() -> None:
    for line in DECLARED:
        requirement = Requirement(line)
        assert version(requirement.name) in requirement.specifier


def test_what_is_installed_is_what_is_pinned() -> None:
    there = {normal(found.name) for found in importlib.metadata.distributions()}
    absent = {normal(Requirement(line).name) for line in EXTRAS if not line.startswith("#")} - there
    wrong = {
        name: importlib.metadata.version(name)
        for name, requirement in PINS.items()
        if normal(name) not in absent
        and (requirement.marker is None or requirement.marker.evaluate())
        and importlib.metadata.version(name).partition("+")[0] != version(name)
    }
    assert wrong == {}
