"""Tables and figures of records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from configs import changed
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wireheading.analysis.figures.training import interval, write_figures
from wireheading.analysis.tables import edges
from wireheading.study.config import load_study
from wireheading.study.paths import Tables


def test_a_curve_starts_and_ends_with_an_eighth_of_its_rounds() -> None:
    assert edges([float(value) for value in range(16)]) == (0.5, 14.5)
    assert edges([3.0]) == (3.0, 3.0)
    assert edges([None, 1.0, *[0.0] * 12, None, 5.0]) == (1.0, 5.0)
    start, end = edges([None] * 8)
    assert np.isnan(start)
    assert np.isnan(end)
    assert all(np.isnan(edge) for edge in edges([]))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_intervals_are_scipys(values: list[float]) -> None:
    mean, low, high, count = interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert count == len(values)
    if np.ptp(values) > 1e-6:
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_a_single_value_is_its_own_interval() -> None:
    assert interval([0.25]) == (0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_figures_are_drawn_of_any_number_of_seeds(tmp_path: Path, seeds: int) -> None:
    keys = [
        {"seed": seed, "model": "tiny", "task": "arithmetic", "condition": condition}
        for seed in range(seeds)
        for condition in ("control", "self-2")
    ]
    runs = pd.DataFrame(
        [
            {**key, "end_inflation": 0.1 if key["condition"] == "self-2" else None, "end_reward": 0.5}
            | {"end_score": 0.5, "status": "complete"}
            for key in keys
        ],
        columns=["seed", "model", "task", "condition", "status", "end_inflation", "end_reward", "end_score"],
    )
    rounds = pd.DataFrame(
        [
            {**key, "round": round_, "reward": 0.5, "score": 1.0, "grade": None, "parse_status": "unreadable"}
            for key in keys
            for round_ in range(8)
        ],
        columns=["seed", "model", "task", "condition", "round", "reward", "score", "grade", "parse_status"],
    )
    own = {"name": "self-2", "grader": "policy", "reward": "grade", "credit": "both"}
    study = load_study(changed(conditions=["control", own], results=str(tmp_path)))
    tables = Tables.of(study)
    rounds.to_parquet(tables.rounds)
    runs.to_parquet(tables.runs)
    texts = []
    for folder in ("a", "b"):
        write_figures(study, tables, tmp_path / folder)
        texts.append({path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())})
    assert texts[0] == texts[1]
    # The first figure is of selfgrade and control alone.
    shows = {name for name, text in texts[0].items() if b"self-2" in text}
    assert shows == ({name for name in texts[0] if not name.startswith("result.")} if seeds else set())
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        f"{name}.{kind}"
        for name in ("result", "learning_curves", "grade_inflation", "reward_vs_score")
        for kind in ("svg", "csv")
    }
