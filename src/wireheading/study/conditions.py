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
        reward: What the round's reward is: the task's score of the response, the grade that was given, or a fair coin's
            0 or 1.
        credit: Which tokens the reward trains: those of the response, those of the grade, or both.
    """

    grader: Literal["none", "policy", "base"]
    reward: Literal["score", "grade", "coin"]
    credit: Literal["response", "grade", "both"]

    @property
    def trains_grade(self) -> bool:
        """Whether the tokens of the grade are trained."""
        return self.credit != "response"


CONDITIONS: dict[str, Condition] = {
    "control": Condition(grader="none", reward="score", credit="response"),
    "selfgrade": Condition(grader="policy", reward="grade", credit="both"),
    "honest": Condition(grader="policy", reward="score", credit="both"),
    "frozen": Condition(grader="base", reward="grade", credit="response"),
    "responseonly": Condition(grader="policy", reward="grade", credit="response"),
    "gradeonly": Condition(grader="policy", reward="grade", credit="grade"),
    "coin": Condition(grader="policy", reward="coin", credit="both"),
}
