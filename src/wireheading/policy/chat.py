"""A model's chat format: its template, its stop tokens, text to tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from string import Formatter
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from wireheading.errors import InputError, first_line

# Stands for the response while the template is rendered, to find what the template writes after a response.
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}response\N{OBJECT REPLACEMENT CHARACTER}"

# Some templates state today's date, but a run's prompts must not depend on the day. So the function that they call is
# replaced by a macro that always gives the same date.
_DAY = datetime(2024, 7, 26, tzinfo=UTC)
_SAME_DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{code}', '{_DAY.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
    + " }}{%- endmacro -%}"
)


class Chat:
    """Makes a model's prompts of text, and text of its completions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, *, plain: bool = False):
        """Reads the stop tokens and special tokens of a model.

        Args:
            tokenizer: The tokenizer, with its chat template.
            generation: The generation config, which may name further stop tokens.
            plain: Whether turns are plain text, one after the other, without the template.

        Raises:
            InputError: The chat template is missing or broken, or there is no stop token.
        """
        self._name = tokenizer.name_or_path
        if not tokenizer.chat_template and not plain:
            raise InputError(
                f"{self._name}: its tokenizer has no chat template; give an instruction-tuned model, or "
                "set `prompting: completion`"
            )
        self.tokenizer = tokenizer
        self.plain = plain
        if not plain and _MARK not in self._render([{"role": "user", "content": _MARK}]):
            raise InputError(f"{self._name}: its chat template leaves out the user's text; mend it")
        eos = generation.eos_token_id
        stops = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos]), self._end_of_turn} - {None}
        for stop in stops:
            if not isinstance(stop, int):
                raise InputError(f"{self._name}/generation_config.json: eos_token_id = {eos!r} is no token; mend it")
        if not stops:
            raise InputError(
                f"{self._name}: neither its tokenizer nor generation_config.json names a stop token; set "
                "eos_token in tokenizer_config.json"
            )
        self.stop_tokens: frozenset[int] = frozenset(stops)
        self.special_tokens: dict[str, int] = {
            added.content: token
            for token, added in tokenizer.added_tokens_decoder.items()
            if added.special or token in self._added & {*tokenizer.all_special_ids, *stops}
        }
        pad = tokenizer.pad_token_id
        self.pad_token: int = min(self.stop_tokens) if pad is None else pad

    def first_turn(self, text: str) -> list[int]:
        """Tokens of a conversation that opens with a user's text, up to where the response begins."""
        if self.plain:
            # The tokenizer itself adds the token that opens a text, if the model has one.
            return list(self.tokenizer(self._neutral(text))["input_ids"])
        return self._tokens(self._render([{"role": "user", "content": self._neutral(text)}]))

    def next_turn(self, text: str, last_token: int) -> list[int]:
        """Tokens that follow a response: the end of its turn, a user's text, the opening of the next response.

        Args:
            text: The user's text.
            last_token: The response's last token. If it ended the turn, that token is not repeated.
        """
        if self.plain:
            return self._tokens(self._neutral(text))
        tokens = _next_turn(self, text)
        return tokens[1:] if tokens and tokens[0] == last_token else tokens

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as a model might sample it."""
        return tuple(self._tokens(text))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without stop tokens."""
        return self.transcript([token for token in tokens if token not in self.stop_tokens])

    def transcript(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return _decoded(self, tuple(tokens))

    def fit(
        self,
        template: str,
        fields: Mapping[str, Any],
        tokens: Callable[[str], list[int]],
        limit: int,
        name: str,
    ) -> list[int]:
        """Tokens of a prompt; its longest fields are cut by whole tokens if it exceeds a limit.

        Args:
            template: The prompt's text, with fields in braces.
            fields: The values of these fields; others are ignored.
            tokens: Makes tokens of the prompt's text: `first_turn`, or `next_turn` with its last token bound.
            limit: The most tokens that the prompt may have.
            name: The limit's key in the config, for the error.

        Raises:
            InputError: The prompt is too long even with empty fields.
        """
        named = {field: str(fields[field]) for _, field, _, _ in Formatter().parse(template) if field}
        prompt = tokens(template.format_map(named))
        for longest in sorted(named, key=lambda field: len(named[field]), reverse=True):
            if len(prompt) <= limit:
                break
            ids = self._tokens(named[longest])
            while len(prompt) > limit and ids:
                ids = ids[: -(len(prompt) - limit)]
                named[longest] = self.text(ids)
                prompt = tokens(template.format_map(named))
        if len(prompt) > limit:
            raise InputError(
                f"config: {name} = {limit}: without its fields the template takes {len(prompt)} tokens; shorten it or "
                "raise the limit"
            )
        return prompt

    @cached_property
    def _end_of_turn(self) -> int | None:
        """The added token with which the template closes a response, if it uses one."""
        if self.plain:
            return None
        tokens = self._tokens(self._after_response("x"))
        return tokens[0] if tokens and tokens[0] in self._added else None

    @cached_property
    def _added(self) -> frozenset[int]:
        """Tokens added to the tokenizer's vocabulary, except for the runs of newlines and spaces that some have."""
        return frozenset(token for text, token in self.tokenizer.get_added_vocab().items() if text.strip())

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages,
                chat_template=_SAME_DAY + self.tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=True,
                # Qwen 3 responds without thinking first.
                enable_thinking=False,
            )
        except Exception as error:  # A template is a program: it can raise anything.
            raise InputError(f"{self._name}: its chat template fails ({first_line(error)}); mend it") from None
        assert isinstance(rendered, str)
        return rendered

    def _after_response(self, text: str) -> str:
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": _MARK},
            {"role": "user", "content": text},
        ]
        _, mark, rest = self._render(messages).rpartition(_MARK)
        if not mark:
            raise InputError(f"{self._name}: its chat template leaves out the model's response; mend it")
        return rest

    def _tokens(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _neutral(self, text: str) -> str:
        """Breaks up special tokens in a text: a response must not be able to open a turn of its own."""
        for special in self.special_tokens:
            text = text.replace(special, f"{special[0]} {special[1:]}")
        return text


# What one run asks for in a round, others ask for too, and itself in the next.
@lru_cache(maxsize=2**12)
def _next_turn(chat: Chat, text: str) -> list[int]:
    return chat._tokens(chat._after_response(chat._neutral(text)))


@lru_cache(maxsize=2**12)
def _decoded(chat: Chat, tokens: tuple[int, ...]) -> str:
    decoded = chat.tokenizer.decode(list(tokens), skip_special_tokens=False)
    assert isinstance(decoded, str)
    return decoded
