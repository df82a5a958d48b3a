"""A model of random weights in 4 bits, made layer by layer, so that it never lies in memory in 16."""

from __future__ import annotations

import torch
from bitsandbytes.nn import Linear4bit, Params4bit  # type: ignore[attr-defined]
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def quantized_llama(shape: LlamaConfig, device: torch.device) -> LlamaForCausalLM:
    """A Llama whose linear layers, but for the last, are in NF4 with double quantization, computed in bfloat16."""
    with torch.device("meta"):
        model: LlamaForCausalLM = LlamaForCausalLM._from_config(shape, dtype=torch.bfloat16)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _random_nf4(module.in_features, module.out_features, device))
    for parameter_name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            values = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
            values = values.fill_(1.0) if parameter.ndim == 1 else values.normal_(std=0.02)
            parent, _, child = parameter_name.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.Parameter(values, requires_grad=False))
    # Its frequencies are no weights, so they are computed where they are used.
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(shape)
    return model


def _random_nf4(inputs: int, outputs: int, device: torch.device) -> nn.Module:
    layer = Linear4bit(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
    weight = torch.empty(outputs, inputs, dtype=torch.bfloat16, device=device).normal_(std=0.02)
    layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    quantized: nn.Module = layer.to(device)
    return quantized
