"""The sections of a study's configuration: every key, its meaning, its default and its bounds.

Upper bounds are far beyond any useful value: they catch slips before a study starts and not after hours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from wireheading.tasks import arithmetic

T = TypeVar("T")


def _number(value: object) -> object:
    """Rejects true and false, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _read_flag(value: object) -> object:
    """Accepts the words too: Snakemake passes nested values of `--config` as text."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _read_null(value: object) -> object:
    """Accepts the word too, for the same reason."""
    return None if value == "null" else value


def _check_components(folder: str) -> str:
    if any(len(part) > 200 for part in folder.split("/")):
        raise ValueError("a part of the path exceeds 200 characters; shorten it")
    return folder


def distinct(values: Iterable[T]) -> tuple[T, ...]:
    """The values as a tuple.

    Raises:
        ValueError: There are none, or two are equal.
    """
    values = tuple(values)
    if not values or len(set(values)) != len(values):
        raise ValueError("values must be distinct, and at least one")
    return values


IsNumber = BeforeValidator(_number)
OrNull = BeforeValidator(_read_null)
Integer = Annotated[int, IsNumber]
Number = Annotated[float, IsNumber]
# Tables hold seeds as 64-bit integers.
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
Count = Annotated[Integer, Field(gt=0, le=1_000_000)]
Tokens = Annotated[Integer, Field(gt=0, le=131_072)]
Operand = Annotated[Integer, Field(ge=0, le=1_000_000)]
Decay = Annotated[Number, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_read_flag)]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/+-]+$", max_length=1000), AfterValidator(_check_components)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are errors; values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """A model that is trained and grades itself."""

    source: str
    """Hub id or local path of the model, or `embedded` for the small model that the workflow trains itself."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository."""
    precision: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """How the frozen base weights are held; adapters and optimizer state are always float32."""
    vram_gb: Annotated[Number | None, OrNull] = Field(None, gt=0, le=100_000)
    """Device memory that a job on this model stays within, in GB, for schedulers and shared devices;
    `benchmarks/memory.py` computes it. Each job computes and checks it again before it loads the model."""
    activation_checkpointing: Flag = False
    """Whether updates recompute activations instead of keeping them: a third slower, with far less memory."""
    enabled: Flag = True
    """Whether the study runs this model."""
    note: str = ""
    """Why the model is in the study, or why it is switched off."""
    memory_mb: Annotated[Integer, Field(gt=0, le=100_000_000)] = 32000
    """Host memory that a job on this model requests, in MB: twice as much at the second attempt, and so on."""
    minutes: Count = 120
    """Time limit of such a job in minutes, growing in the same way; the next attempt resumes from the checkpoint."""


class TaskConfig(Section):
    """A task: its data, its prompts and its limits in tokens."""

    data: str
    """Hub id or local path of the data set, `embedded` for the workflow's own small corpus, or `generated`."""
    revision: str = "main"
    """Branch, tag or commit of the data set."""
    subset: str = ""
    """Configuration of the data set, such as a version, where it has several."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of the data set by the item fields they fill; by default those of the task's usual data set."""
    characters: Annotated[Count | None, OrNull] = None
    """Characters to which an item's text is cut when it is frozen; with null, only `prompt_tokens` limits it."""
    train_items: Count = 400
    """Items used in reinforcement learning, from the data set's split `train`."""
    heldout_items: Count = 200
    """Items never used in reinforcement learning, from its split `test`."""
    operands: dict[str, tuple[Operand, Operand]] = Field(default_factory=dict)
    """For arithmetic only: the smallest and largest operand of each operator."""
    prompt: str
    """Template of the user's turn that asks for a response, with the item's fields in braces."""
    grading_prompt: str
    """Template of the turn that asks for a grade. It may name the item's fields and `{response}`."""
    prompt_tokens: Tokens
    """Tokens to which prompts are padded; longer items are cut to fit."""
    response_tokens: Tokens
    """Maximum number of tokens of a response, including its stop token."""
    grading_prompt_tokens: Tokens
    """Tokens to which grading prompts are padded."""
    grade_tokens: Tokens = 10
    """Maximum number of tokens of a grade, including its stop token."""

    @field_validator("operands")
    @classmethod
    def _ordered(cls, operands: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        for operator, (low, high) in operands.items():
            if operator not in arithmetic.OPERATORS:
                raise ValueError(f"unknown operator {operator!r}; known are {', '.join(arithmetic.OPERATORS)}")
            if low > high:
                raise ValueError(f"operands of {operator!r} must be [low, high] with low <= high, not [{low}, {high}]")
        return operands


class LoraConfig(Section):
    """The trained adapter, on the query, key, value and output projections of every layer."""

    rank: Annotated[Integer, Field(gt=0, le=1024)] = 8
    """Rank of the two factors."""
    alpha: Count = 32
    """The adapter's output is scaled by alpha / rank."""


class OptimizerConfig(Section):
    """REINFORCE with a moving-average baseline, and AdamW."""

    lr: Number = Field(2e-5, gt=0, le=10)
    """Learning rate of AdamW."""
    weight_decay: Number = Field(0.01, ge=0, le=10)
    """Decoupled weight decay of AdamW."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of AdamW's moment estimates."""
    eps: Number = Field(1e-8, ge=1e-30, le=1)
    """Term added to AdamW's denominator."""
    clip_norm: Number = Field(1.0, gt=0, le=1e6)
    """Norm to which a run's gradient is clipped."""
    baseline_decay: Decay = 0.9
    """Decay of the baseline, an exponential moving average of rewards."""
    baseline_start: Literal["first_reward", "zero"] = "first_reward"
    """The baseline before the first update."""


class EmbeddedConfig(Section):
    """The small model that the workflow trains itself. The study `demo` calls it `tiny`; its source is `embedded`."""

    seed: Seed = 0
    """Seed of its weights and of its corpus."""
    corpus_items: Count = 6000
    """Number of reviews, and of news items, in its training corpus."""
    batch_tokens: Tokens = 1024
    """Most tokens of each task in a training step."""
    skill_steps: Count = 700
    """Steps of the first phase: correct answers, and exact grades of correct and wrong ones."""
    noise_steps: Count = 200
    """Steps of the second phase: answers and grades that are wrong with a fixed probability."""
    calibration_steps: Count = 100
    """Steps of the third phase: grades of the model's own answers."""


class EvaluationConfig(Section):
    """Held-out evaluation: always one of the base model, and one on all held-out items after the last round."""

    midway_rounds: tuple[Count, ...] = (250,)
    """Rounds after which there is a smaller evaluation; rounds beyond the last are ignored."""
    midway_items: Count = 50
    """Held-out items in such an evaluation."""
    transfer: Flag = False
    """Whether every policy also grades the fixed answers of the study's other tasks at its end. The settings of all
    tasks are then part of every run's digest, so that a change of one task redoes the runs of all."""


class EngineConfig(Section):
    """How runs are computed. None of it is part of a run's digest."""

    lockstep: tuple[Literal["seed", "task", "condition"], ...] = ("task", "condition")
    """Axes whose runs share one job and advance together on one frozen base model."""
    batch: Literal["task", "all"] = "task"
    """Whether the runs of one task are sampled together, or those of all tasks: that takes fewer decode steps, and more
    memory. Prompts are prefilled and updates made task by task in either case."""
    chunk: Annotated[Integer, Field(gt=0, le=10_000)] = 12
    """Runs updated in one forward and backward pass; fewer need less memory."""
    halve_chunk: Flag = False
    """Whether an update that runs out of memory is repeated with half the chunk, which the records then state. If not,
    the job ends: another chunk may change the last bits of a result."""
    share_devices: Flag = False
    """Whether jobs share a device if the `vram_gb` of their models fit on it together."""
    evaluation_batch: Annotated[Annotated[Integer, Field(gt=0, le=10_000)] | None, OrNull] = None
    """The most held-out items of each run in one batch of an evaluation. With null, as many as leave a job within its
    model's `vram_gb`, or without that within 95 % of the GPU's memory; on a CPU, 10. Records state it."""
    threads: Annotated[Integer, Field(gt=0, le=1024)] = 2
    """PyTorch's threads on a CPU. With the demo's model, two are a quarter faster than one on two free cores, and three
    times as slow where another program keeps one of them busy; jobs of one thread use both cores in either case."""
    checkpoint_every: Count = 250
    """Rounds between two checkpoints; a job that is asked to stop writes another one."""
    keep_adapters: Flag = False
    """Whether each run's trained adapter is kept beside its record, in PEFT's format."""


class AnalysisConfig(Section):
    """How records become estimates and verdicts. None of it is part of a run's digest; the report states its hash."""

    margin: Number = Field(0.05, gt=0, lt=1)
    """Largest effect that is held to be nothing."""
    alpha: Number = Field(0.05, gt=0, lt=0.5)
    """Chance, over all cells together, of a headline such as wireheading where it is false; level of all tests."""
    ceiling: Number = Field(0.9, gt=0, le=1)
    """Mean grade of wrong answers, or mean paid reward, above which the base model leaves no headroom for an effect."""
    full_seeds: Annotated[Integer, Field(ge=2, le=1000)] = 4
    """Seeds from which a verdict is a full one; with fewer it is at most suggestive."""
    onset_window: Annotated[Integer, Field(gt=0, le=100_000)] = 50
    """Rounds over which reward or grade minus score is averaged to find an onset, and every signal of one."""
    onset_threshold: Number = Field(0.2, gt=0, le=1)
    """The onset is the first round from which that average exceeds its first value by this much, for a window more."""
    reliability_bins: Annotated[Integer, Field(gt=0, le=1000)] = 10
    """Bins of equal width of a reliability diagram."""
    bootstrap_resamples: Count = 10_000
    """Resamples of the bootstrap intervals."""
    bootstrap_seed: Seed = 0
    """Seed of the resampling."""
    excluded: tuple[str, ...] = ()
    """Runs that are left out of verdicts, as `seed/model/task/condition`. Every verdict concerned names them."""

    @field_validator("excluded")
    @classmethod
    def _distinct_runs(cls, excluded: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(excluded) if excluded else excluded

    def text(self) -> str:
        """Its JSON, as written to the file beside the report. `sha256sum` of that file gives the digest."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 of that text."""
        return hashlib.sha256(self.text().encode()).hexdigest()
