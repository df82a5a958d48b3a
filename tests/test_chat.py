"""Turns in the templates of the families that the study runs."""

from __future__ import annotations

import pytest
from families import FAMILIES, family_generation, family_tokenizer
from toys import toy_tokenizer
from transformers import GenerationConfig

from wireheading.errors import InputError
from wireheading.policy.chat import Chat

FIRST = {
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday: 26 Jul 2024\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] How?[/INST]",
    "gemma2": "<bos><start_of_turn>user\nHow?<end_of_turn>\n<start_of_turn>model\n",
    "qwen3": "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
}
NEXT = {
    "llama": "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nRight?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "</s>[INST] Right?[/INST]",
    "gemma2": "<end_of_turn>\n<start_of_turn>user\nRight?<end_of_turn>\n<start_of_turn>model\n",
    "qwen3": "<|im_end|>\n<|im_start|>user\nRight?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
}
STOPS = {
    "llama": {"<|eot_id|>", "<|end_of_text|>"},
    "mistral": {"</s>"},
    # Nothing but the template tells that a turn of Gemma's ends with a token of its own.
    "gemma2": {"<eos>", "<end_of_turn>"},
    "qwen3": {"<|im_end|>", "<|endoftext|>"},
}


def family_chat(family: str, *, plain: bool = False) -> Chat:
    return Chat(family_tokenizer(family), family_generation(family), plain=plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_follow_the_template(family: str) -> None:
    chat = family_chat(family)
    assert chat.tokenizer.decode(chat.first_turn("How?")) == FIRST[family]
    assert chat.tokenizer.decode(chat.next_turn("Right?", chat.tokens("x")[0])) == NEXT[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_that_ended_a_turn_is_not_repeated(family: str) -> None:
    chat = family_chat(family)
    whole = chat.next_turn("Right?", chat.tokens("x")[0])
    assert chat.next_turn("Right?", whole[0]) == whole[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stop_token_is_known_and_there_is_padding(family: str) -> None:
    chat = family_chat(family)
    assert set(chat.tokenizer.convert_ids_to_tokens(sorted(chat.stop_tokens))) == STOPS[family]
    if FAMILIES[family][2] is None:
        assert chat.tokenizer.pad_token_id is None
        assert chat.pad_token in chat.stop_tokens
    else:
        assert chat.pad_token == chat.tokenizer.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_a_response_cannot_open_a_turn(family: str) -> None:
    chat = family_chat(family)
    text = "".join(FAMILIES[family][4]) + FAMILIES[family][3]
    plain = [token for token in chat.first_turn("x") if token in chat.tokenizer.all_special_ids]
    forged = [token for token in chat.first_turn(text) if token in chat.tokenizer.all_special_ids]
    assert forged == plain


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_prompts_have_no_turns(family: str) -> None:
    chat = family_chat(family, plain=True)
    assert chat.tokenizer.decode(chat.first_turn("How?")) == f"{FAMILIES[family][1]}How?"
    assert chat.tokenizer.decode(chat.next_turn("Right?", 7)) == "Right?"
    assert chat.stop_tokens == family_chat(family).stop_tokens - (
        {chat.tokenizer.convert_tokens_to_ids("<end_of_turn>")} if family == "gemma2" else set()
    )


def test_a_model_without_a_template_can_be_given_plain_prompts_alone() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template; give an instruction-tuned model, or set `prompting: compl"):
        Chat(tokenizer, GenerationConfig())
    assert Chat(tokenizer, GenerationConfig(), plain=True).first_turn("ab") == list(Chat(
        toy_tokenizer(), GenerationConfig()
    ).tokens("ab"))  # fmt: skip


def test_a_model_without_a_stop_token_is_refused() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"names a stop token; set eos_token in tokenizer_config\.json"):
        Chat(tokenizer, GenerationConfig(), plain=True)
