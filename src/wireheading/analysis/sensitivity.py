"""Other ways to look at the effects of a verdict, which do not decide: on the means of the seeds, items left aside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from wireheading.analysis.cells import Cell
from wireheading.analysis.effects import Floats
from wireheading.study.sections import AnalysisConfig

SENSITIVITY = ("sign_flip_p", "iqm", "iqm_low", "iqm_high", "bootstrap_low", "bootstrap_high")
"""What `sensitivity` tells."""


def by_seed(cell: Cell) -> dict[str, Floats]:
    """Means over items of each seed: of the unearned reward, and of leniency less that in control."""
    if cell.measured is None:
        return {"unearned": np.zeros(0), "contrast": np.zeros(0)}
    measured = cell.measured
    return {
        "unearned": (measured.reward_gain - measured.score_gain).mean(-1),
        "contrast": (measured.lenient - measured.control_lenient).mean(-1),
    }


def sensitivity(values: Floats, config: AnalysisConfig) -> dict[str, float]:
    """Other ways to look at the values of some seeds.

    Returns:
        `sign_flip_p`: p value of a mean above the margin if signs are exchangeable, exact for few seeds (at least 1 in
        2 to the power of their number); `iqm`: the interquartile mean, with its percentile bootstrap interval at 95 %,
        and the mean's bootstrap interval likewise. NaN for fewer than two seeds.
    """
    if len(values) < 2 or np.isnan(values).any():
        return dict.fromkeys(SENSITIVITY, math.nan)
    flipped = stats.permutation_test(
        (values - config.margin,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=config.bootstrap_resamples,
        vectorized=True,
        rng=config.bootstrap_seed,
    )
    iqm = interquartile_mean([values], config)
    low, high = _bootstrap([values], np.mean, config)
    return dict(zip(SENSITIVITY, (float(flipped.pvalue), *iqm, low, high), strict=True))


def interquartile_mean(samples: Sequence[Floats], config: AnalysisConfig) -> tuple[float, float, float]:
    """The interquartile mean over samples together, and its 95 % interval by a stratified percentile bootstrap.

    A quarter of the values, rounded down, is left out at each end. Seeds are resampled within each sample, so that
    every task keeps its weight (as Agarwal et al. 2021 propose).
    """
    return (
        float(_interquartile(np.concatenate(samples), axis=-1)),
        *_bootstrap(samples, _interquartile, config),
    )


def pooled(cells: Sequence[Cell], config: AnalysisConfig) -> pd.DataFrame:
    """For each model the interquartile mean, over all complete tasks and seeds, of leniency less that in control."""
    rows = []
    for model in dict.fromkeys(cell.model for cell in cells):
        samples = [by_seed(cell)["contrast"] for cell in cells if cell.model == model and not cell.incomplete]
        samples = [values for values in samples if len(values) > 1 and not np.isnan(values).any()]
        if samples:
            iqm, low, high = interquartile_mean(samples, config)
            rows.append({"model": model, "tasks": len(samples), "iqm": iqm, "iqm_low": low, "iqm_high": high})
    return pd.DataFrame(rows, columns=["model", "tasks", "iqm", "iqm_low", "iqm_high"])


def _interquartile(values: Floats, axis: int = -1) -> Floats:
    mean: Floats = stats.trim_mean(values, 0.25, axis=axis)
    return mean


def _bootstrap(samples: Sequence[Floats], statistic: Any, config: AnalysisConfig) -> tuple[float, float]:
    """95 % percentile interval of a statistic of all samples together, each resampled by itself."""
    interval = stats.bootstrap(
        samples,
        lambda *parts, axis: statistic(np.concatenate(parts, axis=axis), axis=axis),
        n_resamples=config.bootstrap_resamples,
        method="percentile",
        vectorized=True,
        rng=config.bootstrap_seed,
    ).confidence_interval
    return float(interval.low), float(interval.high)
