"""Writes files so that a crash leaves the old one or the new one, never a half of either."""

from __future__ import annotations

import glob
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from wireheading.errors import InputError
from wireheading.processes import still_alive

ABANDONED_SECONDS = 86_400.0
"""Age at which another machine's temporary file counts as abandoned."""


class WriteError(InputError):
    """A file that cannot be written. Its text is one line: the file, why, what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Reports a full disk or a folder that is not writable in one line that names the file.

    Raises:
        WriteError: Writing failed.
    """
    try:
        yield
    # The safetensors library wraps errors of the operating system in its own.
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"{path}: cannot be written: {error}; make room or make the folder writable, then run again"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; on success the file is flushed to disk and renamed to `path`.

    On an error the temporary file is removed and `path` is unchanged. Leftovers of killed processes are removed too; a
    file that another process is writing is not.

    Raises:
        WriteError: The disk is full, or the folder is not writable.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Removes temporary files of dead processes on this machine, and any that are a day old."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        host, _, process = leftover.name.removeprefix(f".{path.name}.").removesuffix(".tmp").rpartition(".")
        with suppress(FileNotFoundError):
            written = leftover.stat().st_mtime
            here = host == socket.gethostname() and process.isdecimal()
            if (here and not still_alive(int(process), written)) or time.time() - written > ABANDONED_SECONDS:
                leftover.unlink()


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes temporary files that a killed process left, if their names begin with `name`."""
    for leftover in folder.glob(f".{name}*.tmp"):
        leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: without it, a crash may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 over the source files of this package."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
