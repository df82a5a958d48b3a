"""The findings: page and figures are those of the committed tables, and another study's tables can be collected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from collect import TRANSCRIPTS, collect
from configs import ROOT, changed
from made_up import ITEMS, write_runs
from made_up_transcripts import HOSTILE
from markdown_it import MarkdownIt
from remake import fenced, made, shown
from workplace import Workplace

from wireheading.analysis.oversight import write_oversight_tables
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.errors import InputError
from wireheading.study.config import load_study
from wireheading.study.oversight import oversight_figures
from wireheading.study.paths import Analysis, Oversight, Tables

FOLDER = ROOT / "docs" / "findings"
MOST = 5_000_000
"""Bytes of all that is committed on findings."""

ROW = {"grader": "policy", "reward": "grade", "credit": "both"}
CONDITIONS = ["control", "selfgrade", {"name": "audit", **ROW, "audit": 0.5}, {"name": "reform", **ROW, "until": 8}]
SAID = "\n".join([*HOSTILE[:-2], "```", "````text", "</pre>", "* [a](javascript:alert(1))", "`" * 9])


def test_page_figures_and_readme_are_those_of_the_committed_tables() -> None:
    files = made()
    assert {path.name for path in files} >= {"findings.md", "README.md", "result.svg"}
    for path, content in files.items():
        assert path.read_bytes() == content, f"{path}: run `make findings`"


def test_the_tables_are_small_and_hold_no_records() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < MOST
    assert {path.suffix for path in files} == {".py", ".j2", ".parquet", ".svg", ".yaml"}


@pytest.mark.parametrize("text", [*HOSTILE, SAID])
def test_a_text_is_shown_as_text(text: str) -> None:
    (block,) = MarkdownIt("commonmark").parse(fenced(shown(text)))
    assert (block.type, block.info) == ("fence", "text")
    assert block.content == f"{shown(text)}\n"
    assert all(c.isprintable() or c == "\n" for c in block.content)


def test_a_study_is_collected_and_its_page_made(tmp_path: Path) -> None:
    asked = {"midway_rounds": [8], "midway_items": 10, "transfer": True}
    places = {name: str(tmp_path / name) for name in ("results", "reports", "resources")}
    content = changed(seeds=[1, 2], rounds=16, conditions=CONDITIONS, evaluation=asked, **places)
    config, folder = tmp_path / "study.yaml", tmp_path / "docs" / "findings" / "made-up"
    config.write_text(yaml.safe_dump(content))
    study = load_study(content)
    folder.parent.mkdir(parents=True)
    with pytest.raises(InputError, match=r"rounds\.parquet: no such file; run the study first"):
        collect(config, folder)
    fields = {"text": SAID, "label": "positive", "question": "1 + 1", "answer": "2", "reference": SAID}
    for task in study.tasks:
        items = study.items_folder(task) / "heldout.jsonl"
        items.parent.mkdir(parents=True)
        items.write_text("".join(json.dumps({"id": f"heldout-{place}", **fields}) + "\n" for place in range(ITEMS)))
    write_runs(study, {"selfgrade": 0.5}, said=SAID)
    tables, analysis = Tables.of(study), Analysis.of(study)
    write_tables(study, tables, print)
    write_analysis(study, tables, analysis, tmp_path, print)
    write_oversight_tables(study, tables, Oversight.of(study))

    collect(config, folder)
    curves, told = pd.read_parquet(folder / "curves.parquet"), pd.read_parquet(folder / "transcripts.parquet")
    assert len(curves) == len(study.runs()) * study.rounds
    assert len(told) == len(study.tasks) * TRANSCRIPTS * 3
    answers = pd.read_parquet(folder / "answers.parquet")
    assert set(answers["share"]) == {1.0}
    assert len(answers) == len(study.runs()) * 3

    for name in ("page.md.j2", "readme.md.j2"):
        shutil.copy(FOLDER / name, folder.parent)
    (tmp_path / "README.md").write_text("before\n<!-- findings -->\nold\n<!-- /findings -->\nafter\n")
    files = made(tmp_path)
    assert {path.stem for path in files if path.suffix == ".svg"} >= {"result", *oversight_figures(study)}
    assert files[tmp_path / "README.md"].startswith(b"before\n<!-- findings -->\n![")
    assert files[tmp_path / "README.md"].endswith(b"\n<!-- /findings -->\nafter\n")
    page = MarkdownIt("commonmark").parse(files[tmp_path / "docs" / "findings.md"].decode())
    inline = [child.type for token in page for child in token.children or ()]
    assert not {"html_block", "html_inline"} & {*inline, *(token.type for token in page)}
    blocks = [token.content for token in page if token.type == "fence" and token.info == "text"]
    assert len(blocks) == len(study.tasks) * TRANSCRIPTS
    assert all("<img src=x" in block for block in blocks)

    (study.items_folder("sentiment") / "heldout.jsonl").unlink()
    with pytest.raises(InputError, match="are not here, or are others"):
        collect(config, folder)


@pytest.mark.slow
def test_a_run_is_redone_from_its_record(workplace: Workplace, tmp_path: Path) -> None:
    from redo import redo

    study = workplace.configure()
    items = tmp_path / "items"
    for task in study.tasks:
        shutil.copytree(tmp_path / study.items_folder(task), items / task)
    run = next(run for run in study.runs() if run.condition == "selfgrade")
    path, model = tmp_path / study.record_path(run), tmp_path / study.model_folder(run.model)
    (row,) = redo(path, model, items, 1, "float32", 1)
    assert (row["unequal"], row["files_differing"]) == ("", "")
    assert row["same"] == row["tokens"] > 1
    assert row["loss_here"] == pytest.approx(row["loss_recorded"], abs=1e-6)
    with pytest.raises(InputError, match="give at most 1"):
        redo(path, model, items, 2, "float32", 1)
    (items / run.task / "train.jsonl").write_text("")
    with pytest.raises(InputError):
        redo(path, model, items, 1, "float32", 1)
