"""The contract: a run's record does not depend on its neighbours, on which runs were missing, or on interruptions."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rows import ROWS
from test_checkpoints import file_size_limit
from toys import save_toy

from wireheading.engine import evaluation
from wireheading.engine.evaluation import _evaluate_batch as evaluate_batch
from wireheading.engine.folders import HeldError, holding
from wireheading.engine.job import run_job
from wireheading.engine.layout import groups_of
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.progress import Progress
from wireheading.engine.stopping import Stopped
from wireheading.errors import InputError
from wireheading.files import WriteError, sha256_of
from wireheading.policy.policy import Policy
from wireheading.policy.session import Completion
from wireheading.policy.update import Chunk
from wireheading.records.record import ROUND_ARRAYS, read_record
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import checkpoint_folder, heldout_path, transcript_path

ROUNDS = 7

TOLERANCE = 1e-5 if torch.cuda.is_available() else 0.0
"""Of soft grades of a policy that has learnt nothing against the base model's: a GPU adds up in another order if other
numbers of rows are computed together, a CPU does not."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_toy(folder)
    return folder


def make_toy(folder: Path) -> None:
    """Makes a model and items of two tasks."""
    save_toy(folder / "model")
    data: dict[str, list[dict[str, Any]]] = {
        "arithmetic": [{"id": f"a{i}", "question": f"{i} + 1", "answer": i + 1} for i in range(8)],
        "sentiment": [{"id": f"s{i}", "text": "good " * (i + 1), "label": "positive"} for i in range(8)],
    }
    for task, items in data.items():
        (folder / "data" / task).mkdir(parents=True)
        for name, part in (("train", items[:5]), ("heldout", items[5:])):
            path = folder / "data" / task / f"{name}.jsonl"
            path.write_text("".join(json.dumps(item) + "\n" for item in part))


def make_study(results: Path, **changes: Any) -> Study:
    limits: dict[str, int] = {"prompt_tokens": 24, "response_tokens": 5, "grading_prompt_tokens": 12, "grade_tokens": 3}
    return load_study(
        {
            "models": {"toy": {"source": "toy", "precision": "float32"}},
            "tasks": {
                "arithmetic": {
                    "data": "generated",
                    "operands": {"+": [0, 99]},
                    "prompt": "{question}=",
                    "grading_prompt": "ok?",
                    **limits,
                },
                "sentiment": {"data": "embedded", "prompt": "{text}?", "grading_prompt": "ok?", **limits},
            },
            "seeds": [1, 2],
            "conditions": [*CONDITIONS, *ROWS],
            "rounds": ROUNDS,
            "evaluation": {"midway_rounds": [4], "midway_items": 2},
            "optimizer": {"lr": 0.01},
            "engine": {
                "lockstep": ["seed", "task", "condition"],
                "threads": 1,
                "checkpoint_every": 3,
                "chunk": 4,
                "evaluation_batch": 2,
            },
            "results": str(results),
        }
        | changes
    )


def run_all(
    study: Study, toy: Path, wanted: Sequence[Run] | None = None, report: Callable[[str], None] = lambda _: None
) -> None:
    runs = study.runs()
    data = {task: toy / "data" / task for task in study.tasks}
    run_job(study, runs, runs if wanted is None else wanted, toy / "model", data, report, report)


def science(study: Study, run: Run) -> bytes:
    """A record's bytes but for timing and provenance, and its transcript's."""
    lines = study.record_path(run).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith((b'"timing"', b'"provenance"'))]
    assert len(kept) == len(lines) - 2
    path = study.record_path(run)
    return b"".join(kept) + transcript_path(path).read_bytes() + heldout_path(path).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_study(tmp_path_factory.mktemp("undisturbed"))
    run_all(study, toy)
    return study


def same(study: Study, undisturbed: Study, runs: Sequence[Run]) -> None:
    for run in runs:
        assert science(study, run) == science(undisturbed, run), run


def test_records_are_whole_and_true_to_the_conditions(undisturbed: Study) -> None:
    for run in undisturbed.runs():
        record = read_record(undisturbed.record_path(run), undisturbed.digest(run))
        assert record["status"] == "complete"
        assert all(len(record[name]) == ROUNDS for name in ROUND_ARRAYS)
        assert (set(record["parse_status"]) == {"not_asked"}) == (run.condition == "control")
        assert max(record["logprob_gaps"]) < 1e-4
        transcript, heldout = transcript_path(undisturbed.record_path(run)), heldout_path(undisturbed.record_path(run))
        assert record["transcripts"] == {file.name: sha256_of(file) for file in (transcript, heldout)}
        assert [(evaluation["round"], len(evaluation["scores"])) for evaluation in record["evaluations"]] == [
            (0, 3),
            (4, 2),
            (ROUNDS, 3),
        ]
        start, _, end = record["evaluations"]
        # The base model's grades of its own answers are measured once.
        assert start["soft_grades"] == start["base_soft_grades"] == start["fixed_base_grades"]
        assert end["soft_grades"] != end["base_soft_grades"]
        # Where no reward differed from the others, nothing was learnt.
        change = np.abs(np.subtract(end["fixed_wrong_grades"], start["fixed_wrong_grades"])).max()
        assert (change > TOLERANCE) == any(record["advantages"])
        table = pd.read_parquet(transcript)
        assert table["reward"].tolist() == record["rewards"]
        # Conditions of a seed are paired: the same items and the same first response.
        control = undisturbed.record_path(run._replace(condition="control"))
        assert table["item"].tolist() == pd.read_parquet(transcript_path(control))["item"].tolist()
        assert table["response"][0] == pd.read_parquet(transcript_path(control))["response"][0]


def test_the_baseline_is_a_moving_average_from_the_first_reward(undisturbed: Study) -> None:
    for run in undisturbed.runs():
        record = read_record(undisturbed.record_path(run), undisturbed.digest(run))
        weight = undisturbed.conditions[run.condition].kl
        kls = record.get("kls", [0.0] * ROUNDS)
        rewards = [reward - weight * kl for reward, kl in zip(record["rewards"], kls, strict=True)]
        baseline = rewards[0]
        for reward, recorded, advantage in zip(rewards, record["baselines"], record["advantages"], strict=True):
            assert recorded == baseline
            assert advantage == reward - baseline
            baseline = 0.9 * baseline + (1 - 0.9) * reward


@pytest.mark.parametrize("kept", [[7], [0, 19], [3, 4, 5, 6, 12]])
def test_redoing_some_runs_gives_the_same_bytes(undisturbed: Study, toy: Path, tmp_path: Path, kept: list[int]) -> None:
    study = make_study(tmp_path)
    runs = [study.runs()[index] for index in kept]
    run_all(study, toy, runs)
    same(study, undisturbed, runs)
    assert len(list(tmp_path.rglob("*.json"))) == len(kept)


@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_bytes(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    kept_rounds = 0
    for _ in range(2 * ROUNDS):
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Progress, "round", killer(after=3))
                run_all(study, toy)
            break
        except KeyboardInterrupt:
            kept_rounds += 1
    assert kept_rounds > 0
    same(study, undisturbed, study.runs())
    first = read_record(study.record_path(study.runs()[0]), study.digest(study.runs()[0]))
    assert first["timing"]["first_round"] == 6, "the last invocation went on from the last checkpoint"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_stops_a_job_after_its_round_and_loses_nothing(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    study = make_study(tmp_path)
    runs, handler = study.runs()[::5], signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "_round", signalled(Lockstep._round, number, calls=9))
        with pytest.raises(Stopped, match=rf"^toy: {number.name}: saved at round 5 of 7; the same command goes on"):
            run_all(study, toy, runs)
    assert signal.getsignal(number) == handler
    run_all(study, toy, runs)
    same(study, undisturbed, runs)
    for run in runs:
        record = read_record(study.record_path(run), study.digest(run))
        assert record["timing"]["first_round"] == 5, "between two checkpoints, which are three rounds apart"


def signalled(method: Callable[..., None], number: signal.Signals, calls: int) -> Callable[..., None]:
    """A method that gets a signal in the middle of one of its calls."""
    count = itertools.count(1)

    def wrapped(*arguments: Any) -> None:
        if next(count) == calls:
            os.kill(os.getpid(), number)
        method(*arguments)

    return wrapped


def test_a_second_job_of_the_same_runs_is_refused(toy: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path)
    runs = study.runs()[:2]
    folder = checkpoint_folder(study.record_path(runs[1]))
    with holding(folder, print), pytest.raises(HeldError, match="this run is being done by process"):
        run_all(study, toy, runs)
    assert list(tmp_path.rglob("*.json")) == []
    run_all(study, toy, runs[:1])


@pytest.mark.parametrize("room", [300, 3_000])
@pytest.mark.slow
def test_a_full_disk_stops_a_job_in_a_line_and_loses_no_more_than_an_interval(
    undisturbed: Study, toy: Path, tmp_path: Path, room: int
) -> None:
    """Room for a few rounds, or for the rounds but not for the adapter."""
    study = make_study(tmp_path)
    runs = study.runs()[:2]
    with file_size_limit(room), pytest.raises(WriteError) as caught:
        run_all(study, toy, runs)
    assert str(caught.value).startswith(str(tmp_path))
    assert "cannot be written" in str(caught.value)
    assert "\n" not in str(caught.value)
    run_all(study, toy, runs)
    same(study, undisturbed, runs)


def test_results_that_may_not_be_written_to_stop_a_job_in_a_line(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    study = make_study(tmp_path / "results")
    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(WriteError, match=r"control.checkpoint/lock: cannot be written: .*Read-only") as caught:
        run_all(study, toy, study.runs()[:1])
    assert "\n" not in str(caught.value)


def killer(after: int) -> Callable[..., None]:
    calls = 0

    def progress(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    return progress


@pytest.mark.slow
def test_runs_at_different_rounds_advance_together(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another order of arrival: some runs go on from a checkpoint while others begin."""
    study = make_study(tmp_path)
    early = study.runs()[::2]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "round", killer(after=5))
        with pytest.raises(KeyboardInterrupt):
            run_all(study, toy, early)
    run_all(study, toy)
    same(study, undisturbed, study.runs())


def test_a_finished_run_is_not_run_again_before_its_record_is_believed(
    undisturbed: Study, toy: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    run = study.runs()[1]
    run_all(study, toy, [run])
    study.record_path(run).unlink()
    assert checkpoint_folder(study.record_path(run)).exists()
    run_all(study, toy, [run])
    same(study, undisturbed, [run])
    assert read_record(study.record_path(run), study.digest(run))["timing"]["rounds"] == 0


@pytest.mark.slow
def test_a_run_that_diverges_is_an_outcome_and_its_neighbours_go_on(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    victim = 6
    update = Policy.update

    def poisoned(self: Any, slots: range, *rest: Any) -> Any:
        steps = update(self, slots, *rest)
        if victim in slots and int(self.adapters.steps[victim]) == 3:
            self.adapters.values[victim].fill_(torch.nan)
            self.adapters.publish(slice(victim, victim + 1))
        return steps

    monkeypatch.setattr(Policy, "update", poisoned)
    run_all(study, toy)
    runs = study.runs()
    record = read_record(study.record_path(runs[victim]), study.digest(runs[victim]))
    assert record["status"] == "diverged"
    assert record["problem"] == "round 3: the logits of the response were not finite"
    assert record["rounds"] == len(record["rewards"]) == 3
    same(study, undisturbed, [run for run in runs if run != runs[victim]])
    said: list[str] = []
    run_all(study, toy, report=said.append)
    # A recorded outcome is not tried again.
    assert said == [f"{len(runs)} of {len(runs)} runs have their record; 0 to do"]


@pytest.mark.parametrize(
    "changes",
    [
        {"grading_context": "fresh"},
        {"grading": "choice"},
        {"grading": "choice", "grading_context": "fresh"},
        {"engine": {"batch": "all", "threads": 1, "evaluation_batch": 2}},
    ],
)
@pytest.mark.slow
def test_other_ways_to_ask_and_to_batch_keep_the_contract(toy: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    if "grading_context" in changes:
        tasks = make_study(tmp_path).model_dump()["tasks"]
        for task in tasks.values():
            task |= {"grading_prompt": "{response} ok?", "grading_prompt_tokens": 24}
        changes = {**changes, "tasks": tasks}
    whole, part = make_study(tmp_path / "whole", **changes), make_study(tmp_path / "part", **changes)
    run_all(whole, toy)
    runs = whole.runs()[3:15:4]
    run_all(part, toy, runs)
    same(part, whole, runs)
    for run in whole.runs():
        record = read_record(whole.record_path(run), whole.digest(run))
        assert max(record["logprob_gaps"]) < 1e-4
        if whole.grading == "choice":
            assert {*record["parse_status"]} <= {"readable", "not_asked"}
            assert all({*seen["parse_status"]} == {"readable"} for seen in record["evaluations"])


@pytest.mark.slow
def test_tasks_that_are_sampled_together_give_what_they_give_alone(toy: Path, tmp_path: Path) -> None:
    """Up to rounding, whatever their widths; rows apart are those of the runs that the base model grades."""
    tasks = make_study(tmp_path).model_dump()["tasks"]
    tasks["sentiment"] |= {"prompt_tokens": 40, "response_tokens": 8, "grading_prompt_tokens": 16, "grade_tokens": 4}
    conditions = [
        "selfgrade",
        "frozen",
        "control",
        {"name": "kl", "grader": "policy", "reward": "grade", "credit": "both", "kl": 0.5},
    ]
    alone, together = (
        make_study(
            tmp_path / batch,
            tasks=tasks,
            conditions=conditions,
            seeds=[1],
            rounds=4,
            engine=make_study(tmp_path).engine.model_dump() | {"batch": batch},
        )
        for batch in ("task", "all")
    )
    (group,) = groups_of(together, together.runs())
    assert [run.condition for run in together.runs()].index("frozen") == 1
    assert (group.slots, group.apart) == (range(8), [1, 5])
    assert {task: (part.slots, part.widths.prompt) for task, part in group.parts.items()} == {
        "arithmetic": (range(4), 24),
        "sentiment": (range(4, 8), 40),
    }
    for study in (alone, together):
        run_all(study, toy)
    for run in alone.runs():
        one, other = (read_record(study.record_path(run), study.digest(run)) for study in (alone, together))
        assert one.keys() == other.keys()
        for name in one.keys() & {"rewards", "losses", "grad_norms", "kls"}:
            assert one[name] == pytest.approx(other[name], abs=1e-5)
        assert pd.read_parquet(transcript_path(alone.record_path(run)))["response"].equals(
            pd.read_parquet(transcript_path(together.record_path(run)))["response"]
        )


@pytest.mark.slow
def test_an_update_that_runs_out_of_memory_is_made_again_in_half_the_chunk(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records are those of the smaller chunk, which they name."""
    engine = make_study(tmp_path).engine.model_dump()
    small = make_study(tmp_path / "small", engine=engine | {"chunk": 2})
    run_all(small, toy)
    widest: list[int] = []

    accumulate = Chunk.accumulate

    def limited(chunk: Chunk) -> None:
        accumulate(chunk)
        if chunk.losses.is_meta:
            # On a GPU the job's memory is estimated first.
            return
        widest.append(len(chunk.slots))
        # The gradients of the first part are there already when the second finds no room.
        if len(chunk.slots) > 2 and len(widest) == 2:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Chunk, "accumulate", limited)
    strict = make_study(tmp_path / "strict", engine=engine)
    with pytest.raises(InputError, match=r"engine\.chunk = 4: the device's memory ran out in an update of 4 runs"):
        run_all(strict, toy)
    widest.clear()
    halved = make_study(tmp_path / "halved", engine=engine | {"halve_chunk": True})
    told: list[str] = []
    run_all(halved, toy, report=told.append)
    assert "memory ran out in an update; from here on the chunk is 2, as the records will state" in told
    assert max(widest[2:]) == 2
    for run in halved.runs():
        assert science(halved, run) == science(small, run)
        assert json.loads(halved.record_path(run).read_text())["provenance"]["chunk"] == 2


def test_the_published_measures_and_order_can_be_had(toy: Path, tmp_path: Path) -> None:
    study = make_study(
        tmp_path,
        measures="original",
        item_order="fixed",
        conditions=["control", "selfgrade"],
        optimizer={"lr": 0.01, "baseline_start": "zero"},
    )
    run_all(study, toy)
    for run in study.runs():
        record = read_record(study.record_path(run), study.digest(run))
        assert record["items"] == [f"{run.task[0]}{index % 5}" for index in range(ROUNDS)]
        expected = record["original_scores"] if run.condition == "control" else record["original_grades"]
        assert record["rewards"] == [value or 0.0 for value in expected]
        assert record["baselines"][0] == 0.0


@pytest.mark.slow
def test_a_signal_in_a_held_out_evaluation_stops_it_between_two_batches(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round before it is kept, and so is an evaluation that was finished."""
    study = make_study(tmp_path)
    runs = study.runs()[::5]
    # Base model in one batch, then one of each task after round 4 and two after round 7.
    for call, told, arithmetic, sentiment in (
        (1, "stopped before the first round", 0, 0),
        (3, "saved at round 4 of 7", 4, 4),
        (4, "saved at round 5 of 7", 7, 5),
    ):
        batches: list[int] = []

        def batch(*arguments: Any, call: int = call, batches: list[int] = batches) -> Any:
            batches.append(0)
            if len(batches) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return evaluate_batch(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "_evaluate_batch", batch)
            with pytest.raises(Stopped, match=f"SIGTERM: {told}"):
                run_all(study, toy, runs)
        assert len(batches) == call, "no batch was begun after the signal"
        resumed: list[str] = []
        if arithmetic:
            with monkeypatch.context() as patch:
                patch.setattr(evaluation, "_evaluate_batch", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    run_all(study, toy, runs, resumed.append)
            first = {"arithmetic": arithmetic, "sentiment": sentiment}
            assert {f"{run}: resuming from round {first[run.task]}" for run in runs} <= set(resumed)
    run_all(study, toy, runs)
    same(study, undisturbed, runs)


def test_all_runs_may_diverge_in_the_first_round(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path)
    sample = Policy.sample

    def poisoned(self: Policy, *rest: Any) -> Any:
        self.adapters.values.fill_(torch.nan)
        self.adapters.publish(slice(None))
        return sample(self, *rest)

    monkeypatch.setattr(Policy, "sample", poisoned)
    run_all(study, toy)
    for run in study.runs():
        record = read_record(study.record_path(run), study.digest(run))
        assert (record["status"], record["rounds"]) == ("diverged", 0)


@pytest.mark.parametrize("temperature", [1.0, 1e-320])
def test_a_base_model_without_finite_logits_stops_the_job_in_a_line(
    toy: Path, tmp_path: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if temperature == 1.0:
        sampled = Completion
        monkeypatch.setattr(
            "wireheading.policy.session.Completion", lambda *values: replace(sampled(*values), finite=False)
        )
    study = make_study(tmp_path).model_copy(update={"temperature": temperature})
    with pytest.raises(InputError, match="logits on the held-out items of arithmetic are not finite") as caught:
        run_all(study, toy)
    assert "\n" not in str(caught.value)


def test_other_settings_leave_a_checkpoint_alone_and_the_old_ones_resume_from_it(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = make_study(tmp_path), make_study(tmp_path, rounds=2)
    run = study.runs()[1]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "round", killer(after=3))
        with pytest.raises(KeyboardInterrupt):
            run_all(study, toy, [run])
    said: list[str] = []
    run_all(other, toy, [run], said.append)
    assert any(line.startswith(f"{run}: starting from the first round; kept for other settings") for line in said)
    assert read_record(other.record_path(run), other.digest(run))["timing"]["rounds"] == 2
    run_all(study, toy, [run], said.append)
    assert f"{run}: resuming from round 3" in said
    same(study, undisturbed, [run])


def test_a_record_that_another_job_finished_meanwhile_is_not_made_again(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    run = study.runs()[0]
    path = study.record_path(run)

    @contextmanager
    def late(folder: Path, report: Callable[[str], None]) -> Iterator[None]:
        shutil.copytree(undisturbed.record_path(run).parent, path.parent, dirs_exist_ok=True)
        with holding(folder, report):
            yield

    monkeypatch.setattr("wireheading.engine.job.holding", late)
    run_all(study, toy, [run])
    assert path.read_bytes() == undisturbed.record_path(run).read_bytes()
