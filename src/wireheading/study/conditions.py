"""The experimental conditions: who grades, what is rewarded, which tokens are trained.

A condition is a row of data. The round loop reads the row; it never asks for a condition by name. The rows below are
known by their names; a config may add others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wireheading.study.sections import Section

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

    @model_validator(mode="after")
    def _says_one_thing(self) -> Condition:
        if self.grader == "none" and (self.reward == "grade" or self.trains_grade):
            raise ValueError("with `grader: none` there is no grade to pay or to train; set `grader: policy`")
        if self.grader != "policy" and self.trains_grade:
            raise ValueError("only the policy's own grade can be trained; set `grader: policy` or `credit: response`")
        return self

    @property
    def grades(self) -> bool:
        """Whether anybody is asked for a grade."""
        return self.grader != "none"

    @property
    def trains_grade(self) -> bool:
        """Whether the tokens of the grade are trained."""
        return self.credit != "response"

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
