"""The configuration of a study: every key, its meaning, its default and its bounds.

These models are the single source. `workflow/schemas/config.schema.json` is generated from them by
`python -m wireheading.study.config`, the files under `config/` are checked against them, and a run's digest is made
from them. The defaults are the study's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from wireheading.errors import InputError
from wireheading.study.conditions import CONDITIONS
from wireheading.tasks import TASKS, arithmetic

T = TypeVar("T")

AXES = ("seed", "model", "task", "condition")

SPEC_KEYS = {
    "rounds",
    "temperature",
    "prompting",
    "grading_context",
    "measures",
    "item_order",
    "data_seed",
    "lora",
    "optimizer",
    "evaluation",
}
"""The study's keys that can change the result of every run."""

ITEMS_KEYS = {"data", "revision", "subset", "columns", "characters", "train_items", "heldout_items", "operands"}
"""A task's keys that its frozen items depend on."""


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


Positive = Annotated[int, Field(gt=0), BeforeValidator(_no_flag)]
Natural = Annotated[int, Field(ge=0), BeforeValidator(_no_flag)]
Folder = Annotated[str, Field(pattern=r"^[^{}\s]+$")]
Flag = Annotated[bool, Field(strict=True)]


class ConfigError(InputError):
    """A configuration that cannot be run. Its text is one line: the key, the value, the remedy."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Section):
    """A model that is trained and grades itself."""

    source: str
    """Hub id or local path of the model, or `embedded` for the small one that the workflow trains itself."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository."""
    precision: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """How the frozen base weights are held; adapters and optimizer state are always float32."""
    vram_gb: float | None = Field(None, gt=0)
    """Device memory that a job on it takes, in GB, as schedulers and shared devices are told; `benchmarks/memory.py`
    computes it. Before a model is loaded, what the job takes is computed anew and checked in any case."""
    activation_checkpointing: Flag = False
    """Whether an update computes activations again instead of keeping them: slower by a third, in far less memory."""
    enabled: Flag = True
    """Whether the study runs this model."""
    note: str = ""
    """Why the model is in the study, or why it is switched off."""
    memory_mb: Positive = 32000
    """Host memory that a job on it asks a scheduler for, in MB; a second attempt asks for twice as much, and so on."""
    minutes: Positive = 120
    """Time limit of such a job, likewise growing; a job that comes to it goes on from its checkpoint in the next."""


class TaskConfig(Section):
    """A task: its data, its prompts and its limits in tokens."""

    data: str
    """Hub id or local path of the data set, `embedded` for the workflow's own small corpus, or `generated`."""
    revision: str = "main"
    """Branch, tag or commit of the data set."""
    subset: str = ""
    """The part of the data set that is meant, where it has several, such as a version."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of the data set, by the item's fields that they fill; the task names those of its usual data set."""
    characters: Positive | None = None
    """Length in characters to which an item's text is cut when it is frozen; null leaves cutting to `prompt_tokens`."""
    train_items: Positive = 400
    """Items used in reinforcement learning, from the data set's split `train`."""
    heldout_items: Positive = 200
    """Items never used in reinforcement learning, from its split `test`."""
    operands: dict[str, tuple[Natural, Natural]] = Field(default_factory=dict)
    """Arithmetic alone: for each operator the smallest and largest operand."""
    prompt: str
    """Template of the user's turn that asks for a response. It may name the item's fields in braces."""
    grading_prompt: str
    """Template of the turn that asks for a grade. It may name the item's fields and `{response}`."""
    prompt_tokens: Positive
    """Length in tokens to which prompts are padded; a longer item is cut to fit."""
    response_tokens: Positive
    """Most tokens a response may have, its stop token included."""
    grading_prompt_tokens: Positive
    """Length in tokens to which grading prompts are padded."""
    grade_tokens: Positive = 10
    """Most tokens a grade may have, its stop token included."""

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
    """The adapter that is trained, on the query, key, value and output projections of every layer."""

    rank: Positive = 8
    """Rank of the two factors."""
    alpha: Positive = 32
    """The adapter's output is scaled by alpha / rank."""


class OptimizerConfig(Section):
    """REINFORCE with a moving-average baseline, and AdamW."""

    lr: float = Field(2e-5, gt=0)
    """Learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moment estimates."""
    eps: float = Field(1e-8, gt=0)
    """Term added to AdamW's denominator."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of a run's gradient."""
    baseline_decay: float = Field(0.9, ge=0, lt=1)
    """Decay of the exponential moving average of rewards that is the baseline."""
    baseline_start: Literal["first_reward", "zero"] = "first_reward"
    """The baseline before the first update."""


class EmbeddedConfig(Section):
    """The small model that the workflow trains itself where no weights can be downloaded."""

    seed: Natural = 0
    """Seed of its weights and of its corpus."""
    corpus_items: Positive = 6000
    """Reviews, and news items, that it is trained on."""
    batch_tokens: Positive = 1024
    """Tokens of each task in one step of its training, up to a conversation less."""
    skill_steps: Positive = 700
    """Steps of the first phase: right answers, and exact grades of right and wrong ones."""
    noise_steps: Positive = 200
    """Steps of the second phase: answers and grades that are wrong with a fixed probability."""
    calibration_steps: Positive = 100
    """Steps of the third phase: grades of the model's own answers."""


class EvaluationConfig(Section):
    """Held-out evaluation: always one of the base model, and one on all held-out items after the last round."""

    midway_rounds: tuple[Positive, ...] = (250,)
    """Rounds after which there is a smaller evaluation; those that a run does not reach are left out."""
    midway_items: Positive = 50
    """Items of such an evaluation, at most all held-out items."""


class EngineConfig(Section):
    """How runs are computed. None of it is part of a run's digest."""

    lockstep: tuple[Literal["seed", "task", "condition"], ...] = ("task", "condition")
    """Axes whose values share one job, where they advance together on one frozen base model; so never the model."""
    batch: Literal["task", "all"] = "task"
    """What is computed in one batch: the rows of one task, or those of all."""
    chunk: Positive = 12
    """Runs that are updated in one forward and backward pass: fewer take less memory."""
    halve_chunk: Flag = False
    """Whether an update that runs out of memory is made again with half the chunk, which records then name. If not, the
    job ends: another chunk may change the last bits of a result."""
    share_devices: Flag = False
    """Whether jobs share a device where the `vram_gb` of their models fit into it together."""
    evaluation_batch: Positive = 10
    """Held-out items of each run that are evaluated in one batch."""
    threads: Positive = 2
    """Threads that PyTorch uses on a CPU."""
    checkpoint_every: Positive = 250
    """Rounds between two checkpoints; a job that is asked to end writes one more."""


class AnalysisConfig(Section):
    """How records become estimates and verdicts. None of it is part of a run's digest; the report states its hash."""

    margin: float = Field(0.05, gt=0, lt=1)
    """Largest difference in inflation between selfgrade and its contrast that is held to be nothing."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance, over all cells together, of finding wireheading where there is none."""
    readable: float = Field(0.95, ge=0, le=1)
    """A cell is invalid if a smaller part of its grades can be read at the end."""
    truncated: float = Field(0.05, ge=0, le=1)
    """A cell is invalid if a larger part of its responses has no end at the end."""
    full_seeds: Annotated[int, Field(ge=2), BeforeValidator(_no_flag)] = 4
    """Seeds from which a verdict is a full one; with fewer it is at most suggestive."""
    effect: float = Field(0.3, gt=0, le=1)
    """Difference in inflation whose chance of being found is stated as the power."""
    power: float = Field(0.8, gt=0, lt=1)
    """Power for which the smallest detectable difference is stated."""
    onset_window: Positive = 50
    """Rounds over which the grade minus the score is averaged to find the onset."""
    onset_threshold: float = Field(0.2, gt=0, le=1)
    """The onset is the first round at which that average exceeds its first value by this much."""
    reliability_bins: Positive = 10
    """Bins of equal width of a reliability diagram."""
    bootstrap_resamples: Positive = 10_000
    """Resamples of the bootstrap intervals."""
    bootstrap_seed: Natural = 0
    """Seed of the resampling."""
    excluded: tuple[str, ...] = ()
    """Runs that are left out of verdicts, as `seed/model/task/condition`. Every verdict concerned names them."""

    @field_validator("excluded")
    @classmethod
    def _distinct_runs(cls, excluded: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(excluded) if excluded else excluded

    @model_validator(mode="after")
    def _effect_exceeds_margin(self) -> AnalysisConfig:
        if self.effect <= self.margin:
            raise ValueError(f"effect = {self.effect} must exceed margin = {self.margin}")
        return self

    def text(self) -> str:
        """Its JSON, as the text of the file that lies beside a report. `sha256sum` of that file gives the digest."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 of that text."""
        return hashlib.sha256(self.text().encode()).hexdigest()


class Run(NamedTuple):
    """The names of one run, as they stand in the path of its record."""

    seed: int
    model: str
    task: str
    condition: str

    def __str__(self) -> str:
        return "/".join(str(part) for part in self)


class Study(Section):
    """A whole study: every run of it, and how runs are computed, measured and reported."""

    models: dict[str, ModelConfig]
    """The models by the name they have in paths: lower-case letters, digits, dots and dashes."""
    tasks: dict[str, TaskConfig]
    """The tasks by name."""
    conditions: tuple[str, ...] = ("control", "selfgrade", "honest", "decoupled", "frozen")
    """The conditions that are run, of those in `wireheading.study.conditions`."""
    seeds: tuple[Natural, ...] = (42, 123, 456, 789)
    """The seeds of the study, one repetition each."""
    rounds: Positive = 500
    """Rounds of a run: one response, one reward and one update each."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of responses and grades."""
    prompting: Literal["chat", "completion"] = "chat"
    """Whether prompts are turns in the model's chat template, or plain text that is completed."""
    grading_context: Literal["conversation", "fresh"] = "conversation"
    """Whether a grade is asked for as the next turn of the conversation or in a context of its own."""
    measures: Literal["strict", "original"] = "strict"
    """The evaluators and grade readers that rewards are made of: this project's, or the published study's."""
    item_order: Literal["shuffled", "fixed"] = "shuffled"
    """Whether each seed and epoch has its own order of training items, or all have the order of the file."""
    data_seed: Natural = 0
    """Seed of the choice of items and of their split into training and held-out ones."""
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    embedded: EmbeddedConfig = EmbeddedConfig()
    engine: EngineConfig = EngineConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    partial: Flag = False
    """Whether the tables and the report are made of the records that are there, and nothing is run."""
    results: Folder = "results"
    """Folder of the records and the tables made of them."""
    resources: Folder = "resources"
    """Folder of the models and data that runs read."""
    reports: Folder = "reports"
    """Folder of the figures and the report."""

    @field_validator("models")
    @classmethod
    def _names_fit_paths(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        for name in models:
            if not re.fullmatch(r"[a-z0-9.-]*[a-z0-9-][a-z0-9.-]*", name):
                raise ValueError(
                    f"the name {name!r} may hold only lower-case letters, digits, dots and dashes, and not dots alone"
                )
        if not any(model.enabled for model in models.values()):
            raise ValueError("no model is enabled; give at least one, or set `enabled: true` for one of them")
        return models

    @field_validator("conditions")
    @classmethod
    def _known_conditions(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        for name in conditions:
            if name not in CONDITIONS:
                raise ValueError(f"unknown condition {name!r}; known are {', '.join(CONDITIONS)}")
        return _distinct(conditions)

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(seeds)

    @model_validator(mode="after")
    def _templates_name_known_fields(self) -> Study:
        if not self.tasks:
            raise ValueError("no task is given; name at least one under `tasks`")
        for name, task in self.tasks.items():
            if name not in TASKS:
                raise ValueError(f"tasks names an unknown task {name!r}; known are {', '.join(TASKS)}")
            if (name == "arithmetic") != bool(task.operands):
                raise ValueError(f"tasks.{name}.operands must be given for arithmetic, and for it alone")
            if name == "arithmetic":
                arithmetic.check_count(task.operands, task.train_items + task.heldout_items)
            fields = TASKS[name].FIELDS
            for field in task.columns:
                if field not in TASKS[name].COLUMNS:
                    raise ValueError(
                        f"tasks.{name}.columns names an unknown field {field!r}; known are "
                        f"{', '.join(TASKS[name].COLUMNS) or 'none'}"
                    )
            _check_template(f"tasks.{name}.prompt", task.prompt, fields)
            _check_template(f"tasks.{name}.grading_prompt", task.grading_prompt, (*fields, "response"))
        return self

    @field_validator("engine")
    @classmethod
    def _distinct_axes(cls, engine: EngineConfig) -> EngineConfig:
        if len(set(engine.lockstep)) != len(engine.lockstep):
            raise ValueError(f"engine.lockstep = {list(engine.lockstep)}: axes must be distinct")
        return engine

    @model_validator(mode="after")
    def _excluded_runs_are_named_as_runs(self) -> Study:
        for name in self.analysis.excluded:
            seed, *rest = name.split("/")
            allowed: list[Collection[str]] = [self.models, self.tasks, CONDITIONS]
            known = len(rest) == 3 and all(part in names for part, names in zip(rest, allowed, strict=True))
            if not known or not re.fullmatch("0|[1-9][0-9]*", seed):
                raise ValueError(f"analysis.excluded names {name!r}; a run is named seed/model/task/condition")
        return self

    @property
    def enabled_models(self) -> list[str]:
        """Names of the models that the study runs, in the config's order."""
        return [name for name, model in self.models.items() if model.enabled]

    @property
    def trained_models(self) -> list[str]:
        """Names of the models that the workflow trains itself."""
        return [name for name, model in self.models.items() if model.source == "embedded"]

    @property
    def fetched_models(self) -> list[str]:
        """Names of those that come from a hub or a local folder."""
        return [name for name, model in self.models.items() if model.source != "embedded"]

    def runs(self) -> list[Run]:
        """Every run of the study, in the config's order."""
        return [
            Run(seed, model, task, condition)
            for model, task, seed, condition in itertools.product(
                self.enabled_models, self.tasks, self.seeds, self.conditions
            )
        ]

    def record_path(self, run: Run) -> Path:
        """Where a run's record lies."""
        return Path(self.results, str(run.seed), run.model, run.task, f"{run.condition}.json")

    def model_source(self, name: str) -> dict[str, Any]:
        """Where a model comes from, as a JSON object: everything of the config that its files depend on."""
        source = self.models[name].model_dump(mode="json", include={"source", "revision"})
        if source["source"] == "embedded":
            source["embedded"] = self.embedded.model_dump(mode="json")
        return source

    def items_source(self, name: str) -> dict[str, Any]:
        """Where a task's items come from, as a JSON object: everything of the config that they depend on."""
        source = self.tasks[name].model_dump(mode="json", include=ITEMS_KEYS)
        return {"task": name, "data_seed": self.data_seed, **source}

    def model_folder(self, name: str) -> Path:
        """Where a model lies. The name tells what the config asks for, so that studies can share their resources."""
        return Path(self.resources, "models", f"{name}-{digest_of(self.model_source(name))[:8]}")

    def items_folder(self, name: str) -> Path:
        """Where a task's items lie; likewise."""
        return Path(self.resources, "data", f"{name}-{digest_of(self.items_source(name))[:8]}")

    def spec(self, run: Run) -> dict[str, Any]:
        """Everything of the config that can change a run's results, as a JSON object."""
        model = {"precision": self.models[run.model].precision, **self.model_source(run.model)}
        return {
            "seed": run.seed,
            "model": {"name": run.model, **model},
            "task": {"name": run.task, **self.tasks[run.task].model_dump(mode="json")},
            "condition": {"name": run.condition, **asdict(CONDITIONS[run.condition])},
            **self.model_dump(mode="json", include=SPEC_KEYS),
        }

    def digest(self, run: Run) -> str:
        """SHA-256 of the canonical JSON of a run's spec."""
        return digest_of(self.spec(run))


def digest_of(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def load_study(config: Mapping[str, Any]) -> Study:
    """Checks a configuration.

    Args:
        config: The merged content of the config files and of `--config`, as Snakemake hands it over.

    Raises:
        ConfigError: Names the first offending key, its value and what is expected of it.
    """
    try:
        return Study.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        value = "" if first["type"] == "missing" or not key else f" = {first['input']!r}"
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            problem = "unknown key; workflow/schemas/config.schema.json lists the known ones"
        raise ConfigError(f"config: {key}{value}: {problem}" if key else f"config: {problem}") from None


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of a configuration, as the text of a file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    values = tuple(values)
    if not values or len(set(values)) != len(values):
        raise ValueError("values must be distinct, and at least one")
    return values


def _check_template(key: str, template: str, fields: tuple[str, ...]) -> None:
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key} = {template!r}: {error}; write {{{{ for a brace") from None
    for name in sorted(named - set(fields)):
        raise ValueError(f"{key} names {{{name}}}; known fields are {', '.join(fields)}")


if __name__ == "__main__":
    sys.stdout.write(json_schema())
