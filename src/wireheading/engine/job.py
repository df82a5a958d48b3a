"""Many runs on one model: gathers what the runs ask for and answers it in batches.

A job owns a fixed number of slots, one for each run of its axes in the config's order, whether that run is to be done
or not. What is computed together is fixed too: the slots of a task, or all. A slot without a question is a dummy row.
So what a run is answered never depends on which other runs are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wireheading.engine.checkpoints import load_checkpoint, save_checkpoint
from wireheading.engine.evaluation import evaluate
from wireheading.engine.experiment import (
    Ask,
    EndRound,
    Evaluate,
    GradeApart,
    GradeNext,
    Outcome,
    Respond,
    Row,
    Update,
    experiment,
    finite,
)
from wireheading.engine.folders import checkpoint_of, holding, identity_of, other_checkpoints
from wireheading.engine.progress import Progress
from wireheading.engine.prompts import check_limits, choices
from wireheading.engine.stopping import Stop, Stopped, listening
from wireheading.errors import InputError
from wireheading.files import remove_leftovers, sha256_of
from wireheading.inputs.items import read_items
from wireheading.inputs.models import commit_of, file_states, model_digests, verified_digests
from wireheading.policy.allowed import FREE
from wireheading.policy.device import device_name, prepare_device
from wireheading.policy.model import load_model
from wireheading.policy.policy import Policy
from wireheading.policy.session import Session
from wireheading.policy.update import Step, Turn, Width
from wireheading.records.provenance import provenance
from wireheading.records.record import inspect_record, make_record, write_record
from wireheading.records.transcripts import write_heldout, write_transcript
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study
from wireheading.study.paths import adapter_folder, checkpoint_folder, heldout_path, transcript_path
from wireheading.tasks import Item

Report = Callable[[str], None]


@dataclass
class Live:
    """A run under way.

    Attributes:
        run: Which run it is.
        slot: Its slot.
        steps: The run's straight line, which is resumed with each answer.
        ask: Its open question; None once it has ended.
        rows: Its finished rounds.
        baseline: The baseline after them; None before the first.
        evaluations: Its held-out evaluations, by the number of rounds before them.
        unsaved: What the checkpoint does not hold yet: rounds and evaluations.
        first: The round at which this job took it up.
    """

    run: Run
    slot: int
    steps: Generator[Ask, Any, Outcome]
    rows: list[Row] = field(default_factory=list)
    baseline: float | None = None
    evaluations: dict[int, list[Row]] = field(default_factory=dict)
    unsaved: list[Row] = field(default_factory=list)
    ask: Ask | None = None
    outcome: Outcome | None = None
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = len(self.rows)
        self.answer(None)

    def answer(self, answer: Any) -> None:
        """Goes on with the run to its next question or its end."""
        try:
            self.ask = self.steps.send(answer)
        except StopIteration as end:
            self.ask, self.outcome = None, end.value


@dataclass(frozen=True)
class Items:
    """The frozen items of a task, and the SHA-256 of their files, with the commit of the data set they are from."""

    train: Sequence[Item]
    heldout: Sequence[Item]
    digests: dict[str, str]

    @staticmethod
    def read(folder: Path, task: str) -> Items:
        """Reads the items from a task's folder.

        Raises:
            InputError: They cannot be read, or were changed since they were frozen.
        """
        train, heldout = folder / "train.jsonl", folder / "heldout.jsonl"
        items = read_items(train, task), read_items(heldout, task)
        return Items(*items, verified_digests(folder, (train.name, heldout.name)) | commit_of(folder, "data"))


@dataclass(frozen=True)
class Shape:
    """The fixed columns of what is computed in one batch."""

    prompt: int
    response: int
    grading: int
    grade: int


def run_job(
    study: Study,
    axes: Sequence[Run],
    wanted: Sequence[Run],
    model_folder: Path,
    data_folders: Mapping[str, Path],
    report: Report,
) -> None:
    """Does the runs of a job that have no valid record yet, and writes their records.

    Args:
        study: The study's settings.
        axes: All runs that share the job by the config, in its order: they number the slots.
        wanted: Those whose records are asked for.
        model_folder: The model of all of them.
        data_folders: The folder of each task's items.
        report: Is told of progress.

    Raises:
        Stopped: A signal asked the job to end; every round that was finished is in a checkpoint.
        InputError: A run is being done by another process, or something cannot be read or written.
    """
    with listening() as stop, ExitStack() as locks:
        for run in _without_record(study, wanted):
            locks.enter_context(holding(checkpoint_folder(study.record_path(run)), report))
        # Whoever held a run before may have finished it.
        missing = _without_record(study, wanted)
        report(f"{len(wanted) - len(missing)} of {len(wanted)} runs have their record; {len(missing)} to do")
        if missing:
            _advance(study, axes, missing, model_folder, data_folders, report, stop)


def _without_record(study: Study, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if inspect_record(study.record_path(run), study.digest(run)) != "valid"]


def _advance(
    study: Study,
    axes: Sequence[Run],
    missing: Sequence[Run],
    model_folder: Path,
    data_folders: Mapping[str, Path],
    report: Report,
    stop: Stop,
) -> None:
    """Loads the model, takes up the runs and plays them to their end."""
    device = prepare_device(study.engine.threads)
    name = axes[0].model
    plain = study.prompting == "completion"
    before = file_states(model_folder)
    model, chat = load_model(model_folder, study.models[name].precision, device, plain=plain)
    policy = Policy(
        model,
        chat,
        slots=len(axes),
        chunk=study.engine.chunk,
        lora=study.lora,
        optimizer=study.optimizer,
        temperature=study.temperature,
        activation_checkpointing=study.models[axes[0].model].activation_checkpointing,
        choices=choices(study, chat),
    )
    tasks = dict.fromkeys(run.task for run in missing)
    items = {task: Items.read(data_folders[task], task) for task in tasks}
    for task in tasks:
        check_limits(study, task, policy.chat, [*items[task].train, *items[task].heldout])
    weights = model_digests(model_folder)
    if file_states(model_folder) != before:
        raise InputError(f"{model_folder}: was changed while it was loaded; run again once nothing writes there")
    inputs = {task: {**weights, **items[task].digests} for task in tasks}
    live = [_take_up(study, run, axes.index(run), policy, items[run.task], inputs[run.task], report) for run in missing]
    progress = Progress(study, missing, report)
    report("evaluating the base model on held-out items")
    base = {}
    for task in tasks:
        before_batch = progress.evaluation(f"the base model in {task}", len(items[task].heldout), stop.check)
        base[task] = evaluate(study, task, policy, range(1), items[task].heldout, before_batch, base=True)[0]
        if not finite(base[task]):
            raise InputError(
                f"{model_folder}: its logits on the held-out items of {task} are not finite in "
                f"{study.models[name].precision} at temperature {study.temperature}; give whole weights, another "
                "precision or a higher temperature"
            )
    Job(study, axes, policy, inputs, base, progress, stop).advance(live)


def _take_up(
    study: Study, run: Run, slot: int, policy: Policy, items: Items, inputs: Mapping[str, str], report: Report
) -> Live:
    """Starts a run, or goes on with it from its checkpoint."""
    policy.adapters.initialise(slot, run.seed)
    record = study.record_path(run)
    remove_leftovers(record.parent, f"{run.condition}.")
    identity = identity_of(study.digest(run), inputs)
    folder = checkpoint_of(checkpoint_folder(record), identity)
    checkpoint = load_checkpoint(folder, identity, report)
    if checkpoint is None:
        if others := other_checkpoints(folder):
            report(f"{run}: starting from the first round; kept for other settings or inputs: {', '.join(others)}")
        return Live(run, slot, experiment(study, run, policy.chat, items.train, items.heldout))
    policy.adapters.restore(slot, checkpoint.tensors)
    rows = [entry for entry in checkpoint.log if "evaluated" not in entry]
    evaluations = {entry["evaluated"]: entry["items"] for entry in checkpoint.log if "evaluated" in entry}
    start = len(rows)
    report(f"{run}: going on from round {start}")
    steps = experiment(
        study, run, policy.chat, items.train, items.heldout, start, checkpoint.baseline, frozenset(evaluations)
    )
    return Live(run, slot, steps, rows, checkpoint.baseline, evaluations)


class Job:
    """Answers the questions of runs until all have ended."""

    def __init__(
        self,
        study: Study,
        axes: Sequence[Run],
        policy: Policy,
        inputs: Mapping[str, Mapping[str, str]],
        base: Mapping[str, list[Row]],
        progress: Progress,
        stop: Stop,
    ):
        """Lays out the slots.

        Args:
            study: The study's settings.
            axes: All runs that share the job, slot by slot.
            policy: A policy with that many slots.
            inputs: SHA-256 of what the runs of each task read.
            base: The base model's held-out evaluation in each task.
            progress: Reports how far the job is.
            stop: Tells, after each round and each batch of an evaluation, whether the job is to end early.
        """
        self.study = study
        self.policy = policy
        self.inputs = inputs
        self.base = base
        self.progress = progress
        self.report = progress.report
        self.stop = stop
        self.slots = len(axes)
        self.groups = groups_of(study, axes)
        # Whether a second turn is in the update of a group is a matter of the config, not of who is there.
        self.trains_grade = [
            any(CONDITIONS[axes[slot].condition].trains_grade for slot in group) for group, _ in self.groups
        ]
        self.slots_of = {
            task: range(min(slots), max(slots) + 1)
            for task in dict.fromkeys(run.task for run in axes)
            if (slots := [slot for slot, run in enumerate(axes) if run.task == task])
        }
        self.evaluating = 0.0
        self.started = time.monotonic()

    def advance(self, live: Sequence[Live]) -> None:
        """Plays the runs round by round to their end and writes their records.

        Args:
            live: The runs.

        Raises:
            Stopped: A signal asked the job to end; every round that was finished is in a checkpoint.
        """
        for run in live:
            if run.ask is None:
                self._finish(run)
        while playing := [run for run in live if run.ask is not None]:
            stopped = None
            try:
                self.stop.check()
                self.play_round(playing)
            except Stopped as asked:
                stopped = asked
            for run in playing:
                if run.ask is None:
                    self._finish(run)
            if stopped is not None:
                at = self._save_all(live)
                raise Stopped(f"{stopped} at round {at} of {self.study.rounds}; the runs go on from there")
            self._report_progress(live)
        self.progress.costs(_done(live), time.monotonic() - self.started - self.evaluating, self.evaluating)

    def play_round(self, live: Sequence[Live]) -> None:
        """Plays one round of runs that have not ended."""
        for (slots, shape), trains_grade in zip(self.groups, self.trains_grade, strict=True):
            members = [run for run in live if run.slot in slots]
            if members:
                self._round(slots, shape, trains_grade, members)

    def _round(self, slots: range, shape: Shape, trains_grade: bool, members: Sequence[Live]) -> None:
        """Answers one round's questions of the runs of a group, each kind in one batch."""
        policy = self.policy
        session = policy.open_session(len(slots), shape.prompt + shape.response + 1 + shape.grading + shape.grade)
        self._sample(Respond, session, slots, shape.prompt, shape.response, members)
        self._sample(GradeNext, session, slots, 1 + shape.grading, shape.grade, members)
        width = shape.grading
        if self.study.grading_context == "conversation":
            width += shape.prompt + shape.response
        self._sample(
            GradeApart, policy.open_session(len(slots), width + shape.grade), slots, width, shape.grade, members
        )
        self._update(slots, shape, trains_grade, members)
        for run in members:
            if isinstance(run.ask, EndRound):
                self._end_round(run, run.ask)
        self._evaluate(members)

    def _sample(
        self,
        kind: type[Respond | GradeNext | GradeApart],
        session: Session,
        slots: range,
        width: int,
        limit: int,
        members: Sequence[Live],
    ) -> None:
        asking = [(run, run.ask) for run in members if isinstance(run.ask, kind)]
        if not asking:
            return
        contexts: list[Sequence[int]] = [()] * len(slots)
        draws = [np.zeros(0)] * len(slots)
        adapted = [True] * len(slots)
        starts = [FREE] * len(slots)
        for run, ask in asking:
            row = run.slot - slots.start
            contexts[row] = ask.context
            draws[row] = ask.draws
            if not isinstance(ask, Respond):
                starts[row] = self.policy.allowed.starts.get(run.run.task, FREE)
            if isinstance(ask, GradeApart):
                adapted[row] = ask.adapted
        gates = adapted if kind is GradeApart else None
        sampled = self.policy.sample(session, slots, contexts, width, draws, limit, gates, starts)
        for run, _ in asking:
            run.answer(sampled[run.slot - slots.start])

    def _update(self, slots: range, shape: Shape, trains_grade: bool, members: Sequence[Live]) -> None:
        asking = [(run, run.ask) for run in members if isinstance(run.ask, Update)]
        if not asking:
            return
        response, grade = Width(shape.prompt, shape.response), Width(shape.grading, shape.grade)
        if self.study.grading_context == "fresh":
            widths = [[response], [grade]] if trains_grade else [[response]]
        else:
            widths = [[response, grade] if trains_grade else [response]]
        rows: list[list[tuple[Turn, ...]]] = [[()] * len(slots) for _ in widths]
        advantages: list[float | None] = [None] * len(slots)
        for run, ask in asking:
            row = run.slot - slots.start
            advantages[row] = ask.advantage
            for batch, turns in zip(rows, ask.conversations, strict=False):
                batch[row] = turns
        steps = self._updated(slots, list(zip(widths, rows, strict=True)), advantages)
        for run, _ in asking:
            run.answer(steps[run.slot - slots.start])

    def _updated(
        self,
        slots: range,
        batches: Sequence[tuple[Sequence[Width], Sequence[Sequence[Turn]]]],
        advantages: Sequence[float | None],
    ) -> list[Step]:
        """Updates slots; where memory runs out and the config allows it, once more in chunks of half the size.

        Raises:
            InputError: Memory ran out. The text says what to change.
        """
        adapters = self.policy.adapters
        taken = adapters.steps.clone()
        while True:
            try:
                return self.policy.update(slots, batches, advantages)
            except torch.OutOfMemoryError:
                chunk = min(self.policy.chunk, len(slots))
                if chunk == 1 or not self.study.engine.halve_chunk:
                    raise InputError(
                        f"config: engine.chunk = {self.study.engine.chunk}: the device's memory ran out in an update "
                        f"of {chunk} runs; set a smaller chunk, or engine.halve_chunk: true"
                    ) from None
            # Values are written last and all at once, so nothing but gradients and step counts was touched.
            adapters.grads[slots.start : slots.stop] = 0
            adapters.steps.copy_(taken)
            self.policy.set_chunk((chunk + 1) // 2)
            torch.cuda.empty_cache()
            self.report(f"memory ran out in an update; from here on the chunk is {self.policy.chunk}, as records tell")

    def _evaluate(self, members: Sequence[Live]) -> None:
        asking = [(run, run.ask) for run in members if isinstance(run.ask, Evaluate)]
        started = time.monotonic()
        for task, count in sorted({(run.run.task, len(ask.items)) for run, ask in asking}):
            together = [(run, ask) for run, ask in asking if (run.run.task, len(ask.items)) == (task, count)]
            slots = self.slots_of[task]
            before_batch = self.progress.evaluation(f"{len(together)} runs in {task}", count, self.stop.check)
            rows = evaluate(self.study, task, self.policy, slots, together[0][1].items, before_batch)
            for run, _ in together:
                self._end_evaluation(run, rows[run.slot - slots.start])
        self.evaluating += time.monotonic() - started

    def _end_round(self, run: Live, ask: EndRound) -> None:
        run.rows.append(ask.row)
        run.unsaved.append(ask.row)
        run.baseline = ask.baseline
        if len(run.rows) % self.study.engine.checkpoint_every == 0 or len(run.rows) == self.study.rounds:
            self._save(run)
        run.answer(None)

    def _end_evaluation(self, run: Live, seen: list[Row]) -> None:
        if finite(seen):
            run.evaluations[len(run.rows)] = seen
            run.unsaved.append({"evaluated": len(run.rows), "items": seen})
        run.answer(seen)
        if run.ask is not None:
            # It may have taken longer than many rounds.
            self._save(run)

    def _save(self, run: Live) -> None:
        """Writes the checkpoint of a run between two rounds."""
        assert run.baseline is not None
        state = self.policy.adapters.state(run.slot)
        if len(run.rows) == self.study.rounds:
            # Nothing is updated any more, so the optimizer's state, two thirds of the whole, is not needed.
            state = {"values": state["values"]}
        identity = identity_of(self.study.digest(run.run), self.inputs[run.run.task])
        save_checkpoint(
            checkpoint_of(checkpoint_folder(self.study.record_path(run.run)), identity),
            identity,
            run.unsaved,
            len(run.rows),
            run.baseline,
            state,
        )
        run.unsaved.clear()

    def _save_all(self, live: Sequence[Live]) -> int:
        """Writes the checkpoints of all runs under way, and tells how many rounds they have at least."""
        under_way = [run for run in live if run.ask is not None]
        for run in under_way:
            if run.unsaved:
                self._save(run)
        return min(len(run.rows) for run in under_way)

    def _finish(self, run: Live) -> None:
        """Writes the transcript and the record of a run that has ended."""
        assert run.outcome is not None
        if run.outcome.problem is not None:
            self.report(f"{run.run}: diverged in {run.outcome.problem}")
        path = self.study.record_path(run.run)
        seconds = time.monotonic() - self.started
        evaluations = {0: self.base[run.run.task], **run.evaluations}
        write_transcript(transcript_path(path), run.rows)
        write_heldout(heldout_path(path), evaluations)
        inputs = self.inputs[run.run.task]
        adapter: list[Path] = []
        if self.study.engine.keep_adapters:
            source, commit = self.study.models[run.run.model].source, inputs.get("model_commit")
            adapter = self.policy.adapters.save_peft(run.slot, adapter_folder(path), source, commit)
        record = make_record(
            self.study,
            run.run,
            inputs,
            run.outcome.status,
            run.outcome.problem,
            run.rows,
            evaluations,
            _digests((transcript_path(path), heldout_path(path))),
            timing={
                "first_round": run.first,
                "rounds": len(run.rows) - run.first,
                "seconds": round(seconds, 3),
                "evaluating_seconds": round(self.evaluating, 3),
            },
            provenance=provenance(
                self.study,
                slot=run.slot,
                slots=self.slots,
                chunk=self.policy.chunk,
                threads=torch.get_num_threads(),
                device=device_name(self.policy.model.device),
            ),
            adapter=_digests(adapter),
        )
        write_record(path, record)

    def _report_progress(self, live: Sequence[Live]) -> None:
        playing = [len(run.rows) for run in live if run.ask is not None]
        left = sum(self.study.rounds - rows for rows in playing)
        at = min(playing, default=self.study.rounds)
        self.progress.round(at, _done(live), left, time.monotonic() - self.started - self.evaluating)


def _done(live: Sequence[Live]) -> int:
    """Rounds that this job has done, of all runs together."""
    return sum(len(run.rows) - run.first for run in live)


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in files}


def groups_of(study: Study, axes: Sequence[Run]) -> list[tuple[range, Shape]]:
    """The slots that are computed together, and the fixed shape of their batches."""
    by_task: dict[str, list[int]] = {}
    for slot, run in enumerate(axes):
        by_task.setdefault(run.task, []).append(slot)
    parts = list(by_task.values()) if study.engine.batch == "task" else [list(range(len(axes)))]
    groups = []
    for part in parts:
        tasks = [study.tasks[axes[slot].task] for slot in part]
        shape = Shape(
            prompt=max(task.prompt_tokens for task in tasks),
            response=max(task.response_tokens for task in tasks),
            grading=max(task.grading_prompt_tokens for task in tasks),
            grade=max(task.grade_tokens for task in tasks),
        )
        groups.append((range(part[0], part[-1] + 1), shape))
    return groups
