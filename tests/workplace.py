"""A folder with the workflow and a small study in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from configs import ROOT, SMALL, changed

from wireheading.study.config import Run, Study, load_study

CONFIG = changed(
    embedded=SMALL,
    seeds=[42, 123],
    conditions=["control", "selfgrade"],
    rounds=4,
    evaluation={"midway_rounds": [2], "midway_items": 3},
    engine={"lockstep": ["seed", "task", "condition"], "threads": 1, "checkpoint_every": 2, "keep_adapters": True},
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

    def make_records(self, study: Study, *arguments: str) -> str:
        """Does what the study lacks without the tables, figures and pages, whose five processes take seconds."""
        return self.snakemake(*targets(study), *arguments)

    def records(self, study: Study) -> dict[Run, bytes]:
        return {run: (self.folder / study.record_path(run)).read_bytes() for run in study.runs()}


def targets(study: Study) -> list[str]:
    return [str(study.record_path(run)) for run in study.runs()]


def science(record: bytes) -> list[bytes]:
    return [line for line in record.splitlines() if not line.startswith((b'"timing"', b'"provenance"'))]


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
