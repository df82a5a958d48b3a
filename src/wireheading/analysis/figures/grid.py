"""Figures with an axis for each model (row) and task (column)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wireheading.study.config import Study


def grid(study: Study, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with an axis of this size, in inches, for each model and task."""
    rows, columns = len(study.enabled_models), len(study.enabled_tasks)
    size = (width * columns + 0.6, height * rows + 0.4)
    return plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")


def cells(study: Study, axes: Any) -> list[tuple[str, str, Axes]]:
    """Model, task and axis of each."""
    return [
        (model, task, axes[row][column])
        for row, model in enumerate(study.enabled_models)
        for column, task in enumerate(study.enabled_tasks)
    ]


def label_rows(study: Study, axes: Any, label: str) -> None:
    """Writes the tasks above the columns, and beside each row what its y axis is, of which model if there are more."""
    for axis, task in zip(axes[0], study.enabled_tasks, strict=True):
        axis.set_title(task)
    for row, model in zip(axes, study.enabled_models, strict=True):
        row[0].set_ylabel(label if len(axes) == 1 else f"{model}\n{label}")


def name_places(axis: Axes, names: Sequence[str]) -> None:
    """Writes names below an axis, slanted where they would meet."""
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, max(len(names), 1) - 0.4)
    axis.grid(axis="x", visible=False)


def present(part: pd.DataFrame, conditions: Iterable[str]) -> list[str]:
    """Those of some conditions that are in a table, in their order."""
    there = set(part["condition"])
    return [condition for condition in conditions if condition in there]


def legend(figure: Figure, axes: Any) -> None:
    """One legend below the figure, of what is in any of its axes."""
    shown: dict[str, Any] = {}
    for axis in np.ravel(np.asarray(axes, dtype=object)):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        columns = max(1, min(len(shown), int(figure.get_figwidth() / 1.2)))
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=columns,
            frameon=False,
        )
