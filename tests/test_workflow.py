"""The workflow from nothing to the report, at a small size: what is made, and what is redone."""

from __future__ import annotations

import os
import shutil

import pandas as pd
import pytest
from configs import ROOT
from workplace import CONFIG, Workplace, science

from wireheading.analysis.figures import FIGURES
from wireheading.records.record import read_record

pytestmark = pytest.mark.slow


def test_everything_is_made(finished: Workplace) -> None:
    study = finished.configure()
    assert len(finished.records(study)) == 12
    for run in study.runs():
        record = read_record(finished.folder / study.record_path(run), study.digest(run))
        assert record["status"] == "complete"
        assert record["timing"]["rounds"] == 4
    runs = pd.read_parquet(finished.folder / "results" / "runs.parquet")
    rounds = pd.read_parquet(finished.folder / "results" / "rounds.parquet")
    assert (len(runs), len(rounds)) == (12, 48)
    figures = {path.stem for path in (finished.folder / "reports" / "figures").glob("*.svg")}
    assert figures == set(FIGURES)
    assert figures == {path.stem for path in (finished.folder / "reports" / "figures").glob("*.csv")}
    assert [*finished.folder.glob("results/**/*.checkpoint")] == []
    page = (finished.folder / "reports" / "transcripts.html").read_text(encoding="utf-8")
    assert page.count('"condition":"selfgrade"') == 6
    verdicts = pd.read_csv(finished.folder / "reports" / "verdicts.csv")
    assert sorted(verdicts["task"]) == sorted(study.tasks)
    assert set(verdicts["seeds"]) == {2}
    assert "incomplete" not in set(verdicts["verdict"])


def test_snakemakes_own_report_has_the_figures(finished: Workplace) -> None:
    assert "Report created" in finished.snakemake("--report", "figures.html")
    page = (finished.folder / "figures.html").read_text(encoding="utf-8")
    assert all(f"figures/{name}.svg" in page for name in FIGURES)


def test_finished_work_is_believed_where_snakemake_remembers_nothing(workplace: Workplace) -> None:
    assert "Nothing to be done" in workplace.snakemake()


def test_copied_results_are_believed_whatever_their_times(workplace: Workplace) -> None:
    """As after a copy that does not keep times: what is read may be newer than what was made of it."""
    files = sorted((path for path in workplace.folder.glob("res*/**/*") if path.is_file()), reverse=True)
    for age, path in enumerate(files):
        os.utime(path, (1.7e9 + age, 1.7e9 + age))
    told = workplace.snakemake("-n")
    assert "records: 12 valid, 0 missing, 0 stale, 0 corrupt" in told
    assert "rl_run" not in told


def test_edited_code_redoes_nothing(workplace: Workplace) -> None:
    for name in ("src", "workflow"):
        (workplace.folder / name).unlink()
        shutil.copytree(ROOT / name, workplace.folder / name)
    for path in workplace.folder.glob("src/**/experiment.py"), workplace.folder.glob("workflow/**/rl_run.py"):
        with next(path).open("a", encoding="utf-8") as file:
            file.write("\nEDITED = True\n")
    assert "Nothing to be done" in workplace.snakemake()


def test_what_is_missing_corrupt_or_stale_is_named_and_redone_and_nothing_else(workplace: Workplace) -> None:
    study = workplace.configure()
    before = workplace.records(study)
    runs = study.runs()
    missing, truncated, edited = runs[3], runs[8], runs[10]
    (workplace.folder / study.record_path(missing)).unlink()
    (workplace.folder / study.record_path(truncated)).write_bytes(before[truncated][:-20])
    rewards = before[edited].index(b'"rewards": [')
    forged = before[edited][:rewards] + before[edited][rewards:].replace(b"0.0", b"1.0", 1)
    assert forged != before[edited]
    (workplace.folder / study.record_path(edited)).write_bytes(forged)
    told = workplace.snakemake("-n")
    assert "9 valid, 1 missing, 0 stale, 2 corrupt" in told
    assert f"missing: {missing}" in told
    assert f"corrupt: {truncated}" in told
    assert f"corrupt: {edited}" in told

    told = workplace.make_records(study)
    assert "9 of 12 runs have their record; 3 to do" in told
    after = workplace.records(study)
    assert {run for run in runs if after[run] != before[run]} <= {missing, truncated, edited}
    assert {run: science(after[run]) for run in runs} == {run: science(before[run]) for run in runs}
    record = read_record(workplace.folder / study.record_path(missing), study.digest(missing))
    assert (record["timing"]["first_round"], record["timing"]["rounds"]) == (0, 4)

    tasks = {**CONFIG["tasks"], "sentiment": {**CONFIG["tasks"]["sentiment"], "prompt": "{text}\n"}}
    changed_study = workplace.configure(tasks=tasks)
    told = workplace.snakemake("-n")
    assert "8 valid, 0 missing, 4 stale, 0 corrupt" in told
    assert "stale: 42/tiny/sentiment/control" in told
    workplace.make_records(changed_study)
    redone = workplace.records(changed_study)
    assert {run.task for run in runs if redone[run] != after[run]} == {"sentiment"}


def test_a_changed_threshold_redoes_the_analysis_alone(workplace: Workplace) -> None:
    names = [path for name in ("results", "reports") for path in (workplace.folder / name).rglob("*.*")]
    before = {path: path.read_bytes() for path in names if path.is_file()}
    told = workplace.snakemake("--config", "analysis={margin: 0.1}")
    (steps,) = (line for line in told.splitlines() if line.startswith("steps: "))
    assert set(steps.removeprefix("steps: ").split(", ")) == {"1 analyse", "1 figures", "1 report", "1 transcripts"}
    (folder,) = (workplace.folder / "reports").glob("thresholds-*")
    assert '"margin": 0.1' in (folder / "analysis.json").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "margin is 0.1 and was 0.05 when the study started" in page
    assert {path: path.read_bytes() for path in before} == before
    # The study's own report stays as it is, and neither is made again without a reason.
    assert "Nothing to be done" in workplace.snakemake("--config", "analysis={margin: 0.1}")
    assert "Nothing to be done" in workplace.snakemake()


def test_thresholds_changed_in_the_file_replace_the_report_and_say_so(workplace: Workplace) -> None:
    report = workplace.folder / "reports" / "report.html"
    assert "The rule and its thresholds were fixed before" in report.read_text(encoding="utf-8")
    workplace.configure(analysis={"margin": 0.1})
    assert "reports: the report there has other thresholds and is replaced" in workplace.snakemake("-n")
    told = workplace.snakemake()
    assert "exploratory: margin is 0.1 and was 0.05 when the study started" in told
    page = report.read_text(encoding="utf-8")
    assert "Exploratory." in page
    assert "The rule and its thresholds were fixed before" not in page
    workplace.configure()
    workplace.snakemake()
    assert "Exploratory." not in report.read_text(encoding="utf-8")


def test_a_second_study_replaces_the_report_of_the_first_and_says_so(workplace: Workplace) -> None:
    workplace.configure(seeds=[7], conditions=["control", "selfgrade"])
    told = workplace.snakemake("-n")
    assert "reports: the report there has 12 runs that this study does not have, such as 42/tiny/" in told
    assert "is replaced; set `reports` to another folder to keep it" in told
    workplace.configure(seeds=[7], reports="reports/second")
    assert "is replaced" not in workplace.snakemake("-n")


def test_a_partial_report_is_of_what_is_there_and_runs_nothing(workplace: Workplace) -> None:
    study = workplace.configure()
    missing, corrupt = study.runs()[3], study.runs()[8]
    (workplace.folder / study.record_path(missing)).unlink()
    path = workplace.folder / study.record_path(corrupt)
    path.write_bytes(path.read_bytes()[:-20])
    shutil.rmtree(workplace.folder / "resources")
    told = workplace.snakemake("--config", "partial=True")
    assert "10 of 12 records are in the tables" in told
    page = (workplace.folder / "reports" / "report.html").read_text(encoding="utf-8")
    assert "10 complete, 0 diverged, 1 missing, 1 unusable" in page
    assert "Nothing to be done" in workplace.snakemake("--config", "partial=True")
    assert not (workplace.folder / "resources").exists()


def test_damaged_tables_and_analyses_are_made_again(workplace: Workplace) -> None:
    results, reports = workplace.folder / "results", workplace.folder / "reports"
    rounds = results / "rounds.parquet"
    whole = rounds.read_bytes()
    (reports / "analysis.json").write_bytes(b"\xff\x00")
    (results / "records.csv").write_bytes(b'\xff"\n')
    rounds.write_bytes(whole[: len(whole) // 2])
    told = workplace.snakemake("-n")
    assert "12 valid, 0 missing, 0 stale, 0 corrupt" in told
    assert "aggregate" in told
    assert "rl_run" not in told
    workplace.snakemake()
    assert rounds.read_bytes() == whole
    assert "Nothing to be done" in workplace.snakemake("-n")


def test_items_that_were_edited_stop_the_job_and_cost_no_record(workplace: Workplace) -> None:
    study = workplace.configure()
    run = study.runs()[0]
    (workplace.folder / study.record_path(run)).unlink()
    items = workplace.folder / study.items_folder(run.task) / "heldout.jsonl"
    text = items.read_text(encoding="utf-8")
    assert '"label": "positive"' in text
    items.write_text(text.replace('"label": "positive"', '"label": "negative"'), encoding="utf-8")
    told = workplace.snakemake(succeeds=False)
    assert f"{study.items_folder(run.task)}/heldout.jsonl: was changed since source.json was written" in told
    assert "11 valid, 1 missing, 0 stale, 0 corrupt" in workplace.snakemake("-n")


def test_a_part_has_tables_and_a_report_of_its_own(workplace: Workplace) -> None:
    files = [path for name in ("results", "reports") for path in workplace.folder.rglob(f"{name}/*.*")]
    made = {path: path.read_bytes() for path in files if path.is_file()}
    assert len(made) > 10
    workplace.snakemake("--config", "seeds=[42]")
    part = workplace.folder / "reports" / "part-42"
    assert len(pd.read_csv(part / "records.csv")) == 6
    assert set(pd.read_csv(part / "verdicts.csv")["verdict"]) == {"inconclusive"}
    assert (part / "transcripts.html").exists()
    assert "A part of the study:" in (part / "report.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in made} == made
    # The same part, chosen in the other way.
    assert "Nothing to be done" in workplace.snakemake("--config", "only={seeds: [42]}")
    assert "Nothing to be done" in workplace.snakemake()


def test_a_study_on_oversight_has_its_page_and_its_figures(workplace: Workplace) -> None:
    row = {"grader": "policy", "reward": "grade", "credit": "both"}
    rows = [{"name": "audit-50", **row, "audit": 0.5}, {"name": "reform", **row, "until": 2}]
    asked = {"midway_rounds": [2], "midway_items": 3, "transfer": True}
    study = workplace.configure(conditions=["control", "selfgrade", *rows], evaluation=asked, results="o", reports="r")
    assert "oversight" not in workplace.snakemake(
        "-n", "--config", "conditions=[control]", "evaluation={transfer: false}"
    )
    workplace.snakemake()
    reports = workplace.folder / "r"
    assert len(workplace.records(study)) == 24
    made = {path.stem for path in (reports / "figures").glob("*.svg")}
    captions = {path.stem for path in (ROOT / "workflow" / "report" / "oversight").glob("*.rst")}
    assert captions - made == {"page"}
    assert len(pd.read_csv(reports / "oversight.csv")) == 12
    assert "How much truth" in (reports / "oversight.html").read_text(encoding="utf-8")
    assert 'href="oversight.html"' in (reports / "report.html").read_text(encoding="utf-8")
    assert "Report created" in workplace.snakemake("--report", "r/snakemake.html")
    (reports / "figures" / "reform.svg").unlink()
    assert "oversight" in workplace.snakemake("-n")


def test_records_can_be_named_as_targets(workplace: Workplace) -> None:
    study = workplace.configure()
    before = workplace.records(study)
    wanted, other = study.runs()[0], study.runs()[7]
    for run in (wanted, other):
        (workplace.folder / study.record_path(run)).unlink()
    told = workplace.snakemake(str(study.record_path(wanted)))
    assert "0 of 1 runs have their record; 1 to do" in told
    assert not (workplace.folder / study.record_path(other)).exists()
    assert science((workplace.folder / study.record_path(wanted)).read_bytes()) == science(before[wanted])
