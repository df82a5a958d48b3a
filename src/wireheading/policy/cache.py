"""A static key-value cache."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of fixed rows and columns, written where its owner decides.

    It replaces transformers' cache in a model's forward pass, which only calls `update`.

    Attributes:
        rows: The rows that new keys and values belong to.
        at: The columns that new keys and values take: a slice, or one column's number as a tensor `[1]`.
        stop: One past the last column that new queries may attend to.
        bounds: The first column that each row of a decode step attends to and one past the last, `[rows, 2]`.
    """

    def __init__(self, rows: int, columns: int):
        self.rows = slice(None)
        self.columns = columns
        self._most = rows
        self.at: slice | Tensor = slice(0, 0)
        self.stop = 0
        self.bounds: Tensor | None = None
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values, and returns all that may be attended to.

        Those of fewer rows are the first in their columns, and are written for all rows in turn.
        """
        fed, heads, _new, size = keys.shape
        if layer == len(self._layers):
            zeros = keys.new_zeros(self._most, heads, self.columns, size)
            self._layers.append((zeros, zeros.clone()))
        held = [whole[self.rows] for whole in self._layers[layer]]
        if fed < len(held[0]):
            for whole, new in zip(held, (keys, values), strict=True):
                whole.unflatten(0, (-1, fed))[:, :, :, self.at] = new
            return keys, values
        for whole, new in zip(held, (keys, values), strict=True):
            if isinstance(self.at, slice):
                whole[:, :, self.at] = new
            else:
                whole.index_copy_(2, self.at, new)
        return held[0][:, :, : self.stop], held[1][:, :, : self.stop]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, `[rows, heads, columns, size]`, once something was written."""
        return self._layers[layer]

    def clear(self) -> None:
        """Zeroes everything: a masked column is still multiplied, by zero, so it must hold finite numbers."""
        if self._layers:
            torch._foreach_zero_([part for layer in self._layers for part in layer])
