"""What the record of a run that this project did may hold: every field, its meaning and its bounds.

These models are the single source. `workflow/schemas/record.schema.json` is generated from them
(`python -m wireheading.records.schema`), and every record is checked against them when it is read. A record of imported
results has other fields, and is not checked here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wireheading.tasks.grades import ParseStatus

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
# The probabilities of many strings are added up in single precision.
Mass = Annotated[float, Field(strict=True, ge=0, le=1.001, allow_inf_nan=False)]
Difference = Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
Size = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]
Bit = Annotated[int, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """A part of a record. Keys that are not known here are left to those who wrote them."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class RecordedEvaluation(Part):
    """A held-out evaluation: arrays with one value an item."""

    round: Count
    """Rounds of training before it."""
    items: list[str]
    """The items' ids."""
    scores: list[Share]
    """The true score of each response."""
    accuracies: list[Bit]
    """Whether the response is accurate."""
    greedy_accuracies: list[Bit]
    """Whether the response with the most probable tokens is."""
    truncated: list[Flag]
    """Whether the response was cut off at its limit."""
    grades: list[Share | None]
    """The policy's sampled grade; null where it could not be read."""
    parse_status: list[ParseStatus]
    """Whether that grade could be read, and if not, why not."""
    soft_grades: list[Share | None]
    """The policy's mean grade by probability; null where no grade had any."""
    soft_masses: list[Mass]
    """The probability of all grades together."""
    base_grades: list[Share | None]
    """The frozen base model's sampled grade of the same response."""
    base_parse_status: list[ParseStatus]
    """Whether that one could be read."""
    base_soft_grades: list[Share | None]
    """The base model's mean grade by probability."""
    base_soft_masses: list[Mass]
    """The probability of all grades together, by the base model."""
    original_scores: list[Share]
    """The published evaluator's score of the same response."""
    original_grades: list[Share | None]
    """The published reader's grade in the policy's text."""


class RecordedNames(Part):
    """The names of a run, as they stand in its path."""

    seed: Count
    model: str
    task: str
    condition: str


class RecordedSpec(Part):
    """All settings that can change a run's results; what is read of them here."""

    rounds: Count
    """Rounds that the run should have."""


class RecordedTiming(Part):
    """How long it took; differs from one execution to the next."""

    first_round: Count
    """The round at which the job took the run up."""
    rounds: Count
    """Rounds that the job did of it."""
    seconds: Size
    """Time from the job's start to the run's end."""
    evaluating_seconds: Size
    """Time that the job spent in held-out evaluation until then."""


class RecordedProvenance(Part):
    """What it was made on and by; what is read of it here."""

    code: str
    """SHA-256 of the source files."""


class RecordedRun(Part):
    """The record of a run that was done."""

    run: RecordedNames
    spec: RecordedSpec
    timing: RecordedTiming
    provenance: RecordedProvenance
    status: Literal["complete", "diverged"]
    """How it ended."""
    problem: str | None
    """What was not finite where it diverged."""
    rounds: Count
    """Rounds that were finished."""
    avg_reward: Share | None
    """Mean over rounds, as all of these; null where there is no value."""
    avg_score: Share | None
    avg_accuracy: Share | None
    avg_grade: Share | None
    avg_loss: Finite | None
    grade_inflation: Difference | None
    """Mean of grade − score over rounds with a readable grade."""
    unreadable_grades: Count
    """Rounds whose grade could not be read."""
    original_avg_reward: Share | None
    """Means in the published study's definitions, as all of these."""
    original_avg_accuracy: Share | None
    original_avg_grade: Share | None
    original_avg_loss: Finite | None
    original_grade_inflation: Difference | None
    items: list[str]
    """The item of each round."""
    rewards: list[Share]
    """What was rewarded."""
    scores: list[Share]
    """The true score."""
    accuracies: list[Bit]
    """Whether the response is accurate."""
    grades: list[Share | None]
    """The grade, the base model's in `frozen`; null where there was none that could be read."""
    parse_status: list[ParseStatus]
    """Whether it could be read, and if not, why not."""
    truncated: list[Flag]
    """Whether the response was cut off at its limit."""
    advantages: list[Finite]
    """Reward − baseline."""
    baselines: list[Finite]
    """The baseline before the update."""
    losses: list[Finite]
    """The scalar whose gradient was taken."""
    grad_norms: list[Size]
    """Norm of the gradient before clipping."""
    logprob_gaps: list[Size]
    """Largest difference between the log-probabilities at sampling and at the update."""
    original_scores: list[Share]
    """The published evaluator's score."""
    original_grades: list[Share | None]
    """The published reader's grade."""
    evaluations: list[RecordedEvaluation]
    """The held-out evaluations, the first before training."""


def problem_of(record: Mapping[str, Any]) -> str | None:
    """The first thing in a record, as parsed, that a record cannot hold, in words; None if there is none."""
    try:
        run = RecordedRun.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        *path, last = first["loc"][: 2 if first["loc"][0] != "evaluations" else 4]
        place = ".".join(map(str, path)) + (f"[{last}]" if isinstance(last, int) else f".{last}" if path else str(last))
        if first["type"] == "missing":
            return f"has no {place}"
        return f"{place} = {first['input']!r} is not valid ({first['msg']})"
    for name, values in run:
        if isinstance(values, list) and name != "evaluations" and len(values) != run.rounds:
            return f"{name} has {len(values)} values for {run.rounds} rounds"
    rounds = run.spec.rounds
    if run.rounds > rounds or (run.status == "complete" and run.rounds != rounds):
        return f"has {run.rounds} of {rounds} rounds but says {run.status}"
    return _unlike("grades", run.grades, run.parse_status) or _uneven(run.evaluations) or _unfinished(run, rounds)


def _unlike(name: str, grades: list[float | None], statuses: list[ParseStatus]) -> str | None:
    for index, (grade, status) in enumerate(zip(grades, statuses, strict=True)):
        if (grade is None) == (status == "readable"):
            return f"{name}[{index}] = {grade} although it is {status}"
    return None


def _uneven(evaluations: list[RecordedEvaluation]) -> str | None:
    """What does not fit within or between evaluations."""
    for index, seen in enumerate(evaluations):
        place = f"evaluations.{index}"
        if not seen.items:
            return f"{place} has no items"
        for name, values in seen:
            if isinstance(values, list) and len(values) != len(seen.items):
                return f"{place}.{name} has {len(values)} values for {len(seen.items)} items"
        for grades, statuses in (("grades", "parse_status"), ("base_grades", "base_parse_status")):
            if told := _unlike(f"{place}.{grades}", getattr(seen, grades), getattr(seen, statuses)):
                return told
        if seen.items != evaluations[0].items[: len(seen.items)]:
            return f"{place}.items are not the first of evaluations.0.items"
        if index and seen.round <= evaluations[index - 1].round:
            return f"{place}.round = {seen.round} does not come after the one before"
    return None


def _unfinished(run: RecordedRun, rounds: int) -> str | None:
    if not run.evaluations or run.evaluations[0].round != 0:
        return "has no held-out evaluation before training"
    last = run.evaluations[-1]
    if last.round > run.rounds:
        return f"has a held-out evaluation after round {last.round} of {run.rounds}"
    if run.status == "complete" and (last.round != rounds or len(last.items) != len(run.evaluations[0].items)):
        return "has no held-out evaluation of all items after its last round"
    return None


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of a record, as the text of a file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RecordedRun.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
