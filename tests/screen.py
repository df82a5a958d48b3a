"""A program on a terminal of its own, and what its screen shows: enough of a terminal for what this project writes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SEQUENCE = re.compile(r"\x1b\[(\?)?(\d*)(?:;\d+)*([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Screen:
    """The lines of a terminal from its first, those that have scrolled away too."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        """Writes a text."""
        for found in _SEQUENCE.finditer(text):
            if found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif not found[0].startswith("\x1b"):
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + found[0] + line[self.column + len(found[0]) :]
                self.column += len(found[0])
            elif found[3] == "A":
                self.row = max(0, self.row - int(found[2] or 1))
            elif found[3] == "J":
                del self.lines[self.row + 1 :]
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif found[3] == "K":
                if found[2] == "2":
                    self.lines[self.row] = ""
                self.lines[self.row] = self.lines[self.row][: self.column]

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_terminal(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    watch: Callable[[Screen, subprocess.Popen[bytes]], None] = lambda *_: None,
    size: tuple[int, int] = (40, 150),
    seconds: float = 300,
) -> tuple[int, Screen]:
    """Runs a program on a terminal.

    Args:
        command: The program and its arguments.
        folder: Where it runs.
        environment: Its environment.
        watch: Is called whenever something was written.
        size: Lines and columns of the terminal.
        seconds: How long it may take.

    Returns:
        Its exit code, and what its terminal shows in the end.
    """
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"TERM": "xterm-256color", **environment},
        stdin=side,
        stdout=side,
        stderr=side,
        # The terminal is its own, so that Ctrl-C written to it reaches all of its processes.
        preexec_fn=_own_terminal,
    )
    os.close(side)
    screen, deadline = Screen(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.2)[0]:
            try:
                data = os.read(main, 65536)
            except OSError:  # The last process has closed it.
                data = b""
            if not data:
                break
            screen.feed(data.decode(errors="replace"))
            watch(screen, process)
    else:
        process.kill()
    os.close(main)
    return process.wait(), screen
