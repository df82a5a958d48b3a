"""Effects → figures of oversight: what audits do by their rate, what a reform does in time, what spreads to tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wireheading.analysis.figures.grid import legend
from wireheading.analysis.figures.heldout import name_of
from wireheading.analysis.figures.result import curves_table
from wireheading.analysis.figures.style import colours_of, save, use_style
from wireheading.analysis.figures.training import interval
from wireheading.analysis.oversight import signed
from wireheading.study.config import Study
from wireheading.study.oversight import doses, oversight_figures, reforms, unreformed
from wireheading.study.paths import Oversight, Tables

DOSE = {"lenient": "leniency", "unearned": "unearned reward", "score": "score"}
"""What is shown by audit rate, on held-out items at the end."""

REFORM = {"score": "score, training", "inflation": "grade − score, training", "leniency": "leniency, held out"}
"""What is shown of a reform in time."""


def write_oversight_figures(study: Study, tables: Tables, oversight: Oversight, estimates: Path, folder: Path) -> None:
    """Draws the figures of oversight that the study's conditions give rise to, each with its data beside it.

    Args:
        study: The study's settings.
        tables: The tables of records.
        oversight: The tables of oversight.
        estimates: The table of estimates.
        folder: Where the figures go.
    """
    use_style()
    asked = oversight_figures(study)
    if "dose_response" in asked:
        path = folder / "dose_response.svg"
        draw_dose_response(study, pd.read_csv(oversight.effects), pd.read_csv(oversight.seeds), path)
    if "reform" in asked:
        columns = ["seed", "model", "task", "condition", "round", "reward", "score", "grade"]
        curves = curves_table(pd.read_parquet(tables.rounds, columns=columns))
        draw_reform(study, curves, pd.read_parquet(estimates), folder / "reform.svg")
    if "transfer" in asked:
        draw_transfer(study, pd.read_csv(oversight.transfer), folder / "transfer.svg")


def draw_dose_response(study: Study, effects: pd.DataFrame, seeds: pd.DataFrame, path: Path) -> None:
    """Leniency, unearned reward and score by audit rate: a dot per seed, the mean with its interval, and control's."""
    rates, colours = doses(study), colours_of(study)
    figure, axes = _panels(study, len(DOSE))
    for column, (model, task) in enumerate(_cells(study)):
        means = effects[(effects["model"] == model) & (effects["task"] == task)].set_index("condition")
        dots = seeds[(seeds["model"] == model) & (seeds["task"] == task)]
        for axis, measure in zip(axes[:, column], DOSE, strict=True):
            if "control" in means.index:
                level = float(means[measure]["control"])
                axis.axhline(level, color=colours["control"], linewidth=1.4, label="control")
                if measure == "lenient":
                    reach = study.analysis.margin
                    axis.axhspan(level - reach, level + reach, color=colours["control"], alpha=0.2, lw=0)
            places = np.arange(len(rates))
            line = means.loc[[*rates]]
            axis.plot(places, line[measure], color="0.25", linewidth=1)
            spread = [line[measure] - line[f"{measure}_low"], line[f"{measure}_high"] - line[measure]]
            axis.errorbar(places, line[measure], spread, fmt="D", color="0.25", ms=4, capsize=2, label="mean, 95 %")
            for place, name in enumerate(rates):
                values = dots.loc[dots["condition"] == name, measure].to_numpy()
                at = place + np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.full(len(values), place)
                axis.scatter(at, values, s=12, color="#D55E00", alpha=0.6, lw=0, zorder=3, label="seed" * (place == 0))
            axis.set_xticks(places, [f"{100 * rate:g}" for rate in rates.values()])
            axis.set_xlim(-0.5, len(rates) - 0.5)
            if measure == "score":
                axis.set_ylim(0, 1)
            axis.grid(axis="x", visible=False)
        axes[-1, column].set_xlabel("audited rounds, %")
    _label(study, figure, axes, list(DOSE.values()))
    legend(figure, axes[0, 0])
    keys = ["model", "task", "condition"]
    shown = effects.loc[effects["condition"].isin([*rates, "control"]), [*keys, "audit", "seeds", *_with_ends(DOSE)]]
    alone = seeds[[*keys, "seed", *DOSE]].rename(columns={name: f"{name}_of_seed" for name in DOSE})
    save(figure, shown.merge(alone, on=keys, how="left"), path)
    plt.close(figure)


def draw_reform(study: Study, curves: pd.DataFrame, estimates: pd.DataFrame, path: Path) -> None:
    """Score and grade − score in training, and leniency on held-out items, before and after a reform."""
    changes = reforms(study)
    without = [other for name in changes if (other := unreformed(study, name)) is not None]
    names = [name for name in study.conditions if name in {*changes, *without, "control"}]
    data = _means(curves[curves["condition"].isin(names)], estimates[estimates["condition"].isin(names)])
    colours = colours_of(study)
    figure, axes = _panels(study, len(REFORM))
    for column, (model, task) in enumerate(_cells(study)):
        for axis, measure in zip(axes[:, column], REFORM, strict=True):
            part = data[(data["model"] == model) & (data["task"] == task) & (data["measure"] == measure)]
            for name in names:
                line = part[part["condition"] == name].sort_values("round")
                marker = "o-" if measure == "leniency" else "-"
                axis.plot(line["round"], line["mean"], marker, color=colours[name], label=name, linewidth=1.6, ms=3.5)
                axis.fill_between(line["round"], line["low"], line["high"], color=colours[name], alpha=0.18, lw=0)
            for name, round_ in changes.items():
                axis.axvline(round_, color=colours[name], linewidth=1, linestyle="--")
            axis.set_xlim(0, study.rounds)
            if measure == "score":
                axis.set_ylim(0, 1)
        axes[-1, column].set_xlabel("round")
    _label(study, figure, axes, list(REFORM.values()))
    legend(figure, axes[0, 0])
    save(figure, data, path)
    plt.close(figure)


def draw_transfer(study: Study, transfer: pd.DataFrame, path: Path) -> None:
    """Leniency to wrong answers by the task that a policy was trained on and the task that it grades."""
    names = [name for name in ("selfgrade", "control") if name in study.conditions]
    trained, graded = list(study.enabled_tasks), list(study.tasks)
    figure, axes = plt.subplots(
        len(study.enabled_models),
        len(names),
        figsize=(4.2 * len(names) + 1.2, 2.7 * len(study.enabled_models) + 0.7),
        squeeze=False,
        layout="constrained",
    )
    data = transfer[transfer["condition"].isin(names)]
    for row, model in zip(axes, study.enabled_models, strict=True):
        for axis, name in zip(row, names, strict=True):
            cells = data[(data["model"] == model) & (data["condition"] == name)].set_index(["trained", "graded"])
            values = np.array([[cells["lenient"][one, other] for other in graded] for one in trained])
            image = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
            for (place, at), value in np.ndenumerate(values):
                low, high = (cells[f"lenient_{end}"][trained[place], graded[at]] for end in ("low", "high"))
                text = f"{signed(value)}\n[{signed(low)}, {signed(high)}]"
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(at, place, text, ha="center", va="center", fontsize=7.5, color=colour)
            axis.set_xticks(range(len(graded)), graded, rotation=20, ha="right", rotation_mode="anchor")
            axis.set_yticks(range(len(trained)), trained)
            axis.set_xlabel("graded on")
            axis.set_title(name if len(study.enabled_models) == 1 else f"{model}: {name}")
            axis.grid(visible=False)
        row[0].set_ylabel("trained on")
    figure.colorbar(image, ax=axes, label="leniency", shrink=0.8)
    save(figure, data, path)
    plt.close(figure)


def _means(curves: pd.DataFrame, estimates: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % t interval, of the points of curves and of held-out evaluations."""
    keys = ["model", "task", "condition", "seed", "round"]
    long = pd.concat(
        [
            table[[*keys, *measures]].melt(id_vars=keys, var_name="measure", value_name="value")
            for table, measures in ((curves, ["score", "inflation"]), (estimates, ["leniency"]))
        ]
    ).dropna()
    lists = long.groupby(["model", "task", "condition", "measure", "round"], observed=True)["value"].agg(list)
    # Without a record there is nothing from which the columns would take their type.
    found = pd.DataFrame(
        [interval(values) for values in lists], columns=["mean", "low", "high", "seeds"], index=lists.index, dtype=float
    )
    return found.reset_index().astype({"round": float})


def _with_ends(names: Any) -> list[str]:
    return [f"{name}{part}" for name in names for part in ("", "_low", "_high")]


def _cells(study: Study) -> list[tuple[str, str]]:
    return [(model, task) for model in study.enabled_models for task in study.enabled_tasks]


def _panels(study: Study, rows: int) -> tuple[Figure, Any]:
    """A row of axes for each measure, with a common scale, and a column for each model and task."""
    columns = len(_cells(study))
    return plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns + 0.6, 2.0 * rows + 0.5),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )


def _label(study: Study, figure: Figure, axes: Any, labels: list[str]) -> None:
    for axis, (model, task) in zip(axes[0], _cells(study), strict=True):
        axis.set_title(name_of(study, model, task))
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels(axes[:, 0])
