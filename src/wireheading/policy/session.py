"""Sampling for all slots at once: prefill, then decode steps of one token per row, with a static key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wireheading.policy.allowed import FREE, AllowedTokens
from wireheading.policy.cache import KeyValueCache
from wireheading.policy.chat import Chat
from wireheading.policy.graphs import LONGEST, Graphs, Watch, once_written
from wireheading.policy.masks import causal, model_mask, positions_of
from wireheading.policy.prefixes import Prefixes
from wireheading.policy.sampling import draw, wide

MOST_WORK = 4 * LONGEST
"""Tokens times parameters of a pass that prefills: a longer one would gain nothing, and take more memory."""


@dataclass(frozen=True)
class Completion:
    """What was sampled in one row.

    Attributes:
        tokens: The sampled tokens, the stop token included.
        logprobs: The log-probability of each under the policy at the sampling temperature.
        stopped: Whether the last token is a stop token; if not, the text was cut at the limit.
        finite: Whether every logit was finite; if not, the tokens are meaningless.
        start: The state of allowed tokens in which it began.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    finite: bool
    start: int = FREE


class Session:
    """Conversations, one per row, in fixed columns with their key-value cache: prefilled, then sampled from.

    A slot has one row or several. The adapters are selected beforehand.

    The tensors that prefill and decode steps read and write keep their addresses when a session is reused, so both are
    recorded as CUDA graphs once per shape and selection of adapters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        rows: int,
        columns: int,
        allowed: AllowedTokens,
        selection: Callable[[], Hashable] = lambda: None,
        parameters: int | None = None,
    ):
        """Allocates its tensors.

        Args:
            model: The model.
            chat: Its chat format.
            rows: Number of conversations.
            columns: Columns of each, at most.
            allowed: The tokens that may be sampled.
            selection: Identifies the adapters in the model; equal values mean the same tensors.
            parameters: Parameters of the model, if it stands for a deeper one.
        """
        self.model = model
        self.chat = chat
        self.allowed = allowed
        self.selection = selection
        # A GPU multiplies fastest if rows of scores begin at multiples of 16 bytes.
        columns = -(-columns // 8) * 8
        self.cache = KeyValueCache(rows, columns)
        self.device = device = model.device
        self.stop_tokens = torch.tensor(sorted(chat.stop_tokens), device=device)
        self.graphs = Graphs(device)
        self.parameters = parameters or sum(parameter.numel() for parameter in model.parameters())
        self.columns = torch.arange(columns, device=device)
        # Each column's token, whether it counts, and the log-probability with which it was sampled.
        self.tokens = torch.full((rows, columns), chat.pad_token, dtype=torch.int64, device=device)
        self.filled = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        self.logprobs = torch.zeros((rows, columns), dtype=torch.float64, device=device)
        # The state of decoding: the column of the last token, the columns that a row may attend to once they are
        # decoded, the first of them and one past the last that is (both 0 in a row that has ended), each column's
        # position and random value, and each row's length, limit and state of allowed tokens.
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.attended = torch.zeros((rows, columns), dtype=torch.bool, device=device)
        self.cache.bounds = self.bounds = torch.zeros((rows, 2), dtype=torch.int32, device=device)
        self.positions = torch.zeros((rows, columns), dtype=torch.int64, device=device)
        self.uniform = torch.zeros((rows, columns), dtype=torch.float64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.limits = torch.zeros(rows, dtype=torch.int64, device=device)
        self.states = torch.zeros(rows, dtype=torch.int64, device=device)
        self.present, self.running, self.stopped, self.finite = torch.zeros((4, rows), dtype=torch.bool, device=device)
        self.column = 0
        # The logits after the last prefill, and the column whose token they predict.
        self.logits: Tensor | None = None
        self.logits_at = -1

    def restart(self) -> None:
        """Empties all conversations."""
        self.cache.clear()
        self.filled.zero_()
        self.column, self.logits_at = 0, -1

    @torch.no_grad()
    def prefill(
        self,
        contexts: Sequence[Sequence[int]],
        width: int,
        rows: slice = slice(None),
        prefixes: Prefixes | None = None,
    ) -> Tensor | None:
        """Appends a context to every row, or to some, and feeds it to the model.

        Args:
            contexts: Each row's new tokens. An empty context leaves its row out: its completion is meaningless. After
                a completion, the context begins with the completion's last token, which was not fed back. In a first
                turn that one policy is given for all slots, a context can serve several rows: `n` contexts are those
                of the first `n` rows, of the next `n`, and so on, and are computed once.
            width: Columns that the contexts take, padded on the left.
            rows: The rows whose contexts these are, and whose adapters are selected.
            prefixes: Of texts that may follow. They are fed behind the contexts, in the same pass, and leave nothing.

        Returns:
            The logits after each prefix, in the model's type: `[rows, prefixes, vocabulary]`; None without any.
        """
        for context in contexts:
            if len(context) > width:
                raise ValueError(f"a context of {len(context)} tokens does not fit into {width}")
        own = range(len(self.tokens))[rows]
        fed, shared = len(contexts), len(own) // len(contexts)
        if fed != len(own) and self.column > 0:
            raise ValueError(f"{fed} contexts for {len(own)} rows can only be a first turn")
        block = np.full((fed, width), self.chat.pad_token, dtype=np.int64)
        filled = np.arange(width) >= width - np.array([[len(context)] for context in contexts])
        block[filled] = list(chain.from_iterable(contexts))
        first, end = self.column, self.column + width
        self.tokens[rows, first:end] = torch.from_numpy(np.tile(block, (shared, 1)))
        self.filled[rows, first:end] = torch.from_numpy(np.tile(filled, (shared, 1)))
        longest = max(8, int(MOST_WORK / (fed * self.parameters)) // 8 * 8) if shared == 1 else width
        self.column = self.logits_at = end
        for start in range(first, end, longest):
            stop = min(start + longest, end)
            step = partial(self._prefill, slice(own.start, own.stop), fed, start, stop)
            if prefixes is not None and stop == end:
                # Done once for each batch of an evaluation, which is too seldom to be recorded.
                return step(prefixes)
            work = fed * (stop - start) * self.parameters
            self.graphs.run(("prefill", own, fed, start, stop, self.selection()), step, work)
        return None

    def mark(self) -> int:
        """The column to which `rewind` returns."""
        assert self.logits_at == self.column, "nothing was prefilled"
        return self.column

    def rewind(self, mark: int) -> None:
        """Drops all that came since a mark. If that was a prefill, another must come before tokens are sampled."""
        self.logits_at = mark if self.logits_at == mark else -1
        self.column = mark
        self.filled[:, mark:] = False

    @torch.no_grad()
    def decode(
        self, draws: Sequence[np.ndarray] | None, limit: int, temperature: float, starts: Sequence[int] | None = None
    ) -> list[Completion]:
        """Samples a completion in every row.

        Args:
            draws: Each row's uniform random values, one per token that it may sample; None decodes greedily.
            limit: Columns that the completions take.
            temperature: Divides the logits.
            starts: The state of allowed tokens in which each row begins; free text if None.
        """
        assert self.logits is not None
        assert self.logits_at == self.column, "nothing was prefilled"
        starts = [FREE] * len(self.tokens) if starts is None else starts
        self.states.copy_(torch.tensor(starts))
        first, end = self.column, self.column + limit
        if draws is None:
            self.limits.fill_(limit)
        else:
            self.limits.copy_(torch.tensor([len(row) for row in draws]))
            self.uniform[:, first:end] = _padded(draws, limit).to(self.device)
        # While a row is running, all its columns from the first on are filled; later, what it attends to is irrelevant.
        self.attended.copy_(self.filled)
        self.attended[:, first:] = True
        self.bounds[:, 0] = self.attended.byte().argmax(dim=1)
        self.bounds[:, 1] = first
        self.positions.copy_(positions_of(self.attended))
        self.running.copy_(self.present)
        self.stopped.zero_()
        self.finite.fill_(True)
        self.lengths.zero_()
        self.at.fill_(first)
        greedy = draws is None
        self._draw(self.logits, greedy, temperature)
        watch = Watch(self.running)
        for column in range(first, end - 1):
            if watch.over(column - first):
                break
            stop = self.graphs.columns(column + 1, self.cache.columns)
            step = partial(self.step, stop, greedy, temperature)
            self.graphs.run(("decode", greedy, self.selection()), partial(once_written, step))
        self.column = end
        sampled, logprobs, lengths = self.tokens[:, first:end].tolist(), self.logprobs[:, first:end], self.lengths
        # Whether a row's last token was fed back depends on how long its neighbours ran. It is dropped here and fed
        # with the next context, so that nothing depends on them.
        self.filled.scatter_(1, (first + lengths - 1).clamp(min=first).unsqueeze(1), False)
        return [
            Completion(tuple(tokens[:length]), tuple(values[:length]), bool(stop), bool(good), start)
            for tokens, values, length, stop, good, start in zip(
                sampled,
                logprobs.tolist(),
                lengths.tolist(),
                self.stopped.tolist(),
                self.finite.tolist(),
                starts,
                strict=True,
            )
        ]

    def _prefill(self, rows: slice, fed: int, start: int, stop: int, prefixes: Prefixes | None = None) -> Tensor:
        """Feeds the contexts in some columns of some rows: of the first `fed`; the others share what comes of them.

        Without prefixes it works on tensors in place, so that it can be recorded.

        Returns:
            The logits after each prefix.
        """
        self.present[rows] = self.filled[rows, stop - 1]
        filled = self.filled[rows][:fed]
        tokens, positions, visible = (
            self.tokens[rows][:fed, start:stop],
            positions_of(filled[:, :stop]),
            causal(filled, start, stop),
        )
        if prefixes is not None:
            past, more = filled[:, :stop], len(prefixes)
            tokens = torch.cat([tokens, prefixes.tokens.expand(fed, -1)], dim=1)
            positions = torch.cat([positions, past.sum(dim=1, keepdim=True) + prefixes.depths], dim=1)
            after = torch.cat([past[:, None].expand(-1, more, -1), prefixes.ancestors.expand(fed, -1, -1)], dim=2)
            visible = torch.cat([nn.functional.pad(visible, (0, more)), after], dim=1)
        kept = tokens.shape[1] - (stop - start - 1)
        # Columns are given by their indices: a GPU would multiply a slice with the vocabulary row by row.
        last = self.columns[stop - start - 1 : tokens.shape[1]] if self.graphs.recorded else kept
        logits = self.feed(start, tokens, positions[:, start:], positions, visible, last, rows)
        first = wide(logits[:, 0])
        if self.logits is None:
            self.logits = first.new_empty(len(self.tokens), first.shape[-1])
        self.logits[rows].unflatten(0, (-1, fed)).copy_(first)
        return logits[:, 1:]

    def step(self, stop: int, greedy: bool, temperature: float) -> None:
        """Feeds every row's last token and draws the next; works on tensors in place, so that it can be recorded.

        Args:
            stop: One past the last column that is attended to; it may lie beyond the filled ones.
            greedy: Whether to take the likeliest token.
            temperature: Divides the logits.
        """
        visible = self.attended[:, :stop] & (self.columns[:stop] <= self.at)
        self.cache.rows, self.cache.at, self.cache.stop = slice(None), self.at, stop
        # A row that has ended does not run again.
        self.bounds[:, 1].add_(1)
        self.bounds.mul_(self.running[:, None])
        logits = self._forward(
            self.tokens.index_select(1, self.at),
            self.positions.index_select(1, self.at),
            self.positions[:, :stop],
            visible[:, None],
        )
        self.at.add_(1)
        self._draw(wide(logits[:, -1]), greedy, temperature)

    def _draw(self, logits: Tensor, greedy: bool, temperature: float) -> None:
        """Draws the token of the column `at` in every row, and notes which rows have ended."""
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
        """Feeds tokens into the columns that the cache is set to.

        Args:
            tokens: `[rows, n]`.
            queries: Their positions, `[rows, n]`.
            keys: The positions of all columns that may be attended to, `[rows, columns]`.
            visible: Which of these columns each token attends to, `[rows, n, columns]`.
            keep: For how many of the last tokens logits are computed, 0 for all; or for which of them.

        Returns:
            Those logits, in the model's type: `[rows, keep, vocabulary]`.
        """
        logits: Tensor = self.model(
            input_ids=tokens,
            position_ids=queries,
            attention_mask=model_mask(self.model.config, self.model.dtype, visible, queries, keys),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits

    def feed(
        self,
        column: int,
        tokens: Tensor,
        queries: Tensor,
        keys: Tensor,
        visible: Tensor,
        keep: int | Tensor = 1,
        rows: slice = slice(None),
    ) -> Tensor:
        """Feeds tokens into the columns of some rows from `column` on; see `_forward`."""
        self.cache.rows = rows
        self.cache.at = slice(column, column + tokens.shape[1])
        self.cache.stop = self.cache.at.stop
        return self._forward(tokens, queries, keys, visible, keep)


def _padded(draws: Sequence[np.ndarray], limit: int) -> Tensor:
    padded = np.zeros((len(draws), limit))
    for row, values in zip(padded, draws, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)
