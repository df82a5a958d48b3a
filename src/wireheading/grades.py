"""Reading a grade out of a grader's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ParseStatus = Literal["readable", "unreadable", "ambiguous", "out_of_range", "not_asked"]


@dataclass(frozen=True)
class Grade:
    """A grade read from text.

    Attributes:
        value: The grade, 0 to 1, or None unless `status` is `readable`.
        status: Whether the text held one grade, and if not, why not.
    """

    value: float | None
    status: ParseStatus
