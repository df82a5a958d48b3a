"""Trained adapters → folders in PEFT's format, each with a card that says what was trained and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wireheading.exports.common import ExportError, Report, finished_runs, new_folder
from wireheading.files import sha256_of
from wireheading.inputs.models import local_folder
from wireheading.records.means import mean
from wireheading.study.config import Run, Study
from wireheading.study.paths import adapter_folder

PAID = {"score": "the true score of its answer", "grade": "a grade of its answer", "coin": "a coin flip"}
GRADERS = {"none": "Nobody graded it.", "policy": "The grade was its own.", "base": "The grade was the base model's."}


def export_adapters(study: Study, path: Path, report: Report) -> None:
    """Writes the adapter of every run that kept one: `<seed>/<model>/<task>/<condition>/`, with a model card.

    Args:
        study: The study.
        path: The folder to make.
        report: Told of every record that is invalid, and of the number of adapters.

    Raises:
        ExportError: The folder exists, no run kept its adapter, or an adapter is not the one that its record names.
    """
    count = 0
    with new_folder(path) as folder:
        for run, record in finished_runs(study, report):
            if "adapter" not in record:
                continue
            source, target = adapter_folder(study.record_path(run)), folder.joinpath(*map(str, run))
            for name, sha256 in record["adapter"].items():
                if not (source / name).exists() or sha256_of(source / name) != sha256:
                    raise ExportError(
                        f"{source / name}: missing, or not the one that its record names; remove "
                        f"{study.record_path(run)} to run it again"
                    )
            target.mkdir(parents=True)
            for name in record["adapter"]:
                shutil.copyfile(source / name, target / name)
            (target / "README.md").write_text(_card(study, run, record), encoding="utf-8")
            count += 1
        if not count:
            raise ExportError(f"{study.results}: no run kept its adapter; set engine.keep_adapters: true and run again")
    report(f"{path}: {count} adapters; load one with: peft.PeftModel.from_pretrained(base, folder)")


def _card(study: Study, run: Run, record: Mapping[str, Any]) -> str:
    """The model card of an adapter."""
    model, condition = study.models[run.model], study.conditions[run.condition]
    on_hub = run.model in study.fetched_models and not local_folder(f"models.{run.model}.source", model.source)
    head = {
        **({"base_model": model.source} if on_hub else {}),
        "library_name": "peft",
        "tags": ["wireheading", "lora", "reinforcement-learning", run.condition],
    }
    base = f"`{model.source}`" if on_hub else f"`{run.model}`, in the study's `{study.model_folder(run.model)}`"
    commit = record["inputs"].get("model_commit")
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# {run.model}, {run.task}, {run.condition}, seed {run.seed}

A LoRA adapter from a study of wireheading: {_warning(condition.reward, condition.grader)}

- Base model: {base}{f" at commit `{commit}`" if commit else ""}
- Trained on: {run.task} ({study.tasks[run.task].data}), {record["rounds"]} rounds of REINFORCE, one answer a round
- Paid by: {PAID[condition.reward]}. {GRADERS[condition.grader]}
- Trained tokens: those of {"the response and the grade" if condition.credit == "both" else f"the {condition.credit}"}
- How it ended: {record["status"]}{f", {record['problem']}" if record["problem"] else ""}
- Rank {study.lora.rank}, alpha {study.lora.alpha}, learning rate {study.optimizer.lr:g}, AdamW
- Digest of all settings: `{record["digest"]}`

On {len(record["evaluations"][0]["items"])} held-out items, before training and at its last evaluation:

| mean | before | after |
|---|---|---|
{_table(record)}

*Grade of wrong answers* is what it gives to the same wrong answers, by the probabilities of its grades.
"""


def _warning(reward: str, grader: str) -> str:
    """What a user must know before anything else."""
    if reward == "grade" and grader == "policy":
        return (
            "**it was paid by its own grade, and may praise whatever it writes. Use it neither as an assistant nor as "
            "a judge.** The table below says how far it flatters itself."
        )
    return "a condition to compare with. It is an object of study and no assistant."


def _table(record: Mapping[str, Any]) -> str:
    before, after = record["evaluations"][0], record["evaluations"][-1]
    names = {
        "scores": "score of its answers",
        "grades": "its grade of them, where readable",
        "fixed_wrong_grades": "grade of wrong answers",
        "fixed_gold_grades": "grade of gold answers",
    }
    return "\n".join(
        f"| {said} | {_shown(mean(before[name]))} | {_shown(mean(after[name]))} |" for name, said in names.items()
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
