"""Sampling for all slots at once: prefill, then one token of every row a step, from a static key-value cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wireheading.policy.allowed import FREE, AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.graphs import Graphs, once_written
from wireheading.policy.masks import causal, model_mask, positions_of


@dataclass(frozen=True)
class Completion:
    """What one row said.

    Attributes:
        tokens: The sampled tokens, the stop token included.
        logprobs: The log-probability of each under the policy at the sampling temperature.
        stopped: Whether the last token is a stop token; if not, the text was cut at the limit.
        finite: Whether every logit was finite; if not, the tokens mean nothing.
        start: The state of allowed tokens in which it began.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    finite: bool
    start: int = FREE


class KeyValueCache:
    """Keys and values of a fixed number of columns, written where the owner says.

    It stands in for transformers' cache in a model's forward pass, which only calls `update`.

    Attributes:
        at: The columns that new keys and values take: a slice, or one column's number as a tensor `[1]`.
        stop: One past the last column that the new queries may see.
    """

    def __init__(self, columns: int):
        self.columns = columns
        self.at: slice | Tensor = slice(0, 0)
        self.stop = 0
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values and returns all that may be seen."""
        if layer == len(self._layers):
            rows, heads, _new, size = keys.shape
            zeros = keys.new_zeros(rows, heads, self.columns, size)
            self._layers.append((zeros, zeros.clone()))
        held = self._layers[layer]
        for whole, new in zip(held, (keys, values), strict=True):
            if isinstance(self.at, slice):
                whole[:, :, self.at] = new
            else:
                whole.index_copy_(2, self.at, new)
        return held[0][:, :, : self.stop], held[1][:, :, : self.stop]

    def clear(self) -> None:
        """Forgets everything: what a hidden column holds is multiplied by zero, which takes it to be finite."""
        for keys, values in self._layers:
            keys.zero_()
            values.zero_()


class Session:
    """Rows of tokens in fixed columns with the cache that belongs to them: told something, and sampled from.

    Rows are slots, or several rows a slot; which adapters answer is selected beforehand.

    All tensors that prefill or a decode step reads or writes stay where they are from one conversation to the next, so
    that both are recorded as CUDA graphs once for each shape and selection of adapters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        rows: int,
        columns: int,
        allowed: AllowedTokens,
        selection: Callable[[], Hashable] = lambda: None,
    ):
        """Makes room.

        Args:
            model: The model that listens and speaks.
            chat: Its language of turns.
            rows: Number of conversations.
            columns: Most columns that each of them takes.
            allowed: The tokens that may be sampled.
            selection: Tells which adapters are in the model, by a value that is equal where their tensors are the same.
        """
        self.model = model
        self.chat = chat
        self.allowed = allowed
        self.selection = selection
        # A GPU multiplies fastest where rows of scores begin at multiples of 16 bytes.
        columns = -(-columns // 8) * 8
        self.cache = KeyValueCache(columns)
        self.device = device = model.device
        self.stop_tokens = torch.tensor(sorted(chat.stop_tokens), device=device)
        self.graphs = Graphs(device)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.columns = torch.arange(columns, device=device)
        # What was said: each column's token, whether it counts, and the log-probability with which it was sampled.
        self.tokens = torch.full((rows, columns), chat.pad_token, dtype=torch.int64, device=device)
        self.filled = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        self.logprobs = torch.zeros((rows, columns), dtype=torch.float64, device=device)
        # What decoding goes by: the column of the last token, what a row may see once it is decoded, each column's
        # position and random value, and how many tokens a row has said and may say.
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.attended = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        self.positions = torch.zeros((rows, columns), dtype=torch.int64, device=device)
        self.uniform = torch.zeros((rows, columns), dtype=torch.float64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.limits = torch.zeros(rows, dtype=torch.int64, device=device)
        self.states = torch.zeros(rows, dtype=torch.int64, device=device)
        self.present, self.running, self.stopped, self.finite = torch.zeros((4, rows), dtype=torch.bool, device=device)
        self.column = 0
        # The logits after what was listened to, and the column of the token that they tell of.
        self.logits: Tensor | None = None
        self.logits_at = -1

    def restart(self) -> None:
        """Forgets everything that was said."""
        self.cache.clear()
        self.filled.zero_()
        self.column, self.logits_at = 0, -1

    @torch.no_grad()
    def prefill(self, contexts: Sequence[Sequence[int]], width: int) -> None:
        """Appends a context to every row and reads it.

        Args:
            contexts: Each row's new tokens; an empty one leaves its row out (what it samples means nothing). Where
                they follow a sampled turn, they begin with its last token, which was never fed back.
            width: Columns that the contexts take, which are padded on their left.
        """
        for context in contexts:
            if len(context) > width:
                raise ValueError(f"a context of {len(context)} tokens does not fit into {width}")
        block = np.full((len(contexts), width), self.chat.pad_token, dtype=np.int64)
        filled = np.arange(width) >= width - np.array([[len(context)] for context in contexts])
        block[filled] = list(chain.from_iterable(contexts))
        start, stop = self.column, self.column + width
        self.tokens[:, start:stop] = torch.from_numpy(block)
        self.filled[:, start:stop] = torch.from_numpy(filled)
        work = block.size * self.parameters
        self.graphs.run(("prefill", start, stop, self.selection()), partial(self._prefill, start, stop), work)
        self.column = self.logits_at = stop

    def mark(self) -> int:
        """The place in the conversation to which `rewind` goes back."""
        assert self.logits_at == self.column, "nothing was listened to"
        return self.column

    def rewind(self, mark: int) -> None:
        """Forgets what was said since a mark, as long as nothing was listened to since."""
        assert self.logits_at == mark, "something was listened to since"
        self.column = mark
        self.filled[:, mark:] = False

    @torch.no_grad()
    def score(self, texts: Sequence[Sequence[int]], temperature: float, start: int = FREE) -> Tensor:
        """Probability of each of some texts as what is said next, stop token included: `[rows, texts]`, float64.

        Their common beginnings are computed once: the tree of all their prefixes is fed in one forward pass in which
        a token sees its ancestors alone. The conversation stays where it is.

        Args:
            texts: The tokens of each text, without a stop token.
            temperature: Divides the logits.
            start: The state of allowed tokens in which the texts begin.
        """
        assert self.logits is not None
        assert self.logits_at == self.column, "nothing was listened to"
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
        first = self._logprobs(self.logits[:, None], [start], temperature)
        states = [self.allowed.walk(start, node)[-1] for node in nodes]
        after = self._logprobs(self._feed(column, tokens, queries, keys, visible, keep=0), states, temperature)
        # Each node's token follows on what was listened to, or on its parent.
        parents = torch.tensor([index.get(node[:-1], 0) for node in nodes], device=self.device)
        steps = torch.where(depths == 0, first(torch.zeros_like(parents), tokens[0]), after(parents, tokens[0]))
        ends = torch.tensor([index[tuple(text)] for text in texts], device=self.device)
        paths = torch.where(ancestors.to(self.device)[ends], steps[:, None], 0.0).sum(dim=-1)
        return (paths + after(ends[:, None], self.stop_tokens).logsumexp(dim=-1)).exp()

    def _logprobs(
        self, logits: Tensor, states: Sequence[int], temperature: float
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Looks up log-probabilities, `[rows, …]` in float64, of tokens at places of `[rows, places, vocabulary]`.

        Those of all tokens would take several times the logits' memory.
        """
        blocked = self.allowed.blocked_in(torch.tensor(states, device=self.device))
        allowed = (logits / temperature).masked_fill_(blocked, -torch.inf)
        total = allowed.logsumexp(dim=-1)
        return lambda places, tokens: allowed[:, places, tokens].double() - total[:, places].double()

    @torch.no_grad()
    def decode(
        self, draws: Sequence[np.ndarray] | None, limit: int, temperature: float, starts: Sequence[int] | None = None
    ) -> list[Completion]:
        """Samples what follows in every row.

        Args:
            draws: Each row's uniform random values, one for each token that it may sample; None takes the likeliest
                token each time.
            limit: Columns that the samples take.
            temperature: Divides the logits.
            starts: The state of allowed tokens in which each row begins; that of free text if None.
        """
        assert self.logits is not None
        assert self.logits_at == self.column, "nothing was listened to"
        starts = [FREE] * len(self.tokens) if starts is None else starts
        self.states.copy_(torch.tensor(starts))
        first, end = self.column, self.column + limit
        if draws is None:
            self.limits.fill_(limit)
        else:
            self.limits.copy_(torch.tensor([len(row) for row in draws]))
            self.uniform[:, first:end] = _padded(draws, limit).to(self.device)
        # While a row is alive, all its columns since the first are filled; afterwards what it sees does not matter.
        self.attended.copy_(self.filled)
        self.attended[:, first:] = True
        self.positions.copy_(positions_of(self.attended))
        self.running.copy_(self.present)
        self.stopped.zero_()
        self.finite.fill_(True)
        self.lengths.zero_()
        self.at.fill_(first)
        greedy = draws is None
        self._draw(self.logits, greedy, temperature)
        for column in range(first, end - 1):
            if (column - first) % self.graphs.patience == 0 and not self.running.any():
                break
            stop = self.graphs.columns(column + 1, self.cache.columns)
            step = partial(self._step, stop, greedy, temperature)
            self.graphs.run(("decode", greedy, self.selection()), partial(once_written, step))
        self.column = end
        sampled, chosen, lengths = self.tokens[:, first:end].tolist(), self.logprobs[:, first:end], self.lengths
        # Whether a row's last token was fed back depends on how long its neighbours went on. It is left out here and
        # fed with the next context, so that nothing depends on them.
        self.filled.scatter_(1, (first + lengths - 1).clamp(min=first).unsqueeze(1), False)
        return [
            Completion(tuple(tokens[:length]), tuple(logprobs[:length]), bool(stop), bool(good), start)
            for tokens, logprobs, length, stop, good, start in zip(
                sampled,
                chosen.tolist(),
                lengths.tolist(),
                self.stopped.tolist(),
                self.finite.tolist(),
                starts,
                strict=True,
            )
        ]

    def _prefill(self, start: int, stop: int) -> None:
        """Feeds the contexts in some columns: from tensors in place, as a decode step does."""
        self.present.copy_(self.filled[:, stop - 1])
        positions = positions_of(self.filled[:, :stop])
        visible = causal(self.filled, start, stop)
        # The last column by its number: a GPU would multiply a slice of all with the vocabulary row by row.
        last = self.columns[stop - start - 1 : stop - start] if self.graphs.recorded else 1
        logits = self._feed(start, self.tokens[:, start:stop], positions[:, start:], positions, visible, last)[:, -1]
        if self.logits is None:
            self.logits = torch.empty_like(logits)
        self.logits.copy_(logits)

    def _step(self, stop: int, greedy: bool, temperature: float) -> None:
        """Feeds every row's last token and draws its next: from tensors in place, so that it can be recorded.

        Args:
            stop: One past the last column that is looked at; it may lie beyond those that are filled.
            greedy: Whether the likeliest token is taken.
            temperature: Divides the logits.
        """
        visible = self.attended[:, :stop] & (self.columns[:stop] <= self.at)
        self.cache.at, self.cache.stop = self.at, stop
        logits = self._forward(
            self.tokens.index_select(1, self.at),
            self.positions.index_select(1, self.at),
            self.positions[:, :stop],
            visible[:, None],
        )
        self.at.add_(1)
        self._draw(logits[:, -1], greedy, temperature)

    def _draw(self, logits: Tensor, greedy: bool, temperature: float) -> None:
        """Draws the token of the column `at` in every row and notes which rows have ended."""
        uniform = None if greedy else self.uniform.index_select(1, self.at).squeeze(1)
        token, logprob, good = draw(logits, uniform, temperature, self.allowed.blocked_in(self.states))
        self.states.copy_(self.allowed.follow[self.states, token])
        self.tokens.index_copy_(1, self.at, token.unsqueeze(1))
        self.logprobs.index_copy_(1, self.at, logprob.double().unsqueeze(1))
        self.filled.index_copy_(1, self.at, self.running.unsqueeze(1))
        self.finite.logical_and_(good | ~self.running)
        self.lengths.add_(self.running)
        stops = self.running & (token.unsqueeze(1) == self.stop_tokens).any(dim=1)
        self.stopped.logical_or_(stops)
        self.running.logical_and_(~stops & self.finite & (self.lengths < self.limits))

    def _forward(
        self, tokens: Tensor, queries: Tensor, keys: Tensor, visible: Tensor, keep: int | Tensor = 1
    ) -> Tensor:
        """Feeds tokens into the columns that the cache was told.

        Args:
            tokens: `[rows, n]`.
            queries: Their positions, `[rows, n]`.
            keys: The positions of all columns that are looked at, `[rows, columns]`.
            visible: Which of those columns each of them sees, `[rows, n, columns]`.
            keep: After how many of them logits are wanted, counted from the last; 0 for all; or after which of them.

        Returns:
            Those logits, float32 or wider: `[rows, keep, vocabulary]`.
        """
        logits: Tensor = self.model(
            input_ids=tokens,
            position_ids=queries,
            attention_mask=model_mask(self.model.config, self.model.dtype, visible, queries, keys),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits if logits.dtype == torch.float64 else logits.float()

    def _feed(
        self, column: int, tokens: Tensor, queries: Tensor, keys: Tensor, visible: Tensor, keep: int | Tensor = 1
    ) -> Tensor:
        """Feeds tokens into the columns from one on; see `_forward`."""
        self.cache.at = slice(column, column + tokens.shape[1])
        self.cache.stop = self.cache.at.stop
        return self._forward(tokens, queries, keys, visible, keep)


def _padded(draws: Sequence[np.ndarray], limit: int) -> Tensor:
    padded = np.zeros((len(draws), limit))
    for row, values in zip(padded, draws, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


def draw(logits: Tensor, uniform: Tensor | None, temperature: float, blocked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a token of each row by inverting its cumulative distribution.

    Args:
        logits: `[rows, vocabulary]`.
        uniform: A value in [0, 1) for each row: `[rows]`, float64. None takes the likeliest token.
        temperature: Divides the logits.
        blocked: Which tokens have no part in the distribution, `[rows or 1, vocabulary]`.

    Returns:
        Tokens, their log-probabilities, and whether all logits were finite: `[rows]` each.
    """
    allowed = (logits / temperature).masked_fill_(blocked, -torch.inf)
    logprobs = torch.log_softmax(allowed, dim=-1)
    token = allowed.argmax(dim=-1) if uniform is None else _invert(logprobs, uniform)
    # A sum is finite if all of its parts are, and summed up faster in two steps.
    good = torch.isfinite(logits.view(len(logits), -1, _block(logits.shape[-1])).sum(dim=-1).sum(dim=-1))
    return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1), good


def _invert(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """The first token of each row at which the cumulative probability exceeds the row's uniform value.

    In float64, so that the sum's error cannot reach into the probability of a token that matters; and in two steps, the
    token's block first, since a GPU sums up one long row slowly.
    """
    vocabulary = logprobs.shape[-1]
    size = _block(vocabulary)
    blocks = logprobs.double().exp().view(-1, vocabulary // size, size)
    ends = blocks.sum(dim=-1).cumsum(dim=-1)
    target = uniform.unsqueeze(-1) * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp(max=vocabulary // size - 1)
    before = nn.functional.pad(ends, (1, 0)).gather(1, block)
    within = blocks.gather(1, block.unsqueeze(-1).expand(-1, 1, size)).squeeze(1).cumsum(dim=-1)
    # Rounding must not reach past the block's last token that can be drawn.
    rest = torch.minimum(target - before, within[:, -1:] * (1 - torch.finfo(within.dtype).eps))
    place = torch.searchsorted(within, rest, right=True)
    return (block * size + place).squeeze(-1).clamp(max=vocabulary - 1)


@cache
def _block(vocabulary: int) -> int:
    """The size of equal blocks of a vocabulary of which there are about as many."""
    return next(size for size in range(math.isqrt(vocabulary), vocabulary + 1) if vocabulary % size == 0)
