"""Attention masks and positions of rows whose tokens lie in fixed columns with holes between them.

A row's columns are `[context | completion | context | completion …]`, each part of a fixed width. Contexts are padded
on the left and completions on the right, so a row has holes; a hole is never attended to and has no position.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PretrainedConfig

Mask = Tensor | dict[str, Tensor]


def positions_of(filled: Tensor) -> Tensor:
    """Position of each column's token among the filled columns of its row: `[rows, columns]`, int64."""
    return (filled.long().cumsum(dim=1) - 1).clamp(min=0)


def causal(filled: Tensor, start: int, stop: int) -> Tensor:
    """Which of the columns `0 … stop` the columns `start … stop` attend to: `[rows, stop - start, stop]`, bool.

    Args:
        filled: Whether a column holds a token, `[rows, columns]`, bool.
        start: First of the attending columns.
        stop: One past the last of them.

    Returns:
        Earlier filled columns and the column itself, which keeps the softmax of a hole finite.
    """
    columns = torch.arange(stop, device=filled.device)
    earlier = columns[None, :] <= columns[start:stop, None]
    itself = columns[None, :] == columns[start:stop, None]
    return (filled[:, None, :stop] & earlier) | itself


def model_mask(config: PretrainedConfig, dtype: torch.dtype, visible: Tensor, queries: Tensor, keys: Tensor) -> Mask:
    """An additive mask of attention scores, `[rows, 1, group * queries, keys]`, or one for each kind of layer.

    Given a boolean mask, every layer would convert it again, and given one of `queries`, repeat it for the group of
    query heads that share a key head. A single query's mask is not repeated: `[rows, 1, 1, keys]`.

    Args:
        config: The model's config, which says whether layers have a sliding window.
        dtype: The model's type.
        visible: Which keys each query attends to, `[rows, queries, keys]`, bool.
        queries: Positions of the queries' tokens, `[rows, queries]`.
        keys: Positions of the keys' tokens, `[rows, keys]`.
    """
    group = group_of(config) if visible.shape[1] > 1 else 1
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None:
        full = _additive(visible, dtype, group)
        return full if kinds is None else dict.fromkeys(set(kinds), full)
    near: Tensor = queries[:, :, None] - keys[:, None, :] < window
    sliding = _additive(visible & near, dtype, group)
    if kinds is None:
        return sliding
    return {"full_attention": _additive(visible, dtype, group), "sliding_attention": sliding}


def group_of(config: PretrainedConfig) -> int:
    """How many query heads share a key head."""
    heads: int = config.num_attention_heads
    return heads // (getattr(config, "num_key_value_heads", None) or heads)


def _additive(visible: Tensor, dtype: torch.dtype, group: int) -> Tensor:
    rows, queries, keys = visible.shape
    # A GPU's fused attention would copy the mask in every layer if its rows did not begin at multiples of 8 numbers.
    room = torch.zeros(rows, group, queries, -(-keys // 8) * 8, dtype=dtype, device=visible.device)
    return room[..., :keys].masked_fill_(~visible[:, None], -torch.inf).flatten(1, 2)[:, None]
