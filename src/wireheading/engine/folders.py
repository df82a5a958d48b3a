"""A run's folder of checkpoints: who holds the run, which checkpoints there are, and when they go.

The workflow asks while it is parsed, so nothing here imports torch.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wireheading.errors import InputError
from wireheading.files import writing

VERSION = 3
"""Version of the checkpoint's shape; one of another version is not resumed."""

PATIENCE = 2.0
"""Seconds for which a lock is tried: whoever only looks whether a run is held has it for a moment."""


class HeldError(InputError):
    """A run that another process is doing."""


def identity_of(digest: str, inputs: Mapping[str, str]) -> str:
    """What a run is a function of, as a text: the digest of its settings, and the digests of what it reads."""
    return json.dumps({"version": VERSION, "digest": digest, "inputs": dict(inputs)}, sort_keys=True)


def checkpoint_of(folder: Path, identity: str) -> Path:
    """The folder of an identity's checkpoint among those of a run: its name begins with the digest of the settings."""
    digest = json.loads(identity)["digest"]
    return folder / f"{digest[:16]}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def other_checkpoints(checkpoint: Path) -> list[str]:
    """The names of a run's checkpoints other than this one."""
    return sorted(path.name for path in checkpoint.parent.glob("*-*") if path != checkpoint)


@contextmanager
def holding(folder: Path, report: Callable[[str], None], patience: float = PATIENCE) -> Iterator[None]:
    """Keeps every other process from doing a run.

    The lock goes with the process, so one that was killed holds nothing.

    Args:
        folder: The run's folder of checkpoints, which is made.
        report: Told where the file system knows no locks.
        patience: Seconds for which a lock is tried that another process has.

    Raises:
        HeldError: Another process does the run.
        WriteError: The folder cannot be made.
    """
    path, deadline = folder / "lock", time.monotonic() + patience
    while True:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+", encoding="utf-8")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise HeldError(f"{path}: {_held_by(lock)}") from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                report(f"{path}: {error.strerror}; make sure that no other job does this run at the same time")
            if not _is_at(path, lock):
                # Whoever held it has removed the folder.
                continue
            lock.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            lock.write(f"process {os.getpid()} on {socket.gethostname()}{f', Slurm job {job}' if job else ''}\n")
            lock.flush()
            yield
            return


def problem_of_holder(folder: Path) -> str | None:
    """A line that names the process that does a run; None where there is none."""
    path = folder / "lock"
    try:
        with path.open("r", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"{path}: {_held_by(lock)}"
            except OSError:
                return None
    except FileNotFoundError:
        return None
    return None


def remove_checkpoints(folder: Path, digest: str) -> None:
    """Removes a run's checkpoints of the settings with this digest, unless a process does the run.

    Those of other settings stay. Where there are none, the folder goes.
    """
    if not folder.is_dir():
        return
    try:
        with holding(folder, lambda _: None, patience=0):
            for checkpoint in folder.glob(f"{digest[:16]}-*"):
                shutil.rmtree(checkpoint)
            if not any(folder.glob("*-*")):
                shutil.rmtree(folder)
    except HeldError:
        return


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _held_by(lock: IO[str]) -> str:
    lock.seek(0)
    return f"this run is being done by {lock.read().strip()}; wait for that job, or cancel it"
