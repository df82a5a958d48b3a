"""What the benchmark measures the engine against answers as the engine does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from baselines import Generate, OneRun, TokenByToken
from configs import changed
from policies import WIDTHS, make_policy
from setting import random_setting
from toys import toy_chat, toy_model

from wireheading.engine.prompts import grading_tokens, prompt_tokens
from wireheading.policy.update import Turn
from wireheading.study.config import load_study


@pytest.mark.parametrize("baseline", [TokenByToken, Generate])
def test_a_baseline_samples_the_engine_s_tokens_and_has_its_loss(baseline: type[OneRun]) -> None:
    study = load_study(changed(temperature=0.8))
    policy = make_policy(1)
    other = baseline(toy_model(dtype=torch.float64), toy_chat(), study)
    rng = np.random.default_rng(3)
    for _ in range(5):
        prompt, grading = (tuple(rng.integers(4, 200, 6).tolist()) for _ in WIDTHS)
        draws = [rng.random(width.sampled) for width in WIDTHS]
        session = policy.open_session(1, sum(width.context + width.sampled for width in WIDTHS) + 1)
        ours = policy.sample(session, range(1), [prompt], WIDTHS[0].context, draws[:1], WIDTHS[0].sampled)[0]
        context = (ours.tokens[-1], *grading)
        grade = policy.sample(session, range(1), [context], 1 + WIDTHS[1].context, draws[1:], WIDTHS[1].sampled)[0]
        theirs = other.respond(prompt, draws[0]), other.grade(context, draws[1])
        for one, two in zip((ours, grade), theirs, strict=True):
            assert one.tokens == two.tokens
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-6)

        turns = Turn(prompt, ours.tokens, trained=True), Turn(grading, grade.tokens, trained=True)
        logprobs = np.array(ours.logprobs + grade.logprobs)
        # Nothing is learnt from an advantage of 0, so that the next round begins with the same adapters.
        assert other.update(turns, 0.0).loss == 0.0
        assert other.logprobs(turns).tolist() == pytest.approx(logprobs, abs=1e-6)


def test_a_model_of_random_weights_is_given_prompts_that_fill_the_limits() -> None:
    setting = random_setting("tiny", ["selfgrade"], 1, torch.device("cpu"), fused=False)
    for item in setting.data["summarization"]:
        prompt = prompt_tokens(setting.study, "summarization", setting.chat, item)
        assert len(prompt) == 150
        assert len(grading_tokens(setting.study, "summarization", setting.chat, item, (799,))) == 40
