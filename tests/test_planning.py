"""What the workflow plans and refuses, from the command line."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from configs import changed
from made_up import few_runs, write_runs
from workplace import Workplace, plan

from wireheading.analysis.outcome import outcome_text
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.planning import closing_text, plan_text
from wireheading.records.record import State
from wireheading.study.config import Run, load_study
from wireheading.study.paths import Analysis, Tables

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conditions=[selfish]"], "conditions = ['selfish']: unknown condition 'selfish'; known are control"),
        (["colour=blue"], "colour = 'blue': unknown key"),
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
    jobs = re.findall(r"^(\S+): 15 runs of 500 rounds in 1 job,", output, re.MULTILINE)
    assert sorted(jobs) == ["llama-3.1-8b", "mistral-7b"]
    assert "a part of the study (seeds 42; models llama-3.1-8b, mistral-7b)" in output


def test_a_subset_is_a_matter_of_the_command_line(finished: Workplace) -> None:
    told = finished.snakemake("-n", "--config", "conditions=[selfgrade]", "seeds=[42]")
    assert "records: 3 valid, 0 missing" in told


def test_a_dry_run_of_the_study_is_ten_lines_at_most_with_a_profile_and_without(tmp_path: Path) -> None:
    for profile in ([], ["--profile", "profiles/slurm"]):
        output = plan(Workplace(Path(tempfile.mkdtemp(dir=tmp_path))), *profile)
        assert len(output.splitlines()) <= 10, output
        assert max(map(len, output.splitlines())) < 150
        assert "steps: 3 fetch_model, 3 freeze_data, 12 rl_run, 1 aggregate" in output
    # Without the default profile too; with `--verbose`, Snakemake gives its own account.
    bare = plan(Workplace(Path(tempfile.mkdtemp(dir=tmp_path))), "--workflow-profile", "none", "--cores", "1")
    assert len(bare.splitlines()) <= 10, bare
    assert "Job stats:" in plan(Workplace(Path(tempfile.mkdtemp(dir=tmp_path))), "--verbose")


RUNS = [Run(seed, "tiny", "sentiment", name) for seed in (42, 123) for name in ("control", "selfgrade", "honest")]


@pytest.mark.parametrize(
    ("states", "named"),
    [
        (["valid"] * 6, []),
        (["missing"] * 6, []),
        (["valid"] * 3 + ["missing"] * 3, ["  missing: tiny · seed 123, all 3 runs"]),
        (
            ["valid", "stale", "corrupt"] + ["valid"] * 3,
            ["  stale: 42/tiny/sentiment/selfgrade", "  corrupt: 42/tiny/sentiment/honest"],
        ),
    ],
)
def test_a_plan_names_what_is_to_be_done(states: list[State], named: list[str]) -> None:
    study = load_study(changed(engine={"lockstep": ["task", "condition"]}))
    lines = plan_text(study, dict(zip(RUNS, states, strict=True))).splitlines()
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("valid", "missing", "stale", "corrupt"))
    assert lines[0] == f"records: {counts}"
    assert [line for line in lines if line.startswith("  ")] == named


def test_a_plan_names_ten_runs_at_most() -> None:
    study = load_study(changed(engine={"lockstep": ["task", "condition"]}))
    states: dict[Run, State] = {run: "valid" if run.condition == "control" else "missing" for run in study.runs()}
    lines = [line for line in plan_text(study, states).splitlines() if line.startswith("  ")]
    assert len(lines) == 11
    assert lines[-1] == "  … and 38 more; `wireheading status` shows all"


def test_records_without_a_report_close_with_their_place(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    told = f"the records are in {study.results}; snakemake without a target makes tables and report"
    assert closing_text(study) == told
    write_tables(study, Tables.of(study), lambda _: None)
    write_analysis(study, Tables.of(study), Analysis.of(study), Path("nowhere"), lambda _: None)
    assert closing_text(study) == outcome_text(study)
    study.record_path(study.runs()[0]).unlink()
    assert closing_text(study) == told
