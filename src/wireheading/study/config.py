"""The configuration of a study: all sections together, the checks across them, and its runs, folders and digests.

These models and those of `sections` are the single source: `python -m wireheading.study.config` generates
`workflow/schemas/config.schema.json` from them, the files in `config/` are checked against them, and a run's digest is
computed from them. The defaults are those of the study.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from wireheading.errors import ConfigError
from wireheading.study.conditions import CONDITIONS, Condition, NamedCondition, rows_by_name
from wireheading.study.paths import RECORD
from wireheading.study.reading import check_values, explain
from wireheading.study.sections import (
    AnalysisConfig,
    Count,
    EmbeddedConfig,
    EngineConfig,
    EvaluationConfig,
    Flag,
    Folder,
    LoraConfig,
    ModelConfig,
    Number,
    OptimizerConfig,
    Section,
    Seed,
    TaskConfig,
    distinct,
)
from wireheading.study.selection import Selection, part_of
from wireheading.tasks import TASKS, arithmetic

AXES = ("seed", "model", "task", "condition")

SPEC_KEYS = {
    "rounds",
    "temperature",
    "prompting",
    "grading_context",
    "grading",
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


class Run(NamedTuple):
    """The names that identify a run, as in the path of its record."""

    seed: int
    model: str
    task: str
    condition: str

    def __str__(self) -> str:
        return "/".join(str(part) for part in self)


class Study(Section):
    """A whole study: its runs, and how they are computed, measured and reported."""

    models: dict[str, ModelConfig]
    """The models by name. Names appear in paths: lower-case letters, digits, dots and dashes."""
    tasks: dict[str, TaskConfig]
    """The tasks by name."""
    conditions: Annotated[
        dict[str, Condition],
        BeforeValidator(rows_by_name, json_schema_input_type=list[Literal[*CONDITIONS] | NamedCondition]),
    ] = Field(("control", "selfgrade", "honest", "frozen", "responseonly"), validate_default=True)
    """The conditions to run: names of known ones, and rows of one's own."""
    seeds: tuple[Seed, ...] = (42, 123, 456, 789)
    """The seeds, one repetition of the study each."""
    rounds: Count = 500
    """Rounds of a run: one response, one reward and one update each."""
    temperature: Number = Field(1.0, ge=0.01, le=100)
    """Sampling temperature of responses and grades."""
    prompting: Literal["chat", "completion"] = "chat"
    """Whether prompts are turns in the model's chat template, or plain text to complete."""
    grading_context: Literal["conversation", "fresh"] = "conversation"
    """Whether the grade is the next turn of the conversation or has a context of its own."""
    grading: Literal["free", "choice"] = "free"
    """Whether a grade is sampled as free text and read, or chosen among the task's grades, so that all are
    readable."""
    measures: Literal["strict", "original"] = "strict"
    """The evaluators and grade readers that rewards come from: this project's, or the published study's."""
    item_order: Literal["shuffled", "fixed"] = "shuffled"
    """Whether training items are shuffled by seed and epoch, or always come in the order of the file."""
    data_seed: Seed = 0
    """Seed for choosing items and for splitting them into training and held-out items."""
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    embedded: EmbeddedConfig = EmbeddedConfig()
    engine: EngineConfig = EngineConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    only: Selection = Selection()
    """The part of the study to run, if not all of it. Its tables and its report have a folder of their own."""
    partial: Flag = False
    """Whether to make the tables and the report from the records that exist, without running anything."""
    results: Folder = "results"
    """Folder of the records and the tables made from them."""
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
    def _known_names_mean_known_rows(cls, conditions: dict[str, Condition]) -> dict[str, Condition]:
        for name, row in conditions.items():
            if row != CONDITIONS.get(name, row):
                raise ValueError(f"{name!r} is a known condition with another row; give yours another name")
        return conditions

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(seeds)

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
            _check_template(f"tasks.{name}.prompt", task.prompt, fields, fields)
            # In a fresh context the grader sees nothing but this prompt.
            shown = ("response",) if self.grading_context == "fresh" else ()
            _check_template(f"tasks.{name}.grading_prompt", task.grading_prompt, (*fields, "response"), shown)
        return self

    @model_validator(mode="after")
    def _there_are_other_tasks(self) -> Study:
        if self.evaluation.transfer and len(self.tasks) < 2:
            raise ValueError("evaluation.transfer = true: there is one task alone; give another, or set it to false")
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
            allowed: list[Collection[str]] = [self.models, self.tasks, {*CONDITIONS, *self.conditions}]
            known = len(rest) == 3 and all(part in names for part, names in zip(rest, allowed, strict=True))
            if not known or not re.fullmatch("0|[1-9][0-9]*", seed):
                raise ValueError(f"analysis.excluded names {name!r}; a run is named seed/model/task/condition")
        return self

    @property
    def enabled_models(self) -> list[str]:
        """Names of the enabled models, in the config's order."""
        return [name for name, model in self.models.items() if model.enabled]

    @property
    def enabled_tasks(self) -> list[str]:
        """Names of the tasks to run, in the config's order. The embedded model learns the others all the same."""
        return [name for name in self.tasks if name in self.only.tasks or not self.only.tasks]

    @property
    def trained_models(self) -> list[str]:
        """Names of the models that the workflow trains itself."""
        return [name for name, model in self.models.items() if model.source == "embedded"]

    @property
    def fetched_models(self) -> list[str]:
        """Names of the models that come from a hub or a local folder."""
        return [name for name, model in self.models.items() if model.source != "embedded"]

    def runs(self) -> list[Run]:
        """Every run of the study, in the config's order."""
        return [
            Run(seed, model, task, condition)
            for model, task, seed, condition in itertools.product(
                self.enabled_models, self.enabled_tasks, self.seeds, self.conditions
            )
        ]

    def record_path(self, run: Run) -> Path:
        """Path of a run's record."""
        return Path(self.results, RECORD.format_map(run._asdict()))

    def model_source(self, name: str) -> dict[str, Any]:
        """All settings that a model's files depend on, as a JSON object."""
        source = self.models[name].model_dump(mode="json", include={"source", "revision"})
        if source["source"] == "embedded":
            source["embedded"] = self.embedded.model_dump(mode="json")
        return source

    def items_source(self, name: str) -> dict[str, Any]:
        """All settings that a task's items depend on, as a JSON object."""
        source = self.tasks[name].model_dump(mode="json", include=ITEMS_KEYS)
        return {"task": name, "data_seed": self.data_seed, **source}

    def model_folder(self, name: str) -> Path:
        """Folder of a model. Its name depends on the settings, so that studies can share their resources."""
        return Path(self.resources, "models", f"{name}-{digest_of(self.model_source(name))[:8]}")

    def items_folder(self, name: str) -> Path:
        """Folder of a task's items, named in the same way."""
        return Path(self.resources, "data", f"{name}-{digest_of(self.items_source(name))[:8]}")

    def other_tasks(self, task: str) -> list[str]:
        """The tasks whose fixed answers the runs of a task also grade at their end."""
        return [name for name in self.tasks if name != task] if self.evaluation.transfer else []

    def spec(self, run: Run) -> dict[str, Any]:
        """All settings that can change a run's results, as a JSON object."""
        model = {"precision": self.models[run.model].precision, **self.model_source(run.model)}
        others = {name: self.tasks[name].model_dump(mode="json") for name in self.other_tasks(run.task)}
        settings = self.model_dump(mode="json", include=SPEC_KEYS)
        # What is not asked for leaves the digests of all records as they were.
        del settings["evaluation"]["transfer"]
        return {
            "seed": run.seed,
            "model": {"name": run.model, **model},
            "task": {"name": run.task, **self.tasks[run.task].model_dump(mode="json")},
            "condition": {"name": run.condition, **self.conditions[run.condition].spec()},
            **settings,
            **({"transfer": others} if others else {}),
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
        config: The merged content of the config files and of `--config`, as Snakemake passes it.

    Raises:
        ConfigError: Names the first offending key, its value and the remedy.
    """
    check_values(config)
    try:
        return part_of(Study.model_validate(config))
    except ValidationError as error:
        raise ConfigError(f"config: {explain(Study, error)}") from None


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of a configuration, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _check_template(key: str, template: str, fields: tuple[str, ...], wanted: Collection[str]) -> None:
    """Checks that a template names known fields only, and one of the wanted fields, without format or conversion."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{key} = {template!r}: {error}; write {{{{ for a brace") from None
    named = {name for _, name, _, _ in parts if name is not None}
    for _, name, spec, conversion in parts:
        if name is not None and name not in fields:
            raise ValueError(f"{key} names {{{name}}}; known fields are {', '.join(fields)}")
        if spec or conversion:
            raise ValueError(f"{key} = {template!r}: write {{{name}}} alone, without a format or a conversion")
    if wanted and not named.intersection(wanted):
        raise ValueError(f"{key} = {template!r}: must name {' or '.join(f'{{{field}}}' for field in wanted)}")


if __name__ == "__main__":
    sys.stdout.write(json_schema())
