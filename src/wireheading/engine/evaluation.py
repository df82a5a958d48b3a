"""Held-out evaluation: what a policy answers to items that it never learnt from, and how those answers are graded.

Every response is graded by the policy and by the frozen base model, as sampled text and as a soft grade. The random
numbers belong to the item and the purpose, so that conditions, seeds and times are compared on the same luck.

Every policy also gives a soft grade to fixed answers, which are the same texts for all: the base model's own response
before training, the gold answer, and a wrong answer. They tell a grader that has changed from answers that have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from wireheading.engine.layout import heldout_widths, widths_of
from wireheading.engine.prompts import grade_context, grade_texts, grading_tokens, prompt_tokens
from wireheading.errors import InputError
from wireheading.policy.allowed import FREE
from wireheading.policy.chat import Chat
from wireheading.policy.policy import Policy
from wireheading.policy.session import Completion, Session
from wireheading.study.config import Study
from wireheading.study.randomness import uniforms
from wireheading.tasks import TASKS, Item

Evaluation = dict[str, Any]
"""What was seen on a held-out item."""

Answers = Mapping[str, tuple[int, ...]]
"""Tokens of an item's fixed answers: `base`, `gold` and `wrong`."""


def evaluate(
    study: Study,
    task_name: str,
    policy: Policy,
    slots: range,
    items: Sequence[Item],
    answers: Sequence[Answers],
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
        before_batch: Called before each batch; what it raises ends the evaluation.
        base: Whether it is the frozen base model that is evaluated; it is then its own base.

    Returns:
        For each slot a row for each item, as a JSON object. A row whose logits were not finite says so in `finite`.
        Rows of the base model hold the item's fixed answers in `answers`.
    """
    size = study.engine.evaluation_batch
    # Made anew for each evaluation and used for all that is said in it: its cache is larger than training's, and there
    # is one for every task.
    session = open_session(study, task_name, policy, slots)
    rows: list[list[Evaluation]] = [[] for _ in slots]
    for start in range(0, len(items), size):
        before_batch()
        # Every batch has the same shape; the last is filled up, and what fills it is dropped.
        batch = list(zip(items[start : start + size], answers[start : start + size], strict=True))
        full = batch + [batch[-1]] * (size - len(batch))
        for slot_rows, new in zip(
            rows, _evaluate_batch(study, task_name, policy, slots, full, base, session), strict=True
        ):
            slot_rows.extend(new[: len(batch)])
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


def open_session(study: Study, task_name: str, policy: Policy, slots: range) -> Session:
    """Opens a session for a batch of held-out items in each slot, wide enough for all that is sampled in it."""
    return Session(
        policy.model,
        policy.chat,
        len(slots) * study.engine.evaluation_batch,
        heldout_widths(study, task_name, grade_texts(study, task_name, policy.chat)).session,
        policy.allowed,
        lambda: policy.adapters.selected,
    )


def _evaluate_batch(
    study: Study,
    task_name: str,
    policy: Policy,
    slots: range,
    batch: Sequence[tuple[Item, Answers]],
    base: bool,
    session: Session,
) -> list[list[Evaluation]]:
    task, chat, widths = TASKS[task_name], policy.chat, widths_of(study, [task_name])
    items = [item for item, _ in batch]
    each = items * len(slots)
    grades, start = grade_texts(study, task_name, chat), policy.allowed.starts.get(task_name, FREE)
    values = np.array([*grades.values()])

    def draws(limit: int, purpose: str) -> list[np.ndarray]:
        return [uniforms(limit, "heldout", study.data_seed, item["id"], purpose) for item in items] * len(slots)

    def judge(contexts: Sequence[Sequence[int]], width: int, adapted: bool) -> tuple[list[Completion], Tensor]:
        policy.select(slots, adapted=adapted)
        session.prefill(contexts, width)
        probabilities = session.score([*grades], study.temperature, start)
        sampled = session.decode(draws(widths.grade, "grade"), widths.grade, study.temperature, [start] * len(each))
        return sampled, probabilities

    prompts = [prompt_tokens(study, task_name, chat, item) for item in items] * len(slots)
    policy.select(slots, adapted=not base)
    session.restart()
    session.prefill(prompts, widths.prompt)
    mark = session.mark()
    greedy = session.decode(None, widths.response, study.temperature)
    session.rewind(mark)
    responses = session.decode(draws(widths.response, "response"), widths.response, study.temperature)
    gradings = [
        grading_tokens(study, task_name, chat, item, response.tokens)
        for item, response in zip(each, responses, strict=True)
    ]
    parts = list(zip(prompts, responses, gradings, strict=True))

    apart = [
        grade_context(study, prompt, response.tokens, grading, goes_on=False) for prompt, response, grading in parts
    ]
    if widths.fresh:
        session.restart()
        own_grades, own_soft = judge(apart, widths.grading_apart, not base)
    else:
        nexts = [grade_context(study, prompt, said.tokens, grading, goes_on=True) for prompt, said, grading in parts]
        own_grades, own_soft = judge(nexts, widths.grading_next, not base)
    fixed = {}
    for name in batch[0][1]:
        contexts = []
        for item, answers in batch:
            grading = grading_tokens(study, task_name, chat, item, answers[name])
            contexts.append(grading if widths.fresh else (*answers[name], *grading))
        if widths.fresh:
            session.restart()
        else:
            session.rewind(mark)
        session.prefill(contexts * len(slots), widths.grading_fixed)
        fixed[name] = session.score([*grades], study.temperature, start)
    if base:
        fixed["base"] = own_soft
        base_grades, base_soft = own_grades, own_soft
    else:
        session.restart()
        base_grades, base_soft = judge(apart, widths.grading_apart, False)

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
            soft_grade, mass = _mean_grade(soft[index], values)
            row |= {
                f"{prefix}grade_text": text,
                f"{prefix}grade": grade.value,
                f"{prefix}parse_status": grade.status,
                f"{prefix}original_grade": task.read_grade_published(text),
                f"{prefix}soft_grade": soft_grade,
                f"{prefix}soft_mass": mass,
            }
            row["finite"] = row["finite"] and math.isfinite(mass)
        for name, soft in fixed.items():
            row[f"fixed_{name}_grade"], mass = _mean_grade(soft[index], values)
            row["finite"] = row["finite"] and math.isfinite(mass)
        if base:
            row["answers"] = {**batch[index % len(batch)][1], "base": responses[index].tokens}
        rows.append(row)
    size = len(items)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _mean_grade(probabilities: Tensor, values: np.ndarray) -> tuple[float | None, float]:
    """The mean of grades weighted by their probabilities, None where these are 0; and their probability together."""
    weights = probabilities.cpu().numpy()
    mass = float(weights.sum())
    return (float(weights @ values) / mass if mass > 0 else None), mass
