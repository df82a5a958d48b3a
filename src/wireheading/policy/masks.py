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


def model_mask(config: PretrainedConfig, visible: Tensor, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Mask:
    """A mask in the form that a model takes, or one for each kind of its layers.

    Args:
        config: The model's config, which tells whether layers have a sliding window.
        visible: Which columns each query sees, `[rows, queries, keys]`, bool.
        queries: Positions of the queries' tokens, `[rows, queries]`.
        keys: Positions of the keys' tokens, `[rows, keys]`.
        dtype: Type of the model's activations, for models that add the mask to the scores.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None:
        full = _as_taken(config, visible, dtype)
        return full if kinds is None else dict.fromkeys(set(kinds), full)
    near = queries[:, :, None] - keys[:, None, :] < window
    sliding = _as_taken(config, visible & near, dtype)
    if kinds is None:
        return sliding
    return {"full_attention": _as_taken(config, visible, dtype), "sliding_attention": sliding}


def _as_taken(config: PretrainedConfig, visible: Tensor, dtype: torch.dtype) -> Tensor:
    mask = visible[:, None]
    if config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
