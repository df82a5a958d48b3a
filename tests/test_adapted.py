"""The product of joined layers and their adapters that a GPU takes, on the CPU against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wireheading.policy.adapted import Joint

SLOTS, RANK, SIZE, SCALE = 3, 2, 6, 0.5


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_of_layers_with_and_without_a_bias(bias: bool) -> None:
    random = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    layers = [nn.Linear(SIZE, out, bias=bias, dtype=torch.float64).requires_grad_(False) for out in (8, 4, 4)]
    a = [some(SLOTS, RANK, SIZE).requires_grad_() for _ in layers]
    bs = [some(SLOTS, layer.out_features, RANK).requires_grad_() for layer in layers]
    x, given = some(SLOTS, 5, SIZE).requires_grad_(), some(SLOTS, 5, 16)
    plain = torch.cat([layer(x) + SCALE * x @ a_.mT @ b.mT for layer, a_, b in zip(layers, a, bs, strict=True)], dim=-1)
    expected = torch.autograd.grad(plain, [x, *a, *bs], given)

    joint = Joint(layers, SCALE, 0)
    stacked = torch.cat(a, dim=1).detach().requires_grad_()
    joint.leaves = [stacked, *bs]
    joint.a, joint.finite = stacked.detach(), torch.ones(SLOTS, dtype=torch.float64)
    joint.b = SCALE * torch.stack([torch.block_diag(*(b[slot].detach().T for b in bs)) for slot in range(SLOTS)])
    adapted = joint.adapted(x, joint.base(x))
    assert torch.allclose(adapted, plain, rtol=1e-12, atol=1e-12)
    grad_x, grad_a, *grad_bs = torch.autograd.grad(adapted, [x, stacked, *bs], given)
    for found, exact in zip([grad_x, *grad_a.split(RANK, dim=1), *grad_bs], expected, strict=True):
        assert torch.allclose(found, exact, rtol=1e-12, atol=1e-12)
