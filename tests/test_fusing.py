"""Fused parts of a model compute what transformers' own code computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from toys import toy_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from wireheading.policy.fusing import fuse


@pytest.mark.parametrize("family", ["llama", "mistral", "mistral-window", "gemma2", "qwen3"])
def test_a_fused_model_says_the_same(family: str) -> None:
    prepared = toy_model(family)
    plain: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(prepared.config), dtype=torch.float64)
    plain.load_state_dict(prepared.state_dict())
    tokens = torch.randint(4, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    plain.set_attn_implementation("eager")
    prepared.set_attn_implementation("eager")
    # Their norms and their softmax are in float32, hence the tolerance.
    expected = plain(tokens, use_cache=False).logits
    assert torch.allclose(prepared(tokens, use_cache=False).logits, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(prepared(tokens, use_cache=False).logits, expected, rtol=0, atol=1e-5)
    replaced = {type(module).__name__ for module in prepared.modules() if "forward" in vars(module)}
    kinds = {"RMSNorm", "MLP", "Attention", "RotaryEmbedding"}
    assert {kind for kind in kinds if any(name.endswith(kind) for name in replaced)} == kinds


class Attention(nn.Module):
    """An attention that calls a rotation which is not in this module."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = apply_rotary_pos_emb(self.q_proj(x), self.k_proj(x))  # type: ignore[name-defined]  # noqa: F821
        return output


class HalvedMLP(nn.Module):
    """A gated layer of another formula, with the names of the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down_proj(self.act_fn(0.5 * self.gate_proj(x)) * self.up_proj(x))
        return output


class OddRMSNorm(nn.Module):
    """A norm of another formula, with the names of the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(4)), 1e-6

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return (1 + self.weight) * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


@pytest.mark.parametrize("other", [Attention, HalvedMLP, OddRMSNorm, LlamaRotaryEmbedding])
def test_what_has_another_formula_is_left_alone(other: Callable[..., nn.Module]) -> None:
    # Angles without an attention that is known to take them with another sign are left alone too.
    part = other(LlamaConfig()) if other is LlamaRotaryEmbedding else other()
    fuse(nn.Sequential(part))
    assert "forward" not in vars(part)
