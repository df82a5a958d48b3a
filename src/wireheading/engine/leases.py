"""Leases of this machine's accelerators: jobs that run at the same time run on different ones.

A local scheduler counts devices but does not say which is whose. So each job claims one by a file that it locks for
as long as it lives: however a process ends, the kernel takes its lock, and with it the claim. Jobs may share a device
where all of them claim no more than a part of it.

Each device has a folder with a file `<thousandths>.<random name>` for every claim, and a file `lock` that whoever
reads or changes the claims holds for a moment. They lie in a folder of this user's alone, in a place that is the same
for all of the user's jobs on a machine, whatever their environment says.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import secrets
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from wireheading.errors import InputError

if TYPE_CHECKING:
    from wireheading.study.config import Study

WHOLE = 1000
"""A whole device, in the unit of claims."""

SHARED_PLACE = Path("/tmp")
"""Where the folder of claims lies: not where TMPDIR points to, which may differ from job to job."""

POLL_SECONDS = 1.0
"""Time between two looks for a device that has come free."""

_CLAIM = re.compile(r"(\d+)\.[0-9a-f]+")


def visible_devices() -> list[str]:
    """The names of the devices that this process may use, in the order of their indices.

    Those of CUDA_VISIBLE_DEVICES where a scheduler set it, else all that the machine's driver lists: none where there
    is no driver, or it does not answer, as CUDA has none to use either.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",")]
        # As CUDA reads it: nothing from the first invalid entry on.
        return names[: next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))]
    try:
        return _nvidia_smi("--query-gpu=index", "--format=csv,noheader").split()
    except (OSError, subprocess.CalledProcessError):
        return []


@contextmanager
def own_device(study: Study, model: str, report: Callable[[str], None]) -> Iterator[None]:
    """Lets this process see one device alone, which no other job has meanwhile; none where there is none.

    To be entered before CUDA is used.

    Args:
        study: The study's settings, which tell whether devices are shared.
        model: Name of the model that is to be loaded.
        report: Writes which device it is, and what is waited for.

    Raises:
        InputError: The devices are to be shared, but what the model takes is not known; or the folder of claims is not
            this user's alone.
    """
    devices = visible_devices()
    if not devices:
        yield
        return
    part = WHOLE
    if study.engine.share_devices:
        part = min(WHOLE, math.ceil(_vram_gb(study, model) * 1e9 / device_bytes() * WHOLE))
    with leased(devices, report, part) as index:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index]
        report(f"on device {devices[index]}" + (f", {part / WHOLE:.0%} of it" if part < WHOLE else ""))
        yield


def device_bytes() -> int:
    """Memory of the smallest device of this machine, as its driver tells."""
    told = _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return min(int(line) for line in told.split()) * 2**20


@contextmanager
def leased(
    devices: Sequence[str],
    report: Callable[[str], None],
    part: int = WHOLE,
    folder: Path | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Iterator[int]:
    """Holds a device, and waits for one where none is free.

    Args:
        devices: Names of the devices, at least one.
        report: Writes what is waited for.
        part: How much of the device is claimed, in thousandths.
        folder: Where the claims lie; the same for all jobs of this machine's user.
        poll_seconds: Time between two looks.

    Yields:
        The index of the device.
    """
    if folder is None:
        # Slurm numbers the devices of each of its jobs from 0: the same name may mean another device in another job.
        job = os.environ.get("SLURM_JOB_ID", "")
        folder = SHARED_PLACE / f"wireheading-claims-{os.getuid()}{job and f'-{job}'}"
    _make_private(folder)
    told = None
    while True:
        try:
            claim = _claim_any(folder, devices, part)
            waiting = f"all devices are in use ({', '.join(devices)}); waiting for one"
        except _LockedError as locked:
            claim, waiting = None, f"waiting for {locked}, which another process holds"
        if claim is not None:
            break
        if waiting != told:
            report(waiting)
            told = waiting
        time.sleep(poll_seconds)
    index, path, file = claim
    with file:
        try:
            yield index
        finally:
            path.unlink(missing_ok=True)


class _LockedError(Exception):
    """A lock that another process holds just now: for a moment, unless it was stopped."""


def _make_private(folder: Path) -> None:
    """Makes a folder that only this user can change, or checks that it is one.

    Raises:
        InputError: Something else has its name. Nothing was changed.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise InputError(
            f"{folder}: is no folder of yours alone (mode 0700), so its claims on devices cannot be trusted; remove it"
        )


def _vram_gb(study: Study, model: str) -> float:
    vram_gb = study.models[model].vram_gb
    if vram_gb is None:
        raise InputError(
            f"config: models.{model}.vram_gb is not given, but engine.share_devices needs it; benchmarks/memory.py "
            "computes it"
        )
    return vram_gb


def _nvidia_smi(*arguments: str) -> str:
    return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=True).stdout


def _claim_any(folder: Path, devices: Sequence[str], part: int) -> tuple[int, Path, IO[str]] | None:
    """Claims the device that has the most left, if any has enough."""
    free = sorted((-_left(folder / _file_name(device)), index) for index, device in enumerate(devices))
    for _, index in free:
        claim = _claim(folder / _file_name(devices[index]), part)
        if claim is not None:
            return index, *claim
    return None


def _claim(device: Path, part: int) -> tuple[Path, IO[str]] | None:
    with _locked(device):
        if _used(device) + part > WHOLE:
            return None
        path = device / f"{part}.{secrets.token_hex(8)}"
        file = path.open("w", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, file


def _left(device: Path) -> int:
    with _locked(device):
        return WHOLE - _used(device)


def _used(device: Path) -> int:
    """How much of a device living processes claim; the claims of dead ones are removed."""
    used = 0
    for path in device.iterdir():
        claim = _CLAIM.fullmatch(path.name)
        if claim is None:
            continue
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                used += int(claim[1])
            else:
                path.unlink()
    return used


@contextmanager
def _locked(device: Path) -> Iterator[None]:
    device.mkdir(exist_ok=True)
    path = device / "lock"
    with path.open("a", encoding="utf-8") as file:
        for _ in range(50):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)
            else:
                break
        else:
            raise _LockedError(path)
        yield


def _file_name(device: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", device)
