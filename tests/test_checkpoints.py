from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wireheading.checkpoints import load_checkpoint, save_checkpoint


def save(folder: Path, start: int, stop: int) -> None:
    rows = [{"round": round_, "response": f"“{round_}”\n"} for round_ in range(start, stop)]
    tensors = {"values": torch.arange(5.0) + stop, "steps": torch.tensor(stop)}
    save_checkpoint(folder, "identity", rows, stop, 0.1 + stop, tensors)


def rounds(folder: Path, said: list[str] | None = None, identity: str = "identity") -> int | None:
    checkpoint = load_checkpoint(folder, identity, print if said is None else said.append)
    if checkpoint is None:
        return None
    done = len(checkpoint.rows)
    assert [row["round"] for row in checkpoint.rows] == list(range(done))
    assert checkpoint.baseline == 0.1 + done
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
    assert not folder.exists()
