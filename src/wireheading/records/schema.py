"""What a record may hold: every field, its meaning and its bounds.

These models are the single source. `workflow/schemas/record.schema.json` is generated from them
(`python -m wireheading.records.schema`), and every record is checked against them when it is read: that of a run by
`RecordedRun`, that of results of the published study's code by `ImportedRun`. Keys that are not here are refused.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from wireheading.tasks.grades import ParseStatus

_LARGEST = 1e300  # A mean of thousands of numbers up to it does not overflow.


OWN_ARRAYS = {
    "audited": "audited",
    "grade_rewards": "grade_reward",
    "grade_baselines": "grade_baseline",
    "grade_advantages": "grade_advantage",
    "kls": "kl",
}
"""The arrays with one value a round that only runs of some conditions have (`Condition.columns`), and their columns."""


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Finite = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
# The probabilities of many strings are added up in single precision.
Mass = Annotated[float, Field(strict=True, ge=0, le=1.001, allow_inf_nan=False)]
Difference = Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
Size = Annotated[float, Field(strict=True, ge=0, le=_LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Bit = Annotated[int, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[
    str,
    StringConstraints(pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00$"),
    AfterValidator(_time),
]


class Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    fixed_base_grades: list[Share | None]
    """The policy's mean grade by probability of the base model's response before training."""
    fixed_gold_grades: list[Share | None]
    """Of the gold answer."""
    fixed_wrong_grades: list[Share | None]
    """Of a wrong answer of the same item."""
    original_scores: list[Share]
    """The published evaluator's score of the same response."""
    original_grades: list[Share | None]
    """The published reader's grade in the policy's text."""


class RecordedTransfer(Part):
    """Grades of the fixed answers of another task, at the end: arrays with one value an item."""

    items: list[str]
    """The items' ids."""
    gold_grades: list[Share | None]
    """The policy's mean grade by probability of the gold answer; null where no grade had any."""
    wrong_grades: list[Share | None]
    """Of a wrong answer of the same item."""
    base_gold_grades: list[Share | None]
    """The base model's of the same gold answer."""
    base_wrong_grades: list[Share | None]
    """The base model's of the same wrong answer."""


class RecordedNames(Part):
    """The names of a run, as they stand in its path."""

    seed: Count
    model: str
    task: str
    condition: str


class RecordedTiming(Part):
    """How long it took; differs from one execution to the next."""

    first_round: Count
    """The round from which the job started or resumed the run."""
    rounds: Count
    """Rounds that the job did of it."""
    seconds: Size
    """Time from the job's start to the run's end."""
    evaluating_seconds: Size
    """Time that the job spent in held-out evaluation until then."""


class RecordedProvenance(Part):
    """What it was made on and by. Further entries are the versions of libraries."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    written: Time
    """When the record was written."""
    code: str
    """SHA-256 of the source files."""
    slot: Count
    """The run's slot in its job."""
    slots: Count
    """Slots of the job."""
    batch: Literal["task", "all"]
    """What was computed in one batch."""
    chunk: Count
    """Runs that were updated together."""
    evaluation_batch: Count | None = None
    """Most held-out items of each run that were evaluated together; earlier records do not say."""
    threads: Count
    """Threads of PyTorch on a CPU."""
    device: str
    """What it was computed on."""
    python: str
    """Version of Python."""
    sha256: Sha256
    """SHA-256 of every byte of the file before this value."""


class Record(Part):
    """What every record holds."""

    digest: Sha256
    """SHA-256 of the canonical JSON of `spec`."""
    version: Literal[1]
    """Version of the record's shape."""
    run: RecordedNames
    spec: dict[str, Any]
    """All settings that can change the run's results, as the config had them."""
    rounds: Count
    """Rounds that were finished."""
    original_avg_reward: Difference | None
    """Means in the published study's definitions, as all of these."""
    original_avg_accuracy: Share | None
    original_avg_grade: Share | None
    original_avg_loss: Finite | None
    original_grade_inflation: Difference | None
    original_grades: list[Share | None]
    """The published reader's grade."""


class RecordedRun(Record):
    """The record of a run that was done."""

    timing: RecordedTiming
    provenance: RecordedProvenance
    status: Literal["complete", "diverged"]
    """How it ended."""
    problem: str | None
    """What was not finite where it diverged."""
    avg_reward: Difference | None
    """Mean over rounds, as all of these; null where there is no value."""
    avg_score: Share | None
    avg_accuracy: Share | None
    avg_grade: Share | None
    avg_loss: Finite | None
    grade_inflation: Difference | None
    """Mean of grade − score over rounds with a readable grade."""
    unreadable_grades: Count
    """Rounds whose grade could not be read."""
    items: list[str]
    """The item of each round."""
    rewards: list[Difference]
    """What was rewarded; below 0 only where a round was fined."""
    scores: list[Share]
    """The true score."""
    accuracies: list[Bit]
    """Whether the response is accurate."""
    grades: list[Share | None]
    """The grade, by whom the condition asks for it; null where there was none that could be read."""
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
    audited: list[Flag] = Field(default_factory=list)
    """Whether the round was audited; only in conditions with audits."""
    grade_rewards: list[Share] = Field(default_factory=list)
    """What the grade's tokens were paid; only where they have a reward of their own, as the next two."""
    grade_baselines: list[Finite] = Field(default_factory=list)
    """Its baseline before the update."""
    grade_advantages: list[Finite] = Field(default_factory=list)
    """Their difference."""
    kls: list[Finite] = Field(default_factory=list)
    """Sum over the trained tokens of their log-probability less the base model's: an estimate of the Kullback–Leibler
    divergence; only where it is penalised. Advantages and baselines are then of the reward less the penalty."""
    evaluations: list[RecordedEvaluation]
    """The held-out evaluations, the first before training."""
    transfer: dict[str, RecordedTransfer] = Field(default_factory=dict)
    """The grades of other tasks' fixed answers, if the study asked for them."""
    transcripts: dict[str, Sha256]
    """SHA-256 of the files beside the record that hold its texts, by their names."""
    adapter: dict[str, Sha256] = Field(default_factory=dict)
    """SHA-256 of the files of the trained adapter, by their names; it was kept only if the study asked for it."""
    inputs: dict[str, str]
    """SHA-256 of the files that were read, weights, tokenizer and items, and the commits they came from."""


class Imported(Part):
    """Where imported results are from."""

    source: str
    """Name of the file."""
    sha256: Sha256
    """Its SHA-256."""
    place: str
    """The keys that lead to the run in it."""


class ImportedTiming(Part):
    """Nothing is known of how long it took."""

    seconds: None


class ImportedProvenance(Part):
    """When it was imported."""

    written: Time
    code: None
    sha256: Sha256


class ImportedRun(Record):
    """The record of results of the published study's code: its own means and arrays are null, all but `original_…`."""

    status: Literal["imported", "partial"]
    """Whether it has all rounds."""
    problem: None
    imported: Imported
    avg_reward: None
    avg_score: None
    avg_accuracy: None
    avg_grade: None
    avg_loss: None
    grade_inflation: None
    unreadable_grades: None
    items: list[None]
    rewards: list[None]
    scores: list[None]
    accuracies: list[None]
    grades: list[None]
    parse_status: list[None]
    truncated: list[None]
    advantages: list[None]
    baselines: list[None]
    losses: list[None]
    grad_norms: list[None]
    logprob_gaps: list[None]
    original_scores: list[Share | None]
    """The published evaluator's score, where it was the reward."""
    original_rewards: list[Share]
    """What the published code rewarded."""
    original_accuracies: list[Share]
    """Its accuracies."""
    original_losses: list[Finite | None]
    """Its losses, where they were kept."""
    evaluations: Annotated[list[None], Field(max_length=0)]
    transcripts: Annotated[dict[str, str], Field(max_length=0)]
    inputs: Annotated[dict[str, str], Field(max_length=0)]
    timing: ImportedTiming
    provenance: ImportedProvenance


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of a record, as the text of a file."""
    schema = TypeAdapter(RecordedRun | ImportedRun).json_schema()
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(draft, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
