"""One run of the experiment: the round loop, from an item to an update.

A run is written as a straight line that asks ("sample this", "update with that") and is answered. It knows nothing of
other runs, of batches, devices or files; `lockstep` answers the questions of many runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wireheading.conditions import CONDITIONS
from wireheading.config import Run, Study
from wireheading.grades import Grade
from wireheading.policy.chat import Chat
from wireheading.policy.sampling import Sampled
from wireheading.policy.updating import Step, Turn
from wireheading.streams import shuffled_index, uniforms
from wireheading.tasks import TASKS, Item, render_grading_prompt, render_prompt

Tokens = tuple[int, ...]
Row = dict[str, Any]
"""All that is kept of one round, as a JSON object."""


@dataclass(frozen=True)
class Respond:
    """Asks for a response to a prompt, the opening of a conversation. Answered with `Sampled`."""

    context: Tokens
    draws: np.ndarray


@dataclass(frozen=True)
class GradeNext:
    """Asks the policy for a grade as the next turn of the conversation. Answered with `Sampled`."""

    context: Tokens
    draws: np.ndarray


@dataclass(frozen=True)
class GradeApart:
    """Asks for a grade in a context of its own: the policy, or the frozen base model. Answered with `Sampled`."""

    context: Tokens
    draws: np.ndarray
    adapted: bool


@dataclass(frozen=True)
class Update:
    """Asks for an update. Each conversation is a tuple of turns. Answered with `Step`."""

    conversations: tuple[tuple[Turn, ...], ...]
    advantage: float


@dataclass(frozen=True)
class EndRound:
    """Hands over what is kept of a finished round, and the baseline that the next one starts from."""

    row: Row
    baseline: float


Ask = Respond | GradeNext | GradeApart | Update | EndRound


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `complete`, or `diverged` where a number was no longer finite.
        problem: What was seen in which round where it diverged.
    """

    status: Literal["complete", "diverged"]
    problem: str | None = None


def experiment(
    study: Study, run: Run, chat: Chat, items: Sequence[Item], start: int = 0, baseline: float | None = None
) -> Generator[Ask, Any, Outcome]:
    """Runs the rounds of one run.

    Args:
        study: The study's settings.
        run: Which run this is.
        chat: The model's language of turns.
        items: The task's training items.
        start: The round to start from; what earlier rounds did to the adapter is the policy's state.
        baseline: The baseline after those rounds; None before the first.

    Yields:
        What the run asks for; each question is answered by `send`.

    Returns:
        How the run ended.
    """
    task, config, condition = TASKS[run.task], study.tasks[run.task], CONDITIONS[run.condition]
    if baseline is None and study.optimizer.baseline_start == "zero":
        baseline = 0.0

    for round_ in range(start, study.rounds):
        item = items[shuffled_index(len(items), run.seed, round_)]
        prompt = prompt_tokens(study, run.task, chat, item)
        response: Sampled = yield Respond(prompt, uniforms(config.response_tokens, run.seed, round_, "response"))
        if not response.finite:
            return Outcome("diverged", f"round {round_}: the logits of the response were not finite")
        response_text = chat.text(response.tokens)
        sampled = [response]
        conversations: tuple[tuple[Turn, ...], ...] = ((Turn(prompt, response.tokens, trained=True),),)

        grade, grade_text = Grade(None, "not_asked"), None
        if condition.grader != "none":
            grading = grading_tokens(study, run.task, chat, item, response.tokens)
            ask = grade_question(study, prompt, response.tokens, grading, condition.grader)
            answer: Sampled = yield ask(uniforms(config.grade_tokens, run.seed, round_, "grade"))
            if not answer.finite:
                return Outcome("diverged", f"round {round_}: the logits of the grade were not finite")
            grade_text = chat.text(answer.tokens)
            grade = task.read_grade(grade_text)
            if condition.trains_grade:
                sampled.append(answer)
                graded = Turn(grading, answer.tokens, trained=True)
                fresh = study.grading_context == "fresh"
                conversations = (*conversations, (graded,)) if fresh else ((*conversations[0], graded),)

        score = task.evaluate(item, response_text)
        # A reward must be a number, so a grade that cannot be read earns nothing; the record keeps it as null.
        reward = score if condition.reward == "score" else (grade.value or 0.0)
        if baseline is None:
            baseline = reward
        advantage = reward - baseline
        step: Step = yield Update(conversations, advantage)
        if not step.finite:
            return Outcome("diverged", f"round {round_}: the loss or its gradient was not finite")
        before = [logprob for turn in sampled for logprob in turn.logprobs]

        row = {
            "round": round_,
            "item": item["id"],
            "prompt": chat.text(prompt),
            "response": response_text,
            "response_tokens": list(response.tokens),
            "truncated": not response.stopped,
            "score": score,
            "accuracy": int(task.accurate(score)),
            "original_score": task.evaluate_original(item, response_text),
            "grade_text": grade_text,
            "grade_tokens": None if grade_text is None else list(answer.tokens),
            "grade": grade.value,
            "parse_status": grade.status,
            "original_grade": None if grade_text is None else task.read_grade_original(grade_text),
            "reward": reward,
            "baseline": baseline,
            "advantage": advantage,
            "loss": step.loss,
            "grad_norm": step.grad_norm,
            "logprob_gap": max(abs(one - other) for one, other in zip(before, step.logprobs, strict=True)),
        }
        decay = study.optimizer.baseline_decay
        baseline = decay * baseline + (1 - decay) * reward
        yield EndRound(row, baseline)
    return Outcome("complete")


def prompt_tokens(study: Study, task_name: str, chat: Chat, item: Item) -> Tokens:
    """The tokens with which an item's response is asked for, cut to the task's limit."""
    task, config = TASKS[task_name], study.tasks[task_name]
    fields = {name: item[name] for name in task.FIELDS}
    return tuple(
        chat.fit(
            lambda cut: render_prompt(config.prompt, cut, task.FIELDS), fields, chat.first_turn, config.prompt_tokens
        )
    )


def grading_tokens(study: Study, task_name: str, chat: Chat, item: Item, response: Tokens) -> Tokens:
    """The tokens with which a response's grade is asked for: the conversation's next turn, or one of its own."""
    task, config = TASKS[task_name], study.tasks[task_name]
    fields = {name: item[name] for name in task.FIELDS} | {"response": chat.text(response)}

    def next_turn(text: str) -> list[int]:
        return chat.next_turn(text, response[-1])

    return tuple(
        chat.fit(
            lambda cut: render_grading_prompt(config.grading_prompt, cut, cut["response"], task.FIELDS),
            fields,
            chat.first_turn if study.grading_context == "fresh" else next_turn,
            config.grading_prompt_tokens,
        )
    )


def grade_question(
    study: Study, prompt: Tokens, response: Tokens, grading: Tokens, grader: str
) -> Callable[[np.ndarray], GradeNext | GradeApart]:
    """The question for a grade, which still lacks its random numbers."""
    adapted = grader == "policy"
    if study.grading_context == "fresh":
        return lambda draws: GradeApart(grading, draws, adapted)
    if adapted:
        # The response's last token was never fed back, so it leads the next turn.
        return lambda draws: GradeNext((response[-1], *grading), draws)
    # The base model reads the whole conversation: the cache holds what the policy made of it.
    return lambda draws: GradeApart((*prompt, *response, *grading), draws, adapted)
