"""Toy models and tokenizers, made in a moment: for tests of all that does not need a model that knows something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from wireheading.policy.chat import Chat
from wireheading.policy.model import prepare

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<user>' if message['role'] == 'user' else '<assistant>' }}{{ message['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "attention_dropout": 0.0,
}


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with three special tokens and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<user>", "<assistant>", "<end>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def toy_model(family: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A model of a family's architecture with random weights that are large enough to say different things."""
    shape = {**SHAPE, "vocab_size": len(toy_tokenizer()), "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": None}
    families: dict[str, Callable[[], PretrainedConfig]] = {
        "llama": lambda: LlamaConfig(**shape),
        "mistral": lambda: MistralConfig(**shape, sliding_window=None),
        "mistral-window": lambda: MistralConfig(**shape, sliding_window=9),
        "gemma2": lambda: Gemma2Config(**shape, sliding_window=9, query_pre_attn_scalar=8),
        "qwen2": lambda: Qwen2Config(**shape),
        "qwen3": lambda: Qwen3Config(**shape),
    }
    config = families[family]()
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 or name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 2 else 0.1)
    prepare(model)
    return model


def toy_chat() -> Chat:
    """The toy tokenizer's chat format."""
    return Chat(toy_tokenizer(), GenerationConfig(eos_token_id=3))


def save_toy(folder: Path, family: str = "llama") -> None:
    """Saves a toy model and its tokenizer in the hub's layout."""
    toy_model(family, torch.float32).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
