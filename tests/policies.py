"""Policies of toy models, and PEFT's and PyTorch's updates to compare theirs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import peft
import pytest
import torch
from toys import toy_chat, toy_model

from wireheading.policy.policy import Policy
from wireheading.policy.update import Step, Turn, Width
from wireheading.study.sections import LoraConfig, OptimizerConfig

FAMILIES = ["llama", "mistral", "mistral-window", "gemma2", "qwen2", "qwen3"]
WIDTHS = [Width(8, 5), Width(7, 4)]


def make_policy(
    slots: int,
    *,
    family: str = "llama",
    dtype: torch.dtype = torch.float64,
    chunk: int = 4,
    lr: float = 1e-2,
    choices: Mapping[str, Sequence[Sequence[int]]] = MappingProxyType({}),
    lagged: Sequence[int] = (),
) -> Policy:
    """A policy of toys whose slots start from different seeds."""
    policy = Policy(
        toy_model(family, dtype),
        toy_chat(),
        slots=slots,
        chunk=chunk,
        lora=LoraConfig(rank=3, alpha=7),
        optimizer=OptimizerConfig(lr=lr),
        temperature=0.8,
        choices=choices,
        lagged=lagged,
    )
    for slot in range(slots):
        policy.adapters.initialise(slot, seed=slot)
    return policy


def some_turns(rng: np.random.Generator, trained: tuple[bool, bool] = (True, True)) -> tuple[Turn, ...]:
    """A turn of random tokens for each of `WIDTHS`."""

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.integers(4, 200, rng.integers(1, most + 1)).tolist())

    return tuple(
        Turn(tokens(width.context), tokens(width.sampled), trained=turn_trained)
        for width, turn_trained in zip(WIDTHS, trained, strict=True)
    )


def allowed_logprobs(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a toy's tokens at temperature 0.8, its special tokens but the stop token left out."""
    special = torch.tensor([token for token in toy_chat().special_tokens.values() if token != 3])
    return torch.log_softmax((logits / 0.8).index_fill(-1, special, -torch.inf), dim=-1)


def stir(policy: Policy, seed: int = 0) -> None:
    """Gives every slot an adapter that does something."""
    torch.manual_seed(seed)
    policy.adapters.values.normal_(std=0.2)
    policy.adapters.publish(slice(None))


class PeftOracle:
    """The same adapter in PEFT, updated by `torch.optim.AdamW`."""

    def __init__(self, policy: Policy, slot: int, folder: Path):
        self.slot, self.folder = slot, folder
        policy.adapters.save_peft(slot, folder / "start", "toy")
        base = toy_model(policy.model.config.model_type)
        self.model = peft.PeftModel.from_pretrained(base, folder / "start", is_trainable=True).eval()
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-2, weight_decay=0.01)

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """The logits after each of some tokens."""
        logits: torch.Tensor = self.model(torch.tensor([[*tokens]])).logits[0]
        return logits

    def check(self, step: Step, logprobs: torch.Tensor, loss: torch.Tensor) -> None:
        """Makes an update with a loss and compares another one with it."""
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        assert step.loss == pytest.approx(loss.item(), rel=1e-8, abs=1e-10)
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-8)
        assert step.logprobs == pytest.approx(logprobs.tolist(), rel=1e-8)

    def check_parameters(self, policy: Policy) -> None:
        """Compares a policy's parameters with those in PEFT."""
        policy.adapters.save_peft(self.slot, self.folder / "end", "toy")
        for name, value in peft.load_peft_weights(str(self.folder / "end"), device="cpu").items():
            expected = self.parameters[name.replace(".weight", ".default.weight")]
            assert torch.allclose(value, expected, rtol=0, atol=1e-8), name
