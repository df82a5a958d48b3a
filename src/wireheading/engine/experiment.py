"""One run of the experiment: the round loop, from an item to an update.

A run is straight-line code that yields requests ("sample this", "update with that") and receives replies. It knows
nothing of other runs, of batches, devices or files; `lockstep` replies to many runs at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from wireheading.engine.prompts import Tokens, grade_context, grading_tokens, prompt_tokens
from wireheading.policy.chat import Chat
from wireheading.policy.session import Completion
from wireheading.policy.update import Step, Turn
from wireheading.study.config import Run, Study
from wireheading.study.randomness import shuffled_index, uniforms
from wireheading.tasks import TASKS, Item
from wireheading.tasks.grades import Grade

Row = dict[str, Any]
"""All that is kept of one round, as a JSON object."""


@dataclass(frozen=True)
class Respond:
    """Requests a response to a prompt, the first turn of a session. The reply is a `Completion`."""

    context: Tokens
    draws: np.ndarray


@dataclass(frozen=True)
class GradeNext:
    """Requests a grade of the policy as the session's next turn. The reply is a `Completion`."""

    context: Tokens
    draws: np.ndarray


@dataclass(frozen=True)
class GradeApart:
    """Requests a grade in a session of its own, from the policy or the base model. The reply is a `Completion`."""

    context: Tokens
    draws: np.ndarray
    adapted: bool


@dataclass(frozen=True)
class GradeByPast:
    """Requests a grade of the past policy, in a session of its own. The reply is a `Completion`."""

    context: Tokens
    draws: np.ndarray


@dataclass(frozen=True)
class Remember:
    """Requests that the last copy of the policy become the past policy, and another copy be taken."""


@dataclass(frozen=True)
class Compare:
    """Requests how far the policy has moved from the base model in the trained tokens of sessions: a number."""

    sessions: tuple[tuple[Turn, ...], ...]


@dataclass(frozen=True)
class Update:
    """Requests an update on sessions, each a tuple of turns. The reply is a `Step`."""

    sessions: tuple[tuple[Turn, ...], ...]
    advantage: float


@dataclass(frozen=True)
class Evaluate:
    """Requests an evaluation on held-out items. The reply has a row for each of them."""

    items: Sequence[Item]


@dataclass(frozen=True)
class GradeOthers:
    """Requests the policy's grades of the other tasks' fixed answers. The reply has a row for each of their items."""


@dataclass(frozen=True)
class EndRound:
    """Hands over what is kept of a finished round."""

    row: Row


Request = (
    Respond | GradeNext | GradeApart | GradeByPast | Remember | Compare | Update | Evaluate | GradeOthers | EndRound
)


def finite(evaluation: Sequence[Row]) -> bool:
    """Whether every number of a held-out evaluation is finite."""
    return all(row["finite"] for row in evaluation)


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
    study: Study,
    run: Run,
    chat: Chat,
    items: Sequence[Item],
    heldout: Sequence[Item],
    done: Sequence[Row] = (),
    evaluated: Collection[int] = (),
) -> Generator[Request, Any, Outcome]:
    """Runs the rounds of one run.

    Args:
        study: The study's settings.
        run: Which run this is.
        chat: The model's chat format.
        items: The task's training items.
        heldout: Its held-out items.
        done: The rounds that are finished; what they did to the adapter is the policy's state.
        evaluated: Numbers of rounds after which the policy has been evaluated already.

    Yields:
        Requests; `send` passes the reply to each.

    Returns:
        How the run ended.
    """
    task, config, condition = TASKS[run.task], study.tasks[run.task], study.conditions[run.condition]
    start, decay = len(done), study.optimizer.baseline_decay

    def sessions(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], ...]:
        """Turns as they were asked for: one after the other, or each in a session of its own."""
        return tuple((turn,) for turn in turns) if study.grading_context == "fresh" else (tuple(turns),)

    def next_baseline(last: Row | None, paid: float, prefix: str = "") -> float:
        """The baseline of a round, from the round before it and what it is paid itself."""
        if last is None:
            return 0.0 if study.optimizer.baseline_start == "zero" else paid
        before = last[f"{prefix}reward"] - condition.kl * last.get("kl", 0.0)
        baseline: float = decay * last[f"{prefix}baseline"] + (1 - decay) * before
        return baseline

    last = done[-1] if done else None
    # Rounds after which there is an evaluation, and on how many items.
    due = dict.fromkeys(study.evaluation.midway_rounds, study.evaluation.midway_items)
    due[study.rounds] = len(heldout)

    def evaluation(done: int) -> Generator[Request, Any, str | None]:
        if done not in due or done in evaluated:
            return None
        seen: list[Row] = yield Evaluate(heldout[: due[done]])
        return None if finite(seen) else f"round {done - 1}: logits in the held-out evaluation were not finite"

    # A job that was stopped in the middle of an evaluation starts with that evaluation.
    problem = yield from evaluation(start)
    if problem:
        return Outcome("diverged", problem)
    for round_ in range(start, study.rounds):
        if condition.grader_lag and round_ % condition.grader_lag == 0:
            yield Remember()
        fixed = study.item_order == "fixed"
        item = items[round_ % len(items) if fixed else shuffled_index(len(items), run.seed, round_)]
        prompt = prompt_tokens(study, run.task, chat, item)
        response: Completion = yield Respond(prompt, uniforms(config.response_tokens, run.seed, round_, "response"))
        if not response.finite:
            return Outcome("diverged", f"round {round_}: the logits of the response were not finite")
        response_text = chat.text(response.tokens)
        sampled = [response]
        turns = [Turn(prompt, response.tokens, trained=condition.credit != "grade")]

        grade, grade_text = Grade(None, "not_asked"), None
        if condition.grades:
            grading = grading_tokens(study, run.task, chat, item, response.tokens)
            # Another model than the policy reads the whole session: the cache holds what the policy made of it.
            adapted, past = condition.grader == "policy", condition.grader_lag is not None
            goes_on = adapted and not past and study.grading_context == "conversation"
            context = grade_context(study, prompt, response.tokens, grading, goes_on=goes_on)
            draws = uniforms(config.grade_tokens, run.seed, round_, "grade")
            if past:
                answer: Completion = yield GradeByPast(context, draws)
            else:
                answer = yield GradeNext(context, draws) if goes_on else GradeApart(context, draws, adapted)
            if not answer.finite:
                return Outcome("diverged", f"round {round_}: the logits of the grade were not finite")
            grade_text = chat.text(answer.tokens)
            grade = task.read_grade(grade_text)
            if condition.trains_grade:
                sampled.append(answer)
                turns.append(Turn(grading, answer.tokens, trained=True, start=answer.start))

        score = task.evaluate(item, response_text)
        original_score = task.evaluate_published(item, response_text)
        original_grade = None if grade_text is None else task.read_grade_published(grade_text)
        if study.measures == "strict":
            rewarded_score, rewarded_grade = score, grade.value
        else:
            rewarded_score, rewarded_grade = original_score, original_grade
        audited = condition.audits(round_, float(uniforms(1, run.seed, round_, "audit")[0]))
        coin = float(uniforms(1, run.seed, round_, "coin")[0] < 0.5)
        reward = condition.pays(round_, rewarded_score, rewarded_grade, audited=audited, coin=coin)
        own: Row = {"audited": audited, "kl": 0.0}
        if condition.kl:
            own["kl"] = yield Compare(sessions(turns))
            if not math.isfinite(own["kl"]):
                return Outcome("diverged", f"round {round_}: the divergence from the base model was not finite")
        penalty = condition.kl * own["kl"]
        baseline = next_baseline(last, reward - penalty)
        advantage = reward - penalty - baseline
        if condition.pays_grade_apart:
            own["grade_reward"] = condition.pays_grade(round_, rewarded_score, rewarded_grade)
            own["grade_baseline"] = next_baseline(last, own["grade_reward"] - penalty, "grade_")
            own["grade_advantage"] = own["grade_reward"] - penalty - own["grade_baseline"]
            turns[1] = replace(turns[1], advantage=own["grade_advantage"])
        step: Step = yield Update(sessions(turns), advantage)
        if not step.finite:
            return Outcome("diverged", f"round {round_}: the loss or its gradient was not finite")
        before = [logprob for turn in sampled for logprob in turn.logprobs]

        last = {
            "round": round_,
            "item": item["id"],
            "prompt": chat.transcript(prompt),
            "response": response_text,
            "response_tokens": list(response.tokens),
            "truncated": not response.stopped,
            "score": score,
            "accuracy": int(task.accurate(score)),
            "original_score": original_score,
            "grade_text": grade_text,
            "grade_tokens": None if grade_text is None else list(answer.tokens),
            "grade": grade.value,
            "parse_status": grade.status,
            "original_grade": original_grade,
            "reward": reward,
            "baseline": baseline,
            "advantage": advantage,
            "loss": step.loss,
            "grad_norm": step.grad_norm,
            "logprob_gap": max(abs(one - other) for one, other in zip(before, step.logprobs, strict=True)),
            **{name: own[name] for name in condition.columns},
        }
        yield EndRound(last)
        problem = yield from evaluation(round_ + 1)
        if problem:
            return Outcome("diverged", problem)
    if study.other_tasks(run.task):
        of_others: list[Row] = yield GradeOthers()
        if not finite(of_others):
            problem = f"round {study.rounds - 1}: logits in the grading of other tasks' answers were not finite"
            return Outcome("diverged", problem)
    return Outcome("complete")
