"""The experimental conditions: who grades, what is rewarded, which tokens are trained.

A condition is a row of data. The round loop reads the row; it never asks for a condition by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Condition:
    """One row of the table of conditions.

    Attributes:
        grader: Who is asked for a grade in each round: nobody, the policy being trained, or the frozen base model
            (the same weights with the adapter off).
        reward: What the round's reward is: the task's score of the response, or the grade that was given.
        trains_grade: Whether the tokens of the grade are trained along with those of the response.
    """

    grader: Literal["none", "policy", "base"]
    reward: Literal["score", "grade"]
    trains_grade: bool


CONDITIONS: dict[str, Condition] = {
    "control": Condition(grader="none", reward="score", trains_grade=False),
    "selfgrade": Condition(grader="policy", reward="grade", trains_grade=True),
    "honest": Condition(grader="policy", reward="score", trains_grade=True),
    "decoupled": Condition(grader="policy", reward="score", trains_grade=False),
    "frozen": Condition(grader="base", reward="grade", trains_grade=False),
}
