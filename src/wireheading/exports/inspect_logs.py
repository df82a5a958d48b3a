"""Held-out evaluations → logs of Inspect (`.eval`), for its viewer and for whatever reads its logs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wireheading.exports.common import ExportError, Report, finished_runs, new_folder, tool
from wireheading.files import sha256_of
from wireheading.inputs.items import read_items
from wireheading.records.means import mean
from wireheading.records.transcripts import read_transcript
from wireheading.study.config import Run, Study
from wireheading.study.paths import heldout_path
from wireheading.tasks import TASKS, Item, render_grading_prompt, render_prompt

SCORES = ("score", "accuracy", "grade", "base_grade")
"""What each held-out response is scored by; the first is the log's headline."""

DETAILS = ("truncated", "greedy_accuracy", "parse_status", "soft_grade", "soft_mass", "base_soft_grade")
FIXED = ("fixed_base_grade", "fixed_gold_grade", "fixed_wrong_grade")


def export_inspect(study: Study, path: Path, report: Report) -> None:
    """Writes a log for each held-out evaluation of each run: `<seed>/<model>/<task>/<condition>/round-<n>.eval`.

    A sample's input is the prompt as the config words it, before it is cut to the task's limit of tokens. A grade that
    could not be read is an unscored sample, in no mean.

    Args:
        study: The study.
        path: The folder to make.
        report: Told of every record that is invalid, and of the number of logs.

    Raises:
        ExportError: Inspect is not installed, the folder exists, there is nothing to export, or the items are not
            those of the records.
    """
    log = tool("inspect_ai.log", "inspect")
    items: dict[str, dict[str, Item]] = {}
    count = 0
    with new_folder(path) as folder:
        for run, record in finished_runs(study, report):
            if run.task not in items:
                items[run.task] = _items(study, run.task)
            _check_items(study, run, record)
            record_path = study.record_path(run)
            rows = read_transcript(record_path, record, heldout_path(record_path)).to_pylist()
            for round_ in sorted({row["round"] for row in rows}):
                evaluated = [row for row in rows if row["round"] == round_]
                place = folder.joinpath(*map(str, run), f"round-{round_:06d}.eval")
                place.parent.mkdir(parents=True, exist_ok=True)
                log.write_eval_log(_log(study, run, record, round_, evaluated, items[run.task]), place)
                count += 1
    report(f"{path}: {count} logs; look at them with: inspect view --log-dir {path}")


def _items(study: Study, task: str) -> dict[str, Item]:
    return {item["id"]: item for item in read_items(_items_path(study, task), task)}


def _items_path(study: Study, task: str) -> Path:
    return study.items_folder(task) / "heldout.jsonl"


def _check_items(study: Study, run: Run, record: Mapping[str, Any]) -> None:
    path = _items_path(study, run.task)
    if sha256_of(path) != record["inputs"][path.name]:
        raise ExportError(f"{path}: not the items of {study.record_path(run)}; put back those it was made with")


def _log(
    study: Study,
    run: Run,
    record: Mapping[str, Any],
    round_: int,
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[str, Item],
) -> Any:
    """The log of one evaluation."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats
    from inspect_ai.viewer import ViewerConfig

    config, written = study.tasks[run.task], record["provenance"]["written"]
    # The same export makes the same log: its ids are those of the record's settings.
    identity = hashlib.sha256(f"{record['digest']} {round_}".encode()).hexdigest()[:22]
    scored = {name: [row[name] for row in rows if row[name] is not None] for name in SCORES}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=identity,
            run_id=identity,
            task_id=identity,
            created=written,
            task=run.task,
            task_args={"condition": run.condition, "seed": run.seed, "round": round_},
            tags=[run.condition, f"seed {run.seed}", f"round {round_}"],
            dataset=EvalDataset(name=config.data, samples=len(rows), sample_ids=[row["item"] for row in rows]),
            model=f"wireheading/{run.model}-{run.condition}",
            config=EvalConfig(epochs=1),
            metadata={
                "source": study.models[run.model].source,
                "rounds": record["rounds"],
                "status": record["status"],
                "digest": record["digest"],
                "code": record["provenance"]["code"],
            },
            # What a model wrote is shown as text, never as markup.
            viewer=ViewerConfig(trust_content=False),
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=len(rows),
            scores=[
                EvalScore(
                    name=name,
                    scorer=name,
                    scored_samples=len(values),
                    unscored_samples=len(rows) - len(values),
                    metrics={"mean": EvalMetric(name="mean", value=mean(values))} if values else {},
                )
                for name, values in scored.items()
            ],
        ),
        stats=EvalStats(started_at=written, completed_at=written),
        samples=[_sample(run, config.prompt, config.grading_prompt, row, items[row["item"]]) for row in rows],
    )


def _sample(run: Run, prompt: str, grading_prompt: str, row: Mapping[str, Any], item: Item) -> Any:
    """One held-out item: what was asked, what was answered, and the grades."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    task, response = TASKS[run.task], row["response"]
    asked = render_prompt(prompt, item, task.FIELDS)
    question = render_grading_prompt(grading_prompt, item, response, task.FIELDS)

    def graded(prefix: str) -> Any:
        value, status = row[f"{prefix}grade"], row[f"{prefix}parse_status"]
        told = {"answer": row[f"{prefix}grade_text"], "explanation": question}
        return Score.unscored(reason=status, **told) if value is None else Score(value=value, **told)

    return EvalSample(
        id=row["item"],
        epoch=1,
        input=asked,
        target=task.gold_answer(item),
        messages=[ChatMessageUser(content=asked), ChatMessageAssistant(content=response)],
        output=ModelOutput.from_content(model=run.model, content=response),
        scores={
            "score": Score(value=row["score"], answer=response),
            "accuracy": Score(value=row["accuracy"], answer=response),
            "grade": graded(""),
            "base_grade": graded("base_"),
        },
        metadata={name: row[name] for name in (*DETAILS, *FIXED)},
    )
