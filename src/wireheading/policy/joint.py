"""Frozen linear layers that read the same input, computed as one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class JointLinear:
    """Frozen linear layers that read the same input, computed as one if their weights allow it."""

    def __init__(self, layers: Sequence[nn.Linear]):
        """Joins the layers; their weights become parts of one matrix."""
        self.layers = layers
        # Layers with 4-bit weights, or of which only some have a bias, are computed one by one.
        plain = all(type(layer) is nn.Linear for layer in layers) and len({layer.bias is None for layer in layers}) == 1
        self.weight = _joined(layers, "weight") if plain else None
        self.bias = _joined(layers, "bias") if plain and layers[0].bias is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        """The layers' outputs side by side, `[..., out of all layers]`."""
        if self.weight is None:
            return torch.cat([layer(x) for layer in self.layers], dim=-1)
        outputs: Tensor = functional.linear(x, self.weight, self.bias)
        return outputs


def _joined(layers: Sequence[nn.Linear], name: str) -> Tensor:
    """The layers' weights or biases stacked in one tensor; the layers keep views of it."""
    parts = [getattr(layer, name) for layer in layers]
    whole = torch.cat([part.detach() for part in parts])
    for layer, part in zip(layers, whole.split([len(part) for part in parts]), strict=True):
        setattr(layer, name, nn.Parameter(part, requires_grad=False))
    return whole
