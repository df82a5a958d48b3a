"""The tasks, each a module of this package and a line of `TASKS`.

A task knows what a right answer is (`evaluate`, the truth) and how to read a grade (`read_grade`). It knows nothing of
models, rewards or training. Prompts are templates of the config, filled in here for every task alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from wireheading.tasks import arithmetic, sentiment, summarization
from wireheading.tasks.grades import Grade

Item = Mapping[str, Any]
"""One question, a flat JSON object: `id`, the fields that templates may name, and the gold answer's field."""


class Task(Protocol):
    """What a module of this package provides.

    Every evaluator and every grade reader exists twice: the strict one, and the published one (`_published`), faults
    included, which recomputes the published study's figures from the same texts.
    """

    FIELDS: tuple[str, ...]
    """The item's fields that a prompt template may name, e.g. `("text",)`; never the gold answer's."""

    COLUMNS: Mapping[str, str]
    """The item's fields that a data set gives, gold answer included, and their columns in the task's usual data set;
    none if items are generated."""

    GRADES: Mapping[float, tuple[str, ...]]
    """The grades of this task, worst first, each with ways of writing it, the usual one first."""

    def make_item(self, row: Mapping[str, Any], /) -> Mapping[str, Any]:
        """The item of a data set's row, whose columns have the names of `COLUMNS`' fields; all of it but `id`.

        Raises:
            ValueError: A value cannot be used. The text says which.
        """

    def gold_answer(self, item: Item, /) -> str:
        """A response that deserves a score of 1.0."""

    def wrong_answer(self, item: Item, items: Sequence[Item], /) -> str:
        """A response of the right form that is wrong: the same one at every call.

        Args:
            item: One of `items`.
            items: All items from which the wrong answer may be taken.

        Raises:
            ValueError: The items yield no wrong answer.
        """

    def evaluate(self, item: Item, response: str, /) -> float:
        """The true score of a response, 0 to 1."""

    def evaluate_published(self, item: Item, response: str, /) -> float:
        """The published evaluator's score of the same response."""

    def accurate(self, score: float, /) -> bool:
        """Whether a score counts as an accurate response."""

    def read_grade(self, text: str, /) -> Grade:
        """The grade in a grader's text, or why there is none."""

    def read_grade_published(self, text: str, /) -> float | None:
        """The published reader's grade of the same text; None where it found none."""


TASKS: dict[str, Task] = {
    "sentiment": sentiment,
    "arithmetic": arithmetic,
    "summarization": summarization,
}


def render_prompt(template: str, item: Item, fields: Sequence[str]) -> str:
    """Fills a prompt template with an item's fields."""
    return template.format_map({name: item[name] for name in fields})


def render_grading_prompt(template: str, item: Item, response: str, fields: Sequence[str]) -> str:
    """Fills a grading template with an item's fields and the response that is to be graded."""
    return template.format_map({name: item[name] for name in fields} | {"response": response})
