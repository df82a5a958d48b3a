"""What a job tells of itself: its file, its lines in the log, and what is read from the files of others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from configs import changed
from made_up import write_job

from wireheading.engine.progress import Progress, telling
from wireheading.jobs import Job, JobFile, duration, job_line, jobs_of, short_digest
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import jobs_folder

CONDITIONS = ("control", "selfgrade", "honest")


def study_in(folder: Path, **changes: Any) -> Study:
    settings = {"rounds": 1000, "engine": {"lockstep": ["task", "condition"]}} | changes
    return load_study(changed(results=str(folder / "results"), conditions=list(CONDITIONS), **settings))


class Told:
    """The progress of a job of nine runs, on a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.study = study_in(folder)
        self.runs = [run for run in self.study.runs() if run.seed == 42]
        self.now = 0.0
        self.lines: list[str] = []
        self.progress = Progress(self.study, self.runs, self.lines.append, self.lines.append, lambda: self.now)

    def round(self, seconds: float, at: int, unsaved: int = 0) -> None:
        self.now = seconds
        row = {"round": 0, "reward": 0.9, "score": 0.25, "response": "SECRET"}
        states: Any = [
            SimpleNamespace(run=run, rows=[row] * at, request=at < 1000 or None, first=0, unsaved=[row] * unsaved)
            for run in self.runs
        ]
        self.progress.round(states, seconds)

    def file(self) -> JobFile:
        return JobFile.model_validate_json(self.progress.path.read_bytes())


@pytest.fixture
def job(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3540, "59 min"), (4320, "1 h 12 min"), (14_400, "4 h 0 min")],
)
def test_times_are_told_in_words(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_job_has_a_line_a_minute_in_its_log(job: Told) -> None:
    for second in range(1, 185):
        job.round(float(second), second)
    assert job.lines == [
        f"tiny · seed 42   {at}/1000 {left} left · 1 rounds/s · saved at {at}"
        " · selfgrade reward .90 score .25 · control score .25 · honest score .25"
        for at, left in ((61, "16 min"), (121, "15 min"), (181, "14 min"))
    ]


def test_the_file_follows_within_seconds_and_holds_counts_and_means_alone(job: Told) -> None:
    job.progress.doing("loading the model")
    assert job.file().doing == "loading the model"
    for second in range(1, 6):
        job.round(float(second), 10 * second, unsaved=7)
    told = job.file()
    assert (told.name, told.at, told.of, told.saved, told.doing) == ("tiny · seed 42", 40, 1000, 33, "")
    assert told.means["selfgrade"].model_dump() == {"reward": pytest.approx(0.9), "score": pytest.approx(0.25)}
    assert told.means["control"].reward is None
    assert {name: run.rounds for name, run in told.runs.items()} == {str(run): 40 for run in job.runs}
    assert "SECRET" not in job.progress.path.read_text()
    assert [path.name for path in job.progress.path.parent.iterdir()] == [job.progress.path.name]


def test_the_estimate_follows_the_last_minutes(job: Told) -> None:
    """A job that has become four times as slow says so within three minutes."""
    for second in range(10, 210, 10):
        job.round(float(second), second)
    assert "1 rounds/s" in job.lines[-1]
    for second in range(220, 400, 10):
        job.round(float(second), 200 + (second - 200) // 4)
    assert "51 min left · 15 rounds/min" in job.lines[-1]


def test_the_last_round_and_the_costs_are_told_in_any_case(job: Told) -> None:
    job.round(1.0, 1000)
    job.progress.costs(1000 * len(job.runs), 7200.0, 3.0)
    assert job.lines[0].startswith("tiny · seed 42   1000/1000")
    assert job.lines[1].endswith("3 s of held-out evaluation; 500 rounds would take 1 h 0 min of training")


def test_runs_that_did_no_round_have_no_pace(job: Told) -> None:
    job.round(5.0, 0)
    job.progress.costs(0, 5.0, 0.0)
    assert job.lines == []
    assert (job.file().pace, job.file().left) == (None, None)


def test_an_evaluation_tells_of_its_batches(job: Told) -> None:
    checked: list[float] = []
    before_batch = job.progress.evaluation("the base model in sentiment", 45, 10, lambda: checked.append(job.now))
    for batch in range(5):
        job.now = 30.0 * batch
        before_batch()
        assert job.file().doing == f"held-out evaluation of the base model in sentiment, {batch} of 5 batches"
    assert checked == [0.0, 30.0, 60.0, 90.0, 120.0]
    assert job.lines == [
        "tiny · seed 42   held-out evaluation of the base model in sentiment, 2 of 5 batches",
        "tiny · seed 42   held-out evaluation of the base model in sentiment, 4 of 5 batches",
    ]


def test_a_run_that_is_evaluated_at_its_end_has_all_rounds(job: Told) -> None:
    job.round(1.0, 997)
    job.now = 4.0
    job.progress.evaluation("9 runs in sentiment", 45, 10, lambda: None, 1000)()
    assert (job.file().at, job.file().doing) == (1000, "held-out evaluation of 9 runs in sentiment, 0 of 5 batches")


def test_a_full_disk_is_told_once_and_stops_no_job(job: Told) -> None:
    jobs_folder(Path(job.study.results)).parent.mkdir(parents=True)
    jobs_folder(Path(job.study.results)).write_text("in the way")
    job.progress.doing("one")
    job.progress.doing("two")
    assert len(job.lines) == 1
    assert "cannot be written" in job.lines[0]


def seen(study: Study, now: float | None = None) -> list[Job]:
    digests = {str(run): short_digest(study, run) for run in study.runs()}
    return jobs_of(Path(study.results), digests, time.time() if now is None else now)


def test_a_file_lives_as_long_as_its_job(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    with telling(study, study.runs()[:3], print, print) as progress:
        progress.doing("loading the model")
        assert [(one.told.doing, one.alive) for one in seen(study)] == [("loading the model", True)]
        # Of other settings in the same results folder, it is none.
        assert seen(study_in(tmp_path, rounds=7)) == []
    assert seen(study) == []


def test_a_killed_job_is_dead_at_once_here_and_after_a_while_elsewhere(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = write_job(study, study.runs()[:1], 310, process=gone.pid)
    assert [one.alive for one in seen(study)] == [False]
    path.unlink()
    path = write_job(study, study.runs()[:1], 310, process=gone.pid, host="another-machine")
    now = path.stat().st_mtime
    assert [one.alive for one in seen(study, now + 60)] == [True]
    assert [(one.alive, one.age) for one in seen(study, now + 600)] == [(False, 600.0)]


def test_a_job_that_takes_over_removes_the_file_of_the_dead_one(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    path = write_job(study, study.runs()[:1], 310, host="another-machine")
    with telling(study, study.runs()[5:6], print, print):
        assert path.exists()
    with telling(study, study.runs()[:2], print, print):
        assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", '{"name": "x"}', "[" * 100_000, '{"at": NaN}'])
def test_a_file_that_no_job_wrote_is_no_job(tmp_path: Path, content: str) -> None:
    study = study_in(tmp_path)
    write_job(study, study.runs()[:1], 310).write_text(content)
    assert seen(study) == []


def test_no_name_in_a_file_acts_on_the_terminal(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    write_job(
        study,
        study.runs()[:1],
        310,
        name="\x1b[31mtiny\n",
        doing="[red]x[/red]\x07",
        means={"\x1b[2J": {"reward": None, "score": 0.5}},
    )
    line = job_line(seen(study)[0].told)
    assert line.isprintable()
    assert r"\x1b[31mtiny\n" in line


@pytest.mark.parametrize(
    ("lockstep", "name"),
    [
        ([], "tiny · seed 42 · sentiment · control"),
        (["task", "condition"], "tiny · seed 42"),
        (["seed", "task", "condition"], "tiny"),
    ],
)
def test_a_job_is_named_by_what_its_runs_have_in_common(tmp_path: Path, lockstep: list[str], name: str) -> None:
    study = study_in(tmp_path, engine={"lockstep": lockstep})
    run = Run(42, "tiny", "sentiment", "control")
    assert Progress(study, [run], print, print).told.name == name


def test_a_line_has_a_bar_on_a_terminal() -> None:
    told = JobFile(name="llama-3.1-8b · seed 42", host="x", process=1, of=500, at=310, left=4320.0, pace=0.044)
    assert job_line(told, bar=True) == ("llama-3.1-8b · seed 42   310/500 ▓▓▓▓░░░░ 1 h 12 min left · 2.6 rounds/min")
