"""Attention masks and positions for rows whose tokens lie in fixed columns with holes between them.

A row's columns are `[context | sampled | context | sampled …]`, each part of a fixed width. Contexts are padded on
their left and samples on their right, so a row has holes; a hole is never attended to and takes no position.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PretrainedConfig

Mask = Tensor | dict[str, Tensor]


def positions_of(filled: Tensor) -> Tensor:
    """Position of each column's token in its row's text, counting filled columns: `[rows, columns]`, int64."""
    return (filled.long().cumsum(dim=1) - 1).clamp(min=0)


def causal(filled: Tensor, start: int, stop: int) -> Tensor:
    """Which of the columns `0 … stop` the columns `start … stop` see: `[rows, stop - start, stop]`, bool.

    Args:
        filled: Whether a column holds a token, `[rows, columns]`, bool.
        start: First of the seeing columns.
        stop: One past the last of them.

    Returns:
        Earlier filled columns and itself: a hole sees itself alone, since a row without anything to see would be NaN.
    """
    columns = torch.arange(stop, device=filled.device)
    earlier = columns[None, :] <= columns[start:stop, None]
    itself = columns[None, :] == columns[start:stop, None]
    return (filled[:, None, :stop] & earlier) | itself


def model_mask(config: PretrainedConfig, dtype: torch.dtype, visible: Tensor, queries: Tensor, keys: Tensor) -> Mask:
    """A mask `[rows, 1, queries, keys]` to add to a model's scores, or one for each kind of its layers.

    From a mask of booleans every layer would make this one for itself.

    Args:
        config: The model's config, which tells whether layers have a sliding window.
        dtype: The model's type.
        visible: Which columns each query sees, `[rows, queries, keys]`, bool.
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
