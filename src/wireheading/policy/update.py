"""Updates of all slots at once: one teacher-forced forward and backward pass, then clipping and AdamW per slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from wireheading.policy.allowed import FREE, AllowedTokens
from wireheading.policy.lora import Adapters
from wireheading.policy.masks import causal, model_mask, positions_of
from wireheading.study.sections import OptimizerConfig

BLOCKS = 8
"""Parts that AdamW steps one after the other: its copies of all would take more memory than the adapters themselves."""


@dataclass(frozen=True)
class Turn:
    """A context and the completion that was sampled after it.

    Attributes:
        context: Tokens that the policy was given.
        sampled: Tokens that it sampled, the stop token included.
        trained: Whether the update trains these tokens.
        start: The state of allowed tokens in which they begin.
        advantage: What they are trained with; the advantage of the run if None.
    """

    context: tuple[int, ...]
    sampled: tuple[int, ...]
    trained: bool
    start: int = FREE
    advantage: float | None = None


@dataclass(frozen=True)
class Width:
    """The fixed columns of a turn: those of its context, padded on the left, and of its completion, on the right."""

    context: int
    sampled: int


@dataclass(frozen=True)
class Step:
    """The outcome of one run's update.

    Attributes:
        loss: Minus the mean over the trained tokens of advantage times log-probability.
        grad_norm: Norm of the gradient before clipping.
        logprobs: Log-probability of every sampled token, turn after turn, recomputed in the forward pass.
        finite: Whether loss and gradient were finite; if not, the slot was left unchanged.
    """

    loss: float
    grad_norm: float
    logprobs: tuple[float, ...]
    finite: bool


@dataclass(frozen=True)
class Batch:
    """Conversations in fixed columns with holes between them, `[rows, columns]` each.

    Attributes:
        tokens: The tokens.
        filled: Whether a column holds one.
        trained: Whether the update trains it.
        states: The state of allowed tokens in which it was sampled.
    """

    tokens: Tensor
    filled: Tensor
    trained: Tensor
    states: Tensor


def lay_out(rows: Sequence[Sequence[Turn]], widths: Sequence[Width], pad: int, allowed: AllowedTokens) -> Batch:
    """Lays out each row's turns in their columns; a row without turns is a dummy."""
    columns = sum(width.context + width.sampled for width in widths)
    tokens = np.full((len(rows), columns), pad, dtype=np.int64)
    states = np.full((len(rows), columns), FREE, dtype=np.int64)
    filled, trained = np.zeros((2, len(rows), columns), dtype=bool)
    nothing = Turn((), (), trained=False)
    for row, turns in enumerate(rows):
        start = 0
        for turn, width in zip([*turns, *[nothing] * (len(widths) - len(turns))], widths, strict=True):
            middle = start + width.context
            first, last = middle - len(turn.context), middle + len(turn.sampled)
            tokens[row, first:last] = turn.context + turn.sampled
            filled[row, first:last] = True
            trained[row, middle:last] = turn.trained
            if turn.start != FREE:
                states[row, middle:last] = allowed.walk(turn.start, turn.sampled)[:-1]
            start = middle + width.sampled
    return Batch(*map(torch.from_numpy, (tokens, filled, trained, states)))


def sampled_columns(widths: Sequence[Width]) -> Tensor:
    """The columns of sampled tokens."""
    columns: list[int] = []
    start = 0
    for width in widths:
        columns.extend(range(start + width.context, start + width.context + width.sampled))
        start += width.context + width.sampled
    return torch.tensor(columns)


def teacher_forced(
    model: PreTrainedModel, batch: Batch, sampled: Tensor, temperature: float, allowed: AllowedTokens
) -> Tensor:
    """Log-probabilities of sampled tokens in one forward pass over whole conversations.

    Args:
        model: The model, with the rows' adapters selected.
        batch: The conversations.
        sampled: The columns of sampled tokens.
        temperature: Divides the logits.
        allowed: The tokens that may be sampled.

    Returns:
        `[rows, sampled columns]`; they are meaningless, and may be infinite, where a row has no token.
    """
    # Nothing follows the last column, so it is not fed in.
    columns = batch.tokens.shape[1] - 1
    positions = positions_of(batch.filled[:, :-1])
    logits = model(
        input_ids=batch.tokens[:, :-1],
        position_ids=positions,
        attention_mask=model_mask(model.config, model.dtype, causal(batch.filled, 0, columns), positions, positions),
        use_cache=False,
        logits_to_keep=sampled - 1,
    ).logits
    logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    logits = logits.masked_fill_(allowed.blocked_in(batch.states[:, sampled]), -torch.inf)
    tokens = batch.tokens[:, sampled].unsqueeze(-1)
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens).squeeze(-1)


class Chunk:
    """Slots that are updated in one forward and backward pass over columns of fixed widths.

    The tensors that the pass reads and writes keep their addresses, so it is recorded as a CUDA graph.

    Attributes:
        losses: Each row's loss in the last pass.
        logprobs: The log-probabilities of its sampled tokens, `[rows, sampled columns]`.
        held: Which of these columns held a token, on the CPU.
        divergences: What the last comparison with the base model found, a value a row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapters: Adapters,
        slots: range,
        widths: Sequence[Width],
        pad: int,
        temperature: float,
        allowed: AllowedTokens,
    ):
        """Allocates its tensors.

        Args:
            model: The model.
            adapters: Its adapters.
            slots: The slots, one for each row.
            widths: The fixed columns of each turn.
            pad: Token that fills the holes.
            temperature: Divides the logits.
            allowed: The tokens that may be sampled.
        """
        self.allowed = allowed
        self.model, self.adapters = model, adapters
        self.slots, self.widths = slots, widths
        self.pad, self.temperature = pad, temperature
        nothing = lay_out([()] * len(slots), widths, pad, allowed)
        self.batch = Batch(*(getattr(nothing, field.name).to(model.device) for field in fields(Batch)))
        self.sampled = sampled_columns(widths)
        self.columns = self.sampled.to(model.device)
        self.held = nothing.filled[:, self.sampled]
        dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
        self.losses = torch.zeros(len(slots), dtype=dtype, device=model.device)
        self.divergences = torch.zeros_like(self.losses)
        self.weights, self.logprobs = torch.zeros((2, *self.held.shape), dtype=dtype, device=model.device)

    def fill(self, rows: Sequence[Sequence[Turn]], totals: Sequence[int], advantages: Sequence[float]) -> None:
        """Sets each row's turns, the number of tokens that its run trains in all, and the run's advantage."""
        batch = lay_out(rows, self.widths, self.pad, self.allowed)
        for field in fields(Batch):
            getattr(self.batch, field.name).copy_(getattr(batch, field.name))
        self.held = batch.filled[:, self.sampled]
        each = np.tile(np.array(advantages)[:, None], len(self.widths))
        for own, turns in zip(each, rows, strict=True):
            for index, turn in enumerate(turns):
                if turn.advantage is not None:
                    own[index] = turn.advantage
        dtype = self.weights.dtype
        weights = -torch.tensor(each, dtype=dtype) / torch.tensor(totals, dtype=dtype).clamp(min=1).unsqueeze(1)
        spans = torch.tensor([width.sampled for width in self.widths])
        self.weights.copy_(weights.repeat_interleave(spans, dim=1))

    def accumulate(self) -> None:
        """Adds each row's policy gradient to its slot's gradient.

        The loss of a row is `-sum of advantage * log-probability of its trained tokens / total`: REINFORCE (Williams
        1992) on the mean log-probability. A run whose turns lie in several rows divides by all its trained tokens.
        """
        self.adapters.select(self.slots, trained=True)
        logprobs = teacher_forced(self.model, self.batch, self.columns, self.temperature, self.allowed)
        losses = (logprobs.where(self.batch.trained[:, self.columns], 0.0) * self.weights).sum(dim=1)
        losses.sum().backward()
        self.logprobs.copy_(logprobs.detach())
        self.losses.copy_(losses.detach())

    @torch.no_grad()
    def compare(self) -> None:
        """Sums each row's log-probabilities of trained tokens by its policy, less those by the base model."""
        self.adapters.select(self.slots)
        own = teacher_forced(self.model, self.batch, self.columns, self.temperature, self.allowed)
        self.adapters.select(self.slots, gate=torch.zeros_like(self.losses))
        base = teacher_forced(self.model, self.batch, self.columns, self.temperature, self.allowed)
        self.divergences.copy_((own - base).where(self.batch.trained[:, self.columns], 0.0).sum(dim=1))


@torch.no_grad()
def adamw(adapters: Adapters, slots: range, live: Tensor, norms: Tensor, config: OptimizerConfig) -> None:
    """Clips each slot's gradient by its own norm and makes a step of AdamW in each slot of a range.

    The step is that of `torch.optim.AdamW` (Loshchilov & Hutter 2019), the clipping that of
    `torch.nn.utils.clip_grad_norm_`.

    Args:
        adapters: The adapters with their accumulated gradients, which are zeroed.
        slots: The slots.
        live: Whether each slot is to be updated. The others are left unchanged, as is one whose gradient is not finite.
        norms: Receives the norm of each slot's gradient before clipping.
        config: Learning rate, weight decay, decay rates and clipping.
    """
    part = slice(slots.start, slots.stop)
    grads = adapters.grads[part]
    torch.linalg.vector_norm(grads, dim=1, out=norms)
    stepped = torch.isfinite(norms) & live
    adapters.steps[part] += stepped
    grads.mul_((config.clip_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))

    beta1, beta2 = config.betas
    steps = adapters.steps[part].clamp(min=1).to(torch.float64)
    size = (config.lr / (1 - beta1**steps)).to(grads).unsqueeze(1)
    root = (1 - beta2**steps).sqrt().to(grads).unsqueeze(1)
    keep = ~stepped.unsqueeze(1)

    def step(values: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor) -> None:
        new_avg = exp_avg.lerp(grad, 1 - beta1)
        new_avg_sq = (exp_avg_sq * beta2).addcmul_(grad, grad, value=1 - beta2)
        new_values = (values * (1 - config.lr * config.weight_decay)).sub_(
            new_avg / (new_avg_sq.sqrt().div_(root).add_(config.eps)) * size
        )
        for old, new in ((values, new_values), (exp_avg, new_avg), (exp_avg_sq, new_avg_sq)):
            old.copy_(torch.where(keep, old, new))

    states = (adapters.values[part], grads, adapters.exp_avg[part], adapters.exp_avg_sq[part])
    # The first block is the largest and leaves its room to the next: if memory runs out, nothing is written yet.
    for block in zip(*(state.tensor_split(BLOCKS, dim=1) for state in states), strict=True):
        step(*block)
    adapters.publish(part)
    grads.zero_()
