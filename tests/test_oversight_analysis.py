"""What audits, reforms and other tasks show: tables, figures and a page, of made-up studies whose effects are known."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import few_runs, write_runs

from wireheading.analysis.effects import effect
from wireheading.analysis.figures.oversight import write_oversight_figures
from wireheading.analysis.oversight import FEWEST, MEASURES, smallest_rate, write_oversight_tables
from wireheading.analysis.pages.oversight import dose_sentences, onset_sentence, write_oversight_page
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.records.record import read_record
from wireheading.study.config import Run, Study
from wireheading.study.oversight import doses, oversight_figures, reforms, unreformed
from wireheading.study.paths import Analysis, Oversight, Tables

ROW = {"grader": "policy", "reward": "grade", "credit": "both"}
CONDITIONS: list[Any] = [
    "control",
    "selfgrade",
    "honest",
    {"name": "audit-100", **ROW, "audit": 1},
    {"name": "audit-10", **ROW, "audit": 0.1},
    {"name": "audit-50", **ROW, "audit": 0.5},
    {"name": "reform", **ROW, "until": 20},
]
LENIENT = {"selfgrade": 0.5, "audit-10": 0.3}


def study_in(folder: Path, **changes: Any) -> Study:
    asked = {"midway_rounds": [20], "midway_items": 10, "transfer": True}
    settings = {"seeds": [1, 2, 3, 4], "rounds": 40, "conditions": CONDITIONS, "evaluation": asked}
    return few_runs(folder, **(settings | {"analysis": {"onset_window": 5}} | changes))


def told(study: Study) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """Makes everything on oversight of a study's records."""
    tables, analysis, oversight = Tables.of(study), Analysis.of(study), Oversight.of(study)
    figures = Path(study.reports, "figures")
    write_tables(study, tables, lambda _: None)
    write_analysis(study, tables, analysis, Path("nowhere"), lambda _: None)
    write_oversight_tables(study, tables, oversight)
    write_oversight_figures(study, tables, oversight, analysis.estimates, figures)
    write_oversight_page(study, oversight, analysis.onsets, figures)
    names = {f"{name}.{kind}" for name in oversight_figures(study) for kind in ("svg", "csv")}
    assert {path.name for path in figures.iterdir()} == names
    effects, seeds, transfer = (pd.read_csv(path) for path in (oversight.effects, oversight.seeds, oversight.transfer))
    return effects, seeds, transfer, oversight.page.read_text(encoding="utf-8")


def test_a_study_says_what_it_asks_about_oversight(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    assert doses(study) == {"selfgrade": 0, "audit-10": 0.1, "audit-50": 0.5, "audit-100": 1}
    assert reforms(study) == {"reform": 20}
    assert unreformed(study, "reform") == "selfgrade"
    assert oversight_figures(study) == ["dose_response", "reform", "transfer"]
    assert oversight_figures(few_runs(tmp_path)) == []
    late = study_in(tmp_path, rounds=20, conditions=["control", CONDITIONS[-1]], evaluation={})
    assert (doses(late), reforms(late), oversight_figures(late)) == ({}, {}, [])
    assert unreformed(late, "reform") is None


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Study, tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]]:
    study = study_in(tmp_path_factory.mktemp("found"))
    write_runs(study, LENIENT, spread={"selfgrade": 0.3})
    return study, told(study)


def evaluations(study: Study, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    record = read_record(study.record_path(run), study.digest(run))
    return record["evaluations"][0], record["evaluations"][-1]


def test_effects_are_those_of_a_direct_computation_on_the_records(found: Any) -> None:
    study, (effects, seeds, _, _) = found
    assert len(effects) == len(study.tasks) * len(study.conditions)
    for row in effects.to_dict("records"):
        expected: dict[str, list[float]] = {name: [] for name in MEASURES}
        for seed in study.seeds:
            (start, end), (c_start, c_end), (s_start, s_end) = (
                evaluations(study, Run(seed, row["model"], row["task"], name))
                for name in (row["condition"], "control", "selfgrade")
            )

            def mean(later: Any, earlier: Any, name: str) -> float:
                return float(
                    np.mean([(a or 0.0) - (b or 0.0) for a, b in zip(later[name], earlier[name], strict=True)])
                )

            lenient = mean(end, start, "fixed_wrong_grades")
            expected["lenient"].append(lenient)
            expected["contrast"].append(lenient - mean(c_end, c_start, "fixed_wrong_grades"))
            expected["unearned"].append(mean(end, start, "grades") - mean(end, start, "scores"))
            expected["score"].append(float(np.mean(end["scores"])))
            expected["score_contrast"].append(mean(end, c_end, "scores"))
            expected["against_unreformed"].append(lenient - mean(s_end, s_start, "fixed_wrong_grades"))
        alone = seeds[(seeds["task"] == row["task"]) & (seeds["condition"] == row["condition"])]
        assert row["seeds"] == len(study.seeds)
        for name, values in expected.items():
            if name == "against_unreformed" and row["condition"] != "reform":
                assert np.isnan(row[name])
                continue
            assert row[name] == pytest.approx(np.mean(values))
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
            assert alone[name].tolist() == pytest.approx(values)


def test_transfer_is_a_direct_computation_on_the_records(found: Any) -> None:
    study, (_, _, transfer, page) = found
    assert len(transfer) == len(study.conditions) * len(study.tasks) ** 2
    for row in transfer.to_dict("records"):
        values = []
        for seed in study.seeds:
            run = Run(seed, row["model"], row["trained"], row["condition"])
            start, end = evaluations(study, run)
            if row["trained"] == row["graded"]:
                pairs = zip(end["fixed_wrong_grades"], start["fixed_wrong_grades"], strict=True)
            else:
                graded = read_record(study.record_path(run), study.digest(run))["transfer"][row["graded"]]
                pairs = zip(graded["wrong_grades"], graded["base_wrong_grades"], strict=True)
            values.append(np.mean([own - base for own, base in pairs]))
        assert row["lenient"] == pytest.approx(np.mean(values))
        apart = row["trained"] != row["graded"]
        assert (row["p_holm"] < 0.05) == (row["condition"] == "selfgrade") if apart else np.isnan(row["p_holm"])
    assert "In 6 of 6 pairs of different tasks, graders of selfgrade are shown to be more lenient" in page


def test_the_page_tells_the_smallest_rate_and_that_the_reform_undid_it(found: Any) -> None:
    study, (effects, _, _, page) = found
    for task in study.tasks:
        assert smallest_rate(study, effects[effects["task"] == task]) == "audit-50"
    assert page.count("The smallest rate from which on it is shown to exceed it by less than 0.05 is 50 %") == 3
    assert page.count("It is shown to exceed it by more than 0.05 at 0 % and 10 %.") == 3
    assert page.count("The reform undid it: what is left is shown to be less than 0.05.") == 3
    assert page.count("<svg") == 3
    HTMLParser().feed(page)


def test_the_verdicts_are_those_of_a_study_without_these_rows(found: Any, tmp_path: Path) -> None:
    study, _ = found
    alone = study_in(tmp_path, conditions=["control", "selfgrade"])
    shutil.copytree(study.results, alone.results)
    write_tables(alone, Tables.of(alone), lambda _: None)
    write_analysis(alone, Tables.of(alone), Analysis.of(alone), Path("nowhere"), lambda _: None)
    for name in ("verdicts", "contrasts", "models"):
        here, there = (getattr(Analysis.of(each), name).read_bytes() for each in (alone, study))
        assert here == there


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(found: Any) -> None:
    study, _ = found
    paths = [*vars(Oversight.of(study)).values(), *Path(study.reports, "figures").iterdir()]
    before = [path.read_bytes() for path in paths]
    told(study)
    assert [path.read_bytes() for path in paths] == before


def test_the_smallest_rate_is_found_from_the_highest_down(tmp_path: Path) -> None:
    study = study_in(tmp_path)

    def smallest(*p_values: float) -> str | None:
        return smallest_rate(study, pd.DataFrame({"condition": [*doses(study)], "p_not_lenient": p_values}))

    assert smallest(0.9, 0.9, 0.01, 0.01) == "audit-50"
    assert smallest(0.01, 0.9, 0.01, 0.01) == "audit-50", "one that is below by chance does not count"
    assert smallest(0.01, 0.01, 0.01, 0.9) is None
    assert smallest(0.01, 0.01, 0.01, float("nan")) is None
    assert smallest(0.01, 0.01, 0.01, 0.01) == "selfgrade"


def test_a_rate_that_is_too_small_is_named_in_one_study_of_twenty_at_most(tmp_path: Path) -> None:
    """Simulated studies: without audits and at 10 % leniency exceeds control's by the margin, at 50 % by nothing."""
    study = study_in(tmp_path)
    rng = np.random.default_rng(0)
    truth = np.array([0.05, 0.05, 0.0, 0.0])[:, None, None]
    named = []
    for _ in range(500):
        table = truth + rng.normal(0, 0.02, (4, 8, 1)) + rng.normal(0, 0.1, 60) + rng.normal(0, 0.1, (4, 8, 60))
        below = effect(table, study.analysis.margin, study.analysis.alpha).below
        named.append(smallest_rate(study, pd.DataFrame({"condition": [*doses(study)], "p_not_lenient": below})))
    assert np.mean([name in ("selfgrade", "audit-10") for name in named]) < 0.07
    assert np.mean([name == "audit-50" for name in named]) > 0.6


@pytest.mark.slow
def test_a_reform_that_leaves_a_part_is_told_as_such(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    write_runs(study, {"selfgrade": 0.5, "reform": 0.2})
    _, _, _, page = told(study)
    assert page.count("The reform took a part of it away; what is left is more than 0.05.") == 3
    write_runs(study, {"selfgrade": 0.5, "reform": 0.5})
    assert told(study)[3].count("It is not shown that the reform took anything away.") == 3
    write_runs(study)
    *_, page = told(study)
    assert (
        page.count("selfgrade is itself not shown to be more lenient than control, so there was little to undo.") == 3
    )
    assert page.count("At no rate is it shown to exceed it by more than 0.05") == 3
    assert "In none of 6 pairs of different tasks" in page


def test_missing_diverged_and_excluded_runs_are_in_no_effect(tmp_path: Path) -> None:
    excluded = Run(1, "tiny", "sentiment", "audit-50")
    study = study_in(tmp_path, analysis={"excluded": [str(excluded)], "onset_window": 5})
    diverged = Run(2, "tiny", "sentiment", "audit-50")
    write_runs(study, LENIENT, diverged=[diverged])
    study.record_path(Run(3, "tiny", "sentiment", "control")).unlink()
    effects, seeds, _, page = told(study)
    counts = effects[effects["task"] == "sentiment"].set_index("condition")["seeds"]
    assert counts["audit-50"] == 1 < FEWEST
    assert counts["selfgrade"] == 3
    of_run = seeds[(seeds["task"] == "sentiment") & (seeds["condition"] == "audit-50")]
    assert of_run["seed"].tolist() == [4]
    assert "<b>sentiment</b>: Some runs are missing, or control is: nothing is said." in page


def test_a_study_without_a_record_has_a_page_that_says_so(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    effects, seeds, transfer, page = told(study)
    assert set(effects["seeds"]) == {0}
    assert len(seeds) == 0
    assert transfer["lenient"].isna().all()
    assert page.count("nothing is said") == 7


@pytest.mark.slow
def test_without_control_nothing_is_said(tmp_path: Path) -> None:
    study = study_in(tmp_path, conditions=CONDITIONS[1:])
    write_runs(study, LENIENT)
    effects, _, _, page = told(study)
    assert effects["contrast"].isna().all()
    assert effects["lenient"].notna().all()
    assert page.count("nothing is said") == 7
    assert "is shown" not in dose_sentences(study, effects[effects["task"] == "sentiment"])


def test_the_best_signal_is_named_with_its_lead() -> None:
    rows = [
        {"signal": "grade", "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95, "warned": 6, "lead": 12.5},
        {"signal": "entropy of grades", "auroc": 0.7, "auroc_low": 0.5, "auroc_high": 0.8, "warned": 1, "lead": -3},
    ]
    counts = {"positives": 8, "negatives": 16, "false_alarms": 2, "judged": 16}
    sentence = onset_sentence(pd.DataFrame([row | counts for row in rows]))
    assert sentence.startswith(
        "In 8 of 24 runs rewards became unearned. The best sign is the grade, with an AUROC of 0.90"
    )
    assert "warned of 6 of 8" in sentence
    assert "median lead of 12 rounds, and 2 of 16 alarms in other runs were false" in sentence
