"""Frozen linear layers that read the same input, computed as one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class JointLinear:
    """Frozen linear layers that read the same input, computed as one if their weights allow it.

    Attributes:
        weight: Their stacked weights; None if they are computed one by one.
        bias: Likewise their biases.
        whole: The weights with further rows below.
        whole_bias: The biases with zeros for these.
    """

    def __init__(self, layers: Sequence[nn.Linear], rows: int = 0):
        """Joins the layers; their weights become parts of one matrix, which has so many further rows."""
        self.layers = layers
        # Layers with 4-bit weights, or of which only some have a bias, are computed one by one.
        plain = all(type(layer) is nn.Linear for layer in layers) and len({layer.bias is None for layer in layers}) == 1
        size = sum(layer.out_features for layer in layers)
        self.whole = _joined(layers, "weight", rows) if plain else None
        self.weight = None if self.whole is None else self.whole[:size]
        self.whole_bias = _joined(layers, "bias", rows) if plain and layers[0].bias is not None else None
        self.bias = None if self.whole_bias is None else self.whole_bias[:size]

    def __call__(self, x: Tensor) -> Tensor:
        """The layers' outputs side by side, `[..., out of all layers]`."""
        if self.weight is None:
            return torch.cat([layer(x) for layer in self.layers], dim=-1)
        outputs: Tensor = functional.linear(x, self.weight, self.bias)
        return outputs


def _joined(layers: Sequence[nn.Linear], name: str, rows: int) -> Tensor:
    """The layers' weights or biases stacked in one tensor above rows of zeros; the layers keep views of it."""
    parts = [getattr(layer, name).detach() for layer in layers]
    whole = torch.cat([*parts, parts[0].new_zeros(rows, *parts[0].shape[1:])])
    for layer, part in zip(layers, whole.split([*map(len, parts), rows]), strict=False):
        setattr(layer, name, nn.Parameter(part, requires_grad=False))
    return whole
