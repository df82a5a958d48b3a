"""Attention in the model's own precision, with capped scores where wanted, and without copies of keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask

from wireheading.policy import operations
from wireheading.policy.masks import group_of

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

    The fused one cannot cap scores, and wants every query head to have keys of its own, so query heads that share keys
    become more queries of one head. For a single query the plain products are faster, and a GPU has a kernel of its
    own. Arguments and result are those of `plain_attention`.
    """
    rows, heads, queries, size = query.shape
    shared = key.shape[1]
    if softcap is None and queries == 1 and operations.applies(query):
        # Behind the columns that are fed the cache may have more, and the kernel takes rows to be next to each other.
        key, value = key.contiguous(), value.contiguous()
        output = operations.attend(query.reshape(rows, heads, size), key, value, attention_mask, scaling)
        return output.view(rows, 1, heads, size), None
    if softcap is not None or (queries == 1 and heads > shared):
        return plain_attention(module, query, key, value, attention_mask, scaling, softcap, dropout)
    if heads > shared and torch.is_grad_enabled():
        # They are a part of a joint projection, all of which would be kept for the backward pass.
        value = value.contiguous()
    output = nn.functional.scaled_dot_product_attention(
        query.reshape(rows, shared, -1, size), key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    output = output.unflatten(2, (-1, queries)).permute(0, 3, 1, 2, 4)
    return output.reshape(rows, queries, heads, size), None


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
        attention_mask: What is added to the scores, `[rows, 1, group * queries, keys]` for groups of query heads that
            share a key head, or `[rows, 1, 1, keys]`.
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
    scores = scores.view(rows, shared, -1, scores.shape[-1])
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = torch.softmax(scores + attention_mask, dim=-1)
    output = torch.bmm(weights.view(rows * shared, -1, weights.shape[-1]), values)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


def _mask(config: PretrainedConfig, q_length: int, **others: Any) -> Tensor:
    """The mask of a pass that was given none, folded as `model_mask` does."""
    mask: Tensor = eager_mask(config=config, q_length=q_length, **others)
    return mask.repeat(1, 1, group_of(config), 1) if q_length > 1 else mask


AttentionInterface.register(_NAME, attention)
AttentionMaskInterface.register(_NAME, _mask)
