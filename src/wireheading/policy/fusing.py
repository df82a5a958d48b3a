"""Parts of a decoder layer in fewer operations than transformers' own code takes for the same formulas.

A decode step is made of many operations that are short. An update is not: there, gradients of what was joined would be
copied to be joined as well, which takes longer than what it saves.
"""

from __future__ import annotations

import sys
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama import modeling_llama

from wireheading.policy.joint import JointLinear


def fuse(model: nn.Module) -> None:
    """Lets a model's norms, rotary embeddings and gated layers compute in few operations.

    Parts of other formulas than those known here stay as they are.
    """
    modules = list(model.modules())
    for module in modules:
        _fuse_norm(module)
        _fuse_gate(module)
    _fuse_rotation(modules)


def _fuse_norm(module: Any) -> None:
    """Root-mean-square norms (arXiv 1910.07467), rounded once instead of twice."""
    if _is_of_llama(type(module).forward, modeling_llama.LlamaRMSNorm.forward):
        module.forward = partial(_normalise, module)
    elif type(module).__name__ == "Gemma2RMSNorm":
        # It multiplies by one more than its weight, and in float32 whatever the model's type.
        module.forward = partial(_normalise_wide, module.weight.detach().float() + 1, module.eps)


def _normalise(module: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


def _normalise_wide(weight: Tensor, epsilon: float, x: Tensor) -> Tensor:
    return functional.rms_norm(x.float(), weight.shape, weight, epsilon).to(x.dtype)


def _fuse_gate(module: Any) -> None:
    """Gated linear units (arXiv 2002.05202) whose two projections are one product."""
    if _is_of_llama(type(module).forward, modeling_llama.LlamaMLP.forward) and all(
        type(layer) is nn.Linear for layer in (module.gate_proj, module.up_proj)
    ):
        module.forward = partial(_gated, module, JointLinear([module.gate_proj, module.up_proj]))


def _gated(module: Any, joint: JointLinear, x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        output: Tensor = type(module).forward(module, x)
        return output
    gate, up = joint(x).chunk(2, dim=-1)
    output = module.down_proj(module.act_fn(gate) * up)
    return output


def _fuse_rotation(modules: list[Any]) -> None:
    """Rotary position embeddings (arXiv 2104.09864) with the sign in the sine instead of in the halves."""
    attentions = [module for module in modules if hasattr(module, "q_proj") and hasattr(module, "k_proj")]
    # The sine is changed for all of them, so all must be known to take it.
    if not attentions or not all(_rotates_as_llama(module) for module in attentions):
        return
    for module in attentions:
        # The layer's own code, with another function where it calls this one.
        forward = type(module).forward
        names = {
            **forward.__globals__,
            "apply_rotary_pos_emb": partial(_rotate, forward.__globals__["apply_rotary_pos_emb"]),
        }
        module.forward = partial(FunctionType(forward.__code__, names, None, forward.__defaults__), module)
    for module in modules:
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = partial(_signed, module.forward)


def _rotates_as_llama(attention: nn.Module) -> bool:
    """Whether an attention layer rotates by functions that are Llama's, of which each architecture has its copy."""
    theirs = sys.modules[type(attention).__module__]
    return "apply_rotary_pos_emb" in type(attention).forward.__code__.co_names and all(
        _is_of_llama(getattr(theirs, name, None), getattr(modeling_llama, name))
        for name in ("apply_rotary_pos_emb", "rotate_half")
    )


def _is_of_llama(function: Any, llamas: Any) -> bool:
    """Whether a function is a copy of one of Llama's: made of the same instructions, whatever it is called."""
    code, theirs = getattr(function, "__code__", None), llamas.__code__
    return code is not None and all(
        getattr(code, part) == getattr(theirs, part) for part in ("co_code", "co_consts", "co_names")
    )


def _signed(forward: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    cos, sin = forward(*args, **kwargs)
    if torch.is_grad_enabled():
        return cos, sin
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


def _rotate(theirs: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates queries and keys, `[rows, heads, columns, size]`, by angles `[rows, columns, size]`."""
    if torch.is_grad_enabled():
        queries, keys = theirs(query, key, cos, sin)
        return queries, keys
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    both = torch.cat([query, key], dim=1)
    first, second = both.chunk(2, dim=-1)
    rotated = torch.addcmul(both * cos, torch.cat([second, first], dim=-1), sin)
    queries, keys = rotated.split([query.shape[1], key.shape[1]], dim=1)
    return queries, keys
