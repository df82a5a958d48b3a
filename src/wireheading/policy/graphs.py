"""CUDA graphs: a step that works on tensors in place is recorded once and then replayed as a whole.

A pass through a model consists of thousands of small operations. Launching them one by one from Python takes far longer
than computing them. On a CPU a step is simply called.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from functools import cache

import torch

LONGEST = 2e13
"""Tokens times parameters of a pass that takes a GPU longer to compute than a CPU to launch.

Recording a longer pass would gain nothing, and keep its memory for good.
"""


def worth_recording(work: float) -> bool:
    """Whether a step of so many tokens times parameters is recorded."""
    return work <= LONGEST


class Watch:
    """Checks every few steps whether any row is still running.

    A GPU answers what was so at the check before: then it is never waited for with nothing to do.
    """

    def __init__(self, running: torch.Tensor):
        """Takes whether each row is running, a tensor that the steps change."""
        self.running = running
        self.every = 4 if running.is_cuda else 1
        if running.is_cuda:
            self._answer = torch.ones(1, dtype=torch.bool, pin_memory=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def over(self, step: int) -> bool:
        """Whether all rows are known to have ended before a step."""
        if step % self.every:
            return False
        if not self.running.is_cuda:
            return not bool(self.running.any())
        self._event.synchronize()
        over = not bool(self._answer)
        self._answer.copy_(self.running.any(), non_blocking=True)
        self._event.record()
        return over


class Graphs:
    """The recorded steps of one set of tensors."""

    def __init__(self, device: torch.device):
        """Records on a GPU alone."""
        self.recorded = device.type == "cuda"
        self._replays: dict[Hashable, Callable[[], None] | None] = {}

    def columns(self, needed: int, most: int) -> int:
        """How many columns a step attends to: all of them if it is recorded, since its shapes are fixed."""
        return most if self.recorded else needed

    def run(self, key: tuple[Hashable, ...], step: Callable[[], object], work: float = 0.0) -> None:
        """Does a step.

        Args:
            key: What kind of step it is, and what else distinguishes it. Equal keys mean the same operations on the
                same tensors.
            step: The operations, in place or on memory of their own.
            work: Tokens times parameters that it computes.
        """
        if not self.recorded or not worth_recording(work):
            step()
            return
        if key not in self._replays:
            # The first call is not recorded, so that the libraries initialise themselves.
            self._replays[key] = None
            step()
            return
        replay = self._replays[key]
        if replay is None:
            replay = self._replays[key] = record(step)
        replay()


def record(step: Callable[[], object]) -> Callable[[], None]:
    """Records a step without doing it, and returns what does it.

    All graphs share one pool of memory: no two are replayed at once, and what one leaves lies in tensors outside.
    """
    graph, pool = torch.cuda.CUDAGraph(), _keeper().pool()
    # The collector would free graphs and events of closed sessions, which CUDA does not allow during a recording.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, pool=pool):
            step()
    finally:
        if collecting:
            gc.enable()
    return graph.replay


@cache
def _keeper() -> torch.cuda.CUDAGraph:
    """A graph that keeps the pool: once the last graph of a pool is gone, nothing can be recorded in it any more."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.zeros(1, device="cuda")
    return graph


def once_written(step: Callable[[], object]) -> None:
    """Does a step that writes every element at most once, so that the order of writes does not matter.

    PyTorch would otherwise sort the indices of each indexed copy, which takes longer than the copy.
    """
    enforced = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        step()
    finally:
        torch.use_deterministic_algorithms(enforced)
