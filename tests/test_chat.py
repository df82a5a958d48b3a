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
    # Only the template shows that a turn of Gemma's ends with a token of its own.
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
def test_text_without_special_tokens_reaches_the_model_as_it_is(family: str) -> None:
    text = "Q: What is 39 - 63?\nA:  <think>\n\n   68</think>"
    assert text in (chat := family_chat(family)).transcript(chat.first_turn(text))
    assert text in chat.transcript(chat.next_turn(text, chat.tokens("x")[0]))
    plain = family_chat(family, plain=True)
    assert plain.first_turn(text) == plain.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_transcripts_show_special_tokens_and_texts_hide_stop_tokens_alone(family: str) -> None:
    chat = family_chat(family)
    opening = chat.special_tokens[FAMILIES[family][4][0]]
    tokens = [*chat.tokens("7"), opening, *chat.stop_tokens]
    assert chat.text(tokens) == f"7{FAMILIES[family][4][0]}"
    assert chat.transcript(tokens) == chat.tokenizer.decode(tokens)


def test_the_longest_named_fields_are_cut_and_no_others() -> None:
    chat = family_chat("llama", plain=True)
    fields = {"text": "a" * 50, "response": "b" * 30, "label": "c" * 99}
    opening = len(chat.first_turn(""))

    def fitted(template: str, limit: int) -> str:
        return chat.text(chat.fit(template, fields, chat.first_turn, limit + opening, "prompt_tokens")[opening:])

    assert fitted("{text}?", 99) == "a" * 50 + "?"
    assert fitted("{text}?", 11) == "a" * 10 + "?"
    # The label is longer, but the template does not name it.
    assert fitted("{text}/{response}", 41) == "a" * 10 + "/" + "b" * 30
    # Where one field is used up, the next is cut.
    assert fitted("{text}/{response}", 21) == "/" + "b" * 20
    assert fitted("{response}", 0) == ""
    with pytest.raises(InputError, match=f"prompt_tokens = {3 + opening}: .* takes {5 + opening} tokens; shorten"):
        fitted("{text} Now?", 3)


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
