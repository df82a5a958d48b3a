from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wireheading import records
from wireheading.files import WriteError
from wireheading.records import RecordError, inspect_record, read_record, write_record

DIGEST = "a" * 64


def record(**changes: Any) -> dict[str, Any]:
    content = {
        "digest": DIGEST,
        "version": records.VERSION,
        "run": {"seed": 42, "model": "tiny", "task": "arithmetic", "condition": "honest"},
        "status": "complete",
        "rounds": 2,
        **{name: [0.5, 1.0] for name in records.ROUND_ARRAYS},
        "spec": {"rounds": 2},
        "timing": {"seconds": 1.5},
        "provenance": {"code": "x"},
    }
    return content | changes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "42" / "tiny" / "arithmetic" / "honest.json"


def test_what_is_written_is_read(path: Path) -> None:
    write_record(path, record())
    read = read_record(path, DIGEST)
    checksum = read["provenance"].pop("sha256")
    assert len(checksum) == 64
    assert read == record()
    assert next(iter(read)) == "digest"
    assert inspect_record(path, DIGEST) == "valid"


def test_states_of_a_file(path: Path) -> None:
    assert inspect_record(path, DIGEST) == "missing"
    write_record(path, record())
    assert inspect_record(path, "b" * 64) == "stale"
    whole = path.read_bytes()
    for size in (0, 1, 80, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert inspect_record(path, DIGEST) == "corrupt"
    write_record(path, record(version=records.VERSION + 1))
    assert inspect_record(path, DIGEST) == "stale"


def test_a_record_of_another_version_is_told_from_one_of_other_settings(path: Path) -> None:
    write_record(path, record(version=records.VERSION + 1))
    with pytest.raises(RecordError, match=rf"honest.json: a record of version {records.VERSION + 1}, not"):
        read_record(path, DIGEST)
    write_record(path, record())
    with pytest.raises(RecordError, match=r"honest.json: made with other settings \(digest aaaaaaaa…\)"):
        read_record(path, "b" * 64)


def test_any_edited_byte_is_noticed(path: Path) -> None:
    write_record(path, record())
    whole = path.read_bytes()
    for index in range(0, len(whole), 7):
        edited = bytearray(whole)
        edited[index] ^= 1
        path.write_bytes(edited)
        assert inspect_record(path, DIGEST) != "valid", f"byte {index}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 3}, "has 3 of 2 rounds"),
        ({"rewards": [0.5]}, "rewards has 1 values for 2 rounds"),
        ({"scores": [0.5, 1.01]}, r"scores\[1\] = 1.01 is outside 0 to 1"),
        ({"grades": [-0.5, None]}, r"grades\[0\] = -0.5 is outside"),
        ({"run": {"seed": 1, "model": "tiny", "task": "arithmetic", "condition": "honest"}}, "is the record of 1/tiny"),
    ],
)
def test_a_record_that_contradicts_itself_is_not_believed(path: Path, changes: dict[str, Any], message: str) -> None:
    write_record(path, record(**changes))
    with pytest.raises(RecordError, match=message) as caught:
        read_record(path, DIGEST)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_number_cannot_be_written(path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(path, record(avg_loss=float("nan")))
    assert not path.exists()
    assert not list(path.parent.parent.rglob("*.tmp"))


def test_an_interrupted_write_leaves_the_old_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(path, record())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left") as caught:
        write_record(path, record(status="diverged"))
    assert str(caught.value).startswith(str(path))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_record_is_plain_json_with_a_key_a_line(path: Path) -> None:
    write_record(path, record())
    text = path.read_text()
    assert json.loads(text)["status"] == "complete"
    assert len(text.splitlines()) == len(record())
