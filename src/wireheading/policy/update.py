"""Updating for all slots at once: one teacher-forced forward and backward pass, clipping and AdamW by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wireheading.policy.lora import Adapters
from wireheading.policy.masks import causal, model_mask, positions_of
from wireheading.study.sections import OptimizerConfig


@dataclass(frozen=True)
class Turn:
    """A context and what was sampled after it.

    Attributes:
        context: Tokens that the policy was given.
        sampled: Tokens that it sampled, its stop token included.
        trained: Whether the update pushes these tokens.
    """

    context: tuple[int, ...]
    sampled: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class Width:
    """The fixed columns of a turn: its context's, padded on the left, and its samples', padded on the right."""

    context: int
    sampled: int


@dataclass(frozen=True)
class Step:
    """What one run's update was.

    Attributes:
        loss: Minus the advantage times the mean log-probability of the trained tokens.
        grad_norm: Norm of the gradient before clipping.
        logprobs: Log-probability of every sampled token, turn after turn, as the forward pass recomputed it.
        finite: Whether loss and gradient were finite; if not, the slot was left as it was.
    """

    loss: float
    grad_norm: float
    logprobs: tuple[float, ...]
    finite: bool


def teacher_forced(
    model: PreTrainedModel, rows: Sequence[Sequence[Turn]], widths: Sequence[Width], pad: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of sampled tokens in one forward pass over whole conversations.

    Args:
        model: The model, with the rows' adapters selected.
        rows: The turns of each row; a row without turns is a dummy.
        widths: The fixed columns of each turn.
        pad: Token that fills the holes.
        temperature: Divides the logits.

    Returns:
        Three tensors `[rows, sampled columns]`: log-probabilities, whether a column holds a sampled token, and
        whether that token is trained.
    """
    device = model.device
    columns = sum(width.context + width.sampled for width in widths)
    sampled: list[int] = []
    start = 0
    for width in widths:
        sampled.extend(range(start + width.context, start + width.context + width.sampled))
        start += width.context + width.sampled
    laid_out = [_lay_out(turns, widths, pad) for turns in rows]
    tokens, filled, trained = (torch.tensor(part, device=device) for part in zip(*laid_out, strict=True))
    keep = torch.tensor(sampled, device=device)
    # Nothing follows the last column, so it is not fed.
    positions = positions_of(filled[:, :-1])
    logits = model(
        input_ids=tokens[:, :-1],
        position_ids=positions,
        attention_mask=model_mask(model.config, model.dtype, causal(filled, 0, columns - 1), positions, positions),
        use_cache=False,
        logits_to_keep=keep - 1,
    ).logits
    logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    logprobs = torch.log_softmax(logits, dim=-1).gather(-1, tokens[:, keep].unsqueeze(-1)).squeeze(-1)
    return logprobs, filled[:, keep], trained[:, keep]


def _lay_out(turns: Sequence[Turn], widths: Sequence[Width], pad: int) -> tuple[list[int], list[bool], list[bool]]:
    """A row's tokens in their columns, and for each column whether it holds a token, and one that is trained."""
    tokens: list[int] = []
    filled: list[bool] = []
    trained: list[bool] = []
    nothing = Turn((), (), trained=False)
    for turn, width in zip([*turns, *[nothing] * (len(widths) - len(turns))], widths, strict=True):
        before, after = width.context - len(turn.context), width.sampled - len(turn.sampled)
        tokens += [pad] * before + [*turn.context, *turn.sampled] + [pad] * after
        filled += [False] * before + [True] * (len(turn.context) + len(turn.sampled)) + [False] * after
        trained += [False] * width.context + [turn.trained] * len(turn.sampled) + [False] * after
    return tokens, filled, trained


def accumulate(
    model: PreTrainedModel,
    rows: Sequence[Sequence[Turn]],
    totals: Sequence[int],
    advantages: Sequence[float],
    widths: Sequence[Width],
    pad: int,
    temperature: float,
) -> tuple[list[float], list[tuple[float, ...]]]:
    """Adds each row's policy gradient to its slot's.

    The loss of a row is `-advantage * sum of its trained tokens' log-probabilities / total`: REINFORCE (Williams 1992)
    on the mean log-probability, where a run whose turns lie in several rows divides by all its trained tokens.

    Returns:
        Each row's loss, and the log-probabilities of its sampled tokens.
    """
    logprobs, held, trained = teacher_forced(model, rows, widths, pad, temperature)
    device, dtype = logprobs.device, logprobs.dtype
    weights = -torch.tensor(advantages, dtype=dtype, device=device) / torch.tensor(
        [max(total, 1) for total in totals], dtype=dtype, device=device
    )
    losses = (logprobs * trained).sum(dim=1) * weights
    losses.sum().backward()
    values, present = logprobs.detach().tolist(), held.tolist()
    return losses.detach().tolist(), [
        tuple(value for value, there in zip(row, there_row, strict=True) if there)
        for row, there_row in zip(values, present, strict=True)
    ]


@torch.no_grad()
def adamw(
    adapters: Adapters, slots: range, live: Sequence[bool], config: OptimizerConfig
) -> tuple[list[float], list[bool]]:
    """Clips the gradients of a range of slots, each by its own norm, and makes a step of AdamW in each.

    The step is that of `torch.optim.AdamW` (Loshchilov & Hutter 2019), the clipping that of
    `torch.nn.utils.clip_grad_norm_`.

    Args:
        adapters: The adapters, their gradients accumulated; the gradients are zeroed.
        slots: The slots to step.
        live: Whether each of them holds a run that is to be stepped; the others stay as they are.
        config: Learning rate, weight decay, decay rates and clipping.

    Returns:
        The norm of each slot's gradient before clipping, and whether it was finite; where not, there was no step.
    """
    part = slice(slots.start, slots.stop)
    values, grads = adapters.values[part], adapters.grads[part]
    exp_avg, exp_avg_sq = adapters.exp_avg[part], adapters.exp_avg_sq[part]
    norms = torch.linalg.vector_norm(grads, dim=1)
    finite = torch.isfinite(norms)
    stepped = finite & torch.tensor(live, device=finite.device)
    adapters.steps[part] += stepped.cpu()
    grads.mul_((config.clip_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))

    beta1, beta2 = config.betas
    steps = adapters.steps[part].clamp(min=1).to(torch.float64)
    size = (config.lr / (1 - beta1**steps)).to(values).unsqueeze(1)
    root = (1 - beta2**steps).sqrt().to(values).unsqueeze(1)
    new_avg = exp_avg.lerp(grads, 1 - beta1)
    new_avg_sq = (exp_avg_sq * beta2).addcmul_(grads, grads, value=1 - beta2)
    new_values = (values * (1 - config.lr * config.weight_decay)).sub_(
        new_avg / (new_avg_sq.sqrt().div_(root).add_(config.eps)) * size
    )
    if bool(stepped.all()):
        values.copy_(new_values)
        exp_avg.copy_(new_avg)
        exp_avg_sq.copy_(new_avg_sq)
    else:
        keep = ~stepped.unsqueeze(1)
        for old, new in ((values, new_values), (exp_avg, new_avg), (exp_avg_sq, new_avg_sq)):
            old.copy_(torch.where(keep, old, new))
    adapters.publish(part)
    grads.zero_()
    return norms.tolist(), finite.tolist()
