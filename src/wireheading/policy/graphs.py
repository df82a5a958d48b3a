"""CUDA graphs: a step that works on tensors in place is recorded once and then replayed as a whole.

A decode step of a large model is some thousand small operations. Issued one by one from Python they take many times
longer than the GPU needs for them. On a CPU a step is simply called.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """The recorded steps of one set of tensors.

    Attributes:
        patience: Steps between two looks at whether all rows have ended, for which a GPU would have to be waited for.
    """

    def __init__(self, device: torch.device):
        """Records on a GPU, and only there."""
        self.recorded = device.type == "cuda"
        self.patience = 8 if self.recorded else 1
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}

    def columns(self, needed: int, most: int) -> int:
        """How many columns a step looks at: a recorded one always at all, since its shapes are fixed."""
        return most if self.recorded else needed

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Does a step.

        Args:
            key: Equal keys stand for the same operations on the same tensors.
            step: The operations, all of them in place or on memory of their own.
        """
        if not self.recorded:
            step()
            return
        if key not in self._graphs:
            # A first time without recording, so that the libraries have set themselves up.
            self._graphs[key] = None
            _once_written(step)
            return
        graph = self._graphs[key]
        if graph is None:
            graph = self._graphs[key] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                _once_written(step)
        graph.replay()


def _once_written(step: Callable[[], None]) -> None:
    """Does a step in which every place is written at most once, so that no order of writing needs to be enforced.

    PyTorch would otherwise sort the places of each indexed copy, which takes longer than the copy.
    """
    enforced = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        step()
    finally:
        torch.use_deterministic_algorithms(enforced)
