"""Attention in the model's own precision, with capped scores where wanted, and without copies of the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from wireheading.policy import operations

_NAME = "exact"


def use_exact_attention(model: PreTrainedModel) -> None:
    """Sets an attention that works in the model's own precision.

    transformers' plain attention, which Gemma-2 would get, computes its softmax in float32 whatever the model's type.
    """
    model.set_attn_implementation(_NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    softcap: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Chooses between PyTorch's fused attention and the plain products.

    The fused one cannot cap scores, and wants every query head to have keys of its own: while decoding, copying the
    whole cache for that would take longer than attending to it. A GPU decodes with a kernel for that. Arguments and
    result are those of `plain_attention`.
    """
    if softcap is None and query.shape[2] == 1 and operations.applies(query):
        rows, heads, _, size = query.shape
        output = operations.attend(query.reshape(rows, heads, size), key, value, attention_mask, scaling)
        return output.view(rows, 1, heads, size), None
    if softcap is None and (query.shape[2] > 1 or query.shape[1] == key.shape[1]):
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return output, None
    return plain_attention(module, query, key, value, attention_mask, scaling, softcap, dropout)


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """Attention with scores capped by `softcap * tanh(scores / softcap)` (Gemma 2, arXiv 2408.00118).

    Args:
        module: The layer, which knows how many query heads share a key head.
        query: `[rows, heads, queries, size]`.
        key: `[rows, key heads, keys, size]`.
        value: The same shape as the keys.
        attention_mask: What is added to the scores, `[rows, 1, queries, keys]`.
        scaling: Factor of the scores.
        softcap: Bound of the scores; None for none.
        dropout: Must be zero: the sampled and the trained policy are one function.

    Returns:
        `[rows, queries, heads, size]`, and no weights.
    """
    assert dropout == 0.0, "attention dropout is on"
    rows, heads, queries, size = query.shape
    shared = key.shape[1]
    # Query heads that share keys are rows of one product. With beta = 0 only the shape of the first argument counts.
    grouped = query.reshape(rows * shared, -1, size)
    keys, values = key.reshape(rows * shared, -1, size), value.reshape(rows * shared, -1, size)
    scores = torch.baddbmm(query.new_empty(1), grouped, keys.transpose(1, 2), beta=0, alpha=scaling)
    scores = scores.view(rows, heads, queries, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = torch.softmax(scores + attention_mask, dim=-1)
    output = torch.bmm(weights.view(rows * shared, -1, weights.shape[-1]), values)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, attention)
AttentionMaskInterface.register(_NAME, eager_mask)
