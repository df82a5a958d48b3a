"""A model's language of turns: chat template, stop tokens, text to tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from wireheading.errors import InputError

# Stands for the response while the template is rendered, to find where its own text goes on behind a response.
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}response\N{OBJECT REPLACEMENT CHARACTER}"

# Some templates tell the model the date, but a run's prompts must not depend on the day on which it is done. So the
# function that they ask is replaced by one of the template's own, which always tells of the same day.
_DAY = datetime(2024, 7, 26, tzinfo=UTC)
_SAME_DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{code}', '{_DAY.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
    + " }}{%- endmacro -%}"
)


class Chat:
    """Turns text into a model's prompt tokens, and sampled tokens into text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, *, plain: bool = False):
        """Takes a model's tokenizer and its generation config, which may name further stop tokens.

        Args:
            tokenizer: The tokenizer, with its chat template.
            generation: The generation config.
            plain: Whether turns are plain text, one after the other, instead of the template's.

        Raises:
            InputError: The tokenizer has no chat template though one is wanted, or no stop token.
        """
        if not tokenizer.chat_template and not plain:
            raise InputError(
                f"{tokenizer.name_or_path}: its tokenizer has no chat template; give an instruction-tuned model, or "
                "set `prompting: completion`"
            )
        self.tokenizer = tokenizer
        self.plain = plain
        eos = generation.eos_token_id
        stops = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos]), self._end_of_turn} - {None}
        if not stops:
            raise InputError(
                f"{tokenizer.name_or_path}: neither its tokenizer nor generation_config.json names a stop token; set "
                "eos_token in tokenizer_config.json"
            )
        self.stop_tokens: frozenset[int] = frozenset(int(token) for token in stops if token is not None)
        pad = tokenizer.pad_token_id
        self.pad_token: int = min(self.stop_tokens) if pad is None else pad

    def first_turn(self, text: str) -> list[int]:
        """Tokens of a conversation that opens with a user's text, up to where the model's answer begins."""
        if self.plain:
            # As the tokenizer itself begins a text, with the token that opens one where the model has it.
            return list(self.tokenizer(self._neutral(text))["input_ids"])
        return self._tokens(self._render([{"role": "user", "content": self._neutral(text)}]))

    def next_turn(self, text: str, last_token: int) -> list[int]:
        """Tokens that follow a sampled response: the end of its turn, a user's text, the opening of the next answer.

        Args:
            text: The user's text.
            last_token: The response's last token. If it is the one that ends a turn, that is not repeated.
        """
        if self.plain:
            return self._tokens(self._neutral(text))
        tokens = self._tokens(self._after_response(self._neutral(text)))
        return tokens[1:] if tokens and tokens[0] == last_token else tokens

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that a model might say."""
        return tuple(self._tokens(text))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without stop tokens and other special ones."""
        decoded = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        assert isinstance(decoded, str)
        return decoded

    def fit(
        self,
        render: Callable[[Mapping[str, Any]], str],
        fields: Mapping[str, Any],
        tokens: Callable[[str], list[int]],
        limit: int,
        name: str,
    ) -> list[int]:
        """Tokens of a prompt, its longest field cut by whole tokens where the prompt would be longer than a limit.

        Args:
            render: Makes the prompt's text of its fields.
            fields: The prompt's fields.
            tokens: Makes tokens of the prompt's text (`first_turn`, or `next_turn` with its last token bound).
            limit: Most tokens that the prompt may have.
            name: The limit's name, for the error.

        Raises:
            InputError: The prompt is too long even without that field.
        """
        prompt = tokens(render(fields))
        if len(prompt) <= limit:
            return prompt
        fields = dict(fields)
        longest = max(fields, key=lambda name: len(str(fields[name])))
        ids = self.tokenizer(str(fields[longest]), add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        while len(prompt) > limit:
            ids = ids[: -(len(prompt) - limit)]
            if not ids:
                raise InputError(
                    f"config: {name} = {limit}: with its {longest} cut away the template still has {len(prompt)} "
                    "tokens; shorten it or raise the limit"
                )
            fields[longest] = self.text(ids)
            prompt = tokens(render(fields))
        return prompt

    @cached_property
    def _end_of_turn(self) -> int | None:
        """The token with which the template closes a response, if it is a special one."""
        if self.plain:
            return None
        tokens = self._tokens(self._after_response("x"))
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.get_added_vocab().values())
        return tokens[0] if tokens and tokens[0] in special else None

    def _render(self, messages: list[dict[str, str]]) -> str:
        rendered = self.tokenizer.apply_chat_template(
            messages,
            chat_template=_SAME_DAY + self.tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
            # Qwen 3 answers at once.
            enable_thinking=False,
        )
        assert isinstance(rendered, str)
        return rendered

    def _after_response(self, text: str) -> str:
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": _MARK},
            {"role": "user", "content": text},
        ]
        return self._render(messages).rpartition(_MARK)[2]

    def _tokens(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _neutral(self, text: str) -> str:
        """Text in which nothing reads as a special token: a response must not be able to open a turn of its own."""
        for special in self.tokenizer.get_added_vocab():
            if special in text:
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text
