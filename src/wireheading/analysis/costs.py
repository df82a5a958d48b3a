"""What the runs cost, from the records' timing and Snakemake's benchmark files, and how exactly they were computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from wireheading.study.config import AXES, Study

SAME_START = 5.0
"""Records of one job state the same start; starts further apart than this many seconds are those of two."""

COSTS = ("job", "device", "runs", "run_rounds", "seconds", "evaluating_seconds", "rounds_per_s", "peak_mb")
"""Columns of the table of costs."""


def costs(study: Study, records: pd.DataFrame, benchmarks: Path) -> pd.DataFrame:
    """What each job cost whose records are there.

    A job is recognised by what its records share: the axes that are not in lockstep, and when it began. What an
    interrupted job did before its last checkpoint is in no record, so it is not in the table either.

    Args:
        study: The study's settings.
        records: The table of records.
        benchmarks: Folder of the benchmark files that Snakemake wrote of the jobs; those that are not there are NaN.

    Returns:
        A row for each job, with the columns of `COSTS`: `seconds` from its start to its last record, of which
        `evaluating_seconds` in held-out evaluation; `peak_mb` is the host's memory in MB, of the job's last execution.
    """
    timed = records.dropna(subset=["timed_seconds", "written"])
    if timed.empty:
        return pd.DataFrame(columns=list(COSTS))
    free = [axis for axis in AXES if axis not in study.engine.lockstep]
    ended = pd.to_datetime(timed["written"], utc=True).astype("datetime64[ns, UTC]").astype("int64") / 1e9
    timed = timed.assign(
        name=timed[free].astype(str).agg(".".join, axis=1) if free else "all", began=ended - timed["timed_seconds"]
    ).sort_values(["name", "began"], kind="stable")
    later = timed["began"].diff() > SAME_START
    timed["execution"] = (later | (timed["name"] != timed["name"].shift())).cumsum()
    jobs = (
        timed.groupby("execution")
        .agg(
            job=("name", "first"),
            device=("device", "first"),
            runs=("name", "size"),
            run_rounds=("timed_rounds", "sum"),
            seconds=("timed_seconds", "max"),
            evaluating_seconds=("timed_evaluating_seconds", "max"),
        )
        .reset_index(drop=True)
    )
    jobs["rounds_per_s"] = jobs["run_rounds"] / jobs["seconds"].where(jobs["seconds"] > 0)
    last = ~jobs["job"].duplicated(keep="last")
    jobs["peak_mb"] = [
        _peak(benchmarks / f"{job}.benchmark.tsv") if is_last else np.nan
        for job, is_last in zip(jobs["job"], last, strict=True)
    ]
    return jobs[list(COSTS)]


def logprob_gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """How far the log-probabilities with which tokens were sampled differ from those that updates recompute.

    Args:
        runs: The table of runs, with the gap of a round, the largest of its tokens, as mean and maximum over rounds.

    Returns:
        For each model its number of `runs`, and the `mean` and the `largest` gap of all their rounds.
    """
    known = runs.dropna(subset=["mean_logprob_gap"])
    known = known.assign(total=known["mean_logprob_gap"].astype(float) * known["rounds"])
    found = known.groupby("model", sort=False).agg(
        runs=("rounds", "size"),
        total=("total", "sum"),
        rounds=("rounds", "sum"),
        largest=("largest_logprob_gap", "max"),
    )
    found["mean"] = found["total"] / found["rounds"]
    return found.reset_index()[["model", "runs", "mean", "largest"]]


def _peak(path: Path) -> float:
    """The largest resident memory that a benchmark file states, in MB; NaN where there is no file or no figure."""
    if not path.exists():
        return float("nan")
    return float(pd.to_numeric(pd.read_csv(path, sep="\t")["max_rss"], errors="coerce").max())
