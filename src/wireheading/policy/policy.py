"""The policies of all slots of a job on one frozen base model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from wireheading.policy.activation_checkpointing import checkpoint_activations
from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.graphs import Graphs
from wireheading.policy.lora import Adapters
from wireheading.policy.session import Completion, Session
from wireheading.policy.update import Chunk, Step, Turn, Width, adamw
from wireheading.study.sections import LoraConfig, OptimizerConfig


class Policy:
    """One frozen base model with an adapter for each slot.

    Every call concerns a fixed range of slots; a slot without a request has a dummy row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        *,
        slots: int,
        chunk: int,
        lora: LoraConfig,
        optimizer: OptimizerConfig,
        temperature: float,
        activation_checkpointing: bool = False,
        choices: Mapping[str, Sequence[Sequence[int]]] = MappingProxyType({}),
        lagged: Sequence[int] = (),
    ):
        """Adds adapters to a model.

        Args:
            model: The base model; its q/k/v/o projections are wrapped in place.
            chat: The model's chat format.
            slots: Number of adapters.
            chunk: Number of slots that are updated in one forward and backward pass.
            lora: Shape and scale of the adapters.
            optimizer: Settings of their updates.
            temperature: Divides the logits, both in sampling and in updates.
            activation_checkpointing: Whether updates trade time for memory.
            choices: Named sets of texts, as tokens, of which one may be sampled instead of free text.
            lagged: The slots that keep past adapters.
        """
        if activation_checkpointing:
            checkpoint_activations(model)
        self.model = model
        self.chat = chat
        self.adapters = Adapters(model, lora, slots, lagged)
        self.chunk = chunk
        self.optimizer = optimizer
        self.temperature = temperature
        self.allowed = AllowedTokens(chat, model.config.vocab_size, model.device, choices)
        self._sessions: dict[tuple[int, int], Session] = {}
        self._chunks: dict[tuple[range, tuple[Width, ...]], Chunk] = {}
        self._graphs = Graphs(model.device)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        # What the optimizer's step reads and reports for each slot.
        self._live = torch.zeros(slots, dtype=torch.bool, device=model.device)
        self._norms = torch.zeros(slots, dtype=self.adapters.values.dtype, device=model.device)

    def open_session(self, rows: int, columns: int) -> Session:
        """Opens a session of `rows` conversations of at most `columns` columns each.

        It replaces the last session of this shape.
        """
        session = self._sessions.get((rows, columns))
        if session is None:
            session = self._sessions[rows, columns] = self.new_session(rows, columns)
        session.restart()
        return session

    def new_session(self, rows: int, columns: int) -> Session:
        """A session that nobody else uses."""
        return Session(
            self.model, self.chat, rows, columns, self.allowed, lambda: self.adapters.selected, self.parameters
        )

    def close_sessions(self) -> None:
        """Frees all sessions and what was recorded for them."""
        self._sessions.clear()

    def select(self, slots: range, *, adapted: bool) -> None:
        """Selects whose policy is sampled next: that of each slot of a range, or for all of them the base model."""
        gate = None if adapted else torch.zeros(len(slots)).to(self.adapters.values)
        self.adapters.select(slots, gate=gate)

    def sample(
        self,
        session: Session,
        slots: range,
        contexts: Sequence[Sequence[int]],
        width: int,
        draws: Sequence[np.ndarray],
        limit: int,
        adapted: Sequence[bool] | None = None,
        starts: Sequence[int] | None = None,
        parts: Sequence[tuple[range, int]] = (),
    ) -> list[Completion]:
        """Appends a context to each row of a session and samples a completion.

        Args:
            session: The session.
            slots: The slots that its rows belong to.
            contexts: Each row's new tokens; empty for a dummy.
            width: Columns that the contexts take.
            draws: Each row's uniform random values, one per token that it may sample.
            limit: Columns that the completions take.
            adapted: Whether each slot's adapter is on; if not, the frozen base model is sampled. All are on if None.
            starts: The state of allowed tokens in which each row begins; free text if None.
            parts: Slots after slots, the columns that their contexts take; see `prefill`.
        """
        gate = None
        if adapted is not None:
            gate = torch.tensor(adapted, dtype=self.adapters.values.dtype, device=self.adapters.values.device)
        self.prefill(session, slots, contexts, width, parts, gate)
        self.adapters.select(slots, gate=gate)
        return session.decode(draws, limit, self.temperature, starts)

    def prefill(
        self,
        session: Session,
        slots: range,
        contexts: Sequence[Sequence[int]],
        width: int,
        parts: Sequence[tuple[range, int]],
        gate: Tensor | None = None,
    ) -> None:
        """Appends a context to each row of a session, part after part; all of them end in the same column.

        Args:
            session: The session.
            slots: The slots that its rows belong to.
            contexts: Each row's new tokens.
            width: Columns that the contexts take.
            parts: Slots after slots, the columns that their contexts take; all take `width` if empty.
            gate: For each slot 1 if its adapter is on, else 0; all are on if None.
        """
        end = session.column + width
        for part, own in parts or [(slots, width)]:
            rows = slice(part.start - slots.start, part.stop - slots.start)
            self.adapters.select(part, gate=None if gate is None else gate[rows])
            session.column = end - own
            session.prefill(contexts[rows], own, rows)

    def update(
        self,
        slots: range,
        batches: Sequence[tuple[Sequence[Width], Sequence[Sequence[Turn]]]],
        advantages: Sequence[float | None],
    ) -> list[Step]:
        """Makes one update in each slot of a range.

        Args:
            slots: The slots.
            batches: Widths, and a row of turns for each slot: one batch, or several if each turn has a conversation
                of its own.
            advantages: Each slot's advantage; None leaves the slot unchanged.
        """
        totals = [
            sum(len(turn.sampled) for _, rows in batches for turn in rows[index] if turn.trained)
            for index in range(len(slots))
        ]
        weights = [advantage or 0.0 for advantage in advantages]
        done: list[Chunk] = []
        for start in range(0, len(slots), self.chunk):
            part = slice(start, start + self.chunk)
            for widths, rows in batches:
                chunk = self.chunk_of(slots[part], tuple(widths))
                chunk.fill(rows[part], totals[part], weights[part])
                self.accumulate(chunk)
                done.append(chunk)
        own = slice(slots.start, slots.stop)
        self._live[own].copy_(torch.tensor([advantage is not None for advantage in advantages]))
        self.optimize(slots)

        losses: dict[int, float] = defaultdict(float)
        logprobs: dict[int, tuple[float, ...]] = defaultdict(tuple)
        for chunk in done:
            for slot, loss, values, held in zip(
                chunk.slots, chunk.losses.tolist(), chunk.logprobs.tolist(), chunk.held.tolist(), strict=True
            ):
                losses[slot] += loss
                logprobs[slot] += tuple(compress(values, held))
        return [
            Step(losses[slot], norm, logprobs[slot], math.isfinite(norm) and math.isfinite(losses[slot]))
            for slot, norm in zip(slots, self._norms[own].tolist(), strict=True)
        ]

    def divergence(self, slot: int, batches: Sequence[tuple[Sequence[Width], Sequence[Turn]]]) -> float:
        """How far a slot's policy has moved from the base model, as one round's trained tokens show it.

        The sum of log π − log π_base over tokens that were sampled from π. Its expectation is the Kullback–Leibler
        divergence of π from the base model over all that is sampled in a round, and REINFORCE on it is unbiased.

        Args:
            slot: The slot.
            batches: Widths and turns of each session.
        """
        found = 0.0
        for widths, turns in batches:
            # One row, so that no other slot is computed for it.
            chunk = self.chunk_of(range(slot, slot + 1), tuple(widths))
            chunk.fill([turns], [1], [0.0])
            work = 2 * chunk.batch.tokens.numel() * self.parameters
            self._graphs.run(("divergence", chunk.slots, chunk.widths), chunk.compare, work)
            found += float(chunk.divergences)
        return found

    def set_chunk(self, chunk: int) -> None:
        """Changes the number of slots that are updated in one pass, and frees what was recorded for the old number."""
        self.chunk = chunk
        self._chunks.clear()
        self._graphs = Graphs(self.model.device)

    def accumulate(self, chunk: Chunk) -> None:
        """Adds the gradients of a chunk that is filled."""
        work = chunk.batch.tokens.numel() * self.parameters
        self._graphs.run(("update", chunk.slots, chunk.widths), chunk.accumulate, work)

    def optimize(self, slots: range) -> None:
        """Makes a step of AdamW in the slots of a range that are to be updated."""
        own = slice(slots.start, slots.stop)
        step = partial(adamw, self.adapters, slots, self._live[own], self._norms[own], self.optimizer)
        self._graphs.run(("adamw", slots), step)

    def chunk_of(self, slots: range, widths: tuple[Width, ...]) -> Chunk:
        """The chunk of these slots and widths, made on first use."""
        chunk = self._chunks.get((slots, widths))
        if chunk is None:
            chunk = Chunk(self.model, self.adapters, slots, widths, self.chat.pad_token, self.temperature, self.allowed)
            self._chunks[slots, widths] = chunk
        return chunk
