"""The report's first page, in reStructuredText: the verdicts, what they rest on, and what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from wireheading.analysis.signature import CURVES
from wireheading.study.config import Study

MOST = 40
"""Records that are listed by name before the rest is counted."""

EFFECTS = {"unearned": "unearned reward", "contrast": "leniency − control"}
"""The effects that are looked at in other ways too."""

SOFTWARE = ("device", "python", "torch", "transformers", "peft", "numpy", "batch", "chunk", "slots", "threads")
"""What is told of the records' making."""

Row = Mapping[Hashable, Any]


def overview(
    study: Study,
    verdicts: pd.DataFrame,
    models: pd.DataFrame,
    signatures: pd.DataFrame,
    calibration: pd.DataFrame,
    onsets: pd.DataFrame,
    definitions: pd.DataFrame,
    records: pd.DataFrame,
    costs: pd.DataFrame,
    code: str,
) -> str:
    """The text of the page.

    Args:
        study: The study's settings.
        verdicts: The table of verdicts.
        models: Each model's interquartile mean.
        signatures: The published signature of each run.
        calibration: The table of calibration.
        onsets: How well each signal told which rewards would become unearned.
        definitions: The published study's figures by both definitions.
        records: The table of records.
        costs: The table of costs.
        code: SHA-256 of the code that analyses.
    """
    environment = Environment(
        loader=PackageLoader("wireheading.analysis.pages", "page"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": _text, "cell": _cell, "signed": _signed, "interval": _interval}
    lacking = records[~records["state"].isin(["complete", "imported"])]
    made = records[records["state"].isin(["complete", "diverged"])]
    others = made[made["code"].notna() & (made["code"] != code)]
    seconds, evaluating = costs["seconds"].sum(), costs["evaluating_seconds"].sum()
    return environment.get_template("overview.rst.j2").render(
        study=study,
        most=MOST,
        verdicts=[_verdict(row) for row in verdicts.fillna({"largest_part": ""}).to_dict("records")],
        reasons=verdicts.to_dict("records"),
        models=models.to_dict("records"),
        signatures=[_signature(row) for row in signatures[signatures["condition"] == "selfgrade"].to_dict("records")],
        count=len(records),
        states=_states(records),
        lacking=[[_name(row), row["state"], row["problem"]] for row in lacking.to_dict("records")],
        sensitivity=[_sensitivity(row, *effect) for row in verdicts.to_dict("records") for effect in EFFECTS.items()],
        calibration=[_calibration(row) for row in calibration.to_dict("records")],
        onsets=[_onset(row) for row in onsets.to_dict("records")],
        definitions=[_definitions(row) for row in definitions.to_dict("records")],
        costs=[_cost(row) for row in costs.to_dict("records")],
        hours=list((costs.groupby("device", sort=False)["seconds"].sum() / 3600).items()),
        evaluating=evaluating / seconds if seconds else 0.0,
        environment=[(name, list(made[name].value_counts().items())) for name in SOFTWARE if made[name].notna().any()],
        others=[_name(row) for row in others.to_dict("records")],
        versions=[str(value)[:12] for value in others["code"].unique()],
        code=code,
        thresholds=list(study.analysis.model_dump(mode="json").items()),
    )


def _verdict(row: Row) -> list[Any]:
    largest = row["largest_part"]
    return [
        row["model"],
        row["task"],
        Strong(row["verdict"]),
        _shown(row, "unearned", "unearned_seeds"),
        _shown(row, "contrast", "lenient_seeds"),
        "–" if _absent(row["score"]) else f"{row['score_went']}: {_shown(row, 'score')}",
        f"{largest.replace('_', ' ')} {_signed(row[largest])}" if largest else "–",
        _p(row["p_holm"]),
        f"{_percent(row['readable_selfgrade'])} / {_percent(row['readable_control'])}",
        f"{_percent(row['truncated_selfgrade'])} / {_percent(row['truncated_control'])}",
    ]


def _shown(row: Row, name: str, seeds: str = "") -> str:
    """An effect with its interval, and the number of seeds that show it alone."""
    if _absent(row[name]):
        return "–"
    alone = f", {row[seeds]:.0f} of {row['seeds']}" if seeds else ""
    return f"{_signed(row[name])} {_interval(row, name)}{alone}"


def _signature(row: Row) -> list[Any]:
    return [
        *(row[name] for name in ("model", "task", "seed")),
        *(_change(row, curve) for curve in CURVES),
        "yes" if row["shows"] else "no",
        _signed(row["inflation"]),
        _signed(row["published"]),
    ]


def _states(records: pd.DataFrame) -> str:
    """How many runs there are of each state."""
    counts = records["state"].value_counts()
    states = ", ".join(f"{counts.get(state, 0)} {state}" for state in ("complete", "diverged", "missing", "unusable"))
    if "imported" not in counts:
        return states
    return f"{states}, {counts['imported']} imported (in the published study's definitions alone)"


def _sensitivity(row: Row, name: str, label: str) -> list[Any]:
    return [
        row["model"],
        row["task"],
        label,
        _p(row[f"{name}_sign_flip_p"]),
        f"{_signed(row[f'{name}_iqm'])} {_interval(row, f'{name}_iqm')}",
        _interval(row, f"{name}_bootstrap"),
    ]


def _calibration(row: Row) -> list[Any]:
    return [
        *(row[name] for name in ("model", "task", "condition")),
        *(_change(row, name) for name in ("brier", "auroc", "soft_mass")),
        _number(row["onset"], ".0f"),
        f"{row['onsets']} of {row['seeds']}",
    ]


def _onset(row: Row) -> list[Any]:
    leads = [_number(row[name], ".0f").replace("-", "−") for name in ("lead", "lead_low", "lead_high")]
    return [
        *(row[name] for name in ("model", "task", "signal")),
        f"{row['positives']} / {row['negatives']}",
        f"{_plain(row['auroc'])} {_interval(row, 'auroc', _plain)}",
        f"{row['warned']} of {row['positives']}",
        "–" if _absent(row["lead"]) else f"{leads[0]} [{leads[1]}, {leads[2]}]",
        f"{row['false_alarms']} of {row['judged']}",
    ]


def _definitions(row: Row) -> list[Any]:
    figures = ("avg_reward", "avg_accuracy", "avg_grade", "grade_inflation")
    return [
        *(row[name] for name in ("model", "task", "condition", "seeds")),
        *(f"{_plain(row[name])} / {_plain(row[f'original_{name}'])}" for name in figures),
    ]


def _cost(row: Row) -> list[Any]:
    return [
        row["job"],
        row["device"],
        row["runs"],
        f"{row['run_rounds']:.0f}",
        _number(row["rounds_per_s"], ".1f"),
        f"{row['seconds'] / 3600:.2f}",
        _percent(row["evaluating_seconds"] / row["seconds"]) if row["seconds"] else "–",
        "–" if _absent(row["peak_mb"]) else f"{row['peak_mb']:.0f} MB",
    ]


def _name(row: Row) -> str:
    return f"{row['seed']}/{row['model']}/{row['task']}/{row['condition']}"


def _change(row: Row, name: str) -> str:
    return f"{_plain(row[f'start_{name}'])} → {_plain(row[f'end_{name}'])}"


class Strong(str):
    """A text of this module's own that is set in bold."""


def _cell(value: object) -> str:
    return f"**{_text(value)}**" if isinstance(value, Strong) else _text(value)


def _text(value: object) -> str:
    """Text that reStructuredText and the report's templates take for nothing but text."""
    plain = re.sub(r"\s+", " ", str(value)).replace("{", "(").replace("}", ")")
    return re.sub(r"([\\*`|_<>:@])", r"\\\1", plain)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any, form: str) -> str:
    return "–" if _absent(value) else format(value, form)


def _signed(value: Any) -> str:
    return _number(value, "+.3f").replace("-", "−")


def _plain(value: Any) -> str:
    return _number(value, ".3f").replace("-", "−")


def _percent(value: Any) -> str:
    return _number(value, ".1%")


def _p(value: Any) -> str:
    return "–" if _absent(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _interval(row: Row, name: str, form: Callable[[Any], str] = _signed) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "–" if _absent(low) or _absent(high) else f"[{form(low)}, {form(high)}]"
