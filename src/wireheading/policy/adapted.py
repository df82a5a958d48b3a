"""Linear layers with an adapter for each slot, computed in one batched product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wireheading.policy import operations
from wireheading.policy.joint import JointLinear


class Joint:
    """Frozen linear layers that read the same input, such as query, key and value, with an adapter for each slot.

    They are computed as one. An input's leading axis counts rows, slot after slot: `[slots * rows a slot, tokens, in]`.
    The owner of the adapters decides which slots are in the batch (`Adapters.select`).

    Attributes:
        leaves: Where a backward pass is to follow, the parameters: the layers' first factors, one above the other,
            `[slots, layers * rank, in]`, and each layer's second factor, `[slots, out, rank]`. Else empty.
        a: The first factors as the policy is sampled with them.
        b: Likewise all second factors, transposed and scaled, along the diagonal of one matrix:
            `[slots, layers * rank, out of all layers]`.
        finite: For each slot 1, or not a number where a parameter is not finite: `[slots]`.
        first: The first of the slots.
        slot_mask: 1 where a slot meets its own adapter and that is on, else 0: `[slots, slots]`.
    """

    def __init__(self, layers: Sequence[nn.Linear], scale: float, rows: int):
        """Joins the layers; their weights become parts of one matrix, which has room for all slots' first factors."""
        self.layers = layers
        self.scale = scale
        self.outs = [layer.out_features for layer in layers]
        self.leaves: Sequence[Tensor] = []
        self.a: Tensor
        self.b: Tensor
        self.finite: Tensor
        self.slot_mask: Tensor
        self.first = 0
        self.base = JointLinear(layers, rows)
        self._input: Tensor | None = None
        self._outputs: Sequence[Tensor] = []

    def output(self, x: Tensor, layer: int) -> Tensor:
        """One layer's output. The layers are asked in turn, with the same input."""
        if layer == 0:
            self._input, self._outputs = x, self._trained(x) if self.leaves else self._sampling(x)
        assert x is self._input, "layers that were joined are given different inputs"
        output = self._outputs[layer]
        if layer == len(self.layers) - 1:
            # Nothing of a pass is kept after it.
            self._input, self._outputs = None, []
        return output

    def _trained(self, x: Tensor) -> Sequence[Tensor]:
        """`W x + scale * B A x` of every layer, with its graph."""
        y = self.base(x)
        if operations.applies(y):
            outputs: Sequence[Tensor] = self.adapted(x, y).split(self.outs, dim=-1)
            return outputs
        ys = y.split(self.outs, dim=-1)
        a, *bs = self.leaves
        inner = torch.bmm(x.reshape(len(a), -1, x.shape[-1]).to(a.dtype), a.transpose(1, 2))
        deltas = [
            torch.bmm(part, b.transpose(1, 2)).view(y.shape)
            for y, part, b in zip(ys, inner.chunk(len(ys), dim=-1), bs, strict=True)
        ]
        return [torch.add(y, delta, alpha=self.scale).to(y.dtype) for y, delta in zip(ys, deltas, strict=True)]

    def adapted(self, x: Tensor, y: Tensor) -> Tensor:
        """Adds to the base layers' outputs what the adapters give, with its graph, as the policy is sampled."""
        result: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
            y, x, self.a, self.b, self.finite, self.scale, self.outs, *self.leaves
        )
        return result

    def _sampling(self, x: Tensor) -> Sequence[Tensor]:
        """The same in the base model's type, added in place."""
        slots, inner_size, size = self.a.shape
        if self.base.whole is not None and x.shape[:2] == (slots, 1) and operations.applies(x):
            # One product for the layers and the first factors of all slots there are.
            y, inner = functional.linear(x, self.base.whole, self.base.whole_bias).tensor_split([sum(self.outs)], -1)
            operations.add_own(y[:, 0], inner[:, 0, self.first * inner_size :], self.slot_mask, self.b)
            parts: Sequence[Tensor] = y.split(self.outs, dim=-1)
            return parts
        y = self.base(x)
        if x.shape[:2] == (slots, 1):
            # A batch of products with one row each is slow. Every row is multiplied with the factors of all slots, and
            # of what comes out its own slot's part alone is kept.
            inner = x.view(slots, size) @ self.a.view(-1, size).T
            inner = (inner.view(slots, slots, inner_size) * self.slot_mask.unsqueeze(-1)).view(slots, -1)
            y.view(slots, -1).addmm_(inner, self.b.view(-1, y.shape[-1]))
        else:
            inner = torch.bmm(x.reshape(slots, -1, size), self.a.transpose(1, 2))
            y.view(slots, -1, y.shape[-1]).baddbmm_(inner * self.slot_mask.diagonal().view(-1, 1, 1), self.b)
        outputs: Sequence[Tensor] = y.split(self.outs, dim=-1)
        return outputs


class _Adapted(torch.autograd.Function):
    """The products of the adapters in the base model's type, as it is computed in, with gradients in theirs.

    What is written in place comes first: with a bias it is a view, and of a view PyTorch takes the first gradient.
    """

    @staticmethod
    def forward(
        context: Any,
        y: Tensor,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        finite: Tensor,
        scale: float,
        outs: Sequence[int],
        *leaves: Tensor,
    ) -> Tensor:
        slots, _, size = a.shape
        inner = torch.bmm(x.reshape(slots, -1, size), a.transpose(1, 2)) * finite.view(-1, 1, 1)
        y.view(slots, -1, y.shape[-1]).baddbmm_(inner, b)
        context.mark_dirty(y)
        context.save_for_backward(x, inner)
        context.a, context.b, context.scale, context.outs = a, b, scale, outs
        return y

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, inner = context.saved_tensors
        a, b = context.a, context.b
        slots, inner_size, size = a.shape
        rank = inner_size // len(context.outs)
        grad = grads[0].reshape(slots, -1, b.shape[-1])
        grad_inner = torch.bmm(grad, b.transpose(1, 2))
        grad_x = torch.bmm(grad_inner, a).view(x.shape)
        grad_a = _wide_bmm(grad_inner.transpose(1, 2), x.reshape(slots, -1, size))
        # Every layer's outputs with the inner values of all: what is not its own is left.
        products = _wide_bmm(grad.transpose(1, 2), inner).split(context.outs, dim=1)
        grad_bs = [
            product[:, :, index * rank : (index + 1) * rank] * context.scale for index, product in enumerate(products)
        ]
        return grads[0], grad_x, None, None, None, None, None, grad_a, *grad_bs


def _wide_bmm(left: Tensor, right: Tensor) -> Tensor:
    """A batched product that is summed up and kept in float32 at least."""
    if left.dtype.itemsize > 2:
        return torch.bmm(left, right)
    if left.is_meta:
        return left.new_empty(len(left), left.shape[1], right.shape[2], dtype=torch.float32)
    return torch.bmm(left, right, out_dtype=torch.float32)


class StackedLora(nn.Module):
    """Stands in a model's place for one of some joined layers."""

    def __init__(self, joint: Joint, layer: int):
        super().__init__()
        self.base = joint.layers[layer]
        self.joint = joint
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with each slot's adapter."""
        return self.joint.output(x, self.layer)
