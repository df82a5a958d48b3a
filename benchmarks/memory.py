"""Prints how much device memory each model of a study needs, and what fits which GPU: the table of docs/gpu.md.

    python benchmarks/memory.py [config/config.yaml]

A model that has been fetched is measured by its own configuration, others by the figures below.
"""

from __future__ import annotations

import math
import sys
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

CHUNKS = (12, 6, 3, 1)
"""The chunks that are tried, with as many held-out items evaluated together, up to 10."""


def main(path: str) -> None:
    """Prints the table of a study."""
    study = load_study(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    print(f"| model | a seed's runs | {' | '.join(DEVICES)} |")
    print("|---|---|" + "---|" * len(DEVICES))
    for name in study.models:
        config = shape_of(study, name)
        together = seed_runs(study, name)
        whole = {chunk: sized(study, together, config, chunk) for chunk in CHUNKS}
        one = sized(with_checkpointing(study, name, True), together[:1], config, 1)
        cells = [fits(whole, one, gib * 2**30) for gib in DEVICES.values()]
        print(f"| `{name}` | {math.ceil(whole[CHUNKS[0]].total / GB)} GB | {' | '.join(cells)} |", flush=True)


def shape_of(study: Study, name: str) -> PretrainedConfig:
    """The configuration of a model."""
    folder = study.model_folder(name)
    return read_config(folder) if folder.exists() else SHAPES[study.models[name].source]


def seed_runs(study: Study, name: str) -> list[Run]:
    """The runs of one seed on a model, or one of them where the study has one a job."""
    enabled = study.models[name].model_copy(update={"enabled": True})
    runs = study.model_copy(update={"models": {name: enabled}}).runs()
    free = {axis: getattr(runs[0], axis) for axis in Run._fields if axis not in study.engine.lockstep}
    return [run for run in runs if all(getattr(run, axis) == value for axis, value in free.items())]


def sized(study: Study, axes: list[Run], config: PretrainedConfig, chunk: int) -> Estimate:
    """What a job needs with a chunk, and an evaluation batch of the same size."""
    return estimate(with_engine(study, chunk=chunk, evaluation_batch=min(chunk, 10)), axes, config)


def fits(whole: dict[int, Estimate], one: Estimate, free: float) -> str:
    """The largest chunk with which all runs fit, or that one does with its activations checkpointed, or a dash."""
    chunk = next((chunk for chunk, needed in whole.items() if needed.total <= free), None)
    if chunk is not None:
        return "yes" if chunk == max(whole) else f"chunk {chunk}"
    return "one run" if one.total <= free else "–"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "config/config.yaml")
