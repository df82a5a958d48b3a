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
    """An additive mask of attention scores, `[rows, 1, queries, keys]`, or one for each kind of layer.

    Given a boolean mask, every layer would convert it again.

    Args:
        config: The model's config, which says whether layers have a sliding window.
        dtype: The model's type.
        visible: Which keys each query attends to, `[rows, queries, keys]`, bool.
        queries: Positions of the queries' tokens, `[rows, queries]`.
        keys: Positions of the keys' tokens, `[rows, keys]`.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None:
        full = _additive(visible, dtype)
        return full if kinds is None else dict.fromkeys(set(kinds), full)
    near: Tensor = queries[:, :, None] - keys[:, None, :] < window
    sliding = _additive(visible & near, dtype)
    if kinds is None:
        return sliding
    return {"full_attention": _additive(visible, dtype), "sliding_attention": sliding}


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)[:, None]
