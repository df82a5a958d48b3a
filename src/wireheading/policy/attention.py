"""Attention for models that cap their scores, which PyTorch's fused attention cannot do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

_NAME = "capped"


def use_exact_attention(model: PreTrainedModel) -> None:
    """Chooses an attention that works in the model's own precision and takes masks of booleans.

    transformers' plain attention, which Gemma-2 would get, computes its softmax in float32 whatever the model's type.
    """
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    model.set_attn_implementation(_NAME if capped else "sdpa")


def capped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention with scores capped by `softcap * tanh(scores / softcap)` (Gemma 2, arXiv 2408.00118).

    Args:
        module: The layer, which knows how many query heads share a key head.
        query: `[rows, heads, queries, size]`.
        key: `[rows, key heads, keys, size]`.
        value: The same shape as the keys.
        attention_mask: Which keys a query sees, `[rows, 1, queries, keys]`, bool; None for all before it.
        scaling: Factor of the scores.
        softcap: Bound of the scores; None for none.
        dropout: Must be zero: the sampled and the trained policy are one function.

    Returns:
        `[rows, queries, heads, size]`, and no weights.
    """
    assert dropout == 0.0, "attention dropout is on"
    rows, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    scores = torch.matmul(query.reshape(rows, -1, groups * queries, size), key.transpose(2, 3)) * scaling
    scores = scores.view(rows, heads, queries, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(
            scores.shape[-1] - queries
        )
    scores = scores.masked_fill(~attention_mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    output = torch.matmul(weights.view(rows, -1, groups * queries, weights.shape[-1]), value)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, capped_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
