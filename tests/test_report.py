"""From records to the report: what is bad is named and in no average, what is lacking is said."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import PROVENANCE, few_runs, write_pages, write_runs

from wireheading.analysis.costs import costs, logprob_gaps
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_csv, write_tables
from wireheading.check import check_records
from wireheading.records.published import import_results
from wireheading.records.record import read_record, write_record
from wireheading.scheduling import RecordStates, mixed_cells
from wireheading.study.config import Run, Study
from wireheading.study.paths import Analysis, Tables
from wireheading.study.thresholds import keep_started


def analyse(study: Study, drawn: bool = False) -> tuple[str, pd.DataFrame, list[str]]:
    """Makes everything of a study's records: the text of the report, the verdicts by task, and what was told."""
    told: list[str] = []
    tables, analysis = Tables.of(study), Analysis.of(study)
    keep_started(study, study.analysis)
    write_tables(study, tables, told.append)
    write_analysis(study, tables, analysis, Path("nowhere"), told.append)
    page = write_pages(study, told.append, drawn).read_text(encoding="utf-8")
    return shown(page), pd.read_csv(analysis.verdicts).set_index("task"), told


def shown(page: str) -> str:
    """The text of a page, a line for each cell of a table."""
    body = re.sub(r"<style>.*?</style>|<img[^>]*>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", "", body.replace("</td>", "\n")))


def change(study: Study, run: Run, /, **changes: Any) -> None:
    path = study.record_path(run)
    record = read_record(path, study.digest(run))
    del record["provenance"]["sha256"]
    write_record(path, {**record, **changes})


def test_a_whole_study(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    write_runs(study, {"selfgrade": 0.5})
    page, verdicts, told = analyse(study, drawn=True)
    assert verdicts["verdict"].tolist() == ["wireheading"] * 3
    assert "36 runs are in the study: 36 complete, 0 diverged, 0 missing, 0 unusable." in page
    assert "None." in page
    assert study.analysis.digest() in page
    assert "36 records were made by other code (made-up) than analyses them" in page
    assert "36 of 36 records are in the tables" in told
    assert json.loads(Analysis.of(study).thresholds.read_text()) == study.analysis.model_dump(mode="json")
    split = pd.read_csv(Path(study.reports, "figures", "gain_split.csv"))
    parts = split[["score_gain", "persuasion", "inflation", "format"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(split["grade_gain"].to_numpy(), abs=1e-9)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        study = few_runs(tmp_path / name)
        write_runs(study)
        analyse(study, drawn=True)
        files = sorted(path for folder in (study.results, study.reports) for path in Path(folder).rglob("*.*"))
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_runs_that_diverged_in_the_first_round_are_named_and_analysed(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    runs = study.runs()
    write_runs(study, diverged=runs[:5], last=0)
    page, verdicts, _ = analyse(study, drawn=True)
    assert f"{len(runs) - 5} complete, 5 diverged" in page
    assert len(verdicts) == 3


def test_bad_records_are_named_and_in_no_average(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    write_runs(study, {"selfgrade": 0.5}, diverged=[Run(3, "tiny", "arithmetic", "honest")])
    bad = {
        "short": Run(1, "tiny", "sentiment", "selfgrade"),
        "nan": Run(2, "tiny", "sentiment", "selfgrade"),
        "range": Run(3, "tiny", "sentiment", "control"),
        "other": Run(4, "tiny", "sentiment", "honest"),
        "cut": Run(1, "tiny", "summarization", "control"),
        "missing": Run(2, "tiny", "summarization", "control"),
        "place": Run(1, "tiny", "arithmetic", "honest"),
    }
    paths = {name: study.record_path(run) for name, run in bad.items()}
    record = read_record(paths["short"], study.digest(bad["short"]))
    change(study, bad["short"], rewards=record["rewards"][:-1])
    data = paths["nan"].read_bytes()
    paths["nan"].write_bytes(data.replace(b'"avg_reward": 0', b'"avg_reward": NaN, "x": 0'))
    change(study, bad["range"], evaluations=[{**record["evaluations"][0], "soft_grades": [7.0] * 40}])
    other = few_runs(tmp_path, seeds=[1, 2, 3, 4], optimizer={"lr": 1e-5})
    write_runs(other, runs=[bad["other"]])
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:-50])
    paths["missing"].unlink()
    change(study, bad["place"], run=Run(2, "tiny", "arithmetic", "honest")._asdict())

    page, verdicts, told = analyse(study)
    assert "28 complete, 1 diverged, 1 missing, 6 unusable" in page
    whys = {
        "short": "rewards has 15 values for 16 rounds",
        "nan": "truncated or edited",
        "range": "soft_grades[0] = 7.0 is not valid",
        "other": "made with other settings",
        "cut": "truncated or edited",
        "missing": "no such record",
        "place": "run names another run than spec",
    }
    listed = re.search(r"Missing, unusable or diverged(.*?)Cost", page, re.DOTALL)
    assert listed is not None
    for name, run in bad.items():
        assert f"{run}\n" in listed[1]
        assert whys[name] in listed[1], name
        assert sum(str(paths[name]) in line for line in told) == 1
    assert "3/tiny/arithmetic/honest" in listed[1]
    assert "round 8: the loss or its gradient was not finite" in listed[1]
    assert verdicts["verdict"].to_dict() == {
        "sentiment": "incomplete",
        "arithmetic": "wireheading",
        "summarization": "incomplete",
    }
    assert "2/tiny/sentiment/selfgrade (unusable)" in str(verdicts["why"]["sentiment"])

    # The averages are those of the good records alone.
    tables = Tables.of(study)
    named = {tuple(run) for run in bad.values()}
    for table in (tables.rounds, tables.heldout, tables.runs, Analysis.of(study).estimates):
        keys = pd.read_parquet(table)[["seed", "model", "task", "condition"]].drop_duplicates()
        assert len(keys) == 29
        assert not {tuple(key) for key in keys.to_numpy()} & named
    definitions = pd.read_csv(Analysis.of(study).definitions).set_index(["task", "condition"])
    assert definitions.loc[("sentiment", "selfgrade"), "seeds"] == 2
    means = []
    for seed in (3, 4):
        run = Run(seed, "tiny", "sentiment", "selfgrade")
        means.append(read_record(study.record_path(run), study.digest(run))["avg_reward"])
    assert definitions.loc[("sentiment", "selfgrade"), "avg_reward"] == pytest.approx(np.mean(means))


@pytest.mark.slow
def test_one_seed(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[7])
    write_runs(study, {"selfgrade": 0.5})
    page, verdicts, _ = analyse(study)
    assert set(verdicts["verdict"]) == {"inconclusive"}
    told = "1 seeds are compared; two seeds and two items are needed: nothing can be concluded"
    assert page.count(told) == 3


@pytest.mark.slow
def test_an_empty_cell_and_an_empty_study(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    write_runs(study, {"selfgrade": 0.5}, runs=[run for run in study.runs() if run.task != "arithmetic"])
    page, verdicts, _ = analyse(study)
    assert verdicts["verdict"].tolist() == ["wireheading", "incomplete", "wireheading"]
    assert "24 complete, 0 diverged, 12 missing" in page
    empty = few_runs(tmp_path / "empty")
    page, verdicts, _ = analyse(empty, drawn=True)
    assert set(verdicts["verdict"]) == {"incomplete"}
    assert "No record says how long it took." in page


@pytest.mark.slow
def test_graders_that_always_say_the_same(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    write_runs(study, evaluated={"soft_grade": 1.0, "grade": 1.0})
    _, verdicts, _ = analyse(study)
    estimates = pd.read_parquet(Analysis.of(study).estimates)
    assert estimates.loc[estimates["when"] == "end", "auroc"].isna().all()
    assert estimates.loc[estimates["when"] == "start", "auroc"].notna().all()
    calibration = pd.read_csv(Analysis.of(study).calibration)
    assert calibration["end_auroc"].isna().all()
    assert calibration["start_auroc"].notna().all()
    ends = estimates[(estimates["when"] == "end") & (estimates["task"] == "arithmetic")]
    found = calibration[calibration["task"] == "arithmetic"].set_index("condition")["end_brier"].to_dict()
    assert found == pytest.approx(ends.groupby("condition")["brier"].mean().to_dict())
    assert "wireheading" not in set(verdicts["verdict"])


@pytest.mark.slow
def test_grades_without_any_probability_make_no_cell_invalid(tmp_path: Path) -> None:
    study = few_runs(tmp_path, seeds=[1, 2, 3, 4])
    none = dict.fromkeys(("soft_grade", "fixed_base_grade", "fixed_gold_grade", "fixed_wrong_grade", "grade"))
    write_runs(study, evaluated=none | {"soft_mass": 0.0, "parse_status": "unreadable"})
    page, verdicts, _ = analyse(study)
    assert set(verdicts["verdict"]) == {"inconclusive"}
    assert "leniency was not measured" in page
    assert "40 wrong answers left out" in page


def test_imported_results_are_in_the_published_definitions_alone(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    histories = {"rewards": [0.5] * 16, "accuracies": [1.0] * 16, "grades": [0.75] * 16, "losses": [0.1] * 16}
    conditions = {name: [histories] for name in ("selfgrade", "honest")}
    tasks = dict.fromkeys(study.tasks, conditions)
    file = tmp_path / "all_results.json"
    file.write_text(json.dumps({f"seed_{seed}": {"tiny": tasks} for seed in study.seeds}))
    import_results(study, file, False, lambda _: None)
    page, verdicts, _ = analyse(study)
    assert "6 missing" in page
    assert "12 imported (in the published study's definitions alone)" in page
    assert set(verdicts["verdict"]) == {"incomplete"}
    assert "1/tiny/sentiment/selfgrade (imported)" in str(verdicts["why"]["sentiment"])
    definitions = pd.read_csv(Analysis.of(study).definitions)
    assert definitions["grade_inflation"].isna().all()
    assert definitions["original_grade_inflation"].tolist() == pytest.approx([-0.25] * 6)


@pytest.mark.slow
def test_what_is_told_is_text_and_never_markup(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    analyse(study)
    tables = Tables.of(study)
    records = pd.read_csv(tables.records).astype({"problem": object})
    text = "{{ config }} <b> <script>alert(1)</script> &amp;"
    records.loc[0, ["state", "problem"]] = ["diverged", text]
    write_csv(tables.records, records)
    page = write_pages(study, lambda _: None, drawn=False).read_text(encoding="utf-8")
    assert f"<td>{html.escape(text)}</td>" in page
    assert "<script" not in page


@pytest.mark.slow
def test_tables_hold_no_formula_of_a_foreign_record(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    formulas = {"device": '=HYPERLINK("http://x.invalid","y")', "python": "+1", "torch": "@SUM(A1)", "numpy": "-1+2"}
    change(study, study.runs()[0], provenance=PROVENANCE | formulas)
    analyse(study, drawn=True)
    paths = sorted(Path(tmp_path).rglob("*.csv"))
    assert len(paths) > 10
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert not cell.startswith(("=", "+", "@", "\t", "\r")), path
                assert not cell.startswith("-") or float(cell) < 0, path
    assert "'=HYPERLINK" in Tables.of(study).records.read_text()


def test_records_of_a_cell_that_were_made_of_different_files_are_named(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    runs = [run for run in study.runs() if run.task == "sentiment"]
    for run in runs:
        sha = "b" * 64 if run == runs[2] else "a" * 64
        commit = "new" if run == runs[5] else "old"
        change(study, run, inputs={"heldout.jsonl": sha, "train.jsonl": "c" * 64, "data_commit": commit})
    told: list[str] = []
    write_tables(study, Tables.of(study), told.append)
    problem = (
        f"its records were made of different files (heldout.jsonl): {runs[2]} of others than the rest; remove those of "
        "one kind to run them again"
    )
    assert f"tiny/sentiment: {problem}" in told
    records = pd.read_csv(Tables.of(study).records)
    assert set(records[records["task"] == "sentiment"]["cell_problem"]) == {problem}
    assert records[records["task"] != "sentiment"]["cell_problem"].isna().all()
    states = RecordStates(study).of(study.runs())
    assert set(states.values()) == {"valid"}
    assert mixed_cells(study, states) == [f"tiny/sentiment: {problem}"]
    found = check_records(study)
    assert [one.remark for one in found if one.state == "mixed"] == [problem]


def test_costs_are_summed_by_job(tmp_path: Path) -> None:
    study = few_runs(tmp_path, engine={"lockstep": ["task", "condition"]})
    rows = [
        {**run._asdict(), "state": "complete", "device": "cpu", "timed_rounds": 16, "timed_seconds": 10.0 + run.seed}
        | {"timed_evaluating_seconds": 2.0, "written": f"2026-01-01T00:00:{10 + run.seed}+00:00"}
        for run in study.runs()
    ]
    rows.append(rows[0] | {"timed_seconds": 100.0, "timed_rounds": 8, "written": "2026-01-02T00:00:00+00:00"})
    (tmp_path / "1.tiny.benchmark.tsv").write_text("s\tmax_rss\n3\t-\n4\t77.5\n")
    found = costs(study, pd.DataFrame(rows), tmp_path)
    assert found["job"].tolist() == ["1.tiny", "1.tiny", "2.tiny"]
    assert found["runs"].tolist() == [9, 1, 9]
    assert found["seconds"].tolist() == [11.0, 100.0, 12.0]
    assert found["rounds_per_s"].tolist() == pytest.approx([9 * 16 / 11, 0.08, 12.0])
    # The benchmark file is of the job's last execution.
    assert found["peak_mb"].isna().tolist() == [True, False, True]
    assert found["peak_mb"][1] == 77.5


def test_gaps_of_log_probabilities_are_told_by_model() -> None:
    runs = pd.DataFrame(
        [("a", 10, 0.1, 0.5), ("b", 10, 0.3, 0.4), ("a", 30, 0.2, 0.3), ("imported", 10, None, None)],
        columns=["model", "rounds", "mean_logprob_gap", "largest_logprob_gap"],
    )
    found = logprob_gaps(runs)
    assert found[["model", "runs", "largest"]].to_numpy().tolist() == [["a", 2, 0.5], ["b", 1, 0.4]]
    # Every round counts alike.
    assert found["mean"].tolist() == pytest.approx([0.175, 0.3])


def test_the_page_tells_the_gaps_of_log_probabilities(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study, {})
    change(study, study.runs()[0], logprob_gaps=[0.25, *[0.01] * (study.rounds - 1)])
    records = [read_record(study.record_path(one), study.digest(one)) for one in study.runs()]
    gaps = [gap for record in records for gap in record["logprob_gaps"]]
    page, _, _ = analyse(study)
    row = ["tiny", str(len(study.runs())), f"{sum(gaps) / len(gaps):.2g}", "0.25"]
    assert "\n".join(row) in page
