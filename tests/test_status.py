"""What became of runs, what is left, which records are valid; and the command that says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from configs import ROOT, changed
from made_up import PROVENANCE, write_job
from published_files import LLAMA, episode, one, own_record, published_config, put, results_of_seed
from safetensors.numpy import save_file

from wireheading import cli, status
from wireheading.check import check_records, check_text
from wireheading.files import code_digest, sha256_of
from wireheading.records.published import import_results
from wireheading.records.record import write_record
from wireheading.records.results_file import History
from wireheading.status import RunStatus, hours_left, survey
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import checkpoint_folder, transcript_path

NOW = 1_000_000_000.0


def study_in(folder: Path, **changes: Any) -> Study:
    return load_study(changed(results=str(folder / "results"), rounds=200, **changes))


def timed(seconds: float) -> dict[str, float]:
    return {"first_round": 0, "rounds": 200, "seconds": seconds, "evaluating_seconds": 0.0}


def finish(study: Study, run: Run, **changes: Any) -> Path:
    path = study.record_path(run)
    write_record(path, own_record(study, run, changes.get("rounds")) | changes)
    return path


def checkpoint(study: Study, run: Run, ages: dict[int, float], digest: str | None = None) -> Path:
    """Writes states after these rounds, each this many seconds old."""
    folder = checkpoint_folder(study.record_path(run))
    states = folder / "0123456789abcdef-01234567"
    states.mkdir(parents=True)
    for rounds, age in ages.items():
        path = states / f"state-{rounds:06d}.safetensors"
        identity = json.dumps({"digest": digest or study.digest(run), "inputs": {}})
        save_file({"x": np.zeros(1)}, path, metadata={"identity": identity})
        os.utime(path, (NOW - age, NOW - age))
    return folder


def status_of(study: Study, run: Run) -> RunStatus:
    return next(one for one in survey(study, NOW).runs if one.run == run)


def test_every_state_of_a_run(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    runs = study.runs()
    finish(study, runs[0])
    finish(study, runs[1], status="diverged", rounds=37)
    finish(study, runs[2], digest="0" * 64)
    finish(study, runs[3]).write_bytes(b'{"digest": "')
    checkpoint(study, runs[4], {100: 60, 150: 10})
    write_job(study, runs[4:6], 120)
    checkpoint(study, runs[6], {100: 10_000, 150: 9_000})
    checkpoint(study, runs[7], {50: 10}, digest="0" * 64)
    told = {one.run: (one.state, one.rounds_done, one.rounds_left) for one in survey(study, NOW).runs}
    assert [told[run] for run in runs[:9]] == [
        ("done", 200, 0),
        ("diverged", 37, 0),
        ("stale", 0, 200),
        ("corrupt", 0, 200),
        ("running", 150, 50),
        ("running", 120, 80),
        ("partial", 150, 50),
        ("missing", 0, 200),
        ("missing", 0, 200),
    ]


@pytest.mark.parametrize(("ages", "rounds"), [({}, 0), ({50: 9000}, 50)])
def test_a_run_whose_job_died_is_not_running(tmp_path: Path, ages: dict[int, float], rounds: int) -> None:
    study = study_in(tmp_path)
    alive, dead, elsewhere, silent = study.runs()[:4]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_job(study, [alive], 70)
    write_job(study, [dead], 70, process=gone.pid)
    for run, age in ((elsewhere, 60), (silent, 600)):
        path = write_job(study, [run], 70, host="another-machine", process=gone.pid)
        os.utime(path, (NOW - age, NOW - age))
    for run in (alive, dead, elsewhere, silent):
        checkpoint(study, run, ages)
    left = "partial" if ages else "missing"
    told = [status_of(study, run) for run in (alive, dead, elsewhere, silent)]
    assert [one.state for one in told] == ["running", left, "running", left]
    assert [one.rounds_done for one in told] == [70, rounds, 70, rounds]
    lines = status.jobs_text(survey(study, NOW))
    assert sum("70/200 ▓▓░░░░░░ 1 min left · 2 rounds/s" in line for line in lines) == 2
    assert (
        f"tiny · seed 42   died: process {gone.pid} on another-machine was last seen 10 min ago, at round 70 of 200; "
        "the same command goes on"
    ) in lines
    assert sum("died" in line for line in lines) == 2


def test_a_stranger_among_the_files_of_jobs_is_named(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    path = write_job(study, study.runs()[:1], 70)
    path.write_text("{}")
    assert status.jobs_text(survey(study, NOW)) == [f"{path}: was written by no job; remove it"]


def test_a_damaged_state_does_not_count(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    folder = checkpoint(study, run, {50: 9000, 100: 8000})
    next(folder.glob("*/state-000100.safetensors")).write_bytes(b"\x00" * 20)
    assert (status_of(study, run).state, status_of(study, run).rounds_done) == ("partial", 50)


def test_a_run_that_is_being_redone_is_running_and_one_that_is_not_is_stale(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    first, second = study.runs()[:2]
    for run in (first, second):
        finish(study, run, digest="0" * 64)
        checkpoint(study, run, {50: 10})
    write_job(study, [first], 60)
    assert (status_of(study, first).state, status_of(study, second).state) == ("running", "stale")


def test_imported_runs_and_short_histories(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    content = {
        "embedded_sentiment_honest_42": {"history": {name: [1.0] * 200 for name in ("reward", "accuracy", "grade")}},
        "embedded_sentiment_control_42": {"history": {name: [1.0] * 30 for name in ("reward", "accuracy", "grade")}},
    }
    import_results(study, put(tmp_path, content), False, print)
    whole, short = (status_of(study, Run(42, "tiny", "sentiment", name)) for name in ("honest", "control"))
    assert (whole.state, whole.rounds_done, whole.rounds_left, whole.pace) == ("imported", 200, 0, None)
    # Of the short one nothing can be gone on from.
    assert (short.state, short.rounds_done, short.rounds_left) == ("partial", 30, 200)


def test_hours_left_count_a_job_once_by_its_longest_run(tmp_path: Path) -> None:
    study = study_in(tmp_path, engine={"lockstep": ["task", "condition"]})
    assert hours_left(study, survey(study, NOW).runs) == {"tiny": None}
    for run in study.runs():
        if run.seed != 789:
            timing = timed(7200.0)
            finish(study, run, timing=timing, provenance=PROVENANCE)
    assert hours_left(study, survey(study, NOW).runs) == {"tiny": 2.0}
    for run in study.runs():
        if run.seed == 789 and run.task != "sentiment":
            checkpoint(study, run, {100: 9000})
        if run.seed == 456:
            # Of jobs of another size, only the nearest count.
            timing = timed(72.0)
            finish(study, run, timing=timing, provenance=PROVENANCE | {"slots": 1})
    assert hours_left(study, survey(study, NOW).runs) == {"tiny": 2.0}
    for run in study.runs():
        if run.seed == 789 and run.task == "sentiment":
            checkpoint(study, run, {150: 9000})
    assert hours_left(study, survey(study, NOW).runs) == {"tiny": 1.0}
    for run in study.runs():
        finish(study, run)
    assert hours_left(study, survey(study, NOW).runs) == {}


def test_the_table_has_seeds_and_models_by_tasks_and_conditions(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    runs = {run: index for index, run in enumerate(study.runs())}
    finish(study, Run(42, "tiny", "arithmetic", "honest"), timing=timed(3600.0))
    write_job(study, [Run(123, "tiny", "sentiment", "control")], 100)
    lines = status.as_table(study, survey(study, NOW).runs).splitlines()
    assert lines[0].split() == ["sentiment", "arithmetic", "summarization"]
    assert lines[1].split() == ["seed", "model"] + ["control", "selfgrade", "honest"] * 3
    assert lines[2].split() == ["42", "tiny"] + ["missing"] * 5 + ["done"] + ["missing"] * 3
    assert lines[3].split() == ["123", "tiny", "running", "100"] + ["missing"] * 8
    assert lines[2].index("done") == lines[1].index("honest", lines[1].index("honest") + 1)
    assert lines[-2] == f"{len(runs)} runs: 1 done, 1 running, 70 missing"
    assert lines[-1] == "71 runs left to do; job hours: tiny about 3"


def test_check_tells_what_each_record_is_worth(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    runs = study.runs()
    files = [transcript_path(study.record_path(run)) for run in runs[:3]]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"transcript")
    own = PROVENANCE | {"code": code_digest()}
    for run, path in zip(runs, files, strict=False):
        finish(study, run, provenance=own, transcripts={path.name: sha256_of(path)})
    files[1].write_bytes(b"edited")
    files[2].unlink()
    finish(study, runs[3])
    finish(study, runs[4], digest="0" * 64)
    cut = finish(study, runs[5])
    cut.write_bytes(cut.read_bytes()[:-9])
    finish(study, runs[6], rounds=3, provenance=own)
    other = study.record_path(runs[0]).parents[2] / "gone" / "sentiment" / "honest.json"
    shutil.copytree(study.record_path(runs[0]).parent, other.parent)
    shutil.copy(study.record_path(runs[0]), other)
    copied = study.record_path(runs[7])
    shutil.copy(study.record_path(runs[0]), copied)

    told = {verdict.path: (verdict.state, verdict.remark) for verdict in check_records(study)}
    assert [told[study.record_path(run)] for run in runs[:8]] == [
        ("valid", ""),
        ("valid", ""),
        ("valid", f"without {files[2].name}"),
        ("other code", ""),
        ("stale", "made with other settings"),
        ("corrupt", "truncated or edited (its checksum does not fit); run it again"),
        ("corrupt", "has 3 of 200 rounds but says complete; run it again"),
        ("stale", "made with other settings"),
    ]
    assert told[other] == ("stale", "of no run of this config")
    assert told[files[1]] == (
        "corrupt",
        f"is not the one of its run; remove {study.record_path(runs[1]).name} to run it again",
    )


def test_no_name_or_text_of_a_foreign_file_acts_on_the_terminal(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    content = {
        f"tiny_{run.task}_{run.condition}_{run.seed}": {"history": {n: [1.0] * 200 for n in History.model_fields}}
    }
    import_results(study, put(tmp_path, content, "x\nvalid       forged\x1b[31m\u202e.json"), False, print)
    foreign = study.record_path(run).with_name("a\nvalid       forged\x1b[31m\udcff.json")
    foreign.write_text("{}")
    text = check_text(check_records(study))
    assert len(text.splitlines()) == 3
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert r"imported from x\nvalid       forged\x1b[31m\u202e.json" in text
    assert r"a\nvalid       forged\x1b[31m\udcff.json" in text


def test_a_number_that_went_to_another_process_is_no_running_job(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    path = write_job(study, [run], 60)
    assert status_of(study, run).state == "running"
    os.utime(path, (1e9, 1e9))  # long before this process began
    assert status_of(study, run).state == "missing"


@pytest.mark.slow
def test_a_damaged_head_of_a_state_does_not_count(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    [path] = checkpoint(study, run, {50: 9000}).rglob("state-*.safetensors")
    whole, told = path.read_bytes(), set()
    for bit in range(8 * min(len(whole), 250)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        os.utime(path, (NOW - 9000, NOW - 9000))
        told.add(status_of(study, run).state)
    assert told == {"partial", "missing"}


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wireheading.cli", *arguments], cwd=folder, text=True, capture_output=True, check=False
    )


def config_in(folder: Path, config: dict[str, Any], name: str = "config.yaml") -> Path:
    path = folder / "config" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_the_command_reads_the_config_that_the_workflow_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config_in(tmp_path, published_config("results"))
    config_in(tmp_path, published_config("results-original"), "original.yaml")
    path = put(tmp_path, one([episode()]))
    assert cli.main(["import", str(path)]) == 0
    assert not Path("results").exists()
    assert capsys.readouterr().err == "results-original: 1 imported, 0 partial, 0 empty, 0 kept as they were\n"
    assert cli.main(["status", "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"missing"}
    assert cli.main(["status", "--json", "--configfile", "config/original.yaml"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 72
    assert [row for row in rows if row["state"] != "missing"] == [
        {
            "seed": 42,
            "model": "llama-3.1-8b",
            "task": "sentiment",
            "condition": "honest",
            "state": "imported",
            "rounds_done": 6,
            "rounds": 6,
        }
    ]
    assert cli.main(["export", "out.json"]) == 0
    assert json.loads(Path("out.json").read_text())["seed_42"][LLAMA]["sentiment"]["control"] == []


@pytest.mark.parametrize("name", ["status", "check"])
def test_records_of_another_study_are_found_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config_in(tmp_path, changed())
    config_in(tmp_path, published_config("results"), "original.yaml")
    (tmp_path / "config" / "broken.yaml").write_text("rounds: [")
    assert cli.main(["import", str(put(tmp_path, one([episode()])))]) == 0
    capsys.readouterr()
    assert cli.main([name]) == 0
    assert capsys.readouterr().err == (
        "results holds the records of 1 runs of config/original.yaml: give --configfile config/original.yaml\n"
    )
    assert cli.main([name, "--configfile", "config/original.yaml"]) == 0
    assert capsys.readouterr().err == ""


def test_check_fails_where_a_record_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config_in(tmp_path, published_config("results"), "original.yaml")
    path = put(tmp_path, {"seed_42": results_of_seed(42)} | one([episode(3)], f"seed_123/{LLAMA}/sentiment/honest"))
    assert cli.main(["import", str(path)]) == 0
    check = ["check", "--configfile", "config/original.yaml"]
    capsys.readouterr()
    assert cli.main(check) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0] == (
        "valid       results/123/llama-3.1-8b/sentiment/honest.imported.json  imported from all_results.json"
    )
    assert lines[-1] == "19 records: 19 valid, 0 other code, 0 stale, 0 corrupt"
    record = Path("results/42/mistral-7b/arithmetic/control.json")
    record.write_bytes(record.read_bytes().replace(b"imported", b"imparted", 1))
    assert cli.main(check) == 1
    assert f"corrupt     {record}  truncated or edited" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status"], "config/config.yaml: no such file; give --configfile"),
        (["status", "--configfile", "a.yaml"], "a.yaml: not YAML"),
        (["status", "--configfile", "b.yaml"], "b.yaml: holds no settings"),
        (["status", "--configfile", "c.yaml"], "config: rounds = -1"),
        (["status", "--configfile", "."], ".: cannot be read (Is a directory)"),
        (["import", "none.json", "--configfile", "d.yaml"], "none.json: no such file"),
        (["import", ".", "--configfile", "d.yaml"], ".: Is a directory"),
        (["export", "out.json", "--configfile", "d.yaml"], "results: holds no record of this study"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("models: [\nx: 1", encoding="utf-8")
    Path("b.yaml").write_text("[]", encoding="utf-8")
    Path("c.yaml").write_text(yaml.safe_dump(changed(rounds=-1)), encoding="utf-8")
    Path("d.yaml").write_text(yaml.safe_dump(changed()), encoding="utf-8")
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert told in error


def test_the_command_starts_without_loading_torch() -> None:
    code = "import sys, wireheading.cli; print(sorted({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
