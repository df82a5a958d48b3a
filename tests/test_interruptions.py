"""The workflow interrupted, and several invocations at once: nothing finished is lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from configs import ROOT
from workplace import Workplace, science, targets

from wireheading.engine.leases import leased
from wireheading.study.config import Study
from wireheading.study.paths import Tables

pytestmark = pytest.mark.slow


def test_everything_killed_at_once_goes_on_from_the_checkpoints(finished: Workplace, tmp_path: Path) -> None:
    study = finished.configure()
    shutil.copytree(finished.folder / "resources", tmp_path / "resources")
    workplace = Workplace(tmp_path)
    process = workplace.start()
    while not [*tmp_path.glob("results/**/state-*")]:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert [*tmp_path.glob("results/*/*/*/*.json")] == []
    # Snakemake cannot know that whoever locked the folder is dead.
    assert "--unlock" in workplace.snakemake(succeeds=False)
    workplace.snakemake("--unlock")
    assert "resuming from round 2" in workplace.make_records(study)
    ours, theirs = workplace.records(study), finished.records(study)
    assert {run: science(ours[run]) for run in study.runs()} == {run: science(theirs[run]) for run in study.runs()}


def test_ctrl_c_loses_nothing(finished: Workplace, tmp_path: Path) -> None:
    study = finished.configure()
    shutil.copytree(finished.folder / "resources", tmp_path / "resources")
    workplace = Workplace(tmp_path)
    process = workplace.start()
    while not [*tmp_path.glob("results/**/lock")]:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate()
    assert process.returncode != 0
    assert "the same command goes on" in told
    workplace.make_records(study)
    ours, theirs = workplace.records(study), finished.records(study)
    assert {run: science(ours[run]) for run in study.runs()} == {run: science(theirs[run]) for run in study.runs()}


def test_a_second_invocation_at_once_is_refused(workplace: Workplace) -> None:
    study = workplace.configure()
    (workplace.folder / study.record_path(study.runs()[0])).unlink()
    first = workplace.start()
    while not [*(workplace.folder / ".snakemake" / "locks").glob("*")]:
        assert first.poll() is None
        time.sleep(0.01)
    assert "Directory cannot be locked" in workplace.snakemake(succeeds=False)
    told, _ = first.communicate()
    assert first.returncode == 0, told
    assert "12 valid" in workplace.snakemake("-n")


@dataclass
class Shared:
    """Two clones of the workflow whose studies have one results folder; the second's job waits for a device."""

    first: Workplace
    second: Workplace
    study: Study

    def make_tables(self) -> str:
        """Makes the records of the first and their tables, and no figures and pages."""
        return self.first.snakemake(*targets(self.study), str(Tables.of(self.study).records))

    def records(self) -> dict[str, bytes]:
        folder = Path(self.study.results)
        paths = [*folder.glob("*/*/*/*.json"), *folder.glob("*.parquet"), folder / "records.csv"]
        return {str(path): path.read_bytes() for path in paths if path.exists()}


@pytest.fixture
def shared(finished: Workplace, tmp_path: Path) -> Shared:
    finished.configure()
    changes = {
        "results": str(tmp_path / "results"),
        "resources": str(finished.folder / "resources"),
        "seeds": [42],
        "conditions": ["control"],
    }
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    places = [Workplace(tmp_path / name) for name in ("first", "second")]
    first, _ = [place.configure(**changes) for place in places]
    return Shared(places[0], places[1], first)


@pytest.mark.parametrize("stale", [False, True])
def test_a_job_that_fails_touches_no_record_that_another_invocation_made(shared: Shared, stale: bool) -> None:
    if stale:
        shared.first.make_records(shared.study, "--config", "rounds=3")
    with leased(["held"], pytest.fail):
        second = shared.second.start(device="held")
        assert second.stdout is not None
        while "waiting for one" not in (line := second.stdout.readline()):
            assert line, "it ended"
        shared.make_tables()
        before = shared.records()
        assert len(before) == 3 + 5, "records and tables"
        for process in sorted(_descendants(second.pid), reverse=True):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        told, _ = second.communicate()
    assert second.returncode != 0, told
    assert shared.records() == before
    assert "Nothing to be done" in shared.make_tables()


def _descendants(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return [*children, *(found for child in children for found in _descendants(child))]


def test_an_invocation_that_finds_runs_held_says_so_and_ends(shared: Shared) -> None:
    first = shared.first.start(*targets(shared.study))
    while not [*Path(shared.study.results).glob("**/state-*")]:
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)
    told = shared.second.snakemake(succeeds=False)
    assert "this run is being done by process" in told
    assert "steps:" not in told
    os.killpg(first.pid, signal.SIGCONT)
    told, _ = first.communicate()
    assert first.returncode == 0, told


def test_tables_that_cannot_be_made_again_leave_those_of_another_invocation(shared: Shared) -> None:
    shared.make_tables()
    before = shared.records()
    place = shared.second.folder
    (place / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", place / "workflow")
    (place / "workflow" / "scripts" / "aggregate.py").write_text("raise SystemExit(1)\n")
    shared.second.configure(results=shared.study.results, seeds=[42])
    with pytest.raises(AssertionError, match="aggregate"):
        shared.second.snakemake("--config", "partial=True")
    assert shared.records() == before
