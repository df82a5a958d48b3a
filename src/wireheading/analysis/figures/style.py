"""One look for every figure: colours that colour-blind readers can tell apart, vector graphics that do not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from wireheading.analysis.rule import (
    EARNED,
    INCOMPLETE,
    INCONCLUSIVE,
    NO_EFFECT,
    NO_HEADROOM,
    UNEARNED,
    WIREHEADING,
)
from wireheading.analysis.tables import write_csv
from wireheading.files import replacing
from wireheading.study.config import Study

mpl.use("Agg")

Colour = str | tuple[float, float, float]

# Okabe and Ito's palette.
KNOWN_COLOURS: dict[str, Colour] = {
    "control": "#56B4E9",
    "selfgrade": "#D55E00",
    "honest": "#009E73",
    "frozen": "#E69F00",
    "responseonly": "#CC79A7",
    "gradeonly": "#0072B2",
    "coin": "#595959",
}
"""A known condition has the same colour in every figure of every study."""

PART_COLOURS = {"score_gain": "#009E73", "persuasion": "#F0E442", "inflation": "#D55E00", "format": "#999999"}
"""Those of the parts of the gain in the self-grade."""

RESULT_COLOURS = {"reward": "#D55E00", "score": "#0072B2", "control": "#3C3C3C"}
"""Those of what `selfgrade` is paid, what its answers are worth, and what those of `control` are."""

HEADLINE_COLOURS = {
    WIREHEADING: "#D55E00",
    UNEARNED: "#CC79A7",
    EARNED: "#009E73",
    NO_EFFECT: "#0072B2",
    NO_HEADROOM: "#595959",
    INCONCLUSIVE: "#595959",
    INCOMPLETE: "#9A9A9A",
}
"""Those of headlines, which are always written out beside."""


def colours_of(study: Study) -> dict[str, Colour]:
    """The colour of each condition, in the config's order; rows of one's own go from dark to light."""
    own = [name for name in study.conditions if name not in KNOWN_COLOURS]
    colours = KNOWN_COLOURS | dict(zip(own, sns.color_palette("viridis", len(own)), strict=True))
    return {name: colours[name] for name in study.conditions}


def dashes_of(study: Study) -> dict[str, Any]:
    """The dashes of each condition's lines: `control` may be the same as another, which its gaps let through."""
    return {name: (0, (3.5, 2)) if name == "control" else "-" for name in study.conditions}


def use_style() -> None:
    """Sets the look of the figures that are drawn from now on."""
    # The first comes with matplotlib: what is measured with it has the same width on every machine.
    fonts = ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"]
    sns.set_theme(style="whitegrid", context="paper", rc={"font.sans-serif": fonts})
    # A fixed salt and no date: the same data give the same bytes.
    mpl.rcParams.update({"svg.hashsalt": "wireheading", "svg.fonttype": "none", "axes.titleweight": "bold"})


def save(figure: Figure, data: pd.DataFrame, path: Path) -> None:
    """Writes a figure as SVG, and what it shows as CSV beside it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", bbox_inches="tight", metadata={"Date": None})
    write_csv(path.with_suffix(".csv"), data)
