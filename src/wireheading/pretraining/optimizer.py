"""Muon: momentum whose update of each weight matrix is made orthogonal.

torch.optim.Muon does the same in bfloat16, one matrix at a time; on a CPU that takes twenty times as long for a model
of many small matrices as this batched version in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration (K. Jordan et al., Muon, 2024)."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for weight matrices."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.9):
        """Takes the matrices, the learning rate in units of AdamW's, and the decay of the momentum."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient, those of one shape together."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in shapes.items():
                gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
                state = self.state[matrices[0]]
                if not state:
                    state["momentum"] = torch.zeros_like(gradients)
                state["momentum"].lerp_(gradients, 1 - group["momentum"])
                updates = orthogonalised(gradients.lerp(state["momentum"], group["momentum"]))
                # An orthogonal matrix has entries of size max(shape)**-0.5; AdamW's updates are near 0.2.
                scale = 0.2 * max(shape) ** 0.5
                torch._foreach_add_(matrices, list(updates), alpha=-group["lr"] * scale)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, roughly: singular values end between 0.7 and 1.2.

    Args:
        matrices: `[count, rows, columns]`.
        steps: Newton-Schulz iterations.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    upright = matrices if wide else matrices.mT
    x: Tensor = upright / (torch.linalg.matrix_norm(upright, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
