from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from configs import changed
from made_up import few_runs, reseal, write_runs
from published_files import own_record

from wireheading import scheduling
from wireheading.analysis.currency import analysis_is_current, tables_are_current
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.engine.folders import holding
from wireheading.errors import ConfigError
from wireheading.records import record
from wireheading.records.record import State, inspect_record, write_record
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import Analysis, Tables, checkpoint_folder


@pytest.fixture(autouse=True)
def no_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scheduling.TARGETS, "")
    monkeypatch.setenv(scheduling.INVOCATION, "host-1-0")


def study_in(folder: Path, **changes: Any) -> Study:
    return load_study(changed(results=str(folder), **changes))


def write_all(study: Study) -> None:
    for run in study.runs():
        write_record(study.record_path(run), own_record(study, run))


def states_of(study: Study) -> dict[Run, State]:
    return scheduling.RecordStates(study).of(study.runs())


def test_runs_that_are_named_as_targets_are_the_ones_asked_for(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    runs = study.runs()
    assert scheduling.requested_runs(study, ["--profile", "x", "-n"]) == runs
    some = [runs[7], runs[3]]
    targets = [str(study.record_path(run)) for run in some]
    assert scheduling.requested_runs(study, ["-n", *targets]) == [runs[3], runs[7]]
    # A job's own process has other arguments, and learns of the targets from its environment.
    assert os.environ[scheduling.TARGETS].split() == ["-n", *targets]
    assert scheduling.requested_runs(study, ["--force"]) == [runs[3], runs[7]]


def test_a_path_with_a_detour_names_the_same_record(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    path = study.record_path(run)
    assert scheduling.requested_runs(study, [str(path.parent / ".." / path.parent.name / path.name)]) == [run]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("{results}/7/tiny/sentiment/honest.json", "its seeds are 42, 123, 456, 789"),
        ("{results}/42/llama/sentiment/honest.json", "its models are tiny; .*--profile"),
        ("{results}/42/tiny/chess/honest.json", "its tasks are sentiment, arithmetic, summarization"),
        ("{results}/42/tiny/sentiment/frozen.json", "its conditions are control, selfgrade, honest"),
        ("other/42/tiny/sentiment/honest.json", "its records lie in {results}; name it {results}/42/tiny/"),
    ],
)
def test_a_target_that_is_no_run_is_told_with_what_there_is(tmp_path: Path, target: str, told: str) -> None:
    study = study_in(tmp_path)
    with pytest.raises(ConfigError, match=told.format(results=study.results)):
        scheduling.requested_runs(study, ["-n", target.format(results=study.results)])


@pytest.mark.parametrize("folder", ["file", "file/deeper"])
def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^config: results = .*/file is a file; name a folder$"):
        scheduling.check_folders(study_in(tmp_path / folder))


@pytest.mark.parametrize(
    ("lockstep", "jobs", "outputs"),
    [([], 72, 1), (["task", "condition"], 8, 9), (["seed", "task", "condition"], 1, 72)],
)
def test_lockstep_axes_divide_the_runs_into_jobs(tmp_path: Path, lockstep: list[str], jobs: int, outputs: int) -> None:
    study = study_in(tmp_path, engine={"lockstep": lockstep})
    runs = study.runs()
    together = scheduling.job_runs(study, runs)
    assert {len(members) for members in together.values()} == {outputs}
    tokens = scheduling.run_tokens(study, dict.fromkeys(runs, "missing"))
    assert len(tokens) == len(set(tokens)) == jobs
    assert len(together) == jobs
    assert sorted(run for job in together.values() for run in job) == sorted(runs)
    for key, members in together.items():
        for run in members:
            assert scheduling.job_key(study, {axis: str(value) for axis, value in run._asdict().items()}) == key


def test_a_job_looks_at_its_own_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job's process parses the workflow, so looking at all records would take the square of the study."""
    study = study_in(tmp_path, engine={"lockstep": ["task", "condition"]})
    write_all(study)
    looked_at: list[Path] = []

    def looking(path: Path, *rest: Any) -> State:
        looked_at.append(path)
        return inspect_record(path, *rest)

    monkeypatch.setattr(scheduling, "inspect_record", looking)
    states = scheduling.RecordStates(study)
    for _ in range(2):
        for run in scheduling.job_runs(study, study.runs())["42", "tiny"]:
            assert states[run] == "valid"
    assert looked_at == [study.record_path(run) for run in study.runs() if run.seed == 42]


def test_states_and_tokens_follow_the_records(tmp_path: Path) -> None:
    study = study_in(tmp_path, engine={"lockstep": []})
    write_all(study)
    runs = study.runs()
    missing, corrupt = runs[1], runs[5]
    study.record_path(missing).unlink()
    path = study.record_path(corrupt)
    path.write_bytes(path.read_bytes()[:100])
    states = states_of(study)
    assert [run for run in runs if states[run] != "valid"] == [missing, corrupt]
    assert (states[missing], states[corrupt]) == ("missing", "corrupt")
    tokens = {
        scheduling.token(study, f"{run.seed}.{run.model}.{run.task}.{run.condition}") for run in (missing, corrupt)
    }
    assert set(scheduling.run_tokens(study, states)) == tokens


def test_contents_that_were_judged_are_not_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_in(tmp_path)
    write_all(study)
    runs = study.runs()
    assert set(states_of(study).values()) == {"valid"}
    listed = tmp_path / ".valid-records"
    whole = listed.read_bytes()
    judged = []
    monkeypatch.setattr(record, "problem_of", lambda content: judged.append(content))
    states_of(study)
    assert not judged
    for damaged in (whole[1:], whole[: len(whole) // 2], b"\xff" + whole[1:], b""):
        listed.write_bytes(damaged)
        states_of(study)
        assert judged
        judged.clear()
    assert states_of(study) == dict.fromkeys(runs, "valid")
    assert not judged


def test_a_record_whose_checksum_was_made_to_fit_is_redone(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    write_all(study)
    run = study.runs()[0]
    reseal(study.record_path(run), b'"avg_reward": 0.5', b'"avg_reward": 0.7')
    states = states_of(study)
    assert [one for one in states if states[one] != "valid"] == [run]
    assert states[run] == "corrupt"


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = few_runs(tmp_path_factory.mktemp("analysed"))
    write_runs(study)
    tables = Tables.of(study)
    write_tables(study, tables, lambda _: None)
    write_analysis(study, tables, Analysis.of(study), Path("nowhere"), lambda _: None)
    return study


def outdated(study: Study) -> list[str]:
    current = tables_are_current(study, states_of(study))
    return ["tables"] * (not current) + ["analysis"] * (not analysis_is_current(study))


@pytest.mark.parametrize(
    ("damage"),
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] if data.endswith(b"PAR1") else data[: data.rindex(b",")],
        lambda _: b"\x00\xff" * 500,
        lambda _: b"seed,model\n1,2,3\n",
        lambda _: b'"' + b"x" * 200_000,
        lambda _: b"",
        lambda _: b"PAR1\xff\xff\xff\x7fPAR1",
    ],
    ids=["half", "end", "binary", "text", "quote", "empty", "footer"],
)
def test_derived_files_that_are_damaged_are_made_again(analysed: Study, damage: Callable[[bytes], bytes]) -> None:
    assert outdated(analysed) == []
    tables, analysis = vars(Tables.of(analysed)).values(), vars(Analysis.of(analysed)).values()
    for path in (*tables, *analysis):
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        assert outdated(analysed) == ["tables" if path in tables else "analysis"], path.name
        path.write_bytes(whole)
    assert outdated(analysed) == []


def test_a_changed_setting_makes_the_runs_that_it_affects_stale_and_no_others(tmp_path: Path) -> None:
    write_all(study_in(tmp_path))
    other = study_in(tmp_path, tasks__sentiment__prompt="{text}")
    states = states_of(other)
    assert {run.task for run, state in states.items() if state == "stale"} == {"sentiment"}
    assert {run.task for run, state in states.items() if state == "valid"} == {"arithmetic", "summarization"}
    grown = study_in(tmp_path, seeds=[42, 123, 456, 789, 1])
    states = states_of(grown)
    assert {run.seed for run, state in states.items() if state == "missing"} == {1}
    assert set(states.values()) == {"valid", "missing"}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"optimizer": {"lr": 1e-3}}, "stale"),
        ({"rounds": 401}, "stale"),
        ({"lora": {"rank": 4}}, "stale"),
        ({"evaluation": {"midway_items": 7}}, "stale"),
        ({"engine": {"lockstep": [], "chunk": 3, "threads": 1, "batch": "all", "checkpoint_every": 7}}, "valid"),
        ({"models__tiny__memory_mb": 9, "models__tiny__minutes": 9, "models__tiny__note": "x"}, "valid"),
        ({"reports": "elsewhere", "resources": "elsewhere"}, "valid"),
    ],
)
def test_results_depend_on_hyper_parameters_and_not_on_how_they_are_computed(
    tmp_path: Path, changes: dict[str, Any], state: str
) -> None:
    write_all(study_in(tmp_path))
    other = study_in(tmp_path, **changes)
    assert set(states_of(other).values()) == {state}


def test_tables_of_a_record_that_was_made_again_are_outdated(analysed: Study) -> None:
    path = analysed.record_path(analysed.runs()[0])
    before = path.read_bytes()
    reseal(path, b'"seconds": ', b'"seconds": 1')
    assert outdated(analysed) == ["tables"]
    path.write_bytes(before)
    assert outdated(analysed) == []


def test_tokens_of_dead_invocations_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    dead = subprocess.Popen(["true"])
    scheduling.begin_invocation(study)
    host, _, _ = os.environ[scheduling.INVOCATION].rsplit("-", 2)
    dead.wait()
    folder = tmp_path / ".jobs"
    folder.mkdir()
    stay = [f"{host}-{os.getpid()}-00.42.tiny", f"elsewhere-{dead.pid}-00.42.tiny"]
    for name in (*stay, f"{host}-{dead.pid}-00.42.tiny"):
        (folder / name).touch()
    scheduling.begin_invocation(study)
    assert sorted(path.name for path in folder.iterdir()) == sorted(stay)


def test_checkpoints_of_valid_records_go_and_those_of_other_settings_and_of_held_runs_stay(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    write_all(study)
    done, other, held, missing = runs = study.runs()[:4]
    folders = {run: checkpoint_folder(study.record_path(run)) for run in runs}
    for run, folder in folders.items():
        (folder / f"{study.digest(run)[:16]}-00000000").mkdir(parents=True)
        (folder / "lock").touch()
    (folders[other] / "0123456789abcdef-00000000").mkdir()
    study.record_path(missing).unlink()
    states = states_of(study)
    with holding(folders[held], print):
        scheduling.remove_finished_checkpoints(study, states)
        assert scheduling.held_runs(study, {**states, held: "missing"})[0].startswith(
            f"{folders[held]}/lock: this run is"
        )
        assert scheduling.held_runs(study, states) == []
    assert not folders[done].exists()
    assert sorted(path.name for path in folders[other].iterdir()) == ["0123456789abcdef-00000000", "lock"]
    assert len([*folders[held].iterdir()]) == len([*folders[missing].iterdir()]) == 2
