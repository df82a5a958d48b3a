"""Drawing tokens from logits, each row with a random value of its own."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn


def draw(logits: Tensor, uniform: Tensor | None, temperature: float, blocked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a token of each row by inverting its cumulative distribution.

    Args:
        logits: `[rows, vocabulary]`.
        uniform: A value in [0, 1) per row: `[rows]`, float64. None takes the likeliest token.
        temperature: Divides the logits.
        blocked: Which tokens are left out of the distribution, `[rows or 1, vocabulary]`.

    Returns:
        Tokens, their log-probabilities, and whether all logits were finite: `[rows]` each.
    """
    allowed = (logits / temperature).masked_fill_(blocked, -torch.inf)
    logprobs = torch.log_softmax(allowed, dim=-1)
    token = allowed.argmax(dim=-1) if uniform is None else _invert(logprobs, uniform)
    # A sum is finite if all its terms are; it is faster in two steps.
    good = torch.isfinite(logits.view(len(logits), -1, _block(logits.shape[-1])).sum(dim=-1).sum(dim=-1))
    return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1), good


def wide(logits: Tensor) -> Tensor:
    """Logits in float32 or wider."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _invert(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """The first token of each row at which the cumulative probability exceeds the row's uniform value.

    It is computed in float64, so that rounding cannot matter, and in two steps, the token's block first, since a GPU is
    slow at the cumulative sum of a long row.
    """
    vocabulary = logprobs.shape[-1]
    size = _block(vocabulary)
    blocks = logprobs.double().exp().view(-1, vocabulary // size, size)
    ends = blocks.sum(dim=-1).cumsum(dim=-1)
    target = uniform.unsqueeze(-1) * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp(max=vocabulary // size - 1)
    before = nn.functional.pad(ends, (1, 0)).gather(1, block)
    within = blocks.gather(1, block.unsqueeze(-1).expand(-1, 1, size)).squeeze(1).cumsum(dim=-1)
    # Rounding must not lead past the last token of the block that has a probability.
    rest = torch.minimum(target - before, within[:, -1:] * (1 - torch.finfo(within.dtype).eps))
    place = torch.searchsorted(within, rest, right=True)
    return (block * size + place).squeeze(-1).clamp(max=vocabulary - 1)


@cache
def _block(vocabulary: int) -> int:
    """The smallest size of equal blocks of a vocabulary that is at least their number."""
    return next(size for size in range(math.isqrt(vocabulary), vocabulary + 1) if vocabulary % size == 0)
