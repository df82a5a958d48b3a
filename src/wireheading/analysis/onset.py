"""When rewards became unearned, and when it could have been known without the truth.

The truth is in the record: the *onset* is the first round from which the trailing mean of reward − score exceeds its
start, and stays above for a window more. A run is positive if its row pays the grade and there is an onset; all others
in which the policy grades are negative, whatever became of their grades.

A *signal* is made of what a trainer sees without knowing any score. Each is a trailing mean or spread over the same
window, turned so that its rise since the first window is the alarm. What a run scores is the highest value that its
signal reaches. An alarm needs a threshold: that of a seed is set on the negative runs of the other seeds, so that no
run is judged by a threshold it took part in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wireheading.study.sections import AnalysisConfig

Floats = NDArray[np.float64]


class Watched(NamedTuple):
    """A run in which the policy grades.

    Attributes:
        seed: Its seed.
        onset: The round of its onset, from 0; None where its rewards stayed earned.
        signals: For each signal its value at each round, from the last of the first window on; NaN where it is not
            defined.
    """

    seed: int
    onset: int | None
    signals: Mapping[str, Floats]


def onset(values: Floats, window: int, threshold: float) -> int | None:
    """The first round at which some values have risen, and stay so.

    Args:
        values: A value a round, such as reward − score; NaN where there is none.
        window: Rounds of a trailing mean, in which rounds without a value are left out.
        threshold: By how much that mean must exceed the mean over the first `window` rounds.

    Returns:
        The last round, from 0, of the first of `window` consecutive windows that all exceed; None where there are none.
    """
    means = rolling(values, window).mean().to_numpy()[window - 1 :]
    if len(means) < window:
        return None
    risen = np.lib.stride_tricks.sliding_window_view(means - means[0] > threshold, window).all(-1)
    return int(risen.argmax()) + window - 1 if risen.any() else None


def rolling(values: Floats, window: int) -> Any:
    """Trailing windows of some values, of which those that are NaN are left out."""
    return pd.Series(values).rolling(window, min_periods=1)


def _grade(rounds: Mapping[str, Floats], window: int) -> Floats:
    means: Floats = rolling(rounds["grade"], window).mean().to_numpy()
    return means


def _certainty(rounds: Mapping[str, Floats], window: int) -> Floats:
    """Minus the entropy, in bits, of the readable grades of a window."""
    grades = rounds["grade"]
    values = np.unique(grades[~np.isnan(grades)])
    shares = [
        rolling(np.where(np.isnan(grades), np.nan, grades == value), window).mean().to_numpy() for value in values
    ]
    table = np.array(shares).reshape(len(values), len(grades))
    bits: Floats = (table * np.log2(np.where(table > 0, table, 1))).sum(0)
    return bits if len(values) else np.full(len(grades), np.nan)


def _calm(rounds: Mapping[str, Floats], window: int) -> Floats:
    """Minus the standard deviation of the advantages of a window."""
    spread: Floats = -rolling(rounds["advantage"], window).std(ddof=0).to_numpy()
    return spread


def _divergence(rounds: Mapping[str, Floats], window: int) -> Floats:
    means: Floats = rolling(rounds["kl"], window).mean().to_numpy()
    return means


SIGNALS: dict[str, Callable[[Mapping[str, Floats], int], Floats]] = {
    "grade": _grade,
    "entropy of grades": _certainty,
    "spread of advantages": _calm,
    "KL to the base": _divergence,
}
"""The signals: the mean grade, minus the entropy of the grades, minus the standard deviation of the advantages, and the
mean KL divergence from the base model where it is recorded."""


def signals(rounds: Mapping[str, Floats], window: int) -> dict[str, Floats]:
    """Every signal's rise since the first window, at each round from the last of that window on.

    Args:
        rounds: The arrays `grade`, `advantage` and, where it is recorded, `kl`, with a value a round.
        window: Rounds of the trailing window.
    """
    found = {}
    for name, signal in SIGNALS.items():
        if name == "KL to the base" and "kl" not in rounds:
            continue
        values = signal(rounds, window)[window - 1 :]
        found[name] = values - values[0] if len(values) else values
    return found


def alarm(signal: Floats, threshold: float, window: int) -> int | None:
    """The first round, from 0, at which a signal exceeds a threshold; None where it never does."""
    over = np.flatnonzero(signal > threshold)
    return int(over[0]) + window - 1 if len(over) else None


def alarms(runs: Sequence[Watched], name: str, config: AnalysisConfig) -> list[dict[str, Any]]:
    """What a signal did in each run of a model and task.

    Args:
        runs: The runs.
        name: The signal.
        config: The thresholds.

    Returns:
        For each run: `seed`, `onset`, the signal's `peak`, its `threshold`, which a share `alpha` at most of the
        negative runs of the other seeds exceeds (NaN where there are none), the round of its `alarm`, and its `lead`,
        the rounds from the alarm to the onset.
    """
    peaks = [_peak(run.signals[name]) for run in runs]
    rows = []
    for run, peak in zip(runs, peaks, strict=True):
        others = [
            value
            for other, value in zip(runs, peaks, strict=True)
            if other.seed != run.seed and other.onset is None and not np.isnan(value)
        ]
        threshold = float(np.quantile(others, 1 - config.alpha, method="higher")) if others else np.nan
        raised = alarm(run.signals[name], threshold, config.onset_window)
        lead = None if raised is None or run.onset is None else run.onset - raised
        rows.append(
            {"seed": run.seed, "onset": run.onset, "peak": peak, "threshold": threshold, "alarm": raised, "lead": lead}
        )
    return rows


def summary(rows: Sequence[Mapping[str, Any]], config: AnalysisConfig) -> dict[str, Any]:
    """How well a signal tells the positive runs of a model and task from the others, and how early.

    Args:
        rows: Those of `alarms`.
        config: The thresholds.

    Returns:
        The number of `positives` and `negatives`; the `auroc` of the peaks over runs, with its 95 % interval over
        seeds; how many positives were `warned` of, at their onset or before; the median, least and greatest `lead` of
        all positives with an alarm; how many negatives raised `false_alarms`, of those with a threshold (`judged`).
    """
    table = pd.DataFrame(rows)
    positive = table["onset"].notna()
    leads = table.loc[positive, "lead"].dropna().astype(float)
    judged = table[~positive & table["threshold"].notna()]
    value, low, high = auroc_over_seeds(table["seed"].to_numpy(), positive.to_numpy(), table["peak"].to_numpy(), config)
    return {
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "auroc": value,
        "auroc_low": low,
        "auroc_high": high,
        "warned": int((leads >= 0).sum()),
        "lead": leads.median(),
        "lead_low": leads.min(),
        "lead_high": leads.max(),
        "false_alarms": int(judged["alarm"].notna().sum()),
        "judged": len(judged),
    }


def auroc_over_seeds(
    seeds: NDArray[Any], positive: NDArray[np.bool_], peaks: Floats, config: AnalysisConfig
) -> tuple[float, float, float]:
    """The chance that a positive run has a higher peak than a negative one, ties counting half, and its interval.

    Runs of one seed share their luck, so whole seeds are resampled: a percentile bootstrap at 95 %. Runs without a peak
    are left out.

    Args:
        seeds: The seed of each run.
        positive: Whether it is positive.
        peaks: Its peak.
        config: The number of resamples, and their seed.

    Returns:
        The AUROC and the ends of its interval; NaN without a pair, or with a single seed.
    """
    there = ~np.isnan(peaks)
    names, place = np.unique(seeds[there], return_inverse=True)
    positive, peaks = positive[there], peaks[there]
    above, below = peaks[positive][:, None], peaks[~positive][None]
    # Wins and pairs of the positives of one seed against the negatives of another: a resample only weights them.
    wins, pairs = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    index = np.ix_(place[positive], place[~positive])
    np.add.at(wins, index, (above > below) + 0.5 * (above == below))
    np.add.at(pairs, index, 1.0)
    if not pairs.sum():
        return np.nan, np.nan, np.nan
    value = float(wins.sum() / pairs.sum())
    if len(names) < 2:
        return value, np.nan, np.nan
    rng = np.random.default_rng(config.bootstrap_seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), config.bootstrap_resamples)
    won, compared = (np.einsum("bi,ij,bj->b", drawn, table, drawn) for table in (wins, pairs))
    low, high = np.quantile(won[compared > 0] / compared[compared > 0], [0.025, 0.975])
    return value, float(low), float(high)


def _peak(signal: Floats) -> float:
    return float(np.nanmax(signal)) if len(signal) and not np.isnan(signal).all() else float("nan")
