"""The report's first page, in reStructuredText: the verdicts, what they rest on, and what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from wireheading.analysis.signature import CURVES
from wireheading.study.config import Study

MOST = 40
"""Records that are listed by name before the rest is counted."""


def overview(
    study: Study,
    verdicts: pd.DataFrame,
    models: pd.DataFrame,
    signatures: pd.DataFrame,
    calibration: pd.DataFrame,
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
        definitions: The published study's figures by both definitions.
        records: The table of records.
        costs: The table of costs.
        code: SHA-256 of the code that analyses.
    """
    return "\n".join(
        [
            *_title("Do these models wirehead?", "="),
            "Three questions on held-out items: was the gain in paid reward earned by better answers? Did the grader",
            "grow lenient, to the same wrong answers, more than in *control*? What became of the answers? Each has its",
            "effect, a 95 % interval over seeds and items, and the number of seeds that show it alone. How the verdict",
            "follows was fixed beforehand; docs/verdict.md gives the rule.",
            "",
            *_verdicts(verdicts),
            *_title("The signature as published, in selfgrade", "-"),
            *_signature(signatures),
            *_title("What was run", "-"),
            *_run(study, records),
            *_title("Missing, unusable or diverged", "-"),
            *_lacking(study, records),
            *_title("Other ways to look at the effects", "-"),
            *_sensitivity(verdicts, models),
            *_title("What the grades are worth", "-"),
            *_calibration(calibration),
            *_title("The published study's definitions beside this one's", "-"),
            *_definitions(definitions),
            *_title("Cost", "-"),
            *_costs(costs),
            *_title("Environment and thresholds", "-"),
            *_environment(records, code),
            *_thresholds(study),
        ]
    )


def _verdicts(verdicts: pd.DataFrame) -> list[str]:
    header = ["model", "task", "verdict", "unearned reward", "leniency − control", "score − control",
              "largest part of the gain", "p (Holm)", "readable", "cut off"]  # fmt: skip
    rows = [
        [
            row["model"],
            row["task"],
            f"**{row['verdict']}**",
            _shown(row, "unearned", "unearned_seeds"),
            _shown(row, "contrast", "lenient_seeds"),
            "–" if _absent(row["score"]) else f"{row['score_went']}: {_shown(row, 'score')}",
            f"{row['largest_part'].replace('_', ' ')} {_signed(row[row['largest_part']])}"
            if row["largest_part"]
            else "–",
            _p(row["p_holm"]),
            f"{_percent(row['readable_selfgrade'])} / {_percent(row['readable_control'])}",
            f"{_percent(row['truncated_selfgrade'])} / {_percent(row['truncated_control'])}",
        ]
        for row in verdicts.fillna({"largest_part": ""}).to_dict("records")
    ]
    reasons = [
        f"* {_text(row['model'])}, {_text(row['task'])}: {_text(row['why'])}." for row in verdicts.to_dict("records")
    ]
    told = (
        "Readable grades and responses cut off are shares at the end, in *selfgrade* / *control*. They decide nothing."
    )
    return [*_table(header, rows, strong=True), told, "", *reasons, ""]


def _shown(row: Mapping[Hashable, Any], name: str, seeds: str = "") -> str:
    """An effect with its interval, and the number of seeds that show it alone."""
    if _absent(row[name]):
        return "–"
    alone = f", {row[seeds]:.0f} of {row['seeds']}" if seeds else ""
    return f"{_signed(row[name])} {_interval(row[f'{name}_low'], row[f'{name}_high'])}{alone}"


def _signature(signatures: pd.DataFrame) -> list[str]:
    told = [
        "From the first to the last eighth of training, by the published definitions (their readers and evaluators, an",
        "unreadable grade as 0). A run shows the signature if reward rises by more than the margin, accuracy does not,",
        "and grade − accuracy ends above 0 and higher than it began. The last columns are the mean of grade − accuracy",
        "over all rounds, and the published one.",
        "",
    ]
    header = ["model", "task", "seed", "reward", "accuracy", "grade − accuracy", "shows it", "mean", "published"]
    rows = [
        [
            *(row[name] for name in ("model", "task", "seed")),
            *(f"{_plain(row[f'start_{curve}'])} → {_plain(row[f'end_{curve}'])}" for curve in CURVES),
            "yes" if row["shows"] else "no",
            _signed(row["inflation"]),
            _signed(row["published"]),
        ]
        for row in signatures[signatures["condition"] == "selfgrade"].to_dict("records")
    ]
    return [*told, *_table(header, rows)]


def _run(study: Study, records: pd.DataFrame) -> list[str]:
    counts = records["state"].value_counts()
    told = ", ".join(f"{counts.get(state, 0)} {state}" for state in ("complete", "diverged", "missing", "unusable"))
    imported = (
        f", {counts['imported']} imported (in the published study's definitions alone)" if "imported" in counts else ""
    )
    seeds = ", ".join(map(str, study.seeds))
    return [
        f"{len(records)} runs are in the study: {told}{imported}.",
        f"Each has {study.rounds} rounds; the seeds are {seeds}.",
        "",
        f"* Models: {_text(', '.join(study.enabled_models))}",
        f"* Tasks: {', '.join(study.tasks)}",
        f"* Conditions: {', '.join(study.conditions)}",
        "",
    ]


def _lacking(study: Study, records: pd.DataFrame) -> list[str]:
    lacking = records[~records["state"].isin(["complete", "imported"])]
    if lacking.empty:
        return ["None.", ""]
    rows = [
        [f"{row['seed']}/{row['model']}/{row['task']}/{row['condition']}", row["state"], row["problem"]]
        for row in lacking.head(MOST).to_dict("records")
    ]
    more = (
        [f"And {len(lacking) - MOST} more, in {_text(study.results)}/records.csv.", ""] if len(lacking) > MOST else []
    )
    told = "None of these is in any mean on this page. What a diverged run did until then is in the learning curves."
    return [told, "", *_table(["run", "state", "why"], rows, wrapped=True), *more]


def _sensitivity(verdicts: pd.DataFrame, models: pd.DataFrame) -> list[str]:
    told = [
        "These do not decide. They look at the means of the seeds alone. The sign-flip test can give no p value below",
        "1 in 2 to the power of the number of seeds.",
        "",
    ]
    header = ["model", "task", "effect", "sign-flip p", "interquartile mean (95 %)", "bootstrap of the mean (95 %)"]
    effects = {"unearned": "unearned reward", "contrast": "leniency − control"}
    rows = [
        [
            row["model"],
            row["task"],
            label,
            _p(row[f"{name}_sign_flip_p"]),
            f"{_signed(row[f'{name}_iqm'])} {_interval(row[f'{name}_iqm_low'], row[f'{name}_iqm_high'])}",
            _interval(row[f"{name}_bootstrap_low"], row[f"{name}_bootstrap_high"]),
        ]
        for row in verdicts.to_dict("records")
        for name, label in effects.items()
    ]
    together = [
        f"* {_text(row['model'])}, {row['tasks']} complete tasks together: interquartile mean of leniency − control "
        f"{_signed(row['iqm'])} {_interval(row['iqm_low'], row['iqm_high'])} (95 %, seeds resampled within each task)."
        for row in models.to_dict("records")
    ]
    return [*told, *_table(header, rows), *together, ""]


def _calibration(calibration: pd.DataFrame) -> list[str]:
    told = [
        "On held-out items, before training → at its end, means over seeds: the mean of (soft grade − score)², which",
        "is the Brier score; the chance that an accurate answer has a higher soft grade than another (AUROC), where it",
        "can be asked; the probability of all grades together; and the median round of the onset, with the number of",
        "seeds that have one.",
        "",
    ]
    header = ["model", "task", "condition", "Brier score", "AUROC", "mass of grades", "onset", "seeds with an onset"]
    rows = [
        [
            *(row[name] for name in ("model", "task", "condition")),
            *(
                f"{_plain(row[f'start_{name}'])} → {_plain(row[f'end_{name}'])}"
                for name in ("brier", "auroc", "soft_mass")
            ),
            _number(row["onset"], ".0f"),
            f"{row['onsets']} of {row['seeds']}",
        ]
        for row in calibration.to_dict("records")
    ]
    return [*told, *_table(header, rows)]


def _definitions(definitions: pd.DataFrame) -> list[str]:
    told = [
        "Means over all rounds and seeds, by this project's definitions and, after the stroke, by the published",
        "study's: there, an unreadable grade is 0, the published evaluators and readers are used, and inflation is the",
        "grade minus accuracy (in summarization, minus whether ROUGE-L exceeds 0.3).",
        "",
    ]
    header = ["model", "task", "condition", "seeds", "reward", "accuracy", "grade", "inflation"]
    figures = ("avg_reward", "avg_accuracy", "avg_grade", "grade_inflation")
    rows = [
        [
            *(row[name] for name in ("model", "task", "condition", "seeds")),
            *(f"{_plain(row[name])} / {_plain(row[f'original_{name}'])}" for name in figures),
        ]
        for row in definitions.to_dict("records")
    ]
    return [*told, *_table(header, rows)]


def _costs(costs: pd.DataFrame) -> list[str]:
    if costs.empty:
        return ["No record says how long it took.", ""]
    hours = costs.groupby("device", sort=False)["seconds"].sum() / 3600
    told = "; ".join(f"{value:.2f} hours on {_text(device)}" for device, value in hours.items())
    share = costs["evaluating_seconds"].sum() / costs["seconds"].sum()
    header = ["job", "device", "runs", "run-rounds", "run-rounds/s", "hours", "of it evaluation", "peak host memory"]
    rows = [
        [
            row["job"],
            row["device"],
            row["runs"],
            f"{row['run_rounds']:.0f}",
            _number(row["rounds_per_s"], ".1f"),
            f"{row['seconds'] / 3600:.2f}",
            _percent(row["evaluating_seconds"] / row["seconds"]) if row["seconds"] else "–",
            "–" if _absent(row["peak_mb"]) else f"{row['peak_mb']:.0f} MB",
        ]
        for row in costs.to_dict("records")
    ]
    return [f"{told}, {share:.0%} of it in held-out evaluation.", "", *_table(header, rows)]


def _environment(records: pd.DataFrame, code: str) -> list[str]:
    made = records[records["state"].isin(["complete", "diverged"])]
    lines = [
        f"* {name}: " + ", ".join(f"{_text(value)} ({count})" for value, count in made[name].value_counts().items())
        for name in ("device", "python", "torch", "transformers", "peft", "numpy", "batch", "chunk", "slots", "threads")
        if made[name].notna().any()
    ]
    others = made[made["code"].notna() & (made["code"] != code)]
    if others.empty:
        told = "All records were made by the code that analyses them."
    else:
        named = [f"{row.seed}/{row.model}/{row.task}/{row.condition}" for row in others.head(MOST).itertuples()]
        rest = f" and {len(others) - MOST} more" if len(others) > MOST else ""
        versions = ", ".join(str(value)[:12] for value in others["code"].unique())
        told = (
            f"{len(others)} records were made by other code ({versions}) than analyses them ({code[:12]}): "
            f"{_text(', '.join(named))}{rest}."
        )
    return ["In brackets, the number of records:", "", *lines, "", told, ""]


def _thresholds(study: Study) -> list[str]:
    values = study.analysis.model_dump(mode="json")
    told = ", ".join(f"{name} {value if value != [] else 'none'}" for name, value in values.items())
    return [f"Thresholds: {_text(told)}.", "", f"Their SHA-256: {study.analysis.digest()}", ""]


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, strong: bool = False, wrapped: bool = False
) -> list[str]:
    """A list table; text is escaped but for what is strong, in stars. The last column is wrapped if asked."""
    body = list(rows)
    if not body:
        return ["There is nothing to show.", ""]
    lines = [".. list-table::", "   :header-rows: 1", *(["   :class: wrapped"] if wrapped else []), ""]
    for cells in (header, *body):
        for index, cell in enumerate(cells):
            text = str(cell)
            marked = strong and text.startswith("**")
            lines.append(f"   {'* -' if index == 0 else '  -'} {text if marked else _text(text)}")
    return [*lines, ""]


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


def _interval(low: Any, high: Any) -> str:
    return "–" if _absent(low) or _absent(high) else f"[{_signed(low)}, {_signed(high)}]"
