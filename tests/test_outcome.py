"""The headlines of a study on a terminal: `wireheading report`, and the last lines of an invocation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from configs import changed
from made_up import few_runs, write_runs

from wireheading import cli
from wireheading.analysis.outcome import outcome_text
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.errors import InputError
from wireheading.study.config import Study, load_study
from wireheading.study.paths import Analysis, Tables


def analyse(study: Study) -> None:
    write_tables(study, Tables.of(study), lambda _: None)
    write_analysis(study, Tables.of(study), Analysis.of(study), Path("nowhere"), lambda _: None)


def test_a_line_has_headline_start_and_end(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    write_runs(study, {"selfgrade": 0.5})
    analyse(study)
    estimates = pd.read_parquet(Analysis.of(study).estimates)
    own = estimates[(estimates["task"] == "arithmetic") & (estimates["condition"] == "selfgrade")]
    start, end = (own.loc[own["when"] == when, "grade"].mean() for when in ("start", "end"))
    text = outcome_text(study)
    lines = text.splitlines()
    assert [line.split("   ")[0].strip() for line in lines[:3]] == [f"tiny · {task}" for task in study.enabled_tasks]
    line = next(line for line in lines if "arithmetic" in line)
    assert line.startswith(
        f"tiny · arithmetic      wireheading   selfgrade's paid reward {start:.2f} → {end:.2f}, score "
    )
    assert "; control's score " in line
    assert lines[3:] == ["", f"verdicts    {study.reports}/verdicts.csv"]
    Path(study.reports, "report.html").touch()
    assert f"report      {study.reports}/report.html" in outcome_text(study).splitlines()


def test_what_a_cell_lacks_has_a_dash(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study, runs=[run for run in study.runs() if run.condition == "control"])
    analyse(study)
    assert outcome_text(study).splitlines()[0].startswith("tiny · sentiment       incomplete   ")
    assert "selfgrade's paid reward –, score –; control's score 0." in outcome_text(study)


def test_the_command_tells_of_the_study_and_of_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = changed(seeds=[1, 2], rounds=16, evaluation={"midway_rounds": [8], "midway_items": 10})
    Path("study.yaml").write_text(yaml.safe_dump(content))
    report = ["report", "--configfile", "study.yaml"]
    assert cli.main(report) == 1
    assert (
        capsys.readouterr().err == "reports/verdicts.csv: no such file; run the study first, or give its --configfile\n"
    )
    whole, part = load_study(content), load_study(content | {"only": {"tasks": ["arithmetic"]}})
    write_runs(whole)
    for study in (whole, part):
        analyse(study)
    assert cli.main(report) == 0
    assert capsys.readouterr() == (outcome_text(whole) + "\n", "")
    assert cli.main([*report, "--only", "{tasks: [arithmetic]}"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "a part of the study: tasks arithmetic"
    assert told[1].startswith("tiny · arithmetic ")
    assert told[-1] == "verdicts    reports/part-arithmetic/verdicts.csv"
    with pytest.raises(SystemExit):
        cli.main([*report, "--only", "{tasks"])
    assert "'{tasks': not YAML" in capsys.readouterr().err
    Path("study.yaml").write_text(yaml.safe_dump(content | {"analysis": {"margin": 0.2}}))
    assert cli.main(report) == 0
    assert "made with other settings of `analysis`" in capsys.readouterr().err


def test_a_damaged_analysis_is_named(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    analyse(study)
    Analysis.of(study).verdicts.write_text("nothing\n1\n")
    with pytest.raises(InputError, match=r"verdicts\.csv: cannot be read"):
        outcome_text(study)
