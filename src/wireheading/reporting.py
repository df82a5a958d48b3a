"""Writes the scripts' messages to the terminal and to the rule's log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wireheading.errors import InputError


@contextmanager
def reporting(log: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes a line to standard error and to a log file.

    An error that the user can fix is reported in its one line, without a traceback. A log that cannot be written, on a
    full disk for example, does not end the job.
    """
    path, writable = Path(log), True
    with suppress(OSError):
        path.unlink()  # the log of an earlier attempt at this job

    def report(line: str) -> None:
        nonlocal writable
        print(line, file=sys.stderr, flush=True)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if writable:
                print(f"{log}: cannot be written: {error}; the job goes on", file=sys.stderr, flush=True)
            writable = False

    try:
        yield report
    except InputError as error:
        report(str(error))
        raise SystemExit(1) from None
