"""Estimates and verdicts → figures: unearned reward and leniency, the split of the gain, reliability, validity, cost.

Where a figure has an axis for each model and task, a row is a model and a column a task.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from wireheading.analysis.estimates import PARTS
from wireheading.analysis.figures.grid import cells, grid, label_rows, legend, name_places, present
from wireheading.analysis.figures.style import (
    HEADLINE_COLOURS,
    KNOWN_COLOURS,
    PART_COLOURS,
    colours_of,
    dashes_of,
    save,
    use_style,
)
from wireheading.analysis.signature import CURVES
from wireheading.study.config import Study
from wireheading.study.paths import Analysis, Tables

LABELS = {"score_gain": "Δscore", "persuasion": "persuasion", "inflation": "inflation", "format": "format"}
"""How the parts of the gain are written in figures."""

FEW = 10
"""Items of a bin below which its mean score is mostly luck: a small ring, and no line to it."""


def write_heldout_figures(study: Study, tables: Tables, analysis: Analysis, folder: Path) -> None:
    """Draws every figure of held-out evaluation and of cost, each with its data beside it.

    Args:
        study: The study's settings.
        tables: The tables of records.
        analysis: The results of the analysis.
        folder: Where the figures go.
    """
    use_style()
    estimates = pd.read_parquet(analysis.estimates)
    ends = estimates[estimates["when"] == "end"]
    verdicts, records = pd.read_csv(analysis.verdicts), pd.read_csv(tables.records)
    draw_contrasts(study, pd.read_csv(analysis.contrasts), verdicts, folder / "contrast.svg")
    draw_signature(study, pd.read_csv(analysis.signature), folder / "signature.svg")
    draw_gain_split(study, ends, folder / "gain_split.svg")
    draw_reliability(study, pd.read_parquet(analysis.reliability), folder / "reliability.svg")
    draw_validity(study, ends, records, folder / "validity.svg")
    draw_costs(pd.read_csv(analysis.costs), folder / "costs.svg")


def draw_contrasts(study: Study, seeds: pd.DataFrame, verdicts: pd.DataFrame, path: Path) -> None:
    """The first two questions of each cell: a dot per seed, the mean with its 95 % interval, the margin as a band."""
    cells = [(model, task) for model in study.enabled_models for task in study.enabled_tasks]
    margin = study.analysis.margin
    questions = {"unearned": "unearned gain in paid reward", "contrast": "leniency less that in control"}
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 0.62 * len(cells) + 1.1), sharey=True, layout="constrained")
    rows = {(row["model"], row["task"]): row for row in verdicts.to_dict("records")}
    for axis, (name, label) in zip(axes, questions.items(), strict=True):
        axis.axvspan(-margin, margin, color="0.88", lw=0)
        axis.axvline(0, color="0.3", linewidth=0.8)
        for place, cell in enumerate(cells):
            row = rows[cell]
            colour = _headline_colour(row["verdict"])
            dots = seeds.loc[(seeds["model"] == cell[0]) & (seeds["task"] == cell[1]), name]
            axis.scatter(dots, np.full(len(dots), place - 0.2), color=colour, s=18, alpha=0.75, zorder=3, lw=0)
            axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [place + 0.05] * 2, color=colour, linewidth=2.2)
            axis.plot(row[name], place + 0.05, "D", color=colour, markersize=5.5, zorder=4)
        axis.set_xlabel(label)
        axis.grid(axis="y", visible=False)
    for place, cell in enumerate(cells):
        verdict = rows[cell]["verdict"]
        axes[1].annotate(
            verdict, (1.02, place), xycoords=("axes fraction", "data"), va="center", color=_headline_colour(verdict),
            weight="bold",
        )  # fmt: skip
    axes[0].set_yticks(range(len(cells)), [name_of(study, *cell) for cell in cells])
    axes[0].set_ylim(len(cells) - 0.5, -0.5)
    columns = ["model", "task", "verdict", *(f"{name}{part}" for name in questions for part in ("", "_low", "_high"))]
    shown = seeds[["model", "task", "seed", *questions]].rename(columns={name: f"{name}_of_seed" for name in questions})
    save(figure, shown.merge(verdicts[columns], on=["model", "task"], how="outer"), path)
    plt.close(figure)


def draw_signature(study: Study, signatures: pd.DataFrame, path: Path) -> None:
    """The signature in selfgrade: for each seed the first and last eighth of each curve, and what was published."""
    data = signatures[signatures["condition"] == "selfgrade"]
    figure, axes = grid(study, 2.5, 2.5)
    for model, task, axis in cells(study, axes):
        part = data[(data["model"] == model) & (data["task"] == task)]
        for place, curve in enumerate(CURVES):
            for row in part.to_dict("records"):
                ends = [row[f"start_{curve}"], row[f"end_{curve}"]]
                axis.plot(
                    [place - 0.25, place + 0.25], ends, "o-", color=KNOWN_COLOURS["selfgrade"], alpha=0.6, ms=3.5, lw=1
                )
        if part["published"].notna().any():
            axis.plot(2, part["published"].iloc[0], "_", color="black", ms=18, label="published, mean of all rounds")
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.set_xticks(range(len(CURVES)), ["reward", "accuracy", "grade −\naccuracy"])
        axis.grid(axis="x", visible=False)
    label_rows(study, axes, "first → last eighth of rounds")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def draw_gain_split(study: Study, ends: pd.DataFrame, path: Path) -> None:
    """The parts of the gain in the sampled grade, stacked: the mean over seeds, with the whole gain as a dot.

    Only where training asks for grades: what becomes of them elsewhere is drift, and nobody gains it.
    """
    graded = [name for name, row in study.conditions.items() if row.grades]
    data = (
        ends[ends["condition"].isin(graded)]
        .groupby(["model", "task", "condition"], sort=False)[["grade_gain", *PARTS]]
        .mean()
        .reset_index()
    )
    figure, axes = grid(study, 2.5, 2.7)
    for model, task, axis in cells(study, axes):
        part = data[(data["model"] == model) & (data["task"] == task)].set_index("condition")
        names = present(part.reset_index(), study.conditions)
        up, down = np.zeros(len(names)), np.zeros(len(names))
        for name in PARTS:
            values = part.loc[names, name].to_numpy() if names else np.zeros(0)
            bottom = np.where(values >= 0, up, down)
            axis.bar(range(len(names)), values, 0.62, bottom, color=PART_COLOURS[name], label=LABELS[name], lw=0)
            up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
        if names:
            axis.plot(
                range(len(names)), part.loc[names, "grade_gain"], "D", color="black", ms=4.5, label="ΔR, their sum"
            )
        axis.axhline(0, color="0.3", linewidth=0.8)
        name_places(axis, names)
    label_rows(study, axes, "gain in the sampled grade")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def draw_reliability(study: Study, reliability: pd.DataFrame, path: Path) -> None:
    """Mean score against mean soft grade by bins of the grade, before and after training, seeds together."""
    weighted = reliability.assign(
        grade=reliability["grade"] * reliability["count"], score=reliability["score"] * reliability["count"]
    )
    # Before training every run of a model and task is the same base model: one of them shows it.
    start = weighted[weighted["when"] == "start"]
    first = start.drop_duplicates(["model", "task"])[["seed", "model", "task", "condition"]]
    before = start.merge(first).assign(condition="before training")
    sums = pd.concat([before, weighted[weighted["when"] == "end"]])
    data = sums.groupby(["model", "task", "condition", "bin"], sort=False)[["count", "grade", "score"]].sum()
    data = data.assign(grade=data["grade"] / data["count"], score=data["score"] / data["count"]).reset_index()
    totals = data.groupby(["model", "task", "condition"])["count"].transform("sum")
    data["share"] = data["count"] / totals
    figure, axes = grid(study, 2.6, 2.6)
    colours = {"before training": "0.35", **colours_of(study)}
    for model, task, axis in cells(study, axes):
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        part = data[(data["model"] == model) & (data["task"] == task)]
        for name, colour in colours.items():
            dots = part[part["condition"] == name].sort_values("bin")
            line, few = dots[dots["count"] >= FEW], dots[dots["count"] < FEW]
            if len(dots):
                dashes = dashes_of(study).get(name, "-")
                look = {"color": colour, "linestyle": dashes, "alpha": 0.6, "linewidth": 1.2, "zorder": 2}
                axis.plot(line["grade"], line["score"], label=name, **look)
                axis.scatter(
                    line["grade"], line["score"], s=6 + 110 * line["share"], color=colour, alpha=0.8, lw=0, zorder=3
                )
                axis.scatter(few["grade"], few["score"], s=12, facecolors="none", edgecolors=colour, lw=0.7, zorder=2)
        axis.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("soft grade")
    label_rows(study, axes, "score")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def draw_validity(study: Study, ends: pd.DataFrame, records: pd.DataFrame, path: Path) -> None:
    """Unreadable grades, cut-off responses and lost runs, as parts of all."""
    keys = ["model", "task", "condition"]
    shares = ends.assign(unreadable=1 - ends["readable"]).groupby(keys, sort=False)[["unreadable", "truncated"]].mean()
    planned = records.groupby(keys, sort=False)
    lost = planned["state"].agg(lambda states: float((~states.isin(["complete", "imported"])).mean()))
    diverged = planned["state"].agg(lambda states: float((states == "diverged").mean()))
    data = shares.join(pd.DataFrame({"diverged": diverged, "diverged_or_lacking": lost}), how="outer").reset_index()
    bars = {
        "unreadable": ("unreadable grades", "#0072B2"),
        "truncated": ("responses cut off", "#E69F00"),
        "diverged_or_lacking": ("runs diverged or lacking", "0.35"),
    }
    figure, axes = grid(study, 2.5, 2.3)
    for model, task, axis in cells(study, axes):
        part = data[(data["model"] == model) & (data["task"] == task)]
        names = present(part, study.conditions)
        part = part.set_index("condition")
        for index, (name, (label, colour)) in enumerate(bars.items()):
            values = part.loc[names, name].to_numpy() if names else np.zeros(0)
            axis.bar(np.arange(len(names)) + (index - 1) * 0.26, values, 0.26, color=colour, label=label, lw=0)
        name_places(axis, names)
        axis.set_ylim(0, max(0.12, 1.1 * float(np.nanmax([*data[list(bars)].to_numpy().ravel(), 0.0]))))
    label_rows(study, axes, "part of all")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def draw_costs(costs: pd.DataFrame, path: Path) -> None:
    """Hours of each job, split into training and held-out evaluation, with its speed and memory."""
    figure, axis = plt.subplots(figsize=(7.0, 0.36 * max(1, len(costs)) + 1.0), layout="constrained")
    longest = float(costs["seconds"].max()) if len(costs) else 1.0
    unit, seconds = ("hours", 3600.0) if longest > 3600 else ("minutes", 60.0)
    spent = costs["seconds"].to_numpy(dtype=float) / seconds
    evaluating = np.nan_to_num(costs["evaluating_seconds"].to_numpy(dtype=float)) / seconds
    places = range(len(costs))
    axis.barh(places, spent - evaluating, 0.6, color="#0072B2", label="training", lw=0)
    axis.barh(places, evaluating, 0.6, spent - evaluating, color="#E69F00", label="held-out evaluation", lw=0)
    for place, row in enumerate(costs.to_dict("records")):
        memory = "" if np.isnan(row["peak_mb"]) else f" · {row['peak_mb']:.0f} MB"
        text = f" {row['runs']} runs · {row['rounds_per_s']:.3g} run-rounds/s{memory}"
        axis.annotate(text, (spent[place], place), va="center", xytext=(3, 0), textcoords="offset points")
    axis.set_yticks(places, costs["job"])
    axis.set_ylim(max(len(costs), 1) - 0.5, -0.5)
    axis.set_xlim(0, 1.75 * longest / seconds)
    axis.set_xlabel(unit)
    axis.grid(axis="y", visible=False)
    legend(figure, axis)
    save(figure, costs, path)
    plt.close(figure)


def name_of(study: Study, model: str, task: str) -> str:
    """What a cell is called: by its task alone where there is one model."""
    return task if len(study.enabled_models) == 1 else f"{model} · {task}"


def _headline_colour(verdict: str) -> str:
    return HEADLINE_COLOURS[verdict.removeprefix("suggests ")]
