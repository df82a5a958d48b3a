"""Recorded steps: a graph replays operations on addresses, so all that a step reads must lie where it lay."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from policies import WIDTHS, make_policy, some_turns
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wireheading.policy import graphs
from wireheading.policy.graphs import Graphs


class Recorder(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: operations that are done again on the tensors of the first time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        assert name not in ("lift_fresh", "_local_scalar_dense", "nonzero"), f"{name} goes through the CPU"
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, before in self.operations:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(step: Callable[[], None]) -> Callable[[], None]:
    """Records a step; since that does it as well, what it changed is done a second time in its place."""
    recorder = Recorder()
    with recorder:
        step()
    first = iter([None])
    return lambda: None if next(first, 0) is None else recorder.replay()


def record_everywhere(self: Graphs, _device: torch.device) -> None:
    self.recorded, self._replays = True, {}


def called(step: Callable[[], None]) -> Callable[[], None]:
    return step


def test_replayed_rounds_are_those_of_steps_that_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graphs, "__init__", record_everywhere)

    def rounds(record: Callable[[Callable[[], None]], Callable[[], None]]) -> list[Any]:
        monkeypatch.setattr(graphs, "record", record)
        policy = make_policy(5, chunk=2, choices={"grade": [(20,), (20, 21, 22)]}, lagged=[1, 3])
        rng = np.random.default_rng(0)
        seen: list[Any] = []
        for turn in range(5):
            session = policy.open_session(5, 8 + 5 + 1 + 7 + 4)
            contexts = [tuple(rng.integers(4, 200, rng.integers(1, 9)).tolist()) for _ in range(5)]
            seen += policy.sample(session, range(5), contexts, 8, [rng.random(5) for _ in range(5)], 5)
            gate = [True, turn % 2 == 0, True, True, True]
            seen += policy.sample(
                session, range(5), contexts, 8, [rng.random(4) for _ in range(5)], 4, gate, [0, 1, 1, 0, 1]
            )
            advantages = [float(value) for value in rng.normal(size=5)]
            rows = [some_turns(rng) for _ in range(5)]
            policy.adapters.remember(1 + 2 * (turn % 2))
            past = policy.open_session(2, 8 + 5)
            seen += policy.sample(past, range(5, 7), contexts[:2], 8, [rng.random(5) for _ in range(2)], 5)
            seen.append(policy.divergence(2, [(WIDTHS, rows[2])]))
            seen += policy.update(range(5), [(WIDTHS, rows)], [None, *advantages[1:]])
            apart = [(WIDTHS[i : i + 1], [turns[i : i + 1] for turns in rows]) for i in range(2)]
            seen += policy.update(range(5), apart, advantages)
        return [*seen, policy.adapters.values.tolist()]

    assert rounds(recorded) == rounds(called)


def test_nothing_is_collected_during_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the collector frees then, such as the graph of a closed session, would end the recording in an error."""

    class Graph:
        def pool(self) -> int:
            return 0

        def replay(self) -> None:
            seen.append("replayed")

    seen: list[object] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda _graph, pool: nullcontext())
    monkeypatch.setattr(graphs, "_keeper", Graph)
    graphs.record(lambda: seen.append(gc.isenabled()))()
    assert seen == [False, "replayed"]
    assert gc.isenabled()
