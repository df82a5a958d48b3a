"""SIGKILL at random moments, with a second invocation beside: the same bytes, and few rounds done twice.

`python tests/test_kills.py` does it with twenty kills.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pytest
from test_lockstep import make_study, make_toy, run_all, same

from wireheading.engine.experiment import EndRound
from wireheading.engine.job import run_job
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.state import RunState
from wireheading.study.config import Run, Study

pytestmark = pytest.mark.slow

EVERY = 5
"""Rounds between two checkpoints."""

MOST = 9
"""Rounds after which a job is killed at the latest."""

ENGINE = {"lockstep": ["task", "condition"], "threads": 1, "checkpoint_every": EVERY, "chunk": 4, "evaluation_batch": 2}


def study_in(folder: Path, rounds: int) -> Study:
    return make_study(folder, seeds=[1], rounds=rounds, engine=ENGINE)


def test_a_job_killed_at_random_moments_redoes_few_rounds_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, kills=3)


def kill_and_compare(folder: Path, kills: int) -> None:
    """Kills a job of ten runs again and again, lets it end, and compares it with one that was left alone."""
    make_toy(folder)
    rounds = MOST * (kills + 1)
    undisturbed = study_in(folder / "undisturbed", rounds)
    run_all(undisturbed, folder)
    study = study_in(folder / "killed", rounds)
    moments = random.Random(0)
    invocations = []
    for kill in range(kills + 1):
        played = folder / f"rounds.{kill}"
        beside = played.with_suffix(f".{kill}.beside")
        job = _start(folder, rounds, played)
        if kill < kills:
            assert job.stdout is not None
            assert "to do" in job.stdout.readline()
            # A second invocation finds the runs held; it goes on with them if the first is killed while it waits.
            second = _start(folder, rounds, beside)
            enough = len(study.runs()) * moments.randrange(MOST)
            while len(played.read_bytes().splitlines()) < enough:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
            assert job.poll() is None, "it ended before it could be killed"
            job.kill()
        job.communicate()
        assert (job.returncode == 0) == (kill == kills)
        invocations.append(_rounds_played(played))
        if kill < kills:
            time.sleep(moments.uniform(0, 3))
            second.kill()
            second.communicate()
            if beside.exists():
                invocations.append(_rounds_played(beside))

    redone = []
    for run in study.runs():
        last = -1
        for each in (invocation[str(run)] for invocation in invocations if str(run) in invocation):
            assert each == list(range(each[0], each[-1] + 1))
            redone.append(last + 1 - each[0])
            last = each[-1]
        assert last == study.rounds - 1
    assert min(redone) >= 0
    assert max(redone) <= EVERY
    same(study, undisturbed, study.runs())
    played_in_all = sum(len(each) for invocation in invocations for each in invocation.values())
    sys.stdout.write(
        f"{kills} kills: {len(study.runs())} runs end in the same bytes; {sum(redone)} of {played_in_all} rounds were "
        f"done twice, at most {max(redone)} of a run after a kill (checkpoints every {EVERY})\n"
    )


def _start(folder: Path, rounds: int, played: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "job", str(folder), str(rounds), str(played)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _rounds_played(path: Path) -> dict[str, list[int]]:
    played: dict[str, list[int]] = defaultdict(list)
    for line in path.read_text().splitlines():
        run, round_ = line.split()
        played[run].append(int(round_))
    return dict(played)


def do_job(folder: Path, rounds: int, played: Path) -> None:
    """One invocation, which writes down every round that it finishes."""
    study = study_in(folder / "killed", rounds)
    notes = os.open(played, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end_round = Lockstep._end_round

    def noted(self: Lockstep, state: RunState, request: EndRound) -> None:
        os.write(notes, f"{state.run} {request.row['round']}\n".encode())
        end_round(self, state, request)

    Lockstep._end_round = noted  # type: ignore[method-assign]
    runs: list[Run] = study.runs()
    data = {task: folder / "data" / task for task in study.tasks}

    def report(line: str) -> None:
        print(line, flush=True)

    run_job(study, runs, runs, folder / "model", data, report, report)


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        do_job(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            kill_and_compare(Path(scratch), kills=20)
