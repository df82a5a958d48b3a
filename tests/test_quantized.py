"""Four bits: the base stays as it is, and adapters on it learn what they would learn on the same weights in 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import save_family
from transformers import PreTrainedModel

from wireheading.policy.chat import Chat
from wireheading.policy.model import load_model
from wireheading.policy.policy import Policy
from wireheading.policy.update import Turn, Width
from wireheading.study.sections import LoraConfig, OptimizerConfig

CPU = torch.device("cpu")
ROWS = [(Turn((5, 6, 7), (8, 9), trained=True),), (Turn((9, 3, 7, 5), (8, 8, 1), trained=True),)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    save_family(folder, "llama", wide=True)
    return folder


def quantized(model: PreTrainedModel) -> dict[str, Any]:
    """How each quantized weight is to be read, by its name."""
    return {name: weight.quant_state for name, weight in model.named_parameters() if hasattr(weight, "quant_state")}


def make_policy(model: PreTrainedModel, chat: Chat) -> Policy:
    policy = Policy(
        model,
        chat,
        slots=2,
        chunk=2,
        lora=LoraConfig(rank=2, alpha=4),
        optimizer=OptimizerConfig(lr=0.01),
        temperature=1.0,
    )
    for slot in range(2):
        policy.adapters.initialise(slot, seed=slot)
    return policy


def base_logits(policy: Policy) -> torch.Tensor:
    policy.select(range(2), adapted=False)
    with torch.no_grad():
        logits: torch.Tensor = policy.model(torch.arange(10, 30).view(2, 10), use_cache=False).logits
    return logits


def test_the_base_stays_as_it_is_while_adapters_learn(folder: Path) -> None:
    model, chat = load_model(folder, "nf4", CPU)
    states = quantized(model)
    assert len(states) == 2 * 7
    assert all(state.quant_type == "nf4" for state in states.values())
    assert all(state.nested for state in states.values()), "the scales are quantized too"
    policy = make_policy(model, chat)
    start, before = policy.adapters.values.clone(), base_logits(policy)
    weights = [weight.clone() for weight in model.parameters()]
    for _ in range(3):
        steps = policy.update(range(2), [([Width(4, 3)], ROWS)], [0.5, -0.5])
        assert all(step.finite and step.grad_norm > 0 for step in steps)
    assert (policy.adapters.values != start).any(dim=1).all()
    assert torch.equal(base_logits(policy), before)
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), weights, strict=True))


def test_gradients_are_those_of_the_same_weights_in_sixteen_bits(folder: Path) -> None:
    from bitsandbytes.functional import dequantize_4bit

    model, chat = load_model(folder, "nf4", CPU)
    plain, _ = load_model(folder, "bfloat16", CPU)
    for name, state in quantized(model).items():
        plain.get_parameter(name).copy_(dequantize_4bit(model.get_parameter(name).data, state).view(state.shape))
    policy, other = make_policy(model, chat), make_policy(plain, chat)
    # What follows is sampled and then learnt, as in a run: a pass without gradients comes first.
    assert torch.allclose(base_logits(policy), base_logits(other), rtol=0, atol=0.2)
    for one in (policy, other):
        one.adapters.values.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    steps = [one.update(range(2), [([Width(4, 3)], ROWS)], [0.5, -0.5]) for one in (policy, other)]
    for step, expected in zip(*steps, strict=True):
        assert step.loss == pytest.approx(expected.loss, rel=0.05)
        assert step.grad_norm == pytest.approx(expected.grad_norm, rel=0.05)
