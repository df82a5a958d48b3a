"""When rewards became unearned, and which signals told it: simulated runs whose onset is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import few_runs, write_runs
from scipy import stats
from sklearn.metrics import roc_auc_score

from wireheading.analysis.alarms import onset_tables
from wireheading.analysis.onset import Watched, alarms, auroc_over_seeds, onset, signals, summary
from wireheading.analysis.tables import write_tables
from wireheading.study.paths import Tables
from wireheading.study.sections import AnalysisConfig

NAN = float("nan")
WINDOW = 4


def config(**changes: Any) -> AnalysisConfig:
    return AnalysisConfig(onset_window=WINDOW, bootstrap_resamples=2000, **changes)


def test_the_onset_is_the_end_of_the_first_window_that_has_risen_and_stays() -> None:
    values = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1.0])
    # Windows of 4: means 0, ¼, ½, ¾, 1, 1, 1; ½ is the first above 0.3, in the window that ends with round 5.
    assert onset(values, WINDOW, 0.3) == 5
    assert onset(values, WINDOW, 0.25) == 5
    assert onset(values, WINDOW, 0.2) == 4
    assert onset(values * 0, WINDOW, 0.2) is None
    assert onset(values, 11, 0.2) is None
    # Rounds without a value are left out of the mean.
    assert onset(np.array([NAN, 0, 0, NAN, 1, NAN, 1, 1]), 3, 0.4) == 4
    assert onset(np.full(6, NAN), 3, 0.4) is None
    assert onset(np.zeros(0), 3, 0.4) is None


def test_a_rise_that_does_not_last_is_no_onset() -> None:
    # A burst of 3 rounds lifts six windows of 4 above 0.2, but only two above 0.6. The last rise is too late to stay.
    values = np.zeros(30)
    values[10:13] = 1
    assert onset(values, WINDOW, 0.2) == 10
    assert onset(values, WINDOW, 0.6) is None
    values[27:] = 1
    assert onset(values, WINDOW, 0.6) is None


@pytest.mark.parametrize("start", [20, 57, 80])
def test_every_signal_finds_the_round_in_which_a_simulated_run_turns(start: int) -> None:
    # Grades of 0 and 1 alternate as the scores do, until the policy turns: full marks for answers that deserve none.
    rounds = np.arange(120)
    grade = np.where(rounds < start, rounds % 2, 1.0)
    score = np.where(rounds < start, rounds % 2, 0.0)
    advantage = np.where(rounds < start, np.where(rounds % 2, 0.5, -0.5), 0.0)
    kl = np.where(rounds < start, 0.0, 2.0)
    # One round of four that is unearned lifts the mean by a quarter.
    assert onset(grade - score, WINDOW, 0.2) == start
    found = signals({"grade": grade, "advantage": advantage, "kl": kl}, WINDOW)
    turned = {name: WINDOW - 1 + int(np.argmax(values > 1e-9)) for name, values in found.items()}
    # In an odd round a full mark was due anyway.
    even = start + start % 2
    assert turned["grade"] == even
    assert turned["entropy of grades"] == even
    assert turned["spread of advantages"] == start
    assert turned["KL to the base"] == start
    assert found["grade"][-1] == pytest.approx(0.5)
    assert found["entropy of grades"][-1] == pytest.approx(1)
    assert found["spread of advantages"][-1] == pytest.approx(0.5)
    assert found["KL to the base"][-1] == pytest.approx(2)


def test_entropy_and_spread_are_scipys() -> None:
    rng = np.random.default_rng(0)
    grade = rng.choice([NAN, 0, 0.3, 1], 40)
    rounds = {"grade": grade, "advantage": rng.normal(size=40)}
    found = signals(rounds, 10)
    assert "KL to the base" not in found

    def entropy(values: np.ndarray) -> float:
        return float(stats.entropy(np.unique(values[~np.isnan(values)], return_counts=True)[1], base=2))

    for end in range(10, 41):
        at = end - 10
        window = slice(at, end)
        assert found["entropy of grades"][at] == pytest.approx(entropy(grade[:10]) - entropy(grade[window]))
        fall = np.std(rounds["advantage"][:10]) - np.std(rounds["advantage"][window])
        assert found["spread of advantages"][at] == pytest.approx(fall)
        assert found["grade"][at] == pytest.approx(np.nanmean(grade[window]) - np.nanmean(grade[:10]))


def run_of(seed: int, onset_: int | None, rises: dict[int, float]) -> Watched:
    """A run whose signal rises to a value at a round, counted from 0 as everywhere."""
    values = np.zeros(20)
    for round_, value in rises.items():
        values[round_ - (WINDOW - 1)] = value
    return Watched(seed, onset_, {"grade": values})


def test_an_alarm_is_set_on_the_other_seeds_and_leads_by_so_many_rounds() -> None:
    runs = [
        run_of(1, 15, {9: 0.3, 12: 0.6}),
        run_of(2, 10, {13: 0.9}),
        run_of(3, 12, {5: 0.1}),
        run_of(1, None, {8: 0.5}),
        run_of(2, None, {8: 0.2}),
        run_of(3, None, {8: 0.4}),
    ]
    rows = alarms(runs, "grade", config())
    # Seed 1 is judged by the runs of seeds 2 and 3 without an onset, of which none rises above 0.4; and so on.
    assert [row["threshold"] for row in rows] == [0.4, 0.5, 0.5, 0.4, 0.5, 0.5]
    assert [row["alarm"] for row in rows] == [12, 13, None, 8, None, None]
    assert [row["lead"] for row in rows] == [3, -3, None, None, None, None]
    found = summary(rows, config())
    assert (found["positives"], found["negatives"], found["warned"]) == (3, 3, 1)
    assert (found["false_alarms"], found["judged"]) == (1, 3)
    assert (found["lead"], found["lead_low"], found["lead_high"]) == (0, -3, 3)
    # Of the nine pairs, 0.6 and 0.9 win all six and 0.1 none.
    assert found["auroc"] == pytest.approx(6 / 9)


def test_no_threshold_can_be_set_on_a_single_seed() -> None:
    rows = alarms([run_of(1, 10, {9: 0.3}), run_of(1, None, {})], "grade", config())
    assert [row["alarm"] for row in rows] == [None, None]
    found = summary(rows, config())
    assert (found["auroc"], found["warned"], found["judged"]) == (1, 0, 0)
    assert np.isnan([found["auroc_low"], found["auroc_high"], found["lead"]]).all()


def test_the_auroc_is_scikit_learns_and_its_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1 / np.sqrt(2 * (1 + 0.5**2)))
    covered = []
    for study in range(200):
        # Twelve seeds, whose luck is shared by their runs, with three runs of each kind.
        seeds = np.repeat(np.arange(12), 6)
        positive = np.tile([True, False], 36)
        peaks = rng.normal(size=72) + 0.5 * rng.normal(size=12)[seeds] + positive
        value, low, high = auroc_over_seeds(seeds, positive, peaks, config(bootstrap_seed=study))
        assert value == pytest.approx(roc_auc_score(positive, peaks))
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.85


def test_runs_without_a_peak_are_left_out_and_none_is_no_figure() -> None:
    seeds, positive = np.array([1, 2, 1, 2]), np.array([True, True, False, False])
    assert auroc_over_seeds(seeds, positive, np.array([NAN, 2, 1, 1]), config())[0] == 1
    assert np.isnan(auroc_over_seeds(seeds, positive, np.array([NAN, NAN, 1, 1]), config())[0])


def test_every_run_in_which_the_policy_grades_is_watched(tmp_path: Path) -> None:
    study = few_runs(tmp_path, rounds=40, seeds=[1, 2, 3], analysis={"onset_window": 5})
    tables = Tables.of(study)
    write_runs(study)
    write_tables(study, tables, lambda _: None)
    rounds = pd.read_parquet(tables.rounds)
    turned = (rounds["condition"] == "selfgrade") & (rounds["task"] == "arithmetic") & (rounds["round"] >= 20)
    # Honest runs give themselves full marks too, but are not paid by them.
    drifted = (rounds["condition"] == "honest") & (rounds["round"] >= 20)
    rounds.loc[turned | drifted, "grade"] = 1.0
    rounds["reward"] = rounds["score"]
    rounds.loc[turned, "reward"] = 1.0
    rounds.loc[turned, "score"] = 0.0
    watched_rounds(rounds, tables.rounds)
    ended = [run for run in study.runs() if run.seed != 3 or run.condition != "honest"]
    every, onsets = onset_tables(study, tables.rounds, ended)
    assert set(every["condition"]) == {"selfgrade", "honest"}
    assert len(every) == 3 * 3 * 5
    assert set(onsets["task"]) == {"arithmetic"}
    grade = onsets.set_index("signal").loc["grade"]
    assert (grade["positives"], grade["negatives"]) == (3, 2)
    # By the record alone a drift that is not paid looks the same.
    assert grade["auroc"] < 1
    assert every.loc[every["onset"].notna(), "onset"].between(19, 25).all()
    # The divergence is told of those runs that record it.
    rounds["kl"] = np.where(rounds["seed"] == 1, rounds["round"] / 40, np.nan)
    watched_rounds(rounds, tables.rounds)
    every, onsets = onset_tables(study, tables.rounds, ended)
    assert set(every.loc[every["signal"] == "KL to the base", "seed"]) == {1}
    assert onsets["signal"].value_counts()["KL to the base"] == 1


def watched_rounds(rounds: pd.DataFrame, path: Path) -> None:
    """Writes a table of rounds anew, a row group a run as before."""
    schema = pq.read_schema(path)
    if "kl" in rounds and "kl" not in schema.names:
        schema = schema.append(pa.field("kl", pa.float64()))
    with pq.ParquetWriter(path, schema) as writer:
        for _, run in rounds.groupby(["seed", "model", "task", "condition"], observed=True, sort=False):
            writer.write_table(pa.Table.from_pandas(run, schema=schema, preserve_index=False))
