"""The versions that are installed, in every way there is to install them, are the same."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = {
    requirement.name.replace("_", "-").lower(): requirement
    for line in ["torch==2.13.0", *(ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}


def version(name: str) -> str:
    return str(PINS[name.replace("_", "-").lower()].specifier).removeprefix("==")


def test_requirements_are_exact() -> None:
    for requirement in PINS.values():
        assert re.fullmatch(r"==[0-9a-z.]+", str(requirement.specifier)), requirement


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_same_versions(path: Path) -> None:
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    for line in next(entry["pip"] for entry in dependencies if isinstance(entry, dict)):
        requirement = Requirement(line)
        assert str(requirement.specifier) == f"=={version(requirement.name)}"


def test_the_project_admits_the_exact_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"]:
        requirement = Requirement(line)
        assert version(requirement.name) in requirement.specifier


def test_what_is_installed_is_what_is_pinned() -> None:
    wrong = {
        name: importlib.metadata.version(name)
        for name, requirement in PINS.items()
        if (requirement.marker is None or requirement.marker.evaluate())
        and importlib.metadata.version(name).partition("+")[0] != version(name)
    }
    assert wrong == {}
