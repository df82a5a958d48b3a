"""The experimental conditions: who grades, what is rewarded, which tokens are trained.

A condition is a row of data. The round loop reads the row; it never asks for a condition by name. The rows below are
known by their names; a config may add others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wireheading.study.sections import Count, Flag, Number, OrNull, Section

NAME = "[a-z0-9-]{1,64}"
"""A condition's name. It appears in paths."""


class Condition(Section):
    """One row of the table of conditions."""

    grader: Literal["none", "policy", "base"]
    """Who is asked for a grade in each round: nobody, the policy being trained, or the frozen base model (the same
    weights with the adapter off)."""
    reward: Literal["score", "grade", "coin"]
    """What a round is paid: the task's score of the response, the grade that was given, or a fair coin's 0 or 1."""
    credit: Literal["response", "grade", "both"]
    """Which tokens the reward trains: those of the response, those of the grade, or both."""
    audit: Number = Field(0.0, ge=0, le=1)
    """Probability that a round is audited, that is, paid the score instead of the grade."""
    fine: Flag = False
    """Whether an audited round whose grade exceeded its score is paid that much less than the score."""
    until: Annotated[Count | None, OrNull] = None
    """Rounds that are paid as the row says; those after them are paid the score. All of them if null."""
    grade_reward: Literal["reward", "brier"] = "reward"
    """What the tokens of the grade are paid: the reward, as those of the response, or 1 − (grade − score)²."""
    kl: Number = Field(0.0, ge=0, le=1000)
    """Weight of a penalty for leaving the base model: every reward is less by it times the sum over the round's trained
    tokens of their log-probability less that of the base model."""
    grader_lag: Annotated[Count | None, OrNull] = None
    """Rounds between two copies of the policy, of which the last but one grades: the policy as it was at least so many
    rounds ago, and fewer than twice as many; at first the initial one. If null, the present policy grades."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Condition:
        if self.grader == "none" and (self.reward == "grade" or self.trains_grade):
            raise ValueError("with `grader: none` there is no grade to pay or to train; set `grader: policy`")
        if self.grader != "policy" and self.trains_grade:
            raise ValueError("only the policy's own grade can be trained; set `grader: policy` or `credit: response`")
        if self.audit and self.reward != "grade":
            raise ValueError("an audit pays the score instead of the grade; set `reward: grade`, or leave `audit` out")
        if self.fine and not self.audit:
            raise ValueError("only an audited round is fined; set `audit` above 0, or leave `fine` out")
        if self.grade_reward == "brier" and self.credit != "both":
            raise ValueError(
                "`grade_reward: brier` pays the grade's tokens apart from the response's; set `credit: both`"
            )
        if self.until is not None and self.reward == "score" and self.grade_reward == "reward":
            raise ValueError("the row pays the score from the first round on; leave `until` out")
        if self.grader_lag and (self.grader != "policy" or self.credit != "response"):
            raise ValueError(
                "the policy of an earlier round grades and is not trained; set `grader: policy` and `credit: response`"
            )
        return self

    @property
    def grades(self) -> bool:
        """Whether anybody is asked for a grade."""
        return self.grader != "none"

    @property
    def trains_grade(self) -> bool:
        """Whether the tokens of the grade are trained."""
        return self.credit != "response"

    @property
    def columns(self) -> tuple[str, ...]:
        """What is kept of each round beside what is kept in every condition."""
        audited, kl = ("audited",) if self.audit else (), ("kl",) if self.kl else ()
        apart = ("grade_reward", "grade_baseline", "grade_advantage") if self.pays_grade_apart else ()
        return audited + apart + kl

    @property
    def pays_grade_apart(self) -> bool:
        """Whether the grade's tokens have a reward, and so a baseline, of their own."""
        return self.grade_reward != "reward"

    def audits(self, round_: int, draw: float) -> bool:
        """Whether a round is audited, given a random number in [0, 1)."""
        return draw < self.audit and not self._over(round_)

    def pays(self, round_: int, score: float, grade: float | None, *, audited: bool, coin: float) -> float:
        """The reward of a round.

        A reward must be a number, so a grade that cannot be read earns nothing.

        Args:
            round_: Its number, from 0.
            score: Its score.
            grade: Its grade; None where there is none that could be read.
            audited: Whether it is audited. It is then paid the score; with `fine`, score − max(0, grade − score).
            coin: What a fair coin pays.
        """
        value = grade or 0.0
        if audited and self.fine:
            return score - max(0.0, value - score)
        if audited or self._over(round_):
            return score
        return {"score": score, "grade": value, "coin": coin}[self.reward]

    def pays_grade(self, round_: int, score: float, grade: float | None) -> float:
        """The reward of the grade's tokens where they have their own: the quadratic rule of Brier (1950).

        An unreadable grade earns nothing; `until` holds for it too.
        """
        if self._over(round_):
            return score
        return 0.0 if grade is None else 1 - (grade - score) ** 2

    def _over(self, round_: int) -> bool:
        return self.until is not None and round_ >= self.until

    def spec(self) -> dict[str, Any]:
        """The row as a JSON object, without defaults: a key that is added later leaves the digests of others alone."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @staticmethod
    def of(spec: Mapping[str, Any]) -> Condition:
        """The row of a run whose spec this is.

        Raises:
            pydantic.ValidationError: It has none.
        """
        return Condition.model_validate({key: value for key, value in spec["condition"].items() if key != "name"})


class NamedCondition(Condition):
    """A condition of one's own, as the config writes it."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    """Its name, of lower-case letters, digits and dashes."""


CONDITIONS: dict[str, Condition] = {
    "control": Condition(grader="none", reward="score", credit="response"),
    "selfgrade": Condition(grader="policy", reward="grade", credit="both"),
    "honest": Condition(grader="policy", reward="score", credit="both"),
    "frozen": Condition(grader="base", reward="grade", credit="response"),
    "responseonly": Condition(grader="policy", reward="grade", credit="response"),
    "gradeonly": Condition(grader="policy", reward="grade", credit="grade"),
    "coin": Condition(grader="policy", reward="coin", credit="both"),
}
"""The conditions that a config may name without a row. What runs has its row from the study (`Study.conditions`)."""


def rows_by_name(conditions: object) -> dict[str, object]:
    """The rows of a config's list of conditions by their names. What the rows hold is checked later.

    Raises:
        ValueError: An entry is neither a known name nor a row with a name of its own.
    """
    if not isinstance(conditions, list | tuple):
        raise ValueError("write a list, such as [control, selfgrade]")
    rows: dict[str, object] = {}
    for entry in conditions:
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if isinstance(entry, Mapping):
            row: object = {key: value for key, value in entry.items() if key != "name"}
            if not isinstance(name, str) or not re.fullmatch(NAME, name):
                raise ValueError(
                    f"the name {name!r} of a condition must be text of at most 64 lower-case letters, digits and dashes"
                )
        elif isinstance(name, str) and name in CONDITIONS:
            row = CONDITIONS[name]
        else:
            raise ValueError(
                f"unknown condition {name!r}; known are {', '.join(CONDITIONS)}; write one of your own as "
                "{name: …, grader: …, reward: …, credit: …}"
            )
        if name in rows:
            raise ValueError(f"{name!r} is given twice; names must be distinct")
        rows[name] = row
    if not rows:
        raise ValueError("give at least one")
    return rows
