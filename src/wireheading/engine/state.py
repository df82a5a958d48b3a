"""The state of a run under way: its round loop, what it asked for last, and what it has done so far."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from wireheading.engine.experiment import Outcome, Request, Row
from wireheading.study.config import Run


@dataclass
class RunState:
    """A run under way.

    Attributes:
        run: Which run it is.
        slot: Its slot.
        steps: The run's round loop, which continues with each reply.
        rows: Its finished rounds.
        evaluations: Its held-out evaluations, by the number of rounds before them.
        transfer: Its grades of the fixed answers of other tasks, at its end.
        unsaved: What the checkpoint does not hold yet: rounds and evaluations.
        request: What it asked for last; None once it has ended.
        outcome: How it ended.
        first: The round with which this job began.
    """

    run: Run
    slot: int
    steps: Generator[Request, Any, Outcome]
    rows: list[Row] = field(default_factory=list)
    evaluations: dict[int, list[Row]] = field(default_factory=dict)
    transfer: dict[str, list[Row]] = field(default_factory=dict)
    unsaved: list[Row] = field(default_factory=list)
    request: Request | None = None
    outcome: Outcome | None = None
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = len(self.rows)
        self.reply(None)

    def reply(self, value: Any) -> None:
        """Continues the run to its next request or its end."""
        try:
            self.request = self.steps.send(value)
        except StopIteration as end:
            self.request, self.outcome = None, end.value
