"""What a GPU computes in one kernel: room for its results, and gradients.

Nothing here works on a CPU. On PyTorch's `meta` device there are shapes alone, so that memory can be estimated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def applies(x: Tensor) -> bool:
    """Whether a tensor lies where these operations are to be taken."""
    return x.device.type != "cpu"


def gate(joint: Tensor) -> Tensor:
    """`silu(gate) * up` of a gated layer, where `joint [..., 2 * size]` has gate and up side by side."""
    result: Tensor = _Gate.apply(joint)  # type: ignore[no-untyped-call]
    return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x [rows, heads, columns, size]` by angles with equal halves.

    These are `[rows, columns, size]`, or `[1, columns, size]` as any model has them that is told no positions.
    """
    # The kernel reads a row's own angles, side by side.
    cos, sin = (angles.expand(len(x), -1, -1).contiguous() for angles in (cos, sin))
    result: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return result


def place(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, at: Tensor
) -> Tensor:
    """Rotates a token's query and key, stores its key and value in a column of the cache and returns its query.

    Args:
        q: `[rows, 1, heads * size]`.
        k: `[rows, 1, key heads * size]`.
        v: Likewise.
        cos: Of the tokens' angles, `[rows, 1, size]`.
        sin: Likewise.
        keys: The cache, `[rows, key heads, columns, size]`.
        values: Likewise.
        at: The column, `[1]`.

    Returns:
        `[rows, heads, size]`.
    """
    query = q.new_empty(len(q), q.shape[-1] // keys.shape[-1], keys.shape[-1])
    _launch("place", q, k, v, cos, sin, query, keys, values, at)
    return query


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, bounds: Tensor | None = None
) -> Tensor:
    """Attention of one query a row and head, `[rows, heads, size]`, to a cache `[rows, key heads, columns, size]`.

    Args:
        query: The queries.
        keys: The cache's keys.
        values: Its values.
        mask: What is added to the scores, `[rows, 1, 1, columns]`.
        scale: Factor of the scores.
        bounds: The first column that a row attends to and one past the last, `[rows, 2]`; None for all columns. A row
            without any is given zeros.
    """
    out = torch.empty_like(query)
    _launch("attend", query, keys, values, mask.contiguous(), out, scale, bounds)
    return out


def add_own(y: Tensor, inner: Tensor, own: Tensor, b: Tensor) -> None:
    """Adds to each slot's row of `y [slots, size]` its own part of `inner [slots, slots * rank]` times its factor.

    Args:
        y: The rows, in place.
        inner: Every row's product with all slots' first factors, of which the first belong to the first row.
        own: The slot mask, `[slots, slots]`.
        b: Second factors, `[slots, rank, size]`.
    """
    _launch("add_own", y, inner, own, b)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """`x + delta`, and its root-mean-square norm (arXiv 1910.07467)."""
    total, out = torch.empty_like(x), torch.empty_like(x)
    _launch("add_norm", x, delta.reshape(-1, delta.shape[-1]), weight, total, out, epsilon)
    return total, out


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, joint: Tensor) -> Tensor:
        out = joint.new_empty(*joint.shape[:-1], joint.shape[-1] // 2)
        _launch("gate", joint, out)
        context.save_for_backward(joint)
        return out

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> Tensor:
        (joint,) = context.saved_tensors
        grad_joint = torch.empty_like(joint)
        _launch("gate_backward", joint, grads[0].contiguous(), grad_joint)
        return grad_joint


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        context.save_for_backward(cos, sin)
        # Head after head, so that attention can take several heads' queries for those of one without a copy.
        return _rotated(x, cos, sin, x.new_empty(x.shape), 1)

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = context.saved_tensors
        rows, heads, columns, size = grads[0].shape
        # Heads side by side, as the projection before has them.
        out = grads[0].new_empty(rows, columns, heads, size).transpose(1, 2)
        return _rotated(grads[0], cos, sin, out, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, sign: int) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    _launch("rotate", x, cos, sin, out, sign)
    return out


def _launch(name: str, *arguments: Any) -> None:
    if not arguments[0].is_meta:
        # Imported here, since Triton comes with PyTorch for GPUs alone.
        from wireheading.policy import kernels

        getattr(kernels, name)(*arguments)
