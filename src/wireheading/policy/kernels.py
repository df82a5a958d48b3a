"""Kernels for a GPU, in Triton: chains of short operations done in one.

Every kernel computes in float32 and rounds once. No two programs of one write to the same place, and each adds up in a
fixed order, so the same input gives the same bits. Tensors are taken to be contiguous but where strides are given.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def gate(joint: Tensor, out: Tensor) -> None:
    """`silu(gate) * up` of a gated layer, where `joint [..., 2 * size]` has gate and up side by side."""
    size = out.shape[-1]
    grid = (out.numel() // size, triton.cdiv(size, 1024))
    _gate[grid](joint, out, size, BLOCK=1024)


@triton.jit
def _gate(joint, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    first = joint + row * 2 * size + column
    gate = tl.load(first, inside).to(tl.float32)
    up = tl.load(first + size, inside).to(tl.float32)
    tl.store(out + row * size + column, gate * tl.sigmoid(gate) * up, inside)


def gate_backward(joint: Tensor, grad: Tensor, grad_joint: Tensor) -> None:
    """The gradient of `gate`'s input from that of its output."""
    size = grad.shape[-1]
    grid = (grad.numel() // size, triton.cdiv(size, 1024))
    _gate_backward[grid](joint, grad, grad_joint, size, BLOCK=1024)


@triton.jit
def _gate_backward(joint, grad, grad_joint, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    first = row * 2 * size + column
    gate = tl.load(joint + first, inside).to(tl.float32)
    up = tl.load(joint + first + size, inside).to(tl.float32)
    given = tl.load(grad + row * size + column, inside).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    tl.store(grad_joint + first, given * up * sigmoid * (1 + gate * (1 - sigmoid)), inside)
    tl.store(grad_joint + first + size, given * gate * sigmoid, inside)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, sign: int) -> None:
    """Rotary embedding by angles, or by their negatives.

    Args:
        x: `[rows, heads, columns, size]`, of any strides but the last.
        cos: Of the angles, `[rows, columns, size]`; both halves are equal.
        sin: Likewise.
        out: Is given the result, of any strides but the last.
        sign: 1, or -1 for the way back.
    """
    rows, heads, columns, size = x.shape
    half = size // 2
    blocks = {"HEADS": triton.next_power_of_2(heads), "HALF": triton.next_power_of_2(half)}
    _rotate[(rows * columns,)](
        x, cos, sin, out, sign, heads, columns, half, *x.stride()[:3], *out.stride()[:3], **blocks
    )


@triton.jit
def _rotate(
    x, cos, sin, out, sign, heads, columns, half,
    x_row, x_head, x_column, out_row, out_head, out_column,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row, column = place // columns, place % columns
    head, entry = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (entry < half)
    cosine = tl.load(cos + place * 2 * half + entry, entry < half).to(tl.float32)
    sine = tl.load(sin + place * 2 * half + entry, entry < half).to(tl.float32) * sign
    source = x + row * x_row + column * x_column + head * x_head + entry
    first, second = tl.load(source, inside).to(tl.float32), tl.load(source + half, inside).to(tl.float32)
    target = out + row * out_row + column * out_column + head * out_head + entry
    tl.store(target, first * cosine - second * sine, inside)
    tl.store(target + half, second * cosine + first * sine, inside)


def place(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, query: Tensor, keys: Tensor, values: Tensor, at: Tensor
) -> None:
    """Rotates a token's query and key and stores its key and value in the cache.

    Args:
        q: `[rows, 1, heads * size]`, contiguous in a row, as are `k` and `v`, `[rows, 1, key heads * size]`.
        k: The keys.
        v: The values.
        cos: Of the tokens' angles, `[rows, 1, size]`.
        sin: Likewise.
        query: Is given the rotated queries, `[rows, heads, size]`.
        keys: The cache, `[rows, key heads, columns, size]`.
        values: Likewise.
        at: The column that the token takes, `[1]`.
    """
    rows, heads, size = query.shape
    shared, columns = keys.shape[1:3]
    half = size // 2
    _place[(rows, heads + 2 * shared)](
        q, k, v, cos, sin, query, keys, values, at,
        q.stride(0), k.stride(0), v.stride(0), heads, shared, columns, half,
        HALF=triton.next_power_of_2(half), num_warps=1,
    )  # fmt: skip


@triton.jit
def _place(
    q, k, v, cos, sin, query, keys, values, at,
    q_row, k_row, v_row, heads, shared, columns, half,
    HALF: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entry = tl.arange(0, HALF)
    inside = entry < half
    cosine = tl.load(cos + row * 2 * half + entry, inside).to(tl.float32)
    sine = tl.load(sin + row * 2 * half + entry, inside).to(tl.float32)
    if head < heads:
        source = q + row * q_row + head * 2 * half + entry
        target = query + (row * heads + head) * 2 * half + entry
    else:
        column = tl.load(at)
        own = (head - heads) % shared
        offset = ((row * shared + own) * columns + column) * 2 * half + entry
        if head < heads + shared:
            source = k + row * k_row + own * 2 * half + entry
            target = keys + offset
        else:
            source = v + row * v_row + own * 2 * half + entry
            target = values + offset
            cosine = cosine * 0 + 1
            sine = sine * 0
    first, second = tl.load(source, inside).to(tl.float32), tl.load(source + half, inside).to(tl.float32)
    tl.store(target, first * cosine - second * sine, inside)
    tl.store(target + half, second * cosine + first * sine, inside)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, out: Tensor, scale: float, bounds: Tensor | None
) -> None:
    """Attention of one query a row and head to a cache.

    Args:
        query: `[rows, heads, size]`.
        keys: `[rows, key heads, columns, size]`.
        values: Likewise.
        mask: What is added to the scores, `[rows, columns]` contiguous.
        out: Is given the result, in the shape of the query.
        scale: Factor of the scores.
        bounds: The first column that a row attends to and one past the last, `[rows, 2]`; None for all columns. A row
            without any is given zeros.
    """
    rows, heads, size = query.shape
    shared, columns = keys.shape[1:3]
    group = heads // shared
    width = max(16, triton.next_power_of_2(size))
    # What is read together fits into the memory of a multiprocessor twice, be it a small one.
    block = max(16, 2**14 // (width * keys.element_size()))
    _attend[(rows, shared)](
        query, keys, values, mask, out, scale, bounds, group, size, COLUMNS=columns,
        GROUP=max(16, triton.next_power_of_2(group)), SIZE=width, BLOCK=block, num_stages=2,
    )  # fmt: skip


@triton.jit
def _attend(
    query, keys, values, mask, out, scale, bounds, group, size, COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member, entry = tl.arange(0, GROUP), tl.arange(0, SIZE)
    heads = row * tl.num_programs(1) + head
    places = (heads * group + member)[:, None] * size + entry[None, :]
    asked = (member < group)[:, None] & (entry < size)[None, :]
    q = tl.load(query + places, asked, 0.0)
    most = tl.full([GROUP], float("-inf"), tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    sums = tl.zeros([GROUP, SIZE], tl.float32)
    first, end = 0, COLUMNS
    if bounds is not None:
        # What is summed together does not depend on where a row begins, so leaving out masked blocks changes no bit.
        first, end = tl.load(bounds + 2 * row) // BLOCK * BLOCK, tl.load(bounds + 2 * row + 1)
    for start in range(first, end, BLOCK):
        column = start + tl.arange(0, BLOCK)
        there = column < end
        offsets = (heads * COLUMNS + column)[:, None] * size + entry[None, :]
        known = there[:, None] & (entry < size)[None, :]
        k, v = tl.load(keys + offsets, known, 0.0), tl.load(values + offsets, known, 0.0)
        added = tl.load(mask + row * COLUMNS + column, there, float("-inf")).to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale + added[None, :]
        higher = tl.maximum(most, tl.max(scores, 1))
        # Until a column is seen the highest score is minus infinity, from which nothing can be subtracted.
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - level[:, None])
        faded = tl.exp(most - level)
        total = total * faded + tl.sum(weights, 1)
        sums = sums * faded[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        most = higher
    # A masked column is multiplied by zero in the next layer, so even a row that attends to nothing must stay finite.
    tl.store(out + places, sums / tl.where(total == 0, 1.0, total)[:, None], asked)


def add_own(y: Tensor, inner: Tensor, own: Tensor, b: Tensor) -> None:
    """Adds to each slot's row what its own adapter makes of it.

    Args:
        y: `[slots, size]`, in place; rows of any stride, as those of `inner`.
        inner: Every row's product with all slots' first factors, of which the first belong to the first row:
            `[slots, at least slots * rank]`.
        own: The slot mask, `[slots, slots]` of any strides, of which the diagonal counts.
        b: Second factors, `[slots, rank, size]`.
    """
    slots, rank, size = b.shape
    grid = (slots, triton.cdiv(size, 256))
    strides = y.stride(0), inner.stride(0), sum(own.stride())
    _add_own[grid](y, inner, own, b, size, *strides, RANK=rank, BLOCK=256)


@triton.jit
def _add_own(y, inner, own, b, size, y_row, inner_row, diagonal, RANK: tl.constexpr, BLOCK: tl.constexpr):
    slot = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    total = tl.zeros([BLOCK], tl.float32)
    for index in tl.static_range(RANK):
        factor = tl.load(inner + slot * inner_row + slot * RANK + index).to(tl.float32)
        total += factor * tl.load(b + (slot * RANK + index) * size + column, inside).to(tl.float32)
    target = y + slot * y_row + column
    total *= tl.load(own + slot * diagonal).to(tl.float32)
    tl.store(target, tl.load(target, inside).to(tl.float32) + total, inside)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, total: Tensor, out: Tensor, epsilon: float) -> None:
    """`x + delta`, and its root-mean-square norm.

    Args:
        x: `[..., size]`.
        delta: `[rows, size]`, rows of any stride.
        weight: The norm's weight, `[size]`.
        total: Is given the sum, `[..., size]`.
        out: Is given its norm.
        epsilon: What is added to the mean square.
    """
    size = x.shape[-1]
    block = triton.next_power_of_2(size)
    _add_norm[(len(delta),)](
        x, delta, weight, total, out, epsilon, size, delta.stride(0), BLOCK=block, num_warps=4 if block <= 2048 else 8
    )


@triton.jit
def _add_norm(x, delta, weight, total, out, epsilon, size, delta_row, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    place = row * size + column
    # The norm is that of the sum as it is stored.
    added = tl.load(x + place, inside, 0.0).to(tl.float32) + tl.load(delta + row * delta_row + column, inside, 0.0).to(
        tl.float32
    )
    added = added.to(total.dtype.element_ty)
    tl.store(total + place, added, inside)
    values = added.to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values) / size + epsilon)
    tl.store(out + place, values * scale * tl.load(weight + column, inside).to(tl.float32), inside)
