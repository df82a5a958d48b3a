"""Writes the scripts' messages to the rule's log and to the terminal."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wireheading.errors import InputError
from wireheading.jobs import DRAWN, clearing


class Reporter:
    """Writes lines to a log file, and to standard error too, unless that is a terminal where jobs are drawn."""

    def __init__(self, log: str):
        self.path = Path(log)
        self.writable = True
        self.drawn = bool(os.environ.get(DRAWN)) and sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        """Writes a line that whoever sits at the terminal need not see while the job goes well."""
        if not self.drawn:
            self._show(line)
        self._write(line)

    def notice(self, line: str) -> None:
        """Writes a line that is to be seen on the terminal in any case."""
        self._show(line)
        self._write(line)

    def _show(self, line: str) -> None:
        print(f"{clearing(sys.stderr)}{line}", file=sys.stderr, flush=True)

    def _write(self, line: str) -> None:
        """Writes to the log. One that cannot be written, on a full disk for example, does not end the job."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if self.writable:
                self._show(f"{self.path}: cannot be written: {error}; the job goes on")
            self.writable = False


@contextmanager
def reporting(log: str) -> Iterator[Reporter]:
    """Yields what writes a line to a log file and to the terminal.

    An error that the user can fix is told in its one line, without a traceback; any other is in the log as well.
    """
    report = Reporter(log)
    with suppress(OSError):
        report.path.unlink()  # the log of an earlier attempt at this job
    try:
        yield report
    except InputError as error:
        report(str(error))
        raise SystemExit(1) from None
    except Exception:
        report(traceback.format_exc())
        raise SystemExit(1) from None
