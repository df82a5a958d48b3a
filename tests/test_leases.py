"""Jobs that run at the same time run on different devices, however they end."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from configs import changed

from wireheading.engine import leases
from wireheading.engine.leases import leased, own_device, visible_devices
from wireheading.errors import InputError
from wireheading.study.config import load_study

HOLDER = """
import sys
from pathlib import Path
from wireheading.engine.leases import leased
with leased(sys.argv[2].split(","), print, int(sys.argv[3]), Path(sys.argv[1]), 0.01) as index:
    print(index, flush=True)
    sys.stdin.readline()
"""


class Job:
    """A process that takes a device, tells which, and holds it until it is told to end or killed."""

    def __init__(self, folder: Path, devices: str, part: int = leases.WHOLE):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), devices, str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, *, kill: bool) -> None:
        if kill:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(None if kill else "\n", timeout=30)


@contextmanager
def ended(jobs: list[Job]) -> Iterator[None]:
    try:
        yield
    finally:
        for job in jobs:
            job.process.kill()
            job.process.communicate()


@pytest.mark.slow
def test_two_jobs_never_hold_one_device_over_fifty_acquisitions_with_kills_between(tmp_path: Path) -> None:
    """Two jobs hold two devices and a third waits; whichever ends, the third gets its device, and not before."""
    chance = random.Random(0)
    jobs = [Job(tmp_path, "a,b"), Job(tmp_path, "a,b")]
    with ended(jobs):
        holders = {job.line(): job for job in jobs}
        assert sorted(holders) == ["0", "1"]
        for _ in range(48):
            waiting = Job(tmp_path, "a,b")
            jobs.append(waiting)
            assert waiting.line() == "all devices are in use (a, b); waiting for one"
            device = chance.choice("01")
            holders[device].end(kill=chance.random() < 0.6)
            assert waiting.line() == device
            holders[device] = waiting


def test_jobs_share_a_device_while_their_parts_fit(tmp_path: Path) -> None:
    with leased(["a"], pytest.fail, 400, tmp_path), ended(jobs := [Job(tmp_path, "a", 500), Job(tmp_path, "a", 200)]):
        first = jobs[0].line(), jobs[1].line()
        assert sorted(first) == ["0", "all devices are in use (a); waiting for one"]
        jobs[first.index("0")].end(kill=True)
        assert jobs[1 - first.index("0")].line() == "0"


def test_the_emptiest_device_is_taken(tmp_path: Path) -> None:
    with leased(["a", "b"], print, 300, tmp_path) as one, leased(["a", "b"], print, 300, tmp_path) as other:
        assert {one, other} == {0, 1}


def test_an_error_in_a_job_frees_its_device(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), leased(["a"], pytest.fail, folder=tmp_path):
        raise RuntimeError
    with leased(["a"], pytest.fail, folder=tmp_path) as index:
        assert index == 0


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        ("GPU-8a, GPU-9b", ["GPU-8a", "GPU-9b"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
    ],
)
def test_devices_are_those_that_a_scheduler_names(
    monkeypatch: pytest.MonkeyPatch, listed: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_devices() == names


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's tool that tells of two devices of 80 GiB."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\ncase $1 in *index) printf "0\\n1\\n";; *) printf "81920\\n81920\\n";; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(leases, "SHARED_PLACE", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.usefixtures("smi")
def test_a_job_sees_its_own_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_devices() == ["0", "1"]
    study = load_study(changed())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8")
    told: list[str] = []
    with leased(["7", "8"], pytest.fail), own_device(study, "tiny", told.append):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "8"
    assert told == ["on device 8"]


@pytest.mark.usefixtures("smi")
def test_devices_are_shared_where_the_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    told: list[str] = []
    study = load_study(changed(models__tiny__vram_gb=30.0, engine__share_devices=True))
    with own_device(study, "tiny", told.append), own_device(study, "tiny", told.append):
        assert told == ["on device 0, 35% of it"] * 2
    with pytest.raises(InputError, match=r"models\.tiny\.vram_gb is not given"):
        own_device(load_study(changed(engine__share_devices=True)), "tiny", print).__enter__()


@pytest.mark.usefixtures("smi")
def test_a_driver_that_does_not_answer_leaves_the_cpu(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed because it could not communicate with the driver\nexit 9\n")
    assert visible_devices() == []
    tool.chmod(0o644)
    assert visible_devices() == []


def test_without_a_device_nothing_is_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with own_device(load_study(changed()), "tiny", pytest.fail):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("trap", ["link", "dangling", "file", "pipe", "open"])
def test_a_folder_of_claims_that_is_not_the_users_alone_is_refused_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr(leases, "SHARED_PLACE", tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    victim, folder = tmp_path / "home", tmp_path / f"wireheading-claims-{os.getuid()}"
    (victim / "0").mkdir(parents=True)
    (victim / "0" / "1000.ab").write_text("mine")
    if trap == "link":
        folder.symlink_to(victim)
    elif trap == "dangling":
        folder.symlink_to(tmp_path / "nowhere")
    elif trap == "file":
        folder.touch()
    elif trap == "pipe":
        os.mkfifo(folder)
    else:
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
    with pytest.raises(InputError, match="no folder of yours alone"), leased(["0"], pytest.fail):
        pass
    assert (victim / "0" / "1000.ab").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_claims_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SHARED_PLACE", tmp_path)
    uid = os.getuid()
    (tmp_path / f"wireheading-claims-{uid + 1}").mkdir(mode=0o700)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(InputError, match="no folder of yours alone"), leased(["0"], pytest.fail):
        pass


def test_the_place_of_claims_does_not_depend_on_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = f"test-{os.getpid()}"
    with leased([device], pytest.fail):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        job = subprocess.Popen(
            [sys.executable, "-c", HOLDER.replace("Path(sys.argv[1])", "None"), "", device, "1000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert job.stdout is not None
        assert job.stdout.readline() == f"all devices are in use ({device}); waiting for one\n"
    assert job.communicate("\n", timeout=30)[0] == "0\n"


def test_a_lock_that_is_held_is_waited_for_and_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    told: list[str] = []
    with (tmp_path / "a" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def report(line: str) -> None:
            told.append(line)
            fcntl.flock(lock, fcntl.LOCK_UN)

        with leased(["a"], report, folder=tmp_path, poll_seconds=0.01) as index:
            assert index == 0
    assert told == [f"waiting for {tmp_path}/a/lock, which another process holds"]
