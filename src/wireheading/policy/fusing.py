"""Parts of a decoder layer in fewer operations than transformers' own code takes for the same formulas.

A decode step is made of many short operations. An update is not: there, gradients of what was joined would have to be
joined as well, which takes longer than it saves. So all but the norms compute as usual where gradients are wanted.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wireheading.policy.joint import JointLinear

FAMILIES = ("llama", "mistral", "gemma2", "qwen2", "qwen3")
"""The architectures of transformers whose norms, gated layers and rotations are known to be those computed here."""


def fuse(model: nn.Module) -> None:
    """Lets the parts of a model of a known architecture compute in few operations, and leaves any other as it is."""
    modeling = type(model).__module__
    if modeling not in (f"transformers.models.{family}.modeling_{family}" for family in FAMILIES):
        return
    for module in model.modules():
        kind = type(module).__name__
        if kind == "Gemma2RMSNorm":
            _fuse_gemma_norm(module)
        elif kind.endswith("RMSNorm"):
            module.forward = partial(_normalise, module)
        elif kind.endswith("MLP"):
            _fuse_gate(module)
    _fuse_rotation(sys.modules[modeling])


def _normalise(norm: Any, x: Tensor) -> Tensor:
    """Root-mean-square normalisation (arXiv 1910.07467), rounded once instead of twice."""
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _fuse_gemma_norm(norm: Any) -> None:
    """Gemma's multiplies by one more than its weight, and in float32 whatever the model's type."""
    weight = norm.weight.detach().float() + 1

    def normalise(x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), weight.shape, weight, norm.eps).to(x.dtype)

    norm.forward = normalise


def _fuse_gate(layer: Any) -> None:
    """A gated linear unit (arXiv 2002.05202) whose two projections are one product."""
    if not all(type(projection) is nn.Linear for projection in (layer.gate_proj, layer.up_proj)):
        return
    joint, usual = JointLinear([layer.gate_proj, layer.up_proj]), layer.forward

    def gated(x: Tensor) -> Any:
        if torch.is_grad_enabled():
            return usual(x)
        gate, up = joint(x).chunk(2, dim=-1)
        return layer.down_proj(layer.act_fn(gate) * up)

    layer.forward = gated


def _fuse_rotation(modeling: Any) -> None:
    """Rotary position embeddings (arXiv 2104.09864) of queries and keys together.

    Attention layers call a function of their module, so that function is replaced, once for all models.
    """
    usual = modeling.apply_rotary_pos_emb
    if getattr(usual, "func", None) is not _rotate:
        modeling.apply_rotary_pos_emb = partial(_rotate, usual)


def _rotate(usual: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Any:
    """Rotates queries and keys, `[rows, heads, columns, size]`, by angles `[rows, columns, size]`."""
    if torch.is_grad_enabled():
        return usual(query, key, cos, sin)
    both = torch.cat([query, key], dim=1)
    first, second = both.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    rotated = torch.addcmul(both * cos.unsqueeze(1), turned, sin.unsqueeze(1))
    return rotated.split([query.shape[1], key.shape[1]], dim=1)
