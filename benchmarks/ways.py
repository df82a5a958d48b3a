"""The ways to compute rounds that are measured: the engine, and run after run by a baseline."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from baselines import Generate, OneRun, TokenByToken
from setting import Setting

from wireheading.engine.experiment import EndRound, GradeNext, Respond, Update, experiment
from wireheading.engine.keeping import Keeper
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.progress import Progress
from wireheading.engine.state import RunState
from wireheading.engine.stopping import Stop
from wireheading.policy.policy import Policy
from wireheading.policy.session import Session
from wireheading.study.config import Run, Study

Advance = Callable[[int], float]
"""Does so many rounds of each run and returns the seconds that they took."""


def batched(runs: Sequence[Run], size: int, study: Study) -> Iterator[list[Run]]:
    """The grid in lockstep groups: all of it, a seed's nine cells, a task's three conditions, or runs alone."""
    ordered = sorted(runs, key=lambda run: (run.seed, list(study.tasks).index(run.task)))
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        yield [run for run in runs if run in group]


def engine(
    setting: Setting,
    groups: Sequence[Sequence[Run]],
    clock: Clock,
    sampled: list[Any],
    *,
    graphs: bool,
) -> Advance:
    """The engine, a job for each group in turn on one model; rows of the rounds that were done go to `sampled`."""
    study, model = setting.study, setting.model
    policy = Policy(
        model,
        setting.chat,
        slots=max(len(group) for group in groups),
        chunk=study.engine.chunk if model.device.type == "cpu" else 18,
        lora=study.lora,
        optimizer=study.optimizer,
        temperature=study.temperature,
    )
    policy.update = clock.timed("updating", policy.update)  # type: ignore[method-assign]
    open_session = policy.open_session

    def timed_session(rows: int, columns: int) -> Session:
        session = open_session(rows, columns)
        if "prefill" not in vars(session):
            session.graphs.recorded &= graphs
            session.prefill = clock.timed("prefill", session.prefill)  # type: ignore[method-assign]
            session.decode = clock.timed("decoding", session.decode)  # type: ignore[method-assign]
        return session

    policy.open_session = timed_session  # type: ignore[method-assign]

    def advance(rounds: int) -> float:
        seconds = 0.0
        for group in groups:
            for slot, run in enumerate(group):
                policy.adapters.initialise(slot, run.seed)
            keeper = Keeper(study, policy, {}, lambda _: None, lambda _: None)
            job = Lockstep(
                study, group, policy, keeper, {}, {}, Progress(study, group, keeper.report, keeper.notice), Stop()
            )
            states = [
                RunState(run, slot, experiment(study, run, setting.chat, setting.data[run.task], []))
                for slot, run in enumerate(group)
            ]
            started = clock.now()
            for _ in range(rounds):
                job.play_round(states)
            seconds += clock.now() - started
            sampled.extend(row for state in states for row in state.rows)
        return seconds

    return advance


def one_by_one(
    setting: Setting, groups: Sequence[Sequence[Run]], clock: Clock, sampled: list[Any], name: str
) -> Advance:
    """A baseline, run after run; rows of the rounds that were done go to `sampled`."""
    kind: type[OneRun] = {"original": TokenByToken, "generate": Generate}[name]

    def advance(rounds: int) -> float:
        seconds = 0.0
        for run in itertools.chain.from_iterable(groups):
            one = kind(setting.model, setting.chat, setting.study)
            steps = experiment(setting.study, run, setting.chat, setting.data[run.task], [])
            started = clock.now()
            ask = next(steps)
            done = 0
            while done < rounds:
                if isinstance(ask, Respond):
                    ask = steps.send(clock.timed("decoding", one.respond)(ask.context, ask.draws))
                elif isinstance(ask, GradeNext):
                    ask = steps.send(clock.timed("decoding", one.grade)(ask.context, ask.draws))
                elif isinstance(ask, Update):
                    ask = steps.send(clock.timed("updating", one.update)(ask.sessions[0], ask.advantage))
                else:
                    assert isinstance(ask, EndRound)
                    sampled.append(ask.row)
                    done += 1
                    ask = next(steps)
            seconds += clock.now() - started
            one.model.unload()
        return seconds

    return advance


class Clock:
    """Adds up the time that is spent in named parts."""

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Forgets what was added up."""
        self.parts: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """The time when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to a part."""

        def timing(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            result = function(*args, **kwargs)
            self.parts[part] += self.now() - started
            return result

        return timing

    def shares(self, seconds: float) -> dict[str, float]:
        """Milliseconds of each part, and of the rest of so many seconds."""
        parts = {part: self.parts[part] * 1000 for part in ("prefill", "decoding", "updating")}
        return {**parts, "rest": seconds * 1000 - sum(parts.values())}
