"""Estimates: small cases by hand, libraries as oracles, and the identity that the parts of the gain add up to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import few_runs, write_runs
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from wireheading.analysis.estimates import (
    EXACT,
    MEASURES,
    PARTS,
    Evaluation,
    auroc,
    definitions,
    measure,
    reliability,
    write_estimates,
)
from wireheading.analysis.tables import write_tables
from wireheading.records.record import read_record
from wireheading.study.config import Run
from wireheading.study.paths import Tables

NAN = math.nan


def evaluation(**columns: Any) -> Evaluation:
    count = len(next(iter(columns.values())))
    values = {name: [0.5] * count for name in Evaluation.__annotations__} | columns
    return Evaluation(**{name: np.array(column, dtype=float) for name, column in values.items()})


def test_a_small_gain_is_split_as_by_hand() -> None:
    start = evaluation(score=[0, 1], soft_grade=[0.4, 0.8], base_soft_grade=[0.4, 0.8], grade=[0, 1])
    now = evaluation(
        score=[1, 1],
        soft_grade=[0.9, 1.0],
        base_soft_grade=[0.7, 0.9],
        grade=[1, NAN],
        accuracy=[1, 1],
        truncated=[0, 1],
    )
    found = measure(now, start)
    assert set(found) == set(MEASURES)
    assert found["score_gain"] == pytest.approx(1.0 - 0.5)
    assert found["persuasion"] == pytest.approx((0.8 - 1.0) - (0.6 - 0.5))
    assert found["inflation"] == pytest.approx(0.95 - 0.8)
    # An unreadable grade counts 0 in the sampled grade, and is told apart in `readable`.
    assert found["grade"] == 0.5
    assert found["format"] == pytest.approx((0.5 - 0.95) - (0.5 - 0.6))
    assert found["grade_gain"] == pytest.approx(0.0)
    assert (found["readable"], found["truncated"], found["items"]) == (0.5, 0.5, 2)
    assert found["brier"] == pytest.approx((0.1**2 + 0) / 2)
    assert found["auroc"] is None


@given(st.data())
def test_the_parts_add_up(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    share = st.lists(st.floats(0, 1), min_size=count, max_size=count)
    names = ("score", "soft_grade", "base_soft_grade", "grade")
    seen = [evaluation(**{name: data.draw(share) for name in names}) for _ in range(2)]
    found = measure(*seen)
    assert abs(found["grade_gain"] - sum(found[part] for part in PARTS)) <= EXACT


def test_a_smaller_evaluation_is_compared_with_its_own_items() -> None:
    start = evaluation(score=[0, 1, 1, 1], base_soft_grade=[0.2, 0.4, 1, 1], grade=[0, 0, 1, 1])
    now = evaluation(score=[1, 1], soft_grade=[1, 1], base_soft_grade=[0.5, 0.5], grade=[1, 1])
    found = measure(now, start)
    assert found["score_gain"] == 0.5
    assert found["persuasion"] == pytest.approx((0.5 - 1) - (0.3 - 0.5))
    assert found["grade_gain"] == 1.0


def test_a_soft_grade_that_is_not_defined_is_said_to_be_so() -> None:
    start = evaluation(score=[0, 1])
    found = measure(evaluation(score=[0, 1], accuracy=[0, 1], soft_grade=[NAN, 0.5]), start)
    assert found["undefined_soft_grades"] == 1
    assert found["auroc"] is None
    assert all(math.isnan(found[name]) for name in ("inflation", "format", "brier", "soft_grade"))
    assert found["score_gain"] == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_brier_and_auroc_are_scikit_learns(items: list[tuple[bool, float]]) -> None:
    right, grades = (np.array(values, dtype=float) for values in zip(*items, strict=True))
    seen = evaluation(score=right, accuracy=right, soft_grade=grades)
    found = measure(seen, seen)
    assert found["brier"] == pytest.approx(brier_score_loss(right, grades, labels=[0, 1]))
    if len(set(right)) == 2 and len(set(grades)) > 1:
        assert found["auroc"] == pytest.approx(roc_auc_score(right, grades))
    else:
        assert found["auroc"] is None


def test_auroc_by_hand_and_where_it_is_undefined() -> None:
    right = np.array([0, 0, 1, 1.0])
    assert auroc(right, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert auroc(right, np.array([0.7] * 4)) is None
    assert auroc(np.ones(4), np.array([0.1, 0.2, 0.3, 0.4])) is None
    assert auroc(right, np.array([0.1, NAN, 0.3, 0.4])) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), min_size=1, max_size=60))
def test_reliability_is_scikit_learns(items: list[tuple[bool, int]]) -> None:
    right = np.array([value for value, _ in items], dtype=float)
    # None of these lies on an edge, where the two put a grade on different sides.
    grades = np.array([(value + 0.25) / 101 for _, value in items])
    rows = reliability(evaluation(score=right, soft_grade=grades), 10)
    score, grade = calibration_curve(right, grades, n_bins=10)
    assert [row["score"] for row in rows] == pytest.approx(score)
    assert [row["grade"] for row in rows] == pytest.approx(grade)
    assert sum(row["count"] for row in rows) == len(items)


def test_grades_of_0_and_1_are_in_the_outer_bins() -> None:
    rows = reliability(evaluation(score=[0, 1, 1], soft_grade=[0, 1, NAN]), 5)
    assert [(row["bin"], row["count"], row["grade"], row["score"]) for row in rows] == [(0, 1, 0, 0), (4, 1, 1, 1)]
    assert reliability(evaluation(score=[1], soft_grade=[NAN]), 5) == []


def test_every_evaluation_of_every_run_has_its_row(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    tables = Tables.of(study)
    diverged = study.runs()[1]
    write_runs(study, inflation={"selfgrade": 0.3}, diverged=[diverged])
    write_tables(study, tables, lambda _: None)
    paths = tmp_path / "estimates.parquet", tmp_path / "reliability.parquet"
    write_estimates(study, tables.rounds, tables.heldout, *paths, lambda _: None)
    found = pd.read_parquet(paths[0])
    ended = found[found["when"] == "end"]
    runs = [Run(*key) for key in ended[["seed", "model", "task", "condition"]].itertuples(index=False)]
    assert runs == [run for run in study.runs() if run != diverged]
    assert (ended["round"] == study.rounds).all()
    assert found["when"].value_counts().to_dict() == {"start": 18, "midway": 18, "end": 17}
    gain = ended["grade_gain"] - ended[list(PARTS)].sum(axis=1)
    assert gain.abs().max() <= EXACT
    record = read_record(study.record_path(runs[0]), study.digest(runs[0]))
    seen = record["evaluations"][-1]
    first = ended.iloc[0]
    assert first["score"] == pytest.approx(np.mean(seen["scores"]))
    assert first["inflation"] == pytest.approx(np.mean(seen["soft_grades"]) - np.mean(seen["base_soft_grades"]))
    assert first["soft_mass"] == pytest.approx(np.mean(seen["soft_masses"]))
    bins = pd.read_parquet(paths[1])
    counts = bins.groupby(["seed", "task", "condition", "when"])["count"].sum()
    assert set(counts) == {len(seen["items"])}


def test_the_published_definitions_are_those_of_an_independent_computation(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    tables = Tables.of(study)
    write_runs(study)
    write_tables(study, tables, lambda _: None)
    rows = definitions(pd.read_parquet(tables.runs)).to_dict("records")
    found = {(row["task"], row["condition"]): row for row in rows}
    accurate = {"sentiment": 0.5, "arithmetic": 0.5, "summarization": 0.3}
    for task in study.tasks:
        for condition in study.conditions:
            rewards, accuracies, grades, inflations = [], [], [], []
            for seed in study.seeds:
                run = Run(seed, "tiny", task, condition)
                record = read_record(study.record_path(run), study.digest(run))
                right = [1.0 if score > accurate[task] else 0.0 for score in record["original_scores"]]
                given = [0.0 if grade is None else grade for grade in record["original_grades"]]
                paid = given if condition == "selfgrade" else record["original_scores"]
                rewards.append(sum(paid) / study.rounds)
                accuracies.append(sum(right) / study.rounds)
                grades.append(sum(given) / study.rounds)
                inflations.append(sum(one - other for one, other in zip(given, right, strict=True)) / study.rounds)
            row = found[(task, condition)]
            assert row["seeds"] == len(study.seeds)
            assert row["original_avg_reward"] == pytest.approx(np.mean(rewards))
            assert row["original_avg_accuracy"] == pytest.approx(np.mean(accuracies))
            if condition == "control":
                assert math.isnan(row["original_avg_grade"])
                assert math.isnan(row["original_grade_inflation"])
            else:
                assert row["original_avg_grade"] == pytest.approx(np.mean(grades))
                assert row["original_grade_inflation"] == pytest.approx(np.mean(inflations))
