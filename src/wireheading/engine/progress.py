"""The lines that a job reports while it runs: which job, where it is, how fast, and how long it will take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from wireheading.engine.layout import batch_size
from wireheading.study.config import AXES, Run, Study

Report = Callable[[str], None]

REPORT_SECONDS = 10.0
"""Time between two lines."""

RATE_SECONDS = 60.0
"""Training time over which the rate is taken: a machine that has become busy, or free, shows in the estimate."""


class Progress:
    """The progress of one job."""

    def __init__(self, study: Study, runs: Sequence[Run], report: Report, clock: Callable[[], float] = time.monotonic):
        """Begins to report.

        Args:
            study: The study's settings.
            runs: The runs of the job that are to be done, at least one.
            report: Writes a line.
            clock: The time in seconds.
        """
        free = [str(name) for axis, name in zip(AXES, runs[0], strict=True) if axis not in study.engine.lockstep]
        self.job = "/".join(free)
        self.runs = len(runs)
        self.rounds = study.rounds
        self.report = report
        self.clock = clock
        self.reported = clock()
        self.samples = deque([(0.0, 0)])

    def round(self, at: int, done: int, left: int, seconds: float) -> None:
        """Reports after a round, if it is time to; after the last in any case.

        Args:
            at: The round that the job has reached.
            done: Rounds that this job has done, of all runs together.
            left: Rounds that are left, of all runs together.
            seconds: Training time so far, without evaluations.
        """
        if not done or not (self._due() or not left):
            return
        while len(self.samples) > 1 and seconds - self.samples[1][0] >= RATE_SECONDS:
            self.samples.popleft()
        before, done_before = self.samples[0]
        self.samples.append((seconds, done))
        rate = (done - done_before) / max(seconds - before, 1e-9)
        remaining = f"{duration(left / rate)} left" if rate else "no round finished lately"
        self._tell(f"round {at} of {self.rounds} · {self.runs} runs · {rate:.0f} run-rounds/s · {remaining}")

    def evaluation(self, what: str, items: int, most: int, check: Callable[[], None]) -> Callable[[], None]:
        """A function to call before each batch of a held-out evaluation, which reports if it is time to.

        Args:
            what: What is evaluated.
            items: Number of held-out items.
            most: The most of them in a batch.
            check: Is called as well.
        """
        batches, begun = math.ceil(items / batch_size(items, most)), 0

        def before_batch() -> None:
            nonlocal begun
            check()
            if self._due():
                self._tell(f"held-out evaluation of {what}, {begun} of {batches} batches done")
            begun += 1

        return before_batch

    def costs(self, done: int, training: float, evaluating: float) -> None:
        """Reports what these runs would take with the study's default number of rounds, from the seconds they took."""
        if done:
            rounds = Study.model_fields["rounds"].default
            self._tell(
                f"{training:.1f} s of training, {evaluating:.1f} s of held-out evaluation; {rounds} rounds of "
                f"{self.runs} runs would take {duration(training / done * rounds * self.runs)} of training"
            )

    def _due(self) -> bool:
        return self.clock() - self.reported >= REPORT_SECONDS

    def _tell(self, line: str) -> None:
        self.reported = self.clock()
        self.report(f"{self.job}: {line}")


def duration(seconds: float) -> str:
    """A time as `minutes:seconds`, or `hours:minutes:seconds` from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
