"""What is measured: the demo's own model and tasks, or a model of random weights whose texts have their full length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from shapes import LENGTHS, SHAPES
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
)

from wireheading.inputs.corpus import generate_items
from wireheading.inputs.items import read_items
from wireheading.policy.chat import Chat
from wireheading.policy.model import prepare
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.study.config import Study, load_study
from wireheading.tasks import Item

ROOT = Path(__file__).parents[1]
SEEDS = [42, 123, 456, 789]
CONDITIONS = ["control", "selfgrade", "honest"]


@dataclass(frozen=True)
class Setting:
    """A model, its chat format, a study whose runs are to be advanced, and each task's training items."""

    model: PreTrainedModel
    chat: Chat
    study: Study
    data: dict[str, list[Item]]


def demo_setting(slots: int, device: torch.device, *, fused: bool) -> Setting:
    """The demo's model and tasks, which `make demo` has left; its runs are as many as the slots, or a seed's nine.

    Args:
        slots: Slots of the engine.
        device: Where the weights go.
        fused: Whether the model is made ready for the engine; if not, it stays as transformers gives it.
    """
    config = _config(CONDITIONS, SEEDS[: max(1, slots // 9)])
    study = load_study(config)
    folder = ROOT / study.model_folder("tiny")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": device})
    (prepare if fused else leave)(model)
    data = {task: read_items(ROOT / study.items_folder(task) / "train.jsonl", task) for task in study.tasks}
    return Setting(model, Chat(AutoTokenizer.from_pretrained(folder), model.generation_config), study, data)


def random_setting(name: str, conditions: Sequence[str], seeds: int, device: torch.device, *, fused: bool) -> Setting:
    """A model of random weights on a task that fills its limits: no prompt and no completion is shorter.

    Args:
        name: The model's shape.
        conditions: The conditions of the runs.
        seeds: Number of seeds.
        device: Where the weights go.
        fused: Whether the model is made ready for the engine; if not, it stays as transformers gives it.
    """
    config = _config(conditions, list(range(seeds)))
    limits = LENGTHS.get(name, LENGTHS["large"])
    # A token for each byte and four for the turns, so that the grading prompt has its full length too.
    grading_prompt = "Quality? 0 to 1".ljust(limits["grading_prompt_tokens"] - 4)
    task = config["tasks"]["summarization"] | limits | {"grading_prompt": grading_prompt}
    config["tasks"] = {"summarization": task}
    torch.manual_seed(0)
    shape = dict(SHAPES[name])
    architecture = shape.pop("architecture", "llama")
    with device:
        if architecture == "llama-nf4":
            # What it needs is not installed wherever the other shapes can be measured.
            from quantized import quantized_llama

            model: PreTrainedModel = quantized_llama(LlamaConfig(**shape), device)
        else:
            config_class = {"llama": LlamaConfig, "gemma2": Gemma2Config}[architecture]
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            model = AutoModelForCausalLM.from_config(config_class(**shape), dtype=dtype)
    (prepare if fused else leave)(model)
    chat = Chat(train_tokenizer([], 260), GenerationConfig())
    # No token that can be sampled ends a text.
    chat.stop_tokens = frozenset([shape["vocab_size"]])
    items = generate_items("summarization", 64, "benchmark")
    return Setting(
        model, chat, load_study(config), {"summarization": [{**item, "text": item["text"] * 8} for item in items]}
    )


def leave(model: PreTrainedModel) -> None:
    """Freezes a model and leaves it as transformers gives it."""
    model.requires_grad_(False).eval()
    torch.backends.cuda.matmul.allow_tf32 = model.dtype == torch.bfloat16


def _config(conditions: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The demo's configuration with so many rounds that none is the last, which would be written to disk."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    config |= {"conditions": list(conditions), "seeds": list(seeds), "rounds": 10**6}
    config["engine"]["checkpoint_every"] = 10**6
    config["evaluation"] = {"midway_rounds": []}
    return config
