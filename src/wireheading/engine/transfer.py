"""Transfer: how a policy that was trained on one task grades the fixed answers of the others.

Nothing is sampled. The gold and the wrong answer of every held-out item are prefilled, and the probabilities of the
grades are read. The base model grades the same texts, so that what differs is the grader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wireheading.engine.evaluation import Answers, fixed_answers, mean_grades, open_session
from wireheading.engine.layout import batch_size, batches
from wireheading.engine.prompts import Tokens, grade_context, grade_texts, grading_tokens, prompt_tokens
from wireheading.policy.allowed import FREE
from wireheading.policy.policy import Policy
from wireheading.policy.scoring import text_probabilities
from wireheading.study.config import Study
from wireheading.tasks import Item

Grades = list[dict[str, Any]]
"""For each item its id, the soft grades of its gold and of its wrong answer, and whether they are finite."""


@dataclass(frozen=True)
class Answered:
    """The held-out items of a task with the fixed answers that policies of other tasks grade.

    Attributes:
        items: The items.
        answers: The gold and the wrong answer of each.
        base: The base model's grades of them.
    """

    items: Sequence[Item]
    answers: Sequence[Answers]
    base: Grades


def answered(
    study: Study, task_name: str, policy: Policy, items: Sequence[Item], most: int, before_batch: Callable[[], None]
) -> Answered:
    """Lets the base model grade the fixed answers of a task's held-out items; see `grade_fixed`."""
    answers = fixed_answers(study, task_name, policy.chat, items)
    base = grade_fixed(study, task_name, policy, range(1), items, answers, most, before_batch, base=True)[0]
    return Answered(items, answers, base)


def grade_fixed(
    study: Study,
    task_name: str,
    policy: Policy,
    slots: range,
    items: Sequence[Item],
    answers: Sequence[Answers],
    most: int,
    before_batch: Callable[[], None],
    *,
    base: bool = False,
) -> list[Grades]:
    """Lets every slot of a range grade the gold and the wrong answers of a task.

    Args:
        study: The study's settings.
        task_name: The task that the items are of.
        policy: The policies.
        slots: The slots; what a dummy slot answers means nothing.
        items: The items.
        answers: The fixed answers of each.
        most: The most items in a batch.
        before_batch: Called before each batch; what it raises ends the evaluation.
        base: Whether the frozen base model grades.

    Returns:
        The grades of each slot.
    """
    chat = policy.chat
    texts, start = grade_texts(study, task_name, chat), policy.allowed.starts.get(task_name, FREE)
    values = np.array([*texts.values()])

    def context(item: Item, answer: Tokens) -> Tokens:
        grading = grading_tokens(study, task_name, chat, item, answer)
        return grade_context(study, prompt_tokens(study, task_name, chat, item), answer, grading, goes_on=False)

    contexts = {
        name: [context(item, said[name]) for item, said in zip(items, answers, strict=True)]
        for name in ("gold", "wrong")
    }
    # As wide as the longest of all items needs, so that every batch has the same shape.
    width = max(len(tokens) for each in contexts.values() for tokens in each)
    policy.close_sessions()
    session = open_session(study, task_name, policy, len(slots) * batch_size(len(items), most))
    policy.select(slots, adapted=not base)
    found: list[Grades] = [[] for _ in slots]
    for places in batches(len(items), most):
        before_batch()
        soft = {}
        for name, each in contexts.items():
            session.restart()
            said = [each[place] for place in places] * len(slots)
            probabilities = text_probabilities(session, said, width, [*texts], study.temperature, start)
            soft[name] = mean_grades(probabilities, values)
        for slot, grades in enumerate(found):
            for index, place in enumerate(dict.fromkeys(places)):
                own = slot * len(places) + index
                (gold, gold_mass), (wrong, wrong_mass) = (soft[name][own] for name in contexts)
                finite = math.isfinite(gold_mass) and math.isfinite(wrong_mass)
                grades.append({"item": items[place]["id"], "gold_grade": gold, "wrong_grade": wrong, "finite": finite})
    return found
