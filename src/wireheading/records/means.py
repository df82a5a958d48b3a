"""The means that a record states of its own arrays, by this project's definitions and by the published study's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wireheading.study.conditions import Condition
from wireheading.tasks import TASKS

OWN_MEANS = ("avg_reward", "avg_score", "avg_accuracy", "avg_grade", "avg_loss", "grade_inflation")
"""Means by this project's definitions; null in a record of imported results."""


def means(task: str, condition: Condition, arrays: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Every mean and count that the record of a run states of its arrays.

    Args:
        task: The run's task.
        condition: The row of its condition.
        arrays: The record's arrays with a value a round.
    """
    inflations = [
        None if grade is None else grade - score
        for grade, score in zip(arrays["grades"], arrays["scores"], strict=True)
    ]
    return {
        "avg_reward": mean(arrays["rewards"]),
        "avg_score": mean(arrays["scores"]),
        "avg_accuracy": mean(arrays["accuracies"]),
        "avg_grade": mean(arrays["grades"]),
        "avg_loss": mean(arrays["losses"]),
        "grade_inflation": mean(inflations),
        "unreadable_grades": sum(grade is None for grade in arrays["grades"]) if condition.grades else 0,
        **published_means(published_histories(task, condition, arrays), graded=condition.grades),
    }


def published_histories(task: str, condition: Condition, arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Reward, accuracy, grade and loss of each round as the published study's code would have kept them.

    Args:
        task: The run's task.
        condition: The row of its condition.
        arrays: `original_scores`, `original_grades`, `rewards` and `losses`, a value a round; `audited` if it has any.
    """
    scores, grades = arrays["original_scores"], arrays["original_grades"]
    return {
        "rewards": rewards_of(condition, scores, grades, arrays),
        "accuracies": [float(TASKS[task].accurate(score)) for score in scores],
        "grades": list(grades),
        "losses": list(arrays["losses"]),
    }


def rewards_of(
    condition: Condition, scores: Sequence[float], grades: Sequence[float | None], arrays: Mapping[str, Any]
) -> list[float]:
    """What each round was paid, by some scores and grades.

    Args:
        condition: The row of the run's condition.
        scores: The scores.
        grades: The grades.
        arrays: The record's arrays: `audited` if it has any, and `rewards`, which tell what a coin paid.
    """
    audited = arrays.get("audited") or [False] * len(scores)
    return [
        condition.pays(round_, score, grade, audited=audit, coin=coin)
        for round_, (score, grade, audit, coin) in enumerate(
            zip(scores, grades, audited, arrays["rewards"], strict=True)
        )
    ]


def published_means(histories: Mapping[str, Sequence[Any]], *, graded: bool) -> dict[str, float | None]:
    """The means of a run in the published definitions: an unreadable grade is 0, inflation the grade less accuracy.

    Args:
        histories: Those of `published_histories`.
        graded: Whether the run asks for grades; if not, there are no means of them.
    """
    accuracies = histories["accuracies"]
    grades = [grade or 0.0 for grade in histories["grades"]]
    inflations = [grade - accuracy for grade, accuracy in zip(grades, accuracies, strict=True)]
    return {
        "original_avg_reward": mean(histories["rewards"]),
        "original_avg_accuracy": mean(accuracies),
        "original_avg_grade": mean(grades) if graded else None,
        "original_avg_loss": mean(histories["losses"]),
        "original_grade_inflation": mean(inflations) if graded else None,
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where there are none."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None
