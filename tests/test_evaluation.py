"""The held-out evaluation: fixed answers are graded as if they had been the policy's own responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_lockstep import make_study
from toys import toy_chat, toy_model

from wireheading.engine.evaluation import evaluate, fixed_answers, open_session
from wireheading.engine.layout import batch_size
from wireheading.engine.prompts import grade_texts, grading_tokens, prompt_tokens
from wireheading.errors import InputError
from wireheading.policy.policy import Policy
from wireheading.policy.scoring import text_probabilities
from wireheading.study.config import Study
from wireheading.tasks import TASKS, Item

ITEMS: list[Item] = [{"id": f"a{i}", "question": f"{i} + 1", "answer": i + 1} for i in range(3)]
SLOTS = range(2)


def made(folder: Path, context: str) -> tuple[Study, Policy]:
    """A study, and a policy of two slots of which the second has learnt something."""
    task = make_study(folder).model_dump()["tasks"]["arithmetic"]
    task |= {"grading_prompt": "{response} ok?", "grading_prompt_tokens": 24}
    study = make_study(folder, grading_context=context, tasks={"arithmetic": task})
    policy = Policy(
        toy_model(), toy_chat(), slots=2, chunk=2, lora=study.lora, optimizer=study.optimizer, temperature=1.0
    )
    for slot in SLOTS:
        policy.adapters.initialise(slot, seed=slot)
    values = policy.adapters.values[1]
    values += 0.2 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values)
    policy.adapters.publish(slice(1, 2))
    return study, policy


def seen(study: Study, policy: Policy) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]], list[Any]]:
    answers = fixed_answers(study, "arithmetic", policy.chat, ITEMS)
    base = evaluate(study, "arithmetic", policy, range(1), ITEMS, answers, 2, lambda: None, base=True)[0]
    answers = [row["answers"] for row in base]
    return base, evaluate(study, "arithmetic", policy, SLOTS, ITEMS, answers, 2, lambda: None), answers


@pytest.mark.parametrize("context", ["conversation", "fresh"])
def test_fixed_answers_get_the_grade_that_they_get_in_a_conversation_of_their_own(tmp_path: Path, context: str) -> None:
    study, policy = made(tmp_path, context)
    base, rows, answers = seen(study, policy)
    chat, config = policy.chat, study.tasks["arithmetic"]
    grades = grade_texts(study, "arithmetic", chat)
    session = open_session(study, "arithmetic", policy, 1)
    for index, (item, fixed) in enumerate(zip(ITEMS, answers, strict=True)):
        for name in ("base", "gold", "wrong"):
            grading = grading_tokens(study, "arithmetic", chat, item, fixed[name])
            before = () if context == "fresh" else (*prompt_tokens(study, "arithmetic", chat, item), *fixed[name])
            for slot, row in ((None, base[index]), (0, rows[0][index]), (1, rows[1][index])):
                policy.select(range(slot or 0, (slot or 0) + 1), adapted=slot is not None)
                session.restart()
                width = config.prompt_tokens + 5 + 24
                weights = text_probabilities(session, [(*before, *grading)], width, [*grades], 1.0)[0].numpy()
                assert row[f"fixed_{name}_grade"] == pytest.approx(
                    weights @ [*grades.values()] / weights.sum(), abs=1e-9
                )


@pytest.mark.parametrize("context", ["conversation", "fresh"])
def test_only_a_policy_that_has_learnt_differs_from_the_base_model(tmp_path: Path, context: str) -> None:
    base, (new, learnt), _ = seen(*made(tmp_path, context))
    for name in ("base", "gold", "wrong"):
        of_base, of_new, of_learnt = (
            np.array([row[f"fixed_{name}_grade"] for row in rows]) for rows in (base, new, learnt)
        )
        assert of_new == pytest.approx(of_base, abs=1e-9)
        assert (np.abs(of_learnt - of_base) > 1e-3).all()
    # What the base model says of its own response is measured once.
    assert [row["fixed_base_grade"] for row in base] == [row["soft_grade"] for row in base]


def test_fixed_answers_are_cut_to_the_limit_of_a_response(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    item: Item = {"id": "a", "question": "1", "answer": 1234567}
    answers = fixed_answers(study, "arithmetic", toy_chat(), [item])[0]
    assert toy_chat().text(answers["gold"]) == "12345"
    assert len(answers["wrong"]) == 5


def test_items_without_a_wrong_answer_end_in_a_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> str:
        raise ValueError("only one summary")

    monkeypatch.setattr(TASKS["sentiment"], "wrong_answer", none)
    items: list[Item] = [{"id": "s", "text": "good", "label": "positive"}]
    with pytest.raises(InputError, match="held-out items of sentiment: only one summary; give other items, or more"):
        fixed_answers(make_study(tmp_path), "sentiment", toy_chat(), items)


@pytest.mark.parametrize("context", ["conversation", "fresh"])
def test_the_size_of_a_batch_changes_nothing_that_is_seen(tmp_path: Path, context: str) -> None:
    study, policy = made(tmp_path, context)
    answers = seen(study, policy)[2]
    batched = [evaluate(study, "arithmetic", policy, SLOTS, ITEMS, answers, most, lambda: None) for most in (1, 2, 3)]
    for rows in batched[1:]:
        for slot in SLOTS:
            for row, expected in zip(rows[slot], batched[0][slot], strict=True):
                numbers = {key for key in row if "soft" in key or "fixed" in key}
                assert {key: row[key] for key in numbers} == pytest.approx({key: expected[key] for key in numbers})
                assert {key: row[key] for key in row.keys() - numbers} == {
                    key: expected[key] for key in row.keys() - numbers
                }


def test_batches_are_of_one_size_and_as_few_as_can_be() -> None:
    assert [batch_size(200, most) for most in (10, 96, 128, 200, 500)] == [10, 67, 100, 200, 200]
    assert batch_size(3, 2) == 2
