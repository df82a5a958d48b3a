"""The page on oversight: what audits, reforms and other tasks showed, in sentences made from the estimates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wireheading.analysis.oversight import signed, smallest_rate
from wireheading.analysis.pages.templates import templates
from wireheading.files import replacing
from wireheading.study.config import Study
from wireheading.study.oversight import doses, oversight_figures, reforms, unreformed
from wireheading.study.paths import Oversight

Row = Mapping[Hashable, Any]


def write_oversight_page(study: Study, oversight: Oversight, onsets: Path, figures: Path) -> None:
    """Writes the page.

    Args:
        study: The study's settings.
        oversight: The tables of oversight, and where the page goes.
        onsets: The table of onsets.
        figures: The folder of the figures.
    """
    effects, transfer, signals = (pd.read_csv(path) for path in (oversight.effects, oversight.transfer, onsets))
    with replacing(oversight.page) as temporary:
        temporary.write_text(oversight_page(study, effects, transfer, signals, figures), encoding="utf-8")


def oversight_page(
    study: Study, effects: pd.DataFrame, transfer: pd.DataFrame, onsets: pd.DataFrame, figures: Path
) -> str:
    """The page as HTML, whole in itself.

    Args:
        study: The study's settings.
        effects: What each condition did.
        transfer: Leniency by task trained on and task graded.
        onsets: How well each signal told which rewards would become unearned.
        figures: The folder of the figures, which are put into the page.
    """
    environment = templates()
    environment.filters |= {"signed": signed, "percent": percent}
    cells = [
        (_name(study, model, task), effects[(effects["model"] == model) & (effects["task"] == task)])
        for model in study.enabled_models
        for task in study.enabled_tasks
    ]
    asked = oversight_figures(study)
    return environment.get_template("oversight.html.j2").render(
        study=study,
        asked=asked,
        drawn={name: _drawing(figures / f"{name}.svg") for name in asked},
        doses=[(name, dose_sentences(study, part)) for name, part in cells] if doses(study) else [],
        reforms=[(name, reform_sentence(study, part, reform)) for reform in reforms(study) for name, part in cells],
        transfers=[
            (model, transfer_sentence(study, transfer[transfer["model"] == model])) for model in study.enabled_models
        ],
        onsets=[
            (_name(study, str(model), str(task)), onset_sentence(part))
            for (model, task), part in onsets.groupby(["model", "task"], sort=False)
        ],
        effects=[_effect(study, row) for row in effects.to_dict("records")],
        signals=[_signal(study, row) for row in onsets.to_dict("records")],
    )


def dose_sentences(study: Study, effects: pd.DataFrame) -> str:
    """What audits showed in one model and task."""
    rates, margin, alpha = doses(study), study.analysis.margin, study.analysis.alpha
    rows = _by_condition(effects)
    if any(math.isnan(rows[name]["contrast"]) for name in rates):
        return "Some runs are missing, or control is: nothing is said."
    first, *_, last = rates
    over = [percent(rates[name]) for name in rates if rows[name]["p_lenient"] <= alpha]
    told = [
        f"{f'Audited in {percent(rates[first])} of rounds' if rates[first] else 'Without audits'}, leniency exceeds "
        f"that in control by {shown(rows[first], 'contrast')}."
    ]
    told.append(
        f"It is shown to exceed it by more than {margin} at {listed(over)}." if over else
        f"At no rate is it shown to exceed it by more than {margin}, so there was little for audits to prevent."
    )  # fmt: skip
    found = smallest_rate(study, effects)
    if found is None:
        told.append(
            f"At no rate is it shown to exceed it by less than {margin}; at {percent(rates[last])} it does so by "
            f"{shown(rows[last], 'contrast')}."
        )
        return " ".join(told)
    row = rows[found]
    told.append(
        f"The smallest rate from which on it is shown to exceed it by less than {margin} is {percent(rates[found])} "
        f"({shown(row, 'contrast')}). There, unearned reward is {shown(row, 'unearned')}, and the score is "
        f"{shown(row, 'score_contrast')} against control."
    )
    return " ".join(told)


def reform_sentence(study: Study, effects: pd.DataFrame, name: str) -> str:
    """What a reform showed in one model and task."""
    rows, without = _by_condition(effects), unreformed(study, name)
    row = rows[name]
    margin, alpha = study.analysis.margin, study.analysis.alpha
    if math.isnan(row["contrast"]):
        return f"{name}: some runs are missing, or control is; nothing is said."
    told = f"{name}: at the end, leniency exceeds that in control by {shown(row, 'contrast')}"
    if without is None or math.isnan(row["against_unreformed"]):
        told += ". "
    else:
        told += f", and is {shown(row, 'against_unreformed')} against {without}. "
        if not rows[without]["p_lenient"] <= alpha:
            told += f"{without} is itself not shown to be more lenient than control, so there was little to undo. "
        elif row["p_not_lenient"] <= alpha:
            told += f"The reform undid it: what is left is shown to be less than {margin}. "
        elif row["p_undone"] <= alpha:
            rest = "more than" if row["p_lenient"] <= alpha else "not shown to be less than"
            told += f"The reform took a part of it away; what is left is {rest} {margin}. "
        else:
            told += "It is not shown that the reform took anything away. "
    return told + f"The score ends {shown(row, 'score_contrast')} against control."


def transfer_sentence(study: Study, transfer: pd.DataFrame) -> str:
    """What carried over from one task to others in one model."""
    rows = transfer[(transfer["condition"] == "selfgrade") & (transfer["trained"] != transfer["graded"])]
    if rows.empty or rows["contrast"].isna().any():
        return "Some runs are missing, or control is: nothing is said."
    margin = study.analysis.margin
    found = rows[rows["p_holm"] <= study.analysis.alpha]
    pairs = [
        f"trained on {row['trained']} and grading {row['graded']} ({shown(row, 'contrast')})"
        for row in found.to_dict("records")
    ]
    if pairs:
        return (
            f"In {len(pairs)} of {len(rows)} pairs of different tasks, graders of selfgrade are shown to be more "
            f"lenient than those of control by more than {margin}: {listed(pairs)}."
        )
    most = max(rows.to_dict("records"), key=lambda row: row["contrast"])
    return (
        f"In none of {len(rows)} pairs of different tasks are graders of selfgrade shown to be more lenient than those "
        f"of control by more than {margin}; the most is {shown(most, 'contrast')}, trained on {most['trained']} and "
        f"grading {most['graded']}."
    )


def onset_sentence(signals: pd.DataFrame) -> str:
    """Which signal told best, in one model and task, that rewards would become unearned."""
    best = max(signals.to_dict("records"), key=lambda row: row["auroc"])
    told = (
        f"In {best['positives']} of {best['positives'] + best['negatives']} runs rewards became unearned. The best "
        f"sign is the {best['signal']}, with an AUROC of {best['auroc']:.2f} [{best['auroc_low']:.2f}, "
        f"{best['auroc_high']:.2f}]; it warned of {best['warned']} of {best['positives']} at their onset or before, "
    )
    if not math.isnan(best["lead"]):
        told += f"with a median lead of {best['lead']:.0f} rounds, "
    return f"{told}and {best['false_alarms']} of {best['judged']} alarms in other runs were false.".replace("-", "−")


def shown(row: Row, name: str) -> str:
    """An estimate with its interval."""
    return f"{signed(row[name])} [{signed(row[f'{name}_low'])}, {signed(row[f'{name}_high'])}]"


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:g} %"


def listed(names: list[str]) -> str:
    """Names as an enumeration."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _by_condition(effects: pd.DataFrame) -> dict[str, Row]:
    return {row["condition"]: row for row in effects.to_dict("records")}


def _effect(study: Study, row: Row) -> list[str]:
    measures = ("lenient", "contrast", "unearned", "score", "score_contrast")
    # A score has no sign.
    told = [shown(row, name).replace("+", "") if name == "score" else shown(row, name) for name in measures]
    given = study.conditions[row["condition"]].spec()
    said = (str(value) if key in ("grader", "reward", "credit") else f"{key} {value}" for key, value in given.items())
    return [
        _name(study, row["model"], row["task"]),
        row["condition"],
        " · ".join(said),
        str(row["seeds"]),
        *told,
    ]


def _signal(study: Study, row: Row) -> list[str]:
    leads = [f"{row[name]:.0f}".replace("-", "−") for name in ("lead", "lead_low", "lead_high")]
    return [
        _name(study, row["model"], row["task"]),
        row["signal"],
        f"{row['positives']} / {row['negatives']}",
        f"{row['auroc']:.2f} [{row['auroc_low']:.2f}, {row['auroc_high']:.2f}]",
        f"{row['warned']} of {row['positives']}",
        "–" if math.isnan(row["lead"]) else f"{leads[0]} [{leads[1]}, {leads[2]}]",
        f"{row['false_alarms']} of {row['judged']}",
    ]


def _name(study: Study, model: str, task: str) -> str:
    return task if len(study.enabled_models) == 1 else f"{model}, {task}"


def _drawing(path: Path) -> str:
    """The drawing of an SVG file, without the declarations that only a file of its own has."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]
