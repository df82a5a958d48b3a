"""Writes the scripts' messages to the terminal and to the rule's log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wireheading.errors import InputError


@contextmanager
def reporting(log: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes a line to standard error and to a log file.

    An error that the user can fix is reported in its one line, without a traceback.
    """
    with Path(log).open("w", encoding="utf-8") as file:

        def report(line: str) -> None:
            for stream in (sys.stderr, file):
                print(line, file=stream, flush=True)

        try:
            yield report
        except InputError as error:
            report(str(error))
            raise SystemExit(1) from None
