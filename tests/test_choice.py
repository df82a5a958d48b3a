"""Grades that are chosen: sampled, scored and updated under the same mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import WIDTHS, PeftOracle, make_policy, stir
from test_lockstep import make_study
from toys import toy_chat

from wireheading.engine.prompts import choices, grade_texts
from wireheading.errors import InputError
from wireheading.policy.scoring import text_probabilities
from wireheading.policy.update import Turn, lay_out, sampled_columns, teacher_forced

TEXTS = [(20,), (20, 21), (20, 22, 23), (30,), (31, 20)]
STOP = 3


def chosen_logprobs(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of a chosen text and its stop token, from the logits before each of them."""
    found = []
    for place, token in enumerate(tokens):
        prefix = tuple(tokens[:place])
        allowed = {text[place] for text in TEXTS if text[:place] == prefix and len(text) > place}
        allowed |= {STOP} if prefix in TEXTS else set()
        kept = sorted(allowed)
        found.append(torch.log_softmax(logits[place, kept] / 0.8, dim=-1)[kept.index(token)])
    return torch.stack(found)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_what_is_chosen_is_sampled_scored_and_updated_under_one_mask(family: str) -> None:
    policy = make_policy(3, family=family, choices={"other": [(40, 41)], "grade": TEXTS})
    stir(policy)
    start = policy.allowed.starts["grade"]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(12):
        contexts = [tuple(rng.integers(4, 200, size).tolist()) for size in (8, 3, 5)]
        session = policy.open_session(3, 24)
        policy.select(range(3), adapted=True)
        scores = text_probabilities(session, contexts, 8, TEXTS, 0.8, start)
        assert torch.allclose(scores.sum(dim=1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-9)
        # One row of three is sampled freely.
        completions = session.decode([rng.random(5) for _ in range(3)], 5, 0.8, [start, 0, start])
        turns = [
            (Turn(context, completion.tokens, trained=True, start=completion.start),)
            for context, completion in zip(contexts, completions, strict=True)
        ]
        batch, columns = lay_out(turns, WIDTHS[:1], 0, policy.allowed), sampled_columns(WIDTHS[:1])
        forced = teacher_forced(policy.model, batch, columns, 0.8, policy.allowed)
        for row in range(3):
            sampled = torch.tensor(completions[row].logprobs, dtype=torch.float64)
            assert torch.allclose(forced[row, : len(sampled)], sampled, rtol=0, atol=1e-9)
        for row in (0, 2):
            *text, last = completions[row].tokens
            assert (last, completions[row].stopped) == (STOP, True)
            policy.adapters.select(range(row, row + 1))
            whole = torch.tensor([contexts[row] + completions[row].tokens])
            plain = policy.model(whole, use_cache=False).logits[0, len(contexts[row]) - 1 :]
            expected = chosen_logprobs(plain, completions[row].tokens)
            assert torch.allclose(
                torch.tensor(completions[row].logprobs, dtype=torch.float64), expected, rtol=0, atol=1e-9
            )
            score = scores[row, TEXTS.index(tuple(text))]
            assert score.item() == pytest.approx(expected.sum().exp().item(), rel=1e-9)
            seen.add(tuple(text))
    assert len(seen) > 2


def test_an_update_of_choices_is_peft_and_torch_adamw(tmp_path: Path) -> None:
    policy = make_policy(2, choices={"grade": TEXTS})
    oracle = PeftOracle(policy, 1, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(10):
        context, text = tuple(rng.integers(4, 200, 6).tolist()), (*TEXTS[rng.integers(len(TEXTS))], STOP)
        turn = Turn(context, text, trained=True, start=policy.allowed.starts["grade"])
        step = policy.update(range(2), [(WIDTHS[:1], [(turn,)] * 2)], [0.3, -0.7])[1]
        logprobs = chosen_logprobs(oracle.logits(context + text)[len(context) - 1 :], text)
        oracle.check(step, logprobs, 0.7 * logprobs.mean())
    oracle.check_parameters(policy)


def test_every_grade_must_fit_into_its_limit_to_be_chosen(tmp_path: Path) -> None:
    study, chat = make_study(tmp_path, grading="choice"), toy_chat()
    # Three tokens of which the last is a stop token.
    assert {chat.text(text) for text in grade_texts(study, "sentiment", chat)} == {"0", "0.", "No", "1", "1."}
    assert choices(make_study(tmp_path), chat) == {}
    tasks = study.model_dump()["tasks"]
    tasks["sentiment"]["grade_tokens"] = 1
    with pytest.raises(
        InputError, match=r"tasks\.sentiment\.grade_tokens = 1: the grade 0\.0 takes 2; raise the limit"
    ):
        choices(make_study(tmp_path, grading="choice", tasks=tasks), chat)
