"""Sampling for all slots at once: prefill, then one token of every row a step, from a static key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from wireheading.policy.chat import Chat
from wireheading.policy.masks import causal, model_mask, positions_of


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


@dataclass(frozen=True)
class Mark:
    """A place in a conversation: its next column, and the logits after what was listened to."""

    column: int
    logits: Tensor


class Conversation:
    """Rows of tokens in fixed columns with the cache that belongs to them: told something, and sampled from.

    Rows are slots, or several rows a slot; which adapters answer is selected beforehand.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat, rows: int, columns: int):
        """Makes room for `rows` rows of `columns` columns."""
        self.model = model
        self.chat = chat
        self.cache = KeyValueCache(columns)
        self.device = model.device
        self.tokens = torch.full((rows, columns), chat.pad_token, dtype=torch.int64, device=self.device)
        self.filled = torch.zeros((rows, columns), dtype=torch.bool, device=self.device)
        self.asked = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.column = 0
        self.logits: Tensor | None = None

    @torch.no_grad()
    def listen(self, contexts: Sequence[Sequence[int]], width: int) -> None:
        """Appends a context to every row and reads it.

        Args:
            contexts: Each row's new tokens; an empty one leaves its row out (what it samples means nothing). Where
                they follow a sampled turn, they begin with its last token, which was never fed back.
            width: Columns that the contexts take, which are padded on their left.
        """
        block = torch.full((len(contexts), width), self.chat.pad_token, dtype=torch.int64)
        filled = torch.zeros((len(contexts), width), dtype=torch.bool)
        for row, context in enumerate(contexts):
            if len(context) > width:
                raise ValueError(f"a context of {len(context)} tokens does not fit into {width}")
            if context:
                block[row, width - len(context) :] = torch.tensor(context)
                filled[row, width - len(context) :] = True
        start, stop = self.column, self.column + width
        self.tokens[:, start:stop] = block.to(self.device)
        self.filled[:, start:stop] = filled.to(self.device)
        self.asked = self.filled[:, stop - 1].clone()
        positions = positions_of(self.filled[:, :stop])
        visible = causal(self.filled, start, stop)
        self.logits = self._forward(self.tokens[:, start:stop], start, positions[:, start:], positions, visible)[:, -1]
        self.column = stop

    def mark(self) -> Mark:
        """The place in the conversation to which `rewind` goes back."""
        assert self.logits is not None, "nothing was listened to"
        return Mark(self.column, self.logits)

    def rewind(self, mark: Mark) -> None:
        """Forgets what was said since a mark."""
        self.column, self.logits = mark.column, mark.logits
        self.filled[:, mark.column :] = False

    @torch.no_grad()
    def score(self, texts: Sequence[Sequence[int]], temperature: float) -> Tensor:
        """Probability of each of some texts as what is said next, stop token included: `[rows, texts]`, float64.

        Their common beginnings are computed once: the tree of all their prefixes is fed in one forward pass in which
        a token sees its ancestors alone. The conversation stays where it is.

        Args:
            texts: The tokens of each text, without a stop token.
            temperature: Divides the logits.
        """
        assert self.logits is not None, "nothing was listened to"
        nodes = sorted({tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)})
        index = {node: place for place, node in enumerate(nodes)}
        ancestors = torch.tensor([[other == node[: len(other)] for other in nodes] for node in nodes])
        rows, column = len(self.tokens), self.column
        past = self.filled[:, :column]
        visible = torch.cat(
            [
                past[:, None].expand(rows, len(nodes), column),
                ancestors.to(self.device).expand(rows, len(nodes), len(nodes)),
            ],
            dim=2,
        )
        depths = torch.tensor([len(node) - 1 for node in nodes], device=self.device)
        queries = past.sum(dim=1, keepdim=True) + depths
        tokens = torch.tensor([node[-1] for node in nodes], device=self.device).expand(rows, -1)
        keys = torch.cat([positions_of(past), queries], dim=1)
        logits = torch.cat([self.logits[:, None], self._forward(tokens, column, queries, keys, visible, keep=0)], dim=1)
        logprobs = torch.log_softmax(logits / temperature, dim=-1).double()
        stops = torch.tensor(sorted(self.chat.stop_tokens), device=self.device)
        # Place 0 is what was listened to; the node at place p of the tree is at p + 1.
        totals = []
        for text in texts:
            at, total = 0, torch.zeros(rows, dtype=torch.float64, device=self.device)
            for end in range(1, len(text) + 1):
                total = total + logprobs[:, at, text[end - 1]]
                at = index[tuple(text[:end])] + 1
            totals.append(total + logprobs[:, at, stops].logsumexp(dim=-1))
        return torch.stack(totals, dim=1).exp()

    @torch.no_grad()
    def speak(self, draws: Sequence[np.ndarray] | None, limit: int, temperature: float) -> list[Sampled]:
        """Samples what follows in every row.

        Args:
            draws: Each row's uniform random values, one for each token that it may sample; None takes the likeliest
                token each time.
            limit: Columns that the samples take.
            temperature: Divides the logits.
        """
        assert self.logits is not None, "nothing was listened to"
        rows, first, logits = len(self.tokens), self.column, self.logits
        lengths = torch.tensor([limit] * rows if draws is None else [len(row) for row in draws], device=self.device)
        limits = lengths.clone()
        uniform = None if draws is None else _padded(draws, limit).to(self.device)
        stop_tokens = torch.tensor(sorted(self.chat.stop_tokens), device=self.device)
        alive = self.asked.clone()
        stopped = torch.zeros_like(alive)
        finite = torch.ones_like(alive)
        chosen = torch.zeros((rows, limit), dtype=torch.float64, device=self.device)
        before = self.filled[:, :first].sum(dim=1, keepdim=True)
        # While a row is alive, all its columns since the first are filled; afterwards what it sees does not matter.
        visible = self.filled.clone()
        visible[:, first:] = True
        positions = positions_of(visible)
        for step in range(limit):
            column = first + step
            token, logprob, good = draw(logits, None if uniform is None else uniform[:, step], temperature)
            self.tokens[:, column] = token
            self.filled[:, column] = alive
            chosen[:, step] = logprob
            finite &= good | ~alive
            stops = alive & torch.isin(token, stop_tokens)
            lengths = torch.where(stops, step + 1, lengths)
            stopped |= stops
            alive = alive & ~stops & finite & (limits > step + 1)
            if not alive.any():
                break
            end = column + 1
            logits = self._forward(
                token.unsqueeze(1), column, before + step, positions[:, :end], visible[:, None, :end]
            )[:, -1]
        self.column, self.logits = first + limit, None
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

    def _forward(
        self, tokens: Tensor, column: int, queries: Tensor, keys: Tensor, visible: Tensor, keep: int = 1
    ) -> Tensor:
        """Feeds tokens into the columns from `column` on.

        Args:
            tokens: `[rows, n]`.
            column: The first column that they take.
            queries: Their positions, `[rows, n]`.
            keys: The positions of all columns up to the last of them, `[rows, column + n]`.
            visible: Which of those columns each of them sees, `[rows, n, column + n]`.
            keep: After how many of them logits are wanted, counted from the last; 0 for all.

        Returns:
            Those logits, float32 or wider: `[rows, keep, vocabulary]`.
        """
        self.cache.start, self.cache.stop = column, column + tokens.shape[1]
        logits: Tensor = self.model(
            input_ids=tokens,
            position_ids=queries,
            attention_mask=model_mask(self.model.config, visible, queries, keys),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits if logits.dtype == torch.float64 else logits.float()


def _padded(draws: Sequence[np.ndarray], limit: int) -> Tensor:
    return torch.from_numpy(np.stack([np.pad(values, (0, limit - len(values))) for values in draws]))


def draw(logits: Tensor, uniform: Tensor | None, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a token of each row by inverting its cumulative distribution.

    Args:
        logits: `[rows, vocabulary]`.
        uniform: A value in [0, 1) for each row: `[rows]`, float64. None takes the likeliest token.
        temperature: Divides the logits.

    Returns:
        Tokens, their log-probabilities, and whether all logits were finite: `[rows]` each.
    """
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    if uniform is None:
        token = logits.argmax(dim=-1)
    else:
        # In float64, so that the sum's error cannot reach into the probability of a token that matters.
        cumulative = logprobs.double().exp().cumsum(dim=-1)
        target = (uniform * cumulative[:, -1]).unsqueeze(-1)
        token = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    good = torch.isfinite(logits).all(dim=-1)
    return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1), good
