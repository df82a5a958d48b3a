"""Fused parts of a model compute what transformers' own code computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from toys import toy_model
from transformers import AutoModelForCausalLM, PreTrainedModel

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


def test_another_rotation_is_left_alone() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.q_proj(x) + self.k_proj(x)
            return output

    model = nn.Sequential(Attention())
    fuse(model)
    assert "forward" not in vars(model[0])
