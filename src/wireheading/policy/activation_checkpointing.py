"""Activation checkpointing: a layer's activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module) -> None:
    """Lets every decoder layer of a model keep nothing but its input for the backward pass (arXiv 1604.06174).

    transformers' own switch works in training mode alone, in which models drop out and do without their cache.
    """
    for layer in model.get_decoder().layers:  # type: ignore[operator]
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
