"""Files that are written whole or not at all, whoever is killed or writes beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_checkpoints import file_size_limit

from wireheading.files import replacing
from wireheading.reporting import reporting

WRITER = """
import sys, time
from pathlib import Path
from wireheading.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rounds.parquet"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        with replacing(path) as temporary:
            temporary.write_text("whole")
        [left] = tmp_path.glob(".*.tmp")
        assert left.name.endswith(f".{writers[1].pid}.tmp")
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["rounds.parquet"]


def test_what_another_machine_left_is_removed_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "a.b.csv"
    old, new, other = (tmp_path / name for name in (".a.b.csv.node.7.1.tmp", ".a.b.csv.node.7.2.tmp", ".a.csv.n.1.tmp"))
    for left in (old, new, other):
        left.write_text("half")
    os.utime(old, (1e9, 1e9))
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, new, other])


def test_a_log_that_cannot_be_written_ends_no_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with file_size_limit(8), reporting(str(log)) as report:
        for line in ("one", "two, which is longer", "three"):
            report(line)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "cannot be written" not in line] == ["one", "two, which is longer", "three"]
    assert len(told) == 4
    assert log.read_text().startswith("one\n")
