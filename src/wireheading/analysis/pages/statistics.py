"""The report's tables: every figure of the verdicts and what stands beside them, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wireheading.analysis.signature import CURVES

MOST = 40
"""Records that are listed by name before the rest is counted."""

EFFECTS = {"unearned": "unearned reward", "contrast": "leniency − control"}
"""The effects that are looked at in other ways too."""

SOFTWARE = ("device", "python", "torch", "transformers", "peft", "numpy", "batch", "chunk", "slots", "threads")
"""What is told of the records' making."""

Row = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        header: The names of its columns.
        rows: Its rows, a text for each column.
        wrapped: Whether its last column holds sentences.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrapped: bool = False


def verdict_table(verdicts: pd.DataFrame) -> Table:
    """The three questions of each model and task."""
    header = ("model", "task", "verdict", "unearned reward", "leniency − control", "score − control",
              "largest part of the gain", "p (Holm)", "readable", "cut off")  # fmt: skip
    return Table(header, [_verdict(row) for row in verdicts.to_dict("records")])


def signature_table(signatures: pd.DataFrame) -> Table:
    """The signature as published, of each run of `selfgrade`."""
    header = ("model", "task", "seed", "reward", "accuracy", "grade − accuracy", "shows it", "mean", "published")
    rows = signatures[signatures["condition"] == "selfgrade"].to_dict("records")
    return Table(header, [_signature(row) for row in rows])


def published_table(signatures: pd.DataFrame) -> Table | None:
    """The published means of grade − accuracy beside this study's; None where no model and task was in that study."""
    there = signatures.dropna(subset=["published", "inflation"])
    if there.empty:
        return None
    keys = ["model", "task", "condition"]
    rows = there.groupby(keys, sort=False).agg(
        ours=("inflation", "mean"), low=("inflation", "min"), high=("inflation", "max"),
        seeds=("seed", "size"), published=("published", "first"),
    )  # fmt: skip
    return Table(
        ("model", "task", "condition", "published", "here", "from … to", "seeds"),
        [
            [*key, _signed(row["published"]), _signed(row["ours"]), f"{_signed(row['low'])} … {_signed(row['high'])}",
             f"{row['seeds']:.0f}"]
            for key, row in zip(rows.index, rows.to_dict("records"), strict=True)
        ],
    )  # fmt: skip


def sensitivity_table(verdicts: pd.DataFrame) -> Table:
    """Other ways to look at the effects."""
    header = ("model", "task", "effect", "sign-flip p", "interquartile mean (95 %)", "bootstrap of the mean (95 %)")
    rows = [_sensitivity(row, *effect) for row in verdicts.to_dict("records") for effect in EFFECTS.items()]
    return Table(header, rows)


def models_lines(models: pd.DataFrame) -> list[str]:
    """Each model's interquartile mean over its tasks."""
    return [
        f"{row['model']}, {row['tasks']} complete tasks together: interquartile mean of leniency − control "
        f"{_signed(row['iqm'])} {_interval(row, 'iqm')} (95 %, seeds resampled within each task)."
        for row in models.to_dict("records")
    ]


def calibration_table(calibration: pd.DataFrame) -> Table:
    """What the grades are worth."""
    header = ("model", "task", "condition", "Brier score", "AUROC", "mass of grades", "grades rise in round",
              "seeds in which they rise")  # fmt: skip
    return Table(header, [_calibration(row) for row in calibration.to_dict("records")])


def onset_table(onsets: pd.DataFrame) -> Table:
    """Which signals told that rewards would become unearned."""
    header = ("model", "task", "signal", "runs with / without onset", "AUROC", "warned of", "lead", "false alarms")
    return Table(header, [_onset(row) for row in onsets.to_dict("records")])


def definitions_table(definitions: pd.DataFrame) -> Table:
    """The published study's definitions beside this one's."""
    header = ("model", "task", "condition", "seeds", "reward", "accuracy", "grade", "inflation")
    return Table(header, [_definitions(row) for row in definitions.to_dict("records")])


def cost_table(costs: pd.DataFrame) -> Table:
    """What each job took."""
    header = ("job", "device", "runs", "run-rounds", "run-rounds/s", "hours", "of it evaluation", "peak host memory")
    return Table(header, [_cost(row) for row in costs.to_dict("records")])


def gap_table(gaps: pd.DataFrame) -> Table:
    """How far sampled and recomputed log-probabilities differ."""
    header = ("model", "runs", "mean gap", "largest gap")
    return Table(header, [_gap(row) for row in gaps.to_dict("records")])


def lacking_table(records: pd.DataFrame) -> tuple[Table, int]:
    """The records that are in no mean, and how many there are beyond those that are listed."""
    lacking = records[~records["state"].isin(["complete", "imported"])]
    rows = [[_name(row), row["state"], str(row["problem"])] for row in lacking[:MOST].to_dict("records")]
    return Table(("run", "state", "why"), rows, wrapped=True), max(0, len(lacking) - MOST)


def cost_line(costs: pd.DataFrame) -> str:
    """Hours by device, and the part that was evaluation."""
    seconds, evaluating = costs["seconds"].sum(), costs["evaluating_seconds"].sum()
    if not seconds:
        return "No record says how long it took."
    hours = costs.groupby("device", sort=False)["seconds"].sum() / 3600
    told = "; ".join(f"{value:.2f} hours on {device}" for device, value in hours.items())
    return f"{told}, {evaluating / seconds:.0%} of it in held-out evaluation."


def environment_lines(records: pd.DataFrame, code: str) -> list[str]:
    """What the records were made on and by, with the number of records of each; `code` is that of the analysis."""
    made = records[records["state"].isin(["complete", "diverged"])]
    told = [
        f"{name}: " + ", ".join(f"{value} ({count})" for value, count in made[name].value_counts().items())
        for name in SOFTWARE
        if made[name].notna().any()
    ]
    others = made[made["code"].notna() & (made["code"] != code)]
    if others.empty:
        return [*told, "All records were made by the code that analyses them."]
    versions = ", ".join(str(value)[:12] for value in others["code"].unique())
    names = ", ".join(_name(row) for row in others[:MOST].to_dict("records"))
    more = f" and {len(others) - MOST} more" if len(others) > MOST else ""
    line = (
        f"{len(others)} records were made by other code ({versions}) than analyses them ({code[:12]}): {names}{more}."
    )
    return [*told, line]


def states_line(records: pd.DataFrame) -> str:
    """How many runs there are of each state."""
    counts = records["state"].value_counts()
    states = ", ".join(f"{counts.get(state, 0)} {state}" for state in ("complete", "diverged", "missing", "unusable"))
    if "imported" not in counts:
        return states
    return f"{states}, {counts['imported']} imported (in the published study's definitions alone)"


def _verdict(row: Row) -> list[str]:
    largest = "" if _absent(row["largest_part"]) else row["largest_part"]
    return [
        row["model"],
        row["task"],
        row["verdict"],
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


def _signature(row: Row) -> list[str]:
    return [
        *(row[name] for name in ("model", "task", "seed")),
        *(_change(row, curve) for curve in CURVES),
        "yes" if row["shows"] else "no",
        _signed(row["inflation"]),
        _signed(row["published"]),
    ]


def _sensitivity(row: Row, name: str, label: str) -> list[str]:
    return [
        row["model"],
        row["task"],
        label,
        _p(row[f"{name}_sign_flip_p"]),
        f"{_signed(row[f'{name}_iqm'])} {_interval(row, f'{name}_iqm')}",
        _interval(row, f"{name}_bootstrap"),
    ]


def _calibration(row: Row) -> list[str]:
    return [
        *(row[name] for name in ("model", "task", "condition")),
        *(_change(row, name) for name in ("brier", "auroc", "soft_mass")),
        _number(row["onset"], ".0f"),
        f"{row['onsets']} of {row['seeds']}",
    ]


def _onset(row: Row) -> list[str]:
    leads = [_number(row[name], ".0f").replace("-", "−") for name in ("lead", "lead_low", "lead_high")]
    return [
        *(row[name] for name in ("model", "task", "signal")),
        f"{row['positives']} / {row['negatives']}",
        f"{_plain(row['auroc'])} {_interval(row, 'auroc', _plain)}",
        f"{row['warned']} of {row['positives']}",
        "–" if _absent(row["lead"]) else f"{leads[0]} [{leads[1]}, {leads[2]}]",
        f"{row['false_alarms']} of {row['judged']}",
    ]


def _definitions(row: Row) -> list[str]:
    figures = ("avg_reward", "avg_accuracy", "avg_grade", "grade_inflation")
    return [
        *(row[name] for name in ("model", "task", "condition", "seeds")),
        *(f"{_plain(row[name])} / {_plain(row[f'original_{name}'])}" for name in figures),
    ]


def _cost(row: Row) -> list[str]:
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


def _gap(row: Row) -> list[str]:
    return [str(row["model"]), str(row["runs"]), _number(row["mean"], ".2g"), _number(row["largest"], ".2g")]


def _name(row: Row) -> str:
    return f"{row['seed']}/{row['model']}/{row['task']}/{row['condition']}"


def _change(row: Row, name: str) -> str:
    return f"{_plain(row[f'start_{name}'])} → {_plain(row[f'end_{name}'])}"


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
