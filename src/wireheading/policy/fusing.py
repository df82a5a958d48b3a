"""Parts of a decoder layer in fewer operations than transformers' own code takes for the same formulas.

A decode step is made of many short operations. On a CPU an update is not: there, gradients of what was joined would
have to be joined as well, which takes longer than it saves. So all but the norms compute as usual where gradients are
wanted. A GPU takes kernels of its own (`operations`), in updates too.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wireheading.policy import operations
from wireheading.policy.joint import JointLinear

FAMILIES = ("llama", "mistral", "gemma2", "qwen2", "qwen3")
"""The architectures of transformers whose norms, gated layers and rotations are known to be those computed here."""

PLAIN = ("Llama", "Mistral", "Qwen2")
"""Those whose attention is nothing but projections, a rotation and a product, all with the mask that it is given."""


def fuse(model: nn.Module) -> None:
    """Lets the parts of a model of a known architecture compute in few operations, and leaves any other as it is."""
    modeling = type(model).__module__
    if modeling not in (f"transformers.models.{family}.modeling_{family}" for family in FAMILIES):
        return
    joints: dict[nn.Module, JointLinear] = {}
    for module in model.modules():
        kind = type(module).__name__
        if kind == "Gemma2RMSNorm":
            _fuse_gemma_norm(module)
        elif kind.endswith("RMSNorm"):
            module.forward = partial(_normalise, module)
        elif kind.endswith("MLP"):
            _fuse_gate(module, joints)
    _fuse_rotation(sys.modules[modeling])
    if operations.applies(next(model.parameters())):
        for module in model.modules():
            kind = type(module).__name__
            if kind.removesuffix("Attention") in PLAIN:
                _fuse_decoding(module)
            elif kind.endswith("DecoderLayer") and "Gemma" not in kind:
                _fuse_layer(module, joints)


def _normalise(norm: Any, x: Tensor) -> Tensor:
    """Root-mean-square normalisation (arXiv 1910.07467), rounded once instead of twice."""
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _fuse_gemma_norm(norm: Any) -> None:
    """Gemma's multiplies by one more than its weight, and in float32 whatever the model's type."""
    weight = norm.weight.detach().float() + 1

    def normalise(x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), weight.shape, weight, norm.eps).to(x.dtype)

    norm.forward = normalise


def _fuse_gate(layer: Any, joints: dict[nn.Module, JointLinear]) -> None:
    """A gated linear unit (arXiv 2002.05202) whose two projections are one product."""
    if not all(type(projection) is nn.Linear for projection in (layer.gate_proj, layer.up_proj)):
        return
    joints[layer] = joint = JointLinear([layer.gate_proj, layer.up_proj])
    usual, silu = layer.forward, _is_silu(layer.act_fn)

    def gated(x: Tensor) -> Any:
        if silu and operations.applies(x):
            return layer.down_proj(operations.gate(joint(x)))
        if torch.is_grad_enabled():
            return usual(x)
        gate, up = joint(x).chunk(2, dim=-1)
        return layer.down_proj(layer.act_fn(gate) * up)

    layer.forward = gated


def _is_silu(function: nn.Module) -> bool:
    return type(function).__name__ in ("SiLU", "SiLUActivation")


def _fuse_rotation(modeling: Any) -> None:
    """Rotary position embeddings (arXiv 2104.09864) of queries and keys together.

    Attention layers call a function of their module, so that function is replaced, once for all models.
    """
    usual = modeling.apply_rotary_pos_emb
    if getattr(usual, "func", None) is not _rotate:
        modeling.apply_rotary_pos_emb = partial(_rotate, usual)


def _rotate(usual: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Any:
    """Rotates queries and keys, `[rows, heads, columns, size]`, by angles `[rows, columns, size]`."""
    if operations.applies(query):
        return operations.rotate(query, cos, sin), operations.rotate(key, cos, sin)
    if torch.is_grad_enabled():
        return usual(query, key, cos, sin)
    both = torch.cat([query, key], dim=1)
    first, second = both.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    rotated = torch.addcmul(both * cos.unsqueeze(1), turned, sin.unsqueeze(1))
    return rotated.split([query.shape[1], key.shape[1]], dim=1)


def _fuse_decoding(layer: Any) -> None:
    """Attention of a decode step: one operation from the projections to the cache, and one from there."""
    usual = layer.forward

    def attend(
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor,
        past_key_values: Any = None,
        **others: Any,
    ) -> Any:
        if past_key_values is None or isinstance(past_key_values.at, slice):
            return usual(hidden_states, position_embeddings, attention_mask, past_key_values, **others)
        q, k, v = (projection(hidden_states) for projection in (layer.q_proj, layer.k_proj, layer.v_proj))
        cos, sin = position_embeddings
        keys, values = past_key_values.layer(layer.layer_idx)
        query = operations.place(q, k, v, cos, sin, keys, values, past_key_values.at)
        attended = operations.attend(query, keys, values, attention_mask, layer.scaling, past_key_values.bounds)
        return layer.o_proj(attended.view(len(query), 1, -1)), None

    layer.forward = attend


def _fuse_layer(layer: Any, joints: dict[nn.Module, JointLinear]) -> None:
    """A decoder layer that samples: its first sum with the norm that follows, its second with the product before."""
    joint, norm, down, usual = joints.get(layer.mlp), layer.post_attention_layernorm, layer.mlp.down_proj, layer.forward
    if joint is None or type(down) is not nn.Linear or down.bias is not None or not _is_silu(layer.mlp.act_fn):
        return

    def forward(hidden_states: Tensor, **others: Any) -> Any:
        if torch.is_grad_enabled():
            return usual(hidden_states, **others)
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **others)
        total, x = operations.add_norm(hidden_states, attended, norm.weight, norm.variance_epsilon)
        inner = operations.gate(joint(x))
        total.view(-1, total.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), down.weight.t())
        return total

    layer.forward = forward
