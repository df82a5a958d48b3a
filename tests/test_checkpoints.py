from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from wireheading.engine import checkpoints
from wireheading.engine.checkpoints import load_checkpoint, save_checkpoint
from wireheading.engine.folders import VERSION, HeldError, holding
from wireheading.files import WriteError


def save(folder: Path, start: int, stop: int, size: int = 5) -> None:
    rows = [{"round": round_, "response": f"“{round_}”\n"} for round_ in range(start, stop)]
    tensors = {"values": torch.arange(float(size)) + stop, "steps": torch.tensor(stop)}
    save_checkpoint(folder, "identity", rows, stop, tensors)


def rounds(folder: Path, said: list[str] | None = None, identity: str = "identity") -> int | None:
    checkpoint = load_checkpoint(folder, identity, print if said is None else said.append)
    if checkpoint is None:
        return None
    done = len(checkpoint.log)
    assert [row["round"] for row in checkpoint.log] == list(range(done))
    assert torch.equal(checkpoint.tensors["values"], torch.arange(5.0) + done)
    return done


def test_a_run_goes_on_from_its_latest_state(tmp_path: Path) -> None:
    folder = tmp_path / "run.checkpoint"
    assert rounds(folder) is None
    for start in (0, 10, 20):
        save(folder, start, start + 10)
    assert rounds(folder) == 30
    assert len(list(folder.glob("state-*"))) == 2


def test_rounds_written_after_the_last_state_are_dropped(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 10}\n{"rou')
    assert rounds(tmp_path) == 10
    save(tmp_path, 10, 20)
    assert rounds(tmp_path) == 20


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 10, 20)
    latest = tmp_path / "state-000020.safetensors"
    data = bytearray(latest.read_bytes())
    if damage == "cut":
        del data[-3:]
    elif damage == "flip":
        data[-3] ^= 1
    else:
        data.clear()
    latest.write_bytes(data)
    said: list[str] = []
    assert rounds(tmp_path, said) == 10
    assert len(said) == 1
    assert str(latest) in said[0]
    # What is then redone is appended behind the rounds that are believed.
    save(tmp_path, 10, 15)
    assert rounds(tmp_path) == 15


def test_a_damaged_state_is_not_counted_among_those_that_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 10, 20)
    (tmp_path / "state-000020.safetensors").write_bytes(b"")
    assert rounds(tmp_path) == 10
    save(tmp_path, 10, 15)
    (tmp_path / "state-000015.safetensors").write_bytes(b"")
    assert rounds(tmp_path) == 10


def test_every_byte_of_a_state_is_proved(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 10, 20)
    latest = tmp_path / "state-000020.safetensors"
    whole, log = latest.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()
    # The header is padded with spaces, whose loss changes nothing.
    for index in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[index] ^= 1
        latest.write_bytes(damaged)
        said: list[str] = []
        assert rounds(tmp_path, said) == 10, f"byte {index}: {damaged!r}"
        assert len(said) == 1
        latest.write_bytes(whole)
        (tmp_path / "rounds.jsonl").write_bytes(log)


def test_a_checkpoint_of_another_version_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 0, 10)
    monkeypatch.setattr(checkpoints, "VERSION", VERSION + 1)
    said: list[str] = []
    assert rounds(tmp_path, said) is None
    assert "is of version 3 of checkpoints, not 4; starting from the first round" in said[0]


def test_a_file_that_cannot_be_read_just_now_is_an_error_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 0, 10)

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        with pytest.raises(OSError, match="Stale"):
            rounds(tmp_path)
    assert rounds(tmp_path) == 10


@pytest.mark.parametrize(("file", "room"), [("rounds.jsonl", 0), ("rounds.jsonl", 30), ("state-", 200)])
def test_a_full_disk_is_told_in_a_line_and_costs_no_more_than_what_was_to_be_written(
    tmp_path: Path, file: str, room: int
) -> None:
    folder = tmp_path / "run.checkpoint"
    save(folder, 0, 10)
    size = (folder / "rounds.jsonl").stat().st_size
    with file_size_limit(size + room), pytest.raises(WriteError) as caught:
        save(folder, 10, 12, size=1000)
    text = str(caught.value)
    assert text.startswith(f"{folder}/{file}")
    assert "cannot be written" in text
    assert "File too large" in text
    assert "\n" not in text
    assert not list(folder.glob(".*"))
    assert rounds(folder) == 10
    save(folder, 10, 20)
    assert rounds(folder) == 20


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk with room for files of this size and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("call", range(7))
def test_a_kill_at_any_step_of_writing_leaves_the_state_before_or_the_new_one(tmp_path: Path, call: int) -> None:
    """The steps: flush the rounds, write, flush and rename the state, flush the folder, remove the oldest state."""
    save(tmp_path, 0, 10)
    save(tmp_path, 10, 20)
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def killing(function: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if next(steps) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return step

        os.fsync = killing(os.fsync)
        Path.replace = killing(Path.replace)  # type: ignore[method-assign]
        Path.unlink = killing(Path.unlink)  # type: ignore[method-assign]
        checkpoints.save_file = killing(checkpoints.save_file)  # type: ignore[attr-defined]
        save(tmp_path, 20, 30)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    done = rounds(tmp_path)
    assert done == (20 if call < 4 else 30)
    save(tmp_path, done, done + 10)
    assert rounds(tmp_path) == done + 10
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    (tmp_path / ".state-000020.safetensors.123.tmp").write_bytes(b"half")
    assert rounds(tmp_path) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"rounds.jsonl", "state-000010.safetensors"}


def test_a_run_is_done_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run.checkpoint"
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with holding(folder, print):
        with pytest.raises(HeldError) as caught, holding(folder, print, 0.1):
            pass
        assert str(caught.value).startswith(f"{folder}/lock: this run is being done by process {os.getpid()} on ")
        assert "Slurm job 4711; wait for that job, or cancel it" in str(caught.value)
        assert "\n" not in str(caught.value)
    with holding(folder, print):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    said: list[str] = []
    with holding(tmp_path, said.append):
        pass
    assert "make sure that no other job does this run" in said[0]


def test_lost_rounds_make_a_state_unusable(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 10, 20)
    log = tmp_path / "rounds.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:12]))
    said: list[str] = []
    assert rounds(tmp_path, said) == 10
    assert "does not fit rounds.jsonl" in said[0]


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run.checkpoint"
    save(folder, 0, 10)
    said: list[str] = []
    assert rounds(folder, said, identity="other") is None
    assert "other settings" in said[0]
    assert list(folder.iterdir()) == []
