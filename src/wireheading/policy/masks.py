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


def attention_mask(config: PretrainedConfig, filled: Tensor, start: int, stop: int, dtype: torch.dtype) -> Mask:
    """The mask with which columns `start … stop` attend to columns `0 … stop`.

    Args:
        config: The model's config, which tells whether layers have a sliding window.
        filled: Whether a column holds a token, `[rows, columns]`, bool.
        start: First of the attending columns.
        stop: One past the last of them.
        dtype: Type of the model's activations, for models that add the mask to the scores.

    Returns:
        A mask `[rows, 1, stop - start, stop]` in the form that the model takes, or one for each kind of layer. A hole
        sees itself alone: a row without anything to see would be NaN.
    """
    columns = torch.arange(stop, device=filled.device)
    causal = columns[None, :] <= columns[start:stop, None]
    itself = columns[None, :] == columns[start:stop, None]
    full = (filled[:, None, :stop] & causal) | itself
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None and kinds is None:
        return _as_taken(config, full, dtype)
    sliding = full
    if window is not None:
        positions = positions_of(filled[:, :stop])
        near = positions[:, start:stop, None] - positions[:, None, :] < window
        sliding = (full & near) | itself
    if kinds is None:
        return _as_taken(config, sliding, dtype)
    return {
        "full_attention": _as_taken(config, full, dtype),
        "sliding_attention": _as_taken(config, sliding, dtype),
    }


def _as_taken(config: PretrainedConfig, mask: Tensor, dtype: torch.dtype) -> Tensor:
    mask = mask[:, None]
    if config._attn_implementation == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
