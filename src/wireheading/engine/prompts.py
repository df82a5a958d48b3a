"""Prompts for responses and grades, as tokens: an item's fields, the config's template, the chat format."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from wireheading.errors import InputError
from wireheading.policy.chat import Chat
from wireheading.study.config import Study
from wireheading.tasks import TASKS, Item

Tokens = tuple[int, ...]


def prompt_tokens(study: Study, task_name: str, chat: Chat, item: Item) -> Tokens:
    """The prompt for a response to an item, cut to the task's limit."""
    config = study.tasks[task_name]
    return _prompt_tokens(
        chat, config.prompt, tuple(item.items()), config.prompt_tokens, f"tasks.{task_name}.prompt_tokens"
    )


@cache
def _prompt_tokens(chat: Chat, template: str, fields: tuple[tuple[str, Any], ...], limit: int, name: str) -> Tokens:
    """The same of what it depends on: an item comes again with every condition, epoch and evaluation."""
    return tuple(chat.fit(template, dict(fields), chat.first_turn, limit, name))


def grading_tokens(study: Study, task_name: str, chat: Chat, item: Item, response: Tokens) -> Tokens:
    """The prompt for a response's grade: the next turn of its session, or the first of a fresh one."""
    config = study.tasks[task_name]

    def next_turn(text: str) -> list[int]:
        return chat.next_turn(text, response[-1])

    return tuple(
        chat.fit(
            config.grading_prompt,
            {**item, "response": chat.text(response)},
            chat.first_turn if study.grading_context == "fresh" else next_turn,
            config.grading_prompt_tokens,
            f"tasks.{task_name}.grading_prompt_tokens",
        )
    )


def grade_texts(study: Study, task_name: str, chat: Chat) -> dict[Tokens, float]:
    """The ways of writing a task's grades, as tokens, with the grade that each of them is.

    If grades are chosen, only texts are included that fit into `grade_tokens` with a stop token.

    Raises:
        InputError: A grade that is to be chosen has no text that fits.
    """
    limit = study.tasks[task_name].grade_tokens
    found: dict[Tokens, float] = {}
    for grade, ways in TASKS[task_name].GRADES.items():
        texts = [chat.tokens(text) for text in ways]
        fitting = [text for text in texts if len(text) < limit or study.grading == "free"]
        if not fitting:
            raise InputError(
                f"config: tasks.{task_name}.grade_tokens = {limit}: the grade {grade} takes "
                f"{min(map(len, texts)) + 1}; raise the limit, or set `grading: free`"
            )
        found |= dict.fromkeys(fitting, grade)
    return found


def choices(study: Study, chat: Chat) -> dict[str, list[Tokens]]:
    """The texts of each task's grades if grades are chosen; nothing if they are free."""
    return {task: [*grade_texts(study, task, chat)] for task in study.tasks} if study.grading == "choice" else {}


def check_limits(study: Study, task_name: str, chat: Chat, items: Iterable[Item]) -> None:
    """Checks that every prompt and every grading prompt of a task fits into its limit, cut as far as it can be.

    Raises:
        InputError: Names the limit that is too small.
    """
    # After a response that was cut at its limit, the prompt has one token more: the end of that turn.
    cut_off = chat.tokens("x")
    for item in items:
        prompt_tokens(study, task_name, chat, item)
        grading_tokens(study, task_name, chat, item, cut_off)


def grade_context(study: Study, prompt: Tokens, response: Tokens, grading: Tokens, *, goes_on: bool) -> Tokens:
    """All that is fed to get a grade.

    Args:
        study: The study's settings.
        prompt: Tokens of the prompt.
        response: Tokens of the response.
        grading: Tokens that ask for its grade.
        goes_on: Whether they follow the response in its own session, whose cache holds the rest. If not, a session is
            read from its beginning.
    """
    if study.grading_context == "fresh":
        return grading
    # The response's last token was never fed back, so it leads the next turn.
    return (response[-1], *grading) if goes_on else (*prompt, *response, *grading)
