"""Which thresholds a study started with, and what is said where it is judged by others."""

from __future__ import annotations

from pathlib import Path

import pytest
from configs import changed
from made_up import few_runs

from wireheading.analysis.currency import replaced_report
from wireheading.scheduling import declare_part, keep_thresholds
from wireheading.study.config import load_study
from wireheading.study.paths import Analysis
from wireheading.study.thresholds import departures, keep_started, started_path


def test_a_study_keeps_the_thresholds_that_it_started_with(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    keep_started(study, study.analysis)
    assert departures(study) == []
    later = few_runs(tmp_path, analysis={"margin": 0.1, "excluded": ["1/tiny/arithmetic/control"]})
    keep_started(later, later.analysis)
    assert started_path(study).read_text() == study.analysis.text()
    assert departures(later) == [
        "margin is 0.1 and was 0.05 when the study started",
        'excluded is ["1/tiny/arithmetic/control"] and was [] when the study started',
    ]


def test_thresholds_of_the_command_line_are_not_those_of_the_file(tmp_path: Path) -> None:
    folders = {"results": str(tmp_path), "seeds": [1]}
    study = load_study(changed(analysis__margin=0.1, **folders))
    keep_thresholds(study, changed(**folders))
    assert departures(study) == ["margin is 0.1 and was 0.05 when the study started"]


def test_after_the_first_run_nobody_knows_what_was_planned(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    transcript = study.record_path(study.runs()[0]).with_suffix(".parquet")
    transcript.parent.mkdir(parents=True)
    transcript.touch()
    keep_started(study, study.analysis)
    assert not started_path(study).exists()
    (line,) = departures(study)
    assert line.startswith("it is not known which thresholds the study started with: there is no ")


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"margin": 7}', b'{"unknown": 1}'])
def test_a_damaged_file_is_not_believed(tmp_path: Path, content: bytes) -> None:
    study = few_runs(tmp_path)
    started_path(study).parent.mkdir(parents=True)
    started_path(study).write_bytes(content)
    (line,) = departures(study)
    assert line.endswith("is damaged")


def test_other_thresholds_on_the_command_line_have_a_report_of_their_own() -> None:
    config = changed(analysis__margin=0.1)
    declare_part(config, changed())
    study = load_study(config)
    assert study.reports == f"reports/thresholds-{study.analysis.digest()[:8]}"
    assert {path.parent for path in vars(Analysis.of(study)).values()} == {Path(study.reports)}
    declare_part(config, changed())
    assert load_study(config).reports == study.reports
    same = changed()
    declare_part(same, changed())
    assert load_study(same).reports == "reports"
    part = changed(analysis__margin=0.1, seeds=[42])
    declare_part(part, changed())
    assert load_study(part).reports == f"{study.reports}/part-42"


def test_a_report_of_other_runs_or_thresholds_is_not_replaced_in_silence(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    assert replaced_report(study) == []
    analysis = Analysis.of(study)
    analysis.thresholds.parent.mkdir(parents=True)
    analysis.thresholds.write_text(study.analysis.text())
    rows = [",".join(map(str, run)) for run in study.runs()]
    analysis.signature.write_text("\n".join(["seed,model,task,condition", *rows]) + "\n")
    assert replaced_report(study) == []
    assert replaced_report(few_runs(tmp_path, seeds=[1, 2, 3])) == []
    (line,) = replaced_report(few_runs(tmp_path, seeds=[2, 3]))
    assert line.startswith(f"{tmp_path}/reports: the report there has 9 runs that this study does not have, such as 1/")
    (line,) = replaced_report(few_runs(tmp_path, analysis={"margin": 0.1}))
    assert "has other thresholds and is replaced" in line
