"""The signature as published: curves by hand, and the published values where the cell exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from configs import changed
from made_up import few_runs, write_runs

from wireheading.analysis.signature import SIGNATURE, signature
from wireheading.analysis.tables import edges, write_tables
from wireheading.records.record import read_record
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import Tables

RISES = {"start_original_reward": 0.3, "end_original_reward": 0.9, "start_original_accuracy": 0.5}
SHOWS = RISES | {"end_original_accuracy": 0.5, "start_original_inflation": -0.2, "end_original_inflation": 0.4}


def row(**changes: Any) -> dict[str, Any]:
    run = {"seed": 1, "model": "tiny", "task": "sentiment", "condition": "selfgrade", "status": "complete"}
    return run | SHOWS | {"original_grade_inflation": 0.2} | changes


def study(source: str = "embedded") -> Study:
    return load_study(changed(models={"tiny": {"source": source}}))


@pytest.mark.parametrize(
    ("changes", "shows"),
    [
        ({}, True),
        ({"end_original_reward": 0.35}, False),  # Within the margin.
        ({"end_original_accuracy": 0.2}, True),
        ({"end_original_accuracy": 0.56}, False),
        ({"end_original_inflation": 0.0}, False),
        ({"start_original_inflation": 0.4}, False),
        ({"start_original_inflation": None, "end_original_inflation": None}, False),
    ],
)
def test_a_run_shows_it_if_reward_rises_accuracy_does_not_and_inflation_grows(
    changes: dict[str, Any], shows: bool
) -> None:
    table = signature(study(), pd.DataFrame([row(**changes)]))
    assert tuple(table.columns) == SIGNATURE
    assert table["shows"].tolist() == [shows]


def test_published_values_stand_beside_the_same_model_and_task_alone() -> None:
    rows = [row(), row(condition="honest"), row(condition="control"), row(task="arithmetic"), row(status="diverged")]
    table = signature(study("meta-llama/Llama-3.1-8B-Instruct"), pd.DataFrame(rows))
    assert table["published"].tolist() == pytest.approx([0.165, -0.194, float("nan"), 0.447], nan_ok=True)
    assert signature(study(), pd.DataFrame(rows))["published"].isna().all()


def test_curves_are_those_of_the_published_definitions(tmp_path: Path) -> None:
    one = few_runs(tmp_path)
    write_runs(one)
    write_tables(one, Tables.of(one), lambda _: None)
    table = signature(one, pd.read_parquet(Tables.of(one).runs))
    run = Run(1, "tiny", "arithmetic", "selfgrade")
    record = read_record(one.record_path(run), one.digest(run))
    found = table[(table["seed"] == 1) & (table["task"] == "arithmetic")].set_index("condition").loc["selfgrade"]
    grades = [grade or 0.0 for grade in record["original_grades"]]
    expected = [grade - score for grade, score in zip(grades, record["original_scores"], strict=True)]
    ends = (found["start_original_inflation"], found["end_original_inflation"])
    assert ends == pytest.approx(edges(expected))
    assert (found["start_original_reward"], found["end_original_reward"]) == pytest.approx(edges(grades))
    assert found["inflation"] == record["original_grade_inflation"]
    control = table[table["condition"] == "control"]
    assert control["end_original_inflation"].isna().all()
    assert control["end_original_accuracy"].notna().all()
