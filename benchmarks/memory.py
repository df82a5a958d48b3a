"""Prints what each model of a study needs, and the settings that take most of its runs on each GPU, for docs/gpu.md.

    python benchmarks/memory.py [config/config.yaml]

A model that has been fetched is measured by its own configuration, others by the figures below.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from transformers import Gemma2Config, LlamaConfig, MistralConfig, PretrainedConfig

from wireheading.engine.memory import GB, Estimate, estimate, with_checkpointing, with_engine
from wireheading.policy.model import read_config
from wireheading.study.config import Run, Study, load_study

ROOT = Path(__file__).parents[1]

SHAPES: dict[str, PretrainedConfig] = {
    "meta-llama/Llama-3.2-1B-Instruct": LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, tie_word_embeddings=False,
    ),
    "meta-llama/Llama-3.1-70B-Instruct": LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=128256, tie_word_embeddings=False,
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": MistralConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=32768, sliding_window=None, tie_word_embeddings=False,
    ),
    "mistralai/Mistral-Nemo-Instruct-2407": MistralConfig(
        hidden_size=5120, intermediate_size=14336, num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=131072, sliding_window=None, tie_word_embeddings=False,
    ),
    "google/gemma-2-9b-it": Gemma2Config(
        hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8,
        head_dim=256, vocab_size=256000,
    ),
}  # fmt: skip
"""The architectures of the models that the configs name, as their pages tell."""

DEVICES = {"L4": 22.5, "A100 40 GB": 39.5, "A100 80 GB": 79.3, "H100": 79.3, "H200": 139.8}
"""Memory that a fresh device has free, in GiB."""

CHUNKS = (12, 3, 2, 1)
"""The chunks that are tried."""

LOCKSTEP = (("task", "condition"), ("condition",), ("task",), ())
"""The axes that are tried: all runs of a seed, then those of a task, then fewer."""

ITEMS = 10
"""Held-out items of each run that a job can evaluate together if it has what the first column says."""


@dataclass(frozen=True)
class Settings:
    """How the runs of a model are computed."""

    lockstep: tuple[str, ...]
    checkpointing: bool
    chunk: int

    def of(self, study: Study, name: str) -> Study:
        """The study with these settings."""
        return with_engine(
            with_checkpointing(study, name, self.checkpointing), lockstep=self.lockstep, chunk=self.chunk
        )


def main(path: str) -> None:
    """Prints the table of a study."""
    study = load_study(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    print(f"| model | a seed's runs | {' | '.join(DEVICES)} |")
    print("|---|---|" + "---|" * len(DEVICES))
    for name in study.models:
        config = shape_of(study, name)
        whole = needed(study, name, config)
        sized = cache(lambda settings, name=name, config=config: need(study, name, settings, config))
        cells = []
        for gib in DEVICES.values():
            fitting = next((tried for tried in candidates(study, name) if sized(tried).total <= gib * 2**30), None)
            cells.append("–" if fitting is None else told(study, name, fitting))
        print(f"| `{name}` | {math.ceil(whole.total / GB)} GB | {' | '.join(cells)} |", flush=True)


def needed(study: Study, name: str, config: PretrainedConfig) -> Estimate:
    """What a job with the study's own settings needs."""
    return estimate(with_engine(study, evaluation_batch=ITEMS), seed_runs(study, name), config)


def need(study: Study, name: str, settings: Settings, config: PretrainedConfig) -> Estimate:
    """What a job with some settings needs at least: one held-out item of each run at a time."""
    tried = settings.of(study, name)
    return estimate(with_engine(tried, evaluation_batch=1), seed_runs(tried, name), config)


def candidates(study: Study, name: str) -> Iterator[Settings]:
    """Settings, those that take the most runs first, and among these the fastest."""
    own = study.models[name].activation_checkpointing
    for lockstep in LOCKSTEP:
        for checkpointing in dict.fromkeys((own, True)):
            for chunk in CHUNKS:
                yield Settings(lockstep, checkpointing, chunk)


def told(study: Study, name: str, settings: Settings) -> str:
    """What a cell of the table says: how many runs a job has, and the settings that differ from the study's."""
    runs = len(seed_runs(settings.of(study, name), name))
    changes = [f"{runs} run{'s' * (runs > 1)}"]
    if settings.chunk < study.engine.chunk:
        changes.append(f"chunk {settings.chunk}")
    if settings.checkpointing and not study.models[name].activation_checkpointing:
        changes.append("checkpointing")
    return ", ".join(changes)


def shape_of(study: Study, name: str) -> PretrainedConfig:
    """The configuration of a model."""
    folder = study.model_folder(name)
    return read_config(folder) if folder.exists() else SHAPES[study.models[name].source]


def seed_runs(study: Study, name: str) -> list[Run]:
    """The runs of a model's first job."""
    enabled = study.models[name].model_copy(update={"enabled": True})
    runs = study.model_copy(update={"models": {name: enabled}}).runs()
    free = {axis: getattr(runs[0], axis) for axis in Run._fields if axis not in study.engine.lockstep}
    return [run for run in runs if all(getattr(run, axis) == value for axis, value in free.items())]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "config/config.yaml")
