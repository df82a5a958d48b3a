"""What an invocation of Snakemake shows: what is done in a line each, what went wrong, and a line for each running job.

Snakemake's own account, some ten lines for every job, goes to its log in `.snakemake/log`, and with `--verbose` to the
terminal as well.

Several processes write to one terminal: Snakemake's, and those of its jobs. Only the first draws lines that change,
from what the jobs tell in their files. Between any two writes the cursor stands where those lines begin, so that
whatever anybody else writes takes their place and scrolls up, and the lines are drawn anew below it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from wireheading.errors import InputError, printable
from wireheading.jobs import CLEAR, DRAWN, GOES_ON, clearing, job_line, jobs_of, short_digest
from wireheading.status import ENDED, jobs_text, left_text, survey
from wireheading.study.config import Run, Study

DRAW_SECONDS = 1.0
"""Time between two drawings."""

WATCH_SECONDS = 2.0
"""Time between two looks at all runs."""

LOG_LINES = 12
"""Last lines of a failed job's log that are shown."""

ROUTINE = (
    "Adding ",
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Complete log(s)",
    "Conda environments: ignored",
    "Config file ",
    "Creating report",
    "Elapsed time",
    "Execute ",
    "Loading script code",
    "Missing metadata for file",
    "Reasons:",
    "Removing output files of failed job",
    "RuleException:\nCalledProcessError",
    "Rules with missing metadata",
    "Removing temporary output",
    "Select jobs to execute",
    "This was a dry-run",
    "Touching output file",
    "Using shell",
    "Would remove temporary output",
    # Those of rules without a job, which declare what a job has written.
    "Warning: the following output files of rule",
)
"""How those of Snakemake's messages begin that say nothing about the study."""

METADATA = "provenance/metadata"
"""In what Snakemake says of its own memory of files, on which nothing here relies."""

TOLD = {None, "error", "job_info", "job_error", "group_error", "run_info", "shellcmd"}
"""Kinds of messages that are shown at all; all others are counts and lists."""

SILENT_RULES = {"all", "record", "tables", "total"}
"""Rules without a job, and what Snakemake lists beside the rules."""

_lock = threading.Lock()


class Messages(logging.StreamHandler[TextIO]):
    """Writes what is worth a line of Snakemake's messages, in the place of its own handler."""

    def __init__(self, own: logging.StreamHandler[TextIO], plan: str, dry_run: bool):
        """Takes over the stream of Snakemake's handler, and what it was told to leave out.

        Args:
            own: The handler.
            plan: What is said first where Snakemake is to run jobs, or finds nothing to be done.
            dry_run: Whether no job is run, so that none is told of.
        """
        super().__init__(own.stream)
        self.name = own.name
        self.filters = own.filters
        self.plan = plan
        self.dry_run = dry_run

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message, if it is worth a line."""
        text = self._text(record)
        if text:
            with _lock:
                self.stream.write(f"{clearing(self.stream)}{text}\n")
                self.flush()

    def _text(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None)
        kind = None if event is None else event.value
        message = str(record.msg or "").strip()
        if kind not in TOLD or message.startswith(ROUTINE) or METADATA in message:
            return ""
        if kind == "job_info":
            told = getattr(record, "rule_msg", None)
            return f"{time.strftime('%H:%M')}  {told}" if told and not self.dry_run else ""
        if kind == "job_error":
            return _failure(vars(record))
        if kind == "run_info":
            message = _steps(vars(record)["stats"])
        if kind == "run_info" or message.startswith("Nothing to be done"):
            message, self.plan = f"{self.plan}\n{message}" if self.plan else "", ""
        return message


def _steps(stats: Mapping[str, int]) -> str:
    """The jobs of each rule."""
    return "steps: " + ", ".join(f"{count} {rule}" for rule, count in stats.items() if rule not in SILENT_RULES)


def _failure(job: Mapping[str, object]) -> str:
    """What is told of a job that failed, with the end of its log; that alone of one that was asked to stop."""
    lines = [f"failed: {job['rule_msg'] or job['rule_name']}"]
    for name, value in dict(job["aux"]).items() if isinstance(job["aux"], Mapping) else ():
        lines.append(f"  {name}: {value}")
    for log in map(Path, job["log"] if isinstance(job["log"], list) else ()):
        try:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        except OSError as error:
            last = [str(error)]
        if last and GOES_ON in last[-1]:
            return printable(last[-1])
        lines += [f"  the last lines of {log}:", *(f"    {printable(line)}" for line in last)]
    return "\n".join(lines)


def take_over(logger: logging.Logger, plan: str, dry_run: bool) -> bool:
    """Replaces Snakemake's handler for the terminal, unless its user has chosen another.

    Args:
        logger: Snakemake's logger.
        plan: What is said first where Snakemake is to run jobs, or finds nothing to be done.
        dry_run: Whether no job is run.

    Returns:
        Whether there was one to replace.
    """
    for handler in list(logger.handlers):
        if handler.name == "DefaultStreamHandler" and isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)
            logger.addHandler(Messages(handler, plan, dry_run))
            return True
    return False


class Lines:
    """Lines at the bottom of a terminal that are drawn anew."""

    def __init__(self, stream: TextIO):
        """Prepares to draw.

        Args:
            stream: The terminal.

        Raises:
            InputError: It is no terminal that can show lines that change.
        """
        self.stream = stream
        self.console = Console(file=stream)
        if not stream.isatty() or self.console.is_dumb_terminal:
            raise InputError("lines that change need a terminal; `wireheading status` tells the same once")

    def draw(self, lines: Sequence[str]) -> None:
        """Draws lines below the cursor, in one write, and puts it back."""
        size = os.get_terminal_size(self.stream.fileno())
        if len(lines) >= size.lines:
            lines = [*lines[: size.lines - 2], f"… and {len(lines) - size.lines + 2} more"]
        with self.console.capture() as captured:
            for line in lines:
                text = Text(line, no_wrap=True)
                text.highlight_regex(r"^.*?(?=   )", "bold")
                text.highlight_regex("[▓░]+", "green")
                text.truncate(size.columns - 1, overflow="ellipsis")
                self.console.print(text, soft_wrap=True)
        back = f"\x1b[{len(lines)}A" if lines else ""
        self._write(f"\r{CLEAR}{captured.get()}{back}")

    def clear(self) -> None:
        """Clears what was drawn."""
        self._write(f"\r{CLEAR}")

    def _write(self, text: str) -> None:
        with _lock:
            self.stream.write(text)
            self.stream.flush()


class Drawing(threading.Thread):
    """Draws a line for each living job that does one of some runs, until it is told to end."""

    def __init__(self, study: Study, runs: Iterable[Run], stream: TextIO):
        """Prepares to draw; see `Lines`."""
        super().__init__(daemon=True)
        self.lines = Lines(stream)
        self.results = Path(study.results)
        self.digests = {str(run): short_digest(study, run) for run in runs}
        self.ended = threading.Event()

    def run(self) -> None:
        """Draws every second."""
        while not self.ended.wait(DRAW_SECONDS):
            jobs = jobs_of(self.results, self.digests, time.time())
            self.lines.draw([job_line(job.told, bar=True) for job in jobs if job.alive])

    def end(self) -> None:
        """Draws no more, and clears what was drawn."""
        self.ended.set()
        self.join()
        os.environ.pop(DRAWN, None)
        self.lines.clear()


def draw(study: Study, runs: Iterable[Run], stream: TextIO = sys.stderr) -> None:
    """Draws the jobs that do these runs until `end` is called, and lets job processes know.

    Where no terminal can show them, nothing is drawn.
    """
    try:
        _drawings.append(Drawing(study, runs, stream))
    except InputError:
        return
    os.environ[DRAWN] = "1"
    _drawings[-1].start()


def end() -> None:
    """Ends the drawing, if there is any."""
    while _drawings:
        _drawings.pop().end()


_drawings: list[Drawing] = []


def watch(study: Study, stream: TextIO = sys.stdout) -> None:
    """Shows the jobs of a study and what is left to do, until nothing is or Ctrl-C.

    Raises:
        InputError: The stream is no terminal.
    """
    lines = Lines(stream)
    shown: list[str] = []
    try:
        while True:
            found = survey(study, time.time())
            shown = [*jobs_text(found), *left_text(study, found.runs)]
            if all(status.state in ENDED for status in found.runs):
                break
            lines.draw(shown)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        pass
    lines.clear()
    print("\n".join(shown), file=stream)
