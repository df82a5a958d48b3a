"""Toy models of several families, each with a chat template of its kind, saved in the hub's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from toys import toy_model
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

LLAMA = """{{ bos_token }}{% set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}\
{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}\
{% else %}{% set system = '' %}{% endif %}\
<|start_header_id|>system<|end_header_id|>

Today: {{ today }}

{{ system }}<|eot_id|>{% for message in messages %}\
<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('After the optional system message, roles must alternate user/assistant') }}{% endif %}\
{% if message['role'] == 'user' %}[INST] {{ message['content'] }}[/INST]\
{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"""

GEMMA = """{{ bos_token }}\
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}\
<start_of_turn>{{ role }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

QWEN = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' and '</think>' in message['content'] %}\
{{ message['content'].split('</think>')[-1] }}{% else %}{{ message['content'] }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

FAMILIES: dict[str, tuple[str, str, str | None, str, list[str], list[str]]] = {
    # template, first token of a text, padding, end of a text, other special tokens, those with which generation stops
    "llama": (
        LLAMA,
        "<|begin_of_text|>",
        None,
        "<|eot_id|>",
        ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"],
        ["<|end_of_text|>", "<|eot_id|>"],
    ),
    "mistral": (MISTRAL, "<s>", None, "</s>", ["[INST]", "[/INST]"], ["</s>"]),
    "gemma2": (GEMMA, "<bos>", "<pad>", "<eos>", ["<start_of_turn>", "<end_of_turn>"], ["<eos>"]),
    "qwen3": (
        QWEN,
        "<|endoftext|>",
        "<|endoftext|>",
        "<|im_end|>",
        ["<|im_start|>"],
        ["<|im_end|>", "<|endoftext|>"],
    ),
}


PLAIN = {"gemma2": ["\n", "\n\n", "  ", "   "], "qwen3": ["<think>", "</think>"]}
"""Tokens that a family's tokenizer lists as added but that are not special."""


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a family's added tokens, special or not, and a template of its kind."""
    template, first, padding, end, others, _ = FAMILIES[family]
    special = list(dict.fromkeys(token for token in (first, padding, end, *others) if token is not None))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, vocabulary[first])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=first,
        eos_token=end,
        pad_token=padding,
        additional_special_tokens=others,
    )
    fast.add_tokens([AddedToken(text, special=False, normalized=False) for text in PLAIN.get(family, [])])
    fast.chat_template = template
    return fast


def family_generation(family: str) -> GenerationConfig:
    """What a family's generation config says of stopping."""
    tokens = family_tokenizer(family).convert_tokens_to_ids(FAMILIES[family][5])
    return GenerationConfig(eos_token_id=tokens)


def save_family(folder: Path, family: str, *, wide: bool = False) -> None:
    """Saves a toy model of a family as a hub holds it: weights in several files, tokenizer, generation config.

    Args:
        folder: Where to.
        family: One of `FAMILIES`.
        wide: Whether every layer has inputs in multiples of 64, as 4 bits on a CPU want.
    """
    tokenizer = family_tokenizer(family)
    config = toy_model(family, torch.float32).config
    config.vocab_size = len(tokenizer)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    if wide:
        config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config = family_generation(family)
    model.save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
