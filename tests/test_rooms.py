"""Which room may import which: dependencies run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from configs import ROOT

PACKAGE = ROOT / "src" / "wireheading"

MAY_IMPORT = {
    "tasks": set(),
    "study": {"tasks"},
    "inputs": {"study", "tasks"},
    "policy": {"study", "tasks", "inputs"},
    "pretraining": {"study", "tasks", "inputs", "policy"},
    "records": {"study", "tasks"},
    "engine": {"study", "tasks", "inputs", "policy", "records"},
    "analysis": {"study", "tasks", "records"},
    "exports": {"study", "tasks", "inputs", "records"},
}


def rooms_imported(path: Path) -> set[str]:
    """The folders of the package that a module imports from."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    parts = [module.split(".") for module in modules]
    return {part[1] for part in parts if part[0] == "wireheading" and len(part) > 1 and (PACKAGE / part[1]).is_dir()}


def test_every_room_is_in_the_table() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert rooms_imported(path) <= MAY_IMPORT[room] | {room}, path


@pytest.mark.parametrize("room", ["study", "tasks", "records", "analysis", "exports"])
def test_a_room_does_without_torch(room: str) -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in (PACKAGE / room).rglob("*.py")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_says_what_it_holds_and_what_it_may_import(room: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    for other in MAY_IMPORT[room]:
        assert f"`{other}`" in said.partition("May import")[2], f"{room} does not say that it may import {other}"


def test_no_file_is_long() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): count for path, count in lines.items() if count > 350} == {}
