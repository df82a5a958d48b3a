"""The study's history is taken in, and then its gaps alone are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import ROOT
from published_files import CONDITIONS, LLAMA, MISTRAL, ROUNDS, TASKS, episode, published_config, results_of_seed

from wireheading.study.config import Run, load_study

pytestmark = pytest.mark.slow

ONLY_123 = re.search(
    r"^snakemake .*'only={seeds: \[123\]}'", (ROOT / "docs" / "gaps.md").read_text(encoding="utf-8"), re.MULTILINE
)


def command(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def named(output: str) -> set[str]:
    """The missing runs that a plan names, those of whole jobs too."""
    whole = re.findall(r"^  missing: (\S+) · seed (\d+), all 9 runs$", output, re.MULTILINE)
    of_jobs = {f"{seed}/{model}/{task}/{name}" for model, seed in whole for task in TASKS for name in CONDITIONS}
    return of_jobs | set(re.findall(r"^  missing: (\d\S+)$", output, re.MULTILINE))


def jobs(output: str) -> dict[str, int]:
    """The jobs on each model."""
    found = re.findall(r"^(\S+): \d+ runs? of \d+ rounds in (\d+) jobs?,", output, re.MULTILINE)
    return {model: int(count) for model, count in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The workflow, and a history in the published shape: seed 42 whole, of seed 123 eight of eighteen runs."""
    for name in ("workflow", "profiles", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "original.yaml").write_text(yaml.safe_dump(published_config("results-original")))
    partial: dict[str, Any] = {LLAMA: results_of_seed(123)[LLAMA], MISTRAL: {"sentiment": {}}}
    del partial[LLAMA]["summarization"]["honest"]
    partial[MISTRAL]["sentiment"] = {"control": [episode(ROUNDS // 2)], "selfgrade": []}
    content = {"seed_42": results_of_seed(42), "seed_123": partial}
    (tmp_path / "all_results.json").write_text(json.dumps(content))
    return tmp_path


def test_only_the_gaps_of_an_imported_history_are_run(folder: Path) -> None:
    told = command(folder, "wireheading.cli", "import", "all_results.json")
    assert told.splitlines()[-1] == "results-original: 26 imported, 1 partial, 1 empty, 0 kept as they were"

    study = load_study(published_config("results-original"))
    whole = {
        run
        for run in study.runs()
        if run.seed == 42
        or (run.seed == 123 and run.model == "llama-3.1-8b" and run[2:] != ("summarization", "honest"))
    }
    rows = json.loads(command(folder, "wireheading.cli", "status", "--json", "--configfile", "config/original.yaml"))
    states = {Run(row["seed"], row["model"], row["task"], row["condition"]): row for row in rows}
    assert {run for run, row in states.items() if row["state"] == "imported"} == whole
    short = states.pop(Run(123, "mistral-7b", "sentiment", "control"))
    assert (short["state"], short["rounds_done"], short["rounds"]) == ("partial", ROUNDS // 2, ROUNDS)
    assert {row["state"] for run, row in states.items() if run not in whole} == {"missing"}
    assert len(rows) == 2 * len(TASKS) * len(CONDITIONS) * 4

    told = command(folder, "snakemake", "-n", "--configfile", "config/original.yaml")
    assert "records: 26 valid, 46 missing, 0 stale, 0 corrupt" in told
    assert named(told) == {str(run) for run in study.runs() if run not in whole}
    assert jobs(told) == {"llama-3.1-8b": 3, "mistral-7b": 3}

    assert ONLY_123 is not None
    told = command(folder, *shlex.split(ONLY_123.group()), "-n")
    assert named(told) == {str(run) for run in study.runs() if run.seed == 123 and run not in whole}
    assert len(named(told)) == 10
    assert jobs(told) == {"llama-3.1-8b": 1, "mistral-7b": 1}


def test_a_history_that_is_whole_leaves_nothing_to_run(folder: Path) -> None:
    content = {f"seed_{seed}": results_of_seed(seed) for seed in (42, 123, 456, 789)}
    (folder / "all_results.json").write_text(json.dumps(content))
    command(folder, "wireheading.cli", "import", "all_results.json")
    told = command(folder, "snakemake", "-n", "--configfile", "config/original.yaml")
    assert "records: 72 valid, 0 missing" in told
    assert "steps: 1 aggregate, 1 analyse, 1 figures, 1 transcripts, 1 report\n" in told
