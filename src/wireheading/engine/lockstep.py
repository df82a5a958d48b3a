"""Many runs in lockstep: gathers what the runs request and replies in batches.

A job owns a fixed number of slots, one for each run of its axes in the config's order, whether that run is to be done
or not. A slot without a request is a dummy row. So no reply to a run depends on which other runs are there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from wireheading.engine.evaluation import evaluate
from wireheading.engine.experiment import (
    Compare,
    EndRound,
    Evaluate,
    GradeApart,
    GradeByPast,
    GradeNext,
    GradeOthers,
    Remember,
    Respond,
    Row,
    Update,
    finite,
)
from wireheading.engine.keeping import Keeper
from wireheading.engine.layout import Group, Part, evaluation_batch, groups_of
from wireheading.engine.progress import Progress, rounds_done
from wireheading.engine.state import RunState
from wireheading.engine.stopping import Stop, Stopped
from wireheading.engine.transfer import Answered, grade_fixed
from wireheading.errors import InputError
from wireheading.jobs import GOES_ON
from wireheading.policy.allowed import FREE
from wireheading.policy.policy import Policy
from wireheading.policy.session import Session
from wireheading.policy.update import Step, Turn, Width
from wireheading.study.config import Run, Study


class Lockstep:
    """Advances the runs of a job until all have ended."""

    def __init__(
        self,
        study: Study,
        axes: Sequence[Run],
        policy: Policy,
        keeper: Keeper,
        base: Mapping[str, list[Row]],
        others: Mapping[str, Answered],
        progress: Progress,
        stop: Stop,
    ):
        """Lays out the slots.

        Args:
            study: The study's settings.
            axes: All runs that share the job, slot by slot.
            policy: A policy with that many slots.
            keeper: Writes checkpoints and records.
            base: The base model's held-out evaluation in each task.
            others: What the policies of other tasks grade of each task at their end.
            progress: Reports how far the job is.
            stop: Says, after each round and before each batch of an evaluation, whether the job is to end early.
        """
        self.study = study
        self.policy = policy
        self.keeper = keeper
        self.base = base
        self.others = others
        self.progress = progress
        self.stop = stop
        self.slots = len(axes)
        self.groups = groups_of(study, axes)
        self.evaluating = 0.0
        self.started = time.monotonic()

    def advance(self, states: Sequence[RunState]) -> None:
        """Advances runs round by round to their end and writes their records.

        Args:
            states: The runs.

        Raises:
            Stopped: A signal asked the job to end; every finished round is in a checkpoint.
        """
        for state in states:
            if state.request is None:
                self._finish(state)
        while playing := [state for state in states if state.request is not None]:
            try:
                self.stop.check()
                self.play_round(playing)
                stopped = False
            except Stopped:
                stopped = True
            for state in playing:
                if state.request is None:
                    self._finish(state)
            if stopped:
                at = self._save_all(playing)
                raise Stopped(
                    f"{self.progress.told.name}: {self.stop.reason}: saved at round {at} of {self.study.rounds}; "
                    f"{GOES_ON} from there"
                )
            self.progress.round(states, time.monotonic() - self.started - self.evaluating)
        self.progress.costs(rounds_done(states), time.monotonic() - self.started - self.evaluating, self.evaluating)

    def play_round(self, states: Sequence[RunState]) -> None:
        """Plays one round of runs that have not ended."""
        for group in self.groups:
            members = [state for state in states if state.slot in group.slots]
            if members:
                self._round(group, members)

    def _round(self, group: Group, members: Sequence[RunState]) -> None:
        """Replies to one round's requests of a group, each kind in one batch."""
        slots, widths = group.slots, group.widths
        for state in members:
            if isinstance(state.request, Remember):
                self.policy.adapters.remember(state.slot)
                state.reply(None)
        session = self.policy.open_session(len(slots), widths.session)
        rows = {slot: row for row, slot in enumerate(slots)}
        self._sample(Respond, session, slots, rows, widths.prompt, widths.response, members, group.prompts)
        self._sample(GradeNext, session, slots, rows, widths.grading_next, widths.grade, members)
        if any(isinstance(state.request, GradeApart) for state in members):
            apart = self.policy.open_session(len(group.apart), widths.session_apart)
            own, rows = group.apart_adapters, {slot: row for row, slot in enumerate(group.apart)}
            self._sample(GradeApart, apart, own, rows, widths.grading_apart, widths.grade, members)
        if any(isinstance(state.request, GradeByPast) for state in members):
            apart = self.policy.open_session(len(group.past), widths.session_apart)
            own, rows = group.past, {slot: row - group.past.start for slot, row in self.policy.adapters.past.items()}
            self._sample(GradeByPast, apart, own, rows, widths.grading_apart, widths.grade, members)
        for state in members:
            if isinstance(state.request, Compare):
                batches = zip(group.parts[state.run.task].updates, state.request.sessions, strict=False)
                state.reply(self.policy.divergence(state.slot, list(batches)))
        for part in group.parts.values():
            self._update(part, [state for state in members if state.slot in part.slots])
        for state in members:
            if isinstance(state.request, EndRound):
                self._end_round(state, state.request)
        self._evaluate(group, members)
        self._grade_others(group, members)

    def _sample(
        self,
        kind: type[Respond | GradeNext | GradeApart | GradeByPast],
        session: Session,
        slots: range,
        rows: Mapping[int, int],
        width: int,
        limit: int,
        members: Sequence[RunState],
        parts: Sequence[tuple[range, int]] = (),
    ) -> None:
        """Replies to requests of one kind in a session.

        Args:
            kind: The kind.
            session: The session.
            slots: The slots whose adapters its rows get.
            rows: The row of each slot that may ask.
            width: The columns of the contexts.
            limit: The columns of the completions.
            members: The runs.
            parts: Slots after slots, the columns of their contexts where these are fewer; see `Policy.prefill`.
        """
        asking = [(state, state.request) for state in members if isinstance(state.request, kind)]
        if not asking:
            return
        contexts: list[Sequence[int]] = [()] * len(slots)
        draws = [np.zeros(0)] * len(slots)
        adapted = [True] * len(slots)
        starts = [FREE] * len(slots)
        for state, request in asking:
            row = rows[state.slot]
            contexts[row] = request.context
            draws[row] = request.draws
            if not isinstance(request, Respond):
                starts[row] = self.policy.allowed.starts.get(state.run.task, FREE)
            if isinstance(request, GradeApart):
                adapted[row] = request.adapted
        gates = adapted if kind is GradeApart else None
        completions = self.policy.sample(session, slots, contexts, width, draws, limit, gates, starts, parts)
        for state, _ in asking:
            state.reply(completions[rows[state.slot]])

    def _update(self, part: Part, members: Sequence[RunState]) -> None:
        asking = [(state, state.request) for state in members if isinstance(state.request, Update)]
        if not asking:
            return
        widths = part.updates
        rows: list[list[tuple[Turn, ...]]] = [[()] * len(part.slots) for _ in widths]
        advantages: list[float | None] = [None] * len(part.slots)
        for state, request in asking:
            row = state.slot - part.slots.start
            advantages[row] = request.advantage
            for batch, turns in zip(rows, request.sessions, strict=False):
                batch[row] = turns
        steps = self._updated(part.slots, list(zip(widths, rows, strict=True)), advantages)
        for state, _ in asking:
            state.reply(steps[state.slot - part.slots.start])

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
            # Values are written once there is room, so nothing but gradients and step counts was touched.
            adapters.grads[slots.start : slots.stop] = 0
            adapters.steps.copy_(taken)
            self.policy.set_chunk((chunk + 1) // 2)
            torch.cuda.empty_cache()
            self.progress.notice(
                f"memory ran out in an update; from here on the chunk is {self.policy.chunk}, as the records will state"
            )

    def _evaluate(self, group: Group, members: Sequence[RunState]) -> None:
        asking = [(state, state.request) for state in members if isinstance(state.request, Evaluate)]
        started = time.monotonic()
        for task, count in sorted({(state.run.task, len(request.items)) for state, request in asking}):
            together = [
                (state, request.items)
                for state, request in asking
                if (state.run.task, len(request.items)) == (task, count)
            ]
            slots = group.parts[task].slots
            most = evaluation_batch(self.study)
            at = min(len(state.rows) for state, _ in together)
            before_batch = self.progress.evaluation(f"{len(together)} runs in {task}", count, most, self.stop.check, at)
            answers = [row["answers"] for row in self.base[task][:count]]
            rows = evaluate(self.study, task, self.policy, slots, together[0][1], answers, most, before_batch)
            for state, _ in together:
                self._end_evaluation(state, rows[state.slot - slots.start])
        self.evaluating += time.monotonic() - started

    def _grade_others(self, group: Group, members: Sequence[RunState]) -> None:
        asking = [state for state in members if isinstance(state.request, GradeOthers)]
        started = time.monotonic()
        for task in sorted({state.run.task for state in asking}):
            slots, together = group.parts[task].slots, [state for state in asking if state.run.task == task]
            for other in self.study.other_tasks(task):
                items, answers, most = (
                    self.others[other].items,
                    self.others[other].answers,
                    evaluation_batch(self.study),
                )
                what = f"answers in {other} by {len(together)} runs in {task}"
                before_batch = self.progress.evaluation(what, len(items), most, self.stop.check, self.study.rounds)
                rows = grade_fixed(self.study, other, self.policy, slots, items, answers, most, before_batch)
                for state in together:
                    state.transfer[other] = rows[state.slot - slots.start]
            for state in together:
                state.reply([row for rows in state.transfer.values() for row in rows])
        self.evaluating += time.monotonic() - started

    def _end_round(self, state: RunState, request: EndRound) -> None:
        state.rows.append(request.row)
        state.unsaved.append(request.row)
        if len(state.rows) % self.study.engine.checkpoint_every == 0 or len(state.rows) == self.study.rounds:
            self.keeper.save(state)
        state.reply(None)

    def _end_evaluation(self, state: RunState, rows: list[Row]) -> None:
        if finite(rows):
            state.evaluations[len(state.rows)] = rows
            state.unsaved.append({"evaluated": len(state.rows), "items": rows})
        state.reply(rows)
        if state.request is not None:
            # It may have taken longer than many rounds.
            self.keeper.save(state)

    def _save_all(self, states: Sequence[RunState]) -> int:
        """Writes the checkpoints of the runs that have not ended, and returns the fewest rounds that one has."""
        under_way = [state for state in states if state.request is not None]
        for state in under_way:
            if state.unsaved:
                self.keeper.save(state)
        return min(len(state.rows) for state in under_way)

    def _finish(self, state: RunState) -> None:
        seconds = time.monotonic() - self.started
        others = {task: graded.base for task, graded in self.others.items()}
        self.keeper.finish(state, self.slots, self.base[state.run.task], others, seconds, self.evaluating)
