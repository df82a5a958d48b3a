"""Activation checkpointing: the backward pass recomputes a layer's activations, which are not kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module) -> None:
    """Makes every decoder layer of a model keep only its input for the backward pass (arXiv 1604.06174).

    transformers' own switch works only in training mode, which enables dropout and disables the cache.
    """
    for layer in model.get_decoder().layers:  # type: ignore[operator]
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
