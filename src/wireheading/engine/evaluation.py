"""Held-out evaluation: what a policy answers to items that it never learnt from, and how those answers are graded.

Every response is graded by the policy and by the frozen base model, as sampled text and as a soft grade. The random
numbers belong to the item and the purpose, so that conditions, seeds and times are compared on the same luck.

Every policy also gives a soft grade to fixed answers, which are the same texts for all: the base model's own response
before training, the gold answer, and a wrong answer. They tell a grader that has changed from answers that have.

All slots of a task are evaluated together, on many items at once. The policy is fed a prompt once for all that it says
after it, and the base model once for all slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from wireheading.engine.layout import batch_size, batches, heldout_widths, widths_of
from wireheading.engine.prompts import Tokens, grade_texts, grading_tokens, prompt_tokens
from wireheading.errors import InputError
from wireheading.policy.allowed import FREE
from wireheading.policy.chat import Chat
from wireheading.policy.policy import Policy
from wireheading.policy.scoring import text_probabilities
from wireheading.policy.session import Completion, Session
from wireheading.study.config import Study
from wireheading.study.randomness import uniforms
from wireheading.tasks import TASKS, Item

Evaluation = dict[str, Any]
"""What was seen on a held-out item."""

Answers = Mapping[str, tuple[int, ...]]
"""Tokens of an item's fixed answers: `base`, `gold` and `wrong`."""

SoftGrades = list[tuple[float | None, float]]
"""For each row the mean of the grades weighted by their probabilities, and the sum of these; None where that is 0."""


def evaluate(
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
) -> list[list[Evaluation]]:
    """Evaluates every slot of a range on the same items.

    Args:
        study: The study's settings.
        task_name: The task that the items are of.
        policy: The policies.
        slots: The slots; what a dummy slot answers means nothing.
        items: The held-out items.
        answers: The fixed answers of each; `base` is left out where the base model is evaluated.
        most: The most items in a batch.
        before_batch: Called before each batch; what it raises ends the evaluation.
        base: Whether it is the frozen base model that is evaluated; it is then its own base.

    Returns:
        For each slot a row for each item, as a JSON object. A row whose logits were not finite says so in `finite`.
        Rows of the base model hold the item's fixed answers in `answers`.
    """
    chat = policy.chat
    # The next round opens training's sessions again; until then their memory serves the evaluation.
    policy.close_sessions()
    session = open_session(study, task_name, policy, len(slots) * batch_size(len(items), most))
    fixed = {}
    for name in answers[0]:
        contexts = [_graded(study, task_name, chat, item, own[name]) for item, own in zip(items, answers, strict=True)]
        # As wide as the longest of all items needs, so that every batch has the same shape.
        fixed[name] = contexts, max(map(len, contexts))
    rows: list[list[Evaluation]] = [[] for _ in slots]
    for places in batches(len(items), most):
        before_batch()
        batch = [items[place] for place in places]
        of_batch = {name: ([contexts[place] for place in places], width) for name, (contexts, width) in fixed.items()}
        new = _evaluate_batch(study, task_name, policy, slots, session, batch, of_batch, base)
        for slot_rows, slot_new in zip(rows, new, strict=True):
            slot_rows.extend(slot_new[: len(items) - len(slot_rows)])
    if base:
        for row, own in zip(rows[0], answers, strict=True):
            row["answers"] = {**own, "base": row.pop("tokens")}
    return rows


def fixed_answers(study: Study, task_name: str, chat: Chat, items: Sequence[Item]) -> list[Answers]:
    """The gold and the wrong answer of each held-out item, cut to the limit of a response.

    Raises:
        InputError: The items yield no wrong answer.
    """
    task, limit = TASKS[task_name], study.tasks[task_name].response_tokens
    try:
        texts = [{"gold": task.gold_answer(item), "wrong": task.wrong_answer(item, items)} for item in items]
    except ValueError as error:
        raise InputError(f"the held-out items of {task_name}: {error}; give other items, or more") from None
    return [{name: chat.tokens(text)[:limit] for name, text in answers.items()} for answers in texts]


def open_session(study: Study, task_name: str, policy: Policy, rows: int) -> Session:
    """Opens a session of so many rows, wide enough for all that is said of a held-out item."""
    columns = heldout_widths(study, task_name, grade_texts(study, task_name, policy.chat)).session
    return policy.new_session(rows, columns)


def _graded(study: Study, task_name: str, chat: Chat, item: Item, answer: Tokens) -> Tokens:
    """What is fed for the grade of an answer: after the prompt, or in a session of its own."""
    grading = grading_tokens(study, task_name, chat, item, answer)
    return grading if study.grading_context == "fresh" else (*answer, *grading)


def _evaluate_batch(
    study: Study,
    task_name: str,
    policy: Policy,
    slots: range,
    session: Session,
    items: Sequence[Item],
    fixed: Mapping[str, tuple[Sequence[Tokens], int]],
    base: bool,
) -> list[list[Evaluation]]:
    """Evaluates a batch.

    Args:
        study: The study's settings.
        task_name: The task.
        policy: The policies.
        slots: The slots.
        session: A session with a row for each item of each slot.
        items: The items.
        fixed: What is fed for the grade of each fixed answer, for each item, and the columns that it takes.
        base: Whether it is the base model that is evaluated.
    """
    task, chat, widths = TASKS[task_name], policy.chat, widths_of(study, [task_name])
    each = [*items] * len(slots)
    grades, start = grade_texts(study, task_name, chat), policy.allowed.starts.get(task_name, FREE)

    def draws(limit: int, purpose: str) -> list[np.ndarray]:
        return [uniforms(limit, "heldout", study.data_seed, item["id"], purpose) for item in items] * len(slots)

    def soft_grades(contexts: Sequence[Tokens], width: int) -> SoftGrades:
        probabilities = text_probabilities(session, contexts, width, [*grades], study.temperature, start)
        return mean_grades(probabilities, np.array([*grades.values()]))

    def judge(contexts: Sequence[Tokens], width: int) -> tuple[list[Completion], SoftGrades]:
        soft = soft_grades(contexts, width)
        sampled = session.decode(draws(widths.grade, "grade"), widths.grade, study.temperature, [start] * len(each))
        return sampled, soft

    prompts = [prompt_tokens(study, task_name, chat, item) for item in items]
    policy.select(slots, adapted=not base)
    session.restart()
    session.prefill(prompts * len(slots), widths.prompt)
    mark = session.mark()
    greedy = session.decode(None, widths.response, study.temperature)
    session.rewind(mark)
    responses = session.decode(draws(widths.response, "response"), widths.response, study.temperature)
    graded = [_graded(study, task_name, chat, item, said.tokens) for item, said in zip(each, responses, strict=True)]
    if widths.fresh:
        session.restart()
        own_grades, own_soft = judge(graded, widths.grading_fixed)
    else:
        # The response is in the cache, but for its last token.
        nexts = [context[len(said.tokens) - 1 :] for context, said in zip(graded, responses, strict=True)]
        own_grades, own_soft = judge(nexts, widths.grading_next)
    fixed_soft = {}
    for name, (contexts, width) in fixed.items():
        if widths.fresh:
            session.restart()
        else:
            session.rewind(mark)
        fixed_soft[name] = soft_grades([*contexts] * len(slots), width)
    if base:
        fixed_soft["base"] = own_soft
        base_grades, base_soft = own_grades, own_soft
    else:
        session.restart()
        if not widths.fresh:
            policy.select(slots[:1], adapted=False)
            session.prefill(prompts, widths.prompt)
        policy.select(slots, adapted=False)
        base_grades, base_soft = judge(graded, widths.grading_fixed)

    rows = []
    for index, item in enumerate(each):
        response = chat.text(responses[index].tokens)
        score = task.evaluate(item, response)
        row = {
            "item": item["id"],
            "response": response,
            "truncated": not responses[index].stopped,
            "score": score,
            "accuracy": int(task.accurate(score)),
            "greedy_accuracy": int(task.accurate(task.evaluate(item, chat.text(greedy[index].tokens)))),
            "original_score": task.evaluate_published(item, response),
            "finite": all(said[index].finite for said in (responses, greedy, own_grades, base_grades)),
        }
        for prefix, sampled, soft in (("", own_grades, own_soft), ("base_", base_grades, base_soft)):
            text = chat.text(sampled[index].tokens)
            grade = task.read_grade(text)
            soft_grade, mass = soft[index]
            row |= {
                f"{prefix}grade_text": text,
                f"{prefix}grade": grade.value,
                f"{prefix}parse_status": grade.status,
                f"{prefix}original_grade": task.read_grade_published(text),
                f"{prefix}soft_grade": soft_grade,
                f"{prefix}soft_mass": mass,
            }
            row["finite"] = row["finite"] and math.isfinite(mass)
        for name, soft in fixed_soft.items():
            row[f"fixed_{name}_grade"], mass = soft[index]
            row["finite"] = row["finite"] and math.isfinite(mass)
        if base:
            row["tokens"] = responses[index].tokens
        rows.append(row)
    return [rows[first : first + len(items)] for first in range(0, len(rows), len(items))]


def mean_grades(probabilities: Tensor, values: np.ndarray) -> SoftGrades:
    """The soft grades of all rows from the probability of each text, `[rows, texts]`, and the grade that it is."""
    weights = probabilities.cpu().numpy()
    masses, sums = weights.sum(axis=1).tolist(), (weights * values).sum(axis=1).tolist()
    return [(total / mass if mass > 0 else None, mass) for total, mass in zip(sums, masses, strict=True)]
