"""Fused parts of a model compute what transformers' own code computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import toy_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from wireheading.policy import operations
from wireheading.policy.fusing import fuse


@pytest.mark.parametrize("family", ["llama", "mistral", "mistral-window", "gemma2", "qwen2", "qwen3"])
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
    assert {kind for kind in ("RMSNorm", "MLP") if any(name.endswith(kind) for name in replaced)} == {"RMSNorm", "MLP"}


def test_the_kernel_is_given_angles_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is told no positions has one row of them, behind which the kernel would read what lies there."""
    given: list[Tensor] = []
    monkeypatch.setattr(operations, "_launch", lambda _name, _x, cos, sin, _out, _sign: given.extend([cos, sin]))
    cos, sin = torch.rand(2, 1, 5, 8)
    operations.rotate(torch.rand(3, 4, 5, 8), cos, sin)
    for angles, row in zip(given, (cos, sin), strict=True):
        assert angles.is_contiguous()
        assert torch.equal(angles, row.expand(3, -1, -1))


class OddMLP(nn.Module):
    """A gated layer of another formula, with the names of the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = nn.SiLU()


def test_models_of_other_architectures_are_left_alone() -> None:
    part = OddMLP()
    fuse(nn.Sequential(part))
    assert "forward" not in vars(part)
