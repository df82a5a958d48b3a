"""The policies of all slots: one function in sampling and updates, PEFT's updates, no effect of neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import FAMILIES, WIDTHS, PeftOracle, allowed_logprobs, make_policy, some_turns, stir
from toys import toy_chat, toy_model

from wireheading.policy.policy import Policy
from wireheading.policy.update import Turn, lay_out, sampled_columns, teacher_forced
from wireheading.study.sections import LoraConfig, OptimizerConfig


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_sampling_and_the_update_see_the_same_policy_as_a_plain_forward_pass(family: str) -> None:
    policy = make_policy(3, family=family)
    stir(policy)
    slots = range(3)
    rng = np.random.default_rng(1)
    prompts = [tuple(rng.integers(4, 200, size).tolist()) for size in (8, 3, 5)]
    session = policy.open_session(3, 8 + 5 + 1 + 7 + 4)
    responses = policy.sample(session, slots, prompts, 8, [rng.random(5) for _ in slots], 5)
    suffixes = [tuple(rng.integers(4, 200, size).tolist()) for size in (2, 7, 4)]
    nexts = [(response.tokens[-1], *suffix) for response, suffix in zip(responses, suffixes, strict=True)]
    grades = policy.sample(session, slots, nexts, 8, [rng.random(4) for _ in slots], 4)
    for slot in slots:
        turns = (
            Turn(prompts[slot], responses[slot].tokens, trained=True),
            Turn(suffixes[slot], grades[slot].tokens, trained=True),
        )
        whole = torch.tensor([[token for turn in turns for token in turn.context + turn.sampled]])
        policy.adapters.select(range(slot, slot + 1))
        # Neither padding nor a cache nor a mask of ours.
        plain = allowed_logprobs(policy.model(whole, use_cache=False).logits[0])
        positions: list[int] = []
        at = 0
        for turn in turns:
            at += len(turn.context)
            positions += range(at, at + len(turn.sampled))
            at += len(turn.sampled)
        expected = plain[[p - 1 for p in positions], whole[0, positions]]
        sampled = torch.tensor(responses[slot].logprobs + grades[slot].logprobs, dtype=torch.float64)
        assert torch.allclose(sampled, expected, rtol=0, atol=1e-9)
        batch, columns = lay_out([turns], WIDTHS, 0, policy.allowed), sampled_columns(WIDTHS)
        forced = teacher_forced(policy.model, batch, columns, 0.8, policy.allowed)[0]
        assert torch.allclose(forced[batch.filled[0, columns]], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "trained", "apart"),
    [
        ("llama", (True, True), False),
        ("llama", (False, True), False),
        ("llama", (True, True), True),
        ("qwen2", (True, True), False),
    ],
    ids=["both", "grade", "each turn with an advantage of its own", "layers with a bias"],
)
def test_one_run_is_peft_and_torch_adamw(tmp_path: Path, family: str, trained: tuple[bool, bool], apart: bool) -> None:
    """Loss, gradient norm and parameters over 20 updates, against the libraries that define them."""
    policy, slot = make_policy(3, family=family), 1
    oracle = PeftOracle(policy, slot, tmp_path)
    rng = np.random.default_rng(0)
    base = {name: p.clone() for name, p in policy.model.named_parameters()}
    for _ in range(20):
        rows = [some_turns(rng, trained) for _ in range(3)]
        advantages = [float(value) for value in rng.normal(size=3)]
        if apart:
            rows = [(one, replace(other, advantage=float(rng.normal()))) for one, other in rows]
        step = policy.update(range(3), [(WIDTHS, rows)], list(advantages))[slot]

        tokens = [token for turn in rows[slot] for token in turn.context + turn.sampled]
        positions: list[int] = []
        at = 0
        for turn in rows[slot]:
            at += len(turn.context)
            positions += range(at, at + len(turn.sampled))
            at += len(turn.sampled)
        logprobs = allowed_logprobs(oracle.logits(tokens))[[p - 1 for p in positions], [tokens[p] for p in positions]]
        credited = [turn.trained for turn in rows[slot] for _ in turn.sampled]
        own = [
            advantages[slot] if turn.advantage is None else turn.advantage for turn in rows[slot] for _ in turn.sampled
        ]
        oracle.check(step, logprobs, -(torch.tensor(own, dtype=torch.float64) * logprobs)[credited].mean())
    oracle.check_parameters(policy)
    for name, value in policy.model.named_parameters():
        assert torch.equal(value, base[name]), f"{name} moved"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_change_no_bit(dtype: torch.dtype) -> None:
    """The same run among other neighbours, and among dummies, samples and learns the same bits."""

    def run(neighbours: int) -> list[object]:
        rng, mine = np.random.default_rng(neighbours), np.random.default_rng(0)
        policy = make_policy(5, dtype=dtype, chunk=2)
        seen: list[object] = []
        for _ in range(3):
            contexts = [tuple(rng.integers(4, 200, 6).tolist()) if neighbours else () for _ in range(5)]
            contexts[2] = tuple(mine.integers(4, 200, 5).tolist())
            draws = [rng.random(5) for _ in range(5)]
            draws[2] = mine.random(5)
            session = policy.open_session(5, 13)
            completion = policy.sample(session, range(5), contexts, 8, draws, 5)[2]
            rows: list[tuple[Turn, ...]] = [some_turns(rng) if neighbours else () for _ in range(5)]
            rows[2] = (Turn(contexts[2], completion.tokens, trained=True),)
            advantages: list[float | None] = [rng.normal() if neighbours else None for _ in range(5)]
            advantages[2] = 0.7
            step = policy.update(range(5), [(WIDTHS, rows)], advantages)[2]
            seen += [completion, step, policy.adapters.values[2].numpy().tobytes()]
        return seen

    assert run(0) == run(1) == run(2)


def test_a_slot_that_is_not_updated_does_not_change() -> None:
    policy = make_policy(3)
    rng = np.random.default_rng(0)
    rows = [some_turns(rng), some_turns(rng), some_turns(rng)]
    before = policy.adapters.state(1)
    policy.update(range(3), [(WIDTHS, rows)], [0.5, None, -0.5])
    assert all(torch.equal(before[name], value) for name, value in policy.adapters.state(1).items())
    assert int(policy.adapters.steps[0]) == 1
    assert not torch.equal(policy.adapters.values[0], make_policy(3).adapters.values[0])


def test_not_a_number_ends_one_run_and_leaves_its_neighbours_alone() -> None:
    rng = np.random.default_rng(0)
    rows = [some_turns(rng), some_turns(rng), some_turns(rng)]
    whole, broken = make_policy(3), make_policy(3)
    broken.adapters.values[1] = float("nan")
    broken.adapters.publish(slice(1, 2))
    advantages = [0.5, 0.5, -0.5]
    expected = whole.update(range(3), [(WIDTHS, rows)], list(advantages))
    steps = broken.update(range(3), [(WIDTHS, rows)], list(advantages))
    assert not steps[1].finite
    for slot in (0, 2):
        assert steps[slot] == expected[slot]
        assert torch.equal(broken.adapters.values[slot], whole.adapters.values[slot])
    completions = broken.sample(broken.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.5)] * 3, 5)
    assert [completion.finite for completion in completions] == [True, False, True]


def test_the_base_model_is_sampled_where_an_adapter_is_off() -> None:
    policy = make_policy(3)
    plain = policy.sample(policy.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.4)] * 3, 5)
    stir(policy)
    gated = policy.sample(
        policy.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.4)] * 3, 5, [True, False, True]
    )
    assert gated[1] == plain[1]
    assert gated[0] != plain[0]
    assert gated[2] != plain[2]


def test_a_restored_slot_resumes_to_the_same_parameters() -> None:
    rng = np.random.default_rng(0)
    batches = [[some_turns(rng) for _ in range(3)] for _ in range(4)]
    straight, broken = make_policy(3), make_policy(3)
    for policy in (straight, broken):
        for rows in batches[:2]:
            policy.update(range(3), [(WIDTHS, rows)], [0.5, -1.0, 0.2])
    state = broken.adapters.state(1)
    resumed = make_policy(3)
    resumed.adapters.restore(1, state)
    for rows in batches[2:]:
        straight.update(range(3), [(WIDTHS, rows)], [0.5, -1.0, 0.2])
        resumed.update(range(3), [(WIDTHS, rows)], [None, -1.0, None])
    assert torch.equal(straight.adapters.values[1], resumed.adapters.values[1])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_recomputed_activations_change_no_bit(family: str) -> None:
    rng = np.random.default_rng(0)
    rows = [some_turns(rng) for _ in range(3)]
    kept, again = (
        Policy(
            toy_model(family),
            toy_chat(),
            slots=3,
            chunk=2,
            lora=LoraConfig(rank=2, alpha=8),
            optimizer=OptimizerConfig(lr=1e-2),
            temperature=0.8,
            activation_checkpointing=flag,
        )
        for flag in (False, True)
    )
    for policy in (kept, again):
        for slot in range(3):
            policy.adapters.initialise(slot, slot)
    for _ in range(2):
        steps = [policy.update(range(3), [(WIDTHS, rows)], [1.0, -0.5, 0.2]) for policy in (kept, again)]
        assert steps[0] == steps[1]
    assert torch.equal(kept.adapters.values, again.adapters.values)
