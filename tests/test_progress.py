from __future__ import annotations

import pytest
from configs import changed

from wireheading.engine.progress import Progress, duration
from wireheading.study.config import load_study

STUDY = load_study(changed(rounds=1000, engine={"lockstep": ["task", "condition"]}))
RUNS = [run for run in STUDY.runs() if run.seed == 42]


class Reported:
    """The progress of a job, on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.progress = Progress(STUDY, RUNS, self.lines.append, lambda: self.now)

    def round(self, seconds: float, at: int) -> None:
        self.now = seconds
        self.progress.round(at, at * len(RUNS), (1000 - at) * len(RUNS), seconds)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (14_400, "4:00:00")]
)
def test_hours_are_shown_as_hours(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_line_names_its_job_and_comes_every_ten_seconds() -> None:
    job = Reported()
    for second in range(1, 31):
        job.round(float(second), second)
    assert job.lines == [
        f"42/tiny: round {at} of 1000 · 9 runs · 9 run-rounds/s · {duration(1000 - at)} left" for at in (10, 20, 30)
    ]


def test_the_estimate_follows_the_last_minute() -> None:
    """A job that has become four times as slow says so within a minute and a half."""
    job = Reported()
    for second in range(10, 210, 10):
        job.round(float(second), second)
    for second in range(220, 300, 10):
        job.round(float(second), 200 + (second - 200) // 4)
    assert "9 run-rounds/s" in job.lines[0]
    assert job.lines[-1] == f"42/tiny: round 222 of 1000 · 9 runs · 2 run-rounds/s · {duration(778 * 4)} left"


def test_the_last_round_and_the_costs_are_reported_in_any_case() -> None:
    job = Reported()
    job.round(1.0, 1000)
    job.progress.costs(1000 * len(RUNS), 7200.0, 3.0)
    assert job.lines[0].startswith("42/tiny: round 1000 of 1000")
    assert job.lines[1].endswith("500 rounds of 9 runs would take 1:00:00 of training")


def test_runs_that_did_no_round_have_no_rate() -> None:
    job = Reported()
    job.progress.round(0, 0, 0, 5.0)
    job.progress.costs(0, 5.0, 0.0)
    assert job.lines == []


def test_an_evaluation_reports_its_batches() -> None:
    job = Reported()
    checked: list[float] = []
    before_batch = job.progress.evaluation("the base model in sentiment", 45, 10, lambda: checked.append(job.now))
    for batch in range(5):
        job.now = 8.0 * batch
        before_batch()
    assert checked == [0.0, 8.0, 16.0, 24.0, 32.0]
    assert job.lines == [
        "42/tiny: held-out evaluation of the base model in sentiment, 2 of 5 batches done",
        "42/tiny: held-out evaluation of the base model in sentiment, 4 of 5 batches done",
    ]
