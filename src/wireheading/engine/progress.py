"""How far a job is: it tells in its file, which it rewrites while it works, and with a line a minute in its log."""

from __future__ import annotations

import math
import os
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wireheading.engine.layout import batch_size
from wireheading.jobs import JobFile, Means, RunRounds, duration, job_files, job_line, job_name, short_digest
from wireheading.study.config import Run, Study
from wireheading.study.paths import jobs_folder

if TYPE_CHECKING:
    from wireheading.engine.state import RunState

Report = Callable[[str], None]

REPORT_SECONDS = 60.0
"""Time between two lines of the log."""

FILE_SECONDS = 2.0
"""Time between two versions of the file."""

BEAT_SECONDS = 30.0
"""Time between two signs of life, which change the file's time alone: a model may load for minutes."""

RATE_SECONDS = 120.0
"""Training time over which the pace is taken: a machine that has become busy, or free, shows in the estimate."""

MEAN_ROUNDS = 20
"""Rounds of each run that the means are of."""


class Progress:
    """The progress of one job."""

    def __init__(
        self,
        study: Study,
        runs: Sequence[Run],
        report: Report,
        notice: Report,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Tells of a job that begins.

        Args:
            study: The study's settings.
            runs: The runs of the job that are to be done, at least one.
            report: Writes a line of the log.
            notice: Writes a line that whoever sits at the terminal should see too.
            clock: The time in seconds.
        """
        self.study = study
        self.report = report
        self.notice = notice
        self.clock = clock
        self.path = jobs_folder(Path(study.results)) / f"{socket.gethostname()}-{os.getpid()}.json"
        self.told = JobFile(
            name=job_name(study, runs[0]),
            host=socket.gethostname(),
            process=os.getpid(),
            of=study.rounds,
            at=0,
            runs={str(run): RunRounds(digest=short_digest(study, run), rounds=0) for run in runs},
        )
        self.reported = clock()
        self.written = -math.inf
        self.writable = True
        self.samples = deque([(0.0, 0)])

    def doing(self, what: str) -> None:
        """Tells what the job does next, where that is not training."""
        self._tell(doing=what)

    def round(self, states: Sequence[RunState], seconds: float) -> None:
        """Tells of a round that is over, if it is time to; of the last in any case.

        Args:
            states: All runs of the job.
            seconds: Training time so far, without evaluations.
        """
        playing = [state for state in states if state.request is not None]
        last = not playing
        if not (last or self._due()):
            return
        done = rounds_done(states)
        while len(self.samples) > 1 and seconds - self.samples[1][0] >= RATE_SECONDS:
            self.samples.popleft()
        before, done_before = self.samples[0]
        self.samples.append((seconds, done))
        rate = (done - done_before) / max(seconds - before, 1e-9)
        left = sum(self.study.rounds - len(state.rows) for state in playing)
        self._tell(
            doing="",
            at=min((len(state.rows) for state in playing), default=self.study.rounds),
            saved=min(map(_saved, playing), default=None),
            pace=rate / max(len(playing), 1) if done else None,
            left=left / rate if rate else None,
            means=self._means(states),
            runs={
                str(state.run): RunRounds(digest=self.told.runs[str(state.run)].digest, rounds=len(state.rows))
                for state in states
            },
        )
        if done and (last or self.clock() - self.reported >= REPORT_SECONDS):
            self._report()

    def evaluation(
        self, what: str, items: int, most: int, check: Callable[[], None], at: int = 0
    ) -> Callable[[], None]:
        """A function to call before each batch of a held-out evaluation, which tells of it if it is time to.

        Args:
            what: What is evaluated.
            items: Number of held-out items.
            most: The most of them in a batch.
            check: Is called as well.
            at: Rounds of the runs that are evaluated.
        """
        batches, begun = math.ceil(items / batch_size(items, most)), 0

        def before_batch() -> None:
            nonlocal begun
            check()
            if self._due():
                self._tell(doing=f"held-out evaluation of {what}, {begun} of {batches} batches", at=at)
                if self.clock() - self.reported >= REPORT_SECONDS:
                    self._report()
            begun += 1

        return before_batch

    def costs(self, done: int, training: float, evaluating: float) -> None:
        """Tells how long the runs took, and what the study's default number of rounds would take.

        Args:
            done: Rounds that this job has done, of all runs together.
            training: Seconds of training.
            evaluating: Seconds of held-out evaluation.
        """
        if not done:
            return
        runs, rounds = len(self.told.runs), Study.model_fields["rounds"].default
        longer = f"; {rounds} rounds would take {duration(training / done * rounds * runs)} of training"
        self.notice(
            f"{self.told.name}   done: {runs} run{'' if runs == 1 else 's'} of {self.study.rounds} rounds, "
            f"{duration(training)} of training and {duration(evaluating)} of held-out evaluation"
            + (longer if rounds != self.study.rounds else "")
        )

    def beat(self) -> None:
        """Gives a sign of life."""
        with suppress(OSError):
            os.utime(self.path)

    def _means(self, states: Sequence[RunState]) -> dict[str, Means]:
        """What the runs of each condition get lately."""
        means = {}
        for name, row in self.study.conditions.items():
            last = [entry for state in states if state.run.condition == name for entry in state.rows[-MEAN_ROUNDS:]]
            if last:
                reward = None if row.reward == "score" else statistics.fmean(entry["reward"] for entry in last)
                means[name] = Means(reward=reward, score=statistics.fmean(entry["score"] for entry in last))
        return means

    def _due(self) -> bool:
        return self.clock() - self.written >= FILE_SECONDS

    def _report(self) -> None:
        self.reported = self.clock()
        self.report(job_line(self.told))

    def _tell(self, **changes: Any) -> None:
        """Writes the file anew. Where that fails, the job goes on: a run is worth more than what is told of it."""
        self.told = self.told.model_copy(update=changes)
        self.written = self.clock()
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.told.model_dump_json(), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            if self.writable:
                self.notice(f"{self.path}: cannot be written: {error}; the job goes on, but is not seen from outside")
            self.writable = False


@contextmanager
def telling(study: Study, runs: Sequence[Run], report: Report, notice: Report) -> Iterator[Progress]:
    """Tells of a job that holds its runs, until it has ended in good order.

    The file of one that was killed stays and grows old, until a job does its runs again.
    """
    names = set(map(str, runs))
    for path, told in job_files(Path(study.results)).items():
        if told is not None and not names.isdisjoint(told.runs):
            path.unlink(missing_ok=True)
    progress = Progress(study, runs, report, notice)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            progress.beat()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield progress
    finally:
        ended.set()
        beating.join()
        progress.path.unlink(missing_ok=True)


def _saved(state: RunState) -> int:
    """Rounds of a run that its checkpoint holds."""
    return len(state.rows) - sum("round" in entry for entry in state.unsaved)


def rounds_done(states: Sequence[RunState]) -> int:
    """Rounds that this job has done, of all runs together."""
    return sum(len(state.rows) - state.first for state in states)
