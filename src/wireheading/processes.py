"""Whether a process of this machine that a file names is still the one that wrote the file."""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCKS_APART = 60.0
"""Seconds by which the clocks of a machine and of its file server may differ."""


def still_alive(process: int, written: float) -> bool:
    """Whether a process is alive that was so at a time in seconds since the epoch.

    The system gives a number anew: a process with it that began later is another one.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It is alive, and another user's.
    began = _began(process)
    return began is None or began < written + CLOCKS_APART


def _began(process: int) -> float | None:
    """When a process began, in seconds since the epoch; None where the system does not tell."""
    try:
        # The fields after the program's name, which may hold anything, begin with the third.
        ticks = int(Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
