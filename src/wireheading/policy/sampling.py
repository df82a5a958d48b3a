"""Sampling for all slots at once: prefill, then one token of every row a step, from a static key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from wireheading.policy.chat import Chat
from wireheading.policy.masks import attention_mask, positions_of


@dataclass(frozen=True)
class Sampled:
    """What one row said.

    Attributes:
        tokens: The sampled tokens, the stop token included.
        logprobs: The log-probability of each under the policy at the sampling temperature.
        stopped: Whether the last token is a stop token; if not, the text was cut at the limit.
        finite: Whether every logit was finite; if not, the tokens mean nothing.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    finite: bool


class KeyValueCache:
    """Keys and values of a fixed number of columns, written where the owner says.

    It stands in for transformers' cache in a model's forward pass, which only calls `update`.
    """

    def __init__(self, columns: int):
        self.columns = columns
        self.start = 0
        self.stop = 0
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values and returns all up to the last written column."""
        if layer == len(self._layers):
            rows, heads, _new, size = keys.shape
            zeros = keys.new_zeros(rows, heads, self.columns, size)
            self._layers.append((zeros, zeros.clone()))
        held = self._layers[layer]
        for whole, new in zip(held, (keys, values), strict=True):
            whole[:, :, self.start : self.stop] = new
        return held[0][:, :, : self.stop], held[1][:, :, : self.stop]


class Conversation:
    """Rows of tokens in fixed columns with the cache that belongs to them: sampled from, and gone on with.

    Rows are slots, or several rows a slot; which adapters answer is selected beforehand.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat, rows: int, columns: int):
        """Makes room for `rows` rows of `columns` columns."""
        self.model = model
        self.chat = chat
        self.cache = KeyValueCache(columns)
        device = model.device
        self.tokens = torch.full((rows, columns), chat.pad_token, dtype=torch.int64, device=device)
        self.filled = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        self.column = 0

    @torch.no_grad()
    def sample(
        self, contexts: Sequence[Sequence[int]], width: int, draws: Sequence[np.ndarray], limit: int, temperature: float
    ) -> list[Sampled]:
        """Appends a context to every row and samples what follows.

        Args:
            contexts: Each row's new tokens; an empty one leaves its row out (what it samples means nothing). Where
                they follow a sampled turn, they begin with its last token, which was never fed back.
            width: Columns that the contexts take, which are padded on their left.
            draws: Each row's uniform random values, one for each token that it may sample.
            limit: Columns that the samples take.
            temperature: Divides the logits.
        """
        device = self.tokens.device
        begin = self.column
        self._append(contexts, width)
        first = self.column
        limits = torch.tensor([len(values) for values in draws], device=device)
        uniform = torch.from_numpy(np.stack([np.pad(values, (0, limit - len(values))) for values in draws])).to(device)
        stop_tokens = torch.tensor(sorted(self.chat.stop_tokens), device=device)
        alive = torch.tensor([bool(context) for context in contexts], device=device)
        lengths = limits.clone()
        stopped = torch.zeros_like(alive)
        finite = torch.ones_like(alive)
        chosen = torch.zeros(uniform.shape, dtype=torch.float64, device=device)
        for step in range(limit):
            end = first + step
            logits = self._forward(begin, end)
            begin = end
            token, logprob, good = draw(logits, uniform[:, step], temperature)
            self.tokens[:, end] = token
            self.filled[:, end] = alive
            chosen[:, step] = logprob
            finite &= good | ~alive
            stops = alive & torch.isin(token, stop_tokens)
            lengths = torch.where(stops, step + 1, lengths)
            stopped |= stops
            alive = alive & ~stops & finite & (limits > step + 1)
            if not alive.any():
                break
        self.column = first + limit
        sampled = self.tokens[:, first : self.column].tolist()
        # Whether a row's last token was fed back depends on how long its neighbours went on. It is left out here and
        # fed with the next context, so that nothing depends on them.
        self.filled.scatter_(1, (first + lengths - 1).clamp(min=first).unsqueeze(1), False)
        return [
            Sampled(tuple(tokens[:length]), tuple(logprobs[:length]), bool(stop), bool(good))
            for tokens, logprobs, length, stop, good in zip(
                sampled, chosen.tolist(), lengths.tolist(), stopped.tolist(), finite.tolist(), strict=True
            )
        ]

    def _append(self, contexts: Sequence[Sequence[int]], width: int) -> None:
        block = torch.full((len(contexts), width), self.chat.pad_token, dtype=torch.int64)
        filled = torch.zeros((len(contexts), width), dtype=torch.bool)
        for row, context in enumerate(contexts):
            if len(context) > width:
                raise ValueError(f"a context of {len(context)} tokens does not fit into {width}")
            if context:
                block[row, width - len(context) :] = torch.tensor(context)
                filled[row, width - len(context) :] = True
        self.tokens[:, self.column : self.column + width] = block.to(self.tokens.device)
        self.filled[:, self.column : self.column + width] = filled.to(self.tokens.device)
        self.column += width

    def _forward(self, start: int, stop: int) -> Tensor:
        """Logits after the last of the columns `start … stop`, float32 or wider: `[rows, vocabulary]`."""
        self.cache.start, self.cache.stop = start, stop
        logits: Tensor = self.model(
            input_ids=self.tokens[:, start:stop],
            position_ids=positions_of(self.filled[:, :stop])[:, start:],
            attention_mask=attention_mask(self.model.config, self.filled, start, stop, self.model.dtype),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        logits = logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a token of each row by inverting its cumulative distribution.

    Args:
        logits: `[rows, vocabulary]`.
        uniform: A value in [0, 1) for each row: `[rows]`, float64.
        temperature: Divides the logits.

    Returns:
        Tokens, their log-probabilities, and whether all logits were finite: `[rows]` each.
    """
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    # In float64, so that the sum's error cannot reach into the probability of a token that matters.
    cumulative = logprobs.double().exp().cumsum(dim=-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(-1)
    token = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    good = torch.isfinite(logits).all(dim=-1)
    return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1), good
