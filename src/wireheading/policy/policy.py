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
    """One frozen base model and an adapter for each of its slots.

    Whatever is asked is answered for a fixed range of slots, with dummy rows where a slot has nothing to ask.
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
    ):
        """Adds adapters to a model.

        Args:
            model: The base model; its q/k/v/o projections are wrapped in place.
            chat: The model's language of turns.
            slots: Number of adapters.
            chunk: Slots that are updated in one forward and backward pass.
            lora: Shape and scale of the adapters.
            optimizer: How they are updated.
            temperature: Divides the logits, in sampling and in updating alike.
            activation_checkpointing: Whether an update keeps less memory and computes longer.
            choices: Texts, as tokens, of which one is chosen where a choice is asked for, by its name.
        """
        if activation_checkpointing:
            checkpoint_activations(model)
        self.model = model
        self.chat = chat
        self.adapters = Adapters(model, lora, slots)
        self.chunk = chunk
        self.optimizer = optimizer
        self.temperature = temperature
        self.allowed = AllowedTokens(chat, model.config.vocab_size, model.device, choices)
        self._sessions: dict[tuple[int, int], Session] = {}
        self._chunks: dict[tuple[range, tuple[Width, ...]], Chunk] = {}
        self._graphs = Graphs(model.device)
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        # What the optimizer's step reads and tells of each slot.
        self._live = torch.zeros(slots, dtype=torch.bool, device=model.device)
        self._norms = torch.zeros(slots, dtype=self.adapters.values.dtype, device=model.device)

    def open_session(self, rows: int, columns: int) -> Session:
        """Opens a session in each of `rows` rows, of at most `columns` columns.

        It takes the place of the one of this shape that was opened before.
        """
        session = self._sessions.get((rows, columns))
        if session is None:
            session = Session(self.model, self.chat, rows, columns, self.allowed, lambda: self.adapters.selected)
            self._sessions[rows, columns] = session
        session.restart()
        return session

    def select(self, slots: range, *, adapted: bool) -> None:
        """Lets a range of slots answer what follows, or the frozen base model in their stead."""
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
    ) -> list[Completion]:
        """Goes on with a session: appends a context to each row and samples what follows.

        Args:
            session: What was said so far.
            slots: The slots whose rows these are.
            contexts: Each row's new tokens; empty for a dummy.
            width: Columns that the contexts take.
            draws: Each row's uniform random values, one for each token that it may sample.
            limit: Columns that the samples take.
            adapted: For each slot whether its adapter is on; the frozen base answers where it is not.
            starts: The state of allowed tokens in which each row begins; that of free text if None.
        """
        gate = None
        if adapted is not None:
            gate = torch.tensor(adapted, dtype=self.adapters.values.dtype, device=self.adapters.values.device)
        self.adapters.select(slots, gate=gate)
        session.prefill(contexts, width)
        return session.decode(draws, limit, self.temperature, starts)

    def update(
        self,
        slots: range,
        batches: Sequence[tuple[Sequence[Width], Sequence[Sequence[Turn]]]],
        advantages: Sequence[float | None],
    ) -> list[Step]:
        """Makes one update in each slot of a range.

        Args:
            slots: The slots.
            batches: Widths, and a row of turns for each slot: one batch, or several where a run's turns lie in
                conversations of their own.
            advantages: Each slot's advantage; None leaves a slot as it is.
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
                chunk = self._chunk(slots[part], tuple(widths))
                chunk.fill(rows[part], totals[part], weights[part])
                work = chunk.batch.tokens.numel() * self._parameters
                self._graphs.run(("update", chunk.slots, chunk.widths), chunk.accumulate, work)
                done.append(chunk)
        own = slice(slots.start, slots.stop)
        live, norms = self._live[own], self._norms[own]
        live.copy_(torch.tensor([advantage is not None for advantage in advantages]))
        self._graphs.run(("adamw", slots), partial(adamw, self.adapters, slots, live, norms, self.optimizer))

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
            for slot, norm in zip(slots, norms.tolist(), strict=True)
        ]

    def set_chunk(self, chunk: int) -> None:
        """Updates so many slots in one pass from now on, and frees what was recorded for another number of them."""
        self.chunk = chunk
        self._chunks.clear()
        self._graphs = Graphs(self.model.device)

    def _chunk(self, slots: range, widths: tuple[Width, ...]) -> Chunk:
        """The slots of a chunk over columns of these widths, made when they are first asked for."""
        chunk = self._chunks.get((slots, widths))
        if chunk is None:
            chunk = Chunk(self.model, self.adapters, slots, widths, self.chat.pad_token, self.temperature, self.allowed)
            self._chunks[slots, widths] = chunk
        return chunk
