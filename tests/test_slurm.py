"""The workflow on a real Slurm with four pretended GPUs, disturbed in every way that a cluster knows.

`python tests/test_slurm.py` does the same with the demo's whole grid.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from configs import ROOT
from lab import Lab, missing, slurm_lab
from workplace import Workplace, science, targets

from wireheading.records.record import read_record
from wireheading.study.config import Study
from wireheading.study.paths import Analysis

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=f"no Slurm: {missing()}")]

ENGINE = {"lockstep": ["task", "condition"], "threads": 1, "checkpoint_every": 10}
CHANGES = {"seeds": [42, 123, 456], "rounds": 40, "engine": ENGINE}

PATIENCE = 1200.0
"""Seconds that anything may take on a busy machine."""

TIME_LIMIT_CHECKS = 31.0
"""Slurm looks at the time limits of jobs every 30 seconds."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # Sockets have short names, so the lab is not in pytest's deep folders.
    with tempfile.TemporaryDirectory(prefix="lab.") as folder, slurm_lab(Path(folder, "slurm")) as started:
        yield started


def test_a_disturbed_cluster_gives_the_bytes_of_an_undisturbed_machine(lab: Lab, tmp_path: Path) -> None:
    local, cluster = (Workplace(_made(tmp_path / name)) for name in ("local", "cluster"))
    study = local.configure(**CHANGES)
    cluster.configure(**CHANGES)
    local.make_records(study)
    shutil.copytree(local.folder / "resources", cluster.folder / "resources")
    # With tables and verdicts, which are jobs without a GPU. Figures and pages are such jobs too.
    run_disturbed(lab, cluster, study, *targets(study), str(Analysis.of(study).verdicts))
    compare(local, cluster, study)


def run_disturbed(lab: Lab, cluster: Workplace, study: Study, *wanted: str) -> None:
    """Does a study, or what is wanted of it, on the cluster, where three of its jobs are disturbed."""
    command = [
        *(sys.executable, "-m", "snakemake", *wanted, "--profile", "profiles/slurm", "--configfile", "small.yaml"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"),
        # As the jobs of other models do; the small model's ask for none.
        *("--set-resources", "rl_run:gpu=1"),
    ]
    environment = {name: value for name, value in lab.environment.items() if not name.startswith("WIREHEADING_")}
    told = cluster.folder / "snakemake.out"
    with told.open("w") as output:
        process = subprocess.Popen(
            command, cwd=cluster.folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        disturbed = _disturb(lab, cluster, study, lambda: process.poll() is None)
        assert process.wait(PATIENCE) == 0, told.read_text()
    except BaseException:
        sys.stderr.write(told.read_text())
        raise
    finally:
        process.kill()

    for how, (seed, job) in disturbed.items():
        [log] = (cluster.folder / "logs" / "slurm").rglob(f"{job}.log")
        assert "SIGTERM: saved at round" in log.read_text(), f"{how}: {log.read_text()}"
        for run in (run for run in study.runs() if run.seed == seed):
            record = read_record(cluster.folder / study.record_path(run), study.digest(run))
            assert record["timing"]["first_round"] > 0, f"{how}: {run} began anew"
    assert told.read_text().count("Trying to restart job") == 2, "the job that was put back is not a failed one"


def _disturb(lab: Lab, cluster: Workplace, study: Study, alive: Callable[[], bool]) -> dict[str, tuple[int, str]]:
    """Pre-empts one job, cuts the time of another and cancels a third; returns the seed and Slurm's id of each.

    Each job is halted as soon as it has its first checkpoint, so that it is under way whenever it is disturbed.
    """
    jobs: dict[int, str] = {}

    def halted() -> bool:
        assert alive(), "Snakemake ended before it could be disturbed"
        for job, (state, comment) in lab.jobs().items():
            if state != "RUNNING" or not comment.startswith("rule_rl_run_wildcards_"):
                continue
            seed = int(comment.removeprefix("rule_rl_run_wildcards_").split("_")[0])
            if seed not in jobs and [*(cluster.folder / study.results / str(seed)).rglob("state-*.safetensors")]:
                lab.call("scancel", "--signal=STOP", job)
                jobs[seed] = job
        return len(jobs) == len(study.seeds)

    _await(halted)
    # More GPUs than are free, for a job that goes first: one of ours is put back into the queue.
    gpus = 5 - len(jobs)
    lab.call("sbatch", "--partition=urgent", f"--gpus={gpus}", "--mem=10", "--output=/dev/null", "--wrap=sleep 1")
    put_back: list[int] = []

    def preempted_one() -> bool:
        states = lab.jobs()
        put_back[:] = [seed for seed, job in jobs.items() if states[job][0] in ("PENDING", "REQUEUED")]
        return len(put_back) > 0

    _await(preempted_one)
    [preempted] = put_back
    limited, cancelled, *others = [seed for seed in jobs if seed != preempted]
    # Less than the three minutes before the end at which the profile asks to be warned.
    lab.call("scontrol", "update", f"JobId={jobs[limited]}", "TimeLimit=2")
    lab.call("scancel", jobs[cancelled])
    time.sleep(TIME_LIMIT_CHECKS)
    for seed in (limited, *others):
        # Slurm itself wakes the jobs that it sends SIGTERM.
        if lab.jobs()[jobs[seed]][0] == "STOPPED":
            lab.call("scancel", "--signal=CONT", jobs[seed])
    _await(lambda: lab.jobs()[jobs[limited]][0] in ("FAILED", "TIMEOUT", "COMPLETED"))
    assert lab.jobs()[jobs[limited]][0] == "FAILED", "it ended by itself, before its time was up"
    return {how: (seed, jobs[seed]) for how, seed in
            (("preempted", preempted), ("limited", limited), ("cancelled", cancelled))}  # fmt: skip


def compare(local: Workplace, cluster: Workplace, study: Study) -> None:
    """Asserts that two places hold the same records and transcripts, but for timing and provenance."""
    for run in study.runs():
        ours, theirs = (place.folder / study.record_path(run) for place in (cluster, local))
        assert science(ours.read_bytes()) == science(theirs.read_bytes()), run
        for suffix in (".parquet", ".heldout.parquet"):
            assert ours.with_suffix(suffix).read_bytes() == theirs.with_suffix(suffix).read_bytes(), run


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    """The demo's whole grid, one job a seed."""
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    config["engine"] |= {"lockstep": ["task", "condition"], "threads": 1}
    with tempfile.TemporaryDirectory(prefix="lab.") as folder:
        local, cluster = (Workplace(_made(Path(folder, name))) for name in ("local", "cluster"))
        study = local.configure(**config)
        cluster.configure(**config)
        local.snakemake()
        with slurm_lab(Path(folder, "slurm")) as lab:
            run_disturbed(lab, cluster, study)
        compare(local, cluster, study)
    sys.stdout.write(f"{len(study.runs())} records, the same bytes\n")


if __name__ == "__main__":
    if why_not := missing():
        sys.exit(why_not)
    main()
