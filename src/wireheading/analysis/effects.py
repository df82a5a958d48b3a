"""The mean over seeds and items, with its uncertainty over both.

Every seed answers the same held-out items, so luck with the items is shared by all seeds and does not average out over
them. With the mean squares MS of a table of n seeds × m items, the variance of its mean is

    (MS_rest + max(MS_seeds − MS_rest, 0) + max(MS_items − MS_rest, 0)) / (n m)

and its degrees of freedom follow from Satterthwaite's (1946) approximation. The two differences estimate components of
the variance, which are not negative: else a table whose seeds agree by chance could have a variance of next to 0 with
next to 0 degrees of freedom. The approximation is too sure where seeds differ and, by chance, few seeds hardly do (at
0.05 / 9 with three seeds, three times too often significant). So no interval is narrower, and no p value smaller, than
those of the t test over the means of the seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ROUNDING = 1e-12
"""Means and standard errors that are closer together than this are the same."""


class Effect(NamedTuple):
    """What one table of seeds × items, or each of many tables, says of its mean; arrays of the leading axes' shape.

    Attributes:
        mean: The mean.
        low: Lower end of its 95 % interval.
        high: Upper end.
        above: P value of the one-sided test that the mean exceeds the margin.
        below: P value of the one-sided test that it is less than the margin.
        near: Whether the mean's 90 % interval lies inside ± the margin.
        inside: Whether that of every seed alone, over its items, does too.
        by_seed: The mean of each seed, on a last axis more.
        shown: Whether the seed alone shows a mean above the margin: its one-sided 95 % interval over items.
    """

    mean: Floats
    low: Floats
    high: Floats
    above: Floats
    below: Floats
    near: Flags
    inside: Flags
    by_seed: Floats
    shown: Flags


def effect(values: Floats, margin: float, alpha: float) -> Effect:
    """Estimates the mean of tables of seeds × items and tests it against a margin.

    Args:
        values: Shape [..., seeds, items], at least two of each; a table with a NaN has a NaN mean and p values.
        margin: The margin.
        alpha: Level of the one-sided tests and intervals.
    """
    spread = crossed(values)
    half, inner = spread.half_width(0.975), spread.half_width(1 - alpha)
    mean, by_seed = spread.mean, values.mean(-1)
    near = np.abs(mean) + inner < margin
    own = stats.t.isf(alpha, values.shape[-1] - 1) * values.std(-1, ddof=1) / np.sqrt(values.shape[-1])
    return Effect(
        mean,
        mean - half,
        mean + half,
        spread.p_above(mean - margin),
        spread.p_above(margin - mean),
        near,
        near & (np.abs(by_seed) + own < margin).all(-1),
        by_seed,
        by_seed - own > margin,
    )


class Spread(NamedTuple):
    """How uncertain the mean of tables of seeds × items is; arrays of the leading axes' shape.

    Attributes:
        mean: The mean.
        error: Its standard error over seeds and items.
        freedom: The degrees of freedom of that.
        seeds_error: Its standard error over seeds alone.
        seeds_freedom: The degrees of freedom of that.
    """

    mean: Floats
    error: Floats
    freedom: Floats
    seeds_error: Floats
    seeds_freedom: int

    def half_width(self, level: float) -> Floats:
        """Half the width of the interval that ends at this quantile."""
        ends = ((self.error, self.freedom), (self.seeds_error, self.seeds_freedom))
        widths = [stats.t.ppf(level, freedom) * error for error, freedom in ends]
        wider: Floats = np.maximum(*widths)
        return wider

    def p_above(self, distance: Floats) -> Floats:
        """P value of the one-sided test that a mean at this distance from its bound is above it."""
        larger: Floats = np.maximum(
            _p_above(distance, self.error, self.freedom), _p_above(distance, self.seeds_error, self.seeds_freedom)
        )
        return larger


def crossed(values: Floats) -> Spread:
    """The mean of tables of seeds × items and its uncertainty.

    Args:
        values: Shape [..., seeds, items], at least two of each.
    """
    seeds, items = values.shape[-2:]
    by_seed = items * values.mean(-1).var(-1) * seeds
    by_item = seeds * values.mean(-2).var(-1) * items
    rest = np.maximum(values.var((-2, -1)) * seeds * items - by_seed - by_item, 0)
    of_seeds, of_items, of_rest = by_seed / (seeds - 1), by_item / (items - 1), rest / ((seeds - 1) * (items - 1))
    # What enters the variance. A negative component, of seeds or of items, is taken to be 0.
    with_seeds, with_items = (1.0 * (square > of_rest) for square in (of_seeds, of_items))
    with_rest = 1 - with_seeds - with_items
    variance = with_seeds * of_seeds + with_items * of_items + with_rest * of_rest
    parts = (
        with_seeds * of_seeds**2 / (seeds - 1)
        + with_items * of_items**2 / (items - 1)
        + with_rest**2 * of_rest**2 / ((seeds - 1) * (items - 1))
    )
    freedom = np.divide(variance**2, parts, where=parts > 0, out=np.full_like(variance, seeds - 1.0))
    error, seeds_error = (np.sqrt(part / (seeds * items)) for part in (variance, of_seeds))
    return Spread(values.mean((-2, -1)), error, freedom, seeds_error, seeds - 1)


def holm(p: ArrayLike) -> Floats:
    """Holm's (1979) corrected p values over the last axis; a NaN is no member of the family and stays NaN."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1)  # NaN last
    ordered = np.take_along_axis(values, order, -1)
    members = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    corrected = np.minimum(np.maximum.accumulate(ordered * (members - np.arange(values.shape[-1])), axis=-1), 1)
    result = np.empty_like(values)
    np.put_along_axis(result, order, corrected, -1)
    return result


def _p_above(mean: Floats, error: Floats, freedom: Floats | int) -> Floats:
    """P value of the one-sided t test that a mean exceeds 0; 0 or 1 where nothing varies."""
    fixed = error < ROUNDING
    p = stats.t.sf(mean / np.where(fixed, 1, error), freedom)
    result: Floats = np.where(fixed & ~np.isnan(mean), np.where(mean > ROUNDING, 0.0, 1.0), p)
    return result
