"""The policy beside the base model and beside its own past: divergence, its gradient, past adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from policies import WIDTHS, allowed_logprobs, make_policy, some_turns, stir
from test_choice import STOP, TEXTS, chosen_logprobs
from toys import toy_model

from wireheading.policy.update import Turn


@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
def test_the_divergence_is_summed_over_trained_tokens_as_peft_has_them(
    tmp_path: Path, trained: tuple[bool, bool]
) -> None:
    policy = make_policy(3)
    turns = some_turns(np.random.default_rng(0), trained)
    assert policy.divergence(1, [(WIDTHS, turns)]) == 0.0, "an untrained adapter is the base model"
    stir(policy)
    policy.adapters.save_peft(1, tmp_path, "toy")
    model = peft.PeftModel.from_pretrained(toy_model(), tmp_path).eval()

    def expected(turns: tuple[Turn, ...]) -> float:
        tokens = torch.tensor([[token for turn in turns for token in turn.context + turn.sampled]])
        own = allowed_logprobs(model(tokens).logits[0])
        with model.disable_adapter():
            difference = own - allowed_logprobs(model(tokens).logits[0])
        at, found = 0, 0.0
        for turn in turns:
            places = range(at + len(turn.context), at + len(turn.context) + len(turn.sampled))
            at = places.stop
            found += turn.trained * sum(difference[place - 1, tokens[0, place]].item() for place in places)
        return found

    assert policy.divergence(1, [(WIDTHS, turns)]) == pytest.approx(expected(turns), rel=1e-9)
    # Each turn in a session of its own.
    apart = [(WIDTHS[index : index + 1], turns[index : index + 1]) for index in range(2)]
    assert policy.divergence(1, apart) == pytest.approx(sum(expected((turn,)) for turn in turns), rel=1e-9)


def test_reinforce_on_the_divergence_is_the_gradient_of_kullback_leibler(tmp_path: Path) -> None:
    """Over all texts that can be chosen, each weighted with its probability, against autograd through PEFT."""
    policy = make_policy(2, choices={"grade": TEXTS})
    stir(policy)
    policy.adapters.save_peft(1, tmp_path, "toy")
    model = peft.PeftModel.from_pretrained(toy_model(), tmp_path, is_trainable=True).eval()
    context, divergence = (5, 6, 7), torch.zeros((), dtype=torch.float64)
    chunk = policy.chunk_of(range(1, 2), tuple(WIDTHS[:1]))
    for text in TEXTS:
        tokens = (*text, STOP)
        whole = torch.tensor([[*context, *tokens]])
        own = chosen_logprobs(model(whole).logits[0, len(context) - 1 :], tokens).sum()
        with torch.no_grad(), model.disable_adapter():
            base = chosen_logprobs(model(whole).logits[0, len(context) - 1 :], tokens).sum()
        divergence = divergence + own.exp() * (own - base)
        turn = Turn(context, tokens, trained=True, start=policy.allowed.starts["grade"])
        found = policy.divergence(1, [(WIDTHS[:1], (turn,))])
        assert found == pytest.approx((own - base).item(), rel=1e-9)
        # A penalty is a negative reward.
        chunk.fill([(turn,)], [1], [-found * own.exp().item()])
        chunk.accumulate()
    divergence.backward()
    assert divergence.item() > 0
    for (name, factor), grads in policy.adapters._views(policy.adapters.grads).items():
        expected = model.get_parameter(f"base_model.model.{name}.lora_{factor.upper()}.default.weight").grad
        assert expected is not None
        assert torch.allclose(grads[1], expected, rtol=1e-7, atol=1e-10), name


def test_a_comparison_leaves_the_policy_and_its_neighbours_as_they_were() -> None:
    policy = make_policy(3)
    stir(policy)
    rng = np.random.default_rng(0)
    turns = [some_turns(rng) for _ in range(3)]
    alone = policy.divergence(1, [(WIDTHS, turns[1])])
    before = {name: value.clone() for name, value in vars(policy.adapters).items() if isinstance(value, torch.Tensor)}
    policy.divergence(0, [(WIDTHS, turns[0])])
    policy.select(range(3), adapted=True)
    for name, value in before.items():
        assert torch.equal(getattr(policy.adapters, name), value) or name == "slot_mask"
    assert policy.divergence(1, [(WIDTHS, turns[1])]) == alone


def test_a_past_adapter_is_the_copy_before_the_last(tmp_path: Path) -> None:
    policy, other = make_policy(3, lagged=[0, 2]), make_policy(3, lagged=[0, 2])
    rng = np.random.default_rng(0)
    past, contexts = range(3, 5), [(5, 6, 7, 8), (9, 10)]
    for copy in range(4):
        policy.adapters.save_peft(2, tmp_path / str(copy), "toy")
        for slot in (0, 2):
            policy.adapters.remember(slot)
        for _ in range(2):
            policy.update(range(3), [(WIDTHS, [some_turns(rng) for _ in range(3)])], [1.0, -1.0, 1.0])
        session = policy.open_session(2, 16)
        completion = policy.sample(session, past, contexts, 8, [rng.random(5) for _ in past], 5)[1]
        model = peft.PeftModel.from_pretrained(toy_model(), tmp_path / str(max(0, copy - 1))).eval()
        logits = model(torch.tensor([contexts[1] + completion.tokens])).logits[0, len(contexts[1]) - 1 : -1]
        expected = allowed_logprobs(logits)[range(len(completion.tokens)), [*completion.tokens]]
        assert completion.logprobs == pytest.approx(expected.tolist(), rel=1e-8)
        # What a checkpoint holds is enough to resume.
        other.adapters.restore(2, policy.adapters.state(2))
        assert torch.equal(other.adapters.values[[2, 4]], policy.adapters.values[[2, 4]])
        assert torch.equal(other.adapters.copies[1], policy.adapters.copies[1])
        assert not torch.equal(other.adapters.values[3], policy.adapters.values[3]) or copy < 2
