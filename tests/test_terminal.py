"""What is seen on a terminal: lines that change, what several processes write beside them, and what is left out."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
from made_up import few_runs, write_job, write_runs
from screen import Screen, on_terminal
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent
from workplace import Workplace, targets

from wireheading import console
from wireheading.console import Lines, Messages, take_over
from wireheading.errors import InputError
from wireheading.jobs import DRAWN, GOES_ON, clearing
from wireheading.study.config import Study


class Terminal:
    """A terminal to write to, and what it shows."""

    def __init__(self, lines: int, columns: int):
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.stream = os.fdopen(side, "w", encoding="utf-8")
        self.screen = Screen()

    def __str__(self) -> str:
        self.stream.flush()
        os.set_blocking(self.main, False)
        while True:
            try:
                self.screen.feed(os.read(self.main, 65536).decode())
            except BlockingIOError:
                return str(self.screen)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    made = Terminal(10, 60)
    yield made
    made.stream.close()
    os.close(made.main)


def notice(stream: TextIO, line: str) -> None:
    """A job process writes a line."""
    stream.write(f"{clearing(stream)}{line}\n")


def test_what_others_write_stands_above_the_lines_and_nothing_is_lost(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DRAWN, "1")
    lines = Lines(terminal.stream)
    lines.draw(["tiny · seed 42   1/500 of a long line", "tiny · seed 123   1/500"])
    notice(terminal.stream, "first")
    notice(terminal.stream, "second")
    lines.draw(["tiny · seed 42   2/500", "tiny · seed 123   2/500"])
    notice(terminal.stream, "third")
    lines.draw(["tiny · seed 123   3/500"])
    assert str(terminal).splitlines() == ["first", "second", "third", "tiny · seed 123   3/500"]
    lines.clear()
    assert str(terminal).splitlines() == ["first", "second", "third"]


def test_not_even_what_knows_nothing_of_the_lines_is_lost(terminal: Terminal) -> None:
    """As a traceback, or a warning of a library, in a job process."""
    lines = Lines(terminal.stream)
    lines.draw(["one   1/500", "two   1/500"])
    terminal.stream.write("Traceback (most recent call last):\nValueError\n")
    lines.draw(["one   2/500", "two   2/500"])
    shown = str(terminal).splitlines()
    assert shown[0] == "Traceback (most recent call last):"
    assert shown[1].startswith("ValueError")
    assert shown[2:] == ["one   2/500", "two   2/500"]


def test_lines_fit_the_terminal(terminal: Terminal) -> None:
    lines = Lines(terminal.stream)
    lines.draw([f"job {number}   {'x' * 80}" for number in range(40)])
    shown = str(terminal).splitlines()
    assert len(shown) == 9
    assert shown[0] == f"job 0   {'x' * 50}…"
    assert shown[-1] == "… and 32 more"


def test_names_are_text_and_no_markup(terminal: Terminal) -> None:
    Lines(terminal.stream).draw(["[red]tiny[/red]   1/500"])
    assert str(terminal).splitlines() == ["[red]tiny[/red]   1/500"]


def test_lines_need_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(InputError, match="need a terminal"):
        Lines(file)
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(InputError, match="need a terminal"):
        Lines(terminal.stream)


def test_a_watched_study_is_shown_until_nothing_is_left(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = few_runs(tmp_path)
    job = write_job(study, study.runs()[:3], 7)
    seen = []

    def look(seconds: float) -> None:
        seen.append(str(terminal))
        if len(seen) == 1:
            job.unlink()
        elif len(seen) == 2:
            write_runs(study)

    monkeypatch.setattr("wireheading.console.time.sleep", look)
    console.watch(study, terminal.stream)
    runs = len(study.runs())
    assert seen[0].splitlines() == [
        "tiny · seed 42   7/16 ▓▓▓░░░░░ 1 min left · 2 rounds/s",
        f"{runs} runs: 3 running, {runs - 3} missing",
        f"{runs} runs left to do; job hours: tiny unknown, as none of it…",
    ]
    assert seen[1].splitlines()[0] == f"{runs} runs: {runs} missing"
    assert str(terminal).splitlines() == [f"{runs} runs: {runs} done", "nothing left to do"]


def test_ctrl_c_leaves_what_was_watched(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wireheading.console.time.sleep", interrupt)
    study = few_runs(tmp_path)
    console.watch(study, terminal.stream)
    assert str(terminal).splitlines()[0] == f"{len(study.runs())} runs: {len(study.runs())} missing"


class Told:
    """Snakemake's logger with our handler in the place of its own."""

    def __init__(self, folder: Path, dry_run: bool = False):
        self.path = folder / "told"
        own = logging.StreamHandler(self.path.open("w", encoding="utf-8"))
        own.name = "DefaultStreamHandler"
        own.setFormatter(DefaultFormatter())
        self.logger = logging.Logger("snakemake")
        self.logger.addHandler(own)
        assert take_over(self.logger, "the plan", dry_run)
        (self.handler,) = self.logger.handlers
        assert isinstance(self.handler, Messages)

    def lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines()


def job(**changes: Any) -> dict[str, Any]:
    return {
        **{"event": LogEvent.JOB_INFO, "rule_name": "rl_run", "rule_msg": None, "jobid": 3},
        **{"input": ["in"] * 100, "output": ["out"], "log": [], "aux": {}},
    } | changes


def test_snakemakes_routine_is_left_out(tmp_path: Path) -> None:
    told = Told(tmp_path)
    for text in (
        "Building DAG of jobs...",
        "Select jobs to execute...",
        "Removing temporary output results/.jobs/vm-1.",
        "Warning: the following output files of rule tables were not present when the DAG was created:\n{'a'}",
        None,
    ):
        told.logger.info(text)
    told.logger.error("RuleException:\nCalledProcessError in file runs.smk, line 38:\nCommand '…' returned 75.")
    told.logger.info("rule all:", extra=job(rule_name="all"))
    told.logger.info("3 of 11 steps (27%) done", extra={"event": LogEvent.PROGRESS, "done": 3, "total": 11})
    assert told.lines() == []


def test_a_job_is_one_line_and_what_is_not_routine_is_told(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.logger.info("", extra=job(rule_msg="running tiny · seed 42"))
    told.logger.info("Creating conda environment envs/run.yaml...")
    told.logger.warning("a warning")
    told.logger.error("an error")
    lines = told.lines()
    assert lines[0][5:] == "  running tiny · seed 42"
    assert lines[1:] == ["Creating conda environment envs/run.yaml...", "a warning", "an error"]


def test_the_plan_comes_once_with_the_steps(tmp_path: Path) -> None:
    told = Told(tmp_path, dry_run=True)
    stats = {"all": 1, "tables": 1, "rl_run": 12, "aggregate": 1, "total": 15}
    for _ in range(2):
        told.logger.info("Job stats:", extra={"event": LogEvent.RUN_INFO, "stats": stats})
    told.logger.info("", extra=job(rule_msg="running tiny"))
    assert told.lines() == ["the plan", "steps: 12 rl_run, 1 aggregate"]


def test_the_plan_comes_where_there_is_nothing_to_do(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.logger.info("Nothing to be done (all requested files are present and up to date).")
    assert told.lines()[0] == "the plan"
    assert told.lines()[1].startswith("Nothing to be done")


def test_a_failure_shows_the_end_of_the_jobs_log(tmp_path: Path) -> None:
    log = tmp_path / "rl_run.log"
    log.write_text("".join(f"line {number}\n" for number in range(30)) + "\x1b[31mred\n")
    told = Told(tmp_path)
    failed = job(event=LogEvent.JOB_ERROR, rule_msg="running tiny", log=[str(log)], aux={"external_jobid": "17"})
    told.logger.error("Error in rule rl_run, jobid: 3", extra=failed)
    lines = told.lines()
    assert lines[:3] == ["failed: running tiny", "  external_jobid: 17", f"  the last lines of {log}:"]
    assert len(lines) == 3 + console.LOG_LINES
    assert lines[-1] == r"    \x1b[31mred"


def test_a_job_that_was_asked_to_stop_has_one_line(tmp_path: Path) -> None:
    log = tmp_path / "rl_run.log"
    log.write_text(f"much else\ntiny: SIGINT: saved at round 3 of 9; {GOES_ON} from there\n")
    told = Told(tmp_path)
    told.logger.error("", extra=job(event=LogEvent.JOB_ERROR, rule_msg="running tiny", log=[str(log)]))
    assert told.lines() == ["tiny: SIGINT: saved at round 3 of 9; the same command goes on from there"]


def test_another_handler_is_left_alone() -> None:
    logger = logging.Logger("snakemake")
    logger.addHandler(logging.NullHandler())
    assert not take_over(logger, "", dry_run=False)


REPORTS = """
from wireheading.reporting import reporting
with reporting("job.log") as report:
    report("routine")
    report.notice("notice")
    raise ValueError("unforeseen")
"""


@pytest.mark.parametrize(("drawn", "shown"), [("1", ["notice"]), ("", ["routine", "notice"])])
def test_a_job_writes_what_is_worth_it_on_a_terminal_with_lines(tmp_path: Path, drawn: str, shown: list[str]) -> None:
    command = [sys.executable, "-c", REPORTS]
    code, screen = on_terminal(command, tmp_path, os.environ | {DRAWN: drawn})
    assert code == 1
    assert [line for line in str(screen).splitlines() if line in ("routine", "notice")] == shown
    log = (tmp_path / "job.log").read_text()
    assert log.startswith("routine\nnotice\nTraceback")
    assert "ValueError: unforeseen" in log
    # Elsewhere, everything is written.
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {DRAWN: drawn}, capture_output=True, text=True)
    assert done.stderr.startswith("routine\nnotice\n")


def two_jobs(finished: Workplace, folder: Path, rounds: int) -> tuple[Workplace, Study]:
    """A small study of two jobs, whose model is there."""
    finished.configure()
    workplace = Workplace(folder)
    (folder / "resources").symlink_to(finished.folder / "resources")
    engine = {"lockstep": ["task", "condition"], "threads": 1, "checkpoint_every": 5}
    return workplace, workplace.configure(rounds=rounds, engine=engine)


def snakemake(workplace: Workplace, *wanted: str, watch: Any = lambda *_: None) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "snakemake", *wanted, "--profile", "profiles/demo", "--configfile", "small.yaml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")}
    code, screen = on_terminal(command, workplace.folder, environment, watch)
    return code, str(screen).splitlines()


@pytest.mark.slow
def test_a_study_on_a_terminal(finished: Workplace, tmp_path: Path) -> None:
    workplace, _ = two_jobs(finished, tmp_path, 40)
    together = set()

    def watch(screen: Screen, process: object) -> None:
        last = str(screen).splitlines()[-2:]
        if all("/40 " in line for line in last):
            together.add(tuple(line.split("   ")[0] for line in last))

    code, lines = snakemake(workplace, watch=watch)
    assert code == 0, lines
    assert together == {("tiny · seed 123", "tiny · seed 42")}, "both jobs have a line at the same time"
    assert len(lines) < 25, lines
    assert max(map(len, lines)) < 150
    assert [line for line in lines if "/40 " in line] == [], "no line of a job is left over"
    assert sum(" done: 6 runs of 40 rounds" in line for line in lines) == 2
    summary = [line for line in lines if "selfgrade's paid reward" in line]
    assert [line.split("   ")[0].strip() for line in summary] == [
        "tiny · arithmetic",
        "tiny · sentiment",
        "tiny · summarization",
    ]
    assert lines[-1].split() == ["verdicts", "reports/verdicts.csv"]


@pytest.mark.slow
def test_ctrl_c_says_where_it_was_saved_and_the_same_command_goes_on(finished: Workplace, tmp_path: Path) -> None:
    workplace, study = two_jobs(finished, tmp_path, 40)
    typed: list[float] = []

    def watch(screen: Screen, process: subprocess.Popen[bytes]) -> None:
        if not typed and sum("/40 " in line for line in str(screen).splitlines()) == 2:
            typed.append(time.monotonic())
            os.killpg(process.pid, 2)

    code, lines = snakemake(workplace, *targets(study), watch=watch)
    assert code != 0
    saved = [line for line in lines if "saved at round" in line]
    assert len(saved) == 2, lines
    assert all(line.endswith("of 40; the same command goes on from there") for line in saved)
    assert len(lines) < 25, lines
    code, lines = snakemake(workplace, *targets(study))
    assert code == 0, lines
    assert len(workplace.records(study)) == 12
