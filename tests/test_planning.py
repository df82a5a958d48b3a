"""What the workflow plans and refuses, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workplace import Workplace, plan

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conditions=[selfish]"], "conditions = ['selfish']: unknown condition 'selfish'; known are control"),
        (["rounds=-1"], "rounds = -1: Input should be greater than 0"),
        (["colour=blue"], "colour = 'blue': unknown key"),
        (["seeds=[]"], "seeds = []"),
    ],
)
def test_bad_settings_stop_with_one_line(finished: Workplace, arguments: list[str], told: str) -> None:
    output = finished.snakemake("--config", *arguments, succeeds=False)
    lines = [line for line in output.splitlines() if not line.startswith("Using profiles")]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["results/42/tiny/sentiment/honest.json"], "its models are llama-3.1-8b, mistral-7b, gemma-2-9b; give"),
        (["--config", "results=file/x"], "results = 'file/x': file is a file; name a folder"),
        (["--config", "models={mistral-7b: {enabled: perhaps}}"], "models.mistral-7b.enabled = 'perhaps': write true"),
        (["--configfile", "empty.yaml"], "holds no settings"),
        (["--configfile", "twice.yaml"], "rounds is given twice; keep one"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    workplace = Workplace(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty.yaml").write_text("{}\n")
    (tmp_path / "twice.yaml").write_text("rounds: 1\nrounds: 2\n")
    output = plan(workplace, *arguments, succeeds=False)
    lines = [line for line in output.splitlines() if not line.startswith(("Using ", "Config file "))]
    assert len(lines) == 1, output
    assert told in lines[0]


@pytest.mark.parametrize("profile", [[], ["--profile", "profiles/slurm"]], ids=["default", "slurm"])
def test_settings_alone_are_added_to_the_study(tmp_path: Path, profile: list[str]) -> None:
    output = plan(Workplace(tmp_path), *profile, "--config", "seeds=[42]", "models={gemma-2-9b: {enabled: false}}")
    assert "records: 0 valid, 30 missing" in output
    jobs = re.findall(r"^    wildcards: seed=(\d+), model=(\S+)$", output, re.MULTILINE)
    assert sorted(jobs) == [("42", "llama-3.1-8b"), ("42", "mistral-7b")]


def test_a_subset_is_a_matter_of_the_command_line(finished: Workplace) -> None:
    told = finished.snakemake("-n", "--config", "conditions=[selfgrade]", "seeds=[42]")
    assert "records: 3 valid, 0 missing" in told
