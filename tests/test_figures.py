"""What the figures show and what they leave out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from configs import changed

from wireheading.analysis.figures.heldout import FEW, draw_gain_split, draw_reliability
from wireheading.analysis.figures.result import RESULT, curves_table, draw_result, result_table
from wireheading.analysis.figures.style import use_style
from wireheading.analysis.figures.training import learning_curves
from wireheading.study.config import Study, load_study


def study_of(conditions: list[str]) -> Study:
    return load_study(changed(conditions=conditions, seeds=[1, 2], rounds=40))


def rounds_of(study: Study) -> pd.DataFrame:
    """A table of rounds in which the score is 0.25, and every other grade cannot be read."""
    rows = [
        {**run._asdict(), "round": round_, "reward": 0.5, "score": 0.25}
        | {"grade": None if round_ % 2 or run.condition == "control" else 1.0}
        | {"parse_status": "not_asked" if run.condition == "control" else ["readable", "unreadable"][round_ % 2]}
        for run in study.runs()
        for round_ in range(study.rounds)
    ]
    return pd.DataFrame(rows)


def test_the_first_figure_is_the_same_of_a_fresh_table_and_of_a_saved_one(tmp_path: Path) -> None:
    study = study_of(["control", "selfgrade", "honest"])
    rng = np.random.default_rng(0)
    rounds = rounds_of(study).assign(reward=lambda table: rng.random(len(table)) / 3)
    data = result_table(curves_table(rounds))
    assert tuple(data.columns) == RESULT
    assert set(data["condition"]) == {"control", "selfgrade"}
    assert len(data) == 3 * 2 * 2 * 20
    draw_result(data, tmp_path / "result.svg")
    draw_result(pd.read_csv(tmp_path / "result.csv"), tmp_path / "again.svg")
    drawn = (tmp_path / "result.svg").read_bytes()
    assert drawn == (tmp_path / "again.svg").read_bytes()
    assert b"dc:date" not in drawn
    for text in (b"selfgrade's reward", b"selfgrade's score", b"control's score", b"gap: not earned"):
        assert text in drawn


def test_unreadable_rounds_are_shown_and_the_score_is_not_made_an_accuracy(tmp_path: Path) -> None:
    study = study_of(["control", "selfgrade"])
    learning_curves(study, rounds_of(study), tmp_path / "curves.svg")
    data = pd.read_csv(tmp_path / "curves.csv")
    graded = data[data["condition"] == "selfgrade"]
    assert set(graded["unreadable"]) == {0.5}
    assert set(graded["grade"]) == {1.0}
    assert set(data["score"]) == {0.25}
    # Nobody grades in control: no grade of it is unreadable.
    assert data.loc[data["condition"] == "control", ["grade", "unreadable"]].isna().all().all()
    assert set(data["seed"]) == {1, 2}


def test_a_condition_that_nobody_grades_gains_no_grade(tmp_path: Path) -> None:
    study = study_of(["control", "selfgrade"])
    parts = dict.fromkeys(("grade_gain", "score_gain", "persuasion", "inflation", "format"), 0.1)
    ends = pd.DataFrame([{**run._asdict(), **parts} for run in study.runs()])
    draw_gain_split(study, ends, tmp_path / "gain.svg")
    assert set(pd.read_csv(tmp_path / "gain.csv")["condition"]) == {"selfgrade"}


@pytest.mark.parametrize("few", [False, True])
def test_no_line_goes_through_bins_of_few_items(tmp_path: Path, few: bool) -> None:
    use_style()
    study = study_of(["selfgrade"])
    rows = [
        {"seed": 1, "model": "tiny", "task": "arithmetic", "condition": "selfgrade", "when": "end", "bin": bin_}
        | {"count": FEW - 1 if few else FEW, "grade": bin_ / 10, "score": 0.5}
        for bin_ in range(10)
    ]
    draw_reliability(study, pd.DataFrame(rows), tmp_path / "reliability.svg")
    text = (tmp_path / "reliability.svg").read_text()
    longest = max((path.count("L") for path in re.findall(r'<path d="([^"]*)"', text)), default=0)
    assert (longest >= 9) is not few
