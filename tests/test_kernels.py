"""A GPU's kernels against the plain formulas; without a GPU, in Triton's interpreter where that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from policies import FAMILIES, WIDTHS, make_policy, some_turns, stir
from test_graphs import called, record_everywhere
from torch import Tensor
from torch.nn import functional

from wireheading.policy import graphs, operations
from wireheading.policy.attention import plain_attention
from wireheading.policy.graphs import Graphs

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


def close(one: Tensor, other: Tensor) -> None:
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-5), (one - other).abs().max()


def half_rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def angles(rows: int, columns: int, size: int) -> tuple[Tensor, Tensor]:
    half = some(rows, columns, size // 2) * 3
    whole = torch.cat([half, half], dim=-1)
    return whole.cos(), whole.sin()


def test_gate_and_its_gradient() -> None:
    joint = some(3, 5, 2 * 1500).requires_grad_()
    given = some(3, 5, 1500)
    plain = functional.silu(joint[..., :1500]) * joint[..., 1500:]
    fused = operations.gate(joint)
    close(fused, plain)
    (expected,) = torch.autograd.grad(plain, joint, given)
    close(torch.autograd.grad(fused, joint, given)[0], expected)


@pytest.mark.parametrize(("heads", "size", "rows"), [(3, 8, 2), (4, 20, 2), (4, 8, 1)])
def test_rotation_and_its_gradient(heads: int, size: int, rows: int) -> None:
    x = some(2, 7, 5 * size)[:, :, size : size * (heads + 1)].view(2, 7, heads, size).transpose(1, 2).requires_grad_()
    cos, sin = angles(rows, 7, size)
    plain = x * cos[:, None] + half_rotated(x) * sin[:, None]
    fused = operations.rotate(x, cos, sin)
    close(fused, plain)
    assert fused.is_contiguous(), "attention would copy the queries"
    given = some(2, heads, 7, size)
    (expected,) = torch.autograd.grad(plain, x, given)
    close(torch.autograd.grad(fused, x, given)[0], expected)


@pytest.mark.parametrize(("heads", "shared", "size"), [(6, 2, 8), (9, 3, 20), (4, 4, 64)])
def test_a_token_is_placed_and_attended_to(heads: int, shared: int, size: int) -> None:
    rows, columns, column = 3, 72, 67
    whole = some(rows, 1, (heads + 2 * shared) * size)
    q, k, v = whole.split([heads * size, shared * size, shared * size], dim=-1)
    cos, sin = angles(rows, 1, size)
    keys, values = some(2, rows, shared, columns, size)
    expected_keys, expected_values = keys.clone(), values.clone()
    query, key, value = (part.view(rows, 1, -1, size).transpose(1, 2) for part in (q, k, v))
    query, key = (part * cos[:, None] + half_rotated(part) * sin[:, None] for part in (query, key))
    expected_keys[:, :, column], expected_values[:, :, column] = key[:, :, 0], value[:, :, 0]
    at = torch.tensor([column], device=DEVICE)
    placed = operations.place(q, k, v, cos, sin, keys, values, at)
    close(placed, query[:, :, 0])
    close(keys, expected_keys)
    close(values, expected_values)
    # All that is seen lies behind the first columns that are read together.
    visible = torch.arange(columns, device=DEVICE) == column
    visible = visible | (some(rows, columns) > 0) & (torch.arange(columns, device=DEVICE) >= 64)
    mask = torch.zeros(rows, 1, 1, columns, device=DEVICE).masked_fill_(~visible[:, None, None], -torch.inf)
    module: Any = None
    expected, _ = plain_attention(module, query, keys, values, mask, 0.3)
    close(operations.attend(placed, keys, values, mask, 0.3), expected[:, 0])


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 20), (torch.bfloat16, 64)])
def test_only_what_lies_within_a_rows_bounds_is_attended_to(dtype: torch.dtype, size: int) -> None:
    """Blocks are of 128 columns here: bounds lie inside of blocks, on their edges, in one block, in the last one."""
    spans = [(0, 300), (0, 1), (128, 256), (130, 299), (127, 129), (40, 50), (290, 300), (0, 0)]
    bounds = torch.tensor(spans, dtype=torch.int32, device=DEVICE)
    rows, shared, columns = len(spans), 2, 300
    query = some(rows, 3 * shared, size).to(dtype)
    keys, values = some(2, rows, shared, columns, size).to(dtype)
    column = torch.arange(columns, device=DEVICE)
    within = (column >= bounds[:, :1]) & (column < bounds[:, 1:])
    # Bounds may be wider than what is seen.
    visible = within & ((some(rows, columns) > 0) | (column == bounds[:, 1:] - 1))
    mask = torch.zeros(rows, 1, 1, columns, dtype=dtype, device=DEVICE)
    mask.masked_fill_(~visible[:, None, None], -torch.inf)
    expected = operations.attend(query, keys, values, mask, 0.3)
    attended = operations.attend(query, keys, values, mask, 0.3, bounds)
    assert torch.equal(attended[:-1], expected[:-1])
    assert not attended[-1].any(), "a row that has ended is given zeros"
    assert attended.isfinite().all()
    # What a row's blocks do not hold is not read.
    outside = (column < bounds[:, :1] // 128 * 128) | (column >= bounds[:, 1:])
    for part in (keys, values):
        part.masked_fill_(outside[:, None, :, None], torch.nan)
    assert torch.equal(operations.attend(query, keys, values, mask, 0.3, bounds), attended)


def test_each_slots_own_part_is_added() -> None:
    y, inner, b = some(3, 320)[:, 20:], some(3, 5 * 6), some(3, 6, 300)
    own = torch.diag(torch.tensor([1.0, 0.0, torch.nan])).to(DEVICE)
    expected = y + torch.stack([inner[slot, slot * 6 : slot * 6 + 6] @ b[slot] for slot in range(3)])
    before = y[1].clone()
    operations.add_own(y, inner, own, b)
    close(y[0], expected[0])
    assert torch.equal(y[1], before)
    assert y[2].isnan().all()


def test_sum_and_norm() -> None:
    x, delta, weight = some(2, 3, 100), some(2, 3, 100) * 2, some(100)
    total, out = operations.add_norm(x, delta, weight, 1e-5)
    close(total, x + delta)
    close(out, functional.rms_norm(x + delta, (100,), weight, 1e-5))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_is_the_same_function_with_kernels(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled and recomputed log-probabilities, losses, gradients and parameters, on the CPU in both cases."""
    if DEVICE != "cpu":
        pytest.skip("kernels on a CPU's tensors need Triton's interpreter")

    def play() -> list[Any]:
        import numpy as np

        policy = make_policy(3, family=family, dtype=torch.float32, chunk=2)
        stir(policy)
        rng = np.random.default_rng(0)
        seen: list[Any] = []
        for _ in range(2):
            session = policy.open_session(3, 8 + 5 + 1 + 7 + 4)
            contexts = [tuple(rng.integers(4, 200, size).tolist()) for size in (8, 3, 5)]
            seen += policy.sample(session, range(3), contexts, 8, [rng.random(5) for _ in range(3)], 5)
            seen += policy.sample(
                session, range(3), contexts, 8, [rng.random(4) for _ in range(3)], 4, [True, False, True]
            )
            two = policy.open_session(2, 8 + 5)
            seen += policy.sample(two, range(1, 3), contexts[1:], 8, [rng.random(5) for _ in range(2)], 5)
            seen += policy.update(range(3), [(WIDTHS, [some_turns(rng) for _ in range(3)])], [0.5, -0.4, 1.0])
        return [*seen, *policy.adapters.values]

    monkeypatch.setattr(Graphs, "__init__", record_everywhere)
    monkeypatch.setattr(graphs, "record", called)
    plain = play()
    monkeypatch.setattr(operations, "applies", lambda _: True)
    for one, other in zip(plain, play(), strict=True):
        if isinstance(one, Tensor):
            assert torch.allclose(one, other, rtol=0, atol=1e-4)
        elif hasattr(one, "tokens"):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        else:
            assert one.loss == pytest.approx(other.loss, abs=1e-4)
            assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_column_is_fed_behind_others(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the rest of a prefill in several passes, for example, in a cache with more columns behind it."""
    if DEVICE != "cpu":
        pytest.skip("kernels on a CPU's tensors need Triton's interpreter")
    monkeypatch.setattr(operations, "applies", lambda _: True)
    policy = make_policy(2, family=family, dtype=torch.float32)
    stir(policy)
    contexts = [tuple(range(4, 13)), tuple(range(20, 26))]

    def logits(parts: int) -> Tensor:
        policy.adapters.select(range(2))
        session = policy.new_session(2, 16)
        session.parameters = int(2e13) if parts > 1 else 1
        session.prefill(contexts, 9)
        assert session.logits is not None
        return session.logits

    close(logits(2), logits(1))
