"""The workflow itself, from nothing to the report, at a small size: what is made, what is redone, what is refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from browser import CHROMIUM, browsing
from test_config import changed
from test_tiny import SMALL

from wireheading.engine.leases import leased
from wireheading.records.record import read_record
from wireheading.study.config import Run, Study, load_study

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

CONFIG = changed(
    embedded=SMALL,
    seeds=[42, 123],
    conditions=["control", "selfgrade"],
    rounds=4,
    evaluation={"midway_rounds": [2], "midway_items": 3},
    engine={"lockstep": ["seed", "task", "condition"], "threads": 1, "checkpoint_every": 2},
    **{f"tasks__{task}__{part}": count for task in ("sentiment", "arithmetic", "summarization") for part, count in
       (("train_items", 12), ("heldout_items", 6))},
)  # fmt: skip


class Workplace:
    """A folder with the workflow in it and a small study to do."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("workflow", "profiles", "config", "envs", "src"):
            (folder / name).symlink_to(ROOT / name)
        self.configure()

    def configure(self, **changes: object) -> Study:
        config = CONFIG | changes
        (self.folder / "small.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return load_study(config)

    def start(self, *arguments: str, device: str | None = None) -> subprocess.Popen[str]:
        # Targets come first: whatever follows --configfile is taken for another config file.
        command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "profiles/demo"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        return subprocess.Popen(
            [*command, "--configfile", "small.yaml"],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A process group of its own, so that all of it can be killed at once.
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, succeeds: bool = True) -> str:
        process = self.start(*arguments)
        told, _ = process.communicate()
        assert (process.returncode == 0) is succeeds, told
        return told

    def records(self, study: Study) -> dict[Run, bytes]:
        return {run: (self.folder / study.record_path(run)).read_bytes() for run in study.runs()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("workflow"))
    workplace.snakemake()
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    # Checkpoints go when a later invocation has found the records valid.
    workplace.snakemake("-n")
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    assert "Nothing to be done" in workplace.snakemake()
    return workplace


@pytest.fixture
def workplace(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished work without what Snakemake remembers of it."""
    for name in ("results", "resources", "reports"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return Workplace(tmp_path)


def science(record: bytes) -> list[bytes]:
    return [line for line in record.splitlines() if not line.startswith((b'"timing"', b'"provenance"'))]


def test_everything_is_made(finished: Workplace) -> None:
    study = finished.configure()
    assert len(finished.records(study)) == 12
    for run in study.runs():
        record = read_record(finished.folder / study.record_path(run), study.digest(run))
        assert record["status"] == "complete"
        assert record["timing"]["rounds"] == 4
    runs = pd.read_parquet(finished.folder / "results" / "runs.parquet")
    rounds = pd.read_parquet(finished.folder / "results" / "rounds.parquet")
    assert (len(runs), len(rounds)) == (12, 48)
    figures = {path.stem for path in (finished.folder / "reports" / "figures").glob("*.svg")}
    assert figures == {path.stem for path in (ROOT / "workflow" / "report").glob("*.rst")}
    assert figures == {path.stem for path in (finished.folder / "reports" / "figures").glob("*.csv")}
    assert [*finished.folder.glob("results/**/*.checkpoint")] == []
    page = (finished.folder / "reports" / "transcripts.html").read_text(encoding="utf-8")
    assert page.count('"condition":"selfgrade"') == 6
    verdicts = pd.read_csv(finished.folder / "reports" / "verdicts.csv")
    assert sorted(verdicts["task"]) == sorted(study.tasks)
    # Without decoupled and honest, there is nothing to compare with.
    assert set(verdicts["verdict"]) == {"inconclusive"}


def test_the_report_opens_in_a_browser_without_a_network(finished: Workplace, tmp_path: Path) -> None:
    told = finished.snakemake("--report", "reports/report.html")
    assert "Report created" in told
    report = finished.folder / "reports" / "report.html"
    assert "reward_vs_accuracy" in report.read_text(encoding="utf-8")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    with browsing(tmp_path / "profile") as page:
        page.open(report)
        page.evaluate(
            "new Promise((shown) => { const look = () => document.querySelector('.document')"
            " ? shown() : setTimeout(look, 50); look(); })"
        )
        shown = page.evaluate("document.querySelector('.document').innerText")
        top = page.evaluate("document.querySelector('.document').getBoundingClientRect().top")
        # Snakemake's own page advises those who would publish it on the web.
        assert [text for text in page.complaints if "cdn.tailwindcss.com should not be used" not in text] == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
        page.screenshot(tmp_path / "report.png")
    assert shown.startswith("Do these models wirehead?")
    assert "12 runs are in the study: 12 complete" in shown
    # The page is taller than the window, and yet its top is within reach.
    assert top >= 0


def test_finished_work_is_believed_where_snakemake_remembers_nothing(workplace: Workplace) -> None:
    assert "Nothing to be done" in workplace.snakemake()


def test_copied_results_are_believed_whatever_their_times(workplace: Workplace) -> None:
    """As after a copy that does not keep times: what is read may be newer than what was made of it."""
    files = sorted((path for path in workplace.folder.glob("res*/**/*") if path.is_file()), reverse=True)
    for age, path in enumerate(files):
        os.utime(path, (1.7e9 + age, 1.7e9 + age))
    told = workplace.snakemake("-n")
    assert "records: 12 valid, 0 missing, 0 stale, 0 corrupt" in told
    assert "rule rl_run" not in told


def test_edited_code_redoes_nothing(workplace: Workplace) -> None:
    for name in ("src", "workflow"):
        (workplace.folder / name).unlink()
        shutil.copytree(ROOT / name, workplace.folder / name)
    for path in workplace.folder.glob("src/**/experiment.py"), workplace.folder.glob("workflow/**/rl_run.py"):
        with next(path).open("a", encoding="utf-8") as file:
            file.write("\nEDITED = True\n")
    assert "Nothing to be done" in workplace.snakemake()


def test_what_is_missing_corrupt_or_stale_is_named_and_redone_and_nothing_else(workplace: Workplace) -> None:
    study = workplace.configure()
    before = workplace.records(study)
    runs = study.runs()
    missing, truncated, edited = runs[3], runs[8], runs[10]
    (workplace.folder / study.record_path(missing)).unlink()
    (workplace.folder / study.record_path(truncated)).write_bytes(before[truncated][:-20])
    rewards = before[edited].index(b'"rewards": [')
    forged = before[edited][:rewards] + before[edited][rewards:].replace(b"0.0", b"1.0", 1)
    assert forged != before[edited]
    (workplace.folder / study.record_path(edited)).write_bytes(forged)
    told = workplace.snakemake("-n")
    assert "9 valid, 1 missing, 0 stale, 2 corrupt" in told
    assert f"missing: {missing}" in told
    assert f"corrupt: {truncated}" in told
    assert f"corrupt: {edited}" in told

    told = workplace.snakemake()
    assert "9 of 12 runs have their record; 3 to do" in told
    after = workplace.records(study)
    assert {run for run in runs if after[run] != before[run]} <= {missing, truncated, edited}
    assert {run: science(after[run]) for run in runs} == {run: science(before[run]) for run in runs}
    record = read_record(workplace.folder / study.record_path(missing), study.digest(missing))
    assert (record["timing"]["first_round"], record["timing"]["rounds"]) == (0, 4)

    tasks = {**CONFIG["tasks"], "sentiment": {**CONFIG["tasks"]["sentiment"], "prompt": "{text}\n"}}
    changed_study = workplace.configure(tasks=tasks)
    told = workplace.snakemake("-n")
    assert "8 valid, 0 missing, 4 stale, 0 corrupt" in told
    assert "stale: 42/tiny/sentiment/control" in told
    workplace.snakemake()
    redone = workplace.records(changed_study)
    assert {run.task for run in runs if redone[run] != after[run]} == {"sentiment"}


def test_a_changed_threshold_redoes_the_analysis_alone(workplace: Workplace) -> None:
    before = {path: path.read_bytes() for path in (workplace.folder / "results").rglob("*.json")}
    told = workplace.snakemake("--config", "analysis={margin: 0.1}")
    rules = {line.split()[1].rstrip(":") for line in told.splitlines() if line.startswith(("rule ", "localrule "))}
    assert rules == {"analyse", "figures", "all"}
    assert '"margin": 0.1' in (workplace.folder / "reports" / "analysis.json").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in before} == before
    assert "Nothing to be done" in workplace.snakemake("--config", "analysis={margin: 0.1}")
    # A dry run with others changes nothing for what comes after it.
    assert "analyse" in workplace.snakemake("-n")
    assert "Nothing to be done" in workplace.snakemake("-n", "--config", "analysis={margin: 0.1}")


def test_a_partial_report_is_of_what_is_there_and_runs_nothing(workplace: Workplace) -> None:
    study = workplace.configure()
    missing, corrupt = study.runs()[3], study.runs()[8]
    (workplace.folder / study.record_path(missing)).unlink()
    path = workplace.folder / study.record_path(corrupt)
    path.write_bytes(path.read_bytes()[:-20])
    shutil.rmtree(workplace.folder / "resources")
    told = workplace.snakemake("--config", "partial=True")
    assert "10 of 12 records are in the tables" in told
    page = (workplace.folder / "reports" / "overview.rst").read_text(encoding="utf-8")
    assert "10 complete, 0 diverged, 1 missing, 1 unusable" in page
    assert "Nothing to be done" in workplace.snakemake("--config", "partial=True")
    assert not (workplace.folder / "resources").exists()


def test_damaged_tables_and_analyses_are_made_again(workplace: Workplace) -> None:
    results, reports = workplace.folder / "results", workplace.folder / "reports"
    rounds = results / "rounds.parquet"
    whole = rounds.read_bytes()
    (reports / "analysis.json").write_bytes(b"\xff\x00")
    (results / "records.csv").write_bytes(b'\xff"\n')
    rounds.write_bytes(whole[: len(whole) // 2])
    told = workplace.snakemake("-n")
    assert "12 valid, 0 missing, 0 stale, 0 corrupt" in told
    assert "aggregate" in told
    assert "rule rl_run" not in told
    workplace.snakemake()
    assert rounds.read_bytes() == whole
    assert "Nothing to be done" in workplace.snakemake("-n")


def test_items_that_were_edited_stop_the_job_and_cost_no_record(workplace: Workplace) -> None:
    study = workplace.configure()
    run = study.runs()[0]
    (workplace.folder / study.record_path(run)).unlink()
    items = workplace.folder / study.items_folder(run.task) / "heldout.jsonl"
    text = items.read_text(encoding="utf-8")
    assert '"label": "positive"' in text
    items.write_text(text.replace('"label": "positive"', '"label": "negative"'), encoding="utf-8")
    told = workplace.snakemake(succeeds=False)
    assert f"{study.items_folder(run.task)}/heldout.jsonl: was changed since source.json was written" in told
    assert "11 valid, 1 missing, 0 stale, 0 corrupt" in workplace.snakemake("-n")


def test_tables_of_other_runs_are_redone(workplace: Workplace) -> None:
    workplace.snakemake("--config", "seeds=[42]")
    assert len(pd.read_csv(workplace.folder / "results" / "records.csv")) == 6
    verdicts = pd.read_csv(workplace.folder / "reports" / "verdicts.csv")
    assert set(verdicts["verdict"]) == {"inconclusive"}
    workplace.snakemake()
    assert len(pd.read_csv(workplace.folder / "results" / "records.csv")) == 12


def test_records_can_be_named_as_targets(workplace: Workplace) -> None:
    study = workplace.configure()
    before = workplace.records(study)
    wanted, other = study.runs()[0], study.runs()[7]
    for run in (wanted, other):
        (workplace.folder / study.record_path(run)).unlink()
    told = workplace.snakemake(str(study.record_path(wanted)))
    assert "0 of 1 runs have their record; 1 to do" in told
    assert not (workplace.folder / study.record_path(other)).exists()
    assert science((workplace.folder / study.record_path(wanted)).read_bytes()) == science(before[wanted])


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
    assert [*tmp_path.glob("results/**/*.json")] == []
    # Snakemake cannot know that whoever locked the folder is dead.
    assert "--unlock" in workplace.snakemake(succeeds=False)
    workplace.snakemake("--unlock")
    assert "going on from round 2" in workplace.snakemake()
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
    assert "SIGINT: stopped" in told
    workplace.snakemake()
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["conditions=[selfish]"], "conditions = ['selfish']: unknown condition 'selfish'; known are control"),
        (["rounds=-1"], "rounds = -1: Input should be greater than 0"),
        (["colour=blue"], "colour = 'blue': unknown key"),
        (["seeds=[]"], "seeds = []"),
    ],
)
def test_bad_settings_stop_with_one_line(finished: Workplace, arguments: list[str], told: str) -> None:
    output = finished.snakemake("--config", *arguments, succeeds=False)
    lines = [line for line in output.splitlines() if not line.startswith("Using profiles")]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["results/42/tiny/sentiment/honest.json"], "its models are llama-3.1-8b, mistral-7b, gemma-2-9b; give"),
        (["--config", "results=file/x"], "results = 'file/x': file is a file; name a folder"),
        (["--config", "models={mistral-7b: {enabled: perhaps}}"], "models.mistral-7b.enabled = 'perhaps': write true"),
        (["--configfile", "empty.yaml"], "holds no settings"),
        (["--configfile", "twice.yaml"], "rounds is given twice; keep one"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    workplace = Workplace(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty.yaml").write_text("{}\n")
    (tmp_path / "twice.yaml").write_text("rounds: 1\nrounds: 2\n")
    output = plan(workplace, *arguments, succeeds=False)
    lines = [line for line in output.splitlines() if not line.startswith(("Using ", "Config file "))]
    assert len(lines) == 1, output
    assert told in lines[0]


@pytest.mark.parametrize("profile", [[], ["--profile", "profiles/slurm"]], ids=["default", "slurm"])
def test_settings_alone_are_added_to_the_study(tmp_path: Path, profile: list[str]) -> None:
    output = plan(Workplace(tmp_path), *profile, "--config", "seeds=[42]", "models={gemma-2-9b: {enabled: false}}")
    assert "records: 0 valid, 30 missing" in output
    jobs = re.findall(r"^    wildcards: seed=(\d+), model=(\S+)$", output, re.MULTILINE)
    assert sorted(jobs) == [("42", "llama-3.1-8b"), ("42", "mistral-7b")]


def plan(workplace: Workplace, *arguments: str, succeeds: bool = True) -> str:
    """What a dry run says without the demo's profile."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", *arguments],
        cwd=workplace.folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert (done.returncode == 0) is succeeds, done.stdout
    return done.stdout


def test_a_subset_is_a_matter_of_the_command_line(finished: Workplace) -> None:
    told = finished.snakemake("-n", "--config", "conditions=[selfgrade]", "seeds=[42]")
    assert "records: 3 valid, 0 missing" in told


@dataclass
class Shared:
    """Two clones of the workflow whose studies have one results folder; the second's job waits for a device."""

    first: Workplace
    second: Workplace
    study: Study

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
        shared.first.snakemake("--config", "rounds=3")
    with leased(["held"], pytest.fail):
        second = shared.second.start(device="held")
        assert second.stdout is not None
        while "waiting for one" not in (line := second.stdout.readline()):
            assert line, "it ended"
        shared.first.snakemake()
        before = shared.records()
        assert len(before) == 3 + 4 + 2, "records, tables and estimates"
        for process in sorted(_descendants(second.pid), reverse=True):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        told, _ = second.communicate()
    assert second.returncode != 0, told
    assert shared.records() == before
    assert "Nothing to be done" in shared.first.snakemake()


def _descendants(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return [*children, *(found for child in children for found in _descendants(child))]


def test_an_invocation_that_finds_runs_held_says_so_and_ends(shared: Shared) -> None:
    first = shared.first.start()
    while not [*Path(shared.study.results).glob("**/state-*")]:
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)
    told = shared.second.snakemake(succeeds=False)
    assert "this run is being done by process" in told
    assert "Building DAG" not in told
    os.killpg(first.pid, signal.SIGCONT)
    told, _ = first.communicate()
    assert first.returncode == 0, told


def test_tables_that_cannot_be_made_again_leave_those_of_another_invocation(shared: Shared) -> None:
    shared.first.snakemake()
    before = shared.records()
    place = shared.second.folder
    (place / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", place / "workflow")
    (place / "workflow" / "scripts" / "aggregate.py").write_text("raise SystemExit(1)\n")
    shared.second.configure(results=shared.study.results, seeds=[42])
    with pytest.raises(AssertionError, match="aggregate"):
        shared.second.snakemake("--config", "partial=True")
    assert shared.records() == before
