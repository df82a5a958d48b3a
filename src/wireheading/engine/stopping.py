"""Stopping in good order: a signal asks a job to end, and it ends after the round that it is in.

A scheduler sends SIGTERM when a job is cancelled or pre-empted and, where asked to, some minutes before its time limit;
some send SIGUSR1. SIGINT is Ctrl-C.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wireheading.jobs import GOES_ON

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):
    """A job ended early because a signal asked it to; the next invocation resumes it."""


class Stop:
    """Whether a job has been asked to end.

    Attributes:
        reason: The name of the signal that asked for it, or None.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def check(self) -> None:
        """Ends the job if it has been asked to end.

        Raises:
            Stopped: It has.
        """
        if self.reason is not None:
            raise Stopped(f"{self.reason}: stopped before the first round; {GOES_ON}")

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal. A second Ctrl-C ends the process at once."""
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name


@contextmanager
def listening() -> Iterator[Stop]:
    """Takes the signals that ask a process to end, until the block is left."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
